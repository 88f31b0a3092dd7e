//! Networks of this host, and the places of plain containers in networks.

use std::{fmt, net::IpAddr};

use covey_state::{
    Id,
    network::{NetworkSpec, Protocol, Subnet},
    time::Stamp,
};
use ipnet::IpNet;

/// What kind of network a plain container was made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The edge interface, with outgoing masquerade.
    #[default]
    Bridge,
    /// The host's own.
    Host,
    /// Loopback only.
    None,
    /// A network that a user made, under this name.
    Named(String),
    /// That of the container with this full id.
    Container(String),
}

/// As the Engine API writes it.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.write_str("bridge"),
            Self::Host => f.write_str("host"),
            Self::None => f.write_str("none"),
            Self::Named(name) => f.write_str(name),
            Self::Container(id) => write!(f, "container:{id}"),
        }
    }
}

/// A network that a container can join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkRef {
    /// The edge, Docker's `bridge`.
    Bridge,
    /// One that a user made on this host, by its full id.
    Local(String),
    /// One of the cluster, which is attachable.
    Cluster(Id),
}

/// A container's wish to be in a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Which.
    pub network: NetworkRef,
    /// More names of the container in it, beside its own name and its short id.
    pub aliases: Vec<String>,
    /// The addresses that it wants there, at most one of each family; of a family that is not here, any.
    pub addresses: Vec<IpAddr>,
}

/// A network that a user made on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNetwork {
    /// Its full id.
    pub id: String,
    /// What was asked for.
    pub spec: NetworkSpec,
    /// What was decided; none has a VNI.
    pub subnets: Vec<Subnet>,
    /// Its creation.
    pub created_at: Stamp,
}

/// A container's place in a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Which; [`NetworkRef::Bridge`] also for the edge interface that a task or a container of other networks has.
    pub network: NetworkRef,
    /// Its name.
    pub name: String,
    /// Its addresses with the lengths of their subnets' prefixes, IPv4 first; empty while the container does not run.
    pub addresses: Vec<IpNet>,
    /// Those of its addresses that its user asked for.
    pub chosen: Vec<IpAddr>,
    /// Its next hops there, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Its Ethernet address; empty while the container does not run.
    pub mac: String,
    /// More names of it there, beside its own name and its short id.
    pub aliases: Vec<String>,
}

/// A port that a container serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExposedPort {
    /// Its number, never 0.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}
