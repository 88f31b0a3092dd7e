//! Topics of which this node has not heard yet what others know: those that it has just subscribed to.
//!
//! A topic is whole by the word of one who had heard all of it; or when this node has compared it with everybody who
//! subscribes to it, since then there is nobody left who could know more. Where neither comes about, it counts as whole
//! all the same when everything has surely gone round.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use covey_wire::Id;

use crate::{message::Extent, row::Version, topic::Topic};

/// Periods of anti-entropy for which somebody is thought to wait for a topic; those who are there are met by then.
const URGENT_PERIODS: u32 = 2;
/// Periods after which everything has gone round: in each, those who know something are twice as many at least.
const ROUND_PERIODS: u32 = 15;
/// Nodes that are asked out of turn, at most, for the sake of one topic.
const SEEKS_MAX: usize = 16;
/// Nodes that may have named something of one topic at a time.
const PROMISES_MAX: usize = 2 * SEEKS_MAX;

/// The topics that are still being heard.
#[derive(Debug, Default)]
pub(crate) struct Hearing {
    waiting: BTreeMap<Topic, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// Until when it is urgent.
    until: Instant,
    /// When it counts as whole.
    end: Instant,
    /// Whose knowledge of it is all here, though they could not say whether others know more.
    compared: BTreeSet<Id>,
    /// Who was asked out of turn.
    sought: BTreeSet<Id>,
    /// By whom something was named that is not here yet.
    promises: BTreeMap<Id, Promise>,
}

/// What somebody named of a topic: when it is here, this much is known.
#[derive(Debug)]
pub(crate) struct Promise {
    pub extent: Extent,
    pub batches: Vec<(Id, u16, Version)>,
    /// Whoever that one holds to be alive is known here.
    pub knows_members: bool,
}

impl Hearing {
    /// Nothing has been heard of a topic.
    pub fn begin(&mut self, topic: Topic, now: Instant, period: Duration) {
        let waiting = Waiting {
            until: now + period * URGENT_PERIODS,
            end: now + period * ROUND_PERIODS,
            compared: BTreeSet::new(),
            sought: BTreeSet::new(),
            promises: BTreeMap::new(),
        };
        self.waiting.insert(topic, waiting);
    }

    /// A topic has been heard, or is not wanted any more; true if that is news.
    pub fn end(&mut self, topic: &Topic) -> bool {
        self.waiting.remove(topic).is_some()
    }

    /// Whether it is still being heard.
    pub fn has(&self, topic: &Topic) -> bool {
        self.waiting.contains_key(topic)
    }

    /// Whether everything has been heard.
    pub fn is_over(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The topics that are still being heard.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.waiting.keys()
    }

    /// Those of them that are urgent.
    pub fn urgent(&self, now: Instant) -> impl Iterator<Item = &Topic> {
        self.waiting.iter().filter(move |(_, waiting)| now < waiting.until).map(|(topic, _)| topic)
    }

    /// Whether any is.
    pub fn is_urgent(&self, now: Instant) -> bool {
        self.urgent(now).next().is_some()
    }

    /// Whether it has been heard for longer than it is urgent.
    pub fn is_overdue(&self, topic: &Topic, now: Instant) -> bool {
        self.waiting.get(topic).is_some_and(|waiting| waiting.until <= now)
    }

    /// Whether everything has gone round by now.
    pub fn is_at_end(&self, topic: &Topic, now: Instant) -> bool {
        self.waiting.get(topic).is_some_and(|waiting| waiting.end <= now)
    }

    /// `peer` has named what there is of a topic.
    pub fn note_promise(&mut self, topic: &Topic, peer: Id, promise: Promise) {
        if let Some(waiting) = self.waiting.get_mut(topic)
            && (waiting.promises.len() < PROMISES_MAX || waiting.promises.contains_key(&peer))
        {
            waiting.promises.insert(peer, promise);
        }
    }

    /// What `peer` named that may not be here yet.
    pub fn promises_of(&self, peer: Id) -> impl Iterator<Item = (&Topic, &Promise)> {
        self.waiting.iter().filter_map(move |(topic, waiting)| Some((topic, waiting.promises.get(&peer)?)))
    }

    /// All that `peer` knows of a topic is here.
    pub fn note_compared(&mut self, topic: &Topic, peer: Id) {
        if let Some(waiting) = self.waiting.get_mut(topic) {
            waiting.compared.insert(peer);
            waiting.promises.remove(&peer);
        }
    }

    /// Whether all that `peer` knows of a topic is here.
    pub fn is_compared(&self, topic: &Topic, peer: Id) -> bool {
        self.waiting.get(topic).is_some_and(|waiting| waiting.compared.contains(&peer))
    }

    /// Whether `peer` may be asked out of turn for the sake of a topic: each once, and not too many.
    pub fn may_seek(&self, topic: &Topic, peer: Id) -> bool {
        let waiting = self.waiting.get(topic);
        waiting.is_some_and(|waiting| waiting.sought.len() < SEEKS_MAX && !waiting.sought.contains(&peer))
    }

    /// `peer` is asked out of turn.
    pub fn note_seek(&mut self, topic: &Topic, peer: Id) {
        if let Some(waiting) = self.waiting.get_mut(topic) {
            waiting.sought.insert(peer);
        }
    }
}
