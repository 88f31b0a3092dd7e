//! The data directory: its files, its key, and whose it is.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use covey_crypto::sealed::DataKey;
use covey_state::Id;
use rand::{TryRng, rngs::SysRng};
use zeroize::Zeroizing;

use crate::error::OpenError;

/// The format of the directory that this build writes, and the highest that it reads.
pub(crate) const FORMAT: u32 = 1;
/// Bytes of the identity file; a longer one is not ours.
const IDENTITY_BYTES_MAX: u64 = 256;
/// Bytes of the key file: the key's id, then the key.
const KEY_BYTES: usize = 4 + 32;
/// Id of the one key that there is so far.
const FIRST_KEY: u32 = 1;

/// Whose log a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: Id,
    /// The node.
    pub node: Id,
}

/// The files of one log.
#[derive(Clone, Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Vote and entries.
    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("log.redb")
    }

    /// The last snapshot.
    pub(crate) fn snapshot(&self) -> PathBuf {
        self.0.join("snapshot.redb")
    }

    /// The data key, mode 0600.
    pub(crate) fn key(&self) -> PathBuf {
        self.0.join("key")
    }

    /// Format and owner, in plain text. Written last: while it is missing, the log was never used.
    fn identity(&self) -> PathBuf {
        self.0.join("identity")
    }

    /// Whose log this is; `None` where there is none.
    pub(crate) fn read_identity(&self) -> Result<Option<Identity>, OpenError> {
        let path = self.identity();
        let mut text = String::new();
        match File::open(&path) {
            Ok(file) => file.take(IDENTITY_BYTES_MAX).read_to_string(&mut text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
        }
        .map_err(|error| OpenError::io(&path, error))?;

        let mut words = text.split_whitespace();
        let corrupt = || OpenError::Corrupt {
            file: path.clone(),
            reason: "it does not say whose log this is".to_owned(),
        };
        let format: u32 = words.next().and_then(|word| word.parse().ok()).ok_or_else(corrupt)?;
        if format > FORMAT {
            return Err(OpenError::Newer(self.0.clone(), format));
        }
        let mut id = || words.next().and_then(|word| word.parse::<Id>().ok()).ok_or_else(corrupt);
        Ok(Some(Identity { cluster: id()?, node: id()? }))
    }

    pub(crate) fn write_identity(&self, identity: Identity) -> Result<(), OpenError> {
        let text = format!("{FORMAT} {} {}\n", identity.cluster, identity.node);
        self.write_whole(&self.identity(), text.as_bytes())
    }

    /// Makes the directory, mode 0700, and everything that an unfinished creation left in it goes.
    pub(crate) fn make(&self) -> Result<(), OpenError> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.0).map_err(|error| OpenError::io(&self.0, error))?;
        for file in [self.log(), self.snapshot()] {
            remove_if_there(&file)?;
        }
        Ok(())
    }

    /// Makes a new key of the system's randomness.
    pub(crate) fn create_key(&self) -> Result<DataKey, OpenError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        bytes[..4].copy_from_slice(&FIRST_KEY.to_be_bytes());
        SysRng
            .try_fill_bytes(&mut bytes[4..])
            .map_err(|error| OpenError::io(self.key(), io::Error::other(error)))?;
        self.write_whole(&self.key(), &*bytes)?;
        self.read_key()
    }

    pub(crate) fn read_key(&self) -> Result<DataKey, OpenError> {
        let path = self.key();
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(OpenError::Missing(path)),
            Err(error) => return Err(OpenError::io(path, error)),
        };
        let length = file.metadata().map_err(|error| OpenError::io(&path, error))?.len();
        if length != KEY_BYTES as u64 {
            return Err(OpenError::BadKey(path));
        }
        file.read_exact(&mut *bytes).map_err(|error| OpenError::io(&path, error))?;
        let (id, secret) = bytes.split_first_chunk::<4>().ok_or_else(|| OpenError::BadKey(path.clone()))?;
        let secret: [u8; 32] = secret.try_into().map_err(|_| OpenError::BadKey(path))?;
        Ok(DataKey::new(u32::from_be_bytes(*id), secret))
    }

    /// Removes the log: the identity first, without which the rest counts as never used, then the key, without which
    /// it says nothing.
    pub(crate) fn destroy(&self) -> Result<(), OpenError> {
        for file in [self.identity(), self.key(), self.log(), self.snapshot()] {
            remove_if_there(&file)?;
            remove_if_there(&unfinished(&file))?;
        }
        match fs::remove_dir(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(OpenError::io(&self.0, error)),
            _ => Ok(()),
        }
    }

    /// Writes a file so that after a crash it is there whole or not at all.
    fn write_whole(&self, path: &Path, content: &[u8]) -> Result<(), OpenError> {
        let part = unfinished(path);
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&part, path)?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(|error| OpenError::io(path, error))
    }
}

/// Where a file is written before it gets its name.
fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("part")
}

fn remove_if_there(path: &Path) -> Result<(), OpenError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(OpenError::io(path, error)),
        _ => Ok(()),
    }
}
