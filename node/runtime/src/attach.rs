//! A container's standard streams, live.

use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::{io::AsyncWrite, net::unix::pipe};

use crate::{
    Runtime,
    container::ContainerState,
    layout::{self, Process},
    log::{LogQuery, follow},
    runtime::OperationError,
    sys,
};

/// A piece of what a process wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To standard output.
    Stdout(Bytes),
    /// To standard error.
    Stderr(Bytes),
}

/// What a process writes, until its end.
pub type OutputStream = Pin<Box<dyn Stream<Item = Output> + Send>>;

/// Standard input of a process. Dropping it leaves the input of a container open for the next to attach;
/// [`tokio::io::AsyncWriteExt::shutdown`] ends it for good.
pub struct StdinWriter {
    pipe: Option<pipe::Sender>,
    /// Of the container's shim, which keeps the input open; none for `exec`.
    shim: Option<OwnedFd>,
}

/// The streams of a container.
pub struct Attached {
    /// Its standard input, if it is kept open and the container runs.
    pub stdin: Option<StdinWriter>,
    /// What it writes from now on, until its next end.
    pub output: OutputStream,
}

impl StdinWriter {
    pub(crate) fn of_exec(pipe: pipe::Sender) -> Self {
        Self { pipe: Some(pipe), shim: None }
    }
}

impl AsyncWrite for StdinWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.pipe {
            Some(pipe) => Pin::new(pipe).poll_write(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe = None;
        // The shim lets go of its end on this signal; one that is gone has let go of everything.
        if let Some(shim) = self.shim.take() {
            let _ = sys::pidfd_send_signal(std::os::fd::AsFd::as_fd(&shim), libc::SIGUSR1);
        }
        Poll::Ready(Ok(()))
    }
}

impl Runtime {
    /// What the container writes from now on, until its next end; it may be started after this call. Its standard input
    /// comes from [`Runtime::stdin`].
    pub fn attach(&self, container: &str) -> Result<Attached, OperationError> {
        let slot = self.inner.find(container)?;
        let query = LogQuery { follow: true, tail: Some(0), ..LogQuery::default() };
        let lines = follow(&slot, &self.log_directory(&slot), query, true)
            .map_err(OperationError::io(&slot.record.id))?;
        let output = lines.filter_map(|line| {
            std::future::ready(line.ok().map(|line| match line.stderr {
                true => Output::Stderr(line.bytes),
                false => Output::Stdout(line.bytes),
            }))
        });
        Ok(Attached { stdin: self.stdin(container).ok(), output: Box::pin(output) })
    }

    /// The standard input of a running container that was made with `open_stdin`.
    pub fn stdin(&self, container: &str) -> Result<StdinWriter, OperationError> {
        let slot = self.inner.find(container)?;
        let id = &slot.record.id;
        let exec = self.inner.layout.exec(id);
        if slot.life.borrow().state != ContainerState::Running {
            return Err(OperationError::NotRunning(id.clone()));
        }
        let pipe =
            pipe::OpenOptions::new().open_sender(exec.join(layout::STDIN)).map_err(OperationError::io(id))?;
        let shim = Process::read(&exec.join(layout::SHIM)).and_then(Process::open);
        Ok(StdinWriter { pipe: Some(pipe), shim })
    }
}
