//! A node has as much memory left as the task reserves: only reservations count, never limits (RES-05).

use covey_state::task::Task;

use crate::scheduler::load::Candidate;

pub(super) fn check(task: &Task, node: &Candidate) -> bool {
    task.spec.resources.reservations.memory <= node.free().memory
}

pub(super) fn explain(count: usize) -> String {
    format!("{count} {} memory", super::lacks(count))
}
