//! The last snapshot on disk: sealed parts, replaced all at once.

use std::{
    io,
    path::Path,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::{
    SNAPSHOT_BYTES_MAX,
    database::{explain, guard, to_io},
    error::{Failure, OpenError, VaultError},
    types::SnapshotMeta,
    vault::Vault,
};

/// Bytes of a part of a snapshot, sealed on its own and sent on its own.
pub(crate) const PART_BYTES: usize = 1024 * 1024;
/// Bytes of an encoded header.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// Number → sealed part; part 0 is the header.
const PARTS: TableDefinition<u32, &[u8]> = TableDefinition::new("parts");
/// Term and index at which the snapshot was taken: where its parts belong.
const PLACE: TableDefinition<(), (u64, u64)> = TableDefinition::new("place");

/// What a snapshot consists of. Sealed like the rest, so that parts cannot be left out unnoticed.
#[derive(Serialize, Deserialize)]
struct Header {
    meta: SnapshotMeta,
    /// Bytes of the whole.
    length: u64,
}

/// Keeps one snapshot.
#[derive(Clone)]
pub(crate) struct SnapshotStore {
    file: Arc<Opened>,
    vault: Vault,
    pub(crate) failure: Failure,
}

/// Whether somebody still has the file of a [`SnapshotStore`] open.
pub(crate) struct Held(Weak<()>);

/// The database, and what lives a little longer than it: its file is free then.
struct Opened {
    database: Database,
    open: Arc<()>,
}

impl Held {
    pub(crate) fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl SnapshotStore {
    /// Makes the tables of a new store.
    pub(crate) fn found(database: &Database, file: &Path) -> Result<(), OpenError> {
        let found = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            transaction.open_table(PARTS)?;
            transaction.open_table(PLACE)?;
            Ok(transaction.commit()?)
        };
        found().map_err(|error| explain(file, error))
    }

    pub(crate) fn new(database: Database, vault: Vault, failure: Failure) -> Self {
        Self { file: Arc::new(Opened { database, open: Arc::default() }), vault, failure }
    }

    /// To be asked whether its file is free.
    pub(crate) fn held(&self) -> Held {
        Held(Arc::downgrade(&self.file.open))
    }

    /// The snapshot, when the log is opened: every part of it opens, or this says what is wrong.
    pub(crate) fn verify(&self, file: &Path) -> Result<Option<(SnapshotMeta, Bytes)>, OpenError> {
        guard(file, || Ok(self.load()))?.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => OpenError::DamagedSnapshot(file.to_owned()),
            _ => explain(file, redb::Error::Io(error)),
        })
    }

    /// Replaces the snapshot, unless the one on disk is newer.
    pub(crate) fn save(&self, meta: &SnapshotMeta, content: &[u8]) -> io::Result<()> {
        self.write(meta, content).map_err(|error| self.failure.note("its snapshot cannot be written", error))
    }

    fn write(&self, meta: &SnapshotMeta, content: &[u8]) -> io::Result<()> {
        let at = meta.last_log_id.map_or((0, 0), |last| (last.leader_id.term, last.index));
        let transaction = self.file.database.begin_write().map_err(to_io)?;
        {
            let mut place = transaction.open_table(PLACE).map_err(to_io)?;
            if place.get(()).map_err(to_io)?.is_some_and(|newest| newest.value().1 > at.1) {
                return Ok(());
            }
            place.insert((), at).map_err(to_io)?;
            let mut parts = transaction.open_table(PARTS).map_err(to_io)?;
            parts.retain(|_, _| false).map_err(to_io)?;
            let header = Header { meta: meta.clone(), length: content.len() as u64 };
            let header = covey_wire::encode(&header).map_err(io::Error::other)?;
            let numbered = std::iter::once(header.as_slice()).chain(content.chunks(PART_BYTES));
            for (number, part) in (0..).zip(numbered) {
                let envelope = self.vault.seal_part(at, number, part)?;
                parts.insert(number, envelope.as_slice()).map_err(to_io)?;
            }
        }
        transaction.commit().map_err(to_io)
    }

    /// The snapshot on disk.
    pub(crate) fn load(&self) -> io::Result<Option<(SnapshotMeta, Bytes)>> {
        let transaction = self.file.database.begin_read().map_err(to_io)?;
        let place = transaction.open_table(PLACE).map_err(to_io)?;
        let Some(at) = place.get(()).map_err(to_io)?.map(|at| at.value()) else {
            return Ok(None);
        };
        let parts = transaction.open_table(PARTS).map_err(to_io)?;
        let part = |number: u32| -> io::Result<Vec<u8>> {
            let envelope = parts.get(number).map_err(to_io)?.ok_or(VaultError::Misplaced)?;
            Ok(self.vault.open_part(at, number, envelope.value())?)
        };
        let header: Header =
            covey_wire::decode::<_, HEADER_BYTES_MAX>(&part(0)?).map_err(VaultError::from)?;
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        if length > SNAPSHOT_BYTES_MAX {
            return Err(VaultError::Misplaced.into());
        }
        let mut content = Vec::with_capacity(length);
        for number in 1.. {
            if content.len() >= length {
                break;
            }
            content.extend_from_slice(&part(number)?);
        }
        if content.len() != length {
            return Err(VaultError::Misplaced.into());
        }
        Ok(Some((header.meta, content.into())))
    }
}
