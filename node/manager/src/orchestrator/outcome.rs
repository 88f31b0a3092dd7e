//! Outcomes: how a task ended is observed once and remembered for good.

use covey_state::{
    Id,
    command::Command,
    task::{ContainerStatus, DesiredState, Task, TaskState, TaskStatus},
};

use crate::draft::Draft;

/// Bytes that the log keeps of a node's message, of its error and of the id of a container, at most: one plan may
/// remember the ends of hundreds of tasks, and is one entry of the log.
const OUTCOME_TEXT_BYTES_MAX: usize = 1 << 10;
/// Addresses of a container that the log keeps, at most.
const OUTCOME_ADDRESSES_MAX: usize = 8;

/// Remembers the end of each task of a service whose node reports it.
pub(super) fn plan(draft: &mut Draft<'_>, service: Id) {
    let ended: Vec<_> = (draft.store.tasks_of_service(service))
        .filter(|task| !task.status.state.is_terminal())
        .filter_map(|task| draft.observed.task(task.id).map(|status| (task, status)))
        .filter(|(_, status)| status.state.is_terminal())
        .map(|(task, status)| (task.id, outcome(task, status)))
        .collect();
    for (id, status) in ended {
        draft.decide(Command::FinishTask { id, status });
    }
}

/// What the log keeps of an end that a node reports.
fn outcome(task: &Task, reported: &TaskStatus) -> TaskStatus {
    let mut status = TaskStatus {
        message: cut(&reported.message),
        error: cut(&reported.error),
        container: reported.container.as_ref().map(outcome_of_container),
        ..*reported
    };
    // Only the leader asks a task to stop, or gives one up: without that, it is a failure, which is followed by
    // another task no sooner than the restart policy says.
    if task.desired <= DesiredState::Running
        && matches!(status.state, TaskState::Shutdown | TaskState::Orphaned)
    {
        if status.error.is_empty() {
            status.error = format!("its node reports it as {}, though nobody asked for that", status.state);
        }
        status.state = TaskState::Failed;
    }
    status
}

fn outcome_of_container(reported: &ContainerStatus) -> ContainerStatus {
    ContainerStatus {
        id: cut(&reported.id),
        addresses: reported.addresses.iter().take(OUTCOME_ADDRESSES_MAX).copied().collect(),
        // They are free again.
        ports: Vec::new(),
        ..*reported
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(OUTCOME_TEXT_BYTES_MAX)].to_owned()
}
