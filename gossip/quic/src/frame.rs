//! Frames on a stream: a length (4 bytes, big endian), then as many bytes.

use quinn::{ReadExactError, RecvStream, SendStream, WriteError};

/// A frame could not be written. The stream is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum WriteFrameError {
    /// It has more than 2^32 − 1 bytes. Nothing was written.
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// The stream or its connection is gone.
    #[error("the stream broke while a frame was written")]
    Broken(#[from] WriteError),
}

/// A frame could not be read. The stream is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum ReadFrameError {
    /// The sender has ended the stream where a frame could have begun.
    #[error("the stream has ended")]
    Ended,
    /// The sender announces more bytes than this frame may have. Nothing was allocated for it.
    #[error("a frame of {len} bytes is over its limit of {limit}")]
    TooLong {
        /// Bytes announced.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The stream or its connection is gone, or ended within the frame.
    #[error("the stream broke while a frame was read")]
    Broken(#[from] ReadExactError),
}

/// Writes one frame.
///
/// # Errors
/// See [`WriteFrameError`].
pub async fn write_frame(send: &mut SendStream, bytes: &[u8]) -> Result<(), WriteFrameError> {
    let len = u32::try_from(bytes.len()).map_err(|_| WriteFrameError::TooLong(bytes.len()))?;
    send.write_all(&len.to_be_bytes()).await?;
    send.write_all(bytes).await?;
    Ok(())
}

/// Reads one frame of at most `limit` bytes. Memory grows with what has really come, not with what was
/// announced.
///
/// # Errors
/// See [`ReadFrameError`].
pub async fn read_frame(recv: &mut RecvStream, limit: usize) -> Result<Vec<u8>, ReadFrameError> {
    let mut len = [0; 4];
    match recv.read_exact(&mut len).await {
        Err(ReadExactError::FinishedEarly(0)) => return Err(ReadFrameError::Ended),
        read => read?,
    }
    let len = u32::from_be_bytes(len) as usize;
    if len > limit {
        return Err(ReadFrameError::TooLong { len, limit });
    }
    let mut frame = Vec::new();
    while frame.len() < len {
        let start = frame.len();
        frame.resize(len.min(start + CHUNK), 0);
        recv.read_exact(&mut frame[start..]).await?;
    }
    Ok(frame)
}

/// Bytes by which the memory of a frame grows.
const CHUNK: usize = 64 << 10;
