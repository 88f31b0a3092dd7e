//! The allocator: gives a task what it needs of the cluster before it can have a node, or says what is missing.

use std::{collections::BTreeSet, sync::Arc};

use covey_state::{
    Id,
    command::Command,
    task::{DesiredState, Task, TaskState},
};

use crate::draft::Draft;

/// Allocates new tasks: each takes an address of each of its networks; that of the edge comes from the block of the
/// node that it will have. A task that gets none waits, and with it its service, until there is one.
pub(crate) fn plan(draft: &mut Draft<'_>, services: &BTreeSet<Id>) {
    let new: Vec<Arc<Task>> = (services.iter())
        .flat_map(|service| draft.store.tasks_of_service(*service))
        .filter(|task| task.status.state == TaskState::New && task.desired <= DesiredState::Running)
        .cloned()
        .collect();
    for task in new {
        let decided = match draft.store.check_room(&task.spec.networks) {
            Ok(()) => draft.decide(Command::AllocateTask { id: task.id }),
            Err(full) => {
                draft.wait(task.service);
                draft.decide(Command::ExplainTask { id: task.id, reason: full.to_string() })
            }
        };
        if !decided {
            return;
        }
    }
}
