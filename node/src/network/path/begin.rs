//! Where a way begins: what the container asks for, and by which of its links it sends to that.

use std::{net::IpAddr, path::PathBuf};

use covey_mesh::names::{Answer, Kind, Question, Record};
use covey_overlay::object::LinkName;
use covey_state::network::Wiring;

use super::{Counter, Step, list};
use crate::{endpoint::Scope, network::keeper::Keeper};

/// The beginning of a way.
pub struct Begun {
    pub steps: Vec<Step>,
    /// Where it goes on; `None`: it ends here.
    pub start: Option<Start>,
}

/// From where a connection is made, and to where.
pub struct Start {
    /// The container's.
    pub namespace: PathBuf,
    /// What it connects to.
    pub address: IpAddr,
    /// The network by which it goes there.
    pub scope: Scope,
}

/// From what the user says to an address and the network by which it is reached.
pub fn begin(keeper: &mut Keeper, container: &str, to: &str) -> Begun {
    let Some(wiring) = keeper.wiring(container).cloned() else {
        let text =
            "the way ends: it does not run, or has no network of Covey's (it is in the host's, or in none)";
        return Begun { steps: vec![Step::new("container", text)], start: None };
    };
    let mut steps = Vec::new();
    let address = match to.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            let (step, address) = resolve(keeper, &wiring, to);
            steps.push(step);
            address
        }
    };
    let start = address.and_then(|address| {
        let (step, scope) = leave(keeper, container, &wiring, address);
        steps.push(step);
        Some(Start { namespace: keeper.path(container), address, scope: scope? })
    });
    Begun { steps, start }
}

/// Asks the zones of the container's networks in their order, as its resolver does.
fn resolve(keeper: &Keeper, wiring: &Wiring, name: &str) -> (Step, Option<IpAddr>) {
    let carriers = || wiring.networks.iter().filter_map(|attached| keeper.carriers.get(&attached.network.id));
    for kind in [Kind::V4, Kind::V6] {
        let question = Question::new(name, kind);
        for carrier in carriers() {
            let network = &carrier.config.name;
            match carrier.zone.borrow().answer(&question, 0) {
                Answer::Records(records) => {
                    let addresses: Vec<IpAddr> = records.iter().filter_map(of_record).collect();
                    let Some(first) = addresses.first() else { continue };
                    let text = format!("network {network} knows {name}: {}", list(&addresses));
                    return (Step::new("dns", text), Some(*first));
                }
                Answer::Unavailable => {
                    let text =
                        format!("the way ends: network {network} knows {name}, and nobody is behind it now");
                    return (Step::new("dns", text), None);
                }
                Answer::NoData | Answer::Unheard | Answer::Unknown => {}
            }
        }
    }
    let networks: Vec<&str> = carriers().map(|carrier| carrier.config.name.as_str()).collect();
    let text = match (networks.is_empty(), wiring.edge) {
        (true, _) => {
            format!("the way ends: the container is in no network that has names; {name} is asked elsewhere")
        }
        (false, true) => {
            format!("the way ends: {name} is no name in {}; other resolvers are asked", networks.join(", "))
        }
        (false, false) => format!("the way ends: {name} is no name in {}", networks.join(", ")),
    };
    (Step::new("dns", text), None)
}

const fn of_record(record: &Record) -> Option<IpAddr> {
    match record {
        Record::Address(address) => Some(*address),
        Record::Pointer(_) | Record::Service { .. } => None,
    }
}

/// By which of its links the container sends to this address.
fn leave(keeper: &Keeper, container: &str, wiring: &Wiring, address: IpAddr) -> (Step, Option<Scope>) {
    let own = wiring.networks.iter().any(|attached| attached.addresses.contains(&address));
    if own
        || address.is_loopback()
        || keeper
            .edge
            .addresses(container)
            .is_some_and(|pair| [IpAddr::V4(pair.v4), IpAddr::V6(pair.v6)].contains(&address))
    {
        return (Step::new("container", format!("the way ends: {address} is the container itself")), None);
    }
    let link = LinkName::of_container(container);
    let attached = wiring
        .networks
        .iter()
        .find(|attached| attached.network.subnets.iter().any(|subnet| subnet.net.contains(&address)));
    let (text, namespace, scope) = match attached {
        Some(attached) => {
            let namespace =
                keeper.carriers.get(&attached.network.id).map(|carrier| carrier.path().to_owned());
            let text = format!("{address} is in network {}: sent by {link}", attached.network.name);
            (text, namespace, Scope::Network(attached.network.id))
        }
        None if wiring.edge => (
            format!("{address} is in no network of the container: sent to its host by {link}"),
            None,
            Scope::Ingress,
        ),
        None => {
            let text =
                format!("the way ends: {address} is in no network of the container, and it has no way out");
            return (Step::new("container", text), None);
        }
    };
    (Step::new("container", text).counted(Counter::Here { namespace, link, sent: false }), Some(scope))
}
