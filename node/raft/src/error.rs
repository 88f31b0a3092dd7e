//! What can go wrong, in words for the user.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use covey_crypto::sealed;
use covey_state::{Id, command::Refusal};
use serde::{Deserialize, Serialize};

/// What Docker says where a swarm cannot decide anything.
const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers are online. \
                         Make sure more than half of the managers are online.";

/// The log on disk cannot be used. Nothing of it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A newer build wrote the directory.
    #[error("raft log in {0} has format {1}, this build knows up to {known}; install the newer version again", known = crate::directory::FORMAT)]
    Newer(PathBuf, u32),
    /// The directory belongs to another cluster or to another node.
    #[error("raft log in {directory} is that of node {node} of cluster {cluster}")]
    Foreign {
        /// Which directory.
        directory: PathBuf,
        /// Its cluster.
        cluster: Id,
        /// Its node.
        node: Id,
    },
    /// Another process uses it.
    #[error("raft log in {0} is in use by another process")]
    InUse(PathBuf),
    /// A file that must be there is not.
    #[error("raft log is incomplete: {0} is missing")]
    Missing(PathBuf),
    /// The key file does not hold a key.
    #[error("{0} does not hold a data key")]
    BadKey(PathBuf),
    /// The key is not the one that the log was sealed with.
    #[error("the data key in {0} is not the one that the raft log is sealed with")]
    WrongKey(PathBuf),
    /// An entry does not open though the key is right: it was changed.
    #[error("entry {index} of the raft log in {file} is damaged")]
    DamagedEntry {
        /// Which file.
        file: PathBuf,
        /// Which entry.
        index: u64,
    },
    /// Part of the snapshot does not open though the key is right.
    #[error("the snapshot in {0} is damaged")]
    DamagedSnapshot(PathBuf),
    /// The pages of a file contradict each other.
    #[error("{file} is corrupt: {reason}; restore it, or leave the swarm and join again")]
    Corrupt {
        /// Which file.
        file: PathBuf,
        /// What the database found.
        reason: String,
    },
    /// No room.
    #[error("no space left on the disk of {0}")]
    DiskFull(PathBuf),
    /// Any other failure of the file system.
    #[error("cannot use {path}")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The timing makes no sense.
    #[error("raft timing: {0}")]
    Timing(String),
    /// The log could be read but not started.
    #[error("the raft log does not start: {0}")]
    Start(String),
}

impl OpenError {
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull(path.into()),
            _ => Self::Io { path: path.into(), source },
        }
    }
}

/// Something sealed could not be opened, or not be sealed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VaultError {
    #[error("cannot be sealed")]
    Seal(#[from] sealed::SealError),
    #[error("does not open")]
    Open(#[from] sealed::OpenError),
    #[error("does not decode")]
    Decode(#[from] covey_wire::DecodeError),
    #[error("does not encode")]
    Encode(#[from] covey_wire::EncodeError),
    #[error("is out of place")]
    Misplaced,
}

impl From<VaultError> for io::Error {
    fn from(error: VaultError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Why the running log has stopped, noted where it is known best, for whoever has to tell the user.
#[derive(Clone, Default)]
pub(crate) struct Failure(Arc<OnceLock<String>>);

impl Failure {
    /// The first note counts: the others follow from it.
    pub(crate) fn note(&self, what: &str, error: io::Error) -> io::Error {
        let reason = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "no space left on the disk".to_owned()
            }
            _ => error.to_string(),
        };
        tracing::error!(%reason, "{what}");
        self.0.get_or_init(|| format!("{what}: {reason}"));
        error
    }

    pub(crate) fn reason(&self) -> Option<String> {
        self.0.get().cloned()
    }
}

/// A call to another manager failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The request certainly did not arrive: there was no connection. It may be sent again.
    #[error("cannot reach manager: {0}")]
    Unreachable(String),
    /// The request may have arrived; there was no answer.
    #[error("no answer from manager: {0}")]
    Unanswered(String),
}

/// A proposal did not go through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ProposeError {
    /// The store refused it. Nothing was changed, and nothing will be.
    #[error(transparent)]
    Refused(Refusal),
    /// There is no leader that more than half of the managers follow. Nothing was changed, and nothing will be.
    #[error("{NO_LEADER}")]
    NoLeader,
    /// It is too large for the log. Nothing was changed.
    #[error("the change is too large: {size} bytes, at most {max} are possible", max = crate::PROPOSAL_BYTES_MAX)]
    TooLarge {
        /// Its encoded size in bytes.
        size: usize,
    },
    /// The leader went away, or lost its majority, while it had the proposal: it may be applied, or may still be.
    #[error(
        "the leader did not answer; the change may or may not have been made. Look before you try again."
    )]
    Unknown,
    /// The log of this node, or of the leader, has stopped.
    #[error("the raft log has stopped: {0}")]
    Stopped(String),
}

/// No up-to-date store could be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ReadError {
    /// There is no leader that more than half of the managers follow.
    #[error("{NO_LEADER}")]
    NoLeader,
    /// The log of this node has stopped.
    #[error("the raft log has stopped: {0}")]
    Stopped(String),
}

/// There was no leader to ask.
pub(crate) enum Leaderless {
    TooLong,
    Stopped(String),
}

impl From<Leaderless> for ProposeError {
    fn from(none: Leaderless) -> Self {
        match none {
            Leaderless::TooLong => Self::NoLeader,
            Leaderless::Stopped(reason) => Self::Stopped(reason),
        }
    }
}

impl From<Leaderless> for ReadError {
    fn from(none: Leaderless) -> Self {
        match none {
            Leaderless::TooLong => Self::NoLeader,
            Leaderless::Stopped(reason) => Self::Stopped(reason),
        }
    }
}

/// The set of managers was not changed, unless the variant says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Only the leader changes it.
    #[error("this manager is not the leader")]
    NotLeader,
    /// There is no majority to decide it. It may still be decided later.
    #[error("{NO_LEADER}")]
    NoLeader,
    /// Another change is not over yet.
    #[error("another change of the managers is still in progress")]
    InProgress,
    /// More managers than a log can have.
    #[error("a swarm has at most {max} managers", max = crate::VOTERS_MAX)]
    TooMany,
    /// Somebody has to decide.
    #[error("the last manager of a swarm cannot be removed")]
    Last,
    /// It is not a member.
    #[error("manager {0} is not a member of the raft cluster")]
    Unknown(Id),
    /// It does not follow fast enough to vote.
    #[error("manager {0} has not caught up with the raft log")]
    Behind(Id),
    /// The library said no.
    #[error("the managers cannot be changed: {0}")]
    Refused(String),
    /// The log of this node has stopped.
    #[error("the raft log has stopped: {0}")]
    Stopped(String),
}

/// A cluster could not be founded on this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InitializeError {
    /// The log is not empty.
    #[error("this node already takes part in a swarm")]
    Already,
    /// The log has stopped.
    #[error("the raft log has stopped: {0}")]
    Stopped(String),
}
