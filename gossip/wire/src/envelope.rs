//! The envelope: one version byte, then the value; never decoded without a limit.

use bincode::config;
use serde::{Serialize, de::DeserializeOwned};

/// The version byte in front of every message that this build writes.
pub const VERSION: u8 = 1;

/// A value could not be encoded. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[error("value cannot be encoded")]
pub struct EncodeError(#[from] bincode::error::EncodeError);

/// Bytes are not a value of the wanted type. Nothing was taken from them.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// There was not even a version byte.
    #[error("message is empty")]
    Empty,
    /// The sender speaks a version that this build does not know.
    #[error("message has wire version {0}, this build speaks {VERSION}")]
    Version(u8),
    /// The message is longer than its kind may be.
    #[error("message of {len} bytes is over its limit of {limit}")]
    TooLong {
        /// Bytes received.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The bytes do not spell a value of this type.
    #[error("message is malformed")]
    Malformed(#[from] bincode::error::DecodeError),
}

/// Writes `value` behind the version byte.
///
/// # Errors
/// Only types that serde itself cannot express in a flat encoding fail, so an error is a programming mistake.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut out = vec![VERSION];
    bincode::serde::encode_into_std_write(value, &mut out, config::standard())?;
    Ok(out)
}

/// Reads a value of at most `LIMIT` bytes. Bytes after the value are ignored: a newer sender may append.
///
/// # Errors
/// See [`DecodeError`]; hostile input is always an error, never a panic and never a large allocation.
pub fn decode<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (&version, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    if body.len() > LIMIT {
        return Err(DecodeError::TooLong { len: body.len(), limit: LIMIT });
    }
    let (value, _rest) = bincode::serde::decode_from_slice(body, config::standard().with_limit::<LIMIT>())?;
    Ok(value)
}

/// Reads one value of at most `LIMIT` bytes from the front of `bytes`, and tells how many bytes it took (the
/// version byte included), so that values can follow each other in one buffer.
///
/// # Errors
/// See [`DecodeError`]; as in [`decode`], except that bytes after the value do not count against `LIMIT`.
pub fn decode_prefix<T: DeserializeOwned, const LIMIT: usize>(
    bytes: &[u8],
) -> Result<(T, usize), DecodeError> {
    let (&version, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let (value, taken) = bincode::serde::decode_from_slice(body, config::standard().with_limit::<LIMIT>())?;
    Ok((value, taken + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_the_round_trip() {
        let bytes = encode(&("node", 7_u64)).unwrap();
        assert_eq!(bytes[0], VERSION);
        assert_eq!(decode::<(String, u64), 64>(&bytes).unwrap(), ("node".to_owned(), 7));
    }

    #[test]
    fn an_unknown_version_and_an_empty_message_are_refused() {
        assert!(matches!(decode::<u8, 8>(&[9, 1]), Err(DecodeError::Version(9))));
        assert!(matches!(decode::<u8, 8>(&[]), Err(DecodeError::Empty)));
    }

    #[test]
    fn a_length_that_promises_more_than_the_limit_allocates_nothing() {
        // A vector length of 2^60 in front of no data.
        let hostile = [VERSION, 253, 0, 0, 0, 0, 0, 0, 0, 16];
        assert!(matches!(decode::<Vec<u8>, 1024>(&hostile), Err(DecodeError::Malformed(_))));
        assert!(matches!(
            decode::<Vec<u8>, 4>(&[VERSION; 9]),
            Err(DecodeError::TooLong { len: 8, limit: 4 })
        ));
    }

    #[test]
    fn values_that_follow_each_other_are_read_one_by_one() {
        let mut bytes = encode(&("node", 7_u64)).unwrap();
        bytes.extend(encode(&300_u16).unwrap());
        bytes.push(0);

        let (first, taken) = decode_prefix::<(String, u64), 64>(&bytes).unwrap();
        assert_eq!(first, ("node".to_owned(), 7));
        let (second, rest) = decode_prefix::<u16, 2>(&bytes[taken..]).unwrap();
        assert_eq!(second, 300);
        assert_eq!(taken + rest, bytes.len() - 1);
        assert!(decode_prefix::<String, 2>(&bytes).is_err(), "the first value is over this limit");
        assert!(matches!(decode_prefix::<u8, 1>(&[]), Err(DecodeError::Empty)));
    }
}
