//! The directories of unpacked layers.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use nix::{sys::stat::SFlag, unistd::syncfs};
use serde::{Deserialize, Serialize};

use super::{
    Digest, StoreError,
    record::{read, sync_dir, write},
    rooted::{Metadata, Root, apply, split},
    unpack::Unpacked,
};

/// The lowerdir of an image without layers, beside the layers.
pub(super) const EMPTY: &str = "empty";
/// Hex digits of a link's name, where they tell the layer apart; 127 such links fit into mount options (4096 bytes).
const LINK: usize = 16;

/// What is remembered of an unpacked layer. It exists exactly when this is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layer {
    /// Of its tar.
    pub diff_id: Digest,
    /// Bytes of its files.
    pub size: u64,
}

/// Where layers live.
#[derive(Debug)]
pub(super) struct Layers {
    dir: PathBuf,
    drafts: PathBuf,
    next: AtomicU64,
}

/// A directory or file that goes away unless it is renamed into its place.
#[derive(Debug)]
pub(super) struct Draft(pub PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        discard(&self.0);
    }
}

fn discard(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove a leftover");
        }
        _ => {}
    }
}

impl Layers {
    /// Opens the directories, removes what an interrupted run left behind, and lists the layers by chain id.
    pub fn open(root: &Path) -> Result<(Self, BTreeMap<Digest, Layer>), StoreError> {
        let (dir, drafts) = (root.join("layers"), root.join("tmp"));
        for path in [&dir.join("l"), &dir.join(EMPTY), &drafts] {
            fs::create_dir_all(path).map_err(StoreError::io(path))?;
        }
        for entry in names(&drafts)? {
            discard(&drafts.join(entry));
        }
        let layers = Self { dir, drafts, next: AtomicU64::new(0) };
        let known = layers.scan()?;
        Ok((layers, known))
    }

    /// Where the layers are: what the names of [`Layers::link`] are relative to.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new name for something unfinished, on the file system of the layers.
    pub fn draft(&self) -> Draft {
        Draft(self.drafts.join(self.next.fetch_add(1, Ordering::Relaxed).to_string()))
    }

    /// Reads what is known of each layer; a directory without it was never finished.
    fn scan(&self) -> Result<BTreeMap<Digest, Layer>, StoreError> {
        let mut known = BTreeMap::new();
        let entries = names(&self.dir)?;
        for chain in entries.iter().filter_map(|name| digest(name.strip_suffix(".json")?)) {
            if self.path(chain).is_dir() {
                known.insert(chain, read(&self.record(chain))?);
            }
        }
        for chain in entries.iter().filter_map(|name| digest(name)).filter(|chain| !known.contains_key(chain))
        {
            discard(&self.path(chain));
        }
        Ok(known)
    }

    /// Gives a finished draft its place. `below` are the layers that it stands on, topmost first.
    pub fn commit(
        &self,
        draft: Draft,
        chain: Digest,
        diff_id: Digest,
        unpacked: &Unpacked,
        below: &[Digest],
    ) -> Result<Layer, StoreError> {
        let path = self.path(chain);
        let error = StoreError::io;
        self.describe_implied(&draft, unpacked, below).map_err(error(&path))?;
        fs::File::open(&draft.0).and_then(|dir| Ok(syncfs(&dir)?)).map_err(error(&path))?;
        discard(&path); // A directory that lost its record.
        fs::rename(&draft.0, &path).map_err(error(&path))?;
        self.make_link(chain).map_err(error(&path))?;
        sync_dir(&self.dir).map_err(error(&path))?;
        let layer = Layer { diff_id, size: unpacked.size };
        write(&self.record(chain), &layer)?;
        Ok(layer)
    }

    /// A directory that the archive only implied would hide the mode of the same one below (`/tmp` is 1777).
    fn describe_implied(&self, draft: &Draft, unpacked: &Unpacked, below: &[Digest]) -> io::Result<()> {
        if unpacked.implied.is_empty() || below.is_empty() {
            return Ok(());
        }
        let root = Root::open(&draft.0)?;
        let below: Vec<_> =
            below.iter().map(|chain| Root::open(&self.path(*chain))).collect::<Result<_, _>>()?;
        for path in &unpacked.implied {
            let Some(metadata) = below.iter().find_map(|layer| described(layer, path).transpose()) else {
                continue;
            };
            // A later entry of the layer may have replaced the directory.
            if let (Ok(dir), Some(metadata)) = (root.plain_dir(path), metadata?) {
                apply(dir.as_fd(), &metadata)?;
            }
        }
        Ok(())
    }

    /// Removes a layer; after a crash it exists whole or not at all. Dropping the draft frees the disk.
    pub fn remove(&self, chain: Digest) -> Result<Draft, StoreError> {
        let record = self.record(chain);
        fs::remove_file(&record).map_err(StoreError::io(&record))?;
        sync_dir(&self.dir).map_err(StoreError::io(&self.dir))?;
        if let Some(link) = self.link(chain) {
            discard(&self.dir.join(link));
        }
        let draft = self.draft();
        let path = self.path(chain);
        fs::rename(&path, &draft.0).map_err(StoreError::io(&path))?;
        Ok(draft)
    }

    /// The short name of a layer, relative to [`Layers::dir`].
    pub fn link(&self, chain: Digest) -> Option<String> {
        let target = target(chain);
        link_names(chain).find(|name| fs::read_link(self.dir.join(name)).is_ok_and(|found| found == target))
    }

    fn make_link(&self, chain: Digest) -> io::Result<()> {
        if self.link(chain).is_some() {
            return Ok(());
        }
        for name in link_names(chain) {
            match std::os::unix::fs::symlink(target(chain), self.dir.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made,
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn path(&self, chain: Digest) -> PathBuf {
        self.dir.join(chain.hex())
    }

    fn record(&self, chain: Digest) -> PathBuf {
        self.path(chain).with_extension("json")
    }
}

/// What one layer below says about a directory: nothing, its metadata, or (`Some(None)`) that it is not one.
fn described(layer: &Root, path: &Path) -> io::Result<Option<Option<Metadata>>> {
    let Some((parent, name)) = split(path) else { return Ok(None) };
    let Ok(parent) = layer.plain_dir(parent) else { return Ok(None) };
    match parent.stat(&name)? {
        None => Ok(None),
        Some(stat) if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() => {
            parent.open(&name)?.metadata().map(|metadata| Some(Some(metadata)))
        }
        Some(_) => Ok(Some(None)),
    }
}

/// Names in the order in which they are tried: longer where two layers begin alike.
fn link_names(chain: Digest) -> impl Iterator<Item = String> {
    let hex = chain.hex();
    (LINK..=hex.len()).map(move |length| format!("l/{}", &hex[..length]))
}

fn target(chain: Digest) -> PathBuf {
    Path::new("..").join(chain.hex())
}

fn digest(hex: &str) -> Option<Digest> {
    format!("sha256:{hex}").parse().ok()
}

/// The names in a directory of ours, which are text.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries =
        fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(StoreError::io(dir))?;
    Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}
