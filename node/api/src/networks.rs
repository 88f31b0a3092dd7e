//! The networks that this node knows of: those that every node has, its own, and those of the cluster.

use std::{sync::Arc, time::Duration};

use covey_state::network::{Network, NetworkConfig};
use tokio::time::timeout;

use crate::{
    app::App,
    control::{Carried, CarriedNetwork, LocalState, View},
    convert::network::{BRIDGE, OVERLAY, fingerprint},
    engine::{self, Container, Endpoint, LocalNetwork, NetworkRef},
    failure::Failure,
    wire::Texts,
};

/// How long a look at networks waits for the cluster: the node's own are shown all the same.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(3);
/// The id of the ingress network, on every node of every cluster: it is not in the store.
pub const INGRESS_ID: &str = "coveyingressnetwork000000";
/// The id of the network of the host, the same on every node: specs of services name it.
pub const HOST_ID: &str = "coveyhostnetwork000000000";
/// Says that a container is a task's, and which.
pub const TASK_LABEL: &str = "com.docker.swarm.task.id";

/// A network, as far as it is known here.
#[derive(Clone, Debug)]
pub enum Known {
    /// One that every node has.
    Given(Given),
    /// A user's, on this host.
    Local(LocalNetwork),
    /// The cluster's, as a manager knows it.
    Cluster(Arc<Network>),
    /// The cluster's, as a worker that carries it knows it.
    Carried(Arc<NetworkConfig>),
}

/// The networks that every node has (NET-01).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// The edge, for plain containers.
    Bridge,
    /// The edge, for containers that are on networks of their own.
    Gateway,
    /// The host's own.
    Host,
    /// None.
    None,
    /// The edges of all nodes, through which published ports are served (NET-04).
    Ingress,
}

impl Given {
    /// What the edge is to a container that is there: what it asked for, the way to the ports that its service publishes,
    /// or no more than the way out of the networks that it did ask for.
    pub fn edge_of(container: &Container) -> Self {
        let others = container.endpoints.iter().any(|endpoint| endpoint.network != NetworkRef::Bridge);
        let asked = container.network == engine::Network::Bridge && !is_task(container);
        match (container.ingress, others && !asked) {
            (true, _) => Self::Ingress,
            (false, true) => Self::Gateway,
            (false, false) => Self::Bridge,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Gateway => "docker_gwbridge",
            Self::Host => "host",
            Self::None => "none",
            Self::Ingress => "ingress",
        }
    }

    fn driver(self) -> &'static str {
        match self {
            Self::Bridge | Self::Gateway => BRIDGE,
            Self::Host => "host",
            Self::None => "null",
            Self::Ingress => OVERLAY,
        }
    }

    /// The id on the host of this id.
    pub fn id(self, host: &str) -> String {
        match self {
            Self::Ingress => INGRESS_ID.to_owned(),
            Self::Host => HOST_ID.to_owned(),
            Self::Bridge | Self::Gateway | Self::None => fingerprint(&[host, self.name()]),
        }
    }
}

impl Known {
    /// Its id; `host` is the id of this host's daemon.
    pub fn id(&self, host: &str) -> String {
        match self {
            Self::Given(given) => given.id(host),
            Self::Local(network) => network.id.clone(),
            Self::Cluster(network) => network.id.to_string(),
            Self::Carried(network) => network.id.to_string(),
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Given(given) => given.name(),
            Self::Local(network) => &network.spec.name,
            Self::Cluster(network) => &network.spec.name,
            Self::Carried(network) => &network.name,
        }
    }

    pub fn driver(&self) -> &'static str {
        match self {
            Self::Given(given) => given.driver(),
            Self::Local(_) => BRIDGE,
            Self::Cluster(_) | Self::Carried(_) => OVERLAY,
        }
    }

    pub fn scope(&self) -> &'static str {
        if self.driver() == OVERLAY { "swarm" } else { "local" }
    }

    pub fn labels(&self) -> Texts {
        match self {
            Self::Local(network) => network.spec.labels.clone(),
            Self::Cluster(network) => network.spec.labels.clone(),
            Self::Given(_) | Self::Carried(_) => Texts::new(),
        }
    }

    /// Nobody made it, so that nobody can remove it (NET-07).
    pub fn is_given(&self) -> bool {
        matches!(self, Self::Given(_))
    }

    /// True where `endpoint` of `container` is a place in this network.
    pub fn has(&self, container: &Container, endpoint: &Endpoint) -> bool {
        match (self, &endpoint.network) {
            // As in Docker, what is behind published ports goes out through the gateway (NET-05).
            (Self::Given(given), NetworkRef::Bridge) => match Given::edge_of(container) {
                Given::Ingress => matches!(given, Given::Ingress | Given::Gateway),
                edge => *given == edge,
            },
            (Self::Local(network), NetworkRef::Local(id)) => network.id == *id,
            (Self::Cluster(network), NetworkRef::Cluster(id)) => network.id == *id,
            (Self::Carried(network), NetworkRef::Cluster(id)) => network.id == *id,
            _ => false,
        }
    }
}

/// True for a container of a task.
pub fn is_task(container: &Container) -> bool {
    container.spec.labels.contains_key(TASK_LABEL)
}

/// The networks that a container shows itself in, by their names: its way out of them is none.
pub fn shown_places(container: &Container) -> impl Iterator<Item = (&str, &Endpoint)> {
    let edge = Given::edge_of(container);
    container.endpoints.iter().filter_map(move |endpoint| match endpoint.network {
        NetworkRef::Bridge if edge == Given::Gateway => None,
        NetworkRef::Bridge => Some((edge.name(), endpoint)),
        NetworkRef::Local(_) | NetworkRef::Cluster(_) => Some((endpoint.name.as_str(), endpoint)),
    })
}

/// All networks that this node knows of, and what lies around them.
pub struct Networks {
    /// Id of this host's daemon.
    pub host: String,
    /// In the order in which they are listed.
    pub all: Vec<Known>,
    /// This node's containers.
    pub containers: Vec<Container>,
    /// What this node carries.
    pub carried: Carried,
    /// The cluster, on a manager that reaches the others.
    pub view: Option<View>,
}

impl Networks {
    /// The network that is meant by its id, its name or the beginning of its id. `None`: there is none.
    pub fn find(&self, reference: &str) -> Result<Option<&Known>, Failure> {
        let by = |matches: &dyn Fn(&Known) -> bool| {
            self.all.iter().filter(|known| matches(known)).collect::<Vec<_>>()
        };
        let full = by(&|known| known.id(&self.host) == reference);
        let named = by(&|known| known.name() == reference);
        let begun = by(&|known| !reference.is_empty() && known.id(&self.host).starts_with(reference));
        let found = [full, named, begun].into_iter().find(|found| !found.is_empty()).unwrap_or_default();
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            several => {
                let count = several.len();
                Err(Failure::invalid(format!("network {reference} is ambiguous ({count} matches found)")))
            }
        }
    }

    /// As [`Self::find`], with Docker's words where there is none.
    pub fn get(&self, reference: &str) -> Result<&Known, Failure> {
        self.find(reference)?.ok_or_else(|| missing(reference))
    }

    /// What the node carries of a network; `None`: it is not active here.
    pub fn carried(&self, known: &Known) -> Option<&CarriedNetwork> {
        let id = match known {
            Known::Cluster(network) => network.id,
            Known::Carried(network) => network.id,
            Known::Given(_) | Known::Local(_) => return None,
        };
        self.carried.networks.iter().find(|carried| carried.network.id == id)
    }

    /// The containers that run in a network.
    pub fn members<'a>(&'a self, known: &'a Known) -> impl Iterator<Item = (&'a Container, &'a Endpoint)> {
        let places =
            |container: &'a Container| container.endpoints.iter().map(move |endpoint| (container, endpoint));
        (self.containers.iter())
            .flat_map(places)
            .filter(|(container, endpoint)| !endpoint.addresses.is_empty() && known.has(container, endpoint))
    }

    /// True where nothing uses a network, as far as can be seen from here.
    pub fn is_unused(&self, known: &Known) -> bool {
        let of_cluster = match (known, &self.view) {
            (Known::Cluster(network), Some(View { store, .. })) => {
                let uses = |networks: &[covey_state::network::AttachmentSpec]| {
                    networks.iter().any(|attachment| attachment.network == network.id)
                };
                store.services().any(|service| uses(&service.spec.task.networks))
                    || store.attachments().any(|attachment| attachment.network == network.id)
            }
            _ => false,
        };
        !of_cluster && self.members(known).next().is_none()
    }
}

/// There is no such network.
pub fn missing(reference: &str) -> Failure {
    Failure::not_found(format!("network {reference} not found"))
}

impl App {
    /// All of a network: of one that this node knows in part, if a manager answers in time.
    pub async fn whole(&self, known: &Known) -> Known {
        let Known::Carried(carried) = known else { return known.clone() };
        let id = carried.id.to_string();
        match timeout(CLUSTER_TIMEOUT, self.control.find_network(&id)).await {
            Ok(Ok(Some(network))) => Known::Cluster(network),
            _ => known.clone(),
        }
    }

    /// The networks that this node knows of. A cluster that does not answer hides those that this node does not carry.
    pub async fn networks(&self) -> Result<Networks, Failure> {
        let containers = self.engine.containers().await?;
        let locals = self.engine.networks().await?;
        let carried = self.control.carried();
        let membership = self.control.membership();
        let view = match membership.manager {
            true => timeout(CLUSTER_TIMEOUT, self.control.read()).await.ok().and_then(Result::ok),
            false => None,
        };
        let mut all: Vec<_> = [Given::Bridge, Given::Gateway, Given::Host].map(Known::Given).into();
        if membership.state != LocalState::Inactive {
            all.push(Known::Given(Given::Ingress));
        }
        all.push(Known::Given(Given::None));
        all.extend(locals.into_iter().map(Known::Local));
        match &view {
            Some(view) => all.extend(view.store.networks().cloned().map(Known::Cluster)),
            None => all.extend(carried.networks.iter().map(|one| Known::Carried(one.network.clone()))),
        }
        Ok(Networks { host: self.host.id.clone(), all, containers, carried, view })
    }
}
