//! Standard output and standard error in one stream, each piece behind an eight-byte header.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of a header: stream, three zeros, length (big endian).
const HEADER_BYTES: usize = 8;
/// Bytes of a piece that is kept whole.
const PIECE_BYTES_MAX: u64 = 16 << 20;

/// Which stream a piece belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
    /// The daemon itself, saying what went wrong.
    Failure,
}

/// The next piece; `None` at the end.
///
/// # Errors
/// The stream broke off inside a piece, or has another form; what was read before stands.
pub async fn next(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(Channel, Vec<u8>)>> {
    let mut header = [0; HEADER_BYTES];
    if from.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut header[1..]).await?;
    let channel = match header[0] {
        0 | 1 => Channel::Output,
        2 => Channel::Error,
        3 => Channel::Failure,
        other => return Err(malformed(format!("there is no stream {other}"))),
    };
    let length = u64::from(u32::from_be_bytes([header[4], header[5], header[6], header[7]]));
    if length > PIECE_BYTES_MAX {
        return Err(malformed(format!("a piece of {length} bytes is too long")));
    }
    let mut piece = Vec::new();
    if from.take(length).read_to_end(&mut piece).await? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((channel, piece)))
}

/// Copies each piece to the stream that it belongs to, until the end.
///
/// # Errors
/// Either side broke, or the daemon said that it failed.
pub async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    output: &mut (impl AsyncWrite + Unpin),
    error: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    while let Some((channel, piece)) = next(from).await? {
        match channel {
            Channel::Output => write(output, &piece).await?,
            Channel::Error => write(error, &piece).await?,
            Channel::Failure => return Err(failure(&piece)),
        }
    }
    Ok(())
}

/// What the daemon says in the stream itself, as an error.
pub fn failure(piece: &[u8]) -> io::Error {
    io::Error::other(format!("Error response from daemon: {}", String::from_utf8_lossy(piece).trim_end()))
}

async fn write(to: &mut (impl AsyncWrite + Unpin), piece: &[u8]) -> io::Result<()> {
    to.write_all(piece).await?;
    to.flush().await
}

fn malformed(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the daemon's stream cannot be understood: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(stream: u8, text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0][..], &length, text.as_bytes()].concat()
    }

    async fn copied(stream: &[u8]) -> (io::Result<()>, String, String) {
        let (mut output, mut error) = (Vec::new(), Vec::new());
        let result = copy(&mut &stream[..], &mut output, &mut error).await;
        (result, String::from_utf8(output).unwrap(), String::from_utf8(error).unwrap())
    }

    #[tokio::test]
    async fn pieces_go_to_the_stream_that_they_belong_to() {
        let stream = [piece(1, "one\n"), piece(2, "two\n"), piece(1, ""), piece(1, "three\n")].concat();
        let (result, output, error) = copied(&stream).await;
        assert!(result.is_ok());
        assert_eq!((output.as_str(), error.as_str()), ("one\nthree\n", "two\n"));
    }

    #[tokio::test]
    async fn a_failure_of_the_daemon_is_an_error_and_keeps_what_came_before() {
        let stream = [piece(1, "one\n"), piece(3, "log is gone\n")].concat();
        let (result, output, _) = copied(&stream).await;
        assert_eq!(result.unwrap_err().to_string(), "Error response from daemon: log is gone");
        assert_eq!(output, "one\n");
    }

    #[tokio::test]
    async fn a_stream_that_breaks_off_or_has_another_form_is_an_error() {
        let whole = piece(1, "one\n");
        assert!(copied(&whole[..5]).await.0.is_err());
        assert!(copied(&whole[..10]).await.0.is_err());
        assert!(copied(b"plain text").await.0.is_err());
        assert!(copied(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).await.0.is_err());
        assert!(copied(b"").await.0.is_ok());
    }
}
