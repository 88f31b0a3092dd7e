//! Rolling updates: slot after slot moves to the new spec, stop first, and a failure can stop it.

use covey_state::{
    Id,
    command::Command,
    service::{FailureAction, Mode, RestartCondition, Service, UpdateState, UpdateStatus},
    task::{DesiredState, Task, TaskState},
    time::Stamp,
};

use super::replicated::is_occupied;
use crate::{
    draft::Draft,
    slot::{Slot, Standing, ended_by_itself, is_current, slots},
};

/// One billion: the whole of `UpdateConfig::max_failure_billionths`.
const BILLIONTHS: u128 = 1_000_000_000;

/// Takes the update of a service as far as it may go now.
///
/// Nothing is remembered but the status in the store: which slots are done, under way or due is read off their
/// tasks, so that a new leader goes on where the last one stopped.
pub(super) fn plan(draft: &mut Draft<'_>, service: &Service) {
    let slots = slots(&draft.store, service.id);
    let mut due = due(draft, service, &slots);
    let Some(started_at) = begin(draft, service, due.is_empty()) else { return };
    let update = Update { service, started_at };
    if let Some(failed) = update.intolerable_failure(draft, &slots) {
        let message = format!("update paused due to failure or early termination of task {failed}");
        set_status(draft, service.id, UpdateState::Paused, started_at, message);
        return;
    }
    if due.is_empty() {
        if update.is_complete(draft, &slots) {
            set_status(draft, service.id, UpdateState::Completed, started_at, "update completed".into());
        }
        return;
    }
    let under_way = slots.iter().fold(0, |sum, slot| sum + u64::from(update.is_under_way(draft, slot)));
    let room = match service.spec.update.parallelism {
        0 => usize::MAX,
        parallelism => usize::try_from(parallelism.saturating_sub(under_way)).unwrap_or(usize::MAX),
    };
    due.truncate(room);
    for slot in due {
        replace(draft, service, slot);
    }
}

/// When the update began that is to go on now; begins it where something is due.
fn begin(draft: &mut Draft<'_>, service: &Service, nothing_due: bool) -> Option<Stamp> {
    match &service.update_status {
        // It is the user's turn: any update of the service clears the status.
        Some(status) if status.state == UpdateState::Paused => None,
        Some(status) if status.state == UpdateState::Updating => Some(status.started_at),
        _ if nothing_due => None,
        _ => {
            let now = draft.now;
            set_status(draft, service.id, UpdateState::Updating, now, "update in progress".into())
                .then_some(now)
        }
    }
}

/// The slots that are not on the new spec yet, in the order of their turns: those that wait for a node first
/// (C-22), then those that do not run.
fn due<'a>(draft: &Draft<'_>, service: &Service, slots: &'a [Slot]) -> Vec<&'a Slot> {
    let mut due: Vec<_> = (slots.iter())
        .filter_map(|slot| match slot.standing() {
            Standing::Filled(task) | Standing::Settled(task) if !is_current(task, service) => {
                Some((task.node.is_some(), draft.state(task) == TaskState::Running, slot))
            }
            _ => None,
        })
        .collect();
    due.sort_by_key(|(placed, running, slot)| (*placed, *running, slot.number));
    due.into_iter().map(|(_, _, slot)| slot).collect()
}

/// The old task stops; the new one is prepared meanwhile and starts when the old one has gone.
fn replace(draft: &mut Draft<'_>, service: &Service, slot: &Slot) {
    let Some(old) = slot.latest() else { return };
    let occupied = is_occupied(draft, slot);
    if draft.want(old, DesiredState::Shutdown) {
        draft.create_task(service, slot.number, None, occupied);
    }
}

fn set_status(draft: &mut Draft<'_>, id: Id, state: UpdateState, started_at: Stamp, message: String) -> bool {
    let completed_at = (state == UpdateState::Completed).then_some(draft.now);
    let status = UpdateStatus { state, started_at, completed_at, message };
    draft.decide(Command::SetUpdateStatus { id, status: Some(status) })
}

/// An update that has begun.
struct Update<'a> {
    service: &'a Service,
    started_at: Stamp,
}

impl Update<'_> {
    /// A task that this update made.
    fn made(&self, task: &Task) -> bool {
        is_current(task, self.service) && task.created_at >= self.started_at
    }

    /// The failed task that brings the share of failures above what is borne, if it is to stop the update.
    fn intolerable_failure(&self, draft: &Draft<'_>, slots: &[Slot]) -> Option<Id> {
        let config = &self.service.spec.update;
        if config.failure_action == FailureAction::Continue {
            return None;
        }
        let mut failed: Vec<&Task> = (slots.iter().flat_map(|slot| &slot.tasks))
            .map(|task| &**task)
            .filter(|task| self.made(task) && self.has_failed(draft, task))
            .collect();
        failed.sort_unstable_by_key(|task| (task.updated_at, task.id));
        let Mode::Replicated { replicas } = self.service.spec.mode;
        let borne = u128::from(config.max_failure_billionths) * u128::from(replicas);
        failed.iter().zip(1_u128..).find(|(_, count)| count * BILLIONTHS > borne).map(|(task, _)| task.id)
    }

    /// True if a task failed while it was watched. One of which it is not known how long it ran counts as failed.
    fn has_failed(&self, draft: &Draft<'_>, task: &Task) -> bool {
        let early = match task.status.state {
            TaskState::Complete => task.spec.restart.condition == RestartCondition::Any,
            _ => ended_by_itself(task),
        };
        let watched = draft
            .observed
            .running_since(task.id)
            .is_none_or(|since| task.status.at.since(since) <= self.service.spec.update.monitor);
        early && watched
    }

    /// True if the update of a slot has begun and still takes up one of the parallel places: until its new task
    /// runs and the delay has passed.
    fn is_under_way(&self, draft: &mut Draft<'_>, slot: &Slot) -> bool {
        let (task, ended) = match slot.standing() {
            Standing::Filled(task) => (task, false),
            Standing::Broken(task, _) => (task, true),
            Standing::Vacant | Standing::Settled(_) => return false,
        };
        let (new, old): (Vec<_>, Vec<_>) =
            slot.tasks.iter().partition(|other| is_current(other, self.service));
        let failed = new.iter().any(|other| self.made(other) && ended_by_itself(other));
        if !is_current(task, self.service) || old.is_empty() || failed {
            return false;
        }
        if ended {
            return true;
        }
        if task.node.is_none() {
            // Where nothing ran before, nothing is missing while the new task waits for a node.
            return old.iter().any(|other| other.node.is_some());
        }
        match draft.running_since(task) {
            Some(since) => {
                let free_at = since + self.service.spec.update.delay;
                let busy = free_at > draft.now;
                if busy {
                    draft.wake_at(free_at, self.service.id);
                }
                busy
            }
            None => true,
        }
    }

    /// True if each slot has run its new task for as long as it is watched.
    fn is_complete(&self, draft: &mut Draft<'_>, slots: &[Slot]) -> bool {
        slots.iter().all(|slot| self.is_good(draft, slot))
    }

    fn is_good(&self, draft: &mut Draft<'_>, slot: &Slot) -> bool {
        match slot.standing() {
            Standing::Vacant | Standing::Settled(_) => true,
            Standing::Broken(..) => false,
            Standing::Filled(task) => {
                let Some(since) = draft.running_since(task) else { return false };
                let good_at = since + self.service.spec.update.monitor;
                if good_at > draft.now {
                    draft.wake_at(good_at, self.service.id);
                }
                good_at <= draft.now
            }
        }
    }
}
