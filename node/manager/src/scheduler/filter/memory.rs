//! A node has as much memory left as the task reserves: only reservations count, never limits (RES-05).

use covey_state::service::TaskSpec;

use crate::scheduler::load::Candidate;

pub(super) fn check(task: &TaskSpec, node: &Candidate) -> bool {
    task.resources.reservations.memory <= node.free().memory
}

pub(super) fn explain(count: usize) -> String {
    format!("{count} {} memory", super::lacks(count))
}
