//! Who leads, seen from one manager.

use std::time::Duration;

use covey_state::Id;
use openraft::{Instant, RaftMetrics, ServerState, async_runtime::watch::WatchReceiver};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    error::Failure,
    raft::Core,
    settings::Timing,
    types::{Member, Types},
};

/// A leader that no majority has answered for this many of the longest election timeouts does not count as one.
const SILENT_ELECTIONS: u32 = 5;

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

pub(crate) type Metrics = RaftMetrics<Types>;

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

/// Keeps `health` true until the log stops.
pub(crate) async fn observe(core: Core, timing: Timing, failure: Failure, health: watch::Sender<Health>) {
    let mut metrics = core.metrics();
    // A leader that hears nothing any more sees no metrics change either.
    let mut ticks = interval(timing.election_max.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (now, joint) = {
            let metrics = metrics.borrow_watched();
            let stopped = metrics.running_state.as_ref().err();
            let stopped = stopped.map(|fatal| failure.reason().unwrap_or_else(|| fatal.to_string()));
            let leadership = match stopped {
                Some(_) => Leadership::default(),
                None => leadership(&metrics, timing),
            };
            (Health { leadership, stopped }, is_joint(&metrics))
        };
        let over = now.stopped.is_some();
        let mut elected = false;
        health.send_if_modified(|last| {
            elected = now.leadership.am_leader && !last.leadership.am_leader;
            std::mem::replace(last, now.clone()) != now
        });
        if over {
            return;
        }
        if elected && joint {
            finish_change(core.clone());
        }
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() {
                health.send_modify(|last| *last = Health { leadership: Leadership::default(), stopped: Some("it was shut down".to_owned()) });
                return;
            },
            _ = ticks.tick() => {}
        }
    }
}

pub(crate) fn is_joint(metrics: &Metrics) -> bool {
    metrics.membership_config.get_joint_config().len() > 1
}

/// The leader before died between the two steps of a change of members: until the second one, both the old and the
/// new majority have to agree to everything.
fn finish_change(core: Core) {
    tokio::spawn(async move {
        let no_change = openraft::ChangeMembers::<Member, _>::AddVoterIds([].into());
        if let Err(error) = core.change_membership(no_change, false).await {
            tracing::warn!(%error, "the change of managers that the last leader began is not finished");
        }
    });
}
