//! Power cuts at every write, and what must still be there afterwards.

use std::path::Path;

use bytes::Bytes;
use covey_crypto::sealed::DataKey;
use covey_state::{Id, time::Stamp};
use openraft::{
    EntryPayload, RaftLogReader,
    entry::RaftEntry,
    storage::{RaftLogStorage, RaftLogStorageExt},
};

use super::disk::{Disk, End};
use crate::{
    database::on_backend,
    error::Failure,
    log::LogStore,
    types::{Entry, LogId, Member, Vote, Write},
    vault::Vault,
};

const UNLIMITED: usize = usize::MAX;

pub(super) fn vault() -> Vault {
    Vault::new(DataKey::new(1, [7; 32]), Id::new(1))
}

/// The log on a disk; `None` where the disk is at its end.
pub(super) fn open(disk: &Disk) -> Option<LogStore> {
    open_noting(disk, Failure::default())
}

pub(super) fn open_noting(disk: &Disk, failure: Failure) -> Option<LogStore> {
    let database = on_backend(disk.clone()).ok()?;
    LogStore::open(database, Path::new("log"), Path::new("key"), vault(), failure).ok()
}

/// A disk with a new log on it.
pub(super) fn founded() -> Vec<u8> {
    let disk = Disk::new(Vec::new(), UNLIMITED, End::PowerCut);
    LogStore::found(&on_backend(disk.clone()).unwrap(), Path::new("log"), &vault()).unwrap();
    disk.after_power_cut(1)
}

pub(super) fn entry(term: u64, index: u64) -> Entry {
    let proposal = Bytes::from(vec![index as u8; 300]);
    let leader = *Vote::new_committed(term, Member(Id::new(1))).leader_id();
    let payload = EntryPayload::Normal(Write { at: Stamp(index as i64), proposal });
    Entry::new(LogId::new(leader, index), payload)
}

/// What was promised: votes, and entries by (term, index), each once it was answered.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
struct Promised {
    vote: Option<Vote>,
    entries: Vec<LogId>,
    /// Index of the last purged entry.
    purged: Option<u64>,
}

/// Does to the log what a manager does, until the disk ends. Gives what was promised, and what was being done.
async fn work(log: &mut LogStore) -> (Promised, Promised) {
    let mut promised = Promised::default();
    let mut next = promised.clone();
    let mut index = 0;
    for term in 1..=4 {
        let vote = Vote::new_committed(term, Member(Id::new(1)));
        next.vote = Some(vote);
        if log.save_vote(&vote).await.is_err() {
            return (promised, next);
        }
        promised = next.clone();

        for count in [1, 5, 2] {
            let entries: Vec<Entry> = (index..index + count).map(|index| entry(term, index)).collect();
            index += count;
            next.entries.extend(entries.iter().map(|entry| entry.log_id));
            if log.blocking_append(entries).await.is_err() {
                return (promised, next);
            }
            promised = next.clone();
        }

        // What another leader overwrites.
        next.entries.pop();
        index -= 1;
        if log.truncate_after(next.entries.last().copied()).await.is_err() {
            return (promised, next);
        }
        promised = next.clone();

        // Nobody waits for this; what was asked for may be done at any time from now on.
        let upto = next.entries[3];
        next.purged = Some(upto.index);
        next.entries.drain(..=3);
        if log.purge(upto).await.is_err() {
            return (promised, next);
        }
    }
    (promised, next)
}

/// What a log really holds.
async fn held(log: &mut LogStore) -> Promised {
    let state = log.get_log_state().await.unwrap();
    let mut reader = log.get_log_reader().await;
    let entries = reader.try_get_log_entries(..).await.unwrap();
    assert_eq!(state.last_log_id, entries.last().map(|entry| entry.log_id).or(state.last_purged_log_id));
    Promised {
        vote: reader.read_vote().await.unwrap(),
        entries: entries.iter().map(|entry| entry.log_id).collect(),
        purged: state.last_purged_log_id.map(|purged| purged.index),
    }
}

/// Without what may be purged: purging is not promised, and changes nothing that counts.
fn unpurged(entries: &[LogId], purged: Option<u64>) -> Vec<LogId> {
    entries.iter().copied().filter(|entry| Some(entry.index) > purged).collect()
}

async fn close(log: LogStore) {
    let mut closed = log.closed();
    drop(log);
    closed.wait_for(|closed| *closed).await.unwrap();
}

/// QRM-01: what was acknowledged survives, whichever write is the last one.
#[tokio::test]
async fn a_power_cut_at_any_write_loses_nothing_that_was_promised() {
    let start = founded();
    let whole = Disk::new(start.clone(), 1_000_000, End::PowerCut);
    let mut log = open(&whole).unwrap();
    let (all, _) = work(&mut log).await;
    close(log).await;
    assert_eq!(all.vote, Some(Vote::new_committed(4, Member(Id::new(1)))));
    let operations = 1_000_000 - whole.left();

    for last in 0..operations {
        let disk = Disk::new(start.clone(), last, End::PowerCut);
        let (promised, next) = match open(&disk) {
            Some(mut log) => {
                let result = work(&mut log).await;
                close(log).await;
                result
            }
            None => Default::default(),
        };
        let restarted = Disk::new(disk.after_power_cut(last as u64 + 1), UNLIMITED, End::PowerCut);
        let mut log =
            open(&restarted).unwrap_or_else(|| panic!("the log does not open after operation {last}"));
        let held = held(&mut log).await;
        close(log).await;

        assert!([promised.vote, next.vote].contains(&held.vote), "operation {last}: vote {:?}", held.vote);
        let purged = held.purged.max(next.purged);
        let wanted = [&promised, &next].map(|state| unpurged(&state.entries, purged));
        let found = unpurged(&held.entries, purged);
        assert!(wanted.contains(&found), "operation {last}: found {found:?}, promised {promised:?}");
    }
}
