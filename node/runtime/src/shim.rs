//! The process side: the binary, started again as a shim, supervises one container without threads and almost without
//! memory, and needs nobody. It reads no spec: a helper that it forks does, builds the container and leaves.
//!
//! ```text
//! daemon ── shim (session leader, subreaper) ── container's init
//!             └─ helper: parses the spec, makes the cgroup, forks init as the shim's child, exits
//! ```

mod build;
mod enter;
mod failure;
mod finish;
mod identity;
mod init;
mod logger;
mod mounts;
mod supervise;

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

pub(crate) use failure::Failure;

/// First argument of a shim: then the data directory, the exec directory, the cgroup, `durable` or `fleeting`, and the
/// numbers of the descriptors to hold while the container runs.
pub(crate) const SHIM_COMMAND: &str = "container-shim";
/// First argument of the helper that starts another process in a container: then the exec directory, the cgroup, the
/// file with the process, and the descriptor to report on.
pub(crate) const EXEC_COMMAND: &str = "container-exec";
/// The argument of a shim whose container's exit need not survive a power cut.
pub(crate) const FLEETING: &str = "fleeting";
/// The opposite of [`FLEETING`].
pub(crate) const DURABLE: &str = "durable";

/// Where a shim holds the descriptors that it was given, one behind the other, for the daemon that comes next.
pub(crate) const HELD_FROM: i32 = 3;

/// Must be called first thing in `main`, before any thread, logger or allocation pool: when this process was started
/// as a shim or as its helper it does that work here and never returns. Otherwise returns at once.
pub fn reexec() {
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next();
    let work: fn(&[PathBuf]) -> i32 = match command.as_deref().map(OsStr::as_bytes) {
        Some(name) if name == SHIM_COMMAND.as_bytes() => supervise::run,
        Some(name) if name == EXEC_COMMAND.as_bytes() => enter::run,
        _ => return,
    };
    // Changed here, since the daemon starts a process that changes nothing of itself without copying its own memory.
    if std::env::set_current_dir("/").is_err() {
        std::process::exit(2);
    }
    let arguments: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    std::process::exit(work(&arguments));
}
