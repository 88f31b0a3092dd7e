//! A plan in the making: a scratch copy of the store, and the commands that made it so.

use std::collections::BTreeSet;

use covey_state::{
    Id, Store, Version,
    command::{Command, Proposal},
    service::Service,
    task::{DesiredState, Task, TaskState},
    time::Stamp,
};
use rand::Rng;

use crate::{
    health::{self, Health},
    observed::Observed,
    plan::{COMMANDS_PER_PLAN_MAX, Notice, Plan, TASKS_CREATED_PER_PLAN_MAX},
    scope::{Scope, Touched},
};

/// A plan in the making.
pub(crate) struct Draft<'a> {
    /// The store as it will be.
    pub store: Store,
    pub observed: &'a Observed,
    pub now: Stamp,
    /// Tasks of lost hosts stay until then.
    pub suspended_until: Option<Stamp>,
    random: &'a mut dyn Rng,
    /// The log entry that this will be.
    index: Version,
    commands: Vec<Command>,
    created: usize,
    cut: bool,
    wake: Option<Stamp>,
    waiting: BTreeSet<Id>,
    notices: Vec<Notice>,
}

impl<'a> Draft<'a> {
    pub fn new(
        store: &Store,
        observed: &'a Observed,
        now: Stamp,
        suspended_until: Option<Stamp>,
        random: &'a mut dyn Rng,
    ) -> Self {
        Self {
            store: store.clone(),
            observed,
            now,
            suspended_until,
            random,
            index: store.last_changed() + 1,
            commands: Vec::new(),
            created: 0,
            cut: false,
            wake: None,
            waiting: BTreeSet::new(),
            notices: Vec::new(),
        }
    }

    /// Decides one thing; false where there is no room for it in this plan, or the store refuses it.
    pub fn decide(&mut self, command: Command) -> bool {
        if self.commands.len() >= COMMANDS_PER_PLAN_MAX {
            self.cut = true;
            return false;
        }
        let proposal = Proposal { planned_at: None, commands: vec![command] };
        let result = self.store.apply(self.index, self.now, &proposal);
        let Some(command) = proposal.commands.into_iter().next() else { return false };
        match result {
            Ok(events) => {
                // What changes nothing does not go into the log.
                if !events.is_empty() {
                    self.commands.push(command);
                }
                true
            }
            Err(refusal) => {
                self.notices.push(Notice::Refused { command: Box::new(command), refusal });
                false
            }
        }
    }

    /// Fills a slot: at once, or when its turn has come.
    pub fn create_task(
        &mut self,
        service: &Service,
        slot: u64,
        not_before: Option<Stamp>,
        occupied: bool,
    ) -> bool {
        if self.created >= TASKS_CREATED_PER_PLAN_MAX {
            self.cut = true;
            return false;
        }
        let not_before = not_before.filter(|at| *at > self.now);
        let waits = occupied || not_before.is_some();
        let desired = if waits { DesiredState::Ready } else { DesiredState::Running };
        let id = self.new_id();
        let made = self.decide(Command::CreateTask { id, service: service.id, slot, desired, not_before });
        self.created += usize::from(made);
        made
    }

    /// Wants more of a task than so far.
    pub fn want(&mut self, task: &Task, desired: DesiredState) -> bool {
        task.desired >= desired || self.decide(Command::SetTaskDesired { id: task.id, desired })
    }

    /// How far a task is: as the log has it, or further as its node reports.
    pub fn state(&self, task: &Task) -> TaskState {
        match self.observed.task(task.id) {
            Some(seen) if !task.status.state.is_terminal() => seen.state.max(task.status.state),
            _ => task.status.state,
        }
    }

    /// When a running task began to run: by the clock of its node, where that is possible at all. It was after the
    /// last change of the task in the log, and it is not in the future.
    pub fn running_since(&self, task: &Task) -> Option<Stamp> {
        (self.state(task) == TaskState::Running).then(|| {
            let seen = self.observed.running_since(task.id).filter(|seen| *seen <= self.now);
            seen.map_or(task.updated_at, |seen| seen.max(task.updated_at))
        })
    }

    /// True if nothing of a task can be running any more, as far as the cluster can know.
    pub fn is_gone(&mut self, task: &Task) -> bool {
        self.state(task).is_terminal()
            || match task.node {
                None => true,
                Some(node) => self.is_lost(node, task.service),
            }
    }

    /// True if a node is lost; else `service` is planned again when it will be.
    pub fn is_lost(&mut self, node: Id, service: Id) -> bool {
        match self.health(node) {
            Health::Lost => true,
            Health::Away { lost_at: Some(at) } => {
                self.wake_at(at, service);
                false
            }
            Health::Away { lost_at: None } | Health::Able => false,
        }
    }

    /// How a node is.
    pub fn health(&self, node: Id) -> Health {
        self.store.node(node).map_or(Health::Lost, |node| {
            health::health(node, self.observed, health::grace(&self.store), self.now)
        })
    }

    /// Plans a service again at `at`.
    pub fn wake_at(&mut self, at: Stamp, service: Id) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
        self.waiting.insert(service);
    }

    /// Plans a service again when anything is planned.
    pub fn wait(&mut self, service: Id) {
        self.waiting.insert(service);
    }

    /// There was no room for all of these.
    pub fn wait_for_next_plan(&mut self, services: &BTreeSet<Id>) {
        self.wake = Some(self.now);
        self.waiting.extend(services);
    }

    /// True if there was no room for everything.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// A number that nobody can foresee.
    pub fn random(&mut self) -> u64 {
        self.random.next_u64()
    }

    fn new_id(&mut self) -> Id {
        Id::new(u128::from(self.random.next_u64()) << 64 | u128::from(self.random.next_u64()))
    }

    pub fn finish(self, planned_at: Version) -> Plan {
        let proposal = (!self.commands.is_empty())
            .then_some(Proposal { planned_at: Some(planned_at), commands: self.commands });
        Plan {
            proposal,
            look_again_at: self.wake,
            waiting: Scope::Touched(Touched { services: self.waiting, ..Touched::default() }),
            suspended_until: None,
            notices: self.notices,
        }
    }
}
