//! Proposing: the leader writes, every other manager asks it to.

use std::time::Duration;

use bytes::Bytes;
use covey_state::command::Proposal;
use openraft::errors::{ClientWriteError, RaftError};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    PROPOSAL_BYTES_MAX,
    error::{Leaderless, ProposeError, TransportError},
    feed::Applied,
    leadership::{Leadership, SHUT_DOWN},
    message::{Reply, Request, decode_reply},
    network::Transport,
    raft::Raft,
    types::Write,
};

/// How long to wait before a leader that could not be asked is asked again.
const RETRY: Duration = Duration::from_millis(25);

/// What became of one attempt.
enum Attempt {
    Done(Result<Applied, ProposeError>),
    /// It certainly was not written: another attempt does no harm.
    NotWritten,
}

impl<T: Transport> Raft<T> {
    /// Proposes a change, on whichever manager, and waits until it is applied, here too.
    ///
    /// It is written at most once: it is tried again, for at most [`Settings::patience`](crate::Settings::patience) in all, only while it certainly did not get
    /// into a log. Where that cannot be known the answer is [`ProposeError::Unknown`], and the change may be applied
    /// even later; a caller that then proposes the same again has the ids inside its commands to thank for being
    /// refused a second object.
    ///
    /// # Errors
    /// See [`ProposeError`]; each text is for the user.
    pub async fn propose(&self, proposal: &Proposal) -> Result<Applied, ProposeError> {
        let bytes = covey_wire::encode(proposal).map_err(|error| ProposeError::Stopped(error.to_string()))?;
        if bytes.len() > PROPOSAL_BYTES_MAX {
            return Err(ProposeError::TooLarge { size: bytes.len() });
        }
        let bytes = Bytes::from(bytes);
        let until = self.deadline();
        loop {
            let leader = self.leader(until).await?;
            let attempt = if leader.am_leader {
                self.write(bytes.clone(), until).await
            } else {
                self.forward(leader, &bytes, until).await
            };
            match attempt {
                Attempt::Done(Ok(applied)) => {
                    // So that whoever proposed reads its own change, from this manager's store.
                    self.wait_applied(applied.index, until).await;
                    return Ok(applied);
                }
                Attempt::Done(Err(error)) => return Err(error),
                Attempt::NotWritten => self.wait_for_change(leader, until).await,
            }
        }
    }

    /// When what begins now must be answered.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.0.settings.patience
    }

    /// Waits for a leader.
    pub(crate) async fn leader(&self, until: Instant) -> Result<Leadership, Leaderless> {
        let mut health = self.0.health.subscribe();
        let known = health.wait_for(|health| health.stopped.is_some() || health.leadership.leader.is_some());
        if Instant::now() >= until {
            return Err(Leaderless::TooLong);
        }
        match timeout_at(until, known).await {
            Err(_) => Err(Leaderless::TooLong),
            Ok(Err(_)) => Err(Leaderless::Stopped(SHUT_DOWN.to_owned())),
            Ok(Ok(health)) => match &health.stopped {
                Some(reason) => Err(Leaderless::Stopped(reason.clone())),
                None => Ok(health.leadership),
            },
        }
    }

    /// Waits until somebody else leads, but not long: the same leader may be reached the next time.
    pub(crate) async fn wait_for_change(&self, seen: Leadership, until: Instant) {
        let soon = until.min(Instant::now() + RETRY);
        if let Ok(None) = timeout_at(soon, self.leadership_after(seen)).await {
            // The log has stopped, which the next look at it says.
            sleep_until(soon).await;
        }
    }

    /// Waits until this manager has applied `index`, while there is time.
    pub(crate) async fn wait_applied(&self, index: u64, until: Instant) -> bool {
        let mut published = self.0.published.subscribe();
        let applied = published.wait_for(|published| published.index() >= Some(index));
        matches!(timeout_at(until, applied).await, Ok(Ok(_)))
    }

    /// For another manager: the leader's share of [`Raft::propose`].
    pub(crate) async fn propose_forwarded(&self, bytes: Bytes) -> Reply {
        if let Err(error) = crate::machine::decode_proposal(&bytes) {
            // What this leader cannot read, it could not apply either.
            return Reply::Refused(error.to_string());
        }
        if !self.leadership().am_leader {
            return Reply::NotLeader;
        }
        match self.write(bytes, self.deadline()).await {
            Attempt::Done(result) => Reply::Propose(result),
            Attempt::NotWritten => Reply::NotLeader,
        }
    }

    /// Writes it to the log of this leader.
    async fn write(&self, proposal: Bytes, until: Instant) -> Attempt {
        let write = Write { at: self.stamp(), proposal };
        match timeout_at(until, self.core().client_write(write)).await {
            Err(_) => Attempt::Done(Err(ProposeError::Unknown)),
            Ok(Ok(response)) => Attempt::Done(match response.data {
                Ok(events) => Ok(Applied { index: response.log_id.index, events }),
                Err(refusal) => Err(ProposeError::Refused(refusal)),
            }),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Attempt::NotWritten,
            Ok(Err(RaftError::APIError(_))) => Attempt::Done(Err(ProposeError::Unknown)),
            Ok(Err(RaftError::Fatal(fatal))) => {
                Attempt::Done(Err(ProposeError::Stopped(self.why_stopped(&fatal))))
            }
        }
    }

    /// Has the leader write it.
    async fn forward(&self, leader: Leadership, proposal: &Bytes, until: Instant) -> Attempt {
        match self.ask_leader(leader, &Request::Propose(proposal.clone()), until).await {
            Ok(Reply::Propose(result)) => Attempt::Done(result),
            Ok(Reply::NotLeader) | Err(TransportError::Unreachable(_)) => Attempt::NotWritten,
            Ok(_) | Err(TransportError::Unanswered(_)) => Attempt::Done(Err(ProposeError::Unknown)),
        }
    }

    /// Asks the leader, until another one leads: of a host that died the transport hears nothing for much longer.
    pub(crate) async fn ask_leader(
        &self,
        leader: Leadership,
        request: &Request,
        until: Instant,
    ) -> Result<Reply, TransportError> {
        let unreachable = |reason: &str| TransportError::Unreachable(reason.to_owned());
        let id = leader.leader.ok_or_else(|| unreachable("nobody leads"))?;
        let address = self.address_of(id).ok_or_else(|| unreachable("the leader's address is unknown"))?;
        let request =
            covey_wire::encode(request).map_err(|error| TransportError::Unreachable(error.to_string()))?;
        let unanswered = |reason: &str| TransportError::Unanswered(reason.to_owned());
        let reply = tokio::select! {
            called = timeout_at(until, self.0.transport.call(id, address, request)) => {
                called.map_err(|_| unanswered("it took too long"))??
            }
            () = self.succeeded(leader) => return Err(unanswered("another manager leads now")),
        };
        decode_reply(&reply).map_err(|error| unanswered(&error.to_string()))
    }

    /// Waits until another manager leads.
    async fn succeeded(&self, leader: Leadership) {
        let mut health = self.0.health.subscribe();
        let another = |now: Leadership| {
            now.term > leader.term && now.leader.is_some_and(|id| Some(id) != leader.leader)
        };
        if health.wait_for(|health| another(health.leadership)).await.is_err() {
            // The log has stopped, which the call's end will say.
            std::future::pending().await
        }
    }
}
