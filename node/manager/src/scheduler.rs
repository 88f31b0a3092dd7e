//! The scheduler: gives each waiting task a node, or says why it has none.

mod explain;
mod filter;
mod load;
mod spread;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use covey_state::{
    Id, Version,
    command::Command,
    task::{DesiredState, Task, TaskState},
};

use self::{explain::explain, load::Loads};
use crate::draft::Draft;

/// Gives nodes to the waiting tasks of these services: those first whose slot had a node before, so that an update
/// never loses to newcomers the room that its old task made, and then the oldest.
///
/// Hard filters come first, then the spread: a node that cannot run a task never wins (C-19).
pub(crate) fn plan(draft: &mut Draft<'_>, services: &BTreeSet<Id>) {
    let mut waiting: Vec<Arc<Task>> = (services.iter())
        .flat_map(|service| draft.store.tasks_of_service(*service))
        .filter(|task| task.status.state == TaskState::Pending && task.desired <= DesiredState::Running)
        .cloned()
        .collect();
    if waiting.is_empty() {
        return;
    }
    waiting.sort_by_cached_key(|task| (!had_node(draft, task), task.created_at, task.service, task.slot));
    let mut loads = Loads::new(draft);
    // Where one task finds no node, its like find none either: nodes only fill up within a plan.
    let mut hopeless: BTreeMap<(Id, Version), String> = BTreeMap::new();
    for task in waiting {
        let like = (task.service, task.spec_version);
        if let Some(reason) = hopeless.get(&like).cloned() {
            wait(draft, &task, reason);
        } else if let Some(node) = loads.best_for(draft, &task) {
            if draft.decide(Command::AssignTask { id: task.id, node }) {
                loads.add(node, &task);
            }
        } else {
            let reason = explain(&task, loads.candidates());
            hopeless.insert(like, reason.clone());
            wait(draft, &task, reason);
        }
    }
}

fn had_node(draft: &Draft<'_>, task: &Task) -> bool {
    draft.store.tasks_of_slot(task.service, task.slot).any(|other| other.node.is_some())
}

/// The task waits for room, and the user reads why.
fn wait(draft: &mut Draft<'_>, task: &Task, reason: String) {
    // The same reason again changes nothing, and is left out.
    draft.decide(Command::ExplainTask { id: task.id, reason });
    draft.wait(task.service);
}
