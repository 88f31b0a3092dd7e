//! A node has as much CPU left as the task reserves: only reservations count, never limits (RES-05).

use covey_state::service::TaskSpec;

use crate::scheduler::load::Candidate;

pub(super) fn check(task: &TaskSpec, node: &Candidate) -> bool {
    task.resources.reservations.nano_cpus <= node.free().nano_cpus
}

pub(super) fn explain(count: usize) -> String {
    format!("{count} {} CPU", super::lacks(count))
}
