//! Settings of one manager's log.

use std::{net::SocketAddr, time::Duration};

use covey_state::{Id, cluster::RaftSpec};
use openraft::{Config, SnapshotPolicy, StepDownPolicy};

use crate::error::OpenError;

/// Proposals that the core takes before those who propose have to wait.
const QUEUE_MAX: u64 = 1024;
/// Entries that one write to disk, and one message to a follower, takes at most.
const BATCH_ENTRIES_MAX: u64 = 512;

/// Whose log it is, and how it behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster; what is sealed opens for no other.
    pub cluster: Id,
    /// This manager.
    pub node: Id,
    /// Where the others reach it.
    pub address: SocketAddr,
    /// Timers.
    pub timing: Timing,
    /// How long a proposal, a read or a change of members may take in all, from waiting for a leader to its answer.
    pub patience: Duration,
    /// Entries after which a snapshot is taken (Docker's `SnapshotInterval`).
    pub snapshot_interval: u64,
    /// Entries that stay in the log after a snapshot, for followers that are a little behind (Docker's
    /// `LogEntriesForSlowFollowers`).
    pub kept_entries: u64,
}

/// Timers of the log. The heartbeat must be longer than a round trip between managers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader shows that it is alive.
    pub heartbeat: Duration,
    /// The least time without a leader after which a manager stands for election.
    pub election_min: Duration,
    /// The most.
    pub election_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(200),
            election_max: Duration::from_millis(400),
        }
    }
}

impl From<RaftSpec> for Timing {
    fn from(spec: RaftSpec) -> Self {
        let election_min = spec.tick.saturating_mul(spec.election_tick);
        Self {
            heartbeat: spec.tick.saturating_mul(spec.heartbeat_tick),
            election_min,
            election_max: election_min.saturating_mul(2),
        }
    }
}

impl Settings {
    /// The usual settings: 5 s of patience, Docker's snapshot interval of 10,000 entries, 500 of them kept.
    pub fn new(cluster: Id, node: Id, address: SocketAddr) -> Self {
        Self {
            cluster,
            node,
            address,
            timing: Timing::default(),
            patience: Duration::from_secs(5),
            snapshot_interval: 10_000,
            kept_entries: 500,
        }
    }

    pub(crate) fn config(&self) -> Result<Config, OpenError> {
        let Timing { heartbeat, election_min, election_max } = self.timing;
        Config {
            cluster_name: self.cluster.to_string(),
            heartbeat_interval: millis(heartbeat),
            election_timeout_min: millis(election_min),
            election_timeout_max: millis(election_max),
            enable_pre_vote: Some(true),
            // Until the log shows that this manager may stand: an only voter stands at the very next tick.
            enable_elect: false,
            // Whoever counts what it does within a term begins anew with each leadership: a leader that restarts
            // needs a new term.
            enable_leader_restore: Some(false),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_interval.max(1)),
            max_in_snapshot_log_to_keep: self.kept_entries,
            // Whoever is further behind than this gets a snapshot, so it must have seen one taken.
            replication_lag_threshold: self.snapshot_interval.max(1) + self.kept_entries,
            max_payload_entries: BATCH_ENTRIES_MAX,
            max_append_entries: Some(BATCH_ENTRIES_MAX),
            api_channel_size: Some(QUEUE_MAX),
            purge_batch_size: 1,
            removed_leader_step_down: StepDownPolicy::After(millis(heartbeat)),
            ..Config::default()
        }
        .validate()
        .map_err(|error| OpenError::Timing(error.to_string()))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
