//! Events: what a command changed, for the planner and for those who watch.

use serde::{Deserialize, Serialize};

use crate::Id;

/// What was touched, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Change {
    /// It is new.
    Created,
    /// It is not what it was.
    Updated,
    /// It is gone.
    Removed,
}

/// One change of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Event {
    /// The cluster's settings or secrets.
    Cluster(Change),
    /// A node.
    Node(Id, Change),
    /// A service.
    Service(Id, Change),
    /// A network.
    Network(Id, Change),
    /// A plain container's place in a network.
    Attachment(Id, Change),
    /// A task, with its service and its node.
    Task {
        /// Which.
        id: Id,
        /// Its service.
        service: Id,
        /// Its node, once it has one.
        node: Option<Id>,
        /// What happened.
        change: Change,
    },
}
