//! What names, tables and ways of this host decide about one connection.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::PathBuf,
};

use covey_mesh::{
    Balance, Frontend, Protocol, Virtual,
    names::{Answer, Kind, Question, Record},
};
use covey_overlay::object::{Hop, LinkName, Observed, TABLE_MAIN};
use covey_state::{Id, network::Wiring};

use super::{Counter, Step};
use crate::{
    endpoint::Scope,
    network::{balancer::Balancer, fault, keeper::Keeper, report::INGRESS},
};

/// Addresses that a step names; of more only how many they are.
const SHOWN_MAX: usize = 8;

/// The begin of a way.
pub struct Begun {
    pub steps: Vec<Step>,
    /// Where it goes on; `None`: it ends here.
    pub start: Option<Start>,
}

/// Where a connection begins.
pub struct Start {
    /// The container's.
    pub namespace: PathBuf,
    /// What it connects to.
    pub address: IpAddr,
    /// The network by which it goes there.
    pub scope: Scope,
}

/// The rest of a way, as far as this host knows it.
pub struct Decided {
    pub steps: Vec<Step>,
    /// Who has the connection; `None`: nobody.
    pub backend: Option<SocketAddr>,
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
                Answer::NoData | Answer::Unknown => {}
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

fn list<T: ToString>(things: &[T]) -> String {
    let shown: Vec<String> = things.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    match things.len().saturating_sub(SHOWN_MAX) {
        0 => shown.join(", "),
        more => format!("{}, and {more} more", shown.join(", ")),
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

/// From the connection as the container sees it to the link of the container that has it.
pub fn decide(
    keeper: &mut Keeper,
    scope: Scope,
    protocol: Protocol,
    from: SocketAddr,
    to: SocketAddr,
    names: &BTreeMap<Id, String>,
) -> Decided {
    let mut steps = Vec::new();
    let backend = balance(keeper, scope, protocol, from, to, &mut steps);
    match backend {
        Ok(Some(backend)) => {
            let backend = lead(keeper, scope, backend, names, &mut steps).then_some(backend);
            Decided { steps, backend }
        }
        Ok(None) => Decided { steps, backend: None },
        Err(error) => {
            steps.push(Step::new("vip", format!("the kernel cannot be asked: {error:#}")));
            Decided { steps, backend: None }
        }
    }
}

/// Who answers the connection; `None` where the way ends.
fn balance(
    keeper: &mut Keeper,
    scope: Scope,
    protocol: Protocol,
    from: SocketAddr,
    to: SocketAddr,
    steps: &mut Vec<Step>,
) -> anyhow::Result<Option<SocketAddr>> {
    let Some(balancer) = balancer(keeper, scope) else { return Ok(None) };
    let frontends = match scope {
        Scope::Network(_) => vec![Frontend::Address(to.ip())],
        Scope::Ingress if is_local(to.ip()) => {
            let any = match to {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            [to.ip(), any].map(|address| Frontend::Port { address, protocol, port: to.port() }).to_vec()
        }
        Scope::Ingress => return Ok(Some(to)),
    };
    let mut found = None;
    for frontend in frontends {
        found = balancer.lookup(&frontend)?;
        if found.is_some() {
            break;
        }
    }
    let (port, is_port) = (format!("{}/{}", to.port(), protocol.as_str()), scope == Scope::Ingress);
    let Some(behind) = found else {
        if is_port {
            let text = format!(
                "{} is this host, which publishes no port {port}: a process of its own answers, or nobody",
                to.ip()
            );
            steps.push(Step::new("host", text));
            return Ok(None);
        }
        return Ok(Some(to));
    };
    let what = if is_port {
        format!("port {port} of this host is published")
    } else {
        format!("{} is virtual", to.ip())
    };
    steps.push(Step::new("vip", format!("{what}: {}", choice(&behind))));
    if behind.backends.is_empty() {
        return Ok(None);
    }
    let chosen = balancer.answered_by(protocol, from, to)?.filter(|backend| *backend != to);
    let first =
        behind.backends.first().map(|first| SocketAddr::new(first.address, first.port.unwrap_or(to.port())));
    let backend = chosen.or(first);
    let name = |address: IpAddr| {
        let row = balancer.rows.iter().find(|(_, row)| row.addresses.contains(&address));
        row.and_then(|(_, row)| row.names.first()).map_or_else(String::new, |name| format!(", {name},"))
    };
    steps.extend(backend.map(|backend| {
        let name = name(backend.ip());
        Step::new(
            "backend",
            match chosen {
                Some(_) => format!("{backend}{name} has the connection from {from}"),
                None => format!(
                    "the kernel keeps no trace of a refused connection: {backend}{name} is tried alone"
                ),
            },
        )
    }));
    Ok(backend)
}

fn balancer(keeper: &mut Keeper, scope: Scope) -> Option<&mut Balancer> {
    match scope {
        Scope::Ingress => Some(&mut keeper.edge.balancer),
        Scope::Network(id) => keeper.carriers.get_mut(&id).map(|carrier| &mut carrier.balancer),
    }
}

fn choice(behind: &Virtual) -> String {
    let how = match behind.balance {
        Balance::Random => "by chance",
        Balance::RoundRobin => "in turn",
        Balance::SourceHash => "by the client's address",
    };
    let addresses: Vec<IpAddr> = behind.backends.iter().map(|backend| backend.address).collect();
    match addresses.len() {
        0 => "nobody is behind it, and connections are refused".to_owned(),
        1 => format!("it leads to {}", list(&addresses)),
        count => format!("it leads to one of {count}, {how}: {}", list(&addresses)),
    }
}

/// Whether this host has this address: what it has can be bound.
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// The ways of the kernel to an address; false where they end.
fn lead(
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
    match link_to(keeper, scope, address) {
        Some((container, ..)) => format!("{link} of container {container:.12}, on this host"),
        None => format!("{link}, on this host"),
    }
}

/// The container of this host that has this address: its id, the namespace of its link's outer end, and that link.
pub fn link_to(
    keeper: &Keeper,
    scope: Scope,
    address: IpAddr,
) -> Option<(String, Option<PathBuf>, LinkName)> {
    let (inside, namespace, link) = match scope {
        Scope::Ingress => {
            let veth = keeper.edge.veth_of(address)?;
            (&veth.namespace, None, veth.name.clone())
        }
        Scope::Network(id) => {
            let carrier = keeper.carriers.get(&id)?;
            let mut attachments = carrier.desired.attachments.iter();
            let (link, attachment) =
                attachments.find(|(_, attachment)| attachment.addresses.contains(&address))?;
            (&attachment.namespace, Some(carrier.path().to_owned()), link.clone())
        }
    };
    // Namespaces are called as their containers.
    let container = PathBuf::from(inside).file_name()?.to_string_lossy().into_owned();
    Some((container, namespace, link))
}

#[cfg(test)]
mod tests {
    use covey_mesh::Backend;
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

    #[test]
    fn what_is_behind_an_address_is_told_in_words() {
        let behind = |count: u8, balance| {
            let backends = (0..count).map(|last| Backend { address: [10, 0, 1, last].into(), port: None });
            choice(&Virtual { balance, backends: backends.collect() })
        };
        assert_eq!(behind(0, Balance::Random), "nobody is behind it, and connections are refused");
        assert_eq!(behind(1, Balance::Random), "it leads to 10.0.1.0");
        assert_eq!(behind(2, Balance::RoundRobin), "it leads to one of 2, in turn: 10.0.1.0, 10.0.1.1");
        assert!(behind(12, Balance::SourceHash).ends_with("10.0.1.7, and 4 more"));
    }

    #[test]
    fn only_an_address_of_this_host_is_local() {
        assert!(is_local(Ipv4Addr::LOCALHOST.into()));
        assert!(!is_local([192, 0, 2, 1].into()));
    }
}
