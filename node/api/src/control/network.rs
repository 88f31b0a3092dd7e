//! What a node knows of the cluster's networks by itself, and what it finds when it examines them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use covey_state::{
    Id,
    cluster::EdgePool,
    network::{NetworkConfig, Protocol, PublishedPort},
    node::EdgeBlock,
};

/// What this node carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// The addresses of its containers, in a cluster or not; `None`: it has none yet.
    pub block: Option<EdgeBlock>,
    /// Where the blocks of all nodes come from; `None`: it is in no cluster, or was not told.
    pub pool: Option<EdgePool>,
    /// All nodes of the cluster, itself included: the edge connects them all.
    pub nodes: Vec<NetworkPeer>,
    /// The cluster's networks that its containers are on.
    pub networks: Vec<CarriedNetwork>,
}

/// A network of the cluster that this node carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedNetwork {
    /// What it is.
    pub network: Arc<NetworkConfig>,
    /// The nodes that carry it, itself included.
    pub peers: Vec<NetworkPeer>,
}

/// A service in a network, as the hosts of its tasks tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldService {
    /// Its name.
    pub name: String,
    /// Its virtual address there; `None`: it has none.
    pub vip: Option<IpAddr>,
    /// Its published ports.
    pub ports: Vec<PublishedPort>,
    /// Those of its tasks that take new connections.
    pub tasks: Vec<ToldTask>,
}

/// A task in a network, as its host tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldTask {
    /// Name of its container.
    pub name: String,
    /// Id of its container.
    pub container: String,
    /// Its address there.
    pub address: IpAddr,
    /// Where its host takes in packets of networks.
    pub host: IpAddr,
}

/// A node as a network's other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPeer {
    /// Which.
    pub node: Id,
    /// Its host name.
    pub hostname: String,
    /// Where it takes in packets of networks.
    pub address: IpAddr,
}

/// What a look at one object of a network showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Host name of the node.
    pub host: String,
    /// Name of the network; empty: the host as a whole.
    pub network: String,
    /// What was looked at, such as `fdb 02:fd:00:00:00:02`, `mtu` or `data path to m2`.
    pub object: String,
    /// How it was found.
    pub severity: Severity,
    /// What was expected and what is, in one sentence.
    pub text: String,
}

/// How something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It was not, and is again.
    Repaired,
    /// It is not as it should be.
    Wrong,
}

impl Severity {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Repaired => "repaired",
            Self::Wrong => "wrong",
        }
    }
}

/// A way to be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRequest {
    /// A container of this node, as the user names it.
    pub from: String,
    /// A name or an address, as the container would say it.
    pub to: String,
    /// Which port of it.
    pub port: u16,
    /// Of which protocol.
    pub protocol: Protocol,
}

/// One step on a way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Where: `dns`, `vip`, `backend`, `host`, `vtep`, `fdb`, `veth`, …
    pub step: String,
    /// What was decided there.
    pub decision: String,
    /// Packets that were counted there before a marked one passed, and after; `None`: nobody counts there.
    pub packets: Option<(u64, u64)>,
}

/// What a node counts of its networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataPlane {
    /// Kind of kernel object → how many were found otherwise than wanted, since the daemon began.
    pub drift: BTreeMap<&'static str, u64>,
    /// How often something was mended, since the daemon began.
    pub repairs: u64,
    /// Networks that it carries now, those of this host alone included.
    pub networks: usize,
    /// Endpoints that it knows in them now.
    pub endpoints: usize,
    /// Endpoints that the daemon before was told of and this one was not: some time after its start they are forgotten.
    pub unconfirmed: usize,
    /// Published ports that do not answer on it now, because somebody else has them.
    pub refused_ports: usize,
}
