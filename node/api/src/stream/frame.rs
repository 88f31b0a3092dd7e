//! Framed output: `[stream, 0, 0, 0, length as big-endian u32]`, then that many bytes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{failure::Failure, log::Output};

const HEADER_BYTES: usize = 8;
/// The number of the stream that carries the daemon's own errors.
const SYSTEM_ERROR: u8 = 3;

/// Bytes of a process, framed. Longer than any chunk of output that an engine hands out at once is not possible:
/// the length has 32 bits.
pub fn output(output: Output, bytes: &[u8]) -> Bytes {
    let number = match output {
        Output::Stdout => 1,
        Output::Stderr => 2,
    };
    frame(number, bytes)
}

/// A failure in the middle of a stream, framed.
pub fn failure(failure: &Failure) -> Bytes {
    frame(SYSTEM_ERROR, format!("Error: {failure}\n").as_bytes())
}

fn frame(number: u8, bytes: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(HEADER_BYTES + bytes.len());
    for part in bytes.chunks(u32::MAX as usize) {
        framed.put_slice(&[number, 0, 0, 0]);
        framed.put_u32(part.len() as u32);
        framed.put_slice(part);
    }
    framed.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_stream_length_and_bytes() {
        assert_eq!(&output(Output::Stdout, b"hi\n")[..], b"\x01\0\0\0\0\0\0\x03hi\n");
        assert_eq!(&output(Output::Stderr, b"no")[..], b"\x02\0\0\0\0\0\0\x02no");
        assert_eq!(failure(&Failure::internal("x"))[0], SYSTEM_ERROR);
    }
}
