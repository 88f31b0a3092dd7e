//! Bytes that arrive on an async task are unpacked by a blocking thread, through a bounded channel.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

/// Chunks between network and unpacking; a chunk is what one read of the socket gave, some 16 KiB.
const CHUNKS_MAX: usize = 32;

/// The end into which bytes go.
pub(super) struct Feed(mpsc::Sender<Option<Bytes>>);

/// The end from which a blocking thread reads.
pub(super) struct Fed {
    chunks: mpsc::Receiver<Option<Bytes>>,
    current: Bytes,
    ended: bool,
}

/// Makes a channel of bytes.
pub(super) fn feed() -> (Feed, Fed) {
    let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
    (Feed(sender), Fed { chunks, current: Bytes::new(), ended: false })
}

impl Feed {
    /// Waits for room and passes bytes on; `false` where the reader has given up.
    pub async fn send(&self, chunk: Bytes) -> bool {
        self.0.send(Some(chunk)).await.is_ok()
    }

    /// Says that all bytes were sent. A feed dropped without it is an interruption.
    pub async fn end(self) {
        // A reader that has given up does not care.
        let _ = self.0.send(None).await;
    }
}

impl Read for Fed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.chunks.blocking_recv() {
                Some(Some(chunk)) => self.current = chunk,
                Some(None) => self.ended = true,
                None => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the transfer was interrupted"));
                }
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
