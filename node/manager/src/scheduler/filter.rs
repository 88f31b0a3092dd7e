//! Hard filters: which nodes can run a task at all. A new one is a file and a line here.

mod address;
mod available;
mod constraint;
mod cpu;
mod memory;
mod platform;
mod port;

use covey_state::task::Task;

use super::load::Candidate;

/// One condition that a node must meet.
pub(super) struct Filter {
    /// True if the node can run the task.
    pub check: fn(&Task, &Candidate) -> bool,
    /// What this many nodes lack.
    pub explain: fn(usize) -> String,
}

/// In the order in which they are looked at.
pub(super) const FILTERS: [Filter; 7] = [
    Filter { check: available::check, explain: available::explain },
    Filter { check: platform::check, explain: platform::explain },
    Filter { check: constraint::check, explain: constraint::explain },
    Filter { check: cpu::check, explain: cpu::explain },
    Filter { check: memory::check, explain: memory::explain },
    Filter { check: port::check, explain: port::explain },
    Filter { check: address::check, explain: address::explain },
];

/// The first filter that rejects a node; `None`: it can run the task.
pub(super) fn rejection(task: &Task, node: &Candidate) -> Option<usize> {
    FILTERS.iter().position(|filter| !(filter.check)(task, node))
}

/// The verb for so many nodes.
fn lacks(count: usize) -> &'static str {
    if count == 1 { "lacks" } else { "lack" }
}
