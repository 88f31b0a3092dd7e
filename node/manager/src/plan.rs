//! The plan: from what is wanted and what is observed to one proposal.

use std::fmt;

use covey_state::{
    Store,
    command::{Command, Proposal, Refusal},
    time::Stamp,
};
use rand::Rng;

use crate::{
    allocator, check,
    check::Violation,
    draft::Draft,
    health::{self, MassLoss},
    observed::Observed,
    orchestrator, reaper, scheduler,
    scope::Scope,
};

/// Commands in one plan, at most: it is one entry of the log.
pub const COMMANDS_PER_PLAN_MAX: usize = 1024;
/// Tasks created by one plan, at most, so that the same plan has room to allocate and to assign them.
pub const TASKS_CREATED_PER_PLAN_MAX: usize = 256;

/// What the leader proposes, and when it has to look again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The changes; `None`: all is as it should be, as far as one can see now.
    pub proposal: Option<Proposal>,
    /// When time alone makes a difference: a delay ends, a grace is over. At once where the plan was cut short.
    pub look_again_at: Option<Stamp>,
    /// What still waits, for time, for room on a node, or for the next plan. It belongs into the scope of the next
    /// plan, whenever that is.
    pub waiting: Scope,
    /// Until when tasks of lost hosts stay where they are, because too many hosts vanished at once.
    pub suspended_until: Option<Stamp>,
    /// What a person should know; the same again in each plan for as long as it is true.
    pub notices: Vec<Notice>,
}

/// Something a person should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Too many hosts vanished at once: nothing is moved for a while.
    MassLoss(MassLoss),
    /// The store refused a command of the plan, which was left out: an error in the planner.
    Refused {
        /// What was left out.
        command: Box<Command>,
        /// Why.
        refusal: Refusal,
    },
    /// The plan would have broken an invariant, and nothing is proposed: an error in the planner.
    Violation(Violation),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MassLoss(loss) => loss.fmt(f),
            Self::Refused { command, refusal } => write!(f, "the store refuses {command:?}: {refusal}"),
            Self::Violation(violation) => violation.fmt(f),
        }
    }
}

/// Plans what `scope` names.
///
/// Stages run in order over a scratch copy of the store, each seeing what the ones before it decided. The
/// proposal is refused where the store has moved on; then the same scope is planned again. When it is applied,
/// its events are the scope of the next plan, together with [`Plan::waiting`]: a cluster is settled when a plan
/// has no proposal.
pub fn plan(store: &Store, observed: &Observed, scope: &Scope, now: Stamp, random: &mut dyn Rng) -> Plan {
    // A leader whose clock is behind the last one's counts from where that one stopped.
    let now = now.max(store.last_at());
    let loss = health::mass_loss(store, observed, now);
    let services = scope.services(store);
    let mut draft = Draft::new(store, observed, now, loss.as_ref().map(|loss| loss.until), random);

    orchestrator::plan(&mut draft, &services);
    allocator::plan(&mut draft, &services);
    scheduler::plan(&mut draft, &services);
    reaper::plan(&mut draft, &services);

    if draft.is_cut() {
        draft.wait_for_next_plan(&services);
    }
    let violation = check::check(store, &draft.store, observed, draft.commands()).err();
    let mut plan = draft.finish(store.last_changed());
    if let Some(loss) = loss {
        plan.suspended_until = Some(loss.until);
        plan.notices.push(Notice::MassLoss(loss));
    }
    if let Some(violation) = violation {
        plan.proposal = None;
        plan.notices.push(Notice::Violation(violation));
    }
    plan
}
