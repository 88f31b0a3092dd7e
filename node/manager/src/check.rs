//! The checker of plans: whatever the stages decide, these things never happen.

use std::{collections::BTreeSet, fmt};

use covey_state::{
    Id, Store,
    command::Command,
    task::{DesiredState, Task},
};

use crate::{draft::Draft, slot::is_active};

/// A plan would break an invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A task would change its node (TSK-04).
    Moved(Id),
    /// Less would be wanted of a task than before.
    Revived(Id),
    /// A task would change its service, its slot or its spec.
    Altered(Id),
    /// Two tasks of one slot would be wanted running.
    Doubled {
        /// The service.
        service: Id,
        /// The slot.
        slot: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moved(task) => write!(f, "the plan moves task {task} to another node"),
            Self::Revived(task) => write!(f, "the plan wants less of task {task} than before"),
            Self::Altered(task) => write!(f, "the plan makes another task of task {task}"),
            Self::Doubled { service, slot } => {
                write!(f, "the plan runs two tasks in slot {slot} of service {service}")
            }
        }
    }
}

/// Compares the store with what the plan makes of it.
pub(crate) fn check(before: &Store, draft: &Draft<'_>) -> Result<(), Violation> {
    let touched: BTreeSet<Id> = draft.commands().iter().filter_map(task_of).collect();
    let mut slots = BTreeSet::new();
    for id in touched {
        let Some(new) = draft.store.task(id) else { continue };
        if let Some(old) = before.task(id) {
            check_task(old, new)?;
        }
        if is_wanted_running(new) {
            slots.insert((new.service, new.slot));
        }
    }
    for (service, slot) in slots {
        if draft.store.tasks_of_slot(service, slot).filter(|task| is_wanted_running(task)).count() > 1 {
            return Err(Violation::Doubled { service, slot });
        }
    }
    Ok(())
}

fn check_task(old: &Task, new: &Task) -> Result<(), Violation> {
    if old.node.is_some() && old.node != new.node {
        return Err(Violation::Moved(new.id));
    }
    if new.desired < old.desired {
        return Err(Violation::Revived(new.id));
    }
    if (old.service, old.slot, old.spec_version) != (new.service, new.slot, new.spec_version) {
        return Err(Violation::Altered(new.id));
    }
    Ok(())
}

fn is_wanted_running(task: &Task) -> bool {
    task.desired == DesiredState::Running && is_active(task)
}

fn task_of(command: &Command) -> Option<Id> {
    match command {
        Command::CreateTask { id, .. }
        | Command::AllocateTask { id }
        | Command::AssignTask { id, .. }
        | Command::ExplainTask { id, .. }
        | Command::SetTaskDesired { id, .. }
        | Command::FinishTask { id, .. }
        | Command::RemoveTask { id } => Some(*id),
        _ => None,
    }
}
