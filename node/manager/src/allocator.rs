//! The allocator: gives a task what it needs of the cluster before it can have a node.

use std::collections::BTreeSet;

use covey_state::{
    Id,
    command::Command,
    task::{DesiredState, TaskState},
};

use crate::draft::Draft;

/// Allocates new tasks. Their addresses come from the edge block of the node that they will have, so that nothing
/// is taken from the cluster here.
pub(crate) fn plan(draft: &mut Draft<'_>, services: &BTreeSet<Id>) {
    let new: Vec<Id> = (services.iter())
        .flat_map(|service| draft.store.tasks_of_service(*service))
        .filter(|task| task.status.state == TaskState::New && task.desired <= DesiredState::Running)
        .map(|task| task.id)
        .collect();
    for id in new {
        if !draft.decide(Command::AllocateTask { id }) {
            return;
        }
    }
}
