//! Who gets the places for connections, and whose connection makes room.
//!
//! A connection ends by agreement, so that no request is lost with it: whoever wants its place back opens nothing new
//! on it, waits until its own streams have ended, and asks the peer ([`END`](crate::transport::END)), who closes it
//! once the peer's have ended, too.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use covey_wire::Id;

use crate::{
    hub::{Ended, Hub, full},
    peer::{Ending, Live},
    serve,
    transport::{
        ARRIVAL_TIMEOUT, CONNECTIONS_MAX, Close, DENIED_MAX, DENIED_MIN, ENDING_MAX, ENDING_TIMEOUT,
        LAST_RESORT_AFTER, PLACES_RESERVED,
    },
};

/// A kept peer had no place for us.
pub(crate) struct Denied {
    wait: Duration,
    /// When it is asked again.
    pub(crate) until: Instant,
}

/// Places that are taken.
struct Taken {
    outgoing: usize,
    incoming: usize,
}

impl Taken {
    /// One more may be taken in this direction.
    const fn has_room(&self, outgoing: bool) -> bool {
        let own = if outgoing { self.outgoing } else { self.incoming };
        self.outgoing + self.incoming < CONNECTIONS_MAX && own < CONNECTIONS_MAX - PLACES_RESERVED
    }

    /// What is wanted in this direction fails for want of places in this direction alone.
    const fn is_reserved(&self, outgoing: bool) -> bool {
        let own = if outgoing { self.outgoing } else { self.incoming };
        own >= CONNECTIONS_MAX - PLACES_RESERVED
    }
}

impl Hub {
    fn taken(&self) -> Taken {
        let outgoing = self.live().filter(|(_, live)| live.opened_here).count();
        Taken { incoming: self.live().count() - outgoing, outgoing: outgoing + self.dialling }
    }

    fn live(&self) -> impl Iterator<Item = (&Id, &Live)> {
        self.peers.iter().flat_map(|(id, live)| live.iter().map(move |live| (id, live)))
    }

    /// Somebody waits for a place, or for one to be free.
    pub(crate) fn is_crowded(&self) -> bool {
        self.queue.len() + self.arrivals.len() > 0 || self.live().any(|(_, live)| live.ending.is_some())
    }

    /// Gives the free places to those who wait, and sees to it that others become free.
    pub(crate) fn settle(&mut self) {
        let now = Instant::now();
        self.end_connections(now);
        while self.arrivals.front().is_some_and(|(_, since)| now.duration_since(*since) >= ARRIVAL_TIMEOUT) {
            if let Some((late, _)) = self.arrivals.pop_front() {
                full(&late.connection);
            }
        }
        while self.taken().has_room(false)
            && let Some((admitted, _)) = self.arrivals.pop_front()
        {
            self.called_by(admitted);
        }
        while self.taken().has_room(true)
            && let Some((peer, address)) = self.queue.next()
        {
            self.dial(peer, address);
        }
        debug_assert!(self.live().count() + self.dialling <= CONNECTIONS_MAX);
        let called = self.arrivals.front().map_or(Duration::ZERO, |(_, since)| now.duration_since(*since));
        self.make_room(now, false, self.arrivals.len(), called);
        self.make_room(now, true, self.queue.len(), self.queue.longest_wait(now));
    }

    /// Carries on with the connections that one side wants to end.
    fn end_connections(&mut self, now: Instant) {
        let over = |live: &Live| {
            let overdue =
                live.ending.is_some_and(|ending| now.duration_since(ending.since) >= ENDING_TIMEOUT);
            !live.is_in_use() && (live.uses.peer_ends() || overdue)
        };
        let denied: Vec<Id> =
            self.live().filter(|(_, live)| over(live) && live.uses.peer_ends()).map(|(id, _)| *id).collect();
        self.close(|_, live| over(live), Close::Unused, "not needed");
        for id in denied {
            self.was_denied(id);
        }
        for live in self.peers.values_mut().flatten().filter(|live| !live.is_in_use()) {
            if let Some(Ending { told: told @ false, .. }) = &mut live.ending {
                *told = true;
                let asked = serve::end(live.connection.clone());
                self.tasks.spawn(async move {
                    asked.await;
                    Ended::Told
                });
            }
        }
    }

    /// A peer had no place for us: where it is kept, it is left alone for a while.
    pub(crate) fn was_denied(&mut self, id: Id) {
        if !self.kept.borrow().contains_key(&id) {
            return;
        }
        let now = Instant::now();
        let wait = match self.denied.get(&id) {
            Some(before) if now < before.until + 2 * DENIED_MAX => (2 * before.wait).min(DENIED_MAX),
            _ => DENIED_MIN,
        };
        self.denied.insert(id, Denied { wait, until: now + wait });
    }

    /// The one connection of each kept peer that is kept. Two nodes may have called each other at the same time: then it
    /// is the one that the node with the smaller id has opened, on both sides.
    pub(crate) fn shielded(&self) -> BTreeSet<usize> {
        let Some(me) = self.identity.borrow().as_ref().map(|ours| ours.id) else { return BTreeSet::new() };
        let kept = self.kept.borrow();
        let peers = self.peers.iter().filter(|(id, _)| kept.contains_key(id));
        let chosen = peers.filter_map(|(id, live)| {
            let open = || live.iter().filter(|live| live.is_open());
            open().rfind(|live| live.opened_here == (me < *id)).or_else(|| open().next_back())
        });
        chosen.map(|live| live.connection.stable_id()).collect()
    }

    /// Lets as many connections end as there are `wanted` places: idle ones first, the longest unused first. After
    /// `waited` for long also those of kept peers, and as the last resort those in use, once their streams have ended.
    fn make_room(&mut self, now: Instant, outgoing: bool, wanted: usize, waited: Duration) {
        if wanted == 0 {
            return;
        }
        let reserved = self.taken().is_reserved(outgoing);
        let counts = |live: &Live| !reserved || live.opened_here == outgoing;
        let ending = self.live().filter(|(_, live)| live.ending.is_some() && counts(live)).count();
        let shielded = self.shielded();
        let rank = |live: &Live| match (live.is_busy(now), shielded.contains(&live.connection.stable_id())) {
            (false, false) => Some(0),
            (false, true) => Some(1),
            (true, false) => Some(2),
            (true, true) => None,
        };
        let worst = if waited >= LAST_RESORT_AFTER { 2 } else { 0 };
        let mut victims: Vec<_> = self
            .peers
            .values_mut()
            .flatten()
            .filter(|live| live.is_open() && counts(live))
            .filter_map(|live| rank(live).map(|rank| ((rank, live.used), live)))
            .filter(|((rank, _), _)| *rank <= worst)
            .collect();
        victims.sort_by_key(|(order, _)| *order);
        let room = wanted.min(ENDING_MAX).saturating_sub(ending);
        for (_, victim) in victims.into_iter().take(room) {
            victim.end(now);
        }
    }
}
