//! A peer as the hub holds it: its connections, and what waits for one.

use std::{collections::VecDeque, mem, sync::Arc, time::Instant};

use bytes::Bytes;
use covey_crypto::identity::PeerIdentity;
use quinn::Connection;
use tokio::sync::oneshot;

use crate::{
    admission::ConnectError,
    stream::InUse,
    transport::{WAITING_DATAGRAMS_MAX, WAITING_LINKS_MAX},
};

/// A peer that there are connections to, or that one is being made to.
#[derive(Default)]
pub(crate) struct Peer {
    /// Newest last.
    pub(crate) live: Vec<Live>,
    pub(crate) waiting: Option<Waiting>,
}

/// One connection.
pub(crate) struct Live {
    pub(crate) connection: Connection,
    pub(crate) identity: PeerIdentity,
    pub(crate) in_use: InUse,
    pub(crate) opened_here: bool,
    /// Frames of datagrams and streams so far, in both directions.
    traffic: u64,
    /// When that number was last seen to grow.
    pub(crate) used: Instant,
}

/// What waits for a connection to be made.
#[derive(Default)]
pub(crate) struct Waiting {
    datagrams: VecDeque<Bytes>,
    links: Vec<LinkReply>,
}

/// A connection to open a stream on.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) in_use: InUse,
}

pub(crate) type LinkReply = oneshot::Sender<Result<Link, ConnectError>>;

impl Live {
    pub(crate) fn new(connection: Connection, identity: PeerIdentity, opened_here: bool) -> Self {
        Self { connection, identity, in_use: InUse::default(), opened_here, traffic: 0, used: Instant::now() }
    }

    pub(crate) fn link(&self) -> Link {
        Link { connection: self.connection.clone(), in_use: self.in_use.clone() }
    }

    pub(crate) fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.in_use) > 1
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

impl Waiting {
    pub(crate) fn queue_datagram(&mut self, bytes: Bytes) {
        if self.datagrams.len() == WAITING_DATAGRAMS_MAX {
            self.datagrams.pop_front();
        }
        self.datagrams.push_back(bytes);
    }

    pub(crate) fn queue_link(&mut self, reply: LinkReply) {
        if self.links.len() == WAITING_LINKS_MAX {
            // Fails only when the caller has gone.
            let _ = reply.send(Err(ConnectError::Busy));
        } else {
            self.links.push(reply);
        }
    }

    /// There is a connection now. Whoever stopped waiting meanwhile does not mind.
    pub(crate) fn go(self, link: &Link) {
        for bytes in self.datagrams {
            let _ = link.connection.send_datagram(bytes);
        }
        for reply in self.links {
            let _ = reply.send(Ok(link.clone()));
        }
    }

    /// There will be none.
    pub(crate) fn give_up(self, error: &ConnectError) {
        for reply in self.links {
            let _ = reply.send(Err(error.clone()));
        }
    }
}
