//! Members: who takes part, under which incarnation and address, and how each is.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use covey_wire::Id;
use serde::{Deserialize, Serialize};

use crate::{config::PARTNERS_MAX, digest};

/// Of the partners, how many are the next ones round the ring of all members, so that nobody goes unwatched.
const RING_PARTNERS: usize = 2;

/// One life of a node, as SWIM tells nodes apart: the larger one of the same id is the newer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub id: Id,
    pub incarnation: u64,
    pub address: SocketAddr,
    /// Whether the node said good-bye in this incarnation: the last word of a life.
    pub left: bool,
}

impl Peer {
    /// Whether what `self` says replaces what `other`, of the same node, said.
    pub fn replaces(&self, other: &Self) -> bool {
        (self.incarnation, self.left, self.address) > (other.incarnation, other.left, other.address)
    }
}

/// How a member is, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It answers.
    Alive,
    /// It did not answer somebody; it counts as alive until its time to defend itself is over.
    Suspect,
    /// It is dead or cut off. Its rows are suspended.
    Down,
    /// It said good-bye. Its rows are gone.
    Left,
}

impl Liveness {
    /// Whether the member counts as taking part.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// A member other than this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub id: Id,
    /// Which of its lives this is: larger after each restart, and after it was taken for dead.
    pub incarnation: u64,
    /// Where it listens.
    pub address: SocketAddr,
    /// How it is.
    pub liveness: Liveness,
    /// Since when it is up, down or left (suspicion does not count).
    pub since: Instant,
}

/// A member's state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberEvent {
    /// It is alive: new, back, or in a new incarnation or at a new address. Its suspended rows count again.
    Up {
        /// The node.
        id: Id,
        /// Where it listens.
        address: SocketAddr,
        /// Which of its lives this is.
        incarnation: u64,
    },
    /// It is dead or cut off. Its rows are suspended.
    Down {
        /// The node.
        id: Id,
        /// Where it listened.
        address: SocketAddr,
    },
    /// It said good-bye. Its rows are gone.
    Left {
        /// The node.
        id: Id,
        /// Where it listened.
        address: SocketAddr,
    },
}

/// What is known of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub peer: Peer,
    /// Never [`Liveness::Suspect`]: suspicions come and go inside SWIM.
    pub liveness: Liveness,
    pub since: Instant,
}

/// All members that SWIM told of and has not forgotten, without this node.
#[derive(Default)]
pub(crate) struct Members {
    known: BTreeMap<Id, Known>,
    /// The live ones, in order of their ids.
    live: Vec<Id>,
}

impl Members {
    /// Takes SWIM's news. Tells what there was before, and the event if it is one.
    pub fn put(
        &mut self,
        now: Instant,
        peer: Peer,
        liveness: Liveness,
    ) -> (Option<Known>, Option<MemberEvent>) {
        let (id, address, incarnation) = (peer.id, peer.address, peer.incarnation);
        let before = self.known.get(&id);
        if before.is_some_and(|known| known.peer == peer && known.liveness == liveness) {
            return (None, None);
        }
        let since = before.filter(|known| known.liveness == liveness).map_or(now, |known| known.since);
        let before = self.known.insert(id, Known { peer, liveness, since });
        match (self.live.binary_search(&id), liveness.is_live()) {
            (Ok(place), false) => _ = self.live.remove(place),
            (Err(place), true) => self.live.insert(place, id),
            _ => {}
        }
        let same_state = before.as_ref().is_some_and(|known| known.liveness == liveness);
        let event = match liveness {
            Liveness::Alive | Liveness::Suspect => Some(MemberEvent::Up { id, address, incarnation }),
            Liveness::Down => (!same_state).then_some(MemberEvent::Down { id, address }),
            Liveness::Left => (!same_state).then_some(MemberEvent::Left { id, address }),
        };
        (before, event)
    }

    pub fn forget(&mut self, id: Id) {
        self.known.remove(&id);
        if let Ok(place) = self.live.binary_search(&id) {
            self.live.remove(place);
        }
    }

    pub fn get(&self, id: Id) -> Option<&Known> {
        self.known.get(&id)
    }

    pub fn is_live(&self, id: Id) -> bool {
        self.known.get(&id).is_some_and(|known| known.liveness.is_live())
    }

    /// Those that take part, in order.
    pub fn live(&self) -> &[Id] {
        &self.live
    }

    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    /// The peers to whom `me` keeps connections: two next ones in the ring of ids, the others by a rank that looks
    /// random; both change little when one member comes or goes.
    pub fn partners(&self, me: Id) -> Vec<Id> {
        let mut partners = self.live.clone();
        partners.rotate_left(self.live.partition_point(|id| *id < me));
        let ring = partners.len().min(RING_PARTNERS);
        partners[ring..].sort_by_cached_key(|id| digest::pair_rank(me, *id));
        partners.truncate(PARTNERS_MAX);
        partners
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::timer::tests::start;

    fn peer(id: u128, incarnation: u64) -> Peer {
        Peer { id: Id::new(id), incarnation, address: ([10, 0, 0, 1], 2377).into(), left: false }
    }

    /// NOD-02
    #[test]
    fn a_change_of_state_is_an_event_and_a_repetition_is_none() {
        let now = start();
        let later = now + Duration::from_secs(1);
        let mut members = Members::default();
        let up = MemberEvent::Up { id: Id::new(1), address: peer(1, 1).address, incarnation: 1 };
        assert_eq!(members.put(now, peer(1, 1), Liveness::Alive), (None, Some(up)));
        assert_eq!(members.put(later, peer(1, 1), Liveness::Alive), (None, None));

        let (before, event) = members.put(later, peer(1, 1), Liveness::Down);
        assert_eq!(before.unwrap().since, now);
        assert_eq!(event, Some(MemberEvent::Down { id: Id::new(1), address: peer(1, 1).address }));
        assert_eq!(members.get(Id::new(1)).unwrap().since, later);
        assert_eq!(members.live_count(), 0);
    }

    #[test]
    fn a_restart_that_nobody_noticed_is_still_an_event() {
        let now = start();
        let mut members = Members::default();
        members.put(now, peer(1, 1), Liveness::Alive);
        let (before, event) = members.put(now, peer(1, 2), Liveness::Alive);
        assert_eq!(before.unwrap().peer.incarnation, 1);
        assert!(matches!(event, Some(MemberEvent::Up { incarnation: 2, .. })));
        assert_eq!(members.live_count(), 1);
    }

    #[test]
    fn everybody_is_somebodys_partner() {
        let now = start();
        let mut members = Members::default();
        for id in 0..100 {
            members.put(now, peer(id, 1), Liveness::Alive);
        }
        let mut watched = BTreeMap::<Id, usize>::new();
        for id in 0..100 {
            let me = Id::new(id);
            members.forget(me);
            let partners = members.partners(me);
            assert_eq!(partners.len(), PARTNERS_MAX);
            assert!(!partners.contains(&me));
            partners.into_iter().for_each(|partner| *watched.entry(partner).or_default() += 1);
            members.put(now, peer(id, 1), Liveness::Alive);
        }
        assert!(watched.len() == 100 && watched.values().all(|watchers| *watchers >= RING_PARTNERS));
    }
}
