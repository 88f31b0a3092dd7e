//! A task: one unit of work, bound to one node for ever, never restarted, only replaced.

use std::{fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    Id, Version,
    network::{PublishedPort, TaskAttachment},
    service::TaskSpec,
    time::Stamp,
};

/// How far a task is. The order is the life of a task and only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskState {
    /// Created by the orchestrator.
    New,
    /// Allocated; no node yet.
    Pending,
    /// The scheduler gave it a node.
    Assigned,
    /// The node took it.
    Accepted,
    /// The node fetches what it needs.
    Preparing,
    /// Prepared, waiting to be started.
    Ready,
    /// Being started.
    Starting,
    /// Running.
    Running,
    /// Ended by itself with exit code 0.
    Complete,
    /// Ended because it was asked to.
    Shutdown,
    /// Ended with an error.
    Failed,
    /// The node could not take it.
    Rejected,
    /// Its node has been away too long.
    Orphaned,
}

impl TaskState {
    /// Nothing more will happen to a task in this state.
    pub fn is_terminal(self) -> bool {
        self >= Self::Complete
    }

    /// As the Engine API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Orphaned => "orphaned",
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the leader wants of a task. The order only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DesiredState {
    /// Prepared, but not started: it waits for its turn.
    Ready,
    /// Running.
    Running,
    /// Stopped, kept for the history.
    Shutdown,
    /// Stopped and forgotten: its slot or its service is gone.
    Remove,
}

impl DesiredState {
    /// As the Engine API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Shutdown => "shutdown",
            Self::Remove => "remove",
        }
    }
}

/// What the agent of a task's node saw of it: a gossip row of topic `tasks`.
///
/// Of two reports on one task the one with the larger `(attempt, state)` is true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// How often the task was started: a host that reboots cut off from every manager starts it again.
    pub attempt: u32,
    /// How far it is.
    pub state: TaskState,
    /// When it got there, by the clock of its node.
    pub at: Stamp,
    /// For the user, such as `started`.
    pub message: String,
    /// What went wrong, such as `task: non-zero exit (137)`; empty: nothing.
    pub error: String,
    /// Its container, once there is one.
    pub container: Option<ContainerStatus>,
}

impl TaskStatus {
    /// True if `self` is news to someone who knows `other`.
    pub fn supersedes(&self, other: &Self) -> bool {
        (self.attempt, self.state) > (other.attempt, other.state)
    }
}

/// The container of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// 64 hexadecimal characters.
    pub id: String,
    /// Process id on its host; 0: none.
    pub pid: u32,
    /// Exit code, once it ended.
    pub exit_code: Option<i32>,
    /// Addresses of its edge interface.
    pub addresses: Vec<IpAddr>,
    /// Ports of its host that are its own, as they were given (host mode).
    pub ports: Vec<PublishedPort>,
}

/// A task as the cluster remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: Id,
    /// Its last change in the log.
    pub version: Version,
    /// Its creation.
    pub created_at: Stamp,
    /// Its last change in the log.
    pub updated_at: Stamp,
    /// The service it belongs to.
    pub service: Id,
    /// Name of that service when the task was made (it never changes).
    pub service_name: Arc<str>,
    /// The place it fills, from 1.
    pub slot: u64,
    /// What it runs, shared by all tasks of one spec version.
    pub spec: Arc<TaskSpec>,
    /// The spec version of its service that `spec` is.
    pub spec_version: Version,
    /// The node it is bound to.
    pub node: Option<Id>,
    /// What is wanted of it.
    pub desired: DesiredState,
    /// How far the leader has decided it: `New`, `Pending`, `Assigned`, or how it ended. What happens in between
    /// is observed, not decided.
    pub status: TaskStatus,
    /// When it may start, where it replaces a task that ended (restart delay).
    pub not_before: Option<Stamp>,
    /// What it has of each network of its spec, from `Pending` on; had, once it ended.
    pub attachments: Vec<TaskAttachment>,
    /// It has an interface at the edge, as its service said when it was made.
    pub edge: bool,
    /// Ports of its host that are its own (host mode), as its service had them when it was made.
    pub ports: Vec<PublishedPort>,
}

impl Task {
    /// It runs, or will as soon as it can: there is one such task in a slot.
    pub fn is_wanted_running(&self) -> bool {
        self.desired == DesiredState::Running && !self.status.state.is_terminal()
    }

    /// The addresses that nobody else may have: none once it ended.
    pub fn held_addresses(&self) -> &[TaskAttachment] {
        if self.status.state.is_terminal() { &[] } else { &self.attachments }
    }

    /// `service.slot`, as `service ps` shows it.
    pub fn name(&self) -> String {
        format!("{}.{}", self.service_name, self.slot)
    }

    /// `service.slot.task`, the name of its container.
    pub fn container_name(&self) -> String {
        format!("{}.{}.{}", self.service_name, self.slot, self.id)
    }
}

/// What users see of a task: what its agent saw, unless the log already knows how it ended.
///
/// Of what is stored and what was observed the larger `(attempt, state)` is true; but an outcome in the log is
/// final, so that a node that comes back with an older story, or a later attempt, does not revive the task.
pub fn merge(stored: &Task, observed: Option<&TaskStatus>) -> TaskStatus {
    match observed {
        Some(seen) if !stored.status.state.is_terminal() && seen.supersedes(&stored.status) => seen.clone(),
        _ => stored.status.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(attempt: u32, state: TaskState) -> TaskStatus {
        TaskStatus {
            attempt,
            state,
            at: Stamp(0),
            message: String::new(),
            error: String::new(),
            container: None,
        }
    }

    fn task(stored: TaskStatus) -> Task {
        Task {
            id: Id::new(1),
            version: 1,
            created_at: Stamp(0),
            updated_at: Stamp(0),
            service: Id::new(2),
            service_name: "web".into(),
            slot: 3,
            spec: Arc::default(),
            spec_version: 1,
            node: Some(Id::new(4)),
            desired: DesiredState::Running,
            status: stored,
            not_before: None,
            attachments: Vec::new(),
            edge: true,
            ports: Vec::new(),
        }
    }

    /// TSK-03
    #[test]
    fn users_see_what_the_agent_saw_until_the_log_knows_the_end() {
        use TaskState::*;
        let seen = |stored, observed: Option<(u32, TaskState)>| {
            let observed = observed.map(|(attempt, state)| status(attempt, state));
            let merged = merge(&task(status(0, stored)), observed.as_ref());
            (merged.attempt, merged.state)
        };
        assert_eq!(seen(Assigned, None), (0, Assigned));
        assert_eq!(seen(Assigned, Some((1, Running))), (1, Running));
        assert_eq!(seen(Assigned, Some((0, New))), (0, Assigned));
        assert_eq!(seen(Orphaned, Some((0, Running))), (0, Orphaned));
        assert_eq!(seen(Orphaned, Some((2, Running))), (0, Orphaned));
    }

    /// TSK-03
    #[test]
    fn a_later_attempt_is_newer_than_the_end_of_an_earlier_one() {
        assert!(status(2, TaskState::Accepted).supersedes(&status(1, TaskState::Failed)));
        assert!(!status(1, TaskState::Running).supersedes(&status(1, TaskState::Running)));
    }
}
