//! A node's ports are free that the task has for itself (host mode): one that is stopping still has them.

use covey_state::task::Task;

use crate::scheduler::load::Candidate;

pub(super) fn check(task: &Task, node: &Candidate) -> bool {
    !task.ports.iter().any(|port| node.ports.iter().any(|taken| port.meets(taken)))
}

pub(super) fn explain(count: usize) -> String {
    let nodes = if count == 1 { "node" } else { "nodes" };
    format!("host-mode port already in use on {count} {nodes}")
}
