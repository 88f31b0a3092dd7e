//! What members say to each other over streams: the kinds of streams, and the messages on them.

use std::net::{IpAddr, SocketAddr};

use covey_state::{
    Id, Version,
    assignment::{AssignmentSet, Generation},
    cluster::EdgePool,
    node::{Availability, EdgeBlock, NodeDescription, Role},
    time::Stamp,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Kinds of streams: the first byte of each.
pub mod kind {
    /// Managers' consensus: one request, one reply.
    pub const RAFT: u8 = 1;
    /// Gossip's anti-entropy: one request, one reply.
    pub const GOSSIP: u8 = 2;
    /// Gossip's rows, pushed: one message, no reply.
    pub const ROWS: u8 = 3;
    /// The leader hands out work: [`super::Assign`], [`super::Assigned`].
    pub const ASSIGN: u8 = 4;
    /// A node says goodbye: `()`, [`super::Answer`] of `()`.
    pub const LEAVE: u8 = 5;
    /// A manager asks for log lines: [`super::LogsRequest`], then a [`super::LogFrame`] each.
    pub const LOGS: u8 = 6;
    /// A node asks about networks, and about places of its plain containers in them: [`crate::joining::Wish`], then
    /// what that says, or a [`crate::joining::Denial`].
    pub const NETWORKS: u8 = 7;
    /// A member examines the networks: a [`crate::network::inquiry::Inquiry`], [`super::Answer`] of what it asks for.
    pub const EXAMINE: u8 = 8;
}

/// Bytes of a request or reply between members, unless said otherwise.
pub const MESSAGE_MAX: usize = 64 << 20;
/// Bytes of a request to join or to renew.
pub const JOIN_MAX: usize = 64 << 10;
/// Bytes of one frame of log lines.
pub const LOG_FRAME_MAX: usize = 1 << 20;

/// A reply, or the sentence that says why there is none.
pub type Answer<T> = Result<T, String>;

/// What every node knows of every other: enough to check its rows and to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Which node.
    pub id: Id,
    /// Where it is.
    pub address: SocketAddr,
    /// Its ed25519 key: its rows are signed with it.
    pub public_key: [u8; 32],
    /// What it is to be: a node that finds itself in another role asks for the certificate of this one.
    pub role: Role,
    /// Its node number.
    pub number: u32,
    /// Addresses of its containers.
    pub edge: EdgeBlock,
    /// Where packets of networks are sent to.
    pub data_path: IpAddr,
    /// What it calls itself.
    pub hostname: String,
}

/// What all networks of a cluster share; fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ground {
    /// UDP port of the data path.
    pub data_path_port: u16,
    /// Where the edge blocks of nodes come from.
    pub edge: EdgePool,
}

/// What changed among the nodes since an earlier version of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// The store's version that it brings the receiver to.
    pub version: Version,
    /// It is complete: a node that is not in it is no member.
    pub full: bool,
    /// What all networks of the cluster share; `None` where it has not changed.
    pub ground: Option<Ground>,
    /// New and changed nodes.
    pub peers: Vec<Peer>,
    /// Nodes that are gone.
    pub removed: Vec<Id>,
}

/// The leader hands out work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assign {
    /// Work that is new.
    pub set: Option<AssignmentSet>,
    /// Nodes that are new.
    pub roster: Option<Roster>,
}

/// What a node answers to [`Assign`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    /// Whether the work was taken.
    pub taken: Taken,
    /// What the node says of itself, in answer to an [`Assign`] of nothing: the beginning of a session.
    pub description: Option<NodeDescription>,
}

/// Whether work was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Taken {
    /// All of it.
    Yes,
    /// The changes build on a set that this node does not have.
    NeedFull {
        /// What it has.
        have: Generation,
    },
    /// A newer leader was here before.
    Old {
        /// What it has.
        have: Generation,
    },
}

/// A machine wants to become a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// `SWMTKN-1-…`: its secret decides the role.
    pub token: String,
    /// PKCS#10: the key that the certificate is to be for.
    pub request: Vec<u8>,
    /// What the machine says of itself.
    pub description: NodeDescription,
    /// Where others will reach it; port and, where unspecified, address are as seen by the manager.
    pub advertise: SocketAddr,
    /// Whether it takes tasks.
    pub availability: Availability,
    /// Its clock, to say by how much it is off.
    pub clock: Stamp,
    /// Networks that it reaches already: the edge pool must not overlap them.
    pub networks: Vec<IpNet>,
}

/// A machine has become a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// Where it is reached.
    pub advertise: SocketAddr,
    /// The managers.
    pub managers: Vec<(Id, SocketAddr)>,
    /// All nodes.
    pub roster: Roster,
}

/// A member asks for a new certificate: the old one ends soon or has ended, or its role has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// PKCS#10, of the key it has had all along.
    pub request: Vec<u8>,
    /// Where it is reached now.
    pub advertise: SocketAddr,
}

/// A new certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// DER.
    pub certificate: Vec<u8>,
    /// The managers.
    pub managers: Vec<(Id, SocketAddr)>,
}

/// A manager asks a node for log lines of its tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsRequest {
    /// Of this task.
    pub task: Id,
    /// Standard output is wanted.
    pub stdout: bool,
    /// Standard error is wanted.
    pub stderr: bool,
    /// Later lines too.
    pub follow: bool,
    /// From this moment on.
    pub since: Option<Stamp>,
    /// Before this moment.
    pub until: Option<Stamp>,
    /// The last so many.
    pub tail: Option<u64>,
}

/// One log line on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFrame {
    /// When it was written.
    pub at: Stamp,
    /// To standard error.
    pub stderr: bool,
    /// The line.
    pub text: Vec<u8>,
}
