//! A tar on disk, indexed before anything of it is used: its table of contents may come last, and layers may be links.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read, Seek as _},
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// Members of one archive.
const MEMBERS_MAX: usize = 100_000;
/// Links from one member to the next.
const LINKS_MAX: usize = 8;

/// The members by their path.
pub(super) struct Archive {
    file: Arc<File>,
    members: BTreeMap<PathBuf, Member>,
}

enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// From the archive's root.
    Link(PathBuf),
}

/// One member's bytes; several can be read at the same time.
pub(super) struct Content {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Archive {
    /// Reads all headers.
    pub fn open(mut file: File) -> io::Result<Self> {
        file.rewind()?;
        let mut members = BTreeMap::new();
        let mut tar = tar::Archive::new(&file);
        for entry in tar.entries_with_seek()? {
            let entry = entry?;
            let path = clean(Path::new(OsStr::from_bytes(&entry.path_bytes())));
            let link = entry.link_name_bytes().map(|target| PathBuf::from(OsStr::from_bytes(&target)));
            let member = match (entry.header().entry_type(), link) {
                (tar::EntryType::Regular | tar::EntryType::Continuous, _) => {
                    Member::File { offset: entry.raw_file_position(), size: entry.size() }
                }
                (tar::EntryType::Link, Some(target)) => Member::Link(clean(&target)),
                (tar::EntryType::Symlink, Some(target)) => {
                    Member::Link(clean(&path.parent().unwrap_or(Path::new("")).join(target)))
                }
                _ => continue,
            };
            members.insert(path, member);
            if members.len() > MEMBERS_MAX {
                return Err(io::Error::other(format!("more than {MEMBERS_MAX} members")));
            }
        }
        Ok(Self { file: Arc::new(file), members })
    }

    /// A member's bytes, links followed.
    pub fn content(&self, path: &str) -> Option<Content> {
        let mut path = &clean(Path::new(path));
        for _ in 0..LINKS_MAX {
            match self.members.get(path)? {
                Member::Link(target) => path = target,
                Member::File { offset, size } => {
                    return Some(Content { file: self.file.clone(), offset: *offset, left: *size });
                }
            }
        }
        None
    }
}

impl Content {
    /// Bytes that are left.
    pub fn len(&self) -> u64 {
        self.left
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        if count == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off"));
        }
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// Names are only looked up among the members, so nothing outside can be reached.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => _ = clean.pop(),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}
