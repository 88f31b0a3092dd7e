//! A node meets all constraints of the placement (SCH-07).

use covey_state::{
    node::Node,
    service::{Constraint, ConstraintKey},
    task::Task,
};

use crate::scheduler::load::Candidate;

pub(super) fn check(task: &Task, node: &Candidate) -> bool {
    task.spec.placement.constraints.iter().all(|constraint| holds(constraint, &node.node))
}

/// A label that the node does not have is like an empty one: equal to nothing.
fn holds(constraint: &Constraint, node: &Node) -> bool {
    let value = constraint.value.as_str();
    let equal = match &constraint.key {
        ConstraintKey::Id => node.id.to_string() == value,
        ConstraintKey::Hostname => node.description.hostname.eq_ignore_ascii_case(value),
        ConstraintKey::Role => node.role.as_str().eq_ignore_ascii_case(value),
        ConstraintKey::Label(label) => {
            node.spec.labels.get(label).is_some_and(|has| has.eq_ignore_ascii_case(value))
        }
    };
    equal == constraint.equal
}

pub(super) fn explain(count: usize) -> String {
    format!("{count} not matching the constraints")
}
