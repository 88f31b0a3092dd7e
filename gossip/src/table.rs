//! The table of rows: per topic, each owner's batches and the rows in them.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use covey_wire::Id;

use crate::{
    digest::{Sums, batch_fact},
    row::{Batch, Signed, Version},
    topic::Topic,
};

/// All rows that this node holds, its own and those of the topics that it subscribes to.
#[derive(Default)]
pub(crate) struct Table {
    shelves: BTreeMap<Topic, Shelf>,
}

/// The rows of one topic.
pub(crate) struct Shelf {
    batches: BTreeMap<(Id, u16), Held>,
    rows: BTreeMap<(Id, Arc<str>), Cell>,
    sums: Sums,
}

/// A batch that is held.
pub(crate) struct Held {
    pub version: Version,
    pub signed: Signed,
    keys: Vec<Arc<str>>,
}

/// A row that is held.
pub(crate) struct Cell {
    number: u16,
    pub version: Version,
    pub payload: Bytes,
}

/// A row that changed or went away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changed {
    pub owner: Id,
    pub topic: Topic,
    pub key: Arc<str>,
}

impl Table {
    pub fn shelf(&self, topic: &str) -> Option<&Shelf> {
        self.shelves.get(topic)
    }

    pub fn held(&self, topic: &str, owner: Id, number: u16) -> Option<&Held> {
        self.shelves.get(topic)?.batches.get(&(owner, number))
    }

    /// Takes a batch in place of its older version; whoever calls has looked that it is newer.
    pub fn put(&mut self, batch: Batch, signed: Signed) -> Vec<Changed> {
        let Batch { owner, topic, number, version, rows } = batch;
        let shelf = self.shelves.entry(topic.clone()).or_insert_with(Shelf::new);
        let keys = rows.iter().map(|(key, _)| key.clone()).collect();
        let before = shelf.batches.insert((owner, number), Held { version, signed, keys });
        if let Some(before) = &before {
            shelf.sums.toggle(owner, batch_fact(owner, number, before.version));
        }
        shelf.sums.toggle(owner, batch_fact(owner, number, version));

        let mut changed = Vec::new();
        for (key, payload) in rows {
            if shelf.put_row(owner, &key, Cell { number, version, payload }) {
                changed.push(Changed { owner, topic: topic.clone(), key });
            }
        }
        let gone = before.into_iter().flat_map(|before| before.keys);
        let gone = gone.filter(|key| shelf.drop_row(owner, key, number, version));
        changed.extend(gone.map(|key| Changed { owner, topic: topic.clone(), key }));
        changed
    }

    /// Drops the batches of which `doomed(topic, owner, version)` is true.
    pub fn drop_batches(&mut self, doomed: impl Fn(&Topic, Id, Version) -> bool) -> Vec<Changed> {
        let mut changed = Vec::new();
        for (topic, shelf) in &mut self.shelves {
            let Shelf { batches, rows, sums } = shelf;
            for ((owner, number), held) in
                batches.extract_if(.., |(owner, _), held| doomed(topic, *owner, held.version))
            {
                sums.toggle(owner, batch_fact(owner, number, held.version));
                for key in held.keys {
                    if rows.get(&(owner, key.clone())).is_some_and(|cell| cell.number == number) {
                        rows.remove(&(owner, key.clone()));
                        changed.push(Changed { owner, topic: topic.clone(), key });
                    }
                }
            }
        }
        self.shelves.retain(|_, shelf| !shelf.batches.is_empty());
        changed
    }
}

impl Shelf {
    const fn new() -> Self {
        Self { batches: BTreeMap::new(), rows: BTreeMap::new(), sums: Sums::new() }
    }

    pub const fn sums(&self) -> &Sums {
        &self.sums
    }

    pub fn batches(&self) -> impl Iterator<Item = (Id, u16, &Held)> {
        self.batches.iter().map(|((owner, number), held)| (*owner, *number, held))
    }

    pub fn batches_of(&self, owner: Id) -> impl Iterator<Item = (u16, &Held)> {
        self.batches.range((owner, 0)..=(owner, u16::MAX)).map(|((_, number), held)| (*number, held))
    }

    pub fn rows(&self) -> impl Iterator<Item = (Id, &str, &Cell)> {
        self.rows.iter().map(|((owner, key), cell)| (*owner, &**key, cell))
    }

    pub fn row(&self, owner: Id, key: &str) -> Option<(&str, &Cell)> {
        self.rows.get_key_value(&(owner, key.into())).map(|((_, key), cell)| (&**key, cell))
    }

    /// Whether the row now says something else. A key that its owner moved between batches may be seen in both
    /// for a while; the newer one counts.
    fn put_row(&mut self, owner: Id, key: &Arc<str>, new: Cell) -> bool {
        let place = (owner, key.clone());
        match self.rows.get(&place) {
            Some(old) if old.number != new.number && old.version > new.version => false,
            Some(old) => {
                let changed = old.payload != new.payload;
                self.rows.insert(place, new);
                changed
            }
            None => self.rows.insert(place, new).is_none(),
        }
    }

    /// Drops the row if it was in batch `number` and the batch of `version` has it no longer.
    fn drop_row(&mut self, owner: Id, key: &Arc<str>, number: u16, version: Version) -> bool {
        let place = (owner, key.clone());
        let gone = self.rows.get(&place).is_some_and(|cell| cell.number == number && cell.version < version);
        gone && self.rows.remove(&place).is_some()
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::row::tests::batch;

    fn put(table: &mut Table, batch: Batch) -> Vec<String> {
        let signed = batch.sign(&SigningKey::from_bytes(&[1; 32]));
        table.put(batch, signed).into_iter().map(|changed| changed.key.to_string()).collect()
    }

    fn numbered(number: u16, batch: Batch) -> Batch {
        Batch { number, ..batch }
    }

    /// TSK-15
    #[test]
    fn a_new_version_of_a_batch_changes_adds_and_withdraws_rows() {
        let mut table = Table::default();
        assert_eq!(put(&mut table, batch(1, 1, &[("a", "1"), ("b", "1")])), ["a", "b"]);
        assert_eq!(put(&mut table, batch(1, 2, &[("b", "1"), ("c", "1")])), ["c", "a"]);
        let shelf = table.shelf("tasks").unwrap();
        assert_eq!(shelf.rows().map(|(_, key, _)| key).collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn a_row_that_moved_to_another_batch_is_never_lost_on_the_way() {
        for flipped in [false, true] {
            let mut table = Table::default();
            put(&mut table, batch(1, 1, &[("a", "old")]));
            let mut moves = [batch(1, 2, &[]), numbered(1, batch(1, 3, &[("a", "new")]))];
            if flipped {
                moves.reverse();
            }
            for batch in moves {
                put(&mut table, batch);
            }
            assert_eq!(table.shelf("tasks").unwrap().row(Id::new(1), "a").unwrap().1.payload, "new");
        }
    }

    #[test]
    fn dropped_batches_leave_neither_rows_nor_sums() {
        let mut table = Table::default();
        put(&mut table, batch(1, 1, &[("a", "1")]));
        let alone = table.shelf("tasks").unwrap().sums().clone();
        put(&mut table, batch(2, 1, &[("a", "1")]));
        let dropped = table.drop_batches(|_, owner, _| owner == Id::new(2));
        assert_eq!(dropped.len(), 1);
        assert_eq!(*table.shelf("tasks").unwrap().sums(), alone);
        table.drop_batches(|_, _, _| true);
        assert!(table.shelf("tasks").is_none());
    }
}
