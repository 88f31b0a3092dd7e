//! The feed of changes: what was applied, in order, or word that too much was missed.

use std::sync::Arc;

use covey_state::event::Event;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// Changes that a slow reader may be behind before it is told to read everything again.
pub(crate) const CHANGES_MAX: usize = 1024;

/// A proposal that went through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Its index in the log: the version of all that it touched.
    pub index: u64,
    /// What it changed; empty where it changed nothing.
    pub events: Arc<[Event]>,
}

/// Something happened to the store of this manager. The store shows it already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A proposal was applied that changed something.
    Applied(Applied),
    /// More changed than can be told one by one: read the store again.
    Everything,
}

/// Reads the changes of this manager's store, from when it was made.
#[derive(Debug)]
pub struct Changes(pub(crate) broadcast::Receiver<Change>);

impl Changes {
    /// Waits for the next change; `None` once the log has stopped.
    pub async fn next(&mut self) -> Option<Change> {
        match self.0.recv().await {
            Ok(change) => Some(change),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                // What is still queued is older than the store that will be read now.
                self.0 = self.0.resubscribe();
                Some(Change::Everything)
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
