//! What the leader hears of nodes and tasks: gossip and its own sessions, never the log.

use std::collections::BTreeMap;

use covey_state::{
    Id,
    task::{TaskState, TaskStatus},
    time::Stamp,
};

/// What SWIM says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It answers (a suspect still counts as alive).
    Alive,
    /// It was declared dead.
    Down {
        /// When the leader heard so, by the leader's clock.
        since: Stamp,
    },
    /// It said goodbye to the gossip.
    Left,
}

/// The leader's own connection to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// It stands.
    Connected,
    /// It broke.
    Gone {
        /// When, by the leader's clock.
        since: Stamp,
    },
}

/// What is heard of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeView {
    /// `None`: this leader's SWIM has not met it yet.
    pub liveness: Option<Liveness>,
    /// `None`: it has not called this leader yet.
    pub session: Option<Session>,
}

/// What is heard of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskView {
    /// The largest status heard.
    pub status: TaskStatus,
    /// When this attempt began to run, by the clock of its node; kept after its end.
    pub running_since: Option<Stamp>,
}

/// What the leader hears. The node fills it for as long as it leads, and starts with an empty one each time.
#[derive(Clone, Debug)]
pub struct Observed {
    leader_since: Stamp,
    nodes: BTreeMap<Id, NodeView>,
    tasks: BTreeMap<Id, TaskView>,
}

impl Observed {
    /// Nothing is heard yet; leadership began at `leader_since`.
    pub fn new(leader_since: Stamp) -> Self {
        Self { leader_since, nodes: BTreeMap::new(), tasks: BTreeMap::new() }
    }

    /// SWIM changed its mind on a node. True if that is news: plan with [`crate::Scope::add_node`].
    pub fn handle_liveness(&mut self, node: Id, liveness: Liveness) -> bool {
        let view = self.nodes.entry(node).or_default();
        let seen = match (view.liveness, liveness) {
            (Some(down @ Liveness::Down { .. }), Liveness::Down { .. }) => down,
            _ => liveness,
        };
        view.liveness.replace(seen) != Some(seen)
    }

    /// A node called, or its session broke. True if that is news: plan with [`crate::Scope::add_node`].
    ///
    /// A session that never came about was missing from the beginning: a first call that fails starts no new grace.
    pub fn handle_session(&mut self, node: Id, session: Session) -> bool {
        let view = self.nodes.entry(node).or_default();
        let seen = match (view.session, session) {
            (Some(gone @ Session::Gone { .. }), Session::Gone { .. }) => gone,
            (None, Session::Gone { .. }) => Session::Gone { since: self.leader_since },
            _ => session,
        };
        view.session.replace(seen) != Some(seen)
    }

    /// A row of topic `tasks`. True if it is news: plan with [`crate::Scope::add_task`].
    pub fn handle_task(&mut self, task: Id, status: TaskStatus) -> bool {
        match self.tasks.get_mut(&task) {
            Some(known) if !status.supersedes(&known.status) => false,
            Some(known) => {
                if status.attempt != known.status.attempt {
                    known.running_since = None;
                }
                known.running_since = known.running_since.or(running_since(&status));
                known.status = status;
                true
            }
            None => {
                self.tasks.insert(task, TaskView { running_since: running_since(&status), status });
                true
            }
        }
    }

    /// The row was withdrawn: its task is forgotten.
    pub fn forget_task(&mut self, task: Id) {
        self.tasks.remove(&task);
    }

    /// The node was removed from the cluster.
    pub fn forget_node(&mut self, node: Id) {
        self.nodes.remove(&node);
    }

    /// The largest status heard of a task.
    pub fn task(&self, task: Id) -> Option<&TaskStatus> {
        self.tasks.get(&task).map(|view| &view.status)
    }

    pub(crate) fn leader_since(&self) -> Stamp {
        self.leader_since
    }

    pub(crate) fn node_view(&self, node: Id) -> NodeView {
        self.nodes.get(&node).copied().unwrap_or_default()
    }

    pub(crate) fn running_since(&self, task: Id) -> Option<Stamp> {
        self.tasks.get(&task)?.running_since
    }
}

fn running_since(status: &TaskStatus) -> Option<Stamp> {
    (status.state == TaskState::Running).then_some(status.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: Id = Id::new(1);

    fn status(attempt: u32, state: TaskState, at: i64) -> TaskStatus {
        TaskStatus {
            attempt,
            state,
            at: Stamp(at),
            message: String::new(),
            error: String::new(),
            container: None,
        }
    }

    /// Observed state only grows: by attempt, then by state.
    #[test]
    fn an_older_report_is_no_news() {
        let mut observed = Observed::new(Stamp(0));
        assert!(observed.handle_task(TASK, status(1, TaskState::Running, 5)));
        assert!(!observed.handle_task(TASK, status(1, TaskState::Running, 6)));
        assert!(!observed.handle_task(TASK, status(1, TaskState::Starting, 7)));
        assert!(observed.handle_task(TASK, status(2, TaskState::Preparing, 8)));
        assert_eq!(observed.task(TASK).unwrap().state, TaskState::Preparing);
        observed.forget_task(TASK);
        assert_eq!(observed.task(TASK), None);
    }

    #[test]
    fn how_long_a_task_ran_is_known_after_its_end_and_for_each_attempt() {
        let mut observed = Observed::new(Stamp(0));
        observed.handle_task(TASK, status(1, TaskState::Running, 5));
        observed.handle_task(TASK, status(1, TaskState::Failed, 9));
        assert_eq!(observed.running_since(TASK), Some(Stamp(5)));
        observed.handle_task(TASK, status(2, TaskState::Starting, 20));
        assert_eq!(observed.running_since(TASK), None);
        observed.handle_task(TASK, status(2, TaskState::Running, 21));
        assert_eq!(observed.running_since(TASK), Some(Stamp(21)));
    }

    /// The first word of a loss counts: repeating it starts no new grace.
    #[test]
    fn a_loss_is_news_once() {
        let node = Id::new(2);
        let mut observed = Observed::new(Stamp(0));
        assert!(observed.handle_session(node, Session::Connected));
        assert!(observed.handle_liveness(node, Liveness::Down { since: Stamp(3) }));
        assert!(!observed.handle_liveness(node, Liveness::Down { since: Stamp(4) }));
        assert!(observed.handle_session(node, Session::Gone { since: Stamp(3) }));
        assert!(!observed.handle_session(node, Session::Gone { since: Stamp(4) }));
        let known = observed.node_view(node);
        assert_eq!(known.liveness, Some(Liveness::Down { since: Stamp(3) }));
        assert_eq!(known.session, Some(Session::Gone { since: Stamp(3) }));
        assert!(observed.handle_liveness(node, Liveness::Alive));
        observed.forget_node(node);
        assert_eq!(observed.node_view(node), NodeView::default());
    }
}
