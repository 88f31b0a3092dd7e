//! Networks: what users ask for, what the cluster decided, and what one container has of them.

mod check;

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::check::{ENCRYPTED_OPTION, NETWORK_NAME_MAX, NetworkSpecError};
use crate::{
    Id, Version,
    range::{bits, usable},
    time::Stamp,
};

/// The VNI of the edge, which no overlay has.
pub const EDGE_VNI: u32 = 4096;
/// VNIs have 24 bits (RFC 7348).
pub const VNI_MAX: u32 = (1 << 24) - 1;
/// Subnets of one network.
pub const SUBNETS_MAX: usize = 16;
/// Networks of one service or container.
pub const ATTACHMENTS_MAX: usize = 32;
/// Published ports of one service.
pub const PORTS_MAX: usize = 256;
/// Ports that are given where the user names none.
pub const DYNAMIC_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// What the user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Unique among networks.
    pub name: String,
    /// Labels of the network.
    pub labels: BTreeMap<String, String>,
    /// Options of the driver, as they were given.
    pub options: BTreeMap<String, String>,
    /// It has an IPv6 subnet too.
    pub ipv6: bool,
    /// It has no way out.
    pub internal: bool,
    /// Plain containers may join it.
    pub attachable: bool,
    /// Empty: one from the pool of the cluster, and one more of IPv6 where that is asked for.
    pub subnets: Vec<SubnetSpec>,
    /// Bytes of a packet; `None`: what the underlay leaves.
    pub mtu: Option<u32>,
    /// One for each subnet; empty: the cluster chooses.
    pub vnis: Vec<u32>,
}

/// One subnet, as the user asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetSpec {
    /// The subnet.
    pub subnet: IpNet,
    /// `None`: its first address.
    pub gateway: Option<IpAddr>,
    /// Addresses are taken from this part of it only.
    pub range: Option<IpNet>,
}

/// A network as the cluster remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: Id,
    /// Its last change.
    pub version: Version,
    /// Its creation.
    pub created_at: Stamp,
    /// Its last change.
    pub updated_at: Stamp,
    /// What is wanted.
    pub spec: NetworkSpec,
    /// What was decided.
    pub subnets: Vec<Subnet>,
}

/// One subnet of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The subnet.
    pub net: IpNet,
    /// The router's address: no task has it.
    pub gateway: IpAddr,
    /// Addresses are taken from this part of it only.
    pub range: Option<IpNet>,
    /// Its own VXLAN network identifier; `None` on a network of one host.
    pub vni: Option<u32>,
}

impl Subnet {
    /// The first and the last of the addresses that are given to those who ask for none.
    pub fn given(&self) -> (u128, u128) {
        let (first, last) = usable(self.net);
        match self.range {
            Some(range) => (first.max(bits(range.network())), last.min(bits(range.broadcast()))),
            None => (first, last),
        }
    }
}

/// What a host has to know of a network that it carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// Which.
    pub id: Id,
    /// Its name: `<name>.<network>` is a name inside it.
    pub name: String,
    /// It has no way out.
    pub internal: bool,
    /// Bytes of a packet; `None`: what the underlay leaves.
    pub mtu: Option<u32>,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
}

impl NetworkConfig {
    /// It is the cluster's, and reaches from host to host. One of a host alone has no VNI.
    pub fn is_overlay(&self) -> bool {
        self.subnets.iter().any(|subnet| subnet.vni.is_some())
    }
}

impl Network {
    /// What a host has to know of it.
    pub fn config(&self) -> NetworkConfig {
        NetworkConfig {
            id: self.id,
            name: self.spec.name.clone(),
            internal: self.spec.internal,
            mtu: self.spec.mtu,
            subnets: self.subnets.clone(),
        }
    }
}

/// A network that a service asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentSpec {
    /// Which.
    pub network: Id,
    /// More names of the service inside it.
    pub aliases: Vec<String>,
}

/// What a task has of one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskAttachment {
    /// Which.
    pub network: Id,
    /// One of each subnet's family: IPv4 first.
    pub addresses: Vec<IpAddr>,
}

/// A plain container's place in a network of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its id.
    pub id: Id,
    /// Its last change.
    pub version: Version,
    /// Which network.
    pub network: Id,
    /// The container's node.
    pub node: Id,
    /// The container, for the user.
    pub container: String,
    /// Its addresses: IPv4 first.
    pub addresses: Vec<IpAddr>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// As the Engine API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(UnknownProtocol(text.to_owned())),
        }
    }
}

/// Ports are of three protocols.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("protocol {0:?} is none of tcp, udp and sctp")]
pub struct UnknownProtocol(pub String);

/// Where a published port answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PublishMode {
    /// On every host.
    #[default]
    Ingress,
    /// On the task's host only.
    Host,
}

impl PublishMode {
    /// As the Engine API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Host => "host",
        }
    }
}

/// A published port.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    /// For the user, and for SRV records.
    pub name: String,
    /// Of both ports.
    pub protocol: Protocol,
    /// The task's port, never 0.
    pub target: u16,
    /// The host's port; 0 in a spec: the cluster, or in host mode the host, chooses.
    pub published: u16,
    /// Where the user named a range for a plain container's port, the last of it: the host chooses. 0: there is none.
    #[serde(default)]
    pub last: u16,
    /// Where it answers.
    pub mode: PublishMode,
    /// Only when this address of the host is addressed.
    pub host_ip: Option<IpAddr>,
}

/// What a service's name means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointMode {
    /// One virtual address per network.
    #[default]
    Vip,
    /// The addresses of its tasks.
    Dnsrr,
}

impl EndpointMode {
    /// As the Engine API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vip => "vip",
            Self::Dnsrr => "dnsrr",
        }
    }
}

/// How a service is reached from outside its tasks, as the user asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// What its name means.
    pub mode: EndpointMode,
    /// Its published ports.
    pub ports: Vec<PublishedPort>,
}

/// The label of a service that chooses its [`Balance`].
pub const BALANCE_LABEL: &str = "covey.balance";
/// The label that names the stack of a service.
pub const STACK_LABEL: &str = "com.docker.stack.namespace";

/// Which backend takes a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Balance {
    /// Any.
    #[default]
    Random,
    /// Each in turn.
    RoundRobin,
    /// Always the same one for the same client.
    SourceHash,
}

impl Balance {
    /// As the label has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::RoundRobin => "round-robin",
            Self::SourceHash => "source-hash",
        }
    }
}

impl std::str::FromStr for Balance {
    type Err = UnknownBalance;

    fn from_str(text: &str) -> Result<Self, UnknownBalance> {
        match text {
            "random" => Ok(Self::Random),
            "round-robin" => Ok(Self::RoundRobin),
            "source-hash" => Ok(Self::SourceHash),
            _ => Err(UnknownBalance(text.to_owned())),
        }
    }
}

/// There are three ways to balance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("label {BALANCE_LABEL}={0}: must be random, round-robin or source-hash")]
pub struct UnknownBalance(pub String);

/// A service's virtual address in one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vip {
    /// The network.
    pub network: Id,
    /// One of each family: IPv4 first.
    pub addresses: Vec<IpAddr>,
}

/// How a service is reached: what the user asked for and what the cluster decided, as of one version. Every host with
/// a task of it tells all others, so that where they differ the highest version is true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// When it last changed.
    pub version: Version,
    /// What its name means.
    pub mode: EndpointMode,
    /// Which task takes a new connection.
    pub balance: Balance,
    /// The stack that it belongs to; empty: none.
    pub stack: String,
    /// Its published ports, none of the ingress ones 0.
    pub ports: Vec<PublishedPort>,
    /// Its virtual addresses.
    pub vips: Vec<Vip>,
}

/// What a container has of the networks, for whoever wires it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wiring {
    /// It has an interface at the edge: a way out, and published ports.
    pub edge: bool,
    /// The edge was asked for by itself, as Docker's `bridge`: not only as the way out of its networks.
    #[serde(default)]
    pub bridge: bool,
    /// The networks that it is in, the one for names without a dot first.
    pub networks: Vec<Attached>,
    /// Ports of its host that are its own (host mode), and those that its service publishes on every host.
    pub ports: Vec<PublishedPort>,
    /// Name servers in place of the host's.
    pub nameservers: Vec<IpAddr>,
    /// Names inside the container's networks beside its own and its id's.
    pub names: Vec<String>,
    /// Those of its addresses there that a user asked for.
    #[serde(default)]
    pub chosen: Vec<IpAddr>,
}

impl Wiring {
    /// Whether the container is on Docker's `bridge`: those of one host reach each other by their addresses there. Who is
    /// at the edge for the sake of its networks or of a service's ports is not.
    pub fn is_bridged(&self) -> bool {
        let published = || self.ports.iter().any(|port| port.mode == PublishMode::Ingress);
        self.edge && (self.bridge || (self.networks.is_empty() && !published()))
    }
}

/// One network that a container is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The network.
    pub network: Arc<NetworkConfig>,
    /// The container's addresses there: IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// More names of the service, or of the plain container, inside it.
    pub aliases: Vec<String>,
    /// A plain container's place in a network of the cluster, as the store knows it.
    #[serde(default)]
    pub attachment: Option<Id>,
}
