//! The managers' log: a member has it open for as long as its certificate says manager.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use covey_gossip_quic::{Endpoint, read_frame, write_frame};
use covey_raft::{Raft, Settings, Timing, Transport, TransportError};
use covey_state::{Id, cluster::RaftSpec, time::Stamp};

use super::Member;
use crate::{clock, gossip_loop::tasks_topic, manager_loop, protocol::kind, refused, roster};

/// Carries the managers' consensus over QUIC.
#[derive(Clone)]
pub struct RaftTransport(Endpoint);

impl Transport for RaftTransport {
    async fn call(&self, to: Id, address: SocketAddr, request: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let opened = self.0.open(to, address, kind::RAFT).await;
        let (mut send, mut recv) = opened.map_err(|error| TransportError::Unreachable(error.to_string()))?;
        let unanswered = |error: &dyn std::fmt::Display| TransportError::Unanswered(error.to_string());
        write_frame(&mut send, &request).await.map_err(|error| unanswered(&error))?;
        read_frame(&mut recv, covey_raft::MESSAGE_BYTES_MAX).await.map_err(|error| unanswered(&error))
    }
}

/// The managers' log, as this node uses it.
pub type Log = Raft<RaftTransport>;

/// The time of the log: this node's clock, or, where that was behind when this node began to lead, as far ahead of it
/// as the log was then.
#[derive(Clone, Debug, Default)]
pub struct LogClock {
    /// Nanoseconds.
    ahead: Arc<AtomicU64>,
}

impl LogClock {
    /// The time of the log now.
    pub fn now(&self) -> Stamp {
        clock::now() + self.ahead()
    }

    /// How far it is ahead of this node's clock.
    pub fn ahead(&self) -> Duration {
        Duration::from_nanos(self.ahead.load(Ordering::Relaxed))
    }

    /// This node begins to lead: the time goes on from `last`.
    pub fn catch_up(&self, last: Stamp) {
        let ahead = last.since(clock::now()).as_nanos();
        self.ahead.store(u64::try_from(ahead).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Member {
    /// The managers' log; `None` on a worker.
    pub fn log(&self) -> Option<Log> {
        self.log.borrow().clone()
    }

    /// Consensus timing of the cluster, for the next start: the log that runs is told by the manager loop.
    pub fn note_raft(&self, spec: RaftSpec) {
        self.note(move |notes| notes.raft = Some(spec));
    }

    pub(super) async fn open_log(self: &Arc<Self>) -> Result<()> {
        let peer = self.identity().peer;
        let notes = self.notes();
        let mut settings = Settings::new(peer.cluster, peer.id, notes.advertise);
        if let Some(raft) = notes.raft {
            settings.timing = Timing::from(raft);
            settings.snapshot_interval = raft.snapshot_interval;
        }
        let transport = RaftTransport(self.endpoint.clone());
        let clock = self.log_clock.clone();
        let log = Raft::open(&self.folder.raft(), settings, transport, move || clock.now()).await?;
        // What the log knows already need not wait for a leader.
        if log.store().cluster().is_some() {
            self.take_roster(roster::full(&log.store())).await;
        }
        self.gossip.hear(tasks_topic(), true).await;
        self.gossip.hear(refused::topic(), true).await;
        self.log.send_replace(Some(log.clone()));
        self.spawn(manager_loop::run(self.clone(), log));
        Ok(())
    }

    pub(super) async fn close_log(&self, log: Log) -> Result<()> {
        self.log.send_replace(None);
        self.gossip.hear(tasks_topic(), false).await;
        self.gossip.hear(refused::topic(), false).await;
        log.shutdown().await;
        Raft::destroy(&self.folder.raft())?;
        Ok(())
    }
}
