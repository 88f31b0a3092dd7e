//! Where everything lies: what outlives a run under the data root, what does not under the exec root, which costs no
//! disk a thing.
//!
//! ```text
//! <data>/containers/<id>/container.json what the user asked for, with the number of this format
//!                        log, log.1    what the container wrote, and the part before that
//!                        started       when it was started: "<nanoseconds since 1970> <boot id>"
//!                        exit          how it ended: "<code> <oom 0|1> <nanoseconds since 1970>[ <error>]"
//!                        upper, work   what the container wrote to its root file system
//! <exec>/c/<id>/config.json            the OCI spec
//!               hosts, hostname, resolv.conf   mounted into the container
//!               shim, init             "<pid> <start time>"
//!               attachment             what the network gave, where there is one
//!               stdin                  a named pipe, where standard input is kept open
//!               rootfs                 an empty directory; the root is mounted on it in the container's namespace only
//! ```

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use crate::{container::ContainerId, sys};

/// The format of a container's files that this program writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;

pub(crate) const RECORD: &str = "container.json";
pub(crate) const SPEC: &str = "config.json";
pub(crate) const LOG: &str = "log";
pub(crate) const LOG_BEFORE: &str = "log.1";
pub(crate) const STARTED: &str = "started";
pub(crate) const EXIT: &str = "exit";
pub(crate) const UPPER: &str = "upper";
pub(crate) const WORK: &str = "work";
pub(crate) const SHIM: &str = "shim";
pub(crate) const INIT: &str = "init";
pub(crate) const STDIN: &str = "stdin";
pub(crate) const ROOTFS: &str = "rootfs";

/// The two roots.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    data: PathBuf,
    exec: PathBuf,
}

impl Layout {
    /// Makes what is missing of both roots.
    pub(crate) fn open(data: &Path, exec: &Path) -> io::Result<Self> {
        let layout = Self { data: data.join("containers"), exec: exec.join("c") };
        for root in [&layout.data, &layout.exec] {
            fs::create_dir_all(root)?;
            fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o710))?;
        }
        if let Err(error) = spread(&layout.data) {
            tracing::debug!(%error, path = %layout.data.display(), "this file system needs or knows no such hint");
        }
        Ok(layout)
    }

    /// All containers' directories under the data root.
    pub(crate) fn containers(&self) -> &Path {
        &self.data
    }

    /// A container's directory under the data root.
    pub(crate) fn data(&self, id: &ContainerId) -> PathBuf {
        self.data.join(id.as_str())
    }

    /// Names of the directories under the exec root.
    pub(crate) fn running(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.exec).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// A container's directory under the exec root.
    pub(crate) fn exec(&self, id: &ContainerId) -> PathBuf {
        self.exec.join(id.as_str())
    }
}

/// What `chattr +T` sets: the directories in this one have nothing to do with each other (kernel: `linux/fs.h`).
const FS_TOPDIR_FL: libc::c_int = 0x0002_0000;

/// Has the file system put each directory below `directory` elsewhere. Else ext4 makes the files of all containers in
/// one group of inodes, and where it has no journal it steps over each that was removed there in the last minutes: that
/// took two thirds of the time to start a container where many come and go.
fn spread(directory: &Path) -> io::Result<()> {
    let directory = File::open(directory)?;
    let mut flags: libc::c_int = 0;
    // SAFETY: the kernel reads or writes one int, whatever the requests' numbers say of its size.
    unsafe {
        sys::check(libc::ioctl(directory.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags))?;
        flags |= FS_TOPDIR_FL;
        sys::check(libc::ioctl(directory.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags))?;
    }
    Ok(())
}

/// Replaces `directory/name` as a whole; with `durable`, it is on the disk afterwards.
pub(crate) fn replace(directory: &Path, name: &str, content: &[u8], durable: bool) -> io::Result<()> {
    let draft = directory.join(format!(".{name}"));
    let mut file = File::create(&draft)?;
    file.write_all(content)?;
    if durable {
        file.sync_data()?;
    }
    fs::rename(&draft, directory.join(name))?;
    if durable {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Removes a directory and all in it; not an error where there is none.
pub(crate) fn remove_tree(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A process by number and start time, as written to the files `shim` and `init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub pid: i32,
    pub started: u64,
}

impl Process {
    /// Process `pid`, which must be there.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, started: sys::start_time(pid)? })
    }

    /// Reads `file`; `None` where it is missing or torn.
    pub(crate) fn read(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, started: started.parse().ok()? })
    }

    /// Writes `directory/name`.
    pub(crate) fn write(self, directory: &Path, name: &str) -> io::Result<()> {
        replace(directory, name, format!("{} {}", self.pid, self.started).as_bytes(), false)
    }

    /// A descriptor of the process, if it is still this one.
    pub(crate) fn open(self) -> Option<std::os::fd::OwnedFd> {
        // The descriptor first: the number cannot change its meaning after that.
        let pidfd = sys::pidfd_open(self.pid).ok()?;
        (sys::start_time(self.pid).ok()? == self.started).then_some(pidfd)
    }
}

/// What the file `exit` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExitRecord {
    pub code: i32,
    pub oom: bool,
    pub at: i64,
    pub error: String,
}

impl ExitRecord {
    /// Reads the container's `exit`; `None` where it has not ended.
    pub(crate) fn read(data: &Path) -> Option<Self> {
        let text = fs::read_to_string(data.join(EXIT)).ok()?;
        let mut fields = text.splitn(4, ' ');
        Some(Self {
            code: fields.next()?.parse().ok()?,
            oom: fields.next()? == "1",
            at: fields.next()?.trim().parse().ok()?,
            error: fields.next().unwrap_or_default().to_owned(),
        })
    }

    /// Writes the container's `exit`.
    pub(crate) fn write(&self, data: &Path, durable: bool) -> io::Result<()> {
        let space = if self.error.is_empty() { "" } else { " " };
        let text = format!("{} {} {}{space}{}", self.code, u8::from(self.oom), self.at, self.error);
        replace(data, EXIT, text.as_bytes(), durable)
    }
}
