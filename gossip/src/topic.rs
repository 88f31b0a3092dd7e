//! Topics: what a row is about, and who wants to hear of it.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    sync::Arc,
};

use covey_wire::Id;
use serde::{Deserialize, Serialize};

use crate::config::TOPIC_BYTES_MAX;

/// The topic that every node subscribes to and may write: what each node says of itself.
pub const NODES: &str = "nodes";

/// What the keys, in topic [`NODES`], begin with under which a node says which other topics it subscribes to.
pub(crate) const SUBSCRIPTIONS: &str = "subscriptions";

/// The name of a topic: 1 to [`TOPIC_BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Topic(Arc<str>);

/// The text is not the name of a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a topic has 1 to {TOPIC_BYTES_MAX} bytes, not {0}")]
pub struct TopicError(usize);

impl Topic {
    /// The topic of what nodes say of themselves: [`NODES`].
    pub fn nodes() -> Self {
        Self(NODES.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        if (1..=TOPIC_BYTES_MAX).contains(&text.len()) {
            Ok(Self(text.into()))
        } else {
            Err(TopicError(text.len()))
        }
    }
}

impl TryFrom<String> for Topic {
    type Error = TopicError;

    fn try_from(text: String) -> Result<Self, TopicError> {
        text.parse()
    }
}

impl From<Topic> for String {
    fn from(topic: Topic) -> Self {
        topic.as_str().to_owned()
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Which nodes want which topics, as they themselves say.
#[derive(Default)]
pub(crate) struct Subscribers {
    /// In order of their ids.
    by_topic: BTreeMap<Topic, Vec<Id>>,
}

impl Subscribers {
    /// Takes what `node` says now in place of what it said before, and tells which topics are new.
    pub fn replace(&mut self, node: Id, topics: BTreeSet<Topic>) -> BTreeSet<Topic> {
        self.by_topic.retain(|topic, nodes| {
            if let Ok(place) = nodes.binary_search(&node)
                && !topics.contains(topic)
            {
                nodes.remove(place);
            }
            !nodes.is_empty()
        });
        let is_new = |topic: &Topic| {
            let nodes = self.by_topic.entry(topic.clone()).or_default();
            let place = nodes.binary_search(&node);
            place.inspect_err(|place| nodes.insert(*place, node)).is_err()
        };
        topics.into_iter().filter(is_new).collect()
    }

    /// The nodes that want `topic`, in order. For [`NODES`] nobody says so: everyone does.
    pub fn of(&self, topic: &Topic) -> &[Id] {
        self.by_topic.get(topic).map_or(&[], Vec::as_slice)
    }

    /// Whether `node` wants `topic`, as far as is known.
    pub fn wants(&self, node: Id, topic: &Topic) -> bool {
        topic.as_str() == NODES || self.of(topic).binary_search(&node).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_has_a_name_of_bounded_length() {
        assert_eq!("".parse::<Topic>(), Err(TopicError(0)));
        assert_eq!("x".repeat(65).parse::<Topic>(), Err(TopicError(65)));
        assert_eq!("tasks".parse::<Topic>().unwrap().as_str(), "tasks");
        let hostile = covey_wire::encode(&"x".repeat(65)).unwrap();
        assert!(covey_wire::decode::<Topic, 256>(&hostile).is_err());
    }

    #[test]
    fn what_a_node_subscribes_to_replaces_what_it_did_before() {
        let [a, b, c]: [Topic; 3] = ["a", "b", "c"].map(|name| name.parse().unwrap());
        let node = Id::new(1);
        let mut subscribers = Subscribers::default();
        subscribers.replace(Id::new(2), [a.clone()].into());
        assert_eq!(subscribers.replace(node, [a.clone(), b.clone()].into()), [a.clone(), b.clone()].into());
        assert_eq!(subscribers.replace(node, [b.clone(), c.clone()].into()), [c.clone()].into());
        assert_eq!(subscribers.of(&a), [Id::new(2)]);
        assert!(subscribers.wants(node, &c) && !subscribers.wants(node, &a));
        assert!(subscribers.wants(Id::new(7), &Topic::nodes()));
    }
}
