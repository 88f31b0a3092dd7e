//! What machines say to each other: a kind, then a body, each in its versioned envelope.

use covey_wire::Id;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    config::MESSAGE_BYTES_MAX,
    digest::{Buckets, Sums},
    error::MessageError,
    member::Peer,
    row::{Signed, Version},
    topic::Topic,
};

/// A datagram: a packet of SWIM.
pub(crate) const SWIM: u8 = 1;
/// A push of rows that were just written: [`Rows`]. Whoever sees them for the first time pushes them on.
pub(crate) const FRESH: u8 = 2;
/// A push of what the receiver turned out to lack: [`Repair`].
pub(crate) const REPAIR: u8 = 3;
/// A request: [`Digest`]; the reply is [`DIFFERENCES`].
pub(crate) const DIGEST: u8 = 4;
/// A reply: [`Differences`].
pub(crate) const DIFFERENCES: u8 = 5;
/// A request for batches: [`Wants`]; the reply is [`ROWS`].
pub(crate) const WANTS: u8 = 6;
/// A reply: [`Rows`].
pub(crate) const ROWS: u8 = 7;

/// Batches of rows.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Rows {
    pub batches: Vec<Signed>,
}

/// Members and batches that the sender found the receiver to lack.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Repair {
    pub members: Vec<foca::Member<Peer>>,
    pub batches: Vec<Signed>,
}

/// What the sender knows, in sums.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Digest {
    pub sender: Peer,
    pub members: Sums,
    /// Topics that the sender subscribes to.
    pub topics: Vec<(Topic, Sums)>,
    /// Topics that the sender only writes to: its own batches.
    pub written: Vec<(Topic, Vec<(u16, Version)>)>,
    /// Whether the sender waits to hear that it knows all of a topic: then the reply tells of those that are equal, too.
    pub hearing: bool,
}

/// Where the replier knows other things than the sender of a digest.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Differences {
    pub sender: Peer,
    /// The incarnation of the asking node that the replier holds to be down or gone.
    pub down: Option<u64>,
    /// The replier's members in the differing buckets.
    pub members: Vec<foca::Member<Peer>>,
    /// The buckets of members that differ, and of which `members` has all.
    pub buckets: Buckets,
    /// The replier's batches in the differing buckets.
    pub topics: Vec<TopicDifferences>,
    /// The asking node's own batches that the replier lacks.
    pub wants: Vec<Name>,
    /// Whether there was more to tell than a message holds.
    pub more: bool,
}

/// Where two nodes differ in a topic.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TopicDifferences {
    pub topic: Topic,
    pub extent: Extent,
    /// The buckets that differ, and of which `batches` has all.
    pub buckets: Buckets,
    pub batches: Vec<(Id, u16, Version)>,
}

/// What whoever asks knows of a topic, together with what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Extent {
    /// Less than the replier knows, or has to tell itself.
    Part,
    /// All that the replier knows; others may know more.
    Own,
    /// All that anybody knows.
    Whole,
}

impl TopicDifferences {
    /// Whether there is a difference, and not only the word that there is none.
    pub fn differs(&self) -> bool {
        !self.buckets.is_empty() || !self.batches.is_empty()
    }
}

/// Batches that the sender lacks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Wants {
    pub names: Vec<Name>,
}

/// The name of a batch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Name {
    pub topic: Topic,
    pub owner: Id,
    pub number: u16,
}

/// The bytes of a message.
pub(crate) fn write<T: Serialize>(kind: u8, body: &T) -> Vec<u8> {
    let mut bytes = covey_wire::encode(&kind).expect("a number always encodes");
    bytes.extend(covey_wire::encode(body).expect("ids, numbers and bytes always encode"));
    bytes
}

/// The bytes of a datagram around a packet of SWIM.
pub(crate) fn write_datagram(packet: &[u8]) -> Vec<u8> {
    let mut bytes = covey_wire::encode(&SWIM).expect("a number always encodes");
    bytes.extend(packet);
    bytes
}

/// Parts a message into its kind and the bytes of its body.
pub(crate) fn split(bytes: &[u8]) -> Result<(u8, &[u8]), MessageError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLong(bytes.len()));
    }
    let (kind, taken) = covey_wire::decode_prefix::<u8, 1>(bytes)?;
    Ok((kind, &bytes[taken..]))
}

/// Reads the body of a message.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, MessageError> {
    Ok(covey_wire::decode::<T, MESSAGE_BYTES_MAX>(body)?)
}
