//! Topics of which this node has not heard yet what others know: those that it has just subscribed to.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use crate::topic::Topic;

/// The topics that are still being heard, and until when that is waited for: where all begin at the same time, nobody
/// can say of anything that it is whole.
#[derive(Debug, Default)]
pub(crate) struct Hearing {
    until: BTreeMap<Topic, Instant>,
}

impl Hearing {
    /// Nothing has been heard of a topic.
    pub fn begin(&mut self, topic: Topic, until: Instant) {
        self.until.insert(topic, until);
    }

    /// A topic has been heard, or is not wanted any more; true if that is news.
    pub fn end(&mut self, topic: &Topic) -> bool {
        self.until.remove(topic).is_some()
    }

    /// Whether it is still being heard.
    pub fn has(&self, topic: &Topic) -> bool {
        self.until.contains_key(topic)
    }

    /// Whether everything has been heard.
    pub fn is_over(&self) -> bool {
        self.until.is_empty()
    }

    /// The topics that are still being heard.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.until.keys()
    }

    /// Those that were waited for long enough, or of which this is true.
    pub fn ripe(&self, now: Instant, is_heard: impl Fn(&Topic) -> bool) -> BTreeSet<Topic> {
        let ripe = self.until.iter().filter(|(topic, until)| **until <= now || is_heard(topic));
        ripe.map(|(topic, _)| topic.clone()).collect()
    }
}
