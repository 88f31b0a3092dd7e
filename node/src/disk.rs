//! Files that have to survive: written whole, fsynced, then renamed into place.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result};

/// Replaces `path` by `bytes`: after a crash it holds either the old or the new. Only root may read it.
///
/// # Errors
/// The old file is untouched.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let replace = || -> io::Result<()> {
        let temporary = path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    replace().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads `path`; `None` where there is none.
///
/// # Errors
/// It is there but cannot be read, or has more than `limit` bytes.
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let shown = path.display();
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
        Ok(metadata) if metadata.len() > limit => {
            anyhow::bail!("{shown} has {} bytes; it can have at most {limit}", metadata.len());
        }
        Ok(_) => {}
    }
    fs::read(path).map(Some).with_context(|| format!("cannot read {shown}"))
}
