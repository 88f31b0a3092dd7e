//! A connection as the hub holds it.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use covey_crypto::identity::PeerIdentity;
use quinn::{Connection, SendDatagramError};
use tokio::sync::{Notify, oneshot};

use crate::{
    admission::ConnectError,
    stream::{InUse, Uses},
};

/// An answer to a datagram may come this long after it. A connection that has just carried one does not make room
/// meanwhile.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);

/// One connection.
pub(crate) struct Live {
    pub(crate) connection: Connection,
    pub(crate) identity: PeerIdentity,
    pub(crate) uses: Arc<Uses>,
    pub(crate) opened_here: bool,
    pub(crate) opened: Instant,
    /// Frames of datagrams and streams so far, in both directions.
    traffic: u64,
    /// When that number was last seen to grow.
    pub(crate) used: Instant,
    datagram_sent: Option<Instant>,
    pub(crate) ending: Option<Ending>,
}

/// This side wants to end a connection: nothing new begins on it.
#[derive(Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) since: Instant,
    /// The peer was told, which is when nothing of ours is under way any more.
    pub(crate) told: bool,
}

/// A connection to open a stream on, in use from now on.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) in_use: InUse,
}

pub(crate) type LinkReply = oneshot::Sender<Result<Link, ConnectError>>;

impl Live {
    pub(crate) fn new(
        connection: Connection,
        identity: PeerIdentity,
        opened_here: bool,
        hub: Arc<Notify>,
    ) -> Self {
        let opened = Instant::now();
        Self {
            connection,
            identity,
            uses: Uses::new(hub),
            opened_here,
            opened,
            traffic: 0,
            used: opened,
            datagram_sent: None,
            ending: None,
        }
    }

    pub(crate) fn link(&self) -> Link {
        Link { connection: self.connection.clone(), in_use: InUse::new(&self.uses) }
    }

    pub(crate) fn is_in_use(&self) -> bool {
        !self.uses.is_none()
    }

    /// Something new may begin on it.
    pub(crate) fn is_open(&self) -> bool {
        self.ending.is_none() && !self.uses.peer_ends() && self.connection.close_reason().is_none()
    }

    /// It is needed at the moment.
    pub(crate) fn is_busy(&self, now: Instant) -> bool {
        self.is_in_use()
            || self.datagram_sent.is_some_and(|sent| now.saturating_duration_since(sent) < ANSWER_WITHIN)
    }

    /// Nothing new begins on it from now on; it ends when what is under way has ended.
    pub(crate) fn end(&mut self, now: Instant) {
        self.ending.get_or_insert(Ending { since: now, told: false });
    }

    pub(crate) fn send_datagram(&mut self, bytes: Bytes) {
        self.datagram_sent = Some(Instant::now());
        match self.connection.send_datagram(bytes) {
            Ok(()) | Err(SendDatagramError::ConnectionLost(_)) => {}
            Err(error) => tracing::warn!(peer = %self.identity.id, %error, "datagram dropped"),
        }
    }

    /// Notes whether there was traffic since the last look. Signs of life do not count.
    pub(crate) fn look(&mut self, now: Instant) {
        let stats = self.connection.stats();
        let frames = |frames: &quinn::FrameStats| frames.datagram + frames.stream;
        let traffic = frames(&stats.frame_rx) + frames(&stats.frame_tx);
        if mem::replace(&mut self.traffic, traffic) != traffic {
            self.used = now;
        }
    }
}
