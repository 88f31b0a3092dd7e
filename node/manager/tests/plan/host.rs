//! A simulated host: its agent takes each task one step further at a time.

use std::{collections::BTreeMap, time::Duration};

use covey_state::{
    Id,
    assignment::{Assignment, Generation},
    task::{DesiredState, TaskState, TaskStatus},
    time::Stamp,
};

/// What a task's image makes of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    /// It runs until it is stopped.
    Runs,
    /// It ends with an error as soon as it runs.
    Crashes,
    /// It ends with exit code 0 as soon as it runs.
    Exits,
    /// Its node cannot take it.
    Rejected,
}

fn behaviour(image: &str) -> Behaviour {
    match image.split(':').next() {
        Some("crash") => Behaviour::Crashes,
        Some("exit") => Behaviour::Exits,
        Some("missing") => Behaviour::Rejected,
        _ => Behaviour::Runs,
    }
}

/// A host with its agent.
#[derive(Default)]
pub struct Host {
    pub up: bool,
    pub linked: bool,
    /// It cannot prepare anything.
    pub broken: bool,
    pub generation: Generation,
    pub tasks: BTreeMap<Id, Running>,
}

pub struct Running {
    pub assignment: Assignment,
    pub status: TaskStatus,
    /// When it has stopped, once it was asked to.
    pub stops_at: Option<Stamp>,
}

impl Running {
    /// One step further; false if there is none to take now.
    pub fn step(&mut self, now: Stamp, stop_time: Duration, broken: bool) -> bool {
        let Some(next) = self.next(now, stop_time, broken) else { return false };
        self.status = status(now, next, next.as_str());
        true
    }

    fn next(&mut self, now: Stamp, stop_time: Duration, broken: bool) -> Option<TaskState> {
        let state = self.status.state;
        let behaviour = behaviour(&self.assignment.spec.container.image);
        if state.is_terminal() {
            return None;
        }
        if self.assignment.desired >= DesiredState::Shutdown {
            let stops_at = *self.stops_at.get_or_insert(now + stop_time);
            let stopped = stops_at <= now || state != TaskState::Running;
            if stopped {
                self.stops_at = None;
            }
            return stopped.then_some(TaskState::Shutdown);
        }
        match state {
            TaskState::Accepted => Some(TaskState::Preparing),
            TaskState::Preparing if broken || behaviour == Behaviour::Rejected => Some(TaskState::Rejected),
            TaskState::Preparing => Some(TaskState::Ready),
            TaskState::Ready if self.assignment.desired == DesiredState::Running => Some(TaskState::Starting),
            TaskState::Starting => Some(TaskState::Running),
            TaskState::Running if behaviour == Behaviour::Crashes => Some(TaskState::Failed),
            TaskState::Running if behaviour == Behaviour::Exits => Some(TaskState::Complete),
            _ => None,
        }
    }
}

pub fn status(at: Stamp, state: TaskState, message: &str) -> TaskStatus {
    TaskStatus { attempt: 1, state, at, message: message.to_owned(), error: String::new(), container: None }
}
