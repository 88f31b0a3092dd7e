//! Serving the other managers.

use bytes::{Bytes, BytesMut};
use covey_state::Id;
use openraft::{async_runtime::watch::WatchReceiver, errors::Fatal, raft::SnapshotResponse};

use crate::{
    SNAPSHOT_BYTES_MAX,
    message::{Reply, Request, SnapshotPart, decode_request},
    network::Transport,
    raft::Raft,
    types::{Member, Snapshot, SnapshotMeta, Types, Vote},
};

/// A snapshot of which the leader has not sent everything yet. There is one leader, so there is one of these.
pub(crate) struct Incoming {
    vote: Vote,
    meta: SnapshotMeta,
    length: usize,
    content: BytesMut,
}

impl Incoming {
    fn new(part: &SnapshotPart) -> Result<Self, String> {
        let length = usize::try_from(part.length).unwrap_or(usize::MAX);
        if length > SNAPSHOT_BYTES_MAX {
            return Err(format!("a snapshot of {length} bytes is over the limit of {SNAPSHOT_BYTES_MAX}"));
        }
        Ok(Self { vote: part.vote, meta: part.meta.clone(), length, content: BytesMut::new() })
    }

    /// Takes the piece that follows on what is there.
    fn take(&mut self, part: &SnapshotPart) -> Result<(), String> {
        let follows = self.vote == part.vote
            && self.meta == part.meta
            && self.length as u64 == part.length
            && self.content.len() as u64 == part.offset
            && part.bytes.len() <= self.length - self.content.len();
        if !follows {
            return Err("a piece of a snapshot does not follow on the last one".to_owned());
        }
        self.content.extend_from_slice(&part.bytes);
        Ok(())
    }
}

impl<T: Transport> Raft<T> {
    /// Answers a request that manager `from` sent through its [`Transport`]; who it is has been proven. Always
    /// answers, whatever the request: what makes no sense, or is said in another manager's name, is refused, and who
    /// is no member of the log (any more) has nothing proposed or read for it.
    pub async fn handle(&self, from: Id, request: Vec<u8>) -> Vec<u8> {
        let reply = match decode_request(&request) {
            Ok(request) if request.sender().is_some_and(|sender| sender != Member(from)) => {
                tracing::warn!(%from, "a manager speaks in the name of another; refused");
                Reply::Refused("it does not come from whom it says".to_owned())
            }
            // A certificate outlives a membership. Who is only just becoming a member asks again.
            Ok(request) if request.sender().is_none() && self.address_of(from).is_none() => Reply::NotLeader,
            Ok(request) => self.answer(request).await,
            Err(error) => Reply::Refused(error.to_string()),
        };
        covey_wire::encode(&reply).unwrap_or_default()
    }

    async fn answer(&self, request: Request) -> Reply {
        let core = self.core();
        match request {
            Request::Append(request) => {
                core.append_entries(request).await.map_or_else(refused, Reply::Append)
            }
            Request::Vote(request) => core.vote(request).await.map_or_else(refused, Reply::Vote),
            Request::PreVote(request) => core.pre_vote(request).await.map_or_else(refused, Reply::Vote),
            Request::Snapshot(part) => self.take_snapshot(part).await.unwrap_or_else(Reply::Refused),
            Request::TransferLeader(request) => {
                core.handle_transfer_leader(request).await.map_or_else(refused, Reply::TransferLeader)
            }
            Request::Propose(proposal) => self.propose_forwarded(proposal).await,
            Request::ReadIndex => self.read_index_forwarded().await,
        }
    }

    async fn take_snapshot(&self, part: SnapshotPart) -> Result<Reply, String> {
        // Of a leader that is none any more nothing needs to be kept.
        let vote = self.core().metrics().borrow_watched().vote;
        if vote > part.vote {
            return Ok(Reply::Snapshot(Some(SnapshotResponse::new(vote))));
        }
        let mut incoming = self.0.incoming.lock().await;
        let mut snapshot = match incoming.take() {
            Some(begun) if part.offset > 0 => begun,
            _ => Incoming::new(&part)?,
        };
        snapshot.take(&part)?;
        if snapshot.content.len() < snapshot.length {
            *incoming = Some(snapshot);
            return Ok(Reply::Snapshot(None));
        }
        drop(incoming);
        let Incoming { vote, meta, content, .. } = snapshot;
        let snapshot = Snapshot { meta, snapshot: Bytes::from(content) };
        let installed = self.core().install_full_snapshot(vote, snapshot).await;
        installed
            .map(|response| Reply::Snapshot(Some(response)))
            .map_err(|error: Fatal<Types>| error.to_string())
    }
}

fn refused(error: impl std::fmt::Display) -> Reply {
    Reply::Refused(error.to_string())
}
