//! What the agent needs from a container engine.

use std::{future::Future, time::Duration};

use covey_state::{Id, assignment::Assignment, task::ContainerStatus, time::Stamp};

/// A step of a task failed; the text is the task's error, for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecutorError {
    /// The node cannot run this task at all: an image that does not exist, a mount source that is missing.
    #[error("{0}")]
    Rejected(String),
    /// The step went wrong; another task may succeed.
    #[error("{0}")]
    Failed(String),
    /// The container runs, but its checks say that it is not well: what the last one wrote.
    #[error("unhealthy container{between}{0}", between = if .0.is_empty() { "" } else { ": " })]
    Unhealthy(String),
    /// The container is gone, behind the agent's back.
    #[error("No such container: {0}")]
    NoContainer(String),
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 + signal where a signal ended it.
    pub code: i32,
    /// The kernel killed it for want of memory.
    pub oom_killed: bool,
}

/// A container that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// It.
    pub container: ContainerStatus,
    /// Nobody checks it, or it is well already.
    pub healthy: bool,
}

/// A container that the engine still holds for a task, found when the daemon starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The task.
    pub task: Id,
    /// Which start of the task made it.
    pub attempt: u32,
    /// The container.
    pub container: ContainerStatus,
    /// How far it is.
    pub state: HeldState,
    /// When it got there.
    pub since: Stamp,
}

/// How far a [`Held`] container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldState {
    /// Created, never started.
    Created,
    /// Running.
    Running,
    /// Ended, with its exit known.
    Exited(Exit),
    /// The host went down with it: it ran before the last boot.
    Lost,
}

/// Runs the containers of tasks. Each method is one step; a crash in between is mended by calling it again.
pub trait Executor: Send + Sync + 'static {
    /// Everything that is held for tasks.
    fn held(&self) -> impl Future<Output = Result<Vec<Held>, ExecutorError>> + Send;

    /// Fetches the image where it is missing and creates the container. The container's id is known afterwards.
    fn prepare(
        &self,
        assignment: &Assignment,
        attempt: u32,
    ) -> impl Future<Output = Result<ContainerStatus, ExecutorError>> + Send;

    /// Starts the container of a prepared task.
    fn start(&self, task: Id) -> impl Future<Output = Result<Started, ExecutorError>> + Send;

    /// Waits until the container of a started task is well for the first time. Where it never is, [`Executor::wait`] says so.
    fn healthy(&self, task: Id) -> impl Future<Output = ()> + Send;

    /// Waits until the container of a started task has ended, or is [`ExecutorError::Unhealthy`].
    fn wait(&self, task: Id) -> impl Future<Output = Result<Exit, ExecutorError>> + Send;

    /// Sends the stop signal and, after `grace`, `SIGKILL`. Returns when the container has ended.
    fn stop(&self, task: Id, grace: Duration) -> impl Future<Output = Result<(), ExecutorError>> + Send;

    /// Removes the container; not an error where there is none.
    fn remove(&self, task: Id) -> impl Future<Output = Result<(), ExecutorError>> + Send;
}
