//! The controller of one task: from its state and what is desired, the next step.

use std::time::Duration;

use covey_state::{
    assignment::Assignment,
    task::{ContainerStatus, DesiredState, TaskState, TaskStatus},
    time::Stamp,
};

use crate::executor::{ExecutorError, Exit, Held, HeldState, Started};

/// What the executor is asked to do for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Fetch the image, create the container.
    Prepare,
    /// Start it.
    Start,
    /// Wait until it is well.
    Health,
    /// Wait for its end.
    Wait,
    /// Stop it.
    Stop {
        /// Time between the stop signal and `SIGKILL`.
        grace: Duration,
    },
    /// Remove what is left of it.
    Remove,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Of [`Step::Prepare`].
    Prepared(Result<ContainerStatus, ExecutorError>),
    /// Of [`Step::Start`].
    Started(Result<Started, ExecutorError>),
    /// Of [`Step::Health`].
    Healthy,
    /// Of [`Step::Wait`].
    Exited(Result<Exit, ExecutorError>),
    /// Of [`Step::Stop`].
    Stopped(Result<(), ExecutorError>),
    /// Of [`Step::Remove`].
    Removed(Result<(), ExecutorError>),
}

/// What a controller wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A step of the executor.
    Do(Step),
    /// Nothing until something happens.
    Idle,
    /// Nothing, ever: the task is forgotten and nothing of it is left.
    Gone,
}

/// Whether others are to be sent to a task that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It takes what comes.
    Serving,
    /// It is about to be stopped: what it has goes on, nothing new comes.
    Draining,
}

/// One task on its way.
#[derive(Debug)]
pub struct Controller {
    assignment: Assignment,
    status: TaskStatus,
    /// A step other than `Wait` and `Health` is under way.
    busy: bool,
    /// `Wait` is under way.
    waiting: bool,
    /// How far it is known to be well.
    health: Health,
    /// The task has ended, and its container runs on: it is to be stopped.
    runs_on: bool,
    /// A stop was asked for: the end that follows is no failure.
    stopping: bool,
    /// The executor may hold something for the task.
    holding: bool,
    /// The leader no longer knows the task.
    forgotten: bool,
    /// The host went down with the task; it waits to be started again as the next attempt.
    lost: bool,
}

/// Whether it is known that a started container is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// It is, or nothing was started yet.
    Known,
    /// Somebody has to ask.
    Unknown,
    /// `Health` is under way.
    Asked,
}

impl Controller {
    /// The controller of a task that this node sees for the first time.
    pub fn new(now: Stamp, assignment: Assignment) -> Self {
        Self::at(now, assignment, 1, TaskState::Accepted)
    }

    /// The controller of a task of which the executor still holds something from before a restart of the daemon.
    pub fn adopt(assignment: Assignment, held: Held) -> Self {
        let Held { attempt, container, state, since, .. } = held;
        let mut controller = Self::at(since, assignment, attempt, TaskState::Ready);
        controller.holding = true;
        controller.status.container = Some(container);
        match state {
            HeldState::Created => {}
            HeldState::Running => controller.enter(since, TaskState::Running, "started"),
            HeldState::Exited(exit) => {
                controller.stopping = controller.assignment.desired >= DesiredState::Shutdown;
                controller.handle_exit(since, Ok(exit));
            }
            HeldState::Lost => controller.lost = true,
        }
        controller
    }

    fn at(now: Stamp, assignment: Assignment, attempt: u32, state: TaskState) -> Self {
        let message = state.as_str().to_owned();
        let status = TaskStatus { attempt, state, at: now, message, error: String::new(), container: None };
        Self {
            assignment,
            status,
            busy: false,
            waiting: false,
            health: Health::Known,
            runs_on: false,
            stopping: false,
            holding: false,
            forgotten: false,
            lost: false,
        }
    }

    /// The task.
    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// What is known of it; the row that its node tells the managers.
    pub fn status(&self) -> &TaskStatus {
        &self.status
    }

    /// Whether others are to be sent to it; `None`: nobody is there.
    pub fn presence(&self) -> Option<Presence> {
        let presence = if self.wants_running() { Presence::Serving } else { Presence::Draining };
        (self.status.state == TaskState::Running && !self.lost).then_some(presence)
    }

    /// True while the task waits for [`Controller::restart_lost`].
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// The leader wants something else of the task, or its service is reached in another way.
    pub fn handle_assignment(&mut self, assignment: Assignment) {
        let exposure = std::mem::replace(&mut self.assignment, assignment).exposure;
        // A service that was removed is exposed no more; its tasks drain as what they were.
        if self.assignment.exposure.version == 0 {
            self.assignment.exposure = exposure;
        }
    }

    /// The leader no longer knows the task: stop it, remove it, be gone.
    pub fn handle_forgotten(&mut self) {
        self.forgotten = true;
    }

    /// Starts a task again with which the host went down.
    pub fn restart_lost(&mut self, now: Stamp) {
        if std::mem::take(&mut self.lost) && self.wants_running() {
            self.status = TaskStatus {
                container: None,
                ..Self::at(now, self.assignment.clone(), self.status.attempt + 1, TaskState::Accepted).status
            };
        }
    }

    fn wants_running(&self) -> bool {
        !self.forgotten && self.assignment.desired <= DesiredState::Running
    }

    /// The next step; marks it as under way.
    pub fn next(&mut self, now: Stamp) -> Next {
        if self.busy || (self.lost && self.wants_running()) {
            return Next::Idle;
        }
        if self.status.state.is_terminal() {
            return self.next_of_ended();
        }
        if self.wants_running() { self.next_towards_running(now) } else { self.next_towards_end(now) }
    }

    fn next_of_ended(&mut self) -> Next {
        if std::mem::take(&mut self.runs_on) {
            return self.begin(self.stop());
        }
        match (self.forgotten, self.holding) {
            (true, true) => self.begin(Step::Remove),
            (true, false) => Next::Gone,
            (false, _) => Next::Idle,
        }
    }

    fn next_towards_running(&mut self, now: Stamp) -> Next {
        match self.status.state {
            TaskState::Accepted => {
                self.enter(now, TaskState::Preparing, "preparing");
                self.holding = true;
                self.begin(Step::Prepare)
            }
            TaskState::Ready if self.assignment.desired == DesiredState::Running => {
                self.enter(now, TaskState::Starting, "starting");
                self.begin(Step::Start)
            }
            TaskState::Running if !self.waiting => self.wait(),
            TaskState::Starting if self.health != Health::Known && !self.waiting => self.wait(),
            TaskState::Starting if self.health == Health::Unknown => {
                self.health = Health::Asked;
                Next::Do(Step::Health)
            }
            _ => Next::Idle,
        }
    }

    fn next_towards_end(&mut self, now: Stamp) -> Next {
        let runs = matches!(self.status.state, TaskState::Starting | TaskState::Running);
        if !runs || self.lost {
            self.end(now, TaskState::Shutdown, "shutdown", String::new());
            return self.next_of_ended();
        }
        if !self.waiting {
            return self.wait();
        }
        if self.stopping {
            return Next::Idle;
        }
        self.stopping = true;
        self.begin(self.stop())
    }

    const fn wait(&mut self) -> Next {
        self.waiting = true;
        Next::Do(Step::Wait)
    }

    fn stop(&self) -> Step {
        Step::Stop { grace: self.assignment.spec.container.stop_grace() }
    }

    fn begin(&mut self, step: Step) -> Next {
        self.busy = true;
        Next::Do(step)
    }

    /// A step ended.
    pub fn handle_done(&mut self, now: Stamp, done: Done) {
        match done {
            Done::Exited(result) => {
                self.waiting = false;
                self.handle_exit(now, result);
                return;
            }
            Done::Healthy => {
                self.health = Health::Known;
                if self.status.state == TaskState::Starting {
                    self.enter(now, TaskState::Running, "started");
                }
                return;
            }
            Done::Prepared(Ok(container)) => {
                self.status.container = Some(container);
                self.enter(now, TaskState::Ready, "prepared");
            }
            Done::Started(Ok(Started { container, healthy })) => {
                self.status.container = Some(container);
                if healthy {
                    self.enter(now, TaskState::Running, "started");
                } else {
                    self.health = Health::Unknown;
                }
            }
            Done::Prepared(Err(error)) | Done::Started(Err(error)) => self.handle_refusal(now, error),
            // The end is told by the wait; where the stop itself failed the container is no longer ours to stop.
            Done::Stopped(Ok(())) => {}
            Done::Stopped(Err(error)) => self.end(now, TaskState::Shutdown, "shutdown", error.to_string()),
            Done::Removed(result) => self.holding = result.is_err(),
        }
        self.busy = false;
    }

    fn handle_exit(&mut self, now: Stamp, result: Result<Exit, ExecutorError>) {
        let exit = match result {
            Ok(exit) => exit,
            Err(error @ ExecutorError::Unhealthy(_)) if !self.stopping => {
                self.runs_on = true;
                return self.end(now, TaskState::Failed, "started", error.to_string());
            }
            Err(error) => {
                let state = if self.stopping { TaskState::Shutdown } else { TaskState::Failed };
                return self.end(now, state, "lost", error.to_string());
            }
        };
        self.status.container.get_or_insert_default().exit_code = Some(exit.code);
        match (self.stopping, exit.code) {
            (true, _) => self.end(now, TaskState::Shutdown, "shutdown", String::new()),
            (false, 0) => self.end(now, TaskState::Complete, "finished", String::new()),
            (false, code) => {
                let memory = if exit.oom_killed { ": out of memory" } else { "" };
                self.end(now, TaskState::Failed, "started", format!("task: non-zero exit ({code}){memory}"));
            }
        }
    }

    fn handle_refusal(&mut self, now: Stamp, error: ExecutorError) {
        let state = match error {
            ExecutorError::Rejected(_) => TaskState::Rejected,
            ExecutorError::Failed(_) | ExecutorError::Unhealthy(_) | ExecutorError::NoContainer(_) => {
                TaskState::Failed
            }
        };
        let message = self.status.message.clone();
        self.end(now, state, &message, error.to_string());
    }

    fn enter(&mut self, now: Stamp, state: TaskState, message: &str) {
        self.status.state = state;
        self.status.at = now;
        self.status.message = message.to_owned();
    }

    fn end(&mut self, now: Stamp, state: TaskState, message: &str, error: String) {
        // The first end is the true one: states only grow.
        if !self.status.state.is_terminal() {
            self.enter(now, state, message);
            self.status.error = error;
        }
    }
}

#[cfg(test)]
mod tests {
    use covey_state::Id;

    use super::*;
    use crate::fixture;

    fn assignment(desired: DesiredState) -> Assignment {
        fixture::assignment(1, desired)
    }

    fn container() -> ContainerStatus {
        ContainerStatus { id: "c".into(), pid: 7, ..ContainerStatus::default() }
    }

    const T: Stamp = Stamp(5);

    fn running() -> Controller {
        let mut c = Controller::new(T, assignment(DesiredState::Running));
        assert_eq!(c.next(T), Next::Do(Step::Prepare));
        c.handle_done(T, Done::Prepared(Ok(container())));
        assert_eq!(c.next(T), Next::Do(Step::Start));
        c.handle_done(T, Done::Started(Ok(Started { container: container(), healthy: true })));
        assert_eq!(c.next(T), Next::Do(Step::Wait));
        assert_eq!(c.next(T), Next::Idle);
        c
    }

    fn checked() -> Controller {
        let mut c = Controller::new(T, assignment(DesiredState::Running));
        c.next(T);
        c.handle_done(T, Done::Prepared(Ok(container())));
        c.next(T);
        c.handle_done(T, Done::Started(Ok(Started { container: container(), healthy: false })));
        assert_eq!(c.next(T), Next::Do(Step::Wait));
        assert_eq!(c.next(T), Next::Do(Step::Health));
        assert_eq!(c.next(T), Next::Idle);
        assert_eq!((c.status().state, c.presence()), (TaskState::Starting, None));
        c
    }

    /// TSK-14, LB-07: nobody is sent to a task that is not well.
    #[test]
    fn a_task_that_is_checked_runs_once_it_is_healthy() {
        let mut c = checked();
        c.handle_done(T, Done::Healthy);
        assert_eq!((c.status().state, c.presence()), (TaskState::Running, Some(Presence::Serving)));
        assert_eq!(c.next(T), Next::Idle);
    }

    /// TSK-14, LB-07
    #[test]
    fn a_task_that_is_not_healthy_fails_at_once_and_is_stopped_then() {
        for healthy_before in [false, true] {
            let mut c = checked();
            if healthy_before {
                c.handle_done(T, Done::Healthy);
            }
            c.handle_done(T, Done::Exited(Err(ExecutorError::Unhealthy("no answer".into()))));
            assert_eq!((c.status().state, c.presence()), (TaskState::Failed, None));
            assert_eq!(c.status().error, "unhealthy container: no answer");
            assert_eq!(c.next(T), Next::Do(Step::Stop { grace: Duration::from_secs(10) }));
            c.handle_done(T, Done::Stopped(Ok(())));
            c.handle_done(T, Done::Healthy);
            assert_eq!((c.next(T), c.status().state), (Next::Idle, TaskState::Failed));
        }
    }

    /// TSK-14
    #[test]
    fn a_task_that_never_became_healthy_is_stopped_like_any_other() {
        let mut c = checked();
        c.handle_assignment(assignment(DesiredState::Shutdown));
        assert_eq!(c.next(T), Next::Do(Step::Stop { grace: Duration::from_secs(10) }));
        c.handle_done(T, Done::Exited(Err(ExecutorError::Unhealthy(String::new()))));
        c.handle_done(T, Done::Stopped(Ok(())));
        assert_eq!((c.next(T), c.status().state), (Next::Idle, TaskState::Shutdown));
    }

    /// TSK-02, TSK-07
    #[test]
    fn a_task_is_prepared_started_and_waited_for() {
        assert_eq!(running().status().state, TaskState::Running);
    }

    /// TSK-11: the error names the exit code.
    #[test]
    fn an_end_with_an_error_is_a_failure() {
        let mut c = running();
        c.handle_done(T, Done::Exited(Ok(Exit { code: 137, oom_killed: false })));
        assert_eq!(c.status().state, TaskState::Failed);
        assert_eq!(c.status().error, "task: non-zero exit (137)");
        assert_eq!(c.next(T), Next::Idle);
    }

    /// TSK-02
    #[test]
    fn an_end_without_an_error_is_complete() {
        let mut c = running();
        c.handle_done(T, Done::Exited(Ok(Exit { code: 0, oom_killed: false })));
        assert_eq!(c.status().state, TaskState::Complete);
    }

    /// TSK-18: whatever the exit code of a task that was asked to stop, it did not fail.
    #[test]
    fn a_task_that_is_asked_to_stop_ends_as_shutdown() {
        let mut c = running();
        c.handle_assignment(assignment(DesiredState::Shutdown));
        assert_eq!(c.next(T), Next::Do(Step::Stop { grace: Duration::from_secs(10) }));
        c.handle_done(T, Done::Exited(Ok(Exit { code: 137, oom_killed: false })));
        c.handle_done(T, Done::Stopped(Ok(())));
        assert_eq!((c.status().state, c.status().error.as_str()), (TaskState::Shutdown, ""));
        assert_eq!(c.next(T), Next::Idle);
        c.handle_forgotten();
        assert_eq!(c.next(T), Next::Do(Step::Remove));
        c.handle_done(T, Done::Removed(Ok(())));
        assert_eq!(c.next(T), Next::Gone);
    }

    /// TSK-12
    #[test]
    fn a_task_that_waits_for_its_turn_is_prepared_but_not_started() {
        let mut c = Controller::new(T, assignment(DesiredState::Ready));
        assert_eq!(c.next(T), Next::Do(Step::Prepare));
        c.handle_done(T, Done::Prepared(Ok(container())));
        assert_eq!((c.next(T), c.status().state), (Next::Idle, TaskState::Ready));
        c.handle_assignment(assignment(DesiredState::Running));
        assert_eq!(c.next(T), Next::Do(Step::Start));
    }

    /// TSK-02: a node that cannot take a task rejects it.
    #[test]
    fn a_task_that_cannot_be_prepared_is_rejected() {
        let mut c = Controller::new(T, assignment(DesiredState::Running));
        c.next(T);
        c.handle_done(T, Done::Prepared(Err(ExecutorError::Rejected("No such image: x".into()))));
        assert_eq!((c.status().state, c.status().error.as_str()), (TaskState::Rejected, "No such image: x"));
    }

    /// TSK-13
    #[test]
    fn a_container_removed_behind_our_back_is_a_failure() {
        let mut c = running();
        c.handle_done(T, Done::Exited(Err(ExecutorError::NoContainer("web.1.x".into()))));
        assert_eq!(
            (c.status().state, c.status().error.as_str()),
            (TaskState::Failed, "No such container: web.1.x")
        );
    }

    #[test]
    fn a_task_that_is_forgotten_before_it_began_leaves_nothing() {
        let mut c = Controller::new(T, assignment(DesiredState::Running));
        c.handle_forgotten();
        assert_eq!(c.next(T), Next::Gone);
    }

    #[test]
    fn a_task_that_is_forgotten_while_it_is_prepared_is_removed_afterwards() {
        let mut c = Controller::new(T, assignment(DesiredState::Running));
        c.next(T);
        c.handle_forgotten();
        assert_eq!(c.next(T), Next::Idle);
        c.handle_done(T, Done::Prepared(Ok(container())));
        assert_eq!(c.next(T), Next::Do(Step::Remove));
    }

    #[test]
    fn a_task_that_ended_while_no_daemon_ran_is_reported_with_its_exit_code() {
        let held = Held {
            task: Id::new(1),
            attempt: 1,
            container: container(),
            state: HeldState::Exited(Exit { code: 42, oom_killed: false }),
            since: Stamp(3),
        };
        let c = Controller::adopt(assignment(DesiredState::Running), held);
        assert_eq!(c.status().at, Stamp(3));
        assert_eq!(c.status().error, "task: non-zero exit (42)");
        assert_eq!(c.status().container.as_ref().unwrap().exit_code, Some(42));
    }

    #[test]
    fn a_task_that_went_down_with_its_host_starts_as_its_next_attempt() {
        let held =
            Held { task: Id::new(1), attempt: 3, container: container(), state: HeldState::Lost, since: T };
        let mut c = Controller::adopt(assignment(DesiredState::Running), held);
        assert_eq!(c.next(T), Next::Idle);
        c.restart_lost(T);
        assert_eq!((c.status().attempt, c.status().state), (4, TaskState::Accepted));
        assert_eq!(c.next(T), Next::Do(Step::Prepare));
    }
}
