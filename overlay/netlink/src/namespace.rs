//! Network namespaces with a name: a file that keeps one alive, as `ip netns` makes them.

use std::{
    fs::{self, File},
    io,
    path::Path,
    thread,
};

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkFlags, LinkMessage},
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use crate::socket::{NetlinkError, Route};

/// Index of the loopback link in every new namespace.
const LOOPBACK: u32 = 1;

/// A namespace could not be made, entered or removed.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// A system call failed.
    #[error("network namespace")]
    System(#[from] io::Error),
    /// Its loopback could not be set up.
    #[error("loopback of a network namespace")]
    Loopback(#[from] NetlinkError),
}

/// Makes a namespace that lives until [`remove`], its loopback up, and names it `path`.
///
/// # Errors
/// Nothing is left of it.
pub fn create(path: &Path) -> Result<(), NamespaceError> {
    File::create_new(path)?;
    let made = on_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
        let mut up = LinkMessage::default();
        up.header.index = LOOPBACK;
        up.header.flags = LinkFlags::Up;
        up.header.change_mask = LinkFlags::Up;
        Route::open()?.request(RouteNetlinkMessage::SetLink(up), 0)?;
        let bind = MsFlags::MS_BIND;
        mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, bind, None::<&str>)
            .map_err(io::Error::from)?;
        Ok(())
    });
    if made.is_err() {
        // The file alone is not a namespace; the error that matters is the one above.
        let _ = fs::remove_file(path);
    }
    made
}

/// Removes the name. The namespace ends with the last process in it.
///
/// # Errors
/// The name is still there. A name that is not there is no error.
pub fn remove(path: &Path) -> Result<(), NamespaceError> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: the file is there but nothing is mounted on it, as after a crash between the two.
        Ok(()) | Err(nix::Error::EINVAL) => {}
        Err(nix::Error::ENOENT) => return Ok(()),
        Err(error) => return Err(io::Error::from(error).into()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Runs `work` inside the namespace named `path`.
///
/// # Errors
/// That of `work`, or that the namespace cannot be entered.
pub fn inside<T: Send, E: From<io::Error> + Send>(
    path: &Path,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    on_a_thread(|| {
        enter(path)?;
        work()
    })
}

/// Puts this thread, which is one of [`on_a_thread`], into the namespace named `path`.
pub(crate) fn enter(path: &Path) -> io::Result<()> {
    Ok(setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?)
}

/// Runs `work` on a thread of its own: a thread that has changed its namespace is never used for anything else.
pub(crate) fn on_a_thread<T: Send, E: From<io::Error> + Send>(
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("thread in a network namespace panicked").into()))
    })
}
