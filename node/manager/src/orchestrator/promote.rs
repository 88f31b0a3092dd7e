//! Promotion: a prepared replacement starts when its turn has come.

use covey_state::{Id, task::DesiredState};

use crate::{
    draft::Draft,
    slot::{is_active, slots},
};

/// Starts each waiting task of a service whose delay is over and whose predecessors are gone (TSK-12).
pub(super) fn plan(draft: &mut Draft<'_>, service: Id) {
    for slot in slots(&draft.store, service) {
        let Some(task) = slot.latest().filter(|task| task.desired == DesiredState::Ready && is_active(task))
        else {
            continue;
        };
        if let Some(at) = task.not_before.filter(|at| *at > draft.now) {
            draft.wake_at(at, service);
            continue;
        }
        let mut others = slot.tasks.iter().filter(|other| other.id != task.id);
        if others.all(|other| draft.is_gone(other)) {
            draft.want(task, DesiredState::Running);
        }
    }
}
