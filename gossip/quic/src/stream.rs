//! Streams that hold their connection in use for as long as they live.

use std::{
    io,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Alive while a stream of the connection is: such a connection is not closed as unused.
pub(crate) type InUse = Arc<()>;

/// The sending half of a stream; everything that [`quinn::SendStream`] can do.
#[derive(Debug)]
pub struct SendStream {
    stream: quinn::SendStream,
    _in_use: Option<InUse>,
}

/// The receiving half of a stream; everything that [`quinn::RecvStream`] can do.
#[derive(Debug)]
pub struct RecvStream {
    stream: quinn::RecvStream,
    _in_use: Option<InUse>,
}

impl SendStream {
    pub(crate) const fn new(stream: quinn::SendStream, in_use: Option<InUse>) -> Self {
        Self { stream, _in_use: in_use }
    }
}

impl RecvStream {
    pub(crate) const fn new(stream: quinn::RecvStream, in_use: Option<InUse>) -> Self {
        Self { stream, _in_use: in_use }
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
