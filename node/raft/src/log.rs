//! The log: entries and vote as the consensus library wants them, recent entries in memory, all of them on disk.
#![allow(
    clippy::disallowed_types,
    reason = "door: the log is shared by the core, its replication tasks and the writer"
)]

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    EntryPayload, OptionalSend, RaftLogReader,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use redb::{Database, ReadableDatabase};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    database::{explain, guard, to_io},
    error::{Failure, OpenError},
    types::{Entry, LogId, Types, Vote},
    vault::Vault,
    writer::{self, COMMITTED, ENTRIES, Job, PROOF, PURGED, VOTE},
};

/// Bytes of entries that stay in memory once they are on disk.
const RECENT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of entries in one message to a follower, beyond the first.
const MESSAGE_ENTRIES_BYTES_MAX: usize = 1024 * 1024;
/// What an entry weighs in memory beside its proposal, in bytes.
const ENTRY_WEIGHT: usize = 256;
/// Bytes of one of the few values beside the entries.
const VALUE_BYTES_MAX: usize = 1024;

/// What the core, its replication tasks and the writer share.
pub(crate) struct Shared {
    pub(crate) vault: Vault,
    pub(crate) failure: Failure,
    tail: Mutex<Tail>,
    /// `None` once the log is closed.
    database: Mutex<Option<Arc<Database>>>,
    closed: watch::Sender<bool>,
}

/// What is known without looking at the disk.
#[derive(Default)]
struct Tail {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// The last index on disk.
    flushed: Option<u64>,
    /// A gapless run of entries that ends at `last`; everything before it is on disk.
    recent: BTreeMap<u64, Entry>,
    recent_bytes: usize,
}

impl Tail {
    fn push(&mut self, entry: Entry) {
        self.last = Some(entry.log_id);
        self.recent_bytes += weight(&entry);
        self.recent.insert(entry.log_id.index, entry);
    }

    /// Forgets `from` and all after it.
    fn cut(&mut self, from: u64) {
        let cut = self.recent.split_off(&from);
        self.recent_bytes -= cut.values().map(weight).sum::<usize>();
    }

    /// Forgets the oldest entries that are on disk, while there is too much in memory.
    fn shrink(&mut self) {
        while self.recent_bytes > RECENT_BYTES_MAX {
            match self.recent.first_entry() {
                Some(first) if Some(*first.key()) <= self.flushed => {
                    self.recent_bytes -= weight(&first.remove());
                }
                _ => return,
            }
        }
    }
}

fn weight(entry: &Entry) -> usize {
    ENTRY_WEIGHT
        + match &entry.payload {
            EntryPayload::Normal(write) => write.proposal.len(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        }
}

impl Shared {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> io::Result<Arc<Database>> {
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        database.clone().ok_or_else(|| io::Error::new(io::ErrorKind::BrokenPipe, "the raft log is closed"))
    }

    pub(crate) fn committed(&self) -> Option<LogId> {
        self.tail().committed
    }

    /// Everything up to here is on disk.
    pub(crate) fn flushed(&self, upto: Option<u64>) {
        let mut tail = self.tail();
        tail.flushed = upto;
        tail.shrink();
    }

    /// The writer is done.
    pub(crate) fn close(&self, database: Arc<Database>) {
        self.database.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(database);
        self.closed.send_replace(true);
    }

    /// The entries of a range that are in memory, and the range before them that has to come from disk.
    fn recent(&self, range: std::ops::Range<u64>, budget: usize) -> (std::ops::Range<u64>, Vec<Entry>) {
        let tail = self.tail();
        let start = range.start.max(tail.purged.map_or(0, |purged| purged.index + 1));
        let end = range.end.min(tail.last.map_or(0, |last| last.index + 1)).max(start);
        let memory = tail.recent.first_key_value().map_or(end, |(index, _)| *index).clamp(start, end);
        let mut bytes = 0;
        let entries = tail
            .recent
            .range(memory..end)
            .map(|(_, entry)| entry)
            .take_while(|entry| {
                let first = bytes == 0;
                bytes += weight(entry);
                first || bytes <= budget
            })
            .cloned()
            .collect();
        (start..memory, entries)
    }

    /// Entries that are only on disk, at least one of them, until they weigh more than `budget` bytes.
    fn stored(&self, range: std::ops::Range<u64>, budget: usize) -> io::Result<Vec<Entry>> {
        let table = self.database()?.begin_read().map_err(to_io)?.open_table(ENTRIES).map_err(to_io)?;
        let mut bytes = 0;
        let mut entries = Vec::new();
        for record in table.range(range).map_err(to_io)? {
            let (index, record) = record.map_err(to_io)?;
            bytes += record.value().len();
            if !entries.is_empty() && bytes > budget {
                break;
            }
            let entry = self.vault.open_entry(index.value(), record.value());
            entries.push(entry.map_err(|error| self.failure.note("it cannot be read", error.into()))?);
        }
        Ok(entries)
    }
}

/// Reads entries; the library makes one for each follower.
#[derive(Clone)]
pub(crate) struct LogReader(Arc<Shared>);

impl LogReader {
    async fn read(&self, range: std::ops::Range<u64>, budget: usize) -> io::Result<Vec<Entry>> {
        let (missing, recent) = self.0.recent(range, budget);
        if missing.is_empty() {
            return Ok(recent);
        }
        let shared = self.0.clone();
        let mut entries = tokio::task::spawn_blocking(move || shared.stored(missing, budget)).await??;
        // Where there is a budget, the next call gets what is in memory.
        if budget == usize::MAX {
            entries.extend(recent);
        }
        Ok(entries)
    }
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start..end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, MESSAGE_ENTRIES_BYTES_MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.0.tail().vote)
    }
}

/// The log, as its one owner has it.
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
}

impl LogStore {
    /// Makes the tables of a new log.
    pub(crate) fn found(database: &Database, file: &Path, vault: &Vault) -> Result<(), OpenError> {
        let proof = vault.proof().map_err(|error| OpenError::io(file, error.into()))?;
        writer::found(database, &proof).map_err(|error| explain(file, error))
    }

    /// Reads a log whole, so that whatever does not open is known now, and starts its writer.
    pub(crate) fn open(
        database: Database,
        file: &Path,
        key: &Path,
        vault: Vault,
        failure: Failure,
    ) -> Result<Self, OpenError> {
        let tail = guard(file, || Ok(Tail::load(&database, file, key, &vault)))??;
        let flushed = tail.flushed;
        let database = Arc::new(database);
        let shared = Arc::new(Shared {
            vault,
            failure,
            tail: Mutex::new(tail),
            database: Mutex::new(Some(database.clone())),
            closed: watch::Sender::new(false),
        });
        let jobs =
            writer::start(shared.clone(), database, flushed).map_err(|error| OpenError::io(file, error))?;
        Ok(Self { shared, jobs })
    }

    /// Becomes true once everything is written and the file is free for others.
    pub(crate) fn closed(&self) -> watch::Receiver<bool> {
        self.shared.closed.subscribe()
    }

    async fn ask(&self, job: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Job) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.jobs.send(job(done)).await.map_err(|_| writer_gone())?;
        answer.await.map_err(|_| writer_gone())?
    }
}

fn writer_gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the writer of the raft log has ended")
}

impl Tail {
    fn load(database: &Database, file: &Path, key: &Path, vault: &Vault) -> Result<Self, OpenError> {
        let corrupt = |reason: &str| OpenError::Corrupt { file: file.to_owned(), reason: reason.to_owned() };
        let proof = writer::get(database, PROOF).map_err(|error| explain(file, error))?;
        let proof = proof.ok_or_else(|| corrupt("it does not say what it is sealed with"))?;
        vault.check(&proof).map_err(|_| OpenError::WrongKey(key.to_owned()))?;

        let mut tail = Self {
            vote: value(database, file, VOTE)?,
            committed: value(database, file, COMMITTED)?,
            purged: value(database, file, PURGED)?,
            ..Self::default()
        };
        tail.last = tail.purged;
        let read = || -> Result<_, redb::Error> { Ok(database.begin_read()?.open_table(ENTRIES)?) };
        let table = read().map_err(|error| explain(file, error))?;
        for record in table.range::<u64>(..).map_err(|error| explain(file, error.into()))? {
            let (index, record) = record.map_err(|error| explain(file, error.into()))?;
            let index = index.value();
            if index != tail.last.map_or(0, |last| last.index + 1) {
                return Err(corrupt("entries are missing"));
            }
            let entry = vault
                .open_entry(index, record.value())
                .map_err(|_| OpenError::DamagedEntry { file: file.to_owned(), index })?;
            tail.push(entry);
            tail.flushed = Some(index);
            tail.shrink();
        }
        tail.flushed = tail.last.map(|last| last.index);
        if tail.committed > tail.last {
            return Err(corrupt("it ends before what was committed"));
        }
        Ok(tail)
    }
}

fn value<T: serde::de::DeserializeOwned>(
    database: &Database,
    file: &Path,
    key: &str,
) -> Result<Option<T>, OpenError> {
    let Some(bytes) = writer::get(database, key).map_err(|error| explain(file, error))? else {
        return Ok(None);
    };
    covey_wire::decode::<_, VALUE_BYTES_MAX>(&bytes)
        .map(Some)
        .map_err(|error| OpenError::Corrupt { file: file.to_owned(), reason: format!("{key}: {error}") })
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let tail = self.shared.tail();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader(self.shared.clone())
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        self.ask(|done| Job::Vote { vote, done }).await?;
        self.shared.tail().vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Written with the next entries: it only spares a restarted manager a moment of waiting for its leader.
        self.shared.tail().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.tail().committed)
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        {
            let mut tail = self.shared.tail();
            for entry in &entries {
                tail.push(entry.clone());
            }
        }
        self.jobs.send(Job::Append { entries, done }).await.map_err(|_| writer_gone())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index + 1);
        {
            let mut tail = self.shared.tail();
            tail.cut(from);
            tail.last = tail.last.min(last);
        }
        self.ask(|done| Job::Truncate { from, done }).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        {
            let mut tail = self.shared.tail();
            let kept = tail.recent.split_off(&(upto.index + 1));
            tail.recent_bytes = kept.values().map(weight).sum();
            tail.recent = kept;
            tail.purged = Some(upto);
            tail.last = tail.last.max(Some(upto));
        }
        self.jobs.send(Job::Purge { upto }).await.map_err(|_| writer_gone())
    }
}
