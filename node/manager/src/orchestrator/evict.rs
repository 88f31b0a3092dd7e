//! Eviction: tasks leave a host that is lost, and one that is drained.

use covey_state::{Id, node::Availability, task::DesiredState};

use crate::{draft::Draft, slot::is_active};

/// Wants an end of each task of a service that cannot stay where it is.
///
/// What its node reported last stays as it is: nobody knows better (TSK-09).
pub(super) fn plan(draft: &mut Draft<'_>, service: Id) {
    let placed: Vec<_> = (draft.store.tasks_of_service(service))
        .filter(|task| is_active(task))
        .filter_map(|task| task.node.map(|node| (task.clone(), node)))
        .collect();
    for (task, node) in placed {
        if is_drained(draft, node) || is_lost_for_good(draft, node, service) {
            draft.want(&task, DesiredState::Shutdown);
        }
    }
}

fn is_drained(draft: &Draft<'_>, node: Id) -> bool {
    draft.store.node(node).is_some_and(|node| node.spec.availability == Availability::Drain)
}

/// After a mass loss nothing is moved for a while.
fn is_lost_for_good(draft: &mut Draft<'_>, node: Id, service: Id) -> bool {
    if !draft.is_lost(node, service) {
        return false;
    }
    match draft.suspended_until {
        Some(until) => {
            draft.wake_at(until, service);
            false
        }
        None => true,
    }
}
