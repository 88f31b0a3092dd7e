//! Sealed envelopes: what a manager keeps on disk, encrypted and authenticated with AES-256-GCM.
//!
//! An envelope is `format (1 byte) · key id (4, big endian) · nonce (12) · ciphertext · tag (16)`. The key id
//! says which of several keys opens it, so that a new key can be taken into use while old envelopes are still
//! around.

use std::fmt;

use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The first byte of every envelope that this build writes.
const FORMAT: u8 = 1;
/// Bytes in front of the nonce: format and key id.
const PREFIX: usize = 1 + 4;
/// Bytes of a nonce. 96 random bits: one key seals at most 2^32 envelopes (NIST SP 800-38D, 8.3).
pub const NONCE: usize = 12;
const HEADER: usize = PREFIX + NONCE;
const TAG: usize = 16;
/// Bytes by which an envelope is longer than what is in it.
pub const OVERHEAD: usize = HEADER + TAG;

/// A key that seals and opens; wiped from memory when dropped, and never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DataKey {
    id: u32,
    secret: [u8; 32],
}

impl DataKey {
    /// The key with this id, made of 32 random bytes that the caller brings.
    pub const fn new(id: u32, secret: [u8; 32]) -> Self {
        Self { id, secret }
    }

    /// The id that its envelopes carry.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The secret itself, for whoever keeps the key.
    pub const fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({})", self.id)
    }
}

/// More plaintext than one envelope can hold (64 GiB less 32 bytes). Nothing was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much to seal in one envelope")]
pub struct SealError;

/// An envelope does not open. Nothing of its content was given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There are fewer bytes than an empty envelope has.
    #[error("sealed envelope of {0} bytes is cut short")]
    Short(usize),
    /// It was written by a version that this build does not know.
    #[error("sealed envelope has format {0}, this build knows {FORMAT}")]
    Format(u8),
    /// None of the keys at hand has sealed it.
    #[error("no key with id {0}, which sealed this envelope")]
    NoKey(u32),
    /// It was damaged or changed, it belongs elsewhere (other associated data), or a key of the same id but
    /// of another secret sealed it.
    #[error("sealed envelope is damaged or out of place")]
    Damaged,
}

/// Seals `plaintext`. `associated` is not in the envelope, but it only opens beside the same: it says where
/// the envelope belongs.
///
/// `nonce` is 12 random bytes, never used twice with the same key.
///
/// # Errors
/// [`SealError`].
pub fn seal(
    key: &DataKey,
    nonce: [u8; NONCE],
    associated: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    let mut envelope = Vec::with_capacity(plaintext.len() + OVERHEAD);
    envelope.push(FORMAT);
    envelope.extend_from_slice(&key.id.to_be_bytes());
    envelope.extend_from_slice(&nonce);
    envelope.extend_from_slice(plaintext);
    let tag = cipher(key)
        .encrypt_inout_detached(&nonce.into(), associated, (&mut envelope[HEADER..]).into())
        .map_err(|_| SealError)?;
    envelope.extend_from_slice(&tag);
    Ok(envelope)
}

/// Opens an envelope with the one of `keys` that sealed it.
///
/// # Errors
/// See [`OpenError`].
pub fn open(keys: &[DataKey], associated: &[u8], envelope: &[u8]) -> Result<Vec<u8>, OpenError> {
    let short = OpenError::Short(envelope.len());
    let (&[format, id @ ..], rest) = envelope.split_first_chunk::<PREFIX>().ok_or(short)?;
    if format != FORMAT {
        return Err(OpenError::Format(format));
    }
    let (&nonce, rest) = rest.split_first_chunk::<NONCE>().ok_or(short)?;
    let (sealed, &tag) = rest.split_last_chunk::<TAG>().ok_or(short)?;
    let id = u32::from_be_bytes(id);
    let key = keys.iter().find(|key| key.id == id).ok_or(OpenError::NoKey(id))?;
    let mut plaintext = sealed.to_vec();
    cipher(key)
        .decrypt_inout_detached(&nonce.into(), associated, plaintext.as_mut_slice().into(), &tag.into())
        .map_err(|_| OpenError::Damaged)?;
    Ok(plaintext)
}

fn cipher(key: &DataKey) -> Aes256Gcm {
    Aes256Gcm::new((&key.secret).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: DataKey = DataKey::new(1, [7; 32]);
    const NEW: DataKey = DataKey::new(2, [8; 32]);

    /// QRM-16
    #[test]
    fn an_envelope_hides_its_content_and_gives_it_back() {
        let envelope = seal(&OLD, [3; 12], b"term 1", b"a secret of the cluster").unwrap();
        assert_eq!(envelope.len(), OVERHEAD + 23);
        assert!(!envelope.windows(6).any(|window| window == b"secret"));
        assert_eq!(open(&[NEW, OLD], b"term 1", &envelope).unwrap(), b"a secret of the cluster");
        assert_eq!(open(&[OLD], b"", &seal(&OLD, [4; 12], b"", b"").unwrap()).unwrap(), b"");
    }

    /// QRM-16
    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let envelope = seal(&OLD, [3; 12], b"term 1", b"content").unwrap();
        for at in 0..envelope.len() {
            let mut changed = envelope.clone();
            changed[at] ^= 1;
            assert!(open(&[OLD, NEW], b"term 1", &changed).is_err(), "byte {at} changed");
            assert!(open(&[OLD, NEW], b"term 1", &envelope[..at]).is_err(), "cut to {at} bytes");
        }
    }

    #[test]
    fn an_envelope_opens_only_where_it_belongs_and_only_with_its_key() {
        let envelope = seal(&OLD, [3; 12], b"term 1", b"content").unwrap();
        assert_eq!(open(&[OLD], b"term 2", &envelope), Err(OpenError::Damaged));
        assert_eq!(open(&[NEW], b"term 1", &envelope), Err(OpenError::NoKey(1)));
        assert_eq!(open(&[DataKey::new(1, [9; 32])], b"term 1", &envelope), Err(OpenError::Damaged));
        assert_eq!(open(&[], b"", &envelope[..20]), Err(OpenError::Short(20)));
    }

    #[test]
    fn the_format_of_a_newer_build_is_named() {
        assert_eq!(open(&[OLD], b"", &[9; 64]), Err(OpenError::Format(9)));
    }

    #[test]
    fn a_key_does_not_print_its_secret() {
        assert_eq!(format!("{OLD:?}"), "DataKey(1)");
    }
}
