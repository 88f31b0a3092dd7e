//! The explanation: why no node can run a task, in one line.

use covey_state::task::Task;

use super::{filter, load::Candidate};

/// `no suitable node (2 not available, 1 lacks memory)`: each node counts for the first filter that rejects it.
pub(super) fn explain(task: &Task, nodes: &[Candidate]) -> String {
    let mut counts = [0_usize; filter::FILTERS.len()];
    for index in nodes.iter().filter_map(|node| filter::rejection(task, node)) {
        counts[index] += 1;
    }
    let reasons: Vec<String> = (filter::FILTERS.iter().zip(counts))
        .filter(|(_, count)| *count > 0)
        .map(|(filter, count)| (filter.explain)(count))
        .collect();
    if reasons.is_empty() {
        "no suitable node".to_owned()
    } else {
        format!("no suitable node ({})", reasons.join(", "))
    }
}
