//! Endpoint rows: what a task's host tells all that reach it, so that nobody has to ask a manager.

use std::net::IpAddr;

use covey_gossip::Topic;
use covey_state::{
    Id,
    assignment::Assignment,
    network::{Exposure, PublishMode},
    node::EdgeBlock,
    task::ContainerStatus,
};
use serde::{Deserialize, Serialize};

/// Bytes of an endpoint's row: what gossip carries in one.
pub const ENDPOINT_BYTES_MAX: usize = covey_gossip::ROW_BYTES_MAX;
/// In front of a network's id in the name of its topic.
const PREFIX: &str = "net.";
/// The topic of published ports, which every host hears.
const INGRESS: &str = "ingress";

/// One task, or one plain container, in one network; or one task behind published ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its service; `None`: a plain container.
    pub service: Option<Service>,
    /// Names of its own: of its container first, then its host name.
    pub names: Vec<String>,
    /// Its container's id.
    pub container: String,
    /// More names of the service, or of the plain container, in this network.
    pub aliases: Vec<String>,
    /// Its addresses in this network; at the edge where the topic is that of published ports.
    pub addresses: Vec<IpAddr>,
    /// How its host is reached.
    pub host: Host,
    /// It finishes what it has, and takes nothing new.
    pub draining: bool,
}

/// How the host of an endpoint is reached through the VXLAN devices of its networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its node number: Ethernet addresses and marks derive from it.
    pub number: u32,
    /// Where it takes in packets of networks.
    pub vtep: IpAddr,
    /// Its edge block; the first address is the next hop to everything that it has.
    pub edge: EdgeBlock,
}

/// The service of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Which.
    pub id: Id,
    /// Its name.
    pub name: String,
    /// How it is reached. Where endpoints of one service differ, the highest version is true.
    pub exposure: Exposure,
}

/// What the rows of a topic are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// Published ports.
    Ingress,
    /// One network.
    Network(Id),
}

impl Scope {
    /// The topic of such rows.
    pub fn topic(self) -> Topic {
        let name = match self {
            Self::Ingress => INGRESS.to_owned(),
            Self::Network(id) => format!("{PREFIX}{id}"),
        };
        // Both are short enough, always.
        name.parse().unwrap_or_else(|_| Topic::nodes())
    }

    /// What the rows of this topic are about, where they are endpoints.
    pub fn of(topic: &Topic) -> Option<Self> {
        match topic.as_str() {
            INGRESS => Some(Self::Ingress),
            name => name.strip_prefix(PREFIX)?.parse().ok().map(Self::Network),
        }
    }
}

/// What is told of a task: in each of its networks, and as one behind published ports where it has some.
pub fn of_task(
    assignment: &Assignment,
    container: &ContainerStatus,
    host: Host,
    draining: bool,
) -> Vec<(Scope, Endpoint)> {
    let service = Service {
        id: assignment.service,
        name: assignment.service_name.to_string(),
        exposure: (*assignment.exposure).clone(),
    };
    let publishes = service.exposure.ports.iter().any(|port| port.mode == PublishMode::Ingress);
    let endpoint = |addresses: Vec<IpAddr>, aliases: &[String]| Endpoint {
        service: Some(service.clone()),
        names: vec![assignment.container_name(), assignment.spec.container.hostname.clone()],
        container: container.id.clone(),
        aliases: aliases.to_vec(),
        addresses,
        host,
        draining,
    };
    let mut told: Vec<(Scope, Endpoint)> = assignment
        .networks
        .iter()
        .map(|attached| {
            let endpoint = endpoint(attached.addresses.clone(), &attached.aliases);
            (Scope::Network(attached.network.id), endpoint)
        })
        .collect();
    if publishes {
        let of_network = |address: &IpAddr| {
            assignment.networks.iter().any(|attached| attached.addresses.contains(address))
        };
        let own = container.addresses.iter().filter(|address| !of_network(address)).copied();
        told.push((Scope::Ingress, endpoint(own.collect(), &[])));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_told_apart() {
        for scope in [Scope::Ingress, Scope::Network(Id::new(7)), Scope::Network(Id::new(u128::MAX))] {
            assert_eq!(Scope::of(&scope.topic()), Some(scope));
        }
        for other in ["nodes", "tasks", "net.", "net.x y", "ingresses"] {
            assert_eq!(Scope::of(&other.parse().unwrap()), None, "{other}");
        }
    }
}
