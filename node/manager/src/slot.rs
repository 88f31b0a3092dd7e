//! A slot: the place of a service that one task after the other fills.

use std::sync::Arc;

use covey_state::{
    Id, Store,
    service::Service,
    task::{DesiredState, Task, TaskState},
    time::Stamp,
};

use crate::orchestrator::restart::{self, Verdict};

/// One slot with all of its tasks, ended ones too, oldest first.
pub(crate) struct Slot {
    pub number: u64,
    pub tasks: Vec<Arc<Task>>,
}

/// How a slot stands.
pub(crate) enum Standing<'a> {
    /// All of its tasks are wanted removed.
    Vacant,
    /// This task fills it, or will.
    Filled(&'a Arc<Task>),
    /// This task ended, and the restart policy leaves it at that.
    Settled(&'a Arc<Task>),
    /// This task has ended or has to go: another one follows, and may start then; `None`: at once.
    Broken(&'a Arc<Task>, Option<Stamp>),
}

/// The slots of a service, in order.
pub(crate) fn slots(store: &Store, service: Id) -> Vec<Slot> {
    let mut slots: Vec<Slot> = Vec::new();
    for task in store.tasks_of_service(service) {
        match slots.last_mut() {
            Some(slot) if slot.number == task.slot => slot.tasks.push(task.clone()),
            _ => slots.push(Slot { number: task.slot, tasks: vec![task.clone()] }),
        }
    }
    for slot in &mut slots {
        slot.tasks.sort_unstable_by_key(|task| (task.created_at, task.id));
    }
    slots
}

impl Slot {
    /// The task that fills the slot, or filled it last.
    pub fn latest(&self) -> Option<&Arc<Task>> {
        self.tasks.iter().rev().find(|task| task.desired != DesiredState::Remove)
    }

    /// How the slot stands.
    pub fn standing(&self) -> Standing<'_> {
        let Some(latest) = self.latest() else { return Standing::Vacant };
        if ended_by_itself(latest) {
            return match restart::verdict(latest, &self.tasks) {
                Verdict::Settled => Standing::Settled(latest),
                Verdict::Restart(not_before) => Standing::Broken(latest, Some(not_before)),
            };
        }
        if latest.status.state.is_terminal() || latest.desired == DesiredState::Shutdown {
            return Standing::Broken(latest, None);
        }
        Standing::Filled(latest)
    }
}

/// True if a task ended though nobody asked it to.
pub(crate) fn ended_by_itself(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected)
}

/// True if a task is what its service wants now. Going back to an earlier spec makes its tasks current again.
pub(crate) fn is_current(task: &Task, service: &Service) -> bool {
    let spec = &service.spec;
    task.spec_version == service.spec_version
        || (*task.spec == spec.task
            && task.ports.iter().eq(spec.endpoint.host_ports())
            && task.edge == service.edge)
}

/// True if a task is active: it counts for the spread.
pub(crate) fn is_active(task: &Task) -> bool {
    task.desired <= DesiredState::Running && !task.status.state.is_terminal()
}
