//! A node is alive, in touch with the leader, and takes tasks.

use covey_state::task::Task;

use crate::scheduler::load::Candidate;

pub(super) fn check(_task: &Task, node: &Candidate) -> bool {
    node.available
}

pub(super) fn explain(count: usize) -> String {
    format!("{count} not available")
}
