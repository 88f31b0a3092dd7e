//! The way to the other managers, over whatever transport the node has.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use covey_state::Id;
use openraft::{
    RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use tokio::time::timeout;

use crate::{
    error::TransportError,
    message::{Reply, Request, SnapshotPart, Unusable, decode_reply},
    snapshot::PART_BYTES,
    types::{Member, Place, Snapshot, Types, Vote},
};

/// How long entries, votes and pieces of a snapshot may take to be answered. The last piece is another matter.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long a follower may take to install a snapshot.
const INSTALL_MAX: Duration = Duration::from_secs(60);
/// Time between two attempts to reach a manager that cannot be reached.
const RETRY: Duration = Duration::from_millis(200);

/// Carries requests to other managers.
pub trait Transport: Send + Sync + 'static {
    /// Sends `request` to manager `to`, last known at `address`, and waits for its answer.
    ///
    /// It reaches `to` or nobody: whoever answers has proven to be `to`. Calls are independent: one that waits must
    /// not hold up another, since heartbeats travel beside large messages. Both messages have at most
    /// [`MESSAGE_BYTES_MAX`](crate::MESSAGE_BYTES_MAX) bytes. The caller drops the future when it has waited long
    /// enough.
    fn call(
        &self,
        to: Id,
        address: SocketAddr,
        request: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, TransportError>> + Send;
}

/// Makes the ways to the others.
pub(crate) struct Network<T>(pub(crate) Arc<T>);

impl<T: Transport> RaftNetworkFactory<Types> for Network<T> {
    type Network = Peer<T>;

    async fn new_client(&mut self, target: Member, node: &Place) -> Peer<T> {
        Peer { transport: self.0.clone(), id: target.0, address: node.address }
    }
}

/// The way to one manager.
pub(crate) struct Peer<T> {
    transport: Arc<T>,
    id: Id,
    address: SocketAddr,
}

impl<T: Transport> Peer<T> {
    async fn call(&self, request: &Request, wait: Duration) -> Result<Reply, RPCError<Types>> {
        let request =
            covey_wire::encode(request).map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        match timeout(wait, self.transport.call(self.id, self.address, request)).await {
            Ok(Ok(reply)) => decode_reply(&reply).map_err(unusable),
            Ok(Err(error @ TransportError::Unreachable(_))) => {
                Err(RPCError::Unreachable(Unreachable::new(&error)))
            }
            Ok(Err(error @ TransportError::Unanswered(_))) => {
                Err(RPCError::Network(NetworkError::new(&error)))
            }
            Err(elapsed) => Err(RPCError::Network(NetworkError::new(&elapsed))),
        }
    }
}

fn unusable(error: Unusable) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&error))
}

impl<T: Transport> RaftNetworkV2<Types> for Peer<T> {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        match self.call(&Request::Append(request), ANSWER_MAX).await? {
            Reply::Append(response) => Ok(response),
            _ => Err(unusable(Unusable::Other)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(&Request::Vote(request), ANSWER_MAX).await? {
            Reply::Vote(response) => Ok(response),
            _ => Err(unusable(Unusable::Other)),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.call(&Request::PreVote(request), ANSWER_MAX).await? {
            Reply::Vote(response) => Ok(response),
            _ => Err(unusable(Unusable::Other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot) => Ok(sent?),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.call(&Request::TransferLeader(request), ANSWER_MAX).await? {
            Reply::TransferLeader(response) => Ok(response),
            _ => Err(unusable(Unusable::Other)),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(RETRY)))
    }
}

impl<T: Transport> Peer<T> {
    /// Sends the pieces one after the other; the follower answers the last one when it has installed the whole.
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<Types>, RPCError<Types>> {
        let length = snapshot.snapshot.len();
        let mut offset = 0;
        loop {
            let end = length.min(offset + PART_BYTES);
            let part = SnapshotPart {
                vote,
                meta: snapshot.meta.clone(),
                length: length as u64,
                offset: offset as u64,
                bytes: snapshot.snapshot.slice(offset..end),
            };
            let wait = if end == length { INSTALL_MAX } else { ANSWER_MAX };
            match self.call(&Request::Snapshot(part), wait).await? {
                Reply::Snapshot(Some(response)) => return Ok(response),
                Reply::Snapshot(None) if end < length => offset = end,
                _ => return Err(unusable(Unusable::Other)),
            }
        }
    }
}
