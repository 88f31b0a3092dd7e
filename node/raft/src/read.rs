//! Reading the newest store there is, on whichever manager.

use covey_state::store::Store;
use openraft::{
    ReadPolicy,
    errors::{LinearizableReadError, RaftError},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    error::ReadError,
    message::{Reply, Request},
    network::Transport,
    raft::Raft,
};

impl<T: Transport> Raft<T> {
    /// A store that holds every change whose proposal was answered, by any manager, before this call
    /// (a linearizable read). The leader asks a majority whether it still leads; others ask the leader.
    ///
    /// # Errors
    /// See [`ReadError`]; each text is for the user. It takes at most
    /// [`Settings::patience`](crate::Settings::patience).
    pub async fn read(&self) -> Result<Store, ReadError> {
        let until = self.deadline();
        loop {
            let leader = self.leader(until).await?;
            let index = if leader.am_leader {
                self.read_index(until).await?
            } else {
                match self.ask_leader(leader, &Request::ReadIndex, until).await {
                    Ok(Reply::ReadIndex(index)) => index,
                    _ => None,
                }
            };
            if let Some(index) = index
                && self.wait_applied(index, until).await
            {
                return Ok(self.store());
            }
            self.wait_for_change(leader, until).await;
        }
    }

    /// How far a store must be, where this manager leads; `None` where a majority does not confirm that.
    pub(crate) async fn read_index(&self, until: Instant) -> Result<Option<u64>, ReadError> {
        match timeout_at(until, self.core().get_read_log_id(ReadPolicy::ReadIndex)).await {
            Ok(Ok((upto, _))) => Ok(Some(upto.log_id().index)),
            Ok(Err(RaftError::Fatal(fatal))) => Err(ReadError::Stopped(self.why_stopped(&fatal))),
            Ok(Err(RaftError::APIError(
                LinearizableReadError::ForwardToLeader(_) | LinearizableReadError::QuorumNotEnough(_),
            )))
            | Err(_) => Ok(None),
        }
    }

    /// For another manager: the leader's share of [`Raft::read`].
    pub(crate) async fn read_index_forwarded(&self) -> Reply {
        match self.read_index(self.deadline()).await {
            Ok(Some(index)) => Reply::ReadIndex(Some(index)),
            Ok(None) => Reply::NotLeader,
            Err(error) => Reply::Refused(error.to_string()),
        }
    }
}
