//! Opening the database files, with every way in which that fails told apart.

use std::{
    cell::Cell,
    io,
    panic::{self, AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Once,
};

use redb::{Builder, Database};

use crate::error::OpenError;

/// Bytes of pages that one database keeps in memory.
const PAGE_CACHE: usize = 2 * 1024 * 1024;

/// Makes a new database file.
pub(crate) fn create(path: &Path) -> Result<Database, OpenError> {
    Builder::new().set_cache_size(PAGE_CACHE).create(path).map_err(|error| explain(path, error.into()))
}

/// Makes or opens a database on something that fails when a test wants it to.
#[cfg(test)]
pub(crate) fn on_backend(backend: impl redb::StorageBackend) -> Result<Database, redb::Error> {
    check(Builder::new().set_cache_size(PAGE_CACHE).create_with_backend(backend)?)
}

/// Opens a database file and reads all of it against its checksums.
///
/// The database trusts a page once its file is open; a damaged one could even make it panic. So everything is looked
/// at here, where a clear error is still possible.
pub(crate) fn open(path: &Path) -> Result<Database, OpenError> {
    if !path.try_exists().map_err(|error| OpenError::io(path, error))? {
        return Err(OpenError::Missing(path.to_owned()));
    }
    guard(path, || check(Builder::new().set_cache_size(PAGE_CACHE).open(path)?))
}

/// Reads all of a database against its checksums.
fn check(mut database: Database) -> Result<Database, redb::Error> {
    if database.check_integrity()? {
        Ok(database)
    } else {
        Err(redb::Error::Corrupted("a page does not have its checksum".to_owned()))
    }
}

thread_local! {
    /// A panic of this thread means corrupt pages, which its caller is told of.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs something that reads pages. A panic in there means that they are corrupt; it is not printed, since whoever
/// opens the log gets one clear error.
pub(crate) fn guard<T>(path: &Path, read: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, OpenError> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if GUARDED.get() {
                tracing::debug!(%panic, "the database panicked");
            } else {
                others(panic);
            }
        }));
    });
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    GUARDED.set(before);
    match result {
        Ok(result) => result.map_err(|error| explain(path, error)),
        Err(_) => Err(OpenError::Corrupt {
            file: path.to_owned(),
            reason: "its pages contradict each other".to_owned(),
        }),
    }
}

/// What a failure of the database means for the one who wanted to open it.
pub(crate) fn explain(path: &Path, error: redb::Error) -> OpenError {
    match error {
        redb::Error::DatabaseAlreadyOpen => OpenError::InUse(path.to_owned()),
        // No database at all, or one that points beyond its end.
        redb::Error::Io(error)
            if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            OpenError::Corrupt { file: path.to_owned(), reason: error.to_string() }
        }
        redb::Error::Io(error) => OpenError::io(path, error),
        other => OpenError::Corrupt { file: path.to_owned(), reason: other.to_string() },
    }
}

/// The same for the running log, which can only stop.
pub(crate) fn to_io(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}
