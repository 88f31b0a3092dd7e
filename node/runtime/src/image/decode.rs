//! One pass over a layer: bytes are hashed, decompressed by their magic, hashed again and unpacked.

use std::{
    io::{self, BufReader, Read},
    path::Path,
};

use sha2::{Digest as _, Sha256};

use super::{
    Digest,
    unpack::{UnpackError, Unpacked, unpack},
};

/// Bytes read ahead of a decompressor.
const BUFFER: usize = 64 << 10;
/// Bytes of a decompressed layer.
const TAR_MAX: u64 = 64 << 30;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// A layer cannot become a directory.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The bytes are not those that the manifest names.
    #[error("layer {expected} has the wrong content: its digest is {actual}")]
    WrongDigest {
        /// The manifest's.
        expected: Digest,
        /// Of what came.
        actual: Digest,
    },
    /// The decompressed bytes are not those that the configuration names.
    #[error("layer has the wrong content: its diff id is {actual} instead of {expected}")]
    WrongDiffId {
        /// The configuration's.
        expected: Digest,
        /// Of what came.
        actual: Digest,
    },
    /// There are more or fewer bytes than the manifest says.
    #[error("layer has {actual} bytes instead of {expected}")]
    WrongSize {
        /// The manifest's, in bytes.
        expected: u64,
        /// What came, in bytes.
        actual: u64,
    },
    /// The archive is broken or hostile.
    #[error("cannot unpack layer")]
    Unpack(#[from] UnpackError),
    /// Bytes did not arrive, do not decompress, or the disk is full.
    #[error("cannot read layer")]
    Read(#[source] io::Error),
}

/// What a layer must turn out to be. Absent facts are not known beforehand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expected {
    /// Bytes as transported.
    pub size: Option<u64>,
    /// Of the bytes as transported.
    pub digest: Option<Digest>,
    /// Of the tar.
    pub diff_id: Option<Digest>,
}

/// Counts and hashes what is read through it, up to a limit in bytes.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
    count: u64,
    limit: u64,
}

impl<R: Read> Hashing<R> {
    fn new(inner: R, limit: u64) -> Self {
        Self { inner, hasher: Sha256::new(), count: 0, limit }
    }

    /// Reads what the reader above has left over.
    fn drain(&mut self) -> io::Result<u64> {
        io::copy(self, &mut io::sink())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.count += count as u64;
        if self.count > self.limit {
            return Err(io::Error::other(format!("more than {} bytes", self.limit)));
        }
        Ok(count)
    }
}

/// Decompresses gzip and zstd, told by their first bytes; anything else passes as it is.
pub(super) fn decompress<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::with_capacity(BUFFER, source);
    let mut magic = Vec::with_capacity(ZSTD.len());
    source.by_ref().take(ZSTD.len() as u64).read_to_end(&mut magic)?;
    let kind = (magic.starts_with(GZIP), magic == ZSTD);
    let whole = io::Cursor::new(magic).chain(source);
    Ok(match kind {
        (true, _) => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        (_, true) => Box::new(zstd::Decoder::with_buffer(whole)?),
        _ => Box::new(whole),
    })
}

/// Unpacks a layer into the empty directory `into` and proves that it is the expected one. Returns its diff id too.
pub(super) fn unpack_verified(
    source: impl Read,
    expected: Expected,
    into: &Path,
) -> Result<(Digest, Unpacked), LayerError> {
    let mut raw = Hashing::new(source, expected.size.unwrap_or(u64::MAX));
    let unpacked = unpack_hashed(&mut raw, into);
    // A broken archive is most often the wrong one: say that rather than what the parser stumbled over.
    let drained = raw.drain();
    if drained.is_ok() || raw.count > raw.limit {
        check_transport(raw, expected)?;
    }
    let (diff_id, unpacked) = unpacked?;
    drained.map_err(LayerError::Read)?;
    match expected.diff_id {
        Some(expected) if expected != diff_id => Err(LayerError::WrongDiffId { expected, actual: diff_id }),
        _ => Ok((diff_id, unpacked)),
    }
}

fn unpack_hashed(raw: impl Read, into: &Path) -> Result<(Digest, Unpacked), LayerError> {
    let mut tar = Hashing::new(decompress(raw).map_err(LayerError::Read)?, TAR_MAX);
    let unpacked = unpack(&mut tar, into)?;
    // Padding behind the archive's end belongs to the diff id.
    tar.drain().map_err(LayerError::Read)?;
    Ok((Digest::finish(tar.hasher), unpacked))
}

fn check_transport<R>(raw: Hashing<R>, expected: Expected) -> Result<(), LayerError> {
    if let Some(size) = expected.size
        && size != raw.count
    {
        return Err(LayerError::WrongSize { expected: size, actual: raw.count });
    }
    let actual = Digest::finish(raw.hasher);
    match expected.digest {
        Some(expected) if expected != actual => Err(LayerError::WrongDigest { expected, actual }),
        _ => Ok(()),
    }
}
