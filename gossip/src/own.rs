//! What this node says: its own rows, arranged in batches, and signed when they change.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use covey_wire::Id;
use ed25519_dalek::SigningKey;

use crate::{
    config::{BATCHES_PER_OWNER_MAX, KEY_BYTES_MAX, ROW_BYTES_MAX},
    error::RowError,
    row::{self, Batch, Signed, Version},
    topic::Topic,
};

/// This node's rows.
pub(crate) struct Own {
    owner: Id,
    signer: SigningKey,
    sequence: u64,
    /// Nothing is said for now.
    held: bool,
    drafts: BTreeMap<Topic, Vec<Draft>>,
}

/// A batch being written. One without rows stays: its emptiness is what must be said.
#[derive(Default)]
struct Draft {
    rows: BTreeMap<Arc<str>, Bytes>,
    dirty: bool,
}

impl Draft {
    fn has_room(&self, key: &str, payload: &Bytes) -> bool {
        let others =
            self.rows.iter().map(|(key, payload)| (&**key, payload)).filter(|(other, _)| *other != key);
        row::fits(others.chain([(key, payload)]))
    }
}

impl Own {
    pub const fn new(owner: Id, signer: SigningKey) -> Self {
        Self { owner, signer, sequence: 0, held: false, drafts: BTreeMap::new() }
    }

    pub const fn signer(&self) -> &SigningKey {
        &self.signer
    }

    /// Says nothing from now on, or what there is to say.
    pub const fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Whether there may be more to say than is said.
    pub const fn is_held(&self) -> bool {
        self.held
    }

    /// Writes a row; saying the same again is no change.
    pub fn set(&mut self, topic: &Topic, key: &str, payload: Bytes) -> Result<(), RowError> {
        if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
            return Err(RowError::Key(key.len()));
        }
        if payload.len() > ROW_BYTES_MAX {
            return Err(RowError::Payload(payload.len()));
        }
        let drafts = self.drafts.entry(topic.clone()).or_default();
        let old = drafts.iter().position(|draft| draft.rows.contains_key(key));
        if old.is_some_and(|old| drafts[old].rows.get(key) == Some(&payload)) {
            return Ok(());
        }
        let stays = old.filter(|old| drafts[*old].has_room(key, &payload));
        let place = stays.or_else(|| drafts.iter().position(|draft| draft.has_room(key, &payload)));
        let place = match place {
            Some(place) => place,
            None if drafts.len() < usize::from(BATCHES_PER_OWNER_MAX) => {
                drafts.push(Draft::default());
                drafts.len() - 1
            }
            None => return Err(RowError::Full),
        };
        if let Some(old) = old.filter(|old| *old != place) {
            drafts[old].rows.remove(key);
            drafts[old].dirty = true;
        }
        drafts[place].rows.insert(key.into(), payload);
        drafts[place].dirty = true;
        Ok(())
    }

    /// Takes a row back, if there is one.
    pub fn withdraw(&mut self, topic: &Topic, key: &str) {
        for draft in self.drafts.get_mut(topic).into_iter().flatten() {
            if draft.rows.remove(key).is_some() {
                draft.dirty = true;
            }
        }
    }

    /// Says everything anew: in a new incarnation, what was said in the old one no longer counts.
    pub fn rewrite(&mut self) {
        self.drafts.values_mut().flatten().for_each(|draft| draft.dirty = true);
    }

    /// Says a batch anew.
    pub fn rewrite_batch(&mut self, topic: &Topic, number: u16) {
        let drafts = self.drafts.get_mut(topic);
        if let Some(draft) = drafts.and_then(|drafts| drafts.get_mut(usize::from(number))) {
            draft.dirty = true;
        }
    }

    /// The topics that this node writes to.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.drafts.keys()
    }

    pub fn is_dirty(&self) -> bool {
        !self.held && self.drafts.values().flatten().any(|draft| draft.dirty)
    }

    /// Signs what changed since the last time.
    pub fn flush(&mut self, incarnation: u64) -> Vec<(Batch, Signed)> {
        let mut flushed = Vec::new();
        for (topic, drafts) in &mut self.drafts {
            for (number, draft) in (0..).zip(drafts).filter(|(_, draft)| draft.dirty) {
                draft.dirty = false;
                self.sequence += 1;
                let version = Version { incarnation, sequence: self.sequence };
                let rows = draft.rows.iter().map(|(key, payload)| (key.clone(), payload.clone())).collect();
                let batch = Batch { owner: self.owner, topic: topic.clone(), number, version, rows };
                let signed = batch.sign(&self.signer);
                flushed.push((batch, signed));
            }
        }
        flushed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ROWS_PER_BATCH_MAX;

    fn own() -> (Own, Topic) {
        (Own::new(Id::new(1), SigningKey::from_bytes(&[1; 32])), "tasks".parse().unwrap())
    }

    fn shape(flushed: &[(Batch, Signed)]) -> Vec<(u16, u64, usize)> {
        flushed.iter().map(|(batch, _)| (batch.number, batch.version.sequence, batch.rows.len())).collect()
    }

    #[test]
    fn rows_that_are_written_together_share_a_signature() {
        let (mut own, tasks) = own();
        for n in 0..ROWS_PER_BATCH_MAX + 1 {
            own.set(&tasks, &n.to_string(), Bytes::from_static(b"new")).unwrap();
        }
        assert_eq!(shape(&own.flush(1)), [(0, 1, ROWS_PER_BATCH_MAX), (1, 2, 1)]);
        own.set(&tasks, "3", Bytes::from_static(b"new")).unwrap();
        assert_eq!(shape(&own.flush(1)), [], "nothing new was said");
        own.withdraw(&tasks, "3");
        assert_eq!(shape(&own.flush(1)), [(0, 3, ROWS_PER_BATCH_MAX - 1)]);
        own.set(&tasks, "new", Bytes::new()).unwrap();
        assert_eq!(shape(&own.flush(1)), [(0, 4, ROWS_PER_BATCH_MAX)], "the gap is used again");
    }

    #[test]
    fn a_row_that_outgrows_its_batch_moves() {
        let (mut own, tasks) = own();
        for key in ["a", "b", "c"] {
            own.set(&tasks, key, vec![0; 5000].into()).unwrap();
        }
        own.flush(1);
        own.set(&tasks, "b", vec![0; ROW_BYTES_MAX].into()).unwrap();
        assert_eq!(shape(&own.flush(1)), [(0, 2, 2), (1, 3, 1)]);
    }

    #[test]
    fn rows_over_a_bound_are_refused_and_change_nothing() {
        let (mut own, tasks) = own();
        assert_eq!(own.set(&tasks, "", Bytes::new()), Err(RowError::Key(0)));
        assert_eq!(own.set(&tasks, "a", vec![0; 8193].into()), Err(RowError::Payload(8193)));
        let all = usize::from(BATCHES_PER_OWNER_MAX) * ROWS_PER_BATCH_MAX;
        for n in 0..all {
            own.drafts.entry(tasks.clone()).or_default();
            let drafts = own.drafts.get_mut(&tasks).unwrap();
            drafts.resize_with(usize::from(BATCHES_PER_OWNER_MAX), Draft::default);
            drafts[n / ROWS_PER_BATCH_MAX].rows.insert(n.to_string().into(), Bytes::new());
        }
        assert_eq!(own.set(&tasks, "one more", Bytes::new()), Err(RowError::Full));
        assert!(!own.is_dirty());
    }

    #[test]
    fn a_new_incarnation_says_everything_anew() {
        let (mut own, tasks) = own();
        own.set(&tasks, "a", Bytes::new()).unwrap();
        own.flush(1);
        own.rewrite();
        let flushed = own.flush(2);
        assert_eq!(flushed[0].0.version, Version { incarnation: 2, sequence: 2 });
    }
}
