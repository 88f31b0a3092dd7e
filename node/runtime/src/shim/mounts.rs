//! The container's view of files. What comes from the host is opened before the root changes; everything is placed
//! after it, so that no symbolic link of an image can lead a mount out of the container.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, symlink},
    },
    path::{Path, PathBuf},
    sync::OnceLock,
};

use oci_spec::runtime::{Linux, Mount, Spec};

use super::Failure;
use crate::{cgroup::Cgroup, sys};

/// Device nodes that every container has: name, major, minor.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// Links that every container has in `/dev`.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];
/// `PROC_SUPER_MAGIC` of `linux/magic.h`.
const PROC_MAGIC: i64 = 0x9fa0;

/// What the words of a mount's options ask for.
#[derive(Default)]
struct Options {
    flags: libc::c_ulong,
    attributes: u64,
    bind: bool,
    recursive: bool,
    data: Vec<String>,
}

/// Trees of the host that bind mounts put into the container, opened before the root changed.
static SOURCES: OnceLock<Vec<Option<OwnedFd>>> = OnceLock::new();

/// Makes the root file system `/` and drops the host's.
pub(super) fn root(spec: &Spec) -> Result<(), Failure> {
    let root = spec.root().as_ref().ok_or_else(|| Failure::build("the spec has no root"))?.path();
    sys::remount(c"/", libc::MS_REC | libc::MS_PRIVATE).map_err(Failure::at("private mounts"))?;
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let sources = mounts.iter().map(source).collect::<Result<Vec<_>, _>>()?;
    let _ = SOURCES.set(sources);
    match mounts.iter().find(|mount| mount.destination() == Path::new("/")) {
        Some(mount) => overlay(mount, root)?,
        None => sys::mount(root.as_os_str(), root, "", libc::MS_BIND | libc::MS_REC, "")
            .map_err(Failure::at(format_args!("root {}", root.display())))?,
    }
    std::env::set_current_dir(root)
        .and_then(|()| sys::pivot_to_current())
        .map_err(Failure::at("change the root"))
}

/// Opens what a bind mount shows.
fn source(mount: &Mount) -> Result<Option<OwnedFd>, Failure> {
    let options = options(mount)?;
    let Some(path) = mount.source().as_ref().filter(|_| options.bind) else { return Ok(None) };
    let tree = sys::open_tree(path, options.recursive).map_err(|error| {
        let path = path.display();
        match error.kind() {
            io::ErrorKind::NotFound => {
                Failure::build(format_args!("bind source path does not exist: {path}"))
            }
            _ => Failure::build(format_args!("bind source {path}: {error}")),
        }
    })?;
    if options.attributes != 0 {
        sys::mount_set(tree.as_fd(), options.attributes, options.recursive)
            .map_err(Failure::at(format_args!("mount options of {}", path.display())))?;
    }
    Ok(Some(tree))
}

/// The kernel takes at most a page of options, so layers are named relative to the directory that they share.
fn overlay(mount: &Mount, root: &Path) -> Result<(), Failure> {
    let options = options(mount)?;
    let mut data = vec![];
    for option in &options.data {
        match option.strip_prefix("lowerdir=") {
            Some(lower) => {
                let (shared, names) = relative(lower);
                std::env::set_current_dir(&shared).map_err(Failure::at(shared.display()))?;
                data.push(format!("lowerdir={names}"));
            }
            None => data.push(option.clone()),
        }
    }
    sys::mount(OsStr::new("overlay"), root, "overlay", options.flags, &data.join(","))
        .map_err(Failure::at("mount the root file system"))
}

/// `/a/b:/a/c` as `/a` and `b:c`.
fn relative(lower: &str) -> (PathBuf, String) {
    let paths: Vec<&Path> = lower.split(':').map(Path::new).collect();
    let mut shared = paths.first().and_then(|p| p.parent()).unwrap_or(Path::new("/"));
    while !paths.iter().all(|p| p.starts_with(shared) && *p != shared) {
        shared = shared.parent().unwrap_or(Path::new("/"));
    }
    let names: Vec<_> =
        paths.iter().map(|p| p.strip_prefix(shared).unwrap_or(p).to_string_lossy().into_owned()).collect();
    (shared.to_owned(), names.join(":"))
}

/// Places everything but the root.
pub(super) fn all(spec: &Spec, group: &Cgroup) -> Result<(), Failure> {
    let sources = SOURCES.get().map(Vec::as_slice).unwrap_or_default();
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    for (mount, source) in mounts.iter().zip(sources) {
        let target = mount.destination();
        if target == Path::new("/") {
            continue;
        }
        place(mount, source.as_ref(), group)
            .map_err(Failure::at(format_args!("mount {}", target.display())))?;
        if target == Path::new("/dev") && source.is_none() {
            devices().map_err(Failure::at("/dev"))?;
        }
    }
    Ok(())
}

fn place(mount: &Mount, source: Option<&OwnedFd>, group: &Cgroup) -> io::Result<()> {
    let options = options(mount).map_err(|failure| io::Error::other(failure.text))?;
    let kind = mount.typ().as_deref().unwrap_or_default();
    let directory = match source {
        Some(tree) => is_directory(tree)?,
        None => true,
    };
    let target = open_target(mount.destination(), directory)?;
    // These two are where protections are put on later, by name: they must be what they are called.
    if matches!(kind, "proc" | "sysfs") {
        if fs::symlink_metadata(mount.destination())?.is_symlink() {
            return Err(io::Error::other("the image has a symbolic link there"));
        }
    } else if nix::sys::statfs::fstatfs(&target)?.filesystem_type().0 as i64 == PROC_MAGIC {
        return Err(io::Error::other("nothing may be mounted inside /proc"));
    }
    match source {
        Some(tree) => sys::move_mount(tree.as_fd(), target.as_fd()),
        None if kind == "cgroup" => cgroups(mount.destination(), &options, group),
        None => {
            let source = mount.source().as_deref().unwrap_or(Path::new("none"));
            let data = options.data.join(",");
            sys::mount(source.as_os_str(), mount.destination(), kind, options.flags, &data)
        }
    }
}

/// The container's own control groups, as its cgroup namespace shows them.
fn cgroups(target: &Path, options: &Options, group: &Cgroup) -> io::Result<()> {
    let Some(hierarchies) = group.hierarchies_v1() else {
        return sys::mount(OsStr::new("cgroup"), target, "cgroup2", options.flags, "");
    };
    let flags = options.flags & !libc::MS_RDONLY;
    sys::mount(OsStr::new("tmpfs"), target, "tmpfs", flags, "mode=755")?;
    for controllers in hierarchies {
        let directory = target.join(&controllers);
        fs::create_dir(&directory)?;
        sys::mount(OsStr::new("cgroup"), &directory, "cgroup", options.flags, &controllers)?;
    }
    sys::remount(&sys::c_path(target)?, libc::MS_REMOUNT | libc::MS_BIND | options.flags)
}

/// Opens the place of a mount, making it where the image has none.
fn open_target(target: &Path, directory: bool) -> io::Result<File> {
    let open = || OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(target);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (directories, file) = match (directory, target.parent()) {
                (false, Some(parent)) => (parent, true),
                _ => (target, false),
            };
            fs::DirBuilder::new().recursive(true).mode(0o755).create(directories)?;
            if file {
                OpenOptions::new().write(true).create(true).mode(0o644).truncate(false).open(target)?;
            }
            open()
        }
        other => other,
    }
}

fn is_directory(tree: &OwnedFd) -> io::Result<bool> {
    let mode = nix::sys::stat::fstat(tree)?.st_mode;
    Ok(mode & libc::S_IFMT == libc::S_IFDIR)
}

fn devices() -> io::Result<()> {
    for (name, major, minor) in DEVICES {
        let path = sys::c_path(Path::new("/dev").join(name))?;
        // SAFETY: the path is a C string that lives across the calls. The mode is set apart because of the umask.
        unsafe {
            sys::check(libc::mknod(path.as_ptr(), libc::S_IFCHR, libc::makedev(major, minor)))?;
            sys::check(libc::chmod(path.as_ptr(), 0o666))?;
        }
    }
    LINKS.iter().try_for_each(|(to, link)| symlink(to, link))
}

/// Hides paths that tell too much, and makes those read-only that let a container change its host.
pub(super) fn protect(linux: &Linux) -> Result<(), Failure> {
    for path in linux.readonly_paths().as_deref().unwrap_or_default() {
        read_only(Path::new(path))
            .or_else(unless_missing)
            .map_err(Failure::at(format_args!("protect {path}")))?;
    }
    for path in linux.masked_paths().as_deref().unwrap_or_default() {
        mask(Path::new(path)).or_else(unless_missing).map_err(Failure::at(format_args!("mask {path}")))?;
    }
    Ok(())
}

fn unless_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn read_only(path: &Path) -> io::Result<()> {
    let tree = sys::open_tree(path, true)?;
    sys::mount_set(tree.as_fd(), sys::MOUNT_ATTR_RDONLY, true)?;
    sys::move_mount(tree.as_fd(), open_target(path, is_directory(&tree)?)?.as_fd())
}

fn mask(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        return sys::mount(OsStr::new("tmpfs"), path, "tmpfs", libc::MS_RDONLY, "");
    }
    let null = Path::new("/dev/null");
    let found = fs::metadata(null)?;
    if !found.file_type().is_char_device() || found.rdev() != libc::makedev(1, 3) {
        return Err(io::Error::other("/dev/null is not the null device"));
    }
    sys::mount(null.as_os_str(), path, "", libc::MS_BIND, "")
}

fn options(mount: &Mount) -> Result<Options, Failure> {
    let mut wanted = Options { bind: mount.typ().as_deref() == Some("bind"), ..Options::default() };
    for option in mount.options().as_deref().unwrap_or_default() {
        let (flag, attribute) = match option.as_str() {
            "ro" => (libc::MS_RDONLY, sys::MOUNT_ATTR_RDONLY),
            "nosuid" => (libc::MS_NOSUID, sys::MOUNT_ATTR_NOSUID),
            "nodev" => (libc::MS_NODEV, sys::MOUNT_ATTR_NODEV),
            "noexec" => (libc::MS_NOEXEC, sys::MOUNT_ATTR_NOEXEC),
            "strictatime" => (libc::MS_STRICTATIME, 0),
            "relatime" => (libc::MS_RELATIME, 0),
            "noatime" => (libc::MS_NOATIME, 0),
            "bind" | "rbind" => {
                wanted.bind = true;
                wanted.recursive = option == "rbind";
                (0, 0)
            }
            // All mounts of a container are private already.
            "rw" | "private" | "rprivate" => (0, 0),
            "shared" | "rshared" | "slave" | "rslave" => {
                return Err(Failure::build(format_args!("mount propagation {option} is not supported")));
            }
            data => {
                wanted.data.push(data.to_owned());
                (0, 0)
            }
        };
        wanted.flags |= flag;
        wanted.attributes |= attribute;
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_named_from_the_directory_that_they_share() {
        let short = |lower| {
            let (shared, names) = relative(lower);
            (shared.to_string_lossy().into_owned(), names)
        };
        assert_eq!(short("/d/l/a:/d/l/b"), ("/d/l".to_owned(), "a:b".to_owned()));
        assert_eq!(short("/d/l/a"), ("/d/l".to_owned(), "a".to_owned()));
        assert_eq!(short("/d/a:/e/b"), ("/".to_owned(), "d/a:e/b".to_owned()));
        assert_eq!(short("/d/a:/d/a/b"), ("/d".to_owned(), "a:a/b".to_owned()));
    }
}
