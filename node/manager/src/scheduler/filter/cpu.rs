//! A node has as much CPU left as the task reserves: only reservations count, never limits (RES-05).

use covey_state::task::Task;

use crate::scheduler::load::Candidate;

pub(super) fn check(task: &Task, node: &Candidate) -> bool {
    task.spec.resources.reservations.nano_cpus <= node.free().nano_cpus
}

pub(super) fn explain(count: usize) -> String {
    format!("{count} {} CPU", super::lacks(count))
}
