//! Who may move a task from where to where: one table, and nobody else moves a task.
//!
//! The log keeps only what the leader decides: it knows a task as `New`, `Pending`, `Assigned`, and then how it
//! ended. The agent's steps in between are told by gossip. A host that reboots cut off from every manager starts a
//! task again as its next attempt, which begins at `Accepted`; the table speaks of one attempt.

use crate::task::TaskState::{self, *};

/// Who moves a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// Makes tasks.
    Orchestrator,
    /// Gives a task what it needs of the cluster.
    Allocator,
    /// Gives a task its node.
    Scheduler,
    /// Runs a task on its node, and says so in its row.
    Agent,
    /// Says how a task ended that no agent will speak of.
    Leader,
    /// Forgets tasks.
    Reaper,
}

/// One move that a task may make within one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transition {
    /// Who makes it.
    pub owner: Owner,
    /// `None`: there is no such task yet.
    pub from: Option<TaskState>,
    /// `None`: the task is forgotten.
    pub to: Option<TaskState>,
}

const fn by(owner: Owner, from: Option<TaskState>, to: Option<TaskState>) -> Transition {
    Transition { owner, from, to }
}

const fn agent(from: TaskState, to: TaskState) -> Transition {
    by(Owner::Agent, Some(from), Some(to))
}

const fn leader(from: TaskState, to: TaskState) -> Transition {
    by(Owner::Leader, Some(from), Some(to))
}

const fn reaper(from: TaskState) -> Transition {
    by(Owner::Reaper, Some(from), None)
}

/// Every move there is.
pub const TRANSITIONS: &[Transition] = &[
    by(Owner::Orchestrator, None, Some(New)),
    by(Owner::Allocator, Some(New), Some(Pending)),
    by(Owner::Scheduler, Some(Pending), Some(Assigned)),
    // On its node, step by step.
    agent(Assigned, Accepted),
    agent(Accepted, Preparing),
    agent(Preparing, Ready),
    agent(Ready, Starting),
    agent(Starting, Running),
    agent(Running, Complete),
    // It was over before anyone could look.
    agent(Starting, Complete),
    // The node cannot take it, prepare it or start it, nor will it ever.
    agent(Assigned, Rejected),
    agent(Accepted, Rejected),
    agent(Preparing, Rejected),
    agent(Starting, Rejected),
    // It broke.
    agent(Accepted, Failed),
    agent(Preparing, Failed),
    agent(Ready, Failed),
    agent(Starting, Failed),
    agent(Running, Failed),
    // It was asked to stop.
    agent(Accepted, Shutdown),
    agent(Preparing, Shutdown),
    agent(Ready, Shutdown),
    agent(Starting, Shutdown),
    agent(Running, Shutdown),
    // No agent has it.
    leader(New, Shutdown),
    leader(Pending, Shutdown),
    // Its agent is gone.
    leader(Assigned, Orphaned),
    leader(Accepted, Orphaned),
    leader(Preparing, Orphaned),
    leader(Ready, Orphaned),
    leader(Starting, Orphaned),
    leader(Running, Orphaned),
    // Over, or never begun.
    reaper(New),
    reaper(Pending),
    reaper(Complete),
    reaper(Shutdown),
    reaper(Failed),
    reaper(Rejected),
    reaper(Orphaned),
];

/// Who may make this move; `None`: nobody.
pub fn owner(from: Option<TaskState>, to: Option<TaskState>) -> Option<Owner> {
    TRANSITIONS.iter().find(|known| (known.from, known.to) == (from, to)).map(|known| known.owner)
}

/// True if a task that the log knows as `from` may have ended as `to`.
///
/// The log does not see each step of an agent: it may be some steps from one to the other.
pub fn may_end(from: TaskState, to: TaskState) -> bool {
    to.is_terminal() && !from.is_terminal() && reaches(from, to)
}

/// States only grow, so this ends.
fn reaches(from: TaskState, to: TaskState) -> bool {
    TRANSITIONS
        .iter()
        .filter(|step| step.from == Some(from) && matches!(step.owner, Owner::Agent | Owner::Leader))
        .filter_map(|step| step.to)
        .any(|next| next == to || reaches(next, to))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const STATES: [TaskState; 13] = [
        New, Pending, Assigned, Accepted, Preparing, Ready, Starting, Running, Complete, Shutdown, Failed,
        Rejected, Orphaned,
    ];

    /// TSK-02
    #[test]
    fn each_move_has_exactly_one_owner() {
        let moves: BTreeSet<_> = TRANSITIONS.iter().map(|known| (known.from, known.to)).collect();
        assert_eq!(moves.len(), TRANSITIONS.len());
    }

    /// TSK-02
    #[test]
    fn every_state_is_left_by_someone_and_entered_by_someone() {
        for state in STATES {
            assert!(TRANSITIONS.iter().any(|known| known.from == Some(state)), "{state} is never left");
            assert!(TRANSITIONS.iter().any(|known| known.to == Some(state)), "{state} is never entered");
            assert!(
                state.is_terminal() || STATES.into_iter().any(|end| may_end(state, end)),
                "{state} never ends"
            );
        }
    }

    /// TSK-03
    #[test]
    fn states_only_grow_and_an_end_is_only_forgotten() {
        for Transition { from, to, .. } in TRANSITIONS {
            if let (Some(from), Some(to)) = (from, to) {
                assert!(from < to && !from.is_terminal(), "{from} to {to}");
            }
        }
    }

    /// TSK-02
    #[test]
    fn a_task_without_a_node_can_only_be_called_off_and_one_with_a_node_ends_in_any_way() {
        for end in STATES.into_iter().filter(|state| state.is_terminal()) {
            assert_eq!(may_end(New, end), end == Shutdown);
            assert_eq!(may_end(Pending, end), end == Shutdown);
            assert!(may_end(Assigned, end));
        }
        assert!(!may_end(Assigned, Running));
        assert!(!may_end(Failed, Orphaned));
    }
}
