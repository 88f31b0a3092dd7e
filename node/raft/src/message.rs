//! What managers say to each other about the log.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use crate::{
    MESSAGE_BYTES_MAX,
    error::ProposeError,
    feed::Applied,
    types::{Member, SnapshotMeta, Types, Vote},
};

/// A request to another manager.
#[derive(Serialize, Deserialize)]
pub(crate) enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Snapshot(SnapshotPart),
    TransferLeader(TransferLeaderRequest<Types>),
    /// To the leader: a proposal, encoded.
    Propose(Bytes),
    /// To the leader: how far must a store be for a read to be up to date?
    ReadIndex,
}

impl Request {
    /// Who says this, where it is part of the message: where managers talk about the log. What is asked on behalf of
    /// a user names nobody.
    pub(crate) fn sender(&self) -> Option<Member> {
        let vote = match self {
            Self::Append(request) => &request.vote,
            Self::Vote(request) | Self::PreVote(request) => &request.vote,
            Self::Snapshot(part) => &part.vote,
            Self::TransferLeader(request) => request.from_leader(),
            Self::Propose(_) | Self::ReadIndex => return None,
        };
        Some(vote.leader_id.node_id)
    }
}

/// A piece of a snapshot. The pieces come in order, from offset 0.
#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotPart {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    /// Bytes of the whole.
    pub(crate) length: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
}

/// The answer to a request of the same name.
#[derive(Serialize, Deserialize)]
pub(crate) enum Reply {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    /// `None`: go on with the next piece.
    Snapshot(Option<SnapshotResponse<Types>>),
    TransferLeader(Result<(), TransferLeaderError<Types>>),
    Propose(Result<Applied, ProposeError>),
    ReadIndex(Option<u64>),
    /// To `Propose` and `ReadIndex`: ask the leader, in a moment. It is how a stranger is answered, too.
    NotLeader,
    /// The request makes no sense, or the log has stopped. The text is for the asking manager's log.
    Refused(String),
}

/// Why an answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("an answer cannot be read")]
    Malformed(#[from] covey_wire::DecodeError),
    #[error("a manager refused: {0}")]
    Refused(String),
    #[error("a manager answered another question")]
    Other,
}

pub(crate) fn decode_request(bytes: &[u8]) -> Result<Request, covey_wire::DecodeError> {
    covey_wire::decode::<_, MESSAGE_BYTES_MAX>(bytes)
}

pub(crate) fn decode_reply(bytes: &[u8]) -> Result<Reply, Unusable> {
    match covey_wire::decode::<_, MESSAGE_BYTES_MAX>(bytes)? {
        Reply::Refused(reason) => Err(Unusable::Refused(reason)),
        reply => Ok(reply),
    }
}
