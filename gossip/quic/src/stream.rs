//! Streams that hold their connection in use for as long as they live.

use std::{
    fmt, io,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Handle,
    sync::Notify,
};

/// How a connection is used: its streams write it, the hub reads it.
#[derive(Debug)]
pub(crate) struct Uses {
    streams: AtomicUsize,
    /// The peer wants to end the connection.
    peer_ends: AtomicBool,
    /// Told when the hub should look again.
    hub: Arc<Notify>,
}

impl Uses {
    pub(crate) fn new(hub: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { streams: AtomicUsize::new(0), peer_ends: AtomicBool::new(false), hub })
    }

    /// Nobody holds an [`InUse`] of it.
    pub(crate) fn is_none(&self) -> bool {
        self.streams.load(Ordering::Acquire) == 0
    }

    /// The peer opens no more streams and waits for us to close.
    pub(crate) fn peer_ends(&self) -> bool {
        self.peer_ends.load(Ordering::Acquire)
    }

    pub(crate) fn set_peer_ends(&self) {
        self.peer_ends.store(true, Ordering::Release);
        self.hub.notify_one();
    }
}

/// Held while a connection is in use: it is not closed for want of use or of room.
pub(crate) struct InUse(Arc<Uses>);

impl InUse {
    pub(crate) fn new(uses: &Arc<Uses>) -> Self {
        uses.streams.fetch_add(1, Ordering::AcqRel);
        Self(uses.clone())
    }
}

impl Clone for InUse {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if self.0.streams.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.hub.notify_one();
        }
    }
}

impl fmt::Debug for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InUse")
    }
}

/// The sending half of a stream; everything that [`quinn::SendStream`] can do.
#[derive(Debug)]
pub struct SendStream {
    stream: quinn::SendStream,
    in_use: Option<InUse>,
}

/// The receiving half of a stream; everything that [`quinn::RecvStream`] can do.
#[derive(Debug)]
pub struct RecvStream {
    stream: quinn::RecvStream,
    _in_use: InUse,
}

impl SendStream {
    pub(crate) const fn new(stream: quinn::SendStream, in_use: InUse) -> Self {
        Self { stream, in_use: Some(in_use) }
    }
}

impl RecvStream {
    pub(crate) const fn new(stream: quinn::RecvStream, in_use: InUse) -> Self {
        Self { stream, _in_use: in_use }
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        // What was written is on its way until the peer has it all: the connection stays in use so long.
        if let (Some(in_use), Ok(runtime)) = (self.in_use.take(), Handle::try_current()) {
            let delivered = self.stream.stopped();
            runtime.spawn(async move {
                // However the stream ends, it is over.
                let _ = delivered.await;
                drop(in_use);
            });
        }
    }
}

impl Deref for SendStream {
    type Target = quinn::SendStream;

    fn deref(&self) -> &Self::Target {
        &self.stream
    }
}

impl DerefMut for SendStream {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.stream
    }
}

impl Deref for RecvStream {
    type Target = quinn::RecvStream;

    fn deref(&self) -> &Self::Target {
        &self.stream
    }
}

impl DerefMut for RecvStream {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.stream
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.get_mut().stream), context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.get_mut().stream), context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.get_mut().stream), context)
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.get_mut().stream), context, buf)
    }
}
