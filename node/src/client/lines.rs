//! Streams of one JSON value a line: progress and events.

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::{ClientError, Reply, Result};

/// Bytes of a line.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// The lines of a reply, as they come.
pub struct Lines {
    from: BufReader<Reply>,
    line: Vec<u8>,
}

impl Lines {
    /// The lines of `reply`.
    pub fn new(reply: Reply) -> Self {
        Self { from: BufReader::new(reply), line: Vec::new() }
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// The stream broke off, or the line is too long or no `T`.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        loop {
            self.line.clear();
            let mut bounded = (&mut self.from).take(LINE_BYTES_MAX);
            let read = bounded.read_until(b'\n', &mut self.line).await;
            if read.map_err(|error| ClientError::Reply(error.into()))? == 0 {
                return Ok(None);
            }
            if !self.line.trim_ascii().is_empty() {
                return serde_json::from_slice(&self.line).map(Some).map_err(ClientError::Shape);
            }
        }
    }
}
