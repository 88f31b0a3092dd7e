//! File system calls that cannot leave a directory, whatever paths and links an image brings.
//!
//! A path is resolved by the kernel inside the directory (`RESOLVE_IN_ROOT`: `..`, absolute paths and symbolic links
//! stay below it), and only up to the parent; the last component is then used by name on the parent's descriptor,
//! never followed.

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::{
        stat::{
            FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstatat, futimens, makedev, mkdirat, mknodat,
            utimensat,
        },
        time::TimeSpec,
    },
    unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat},
};

/// The attribute that holds a program's capabilities.
const CAPABILITY: &CStr = c"security.capability";

/// Owner, permissions and times of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Metadata {
    pub uid: u32,
    pub gid: u32,
    /// Permission bits, with set-id and sticky.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    pub xattrs: Vec<(CString, Vec<u8>)>,
}

/// What a path of an image means: components below the root, or a reason to refuse it.
pub(super) fn relative(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => clean.push(name),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// A directory that nothing below leads out of.
pub(super) struct Root(OwnedFd);

impl Root {
    /// Opens `path`, a directory of ours.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(File::open(path)?.into()))
    }

    /// Opens a directory below; links inside the root are followed.
    pub fn dir(&self, path: &Path) -> io::Result<Dir> {
        self.open_dir(path, ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS)
    }

    /// Opens a directory below that no link leads to.
    pub fn plain_dir(&self, path: &Path) -> io::Result<Dir> {
        self.open_dir(path, ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    fn open_dir(&self, path: &Path, resolve: ResolveFlag) -> io::Result<Dir> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Dir(openat2(&self.0, path, OpenHow::new().flags(flags).resolve(resolve))?))
    }
}

/// A directory below a [`Root`]. Names are single components.
pub(super) struct Dir(OwnedFd);

impl Dir {
    /// What is there, if anything; a link is not followed.
    pub fn stat(&self, name: &OsStr) -> io::Result<Option<FileStat>> {
        match fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what is there, with everything below it.
    pub fn remove(&self, name: &OsStr, is_dir: bool) -> io::Result<()> {
        if is_dir {
            // Through the descriptor, so that no other component is resolved; std follows no links on the way down.
            let parent = PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
            std::fs::remove_dir_all(parent.join(name))
        } else {
            Ok(unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir)?)
        }
    }

    /// Makes a new file.
    pub fn create(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&self.0, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?.into())
    }

    /// Makes a new directory.
    pub fn make_dir(&self, name: &OsStr) -> io::Result<Self> {
        mkdirat(&self.0, name, Mode::S_IRWXU)?;
        self.open(name)
    }

    /// Opens a directory; not through a link.
    pub fn open(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(Self(openat(&self.0, name, flags, Mode::empty())?))
    }

    /// Makes a symbolic link; its target is text and means nothing here.
    pub fn symlink(&self, name: &OsStr, target: &OsStr) -> io::Result<()> {
        Ok(symlinkat(target, &self.0, name)?)
    }

    /// Makes a second name for the file `target` of `from`; a symbolic link is linked itself.
    pub fn hard_link(&self, name: &OsStr, from: &Self, target: &OsStr) -> io::Result<()> {
        Ok(linkat(&from.0, target, &self.0, name, AtFlags::empty())?)
    }

    /// Makes a device or pipe.
    pub fn node(&self, name: &OsStr, kind: SFlag, major: u32, minor: u32) -> io::Result<()> {
        let device = makedev(u64::from(major), u64::from(minor));
        Ok(mknodat(&self.0, name, kind, Mode::S_IRUSR | Mode::S_IWUSR, device)?)
    }

    /// Applies owner, permissions and time to something that cannot be opened: a link, a device, a pipe.
    pub fn apply(&self, name: &OsStr, metadata: &Metadata, is_link: bool) -> io::Result<()> {
        let (owner, group) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
        fchownat(&self.0, name, Some(owner), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if !is_link {
            let mode = Mode::from_bits_truncate(metadata.mode);
            // The name is a node that we have just made, so nothing can be followed.
            nix::sys::stat::fchmodat(&self.0, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
        }
        let time = TimeSpec::new(metadata.mtime, 0);
        Ok(utimensat(&self.0, name, &time, &time, UtimensatFlags::NoFollowSymlink)?)
    }

    /// The descriptor, for [`apply`] and extended attributes.
    pub fn as_fd(&self) -> &OwnedFd {
        &self.0
    }

    /// Owner, permissions and time of the directory itself.
    pub fn metadata(&self) -> io::Result<Metadata> {
        let stat = nix::sys::stat::fstat(&self.0)?;
        Ok(Metadata {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            mtime: stat.st_mtime,
            xattrs: Vec::new(),
        })
    }
}

/// Applies everything to an open file, in the only order that works: a change of owner clears set-id bits and
/// capabilities, and the time comes last.
pub(super) fn apply(fd: impl AsFd + Copy, metadata: &Metadata) -> io::Result<()> {
    fchown(fd, Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)))?;
    for (name, value) in &metadata.xattrs {
        match set_xattr(fd, name, value) {
            // A file system without such attributes still holds the file; without its capabilities it would not work.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) && *name != *CAPABILITY => {}
            set => set?,
        }
    }
    fchmod(fd, Mode::from_bits_truncate(metadata.mode))?;
    set_mtime(fd, metadata.mtime)
}

/// Sets the time of last change.
pub(super) fn set_mtime(fd: impl AsFd, mtime: i64) -> io::Result<()> {
    let time = TimeSpec::new(mtime, 0);
    Ok(futimens(fd, &time, &time)?)
}

/// Sets one extended attribute.
pub(super) fn set_xattr(fd: impl AsFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed, name and value are valid for the call and not kept.
    let result = unsafe { libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// Splits a path into its parent and last component; `None` for the root itself.
pub(super) fn split(path: &Path) -> Option<(&Path, OsString)> {
    Some((path.parent()?, path.file_name()?.to_owned()))
}

/// The bytes of a name.
pub(super) fn bytes(name: &OsStr) -> &[u8] {
    name.as_bytes()
}
