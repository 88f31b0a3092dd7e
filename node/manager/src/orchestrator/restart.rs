//! Restarts: whether a task that ended by itself is followed by another one, and when.

use std::sync::Arc;

use covey_state::{
    service::{RestartCondition, RestartPolicy},
    task::{Task, TaskState},
    time::Stamp,
};

use crate::slot::ended_by_itself;

/// Attempts of a slot that are counted, at most: a larger limit is none, since the history is not kept longer.
pub(crate) const ATTEMPTS_COUNTED_MAX: u64 = 100;

/// What follows a task that ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Settled,
    /// Another task, not before this.
    Restart(Stamp),
}

/// What follows `ended`, the last task of a slot whose tasks are `tasks`.
///
/// All that it looks at is in the store, so that a new leader comes to the same verdict, and a verdict never
/// changes with time.
pub(crate) fn verdict(ended: &Task, tasks: &[Arc<Task>]) -> Verdict {
    let policy = &ended.spec.restart;
    let wanted = match policy.condition {
        RestartCondition::None => false,
        RestartCondition::OnFailure => ended.status.state != TaskState::Complete,
        RestartCondition::Any => true,
    };
    if !wanted || is_exhausted(policy, ended, tasks) {
        return Verdict::Settled;
    }
    Verdict::Restart(ended.updated_at + policy.delay)
}

/// True if a task could not even be prepared. A replacement is prepared as soon as it exists: it must not exist
/// before its time, or the slot would go through tasks as fast as they are refused.
pub(crate) fn ended_before_its_turn(ended: &Task) -> bool {
    ended.status.state == TaskState::Rejected || ended.not_before.is_some_and(|at| at > ended.updated_at)
}

/// True if the slot has had all the replacements that the policy grants.
fn is_exhausted(policy: &RestartPolicy, ended: &Task, tasks: &[Arc<Task>]) -> bool {
    let limit = policy.max_attempts;
    if limit == 0 || limit > ATTEMPTS_COUNTED_MAX {
        return false;
    }
    // Each task of this spec that ended before was followed by a replacement, made when it ended.
    let replaced = (tasks.iter())
        .filter(|task| task.id != ended.id && task.spec_version == ended.spec_version)
        .filter(|task| ended_by_itself(task))
        .filter(|task| policy.window.is_zero() || ended.updated_at.since(task.updated_at) <= policy.window)
        .count();
    replaced as u64 >= limit
}

/// Ended tasks of a slot that [`verdict`] has to find in the history.
pub(crate) fn history_needed(policy: &RestartPolicy) -> u64 {
    if policy.max_attempts > ATTEMPTS_COUNTED_MAX { 0 } else { policy.max_attempts }
}
