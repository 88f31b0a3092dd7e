//! Rows, and the signed batches in which they are stored and travel.
//!
//! An owner keeps its rows of one topic in numbered batches. A change of any row writes its batch anew, whole, under a
//! larger version and one signature; so a relayed batch can always be verified, of two versions the larger is
//! simply right, and a withdrawn row needs no tombstone: it is the row that its batch has no longer.

use std::sync::Arc;

use bytes::Bytes;
use covey_wire::Id;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::{
    config::{
        BATCH_BYTES_MAX, BATCHES_PER_OWNER_MAX, KEY_BYTES_MAX, ROW_BYTES_MAX, ROWS_PER_BATCH_MAX,
        SIGNED_BYTES_MAX,
    },
    topic::Topic,
};

/// What a signature is about, so that it can never be taken for one about something else.
const PURPOSE: &[u8] = b"covey gossip rows 1\0";

/// How new a row is: the life of its owner in which it was written, and how many writings came before in that life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// The owner's incarnation.
    pub incarnation: u64,
    /// The number of the writing.
    pub sequence: u64,
}

/// A row, as its readers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// The one node that may write it.
    pub owner: Id,
    /// Its name among the owner's rows of the topic.
    pub key: &'a str,
    /// What it says.
    pub payload: &'a Bytes,
    /// When it was last written, or another row of its batch was.
    pub version: Version,
    /// Whether the owner is not known to be alive: what it says may be no longer so.
    pub suspended: bool,
}

/// Rows of one owner and topic that are written and signed together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub owner: Id,
    pub topic: Topic,
    pub number: u16,
    pub version: Version,
    pub rows: Vec<(Arc<str>, Bytes)>,
}

/// A batch as it travels: its bytes, and its owner's signature over them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signed {
    content: Bytes,
    signature: Bytes,
}

/// Whether `rows` fit into one batch.
pub(crate) fn fits<'a>(rows: impl Iterator<Item = (&'a str, &'a Bytes)>) -> bool {
    let (count, bytes) =
        rows.fold((0, 0), |(count, bytes), (key, payload)| (count + 1, bytes + key.len() + payload.len()));
    count <= ROWS_PER_BATCH_MAX && bytes <= BATCH_BYTES_MAX
}

impl Batch {
    pub fn sign(&self, signer: &SigningKey) -> Signed {
        let content = covey_wire::encode(self).expect("ids, numbers and bytes always encode");
        let signature = signer.sign(&[PURPOSE, &content].concat());
        Signed { content: content.into(), signature: signature.to_bytes().to_vec().into() }
    }

    /// Whether everything in the batch keeps its bounds.
    fn is_sound(&self) -> bool {
        self.number < BATCHES_PER_OWNER_MAX
            && fits(self.rows.iter().map(|(key, payload)| (&**key, payload)))
            && self.rows.iter().all(|(key, payload)| {
                (1..=KEY_BYTES_MAX).contains(&key.len()) && payload.len() <= ROW_BYTES_MAX
            })
    }
}

impl Signed {
    /// Reads the batch, without asking who signed it. `None` if it is malformed or over a bound.
    pub fn open(&self) -> Option<Batch> {
        covey_wire::decode::<Batch, SIGNED_BYTES_MAX>(&self.content).ok().filter(Batch::is_sound)
    }

    pub fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        Signature::from_slice(&self.signature)
            .is_ok_and(|signature| key.verify_strict(&[PURPOSE, &self.content].concat(), &signature).is_ok())
    }

    /// Bytes on the wire, at most.
    pub fn size(&self) -> usize {
        self.content.len() + self.signature.len() + 16
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn batch(owner: u128, sequence: u64, rows: &[(&str, &'static str)]) -> Batch {
        Batch {
            owner: Id::new(owner),
            topic: "tasks".parse().unwrap(),
            number: 0,
            version: Version { incarnation: 1, sequence },
            rows: rows.iter().map(|(key, payload)| ((*key).into(), Bytes::from(*payload))).collect(),
        }
    }

    #[test]
    fn a_signed_batch_opens_and_verifies_only_as_it_was_written() {
        let signer = SigningKey::from_bytes(&[1; 32]);
        let batch = batch(7, 1, &[("task", "running")]);
        let signed = batch.sign(&signer);
        assert_eq!(signed.open(), Some(batch));
        assert!(signed.is_signed_by(&signer.verifying_key()));
        assert!(!signed.is_signed_by(&SigningKey::from_bytes(&[2; 32]).verifying_key()));

        let mut content = signed.content.to_vec();
        *content.last_mut().unwrap() ^= 1;
        let forged = Signed { content: content.into(), signature: signed.signature.clone() };
        assert!(!forged.is_signed_by(&signer.verifying_key()));
        let cut = Signed { content: signed.content, signature: signed.signature.slice(..63) };
        assert!(!cut.is_signed_by(&signer.verifying_key()));
    }

    #[test]
    fn a_batch_over_a_bound_does_not_open() {
        let signer = SigningKey::from_bytes(&[1; 32]);
        let many: Vec<String> = (0..=ROWS_PER_BATCH_MAX).map(|n| n.to_string()).collect();
        let many: Vec<(&str, &'static str)> = many.iter().map(|key| (key.as_str(), "")).collect();
        let mut numbered = batch(7, 1, &[]);
        numbered.number = BATCHES_PER_OWNER_MAX;
        let mut large = batch(7, 1, &[]);
        large.rows.push(("key".into(), vec![0; ROW_BYTES_MAX + 1].into()));
        for unsound in [batch(7, 1, &many), batch(7, 1, &[("", "")]), numbered, large] {
            assert_eq!(unsound.sign(&signer).open(), None);
        }
    }
}
