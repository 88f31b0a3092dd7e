//! A layer's tar becomes a directory that overlayfs can use as a lower one. The tar is not trusted.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    ffi::{CString, OsStr, OsString},
    io::{self, Read},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    rc::Rc,
};

use nix::{
    errno::Errno,
    sys::stat::{FileStat, SFlag},
};
use tar::{Archive, Entry, EntryType};

use super::rooted::{Dir, Metadata, Root, apply, bytes, relative, set_mtime, set_xattr, split};

/// Entries of one layer.
const ENTRIES_MAX: u64 = 2_000_000;
/// Bytes of all files of one layer.
const CONTENT_MAX: u64 = 64 << 30;
/// Bytes of one entry's headers: names and extended attributes, which the parser keeps in memory.
const HEADERS_MAX: u64 = 1 << 20;
/// Permissions of a directory that an archive only implies and no layer below has.
const IMPLIED_MODE: u32 = 0o755;
/// Starts the name of a file that says something about another one.
const WHITEOUT: &[u8] = b".wh.";
/// Hides everything that the layers below have in this directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// How overlayfs is told the same.
const OPAQUE_XATTR: &std::ffi::CStr = c"trusted.overlay.opaque";
/// How a tar carries extended attributes.
const PAX_XATTR: &str = "SCHILY.xattr.";

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive cannot be read.
    #[error("broken archive")]
    Archive(#[source] io::Error),
    /// An entry could not be made.
    #[error("{path}", path = .path.display())]
    Entry {
        /// The entry's name.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An entry that no honest image has.
    #[error("{path}: {reason}", path = .path.display())]
    Refused {
        /// The entry's name.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More than this program is willing to unpack.
    #[error("the layer has more than {max} {what}")]
    TooLarge {
        /// The bound.
        max: u64,
        /// Its unit.
        what: &'static str,
    },
}

/// What came out of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unpacked {
    /// Bytes of all files.
    pub size: u64,
    /// Directories that no entry describes; the layers below say what they are like.
    pub implied: BTreeSet<PathBuf>,
}

/// Bounds what the parser reads between two entries.
struct Bounded<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let left = self.left.get().checked_sub(count as u64);
        self.left.set(left.ok_or_else(|| io::Error::other("an entry's headers are too large"))?);
        Ok(count)
    }
}

/// Unpacks a tar into the empty directory `into`.
pub(super) fn unpack(tar: impl Read, into: &Path) -> Result<Unpacked, UnpackError> {
    let root = Root::open(into).map_err(UnpackError::Archive)?;
    let mut unpacker = Unpacker { root, unpacked: Unpacked::default(), times: BTreeMap::new() };
    let left = Rc::new(Cell::new(HEADERS_MAX));
    let mut archive = Archive::new(Bounded { inner: tar, left: left.clone() });
    let mut count = 0;
    for entry in archive.entries().map_err(UnpackError::Archive)? {
        let mut entry = entry.map_err(UnpackError::Archive)?;
        count += 1;
        if count > ENTRIES_MAX {
            return Err(UnpackError::TooLarge { max: ENTRIES_MAX, what: "entries" });
        }
        left.set(u64::MAX);
        unpacker.entry(&mut entry)?;
        io::copy(&mut entry, &mut io::sink()).map_err(UnpackError::Archive)?;
        left.set(HEADERS_MAX);
    }
    unpacker.finish()
}

struct Unpacker {
    root: Root,
    unpacked: Unpacked,
    /// Times of directories, set when nothing is made in them any more.
    times: BTreeMap<PathBuf, i64>,
}

impl Unpacker {
    fn entry(&mut self, entry: &mut Entry<impl Read>) -> Result<(), UnpackError> {
        let raw = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        let refused = |reason| UnpackError::Refused { path: raw.clone(), reason };
        let failed = |source| UnpackError::Entry { path: raw.clone(), source };
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = relative(&raw).ok_or_else(|| refused("leads out of the image"))?;
        let metadata = metadata(entry).map_err(failed)?;
        let Some((parent, name)) = split(&path) else {
            return self
                .root_entry(entry, &metadata)
                .map_err(failed)?
                .ok_or_else(|| refused("is not a directory"));
        };
        let dir = self.parent(parent).map_err(failed)?;
        if let Some(hidden) = bytes(&name).strip_prefix(WHITEOUT) {
            return whiteout(&dir, &name, OsStr::from_bytes(hidden)).map_err(failed)?.map_err(refused);
        }
        let size = entry.size();
        if self.unpacked.size.saturating_add(size) > CONTENT_MAX {
            return Err(UnpackError::TooLarge { max: CONTENT_MAX, what: "bytes" });
        }
        let existing = dir.stat(&name).map_err(failed)?;
        let make = Make { root: &self.root, dir: &dir, name: &name, existing, metadata: &metadata };
        let made = make.entry(entry).map_err(failed)?.map_err(refused)?;
        self.made(path, made, metadata.mtime);
        Ok(())
    }

    /// Remembers what the end of the archive needs to know.
    fn made(&mut self, path: PathBuf, made: Made, mtime: i64) {
        match made {
            Made::Dir => {
                self.unpacked.implied.remove(&path);
                self.times.insert(path, mtime);
            }
            Made::File(size) => self.unpacked.size += size,
            Made::Other => {}
        }
    }

    fn root_entry(&mut self, entry: &Entry<impl Read>, metadata: &Metadata) -> io::Result<Option<()>> {
        if entry.header().entry_type() != EntryType::Directory {
            return Ok(None);
        }
        self.times.insert(PathBuf::new(), metadata.mtime);
        apply(self.root.dir(Path::new(""))?.as_fd(), metadata).map(Some)
    }

    /// The directory that an entry lives in, made where the archive only implies it.
    fn parent(&mut self, path: &Path) -> io::Result<Dir> {
        match self.root.dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let Some((above, name)) = split(path) else { return self.root.dir(path) };
        let dir = self.parent(above)?.make_dir(&name)?;
        apply(dir.as_fd(), &Metadata { mode: IMPLIED_MODE, ..Metadata::default() })?;
        self.unpacked.implied.insert(path.to_owned());
        Ok(dir)
    }

    fn finish(self) -> Result<Unpacked, UnpackError> {
        for (path, mtime) in self.times {
            // A later entry may have replaced the directory; then its time is the later entry's.
            let Ok(dir) = self.root.plain_dir(&path) else { continue };
            set_mtime(dir.as_fd(), mtime).map_err(|source| UnpackError::Entry { path, source })?;
        }
        Ok(self.unpacked)
    }
}

/// What an entry became.
enum Made {
    Dir,
    /// Bytes.
    File(u64),
    Other,
}

/// A refusal, or what was made.
type Verdict<T> = Result<T, &'static str>;

/// One entry at its place.
struct Make<'a> {
    root: &'a Root,
    dir: &'a Dir,
    name: &'a OsStr,
    existing: Option<FileStat>,
    metadata: &'a Metadata,
}

impl Make<'_> {
    fn entry(&self, entry: &mut Entry<impl Read>) -> io::Result<Verdict<Made>> {
        let kind = entry.header().entry_type();
        if kind == EntryType::Directory {
            return self.directory().map(Ok);
        }
        let link = entry.link_name_bytes().map(|target| OsString::from(OsStr::from_bytes(&target)));
        if kind == EntryType::Link {
            return self.hard_link(&link.unwrap_or_default());
        }
        self.clear()?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(entry),
            EntryType::Symlink => {
                self.dir.symlink(self.name, &link.unwrap_or_default())?;
                self.dir.apply(self.name, self.metadata, true)?;
                Ok(Ok(Made::Other))
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => self.node(entry, kind),
            _ => Ok(Err("has an unknown type")),
        }
    }

    /// A later entry replaces an earlier one of the same name.
    fn clear(&self) -> io::Result<()> {
        match &self.existing {
            Some(stat) => self.dir.remove(self.name, is(stat, SFlag::S_IFDIR)),
            None => Ok(()),
        }
    }

    fn directory(&self) -> io::Result<Made> {
        let dir = match &self.existing {
            Some(stat) if is(stat, SFlag::S_IFDIR) => self.dir.open(self.name)?,
            Some(stat) => {
                self.dir.remove(self.name, false)?;
                let dir = self.dir.make_dir(self.name)?;
                // It replaces a directory below that the same layer has hidden.
                if is_whiteout(stat) {
                    set_xattr(dir.as_fd(), OPAQUE_XATTR, b"y")?;
                }
                dir
            }
            None => self.dir.make_dir(self.name)?,
        };
        apply(dir.as_fd(), self.metadata).map(|()| Made::Dir)
    }

    fn file(&self, entry: &mut Entry<impl Read>) -> io::Result<Verdict<Made>> {
        let mut file = self.dir.create(self.name)?;
        let size = io::copy(entry, &mut file)?;
        apply(&file, self.metadata)?;
        Ok(Ok(Made::File(size)))
    }

    /// The target must be in this layer: another layer's file cannot be linked, and nothing outside is reachable.
    fn hard_link(&self, target: &OsStr) -> io::Result<Verdict<Made>> {
        let Some(target) = relative(Path::new(target)) else { return Ok(Err("links out of the image")) };
        let Some((parent, name)) = split(&target) else { return Ok(Err("links to the image's root")) };
        let from = match self.root.dir(parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Err("links to a file that the layer does not have"));
            }
            from => from?,
        };
        match (from.stat(&name)?, &self.existing) {
            (None, _) => return Ok(Err("links to a file that the layer does not have")),
            (Some(stat), _) if is_whiteout(&stat) => return Ok(Err("links to a hidden file")),
            (Some(stat), _) if is(&stat, SFlag::S_IFDIR) => return Ok(Err("links to a directory")),
            (Some(stat), Some(own)) if (stat.st_dev, stat.st_ino) == (own.st_dev, own.st_ino) => {
                return Ok(Ok(Made::Other));
            }
            _ => self.clear()?,
        }
        self.dir.hard_link(self.name, &from, &name)?;
        Ok(Ok(Made::Other))
    }

    fn node(&self, entry: &Entry<impl Read>, kind: EntryType) -> io::Result<Verdict<Made>> {
        let (flag, (major, minor)) = match kind {
            EntryType::Char => (SFlag::S_IFCHR, device(entry)?),
            EntryType::Block => (SFlag::S_IFBLK, device(entry)?),
            _ => (SFlag::S_IFIFO, (0, 0)),
        };
        if flag == SFlag::S_IFCHR && (major, minor) == (0, 0) {
            return Ok(Err("would hide a file of a lower layer"));
        }
        self.dir.node(self.name, flag, major, minor)?;
        self.dir.apply(self.name, self.metadata, false)?;
        Ok(Ok(Made::Other))
    }
}

fn device(entry: &Entry<impl Read>) -> io::Result<(u32, u32)> {
    let header = entry.header();
    Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)))
}

/// Hides a file of the layers below, or all of them in this directory.
fn whiteout(dir: &Dir, name: &OsStr, hidden: &OsStr) -> io::Result<Verdict<()>> {
    if bytes(name) == OPAQUE {
        return set_xattr(dir.as_fd(), OPAQUE_XATTR, b"y").map(Ok);
    }
    if bytes(hidden).starts_with(WHITEOUT) {
        return Ok(Ok(())); // Bookkeeping of an older file system.
    }
    if matches!(bytes(hidden), b"" | b"." | b"..") {
        return Ok(Err("hides nothing that has a name"));
    }
    match dir.stat(hidden)? {
        None => dir.node(hidden, SFlag::S_IFCHR, 0, 0)?,
        // The layer's own directory stays, without what is below it.
        Some(stat) if is(&stat, SFlag::S_IFDIR) => set_xattr(dir.open(hidden)?.as_fd(), OPAQUE_XATTR, b"y")?,
        Some(_) => {}
    }
    Ok(Ok(()))
}

fn is(stat: &FileStat, kind: SFlag) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

fn is_whiteout(stat: &FileStat) -> bool {
    is(stat, SFlag::S_IFCHR) && stat.st_rdev == 0
}

fn metadata(entry: &mut Entry<impl Read>) -> io::Result<Metadata> {
    let header = entry.header();
    let id = |id: u64| u32::try_from(id).map_err(|_| io::Error::from(Errno::EOVERFLOW));
    Ok(Metadata {
        uid: id(header.uid()?)?,
        gid: id(header.gid()?)?,
        mode: header.mode()? & 0o7777,
        mtime: i64::try_from(header.mtime()?).unwrap_or(i64::MAX),
        xattrs: xattrs(entry)?,
    })
}

/// Extended attributes, without those that speak to overlayfs: an image has no say in how its layers are stacked.
fn xattrs(entry: &mut Entry<impl Read>) -> io::Result<Vec<(CString, Vec<u8>)>> {
    let mut found = Vec::new();
    let Some(extensions) = entry.pax_extensions()? else { return Ok(found) };
    for extension in extensions {
        let extension = extension?;
        let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix(PAX_XATTR)) else { continue };
        if name.starts_with("trusted.") || name.starts_with("user.overlay.") {
            continue;
        }
        found.push((CString::new(name)?, extension.value_bytes().to_vec()));
    }
    Ok(found)
}
