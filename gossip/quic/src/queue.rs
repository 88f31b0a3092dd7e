//! Who waits for a connection to be made: for a place first, then for the peer's answer.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use covey_wire::Id;

use crate::{
    admission::ConnectError,
    peer::{LinkReply, Live},
    transport::{PLACE_TIMEOUT, WAITING_DATAGRAMS_MAX, WAITING_LINKS_MAX, WAITING_PEERS_MAX},
};

/// Peers that a connection is wanted to, first come, first served; but datagrams do not wait behind requests, since
/// what they say is soon too old.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: BTreeMap<Id, Waiting>,
    /// Peers in the order in which they were first asked for. Some may have their connection already.
    requests: VecDeque<Id>,
    urgent: VecDeque<Id>,
    /// How many of `waiting` have no place yet.
    without_place: usize,
}

/// What waits for a connection to one peer.
pub(crate) struct Waiting {
    address: SocketAddr,
    since: Instant,
    /// It has its place and the connection is being made.
    dialling: bool,
    datagrams: VecDeque<Bytes>,
    links: Vec<LinkReply>,
    /// The connection is wanted for its own sake.
    kept: bool,
}

impl Queue {
    /// What waits for `peer`; none where too many peers are waited for.
    fn entry(&mut self, peer: Id, address: SocketAddr) -> Option<&mut Waiting> {
        if !self.waiting.contains_key(&peer) {
            if self.waiting.len() == WAITING_PEERS_MAX {
                return None;
            }
            self.without_place += 1;
            let (datagrams, links) = (VecDeque::new(), Vec::new());
            let since = Instant::now();
            let waiting = Waiting { address, since, dialling: false, datagrams, links, kept: false };
            self.waiting.insert(peer, waiting);
        }
        self.waiting.get_mut(&peer)
    }

    /// A datagram waits for a connection; beyond the bound, the oldest one is dropped.
    pub(crate) fn datagram(&mut self, peer: Id, address: SocketAddr, bytes: Bytes) {
        let Some(waiting) = self.entry(peer, address) else { return };
        if waiting.datagrams.len() == WAITING_DATAGRAMS_MAX {
            waiting.datagrams.pop_front();
        }
        waiting.datagrams.push_back(bytes);
        if waiting.datagrams.len() == 1 && !waiting.dialling {
            self.urgent.push_back(peer);
        }
    }

    /// A caller waits for a connection; beyond the bound, it is told so.
    pub(crate) fn link(&mut self, peer: Id, address: SocketAddr, reply: LinkReply) {
        match self.entry(peer, address) {
            Some(waiting) if waiting.links.len() < WAITING_LINKS_MAX => {
                waiting.links.push(reply);
                if waiting.links.len() == 1 && !waiting.dialling {
                    self.requests.push_back(peer);
                }
            }
            // Fails only when the caller has gone.
            _ => _ = reply.send(Err(ConnectError::Busy)),
        }
    }

    /// A connection is to be held.
    pub(crate) fn keep(&mut self, peer: Id, address: SocketAddr) {
        let Some(waiting) = self.entry(peer, address) else { return };
        if !mem::replace(&mut waiting.kept, true) && !waiting.dialling {
            self.requests.push_back(peer);
        }
    }

    /// Peers without a place.
    pub(crate) const fn len(&self) -> usize {
        self.without_place
    }

    /// How long somebody who needs a connection has waited for a place.
    pub(crate) fn longest_wait(&self, now: Instant) -> Duration {
        let heads = [self.urgent.front(), self.requests.front()].into_iter().flatten();
        let needed = heads.filter_map(|peer| self.waiting.get(peer)).filter(|waiting| waiting.is_needed());
        needed.map(|waiting| now.saturating_duration_since(waiting.since)).max().unwrap_or_default()
    }

    /// The next peer has a place: a connection to it is to be made.
    pub(crate) fn next(&mut self) -> Option<(Id, SocketAddr)> {
        while let Some(peer) = self.urgent.pop_front().or_else(|| self.requests.pop_front()) {
            let Some(waiting) = self.waiting.get_mut(&peer).filter(|waiting| !waiting.dialling) else {
                continue;
            };
            self.without_place -= 1;
            waiting.dialling = true;
            return Some((peer, waiting.address));
        }
        None
    }

    /// There is a connection to `peer`, whoever has made it: nobody waits any longer.
    pub(crate) fn arrived(&mut self, peer: Id, live: &mut Live) {
        let Some(waiting) = self.waiting.get_mut(&peer) else { return };
        for bytes in waiting.datagrams.drain(..) {
            live.send_datagram(bytes);
        }
        for reply in waiting.links.drain(..) {
            // Whoever stopped waiting meanwhile does not mind.
            let _ = reply.send(Ok(live.link()));
        }
        if !waiting.dialling {
            self.without_place -= 1;
            self.waiting.remove(&peer);
        }
    }

    /// The connection to `peer` was made, or cannot be.
    pub(crate) fn dialled(&mut self, peer: Id, result: Result<&mut Live, &ConnectError>) {
        let failed = match result {
            Ok(live) => {
                self.arrived(peer, live);
                None
            }
            Err(error) => Some(error),
        };
        if let (Some(waiting), Some(error)) = (self.waiting.remove(&peer), failed) {
            for reply in waiting.links {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }

    /// Gives up what has waited too long for a place, and whom nobody waits for any more.
    pub(crate) fn expire(&mut self, now: Instant) {
        let before = self.waiting.len();
        self.waiting.retain(|_, waiting| {
            waiting.links.retain(|reply| !reply.is_closed());
            let late = now.saturating_duration_since(waiting.since) >= PLACE_TIMEOUT;
            if !waiting.dialling && late {
                for reply in waiting.links.drain(..) {
                    let _ = reply.send(Err(ConnectError::Busy));
                }
            }
            waiting.dialling || !late && (waiting.kept || waiting.is_needed())
        });
        self.without_place -= before - self.waiting.len();
        for order in [&mut self.urgent, &mut self.requests] {
            order.retain(|peer| self.waiting.get(peer).is_some_and(|waiting| !waiting.dialling));
        }
    }
}

impl Waiting {
    fn is_needed(&self) -> bool {
        !self.datagrams.is_empty() || !self.links.is_empty()
    }
}
