//! Outcomes: how a task ended is observed once and remembered for good.

use covey_state::{Id, command::Command};

use crate::draft::Draft;

/// Remembers the end of each task of a service whose node reports it.
pub(super) fn plan(draft: &mut Draft<'_>, service: Id) {
    let ended: Vec<_> = (draft.store.tasks_of_service(service))
        .filter(|task| !task.status.state.is_terminal())
        .filter_map(|task| draft.observed.task(task.id).map(|status| (task.id, status)))
        .filter(|(_, status)| status.state.is_terminal())
        .map(|(id, status)| (id, status.clone()))
        .collect();
    for (id, status) in ended {
        draft.decide(Command::FinishTask { id, status });
    }
}
