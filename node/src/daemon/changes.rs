//! What changes in the store, for those who watch this node.

use covey_api::control::StoreChange;
use covey_raft::Change;
use tokio::sync::{broadcast, watch};

use crate::member::Log;

/// Tells what changes in whichever log there is.
pub async fn tell(mut log: watch::Receiver<Option<Log>>, changes: broadcast::Sender<StoreChange>) {
    loop {
        let current = log.borrow_and_update().clone();
        let told = async {
            let Some(log) = current else { return std::future::pending().await };
            let mut feed = log.changes();
            let mut before = log.store();
            while let Some(change) = feed.next().await {
                let after = log.store();
                if let Change::Applied(applied) = change {
                    let events = applied.events.to_vec();
                    let change = StoreChange { at: after.last_at(), events, before, after: after.clone() };
                    // Nobody may be watching.
                    let _ = changes.send(change);
                }
                before = after;
            }
            std::future::pending().await
        };
        tokio::select! {
            () = told => {}
            changed = log.changed() => if changed.is_err() { return },
        }
    }
}
