//! The way to an address by the routes, neighbours and forwarding entries that the kernel has.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use covey_overlay::{
    edge,
    object::{Hop, LinkName, Observed, TABLE_MAIN},
};
use covey_state::Id;

use super::{Counter, Step, list};
use crate::{
    endpoint::Scope,
    network::{fault, keeper::Keeper, report::INGRESS},
};

/// The ways of the kernel to an address; false where they end.
pub fn lead(
    keeper: &mut Keeper,
    scope: Scope,
    backend: SocketAddr,
    names: &BTreeMap<Id, String>,
    steps: &mut Vec<Step>,
) -> bool {
    let (observed, namespace, network) = match scope {
        Scope::Ingress => (keeper.edge.observe(), None, INGRESS.to_owned()),
        Scope::Network(id) => match keeper.carriers.get_mut(&id) {
            Some(carrier) => {
                (carrier.observe(), Some(carrier.path().to_owned()), carrier.config.name.clone())
            }
            None => return false,
        },
    };
    let observed = match observed {
        Ok(observed) => observed,
        Err(error) => {
            steps.push(Step::new("host", format!("the ways of network {network} cannot be read: {error:#}")));
            return false;
        }
    };
    let address = backend.ip();
    let Some(hop) = route(&observed, address) else {
        let (step, goes_on) = outside(keeper, scope, address, names);
        steps.push(step);
        return goes_on;
    };
    match hop {
        Hop::Unreachable => {
            steps.push(Step::new("host", format!("the way ends: nobody has {address}, senders are told so")));
            false
        }
        Hop::On(link) => {
            steps.push(Step::new("host", format!("{address} is on this host")));
            let counter = Counter::Here { namespace, link: link.clone(), sent: true };
            steps.push(Step::new("veth", of_link(keeper, scope, address, link)).counted(counter));
            true
        }
        Hop::Via(link, by) => over(keeper, &observed, (namespace, link, *by), address, names, steps),
    }
}

/// The most precise route.
fn route(observed: &Observed, address: IpAddr) -> Option<&Hop> {
    let routes = observed.routes.iter().filter(|(to, _)| to.table == TABLE_MAIN && to.net.contains(&address));
    routes.max_by_key(|(to, _)| to.net.prefix_len()).map(|(_, hop)| hop)
}

/// Through the VXLAN device to another host.
fn over(
    keeper: &Keeper,
    observed: &Observed,
    (namespace, link, by): (Option<PathBuf>, &LinkName, IpAddr),
    address: IpAddr,
    names: &BTreeMap<Id, String>,
    steps: &mut Vec<Step>,
) -> bool {
    let way = fault::way(&Hop::Via(link.clone(), by));
    let Some(mac) = observed.neighbours.get(&(link.clone(), by)) else {
        steps.push(Step::new("host", format!("{address} is reached {way}")));
        steps.push(Step::new("vtep", format!("the way ends: {by} has no neighbour entry on {link}")));
        return false;
    };
    let host = keeper.neighbours.iter().find(|neighbour| neighbour.host.mac() == *mac);
    let name = |id| names.get(&id).map_or("?", String::as_str);
    let on = host.map_or_else(String::new, |host| format!(" on {},", name(host.id)));
    steps.push(Step::new("host", format!("{address} is{on} reached {way}")));
    steps.push(Step::new("vtep", format!("{by} is {mac}")));
    let behind = observed.fdb.get(&(link.clone(), *mac)).filter(|behind| !behind.is_empty());
    let Some(behind) = behind else {
        steps.push(Step::new("fdb", format!("the way ends: {link} has no entry for {mac}")));
        return false;
    };
    let behind: Vec<&IpAddr> = behind.iter().collect();
    let port = keeper.place.map_or_else(String::new, |place| format!(", UDP port {}", place.port));
    let counter = Counter::Here { namespace, link: link.clone(), sent: true };
    steps.push(Step::new("fdb", format!("{mac} is behind {}{port}", list(&behind))).counted(counter));
    match host {
        Some(host) => {
            steps.push(Step::new("veth", format!("on {}", name(host.id))).counted(Counter::There(host.id)));
            true
        }
        None => {
            steps.push(Step::new("veth", format!("the way ends: nobody knows a host {mac}")));
            false
        }
    }
}

/// By the host's own routes, to where no route of ours leads; false where they do not go there.
fn outside(keeper: &Keeper, scope: Scope, address: IpAddr, names: &BTreeMap<Id, String>) -> (Step, bool) {
    if scope != Scope::Ingress {
        return (Step::new("host", format!("the way ends: there is no route to {address}")), false);
    }
    let member =
        keeper.neighbours.iter().find(|other| other.address == address || other.host.vtep == address);
    let text = match member {
        Some(member) => {
            let name = names.get(&member.id).map_or("?", String::as_str);
            format!(
                "{address} is host {name}: it leaves by this host's own routes, and what is published there decides the rest"
            )
        }
        None => {
            format!("{address} is outside: it leaves by this host's own routes, with an address of this host")
        }
    };
    (Step::new("host", text), true)
}

fn of_link(keeper: &Keeper, scope: Scope, address: IpAddr, link: &LinkName) -> String {
    match end_at(keeper, scope, address) {
        Some(End { container, .. }) => format!("{link} of container {container:.12}, on this host"),
        None => format!("{link}, on this host"),
    }
}

/// A container of this host, and the two ends of its link.
pub struct End {
    /// Its id.
    pub container: String,
    /// The host's end.
    pub link: LinkName,
    /// The namespace of its own end.
    pub namespace: PathBuf,
    /// The name of that end there.
    pub name: String,
}

/// The container that has this address.
pub fn end_at(keeper: &Keeper, scope: Scope, address: IpAddr) -> Option<End> {
    let (namespace, name, link) = match scope {
        Scope::Ingress => {
            let veth = keeper.edge.veth_of(address)?;
            (&veth.namespace, edge::INSIDE, &veth.name)
        }
        Scope::Network(id) => {
            let mut attachments = keeper.carriers.get(&id)?.desired.attachments.iter();
            let (link, attachment) =
                attachments.find(|(_, attachment)| attachment.addresses.contains(&address))?;
            (&attachment.namespace, attachment.inside.as_str(), link)
        }
    };
    let namespace = PathBuf::from(namespace);
    // Namespaces are called as their containers.
    let container = namespace.file_name()?.to_string_lossy().into_owned();
    Some(End { container, link: link.clone(), namespace, name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use covey_overlay::object::Destination;

    use super::*;

    #[test]
    fn the_most_precise_route_leads() {
        let mut observed = Observed::default();
        let net = |text: &str| Destination::main(text.parse::<ipnet::IpNet>().unwrap());
        observed.routes.insert(net("10.0.1.0/24"), Hop::Unreachable);
        observed.routes.insert(net("10.0.1.7/32"), Hop::On(LinkName::of_container("a")));
        let elsewhere = Destination { table: 100, net: "10.0.1.8/32".parse().unwrap() };
        observed.routes.insert(elsewhere, Hop::On(LinkName::of_container("b")));
        let lead = |last| route(&observed, IpAddr::from([10, 0, 1, last]));
        assert_eq!(lead(7), Some(&Hop::On(LinkName::of_container("a"))));
        assert_eq!(lead(8), Some(&Hop::Unreachable));
        assert_eq!(route(&observed, [10, 9, 9, 9].into()), None);
    }
}
