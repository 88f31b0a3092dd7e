//! The writer: one thread that puts votes and entries on disk, many of them behind one fsync.

use std::{io, sync::Arc, thread};

use openraft::storage::IOFlushed;
use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use crate::{
    database::to_io,
    log::Shared,
    types::{Entry, LogId, Types, Vote},
};

/// Jobs that wait for the writer before those who ask have to wait as well.
pub(crate) const JOBS_MAX: usize = 1024;
/// Jobs that share one fsync.
const BATCH_JOBS_MAX: usize = 256;

/// Index → term and sealed entry.
pub(crate) const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
/// The few values beside the entries.
pub(crate) const STATE: TableDefinition<&str, &[u8]> = TableDefinition::new("state");
pub(crate) const PROOF: &str = "proof";
pub(crate) const VOTE: &str = "vote";
pub(crate) const PURGED: &str = "purged";
pub(crate) const COMMITTED: &str = "committed";

/// Something to write, in the order of asking.
pub(crate) enum Job {
    Append {
        entries: Vec<Entry>,
        done: IOFlushed<Types>,
    },
    Vote {
        vote: Vote,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Removes `from` and all after it.
    Truncate {
        from: u64,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Removes everything up to here. Nobody waits for it.
    Purge {
        upto: LogId,
    },
}

impl Job {
    /// Tells the one who asked.
    fn finish(self, result: io::Result<()>) {
        match self {
            Self::Append { done, .. } => done.io_completed(result),
            Self::Vote { done, .. } | Self::Truncate { done, .. } => {
                // Who no longer waits need not know.
                let _ = done.send(result);
            }
            Self::Purge { .. } => {}
        }
    }
}

/// Starts the thread. It ends, and closes the database, when the last sender of jobs is gone.
pub(crate) fn start(
    shared: Arc<Shared>,
    database: Arc<Database>,
    flushed: Option<u64>,
) -> io::Result<mpsc::Sender<Job>> {
    let (sender, jobs) = mpsc::channel(JOBS_MAX);
    let writer = Writer { shared, database, jobs, flushed, failed: None };
    thread::Builder::new().name("raft-log".to_owned()).spawn(|| writer.run())?;
    Ok(sender)
}

struct Writer {
    shared: Arc<Shared>,
    database: Arc<Database>,
    jobs: mpsc::Receiver<Job>,
    /// The last index on disk.
    flushed: Option<u64>,
    /// After one failed write nobody knows what is on disk: no other is tried.
    failed: Option<(io::ErrorKind, String)>,
}

impl Writer {
    fn run(mut self) {
        while let Some(first) = self.jobs.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH_JOBS_MAX
                && let Ok(job) = self.jobs.try_recv()
            {
                batch.push(job);
            }
            self.write(batch);
        }
        let Self { shared, database, .. } = self;
        shared.close(database);
    }

    fn write(&mut self, batch: Vec<Job>) {
        if self.failed.is_none()
            && let Err(error) = self.commit(&batch)
        {
            let error = self.shared.failure.note("it cannot be written", error);
            self.failed = Some((error.kind(), error.to_string()));
        }
        for job in batch {
            job.finish(match &self.failed {
                None => Ok(()),
                Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
            });
        }
    }

    /// Writes the jobs in order, in one transaction: all of them are on disk afterwards, or none is.
    fn commit(&mut self, batch: &[Job]) -> io::Result<()> {
        let transaction = self.database.begin_write().map_err(to_io)?;
        let mut flushed = self.flushed;
        {
            let mut entries = transaction.open_table(ENTRIES).map_err(to_io)?;
            for job in batch {
                match job {
                    Job::Append { entries: new, .. } => {
                        for entry in new {
                            let record = self.shared.vault.seal_entry(entry)?;
                            entries.insert(entry.log_id.index, record.as_slice()).map_err(to_io)?;
                            flushed = Some(entry.log_id.index);
                        }
                    }
                    Job::Vote { vote, .. } => put(&transaction, VOTE, vote)?,
                    Job::Truncate { from, .. } => {
                        entries.retain_in(*from.., |_, _| false).map_err(to_io)?;
                        flushed = from.checked_sub(1).min(flushed);
                    }
                    Job::Purge { upto } => {
                        entries.retain_in(..=upto.index, |_, _| false).map_err(to_io)?;
                        put(&transaction, PURGED, upto)?;
                        flushed = flushed.max(Some(upto.index));
                    }
                }
            }
        }
        // How far the log is committed rides along, but never ahead of the entries.
        if let Some(committed) = self.shared.committed()
            && Some(committed.index) <= flushed
        {
            put(&transaction, COMMITTED, &committed)?;
        }
        transaction.commit().map_err(to_io)?;
        self.flushed = flushed;
        self.shared.flushed(flushed);
        Ok(())
    }
}

fn put<T: serde::Serialize>(transaction: &WriteTransaction, key: &str, value: &T) -> io::Result<()> {
    let value = covey_wire::encode(value).map_err(io::Error::other)?;
    let mut state = transaction.open_table(STATE).map_err(to_io)?;
    state.insert(key, value.as_slice()).map_err(to_io)?;
    Ok(())
}

/// Makes the tables of a new log, which only this vault opens.
pub(crate) fn found(database: &Database, proof: &[u8]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(ENTRIES)?;
    transaction.open_table(STATE)?.insert(PROOF, proof)?;
    transaction.commit()?;
    Ok(())
}

/// Reads one of the few values.
pub(crate) fn get(database: &Database, key: &str) -> Result<Option<Vec<u8>>, redb::Error> {
    let state = database.begin_read()?.open_table(STATE)?;
    Ok(state.get(key)?.map(|value| value.value().to_vec()))
}
