//! A node: a machine in the cluster.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{Id, Version, container::Amount, service::Platform, time::Stamp};

/// What a node may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Runs tasks.
    Worker,
    /// Holds the log as well, votes, serves the cluster API.
    Manager,
}

impl Role {
    /// As the Engine API and certificates write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether a node takes tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Availability {
    /// Takes tasks.
    #[default]
    Active,
    /// Keeps its tasks, takes none.
    Pause,
    /// Its tasks move away.
    Drain,
}

impl Availability {
    /// As the Engine API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pause => "pause",
            Self::Drain => "drain",
        }
    }
}

/// What the user wants of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// A name beside the host name; mostly empty.
    pub name: String,
    /// Labels that constraints look at.
    pub labels: BTreeMap<String, String>,
    /// What it may do.
    pub role: Role,
    /// Whether it takes tasks.
    pub availability: Availability,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDescription {
    /// Host name, not unique.
    pub hostname: String,
    /// What machine it is.
    pub platform: Platform,
    /// What it has.
    pub resources: Amount,
    /// Version of Covey on it.
    pub engine_version: String,
    /// Labels given to its daemon (`--label`).
    pub engine_labels: BTreeMap<String, String>,
    /// Where packets of networks are sent to; `None`: the address by which others reach it.
    pub data_path: Option<IpAddr>,
}

/// The address block of a node's containers; addresses, MACs and marks derive from it and the node number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeBlock {
    /// A /24 by default.
    pub v4: Ipv4Net,
    /// A /64 of the cluster's ULA.
    pub v6: Ipv6Net,
}

/// A node as the cluster remembers it. Whether it is alive is gossip's business.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id, for its whole life in this cluster.
    pub id: Id,
    /// Its last change.
    pub version: Version,
    /// When it joined.
    pub created_at: Stamp,
    /// Its last change.
    pub updated_at: Stamp,
    /// What the user wants of it.
    pub spec: NodeSpec,
    /// What it is now: follows `spec.role` once Raft and its certificate have followed.
    pub role: Role,
    /// What it says of itself.
    pub description: NodeDescription,
    /// Where others reach it.
    pub address: SocketAddr,
    /// Its ed25519 key: proves who it is when its certificate has expired and its address changed.
    pub public_key: [u8; 32],
    /// Small, never 0, reused only 24 h after its last owner went.
    pub number: u32,
    /// Addresses of its containers.
    pub edge: EdgeBlock,
    /// It said goodbye: it stays listed as down until it is removed.
    pub left: bool,
}

impl Node {
    /// Where packets of networks are sent to.
    pub fn data_path(&self) -> IpAddr {
        self.description.data_path.unwrap_or(self.address.ip())
    }

    /// It is a manager, or on its way to become one or to cease to be one.
    pub fn is_manager(&self) -> bool {
        self.role == Role::Manager || self.spec.role == Role::Manager
    }
}
