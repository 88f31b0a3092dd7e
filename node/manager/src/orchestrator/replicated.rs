//! Replicated services: as many slots filled as there are replicas.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use covey_state::{
    Id,
    service::{Mode, Service},
    task::{DesiredState, Task, TaskState},
};

use super::restart;
use crate::{
    draft::Draft,
    slot::{Slot, Standing, slots},
};

/// Fills missing slots, empties surplus ones, and replaces what is broken.
pub(super) fn plan(draft: &mut Draft<'_>, service: &Service) {
    let Mode::Replicated { replicas } = service.spec.mode;
    let mut slots = slots(&draft.store, service.id);
    let occupied = slots.iter().filter(|slot| slot.latest().is_some()).count() as u64;
    if occupied > replicas {
        let surplus = surplus(draft, &slots, occupied - replicas);
        for slot in slots.iter().filter(|slot| surplus.contains(&slot.number)) {
            empty(draft, slot);
        }
        slots.retain(|slot| !surplus.contains(&slot.number));
    }
    for slot in &slots {
        mend(draft, service, slot);
    }
    if occupied < replicas {
        fill(draft, service, &slots, replicas - occupied);
    }
}

/// A slot that is given up vanishes with its history (SVC-29).
fn empty(draft: &mut Draft<'_>, slot: &Slot) {
    for task in &slot.tasks {
        draft.want(task, DesiredState::Remove);
    }
}

/// Replaces a task that ended or has to go.
fn mend(draft: &mut Draft<'_>, service: &Service, slot: &Slot) {
    match slot.standing() {
        Standing::Vacant | Standing::Filled(_) => {}
        Standing::Settled(task) => {
            draft.want(task, DesiredState::Shutdown);
        }
        Standing::Broken(task, not_before) => {
            let occupied = is_occupied(draft, slot);
            if !draft.want(task, DesiredState::Shutdown) {
                return;
            }
            match not_before.filter(|at| *at > draft.now && restart::ended_before_its_turn(task)) {
                Some(at) => draft.wake_at(at, service.id),
                None => {
                    draft.create_task(service, slot.number, not_before, occupied);
                }
            }
        }
    }
}

/// Takes the lowest free numbers.
fn fill(draft: &mut Draft<'_>, service: &Service, slots: &[Slot], missing: u64) {
    let taken: BTreeSet<u64> =
        slots.iter().filter(|slot| slot.latest().is_some()).map(|slot| slot.number).collect();
    let mut free = (1..).filter(|number| !taken.contains(number));
    for _ in 0..missing {
        let Some(number) = free.next() else { return };
        // A slot that was given up a moment ago may still have a task that is stopping.
        let leaving = slots.iter().find(|slot| slot.number == number);
        let occupied = leaving.is_some_and(|slot| is_occupied(draft, slot));
        if !draft.create_task(service, number, None, occupied) {
            return;
        }
    }
}

/// True if a task of the slot may still be running.
pub(super) fn is_occupied(draft: &mut Draft<'_>, slot: &Slot) -> bool {
    slot.tasks.iter().any(|task| !draft.is_gone(task))
}

/// The slots to give up so that the rest stays spread evenly: those without a node first, then each time one
/// from the node that has most of them, where it still starts rather than where it runs.
fn surplus(draft: &Draft<'_>, slots: &[Slot], count: u64) -> BTreeSet<u64> {
    let mut unplaced: Vec<u64> = Vec::new();
    let mut by_node: BTreeMap<Id, Vec<&Arc<Task>>> = BTreeMap::new();
    for task in slots.iter().filter_map(Slot::latest) {
        match task.node {
            Some(node) if is_alive(draft, task) => by_node.entry(node).or_default().push(task),
            _ => unplaced.push(task.slot),
        }
    }
    // Each node's slots from the one to keep longest; the rank says how many it keeps before this one.
    let mut placed: Vec<(usize, bool, u64)> = Vec::new();
    for tasks in by_node.values_mut() {
        let starting = |task: &Task| draft.state(task) != TaskState::Running;
        tasks.sort_by_key(|task| (starting(task), task.slot));
        placed.extend(tasks.iter().enumerate().map(|(rank, task)| (rank, starting(task), task.slot)));
    }
    unplaced.sort_unstable_by(|a, b| b.cmp(a));
    placed.sort_unstable_by(|a, b| b.cmp(a));
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    unplaced.into_iter().chain(placed.into_iter().map(|(_, _, slot)| slot)).take(count).collect()
}

fn is_alive(draft: &Draft<'_>, task: &Task) -> bool {
    task.desired <= DesiredState::Running && !draft.state(task).is_terminal()
}
