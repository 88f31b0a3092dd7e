//! What containers wrote: reading the shim's files, while they grow and rotate.

pub(crate) mod read;

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
    path::Path,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use covey_state::time::Stamp;
use futures_util::Stream;
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, watch},
};

use self::read::Reader;
use crate::{
    Runtime,
    container::ContainerState,
    runtime::{Life, OperationError, Slot},
    sys,
};

/// Lines that are read ahead of a slow reader.
const AHEAD: usize = 256;
/// How often a log is looked at where the kernel does not tell of changes.
const POLL: Duration = Duration::from_millis(50);

/// A line of a container's log, or a part of one: then it does not end with a newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written.
    pub at: Stamp,
    /// To standard error, else to standard output.
    pub stderr: bool,
    /// With its newline.
    pub bytes: Bytes,
}

/// Which lines of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// Goes on until the container has ended.
    pub follow: bool,
    /// None that are older.
    pub since: Option<Stamp>,
    /// None that are newer.
    pub until: Option<Stamp>,
    /// The last so many of those that were there; `None`: all.
    pub tail: Option<usize>,
    /// With standard output.
    pub stdout: bool,
    /// With standard error.
    pub stderr: bool,
}

impl Default for LogQuery {
    fn default() -> Self {
        Self { follow: false, since: None, until: None, tail: None, stdout: true, stderr: true }
    }
}

impl LogQuery {
    fn wants(&self, line: &LogLine) -> bool {
        let stream = if line.stderr { self.stderr } else { self.stdout };
        stream
            && self.since.is_none_or(|since| line.at >= since)
            && self.until.is_none_or(|until| line.at <= until)
    }
}

/// Lines as they come.
pub type LogStream = Pin<Box<dyn Stream<Item = io::Result<LogLine>> + Send>>;

impl Runtime {
    /// The container's log: of all its runs, as far as the two files of 10 MiB reach back.
    pub fn logs(&self, container: &str, query: LogQuery) -> Result<LogStream, OperationError> {
        let slot = self.inner.find(container)?;
        let directory = self.log_directory(&slot);
        follow(&slot, &directory, query, false).map_err(OperationError::io(&slot.record.id))
    }
}

/// Reads the log in `directory`. `next_end`: goes on over ends of the container that lie in the past.
pub(crate) fn follow(
    slot: &Arc<Slot>,
    directory: &Path,
    query: LogQuery,
    next_end: bool,
) -> io::Result<LogStream> {
    let change = if query.follow { watch_directory(directory).ok() } else { None };
    // Opened now, so that nothing that is written from here on is missed.
    let reader = Reader::open(directory, &query)?;
    let follower = Follower {
        life: slot.life.subscribe(),
        ends: next_end.then(|| slot.life.borrow().ends),
        query,
        reader,
        change,
    };
    let (to, from) = mpsc::channel(AHEAD);
    tokio::spawn(follower.run(to));
    Ok(Box::pin(futures_util::stream::unfold(from, |mut from| async { Some((from.recv().await?, from)) })))
}

struct Follower {
    query: LogQuery,
    reader: Reader,
    life: watch::Receiver<Life>,
    change: Option<AsyncFd<OwnedFd>>,
    /// Where the next end is waited for: how many there were before.
    ends: Option<u64>,
}

impl Follower {
    /// Ends when there is nothing more to come, or nobody to take it.
    async fn run(mut self, to: mpsc::Sender<io::Result<LogLine>>) {
        loop {
            // Looked at before reading: what was written before the end is read after it.
            let over = self.is_over();
            loop {
                match self.reader.next() {
                    Ok(Some(line)) if self.query.wants(&line) => {
                        if to.send(Ok(line)).await.is_err() {
                            return;
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => return drop(to.send(Err(error)).await),
                }
            }
            if over {
                return;
            }
            tokio::select! {
                () = changed(self.change.as_ref()) => {}
                _ = self.life.changed() => {}
                () = to.closed() => return,
            }
        }
    }

    fn is_over(&mut self) -> bool {
        if !self.query.follow {
            return true;
        }
        let life = self.life.borrow_and_update();
        if life.removed {
            return true;
        }
        match self.ends {
            Some(before) => life.ends > before,
            None => matches!(life.state, ContainerState::Exited(_)),
        }
    }
}

/// The kernel's word on changes of files in `directory`.
fn watch_directory(directory: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let path = sys::c_path(directory)?;
    // SAFETY: the path is a C string that lives across the call; the descriptor is ours.
    let inotify = unsafe {
        let fd = sys::check(libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK))?;
        let inotify = OwnedFd::from_raw_fd(fd);
        sys::check(libc::inotify_add_watch(fd, path.as_ptr(), libc::IN_MODIFY | libc::IN_CREATE))?;
        inotify
    };
    sys::watched(inotify)
}

/// Waits until something changed; which file it was does not matter.
async fn changed(change: Option<&AsyncFd<OwnedFd>>) {
    let Some(change) = change else { return tokio::time::sleep(POLL).await };
    if let Ok(mut ready) = change.readable().await {
        let mut events = [0; 4096];
        let drained =
            ready.try_io(|inotify| nix::unistd::read(inotify, &mut events).map_err(io::Error::from));
        // Events that are left wake us again.
        drop(drained);
    }
}
