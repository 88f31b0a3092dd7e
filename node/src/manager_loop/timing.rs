//! The timers of the managers' log follow the cluster's spec.

use std::{sync::Arc, time::Duration};

use covey_raft::Timing;
use covey_state::Id;
use tokio::time::sleep;

use crate::member::{Log, Member};

/// How long each manager has for what they do one after the other.
const TURN: Duration = Duration::from_secs(1);

/// The log's timers are those of the cluster's spec as soon as that says so: one manager after the other, so that a
/// majority goes on, and the leader last, so that leadership moves once.
pub async fn follow(member: Arc<Member>, log: Log) {
    let mut changes = log.changes();
    let mut timing = member.notes().raft.map(Timing::from).unwrap_or_default();
    loop {
        if let Some(cluster) = log.store().cluster() {
            let spec = cluster.spec.raft;
            member.note_raft(spec);
            let wanted = Timing::from(spec);
            if wanted != timing {
                sleep(turn(&log, member.id())).await;
                match log.retime(wanted).await {
                    Ok(()) => tracing::info!(timing = ?wanted, "other timers of the managers' log"),
                    Err(error) => tracing::error!(%error, "the managers' log cannot take its new timers"),
                }
                timing = wanted;
            }
        }
        if changes.next().await.is_none() {
            return;
        }
    }
}

/// When it is this manager's turn to do what not all may do at once.
fn turn(log: &Log, me: Id) -> Duration {
    let leader = log.leadership().leader;
    let voters = log.members().voters;
    let place = voters.keys().filter(|id| Some(**id) != leader).position(|id| *id == me);
    TURN.saturating_mul(u32::try_from(place.unwrap_or(voters.len())).unwrap_or(u32::MAX))
}
