//! The reaper: forgets tasks that nobody wants any more, and all but the last few that ended.

use std::{collections::BTreeSet, sync::Arc};

use covey_state::{
    Id,
    cluster::ClusterSpec,
    command::Command,
    service::{Service, UpdateState},
    task::{DesiredState, Task, TaskState, TaskStatus},
};

use crate::{
    draft::Draft,
    orchestrator::restart,
    slot::{Slot, slots},
};

/// Forgets what is over in these services.
pub(crate) fn plan(draft: &mut Draft<'_>, services: &BTreeSet<Id>) {
    for id in services {
        let service = draft.store.service(*id).cloned();
        let kept = service.map_or(0, |service| history_limit(draft, &service));
        for slot in slots(&draft.store, *id) {
            plan_slot(draft, &slot, kept);
        }
    }
}

/// Ended tasks that a slot keeps, besides the one that fills it.
fn history_limit(draft: &Draft<'_>, service: &Service) -> usize {
    let limit = draft
        .store
        .cluster()
        .map_or_else(|| ClusterSpec::default().task_history_limit, |cluster| cluster.spec.task_history_limit);
    // An update knows the slots that it has moved by the task that was there before.
    let updating = service.update_status.as_ref().is_some_and(|status| status.state == UpdateState::Updating);
    let needed = restart::history_needed(&service.spec.task.restart).max(u64::from(updating));
    usize::try_from(limit.max(needed)).unwrap_or(usize::MAX)
}

fn plan_slot(draft: &mut Draft<'_>, slot: &Slot, kept: usize) {
    let latest = slot.latest().map(|task| task.id);
    let mut history = 0;
    for task in slot.tasks.iter().rev().filter(|task| Some(task.id) != latest) {
        if task.desired < DesiredState::Shutdown || !draft.is_gone(task) {
            continue;
        }
        if task.desired == DesiredState::Shutdown {
            history += 1;
            if history <= kept {
                finish_unplaced(draft, task);
                continue;
            }
        }
        forget(draft, task);
    }
}

/// A task that never had a node ends without an agent to say so.
fn finish_unplaced(draft: &mut Draft<'_>, task: &Task) {
    if task.node.is_none() && !task.status.state.is_terminal() {
        let status = ended(draft, task, TaskState::Shutdown, "stopped before it had a node");
        draft.decide(Command::FinishTask { id: task.id, status });
    }
}

fn forget(draft: &mut Draft<'_>, task: &Arc<Task>) {
    // Its node is lost: should it come back, its next assignment set tells it to remove what it still has.
    if task.node.is_some() && !task.status.state.is_terminal() {
        let status = ended(draft, task, TaskState::Orphaned, "node was lost");
        if !draft.decide(Command::FinishTask { id: task.id, status }) {
            return;
        }
    }
    draft.decide(Command::RemoveTask { id: task.id });
}

fn ended(draft: &Draft<'_>, task: &Task, state: TaskState, message: &str) -> TaskStatus {
    TaskStatus {
        attempt: task.status.attempt,
        state,
        at: draft.now,
        message: message.to_owned(),
        error: String::new(),
        container: None,
    }
}
