//! Published ports that a host cannot take: what it tells the managers of them, and what these say of the services.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use covey_gossip::Topic;
use covey_mesh::Frontend;
use covey_state::{
    Id,
    network::{Protocol, PublishedPort},
    store::Store,
};
use serde::{Deserialize, Serialize};

use crate::translate;

/// Ports that a host tells of. What is over stands in its log and in `net doctor`, and is counted in its metrics.
pub const REFUSED_MAX: usize = 64;
/// Bytes of the row, with all of them.
pub const REFUSED_BYTES_MAX: usize = covey_gossip::ROW_BYTES_MAX;
/// Bytes of the kernel's words that are told.
const WORDS_BYTES_MAX: usize = 64;
/// Hosts that a sentence names; of the others it says how many they are.
const NAMED_MAX: usize = 3;
/// Sentences about one service; of what is over it is said how much that is.
const SENTENCES_MAX: usize = 8;

/// The key of a host's row.
pub const KEY: &str = "refused";

/// The topic of ports that are refused: written by hosts, read by managers.
pub fn topic() -> Topic {
    // The text is short enough, always.
    "ports".parse().unwrap_or_else(|_| Topic::nodes())
}

/// A published port that does not answer on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedPort {
    /// Which.
    pub published: Published,
    /// Why.
    pub cause: Cause,
}

/// A published port of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    number: u16,
    protocol: Protocol,
    /// Only when this address of the host is addressed.
    host_ip: Option<IpAddr>,
}

/// Why a published port does not answer on a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cause {
    /// Another process has it.
    Process,
    /// It is the own port of this container, which is named by the beginning of its id.
    Container(String),
    /// The kernel refused, in these words.
    Kernel(String),
}

impl Cause {
    /// Of words of the kernel's.
    pub fn kernel(words: impl ToString) -> Self {
        let mut words = words.to_string();
        words.truncate(words.floor_char_boundary(WORDS_BYTES_MAX));
        Self::Kernel(words)
    }

    fn sentence(&self, port: Published, hosts: &BTreeSet<&str>) -> String {
        let (port, hosts) = (format!("port {}/{}", port.number, port.protocol), listed(hosts));
        // Tables show the beginning of it: the host comes before the rest.
        match self {
            Self::Process => format!("{port} is held on {hosts} by another process"),
            Self::Container(container) => format!("{port} is held on {hosts} by container {container}"),
            Self::Kernel(words) => format!("{port} cannot be held on {hosts}: {words}"),
        }
    }
}

impl Published {
    /// Both families' frontends of a port are one; what is no port is none.
    pub fn of_frontend(frontend: &Frontend) -> Option<Self> {
        let Frontend::Port { address, protocol, port } = *frontend else { return None };
        let host_ip = Some(address).filter(|address| !address.is_unspecified());
        Some(Self { number: port, protocol: translate::protocol_of(protocol), host_ip })
    }

    /// One of a service's.
    pub fn of_port(port: &PublishedPort) -> Self {
        let host_ip = port.host_ip.filter(|address| !address.is_unspecified());
        Self { number: port.published, protocol: port.protocol, host_ip }
    }
}

/// What there is to say of services, a sentence each, by what hosts tell: of a service that nobody tells of, nothing.
pub fn sentences<'a>(
    store: &Store,
    told: impl IntoIterator<Item = (Id, &'a [RefusedPort])>,
) -> BTreeMap<Id, Vec<String>> {
    let mut refused: BTreeMap<Published, BTreeMap<&Cause, BTreeSet<&str>>> = BTreeMap::new();
    for (host, ports) in told {
        let Some(host) = store.node(host) else { continue };
        for port in ports {
            let hosts = refused.entry(port.published).or_default().entry(&port.cause).or_default();
            hosts.insert(&host.description.hostname);
        }
    }
    if refused.is_empty() {
        return BTreeMap::new();
    }
    let of_service = store.services().map(|service| {
        let ports = service.exposure.ports.iter().filter(|port| port.is_ingress()).map(Published::of_port);
        let found = ports.filter_map(|port| Some((port, refused.get(&port)?)));
        let sentences = found
            .flat_map(|(port, causes)| causes.iter().map(move |(cause, hosts)| cause.sentence(port, hosts)));
        (service.id, bounded(sentences.collect()))
    });
    of_service.filter(|(_, sentences)| !sentences.is_empty()).collect()
}

/// `w1, w2 and w3`, `w1, w2, w3 and 5 more`
fn listed(hosts: &BTreeSet<&str>) -> String {
    let mut named: Vec<String> = hosts.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    match hosts.len() - named.len() {
        0 => {}
        more => named.push(format!("{more} more")),
    }
    let last = named.pop().unwrap_or_default();
    if named.is_empty() { last } else { format!("{} and {last}", named.join(", ")) }
}

fn bounded(mut sentences: Vec<String>) -> Vec<String> {
    let more = sentences.len().saturating_sub(SENTENCES_MAX);
    if more > 0 {
        sentences.truncate(SENTENCES_MAX);
        sentences.push(format!("{more} more ports do not answer on some hosts"));
    }
    sentences
}

#[cfg(test)]
mod tests;
