//! Rounds: what this node and another one know is compared, and what one of them lacks is sent.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use covey_wire::Id;
use rand::{RngExt, seq::IteratorRandom};

use super::Gossip;
use crate::{
    config::TOPICS_PER_DIGEST_MAX,
    error::MessageError,
    exchange,
    hearing::Promise,
    message::{self, Differences, Digest, Extent, TopicDifferences},
    output::Output,
    topic::Topic,
};

/// Seeds that are asked at once.
const SEEDS_AT_ONCE: usize = 3;
/// One round in so many goes to a seed that is not a live member, if there is one.
const SEED_EVERY: u32 = 8;

impl Gossip {
    pub(super) fn answer(
        &mut self,
        now: Instant,
        from: Id,
        digest: &Digest,
    ) -> Result<Vec<u8>, MessageError> {
        self.meet(now, from, &digest.sender)?;
        let Self { rows, swim, members, hearing, rng, .. } = self;
        Ok(exchange::answer(digest, rows, swim, members, hearing, rng))
    }

    pub(super) fn compare(&mut self, now: Instant, from: Id, told: Differences) -> Result<(), MessageError> {
        self.meet(now, from, &told.sender)?;
        let before = self.members.live_count();
        self.swim.apply(now, told.members.clone());
        self.pump(now);
        if let Some(incarnation) = told.down.filter(|down| *down >= self.incarnation()) {
            self.raise(incarnation);
        }
        let remedy = exchange::compare(&told, &self.rows, &self.swim, &self.members);
        let (to, address) = (told.sender.id, told.sender.address);
        // Where this one lacked something, it may be so with the topics that the digest could not carry.
        let more = told.more || self.rows.subscribed.len() > TOPICS_PER_DIGEST_MAX;
        if more && (before < self.members.live_count() || !remedy.wants.names.is_empty()) {
            self.hasten(now);
        }
        if !remedy.repair.members.is_empty() || !remedy.repair.batches.is_empty() {
            let bytes = message::write(message::REPAIR, &remedy.repair).into();
            self.send(Output::Push { to, address, bytes });
        }
        if !remedy.fresh.is_empty() {
            let bytes = message::write(message::FRESH, &message::Rows { batches: remedy.fresh }).into();
            self.send(Output::Push { to, address, bytes });
        }
        if !remedy.wants.names.is_empty() {
            let bytes = message::write(message::WANTS, &remedy.wants).into();
            self.send(Output::Request { to, address, bytes });
        }
        for TopicDifferences { topic, extent, batches, .. } in told.topics {
            if extent != Extent::Part {
                let promise = Promise { extent, batches, knows_members: !told.more };
                self.hearing.note_promise(&topic, from, promise);
            }
        }
        self.fulfil(now, from);
        if remedy.wants.names.is_empty() {
            self.seek(now);
        }
        Ok(())
    }

    /// Looks whether all is here now that `from` named; true where something of it still lacks.
    pub(super) fn fulfil(&mut self, now: Instant, from: Id) -> bool {
        let Self { rows, members, hearing, .. } = self;
        let is_here = |topic: &Topic, promise: &Promise| {
            rows.has_all(topic, &promise.batches, members, promise.knows_members)
        };
        let promises = hearing.promises_of(from).filter(|(topic, promise)| is_here(topic, promise));
        let kept: Vec<_> = promises.map(|(topic, promise)| (topic.clone(), promise.extent)).collect();
        for (topic, extent) in kept {
            match extent {
                Extent::Whole => self.end_hearing(&topic),
                Extent::Own | Extent::Part => self.hearing.note_compared(&topic, from),
            }
        }
        self.settle_hearing(now);
        self.hearing.promises_of(from).next().is_some()
    }

    /// Ends what has been heard: first of all who subscribes to what, since the others build on it.
    pub(super) fn settle_hearing(&mut self, now: Instant) {
        if self.hearing.is_over() {
            return;
        }
        let topics: Vec<Topic> = [Topic::nodes()].into_iter().chain(self.hearing.topics().cloned()).collect();
        for topic in topics {
            if self.hearing.is_at_end(&topic, now) || self.is_whole(now, &topic) {
                self.end_hearing(&topic);
            }
        }
    }

    /// Whether a topic was compared with all who subscribe to it, and it is known who they are. Of the members themselves
    /// there may always be more than are known: they have had their time to be met.
    fn is_whole(&self, now: Instant, topic: &Topic) -> bool {
        let nodes = Topic::nodes();
        let knows_readers = if *topic == nodes {
            self.hearing.is_overdue(topic, now) && (self.members.live_count() > 0 || self.seeds.is_empty())
        } else {
            !self.hearing.has(&nodes)
        };
        knows_readers
            && exchange::readers(topic, &self.rows, &self.members)
                .iter()
                .all(|reader| self.hearing.is_compared(topic, *reader) || !self.members.is_live(*reader))
    }

    /// Asks somebody for the sake of a topic that is being waited for. Not of the members themselves: as long as nobody
    /// knows them all, there are long lists to be compared.
    pub(super) fn seek(&mut self, now: Instant) {
        let urgent = self.hearing.urgent(now).filter(|topic| **topic != Topic::nodes());
        if let Some(topic) = urgent.choose(&mut self.rng).cloned() {
            self.seek_for(&topic);
        }
    }

    /// Asks one who subscribes to this topic and was not asked for its sake; false where nobody is left.
    pub(super) fn seek_for(&mut self, topic: &Topic) -> bool {
        let Self { rows, members, hearing, rng, .. } = self;
        let fresh = exchange::reader(topic, rows, members, rng, |reader| hearing.may_seek(topic, reader));
        let Some(reader) = fresh else { return false };
        hearing.note_seek(topic, reader);
        self.ask(reader);
        true
    }

    /// Says again what new readers have missed.
    pub(super) fn retell(&mut self, now: Instant) {
        let due = self.retelling.take_due(now);
        if due.is_empty() {
            return;
        }
        due.iter().for_each(|(topic, number)| self.rows.own.rewrite_batch(topic, *number));
        self.flush();
        due.iter().for_each(|(topic, number)| self.retelling.forget(topic, *number));
    }

    pub(super) fn end_hearing(&mut self, topic: &Topic) {
        if self.hearing.end(topic) {
            self.outputs.push_back(Output::Heard { topic: topic.clone() });
        }
    }

    pub(super) fn begin_round(&mut self, now: Instant) {
        let changed = self.rows.expire(now, &self.members);
        self.tell(changed);
        let alone = self.members.live_count() == 0;
        if alone || self.rng.random_ratio(1, SEED_EVERY) {
            self.ask_seeds();
        }
        if let Some(partner) = exchange::partner(&self.rows, &self.members, &self.hearing, &mut self.rng) {
            self.ask(partner);
        }
    }

    /// Asks seeds that are not live members: at the beginning, and in case everybody forgot each other.
    pub(super) fn ask_seeds(&mut self) {
        let strangers = self.seeds.iter().filter(|(id, _)| !self.members.is_live(*id));
        for (to, address) in strangers.copied().sample(&mut self.rng, SEEDS_AT_ONCE) {
            self.compare_with(to, address);
        }
    }

    /// Makes sure that what this node only writes has reached one of those who read it.
    pub(super) fn check(&mut self) {
        let topic = self.rows.only_written().choose(&mut self.rng).cloned();
        let reader = topic
            .and_then(|topic| exchange::reader(&topic, &self.rows, &self.members, &mut self.rng, |_| true));
        if let Some(reader) = reader {
            self.ask(reader);
        }
    }

    pub(super) fn ask(&mut self, to: Id) {
        if let Some(address) = self.members.get(to).map(|known| known.peer.address) {
            self.compare_with(to, address);
        }
    }

    pub(super) fn compare_with(&mut self, to: Id, address: SocketAddr) {
        self.flush();
        let Self { last_compared, rows, swim, hearing, rng, .. } = self;
        let bytes = exchange::digest(to, last_compared, rows, swim, hearing, rng).into();
        self.send(Output::Request { to, address, bytes });
    }

    pub(super) fn check_soon(&mut self, within: Duration) {
        self.check_rounds = 1;
        self.next_check = self.next_check.min(self.now + within);
    }

    /// The next round comes soon, but not at the same moment on all nodes; at once on one that has yet to hear a topic.
    pub(super) fn hasten(&mut self, now: Instant) {
        let part = if self.hearing.is_urgent(now) { 0.0005..0.002 } else { 0.02..0.12 };
        let soon = self.config.sync_period.mul_f64(self.rng.random_range(part));
        self.next_round = self.next_round.min(now + soon);
    }
}
