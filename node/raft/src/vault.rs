//! The vault: seals what goes to disk, and opens it again only in its own place.

use covey_crypto::sealed::{self, DataKey};
use covey_state::Id;
use rand::Rng;

use crate::{
    PROPOSAL_BYTES_MAX,
    error::VaultError,
    types::{Entry, LogId},
};

/// Bytes of an encoded entry: a proposal and what surrounds it, or a membership.
const ENTRY_BYTES_MAX: usize = PROPOSAL_BYTES_MAX + 64 * 1024;
/// Bytes of the term in front of a sealed entry.
const TERM: usize = 8;

/// What kind of record an envelope holds: one kind never opens as another.
#[derive(Clone, Copy)]
enum Kind {
    /// Proves that key and cluster are right.
    Proof = 0,
    Entry = 1,
    Snapshot = 2,
}

/// The data key, bound to one cluster.
#[derive(Clone)]
pub(crate) struct Vault {
    key: [DataKey; 1],
    cluster: Id,
}

impl Vault {
    pub(crate) fn new(key: DataKey, cluster: Id) -> Self {
        Self { key: [key], cluster }
    }

    /// A record that opens only with the same key for the same cluster.
    pub(crate) fn proof(&self) -> Result<Vec<u8>, VaultError> {
        self.seal(self.place(Kind::Proof, 0, 0, 0), &[])
    }

    pub(crate) fn check(&self, proof: &[u8]) -> Result<(), VaultError> {
        self.open(self.place(Kind::Proof, 0, 0, 0), proof).map(drop)
    }

    /// An entry as it lies on disk: its term, then the envelope.
    pub(crate) fn seal_entry(&self, entry: &Entry) -> Result<Vec<u8>, VaultError> {
        let LogId { leader_id, index } = entry.log_id;
        let envelope =
            self.seal(self.place(Kind::Entry, leader_id.term, index, 0), &covey_wire::encode(entry)?)?;
        let mut record = Vec::with_capacity(TERM + envelope.len());
        record.extend_from_slice(&leader_id.term.to_be_bytes());
        record.extend_from_slice(&envelope);
        Ok(record)
    }

    /// The entry that lies at `index`.
    pub(crate) fn open_entry(&self, index: u64, record: &[u8]) -> Result<Entry, VaultError> {
        let (term, envelope) = record.split_first_chunk::<TERM>().ok_or(VaultError::Misplaced)?;
        let term = u64::from_be_bytes(*term);
        let plaintext = self.open(self.place(Kind::Entry, term, index, 0), envelope)?;
        let entry: Entry = covey_wire::decode::<_, ENTRY_BYTES_MAX>(&plaintext)?;
        if entry.log_id.index != index || entry.log_id.leader_id.term != term {
            return Err(VaultError::Misplaced);
        }
        Ok(entry)
    }

    /// Part `number` of the snapshot that ends at `at`.
    pub(crate) fn seal_part(&self, at: (u64, u64), number: u32, part: &[u8]) -> Result<Vec<u8>, VaultError> {
        self.seal(self.place(Kind::Snapshot, at.0, at.1, number), part)
    }

    pub(crate) fn open_part(
        &self,
        at: (u64, u64),
        number: u32,
        envelope: &[u8],
    ) -> Result<Vec<u8>, VaultError> {
        self.open(self.place(Kind::Snapshot, at.0, at.1, number), envelope)
    }

    fn seal(&self, place: [u8; 37], plaintext: &[u8]) -> Result<Vec<u8>, VaultError> {
        let mut nonce = [0; sealed::NONCE];
        rand::rng().fill_bytes(&mut nonce);
        Ok(sealed::seal(&self.key[0], nonce, &place, plaintext)?)
    }

    fn open(&self, place: [u8; 37], envelope: &[u8]) -> Result<Vec<u8>, VaultError> {
        Ok(sealed::open(&self.key, &place, envelope)?)
    }

    /// The associated data: cluster, kind, term, index, number of the part; big endian, so that no two places spell
    /// the same bytes.
    fn place(&self, kind: Kind, term: u64, index: u64, part: u32) -> [u8; 37] {
        let mut place = [0; 37];
        place[..16].copy_from_slice(&self.cluster.bits().to_be_bytes());
        place[16] = kind as u8;
        place[17..25].copy_from_slice(&term.to_be_bytes());
        place[25..33].copy_from_slice(&index.to_be_bytes());
        place[33..].copy_from_slice(&part.to_be_bytes());
        place
    }
}
