//! The worker: one controller for each task that the leader assigned to this node.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

pub use crate::remembered::Remembered;
use crate::{
    controller::{Controller, Done, Next, Presence, Step},
    executor::Held,
};
use covey_state::{
    Id, Version,
    assignment::{Assignment, AssignmentSet, Generation},
    task::{ContainerStatus, TaskState, TaskStatus},
    time::Stamp,
};

#[cfg(test)]
mod tests;

/// How long a node that rebooted waits for a manager before it starts its tasks again by itself.
pub const REBOOT_WAIT: Duration = Duration::from_secs(2);

/// What happens outside because of the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The executor takes a step; its result comes back by [`Worker::handle_done`].
    Do {
        /// For this task.
        assignment: Box<Assignment>,
        /// Which start of the task.
        attempt: u32,
        /// The step.
        step: Step,
    },
    /// The managers are told.
    Report {
        /// Of this task.
        task: Id,
        /// What is known of it.
        status: TaskStatus,
    },
    /// All who may be sent to a task are told: it runs, or is about to be stopped, or its service is reached another
    /// way than before. Comes before the step that stops it.
    Show {
        /// The task.
        assignment: Box<Assignment>,
        /// Its container.
        container: ContainerStatus,
        /// Whether others are to be sent to it.
        presence: Presence,
    },
    /// All who may be sent to a task are told that nobody is there any more.
    Hide {
        /// The task.
        task: Id,
    },
    /// The managers need not be told any more.
    Withdraw {
        /// Of this task.
        task: Id,
    },
    /// Something is held for a task that nobody knows: it is removed.
    Discard {
        /// The task.
        task: Id,
    },
    /// The set has changed: it is written to disk.
    Remember(Remembered),
}

/// A set was refused. The worker is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// A set from a leader of the past, or one that came before.
    #[error("assignment set {got:?} is not newer than {have:?}")]
    Old {
        /// The last set taken.
        have: Generation,
        /// The set refused.
        got: Generation,
    },
    /// Changes to a set that this node never saw: it needs the full one.
    #[error("changes build on assignment set {base:?}, this node has {have:?}")]
    Gap {
        /// The last set taken.
        have: Generation,
        /// What the changes build on.
        base: Generation,
    },
}

/// The tasks of this node.
#[derive(Debug)]
pub struct Worker {
    generation: Generation,
    controllers: BTreeMap<Id, Controller>,
    /// Held by the executor from before a restart, not yet claimed by an assignment.
    held: BTreeMap<Id, Held>,
    /// Tasks that were shown: how, and by which version of how their service is reached.
    shown: BTreeMap<Id, (Presence, Version)>,
    /// When tasks that went down with the host are started again without a word from a manager.
    restart_at: Option<Stamp>,
    outputs: VecDeque<Output>,
}

impl Worker {
    /// The worker after a start of the daemon: with what it remembers and what the executor holds.
    pub fn new(now: Stamp, remembered: Remembered, held: Vec<Held>) -> Self {
        let mut worker = Self {
            generation: remembered.generation,
            controllers: BTreeMap::new(),
            held: held.into_iter().map(|held| (held.task, held)).collect(),
            shown: BTreeMap::new(),
            restart_at: None,
            outputs: VecDeque::new(),
        };
        for assignment in remembered.tasks {
            worker.take(now, assignment);
        }
        if worker.controllers.values().any(Controller::is_lost) {
            worker.restart_at = Some(now + REBOOT_WAIT);
        }
        worker
    }

    /// The set that was taken last.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// What is known of each task.
    pub fn statuses(&self) -> impl Iterator<Item = (Id, &TaskStatus)> {
        self.controllers.iter().map(|(id, controller)| (*id, controller.status()))
    }

    /// Takes a set of the leader.
    ///
    /// # Errors
    /// See [`SetError`]; after a gap the leader has to be asked for a full set.
    pub fn handle_set(&mut self, now: Stamp, set: AssignmentSet) -> Result<(), SetError> {
        match set {
            AssignmentSet::Full { generation, tasks, later } => {
                self.advance(generation)?;
                self.take_full(now, tasks, &later);
            }
            AssignmentSet::Changes { base, generation, update, remove } => {
                if base != self.generation {
                    return Err(SetError::Gap { have: self.generation, base });
                }
                self.advance(generation)?;
                for assignment in update {
                    self.take(now, assignment);
                }
                for task in remove {
                    self.forget(now, task);
                }
            }
        }
        self.restart_lost(now);
        self.remember();
        Ok(())
    }

    fn advance(&mut self, generation: Generation) -> Result<(), SetError> {
        if generation <= self.generation {
            return Err(SetError::Old { have: self.generation, got: generation });
        }
        self.generation = generation;
        Ok(())
    }

    /// Of the tasks that come `later`, all stays as it is until then.
    fn take_full(&mut self, now: Stamp, tasks: Vec<Assignment>, later: &[Id]) {
        let named: BTreeSet<Id> = tasks.iter().map(|task| task.task).chain(later.iter().copied()).collect();
        let gone: Vec<Id> = self.controllers.keys().filter(|task| !named.contains(task)).copied().collect();
        for assignment in tasks {
            self.take(now, assignment);
        }
        for task in gone {
            self.forget(now, task);
        }
        let unknown: Vec<Id> = self.held.keys().filter(|task| !named.contains(task)).copied().collect();
        for task in unknown {
            self.held.remove(&task);
            self.outputs.push_back(Output::Discard { task });
        }
    }

    fn take(&mut self, now: Stamp, assignment: Assignment) {
        let task = assignment.task;
        match (self.controllers.get_mut(&task), self.held.remove(&task)) {
            (Some(controller), _) => controller.handle_assignment(assignment),
            (None, Some(held)) => {
                let controller = Controller::adopt(assignment, held);
                self.introduce(task, controller);
            }
            (None, None) => {
                let controller = Controller::new(now, assignment);
                self.introduce(task, controller);
            }
        }
        self.step(now, task);
    }

    fn introduce(&mut self, task: Id, controller: Controller) {
        self.outputs.push_back(Output::Report { task, status: controller.status().clone() });
        self.controllers.insert(task, controller);
    }

    fn forget(&mut self, now: Stamp, task: Id) {
        if let Some(controller) = self.controllers.get_mut(&task) {
            controller.handle_forgotten();
            self.step(now, task);
        }
    }

    /// Takes the result of a step. One of an earlier attempt changes nothing.
    pub fn handle_done(&mut self, now: Stamp, task: Id, attempt: u32, done: Done) {
        let Some(controller) = self.controllers.get_mut(&task) else { return };
        if controller.status().attempt != attempt {
            return;
        }
        let before = controller.status().state;
        controller.handle_done(now, done);
        self.tell(task, before);
        self.step(now, task);
    }

    /// Tells what has become of a task that was in the state `before`. Whoever may be sent to it is told first: managers
    /// have time.
    fn tell(&mut self, task: Id, before: TaskState) {
        let Some(controller) = self.controllers.get(&task) else { return };
        let version = controller.assignment().exposure.version;
        let presence = controller.presence().map(|presence| (presence, version));
        if self.shown.get(&task).copied() != presence {
            self.outputs.push_back(show(controller, &mut self.shown));
        }
        if controller.status().state != before {
            self.outputs.push_back(Output::Report { task, status: controller.status().clone() });
        }
    }

    fn step(&mut self, now: Stamp, task: Id) {
        while let Some(controller) = self.controllers.get_mut(&task) {
            let before = controller.status().state;
            let next = controller.next(now);
            self.tell(task, before);
            let Some(controller) = self.controllers.get(&task) else { return };
            match next {
                Next::Do(step) => self.outputs.push_back(Output::Do {
                    assignment: Box::new(controller.assignment().clone()),
                    attempt: controller.status().attempt,
                    step,
                }),
                Next::Idle => return,
                Next::Gone => {
                    self.controllers.remove(&task);
                    self.outputs.push_back(Output::Withdraw { task });
                    return;
                }
            }
        }
    }

    fn restart_lost(&mut self, now: Stamp) {
        if self.restart_at.take().is_none() {
            return;
        }
        let lost: Vec<Id> = self.controllers.iter().filter(|(_, c)| c.is_lost()).map(|(id, _)| *id).collect();
        for task in lost {
            if let Some(controller) = self.controllers.get_mut(&task) {
                controller.restart_lost(now);
                self.outputs.push_back(Output::Report { task, status: controller.status().clone() });
            }
            self.step(now, task);
        }
    }

    fn remember(&mut self) {
        let tasks = self.controllers.values().map(|controller| controller.assignment().clone()).collect();
        self.outputs.push_back(Output::Remember(Remembered { generation: self.generation, tasks }));
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Stamp) {
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart_lost(now);
        }
    }

    /// When [`Worker::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Stamp> {
        self.restart_at
    }

    /// What is to happen outside, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

/// What others are told of a task whose presence has changed.
fn show(controller: &Controller, shown: &mut BTreeMap<Id, (Presence, Version)>) -> Output {
    let assignment = controller.assignment();
    match controller.presence() {
        Some(presence) => {
            shown.insert(assignment.task, (presence, assignment.exposure.version));
            Output::Show {
                assignment: Box::new(assignment.clone()),
                container: controller.status().container.clone().unwrap_or_default(),
                presence,
            }
        }
        None => {
            shown.remove(&assignment.task);
            Output::Hide { task: assignment.task }
        }
    }
}
