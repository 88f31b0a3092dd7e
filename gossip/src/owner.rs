//! Owners: whose signature counts, and for which topics. The node knows; the machine is told.

use std::collections::{BTreeMap, BTreeSet};

use covey_wire::Id;
use ed25519_dalek::VerifyingKey;

use crate::{
    config::MEMBERS_MAX,
    topic::{NODES, Topic},
};

/// Which topics an owner may write, beside [`NODES`], which everyone may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rights {
    /// All topics.
    All,
    /// These, and no others.
    Only(BTreeSet<Topic>),
}

/// The owners that this node was told of.
#[derive(Default)]
pub(crate) struct Owners {
    known: BTreeMap<Id, Owner>,
}

pub(crate) struct Owner {
    pub key: VerifyingKey,
    rights: Rights,
}

impl Owner {
    pub fn may_write(&self, topic: &Topic) -> bool {
        topic.as_str() == NODES
            || match &self.rights {
                Rights::All => true,
                Rights::Only(topics) => topics.contains(topic),
            }
    }
}

impl Owners {
    /// Whether the key is one, and there is room.
    pub fn learn(&mut self, id: Id, public_key: &[u8; 32], rights: Rights) -> bool {
        let room = self.known.len() < MEMBERS_MAX || self.known.contains_key(&id);
        let Some(key) = VerifyingKey::from_bytes(public_key).ok().filter(|_| room) else { return false };
        self.known.insert(id, Owner { key, rights });
        true
    }

    pub fn forget(&mut self, id: Id) {
        self.known.remove(&id);
    }

    pub fn get(&self, id: Id) -> Option<&Owner> {
        self.known.get(&id)
    }
}
