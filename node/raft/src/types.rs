//! The types that the consensus library is instantiated with.

use std::{fmt, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use covey_state::{Id, command::Refusal, event::Event, time::Stamp};
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// What a log entry holds, who votes, and what a write answers.
    pub(crate) Types:
        D = Write,
        R = Outcome,
        NodeId = Member,
        Node = Place,
);

pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<Types, Bytes>;

/// A manager, as the log knows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Member(pub(crate) Id);

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a manager is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
}

/// What an entry of the log holds: an encoded proposal, kept as bytes until it is applied, so that it is encoded
/// once, by whoever proposed it, and copied nowhere on its way.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Write {
    /// The leader's clock when it took the proposal.
    pub(crate) at: Stamp,
    pub(crate) proposal: Bytes,
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proposal of {} bytes at {}", self.proposal.len(), self.at)
    }
}

/// What applying an entry came to.
pub(crate) type Outcome = Result<Arc<[Event]>, Refusal>;

#[cfg(test)]
impl From<u64> for Member {
    fn from(bits: u64) -> Self {
        Self(Id::new(bits.into()))
    }
}

#[cfg(test)]
impl Default for Place {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 2377)) }
    }
}
