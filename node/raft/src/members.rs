//! The managers that have the log: who votes, who only follows, where each is reached.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use covey_state::Id;
use openraft::{
    ChangeMembers, Instant as _,
    async_runtime::watch::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    VOTERS_MAX,
    error::MembershipError,
    leadership::SHUT_DOWN,
    network::Transport,
    raft::Raft,
    types::{LogId, Member, Place},
};

/// How long a leader waits for its successor.
const TRANSFER_MAX: Duration = Duration::from_secs(2);
/// Time between two attempts while another change is in progress.
const RETRY: Duration = Duration::from_millis(20);
/// Entries that a learner may lack when it becomes a voter.
const LAG_MAX: u64 = 256;

/// Everybody who has the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Those who decide.
    pub voters: BTreeMap<Id, SocketAddr>,
    /// Those who only follow.
    pub learners: BTreeMap<Id, SocketAddr>,
}

impl Members {
    /// It has the log, with a vote or without.
    pub fn contains(&self, id: Id) -> bool {
        self.voters.contains_key(&id) || self.learners.contains_key(&id)
    }
}

impl<T: Transport> Raft<T> {
    /// The managers that have the log, as far as this one knows.
    pub fn members(&self) -> Members {
        let metrics = self.core().metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<Member> = membership.voter_ids().collect();
        let mut members = Members::default();
        for (id, place) in membership.nodes() {
            let kind = if voters.contains(id) { &mut members.voters } else { &mut members.learners };
            kind.insert(id.0, place.address);
        }
        members
    }

    pub(crate) fn address_of(&self, id: Id) -> Option<SocketAddr> {
        let metrics = self.core().metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.get_node(&Member(id)).map(|place| place.address)
    }

    /// On the leader: how long ago each of the others last answered; the longest there is where it never did. Empty
    /// on the others.
    pub fn contacts(&self) -> BTreeMap<Id, Duration> {
        let metrics = self.core().metrics();
        let metrics = metrics.borrow_watched();
        let contacts = metrics.heartbeat.iter().flatten().filter(|(id, _)| **id != metrics.id);
        contacts.map(|(id, at)| (id.0, at.as_ref().map_or(Duration::MAX, |at| at.elapsed()))).collect()
    }

    /// On the leader: lets a manager follow the log, and gives it everything that it lacks. Not an error where it
    /// follows already.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn add_learner(&self, id: Id, address: SocketAddr) -> Result<(), MembershipError> {
        self.change(ChangeMembers::AddNodes([(Member(id), Place { address })].into())).await
    }

    /// On the leader: a follower becomes a voter, as soon as it has caught up. Not an error where it is one already.
    ///
    /// # Errors
    /// [`MembershipError::Behind`] where it does not catch up in time; ask again. Else see [`MembershipError`].
    pub async fn promote(&self, id: Id) -> Result<(), MembershipError> {
        let members = self.members();
        if members.voters.contains_key(&id) {
            return Ok(());
        }
        if !members.learners.contains_key(&id) {
            return Err(MembershipError::Unknown(id));
        }
        if members.voters.len() >= VOTERS_MAX {
            return Err(MembershipError::TooMany);
        }
        self.wait_caught_up(Member(id)).await?;
        self.change(ChangeMembers::AddVoterIds([Member(id)].into())).await
    }

    /// On the leader: a manager no longer has a say, nor the log. A leader may remove itself: it leads until that is
    /// decided, and then the others elect. Not an error where it is no member.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn remove(&self, id: Id) -> Result<(), MembershipError> {
        let members = self.members();
        let gone = BTreeSet::from([Member(id)]);
        if members.learners.contains_key(&id) {
            self.change(ChangeMembers::RemoveNodes(gone)).await
        } else if !members.voters.contains_key(&id) {
            Ok(())
        } else if members.voters.len() == 1 {
            Err(MembershipError::Last)
        } else {
            self.change(ChangeMembers::RemoveVoters(gone)).await
        }
    }

    /// On the leader: a manager is reached at another address from now on.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn update_address(&self, id: Id, address: SocketAddr) -> Result<(), MembershipError> {
        match self.address_of(id) {
            None => Err(MembershipError::Unknown(id)),
            Some(known) if known == address => Ok(()),
            // The same manager answers there, whom the transport makes prove it: no second one can vote in its name.
            Some(_) => self.change(ChangeMembers::SetNodes([(Member(id), Place { address })].into())).await,
        }
    }

    /// On the leader: has another voter lead, and waits until it does.
    ///
    /// # Errors
    /// [`MembershipError::Behind`] where it does not within 2 s: whoever leads then, leads.
    pub async fn transfer_leadership(&self, to: Id) -> Result<(), MembershipError> {
        let before = self.leadership();
        if !before.am_leader {
            return Err(MembershipError::NotLeader);
        }
        if !self.members().voters.contains_key(&to) {
            return Err(MembershipError::Unknown(to));
        }
        if to == self.0.settings.node {
            return Ok(());
        }
        let triggered = self.core().trigger().transfer_leader(Member(to)).await;
        triggered.map_err(|fatal| MembershipError::Stopped(self.why_stopped(&fatal)))?;
        let mut health = self.0.health.subscribe();
        let led = health.wait_for(|health| health.leadership.leader == Some(to));
        match timeout(TRANSFER_MAX, led).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(MembershipError::Behind(to)),
        }
    }

    /// Before this manager goes: the voter that has the most of the log leads, if it can.
    pub(crate) async fn hand_over(&self) {
        if !self.leadership().am_leader {
            return;
        }
        let me = Member(self.0.settings.node);
        let contacts = self.contacts();
        let successor = {
            let metrics = self.core().metrics();
            let metrics = metrics.borrow_watched();
            let voters: BTreeSet<Member> = metrics.membership_config.voter_ids().collect();
            let others = metrics.replication.iter().flatten();
            let reachable = |id: &Member| contacts.get(&id.0).is_some_and(|ago| *ago < TRANSFER_MAX);
            let others = others.filter(|(id, _)| **id != me && voters.contains(id) && reachable(id));
            others.max_by_key(|(_, matched)| **matched).map(|(id, _)| id.0)
        };
        if let Some(successor) = successor
            && let Err(error) = self.transfer_leadership(successor).await
        {
            tracing::debug!(%error, %successor, "leadership was not handed over");
        }
    }

    async fn wait_caught_up(&self, id: Member) -> Result<(), MembershipError> {
        let until = self.deadline();
        let mut metrics = self.core().metrics();
        loop {
            {
                let metrics = metrics.borrow_watched();
                let Some(replication) = &metrics.replication else {
                    return Err(MembershipError::NotLeader);
                };
                let matched = replication.get(&id).copied().flatten().map(|matched| matched.index);
                if matched.is_some_and(|matched| matched + LAG_MAX >= metrics.last_log_index.unwrap_or(0)) {
                    return Ok(());
                }
            }
            match timeout_at(until, metrics.changed()).await {
                Err(_) => return Err(MembershipError::Behind(id.0)),
                Ok(Err(_)) => return Err(MembershipError::Stopped(SHUT_DOWN.to_owned())),
                Ok(Ok(())) => {}
            }
        }
    }

    /// Makes a change, once those before it are over: the last one, or a new leader's first entry.
    async fn change(&self, change: ChangeMembers<Member, Place>) -> Result<(), MembershipError> {
        let until = self.deadline();
        loop {
            match self.try_change(change.clone(), until).await {
                Err(MembershipError::InProgress) if Instant::now() + RETRY < until => sleep(RETRY).await,
                result => return result,
            }
        }
    }

    /// Waits until [`Raft::members`] shows a change, which is told a moment after it is made.
    async fn wait_seen(&self, change: LogId, until: Instant) {
        let mut metrics = self.core().metrics();
        while *metrics.borrow_watched().membership_config.log_id() < Some(change) {
            if !matches!(timeout_at(until, metrics.changed()).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    async fn try_change(
        &self,
        change: ChangeMembers<Member, Place>,
        until: Instant,
    ) -> Result<(), MembershipError> {
        if !self.leadership().am_leader {
            return Err(MembershipError::NotLeader);
        }
        match timeout_at(until, self.core().change_membership(change, false)).await {
            Err(_) => Err(MembershipError::NoLeader),
            Ok(Ok(response)) => {
                self.wait_seen(response.log_id, until).await;
                Ok(())
            }
            Ok(Err(RaftError::Fatal(fatal))) => Err(MembershipError::Stopped(self.why_stopped(&fatal))),
            Ok(Err(RaftError::APIError(error))) => Err(match error {
                ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_) => {
                    MembershipError::NotLeader
                }
                ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                ) => MembershipError::InProgress,
                other => MembershipError::Refused(other.to_string()),
            }),
        }
    }
}
