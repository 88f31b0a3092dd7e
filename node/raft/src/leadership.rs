//! Who leads, seen from one manager.

use std::time::Duration;

use covey_state::Id;
use openraft::{ChangeMembers, Instant, RaftMetrics, ServerState, async_runtime::watch::WatchReceiver};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    error::Failure,
    raft::Core,
    settings::Timing,
    types::{Member, Place, StoredMembership, Types, Vote},
};

/// A leader that no majority has answered for this many of the longest election timeouts does not count as one.
const SILENT_ELECTIONS: u32 = 5;
/// How often a new leader tries to finish a change of members.
const FINISH_ATTEMPTS: u32 = 50;
/// Time between two of these attempts.
const FINISH_RETRY: Duration = Duration::from_millis(100);

/// Why a log has stopped that nothing went wrong with.
pub(crate) const SHUT_DOWN: &str = "it was shut down";

/// Who leads, as far as this manager knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader; `None` where there is none, or where this manager leads without a majority that answers.
    pub leader: Option<Id>,
    /// The term.
    pub term: u64,
    /// This manager leads. Its store may still lack the last changes of the leader before it: `Raft::read` waits for
    /// them.
    pub am_leader: bool,
}

/// What is watched beside the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) leadership: Leadership,
    /// Why the log has stopped, once it has.
    pub(crate) stopped: Option<String>,
}

impl Health {
    pub(crate) fn stopped(reason: String) -> Self {
        Self { leadership: Leadership::default(), stopped: Some(reason) }
    }
}

type Metrics = RaftMetrics<Types>;

fn leadership(metrics: &Metrics, timing: Timing) -> Leadership {
    let leader = metrics.current_leader.map(|leader| leader.0);
    let term = metrics.current_term;
    if metrics.state != ServerState::Leader {
        return Leadership {
            leader: leader.filter(|leader| *leader != metrics.id.0),
            term,
            am_leader: false,
        };
    }
    let silence = timing.election_max * SILENT_ELECTIONS;
    let alone = metrics.membership_config.voter_ids().eq([metrics.id]);
    let heard = metrics.last_quorum_acked.is_some_and(|at| at.elapsed() < silence);
    let am_leader = alone || heard;
    Leadership { leader: leader.filter(|_| am_leader), term, am_leader }
}

/// Whether this manager may stand for election. One that was removed and is added again gets the log from its
/// beginning, and may pass a time when it was the only manager: by that history alone it would elect itself, against
/// those who lead now. A membership of one that counts is of the term that it follows, or this manager led since.
pub(crate) fn may_stand(me: Member, membership: &StoredMembership, vote: &Vote) -> bool {
    let voters: Vec<Member> = membership.voter_ids().collect();
    let follows_another = vote.committed && vote.leader_id.node_id != me;
    let past =
        membership.log_id().is_some_and(|entry| entry.committed_leader_id().term < vote.leader_id.term);
    voters.contains(&me) && !(voters.len() == 1 && follows_another && past)
}

fn health(metrics: &Metrics, timing: Timing, failure: &Failure) -> Health {
    match &metrics.running_state {
        Ok(()) => Health { leadership: leadership(metrics, timing), stopped: None },
        Err(fatal) => Health::stopped(failure.reason().unwrap_or_else(|| fatal.to_string())),
    }
}

/// Keeps `watched` true until the log stops.
pub(crate) async fn observe(core: Core, timing: Timing, failure: Failure, watched: watch::Sender<Health>) {
    let mut metrics = core.metrics();
    // A leader that hears nothing any more sees no metrics change either.
    let mut ticks = interval(timing.election_max);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (now, joint) = {
            let metrics = metrics.borrow_watched();
            core.runtime_config().elect(may_stand(metrics.id, &metrics.membership_config, &metrics.vote));
            (health(&metrics, timing, &failure), is_joint(&metrics))
        };
        let before = watched.borrow().clone();
        if now != before {
            watched.send_replace(now.clone());
        }
        if now.stopped.is_some() {
            return;
        }
        if joint && now.leadership.am_leader && !before.leadership.am_leader {
            tokio::spawn(finish_change(core.clone()));
        }
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() {
                watched.send_replace(Health::stopped(SHUT_DOWN.to_owned()));
                return;
            },
            _ = ticks.tick() => {}
        }
    }
}

/// A change of members is between its two steps.
fn is_joint(metrics: &Metrics) -> bool {
    metrics.membership_config.get_joint_config().len() > 1
}

/// The leader before died between the two steps of a change of members: until the second one, both the old and the
/// new majority have to agree to everything.
async fn finish_change(core: Core) {
    for _ in 0..FINISH_ATTEMPTS {
        // Nothing is changed before this leader's first entry is committed.
        sleep(FINISH_RETRY).await;
        let no_change = ChangeMembers::<Member, Place>::AddVoterIds([].into());
        match core.change_membership(no_change, false).await {
            Ok(_) => return,
            Err(error) => tracing::debug!(%error, "the last leader's change of managers is not finished yet"),
        }
    }
    tracing::warn!("the change of managers that the last leader began is not finished");
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        net::{Ipv4Addr, SocketAddr},
    };

    use openraft::{Membership, vote::RaftLeaderId as _};

    use super::*;
    use crate::types::LogId;

    fn membership(term: u64, voters: &[u128]) -> StoredMembership {
        let voters: BTreeSet<Member> = voters.iter().map(|voter| Member(Id::new(*voter))).collect();
        let place = Place { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)) };
        let places: BTreeMap<Member, Place> = voters.iter().map(|voter| (*voter, place)).collect();
        let leader = openraft::impls::leader_id_adv::LeaderId::new(term, Member(Id::new(1)));
        let membership = Membership::new(vec![voters], places).expect("every voter has a place");
        StoredMembership::new(Some(LogId::new(leader.to_committed(), 7)), membership)
    }

    /// QRM-03: who is added again does not lead by what it reads of the time when it was alone.
    #[test]
    fn the_only_manager_of_the_past_does_not_stand_for_election() {
        let me = Member(Id::new(1));
        let of = |term, leader, committed| {
            let vote = Vote::new(term, Member(Id::new(leader)));
            Vote { committed, ..vote }
        };
        let alone = membership(1, &[1]);
        assert!(!may_stand(me, &alone, &of(2, 2, true)), "another leads since");
        assert!(may_stand(me, &alone, &of(1, 1, true)), "it founded the cluster");
        assert!(may_stand(me, &alone, &of(5, 1, false)), "it stood before");
        assert!(may_stand(me, &alone, &of(2, 2, false)), "nobody was elected since");
        assert!(may_stand(me, &membership(2, &[1]), &of(2, 2, true)), "the other left it the cluster");
        assert!(may_stand(me, &membership(1, &[1, 2]), &of(2, 2, true)), "a majority decides");
        assert!(!may_stand(me, &membership(1, &[2]), &of(2, 2, true)), "it has no vote");
    }
}
