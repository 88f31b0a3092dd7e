//! Rows that were told while it was still going round who reads them: a push goes to those who are known, and whoever
//! becomes known a moment later would have to wait for anti-entropy. Such rows are told once more.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::topic::Topic;

/// This part of a period of anti-entropy after they were told, rows are still on their way.
const FRESH_PART: u32 = 8;
/// So long after the last newcomer they are told again: then it has gone round who reads them.
const QUIET_PART: u32 = 50;

/// Batches of this node that were just told.
#[derive(Debug)]
pub(crate) struct Retelling {
    period: Duration,
    fresh: BTreeMap<(Topic, u16), Fresh>,
}

#[derive(Debug)]
struct Fresh {
    /// Until when newcomers may have missed it.
    until: Instant,
    /// When it is told again.
    again: Option<Instant>,
}

impl Retelling {
    pub const fn new(period: Duration) -> Self {
        Self { period, fresh: BTreeMap::new() }
    }

    /// A batch is told, not for the second time.
    pub fn note_told(&mut self, now: Instant, topic: Topic, number: u16) {
        self.fresh.retain(|_, fresh| fresh.until > now || fresh.again.is_some());
        let until = now + self.period / FRESH_PART;
        self.fresh.insert((topic, number), Fresh { until, again: None });
    }

    /// A topic has readers of whom nothing was known.
    pub fn note_readers(&mut self, now: Instant, topic: &Topic) {
        let again = now + self.period / QUIET_PART;
        let of_topic = self.fresh.range_mut((topic.clone(), 0)..=(topic.clone(), u16::MAX));
        for (_, fresh) in of_topic.filter(|(_, fresh)| fresh.until > now) {
            fresh.again = Some(again);
        }
    }

    /// A batch was told for the second time.
    pub fn forget(&mut self, topic: &Topic, number: u16) {
        self.fresh.remove(&(topic.clone(), number));
    }

    /// When the first batch is to be told again.
    pub fn next(&self) -> Option<Instant> {
        self.fresh.values().filter_map(|fresh| fresh.again).min()
    }

    /// Those that are.
    pub fn take_due(&mut self, now: Instant) -> Vec<(Topic, u16)> {
        let is_due = |fresh: &Fresh| fresh.again.is_some_and(|again| again <= now);
        self.fresh.extract_if(.., |_, fresh| is_due(fresh)).map(|(batch, _)| batch).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::tests::start;

    #[test]
    fn what_was_just_told_is_told_once_more_when_no_newcomer_has_come_for_a_while() {
        let (now, front): (_, Topic) = (start(), "front".parse().unwrap());
        let at = |ms| now + Duration::from_millis(ms);
        let mut retelling = Retelling::new(Duration::from_secs(2));
        retelling.note_readers(now, &front);
        assert_eq!(retelling.next(), None, "nothing was told");
        retelling.note_told(now, front.clone(), 3);
        retelling.note_told(now, "other".parse().unwrap(), 0);
        assert_eq!(retelling.next(), None, "nobody has come");
        for newcomer in [10, 30] {
            retelling.note_readers(at(newcomer), &front);
        }
        assert_eq!((retelling.next(), retelling.take_due(at(69))), (Some(at(70)), vec![]));
        assert_eq!(retelling.take_due(at(70)), [(front.clone(), 3)]);
        retelling.note_readers(at(80), &front);
        assert_eq!(retelling.next(), None, "it is done");

        retelling.note_told(at(100), front.clone(), 3);
        retelling.note_readers(at(400), &front);
        assert_eq!(retelling.next(), None, "those who come now hear it by comparing");
    }
}
