//! The manager loop: waits to lead, and leads.

mod leader;
mod membership;
mod timing;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use covey_manager::Dispatcher;
use covey_raft::Leadership;
use tokio_util::task::AbortOnDropHandle;

use self::leader::Leader;
use crate::member::{Log, Member};

/// Wait after the log refused for a reason that is not the plan's.
const RETRY: Duration = Duration::from_millis(200);
/// A voter that answered within this time is reachable.
pub const REACHABLE_WITHIN: Duration = Duration::from_secs(2);

/// Runs for as long as the log does.
pub async fn run(member: Arc<Member>, log: Log) {
    // Generations count on through all leaderships of a term: workers remember the last one.
    let mut dispatcher = Dispatcher::new(0);
    let _timing = AbortOnDropHandle::new(tokio::spawn(timing::follow(member.clone(), log.clone())));
    loop {
        let leadership = log.leadership();
        if leadership.am_leader {
            tracing::info!(term = leadership.term, "this node leads");
            if dispatcher.term() != leadership.term {
                dispatcher = Dispatcher::new(leadership.term);
            }
            dispatcher.disconnect_all();
            lead(&member, &log, leadership, &mut dispatcher).await;
            member.lead(BTreeMap::new());
        }
        let changed = log.leadership_after(leadership);
        tokio::pin!(changed);
        let changed = loop {
            tokio::select! {
                changed = &mut changed => break changed,
                // News are a leader's business: whoever becomes one looks at everything first.
                _ = member.sight.news() => {}
            }
        };
        if changed.is_none() {
            let reason = log.stopped().await;
            if member.log().is_some() {
                tracing::error!(reason, "the managers' log has stopped on this node; restart the daemon");
            }
            return;
        }
    }
}

async fn lead(member: &Arc<Member>, log: &Log, leadership: Leadership, dispatcher: &mut Dispatcher) {
    let lost = async {
        // Another term, or nobody: in both cases somebody else begins anew.
        let mut seen = leadership;
        while let Some(now) = log.leadership_after(seen).await {
            if !now.am_leader || now.term != leadership.term {
                break;
            }
            seen = now;
        }
    };
    tokio::select! {
        () = lost => tracing::info!(term = leadership.term, "this node leads no longer"),
        () = Leader::run(member.clone(), log.clone(), dispatcher) => {}
    }
}
