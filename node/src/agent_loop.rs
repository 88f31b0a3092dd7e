//! The agent loop: owns the worker machine, has the executor take its steps, and tells what became of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use covey_agent::{
    controller::{Done, Presence, Step},
    executor::{Executor, ExecutorError},
    worker::{Output, Remembered, SetError, Worker},
};
use covey_state::{
    Id,
    assignment::{Assignment, AssignmentSet},
    task::ContainerStatus,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    clock, disk,
    endpoint::{self, Host, Scope},
    gossip_loop::{GossipHandle, Part},
};

/// Inputs that wait for the loop.
const INPUTS_MAX: usize = 1024;
/// Between the word that a task takes nothing new and its stop signal: by then all hosts have heard it.
const DRAIN: Duration = Duration::from_millis(200);
/// Wait after a removal that failed.
const REMOVE_AGAIN: Duration = Duration::from_secs(1);
/// Bytes of the remembered set, at most.
const REMEMBERED_MAX: usize = 64 << 20;

enum Input {
    Set { set: AssignmentSet, taken: oneshot::Sender<Result<(), SetError>> },
    Done { task: Id, attempt: u32, done: Done },
}

/// The way to the loop. It ends when the last one is dropped.
#[derive(Clone)]
pub struct AgentHandle(mpsc::Sender<Input>);

impl AgentHandle {
    /// Hands over a set; `None` where the loop has ended.
    pub async fn assign(&self, set: AssignmentSet) -> Option<Result<(), SetError>> {
        let (taken, answer) = oneshot::channel();
        self.0.send(Input::Set { set, taken }).await.ok()?;
        answer.await.ok()
    }
}

/// A task that others may be sent to.
struct Shown {
    assignment: Box<Assignment>,
    container: ContainerStatus,
    presence: Presence,
    /// Where it was told of.
    scopes: BTreeSet<Scope>,
}

/// Everything that the loop works with.
pub struct AgentLoop<E> {
    worker: Worker,
    executor: Arc<E>,
    gossip: GossipHandle,
    /// How this node's endpoints are reached, once it was told.
    host: watch::Receiver<Option<Host>>,
    /// Tasks that others may be sent to.
    shown: BTreeMap<Id, Shown>,
    remember: watch::Sender<Option<Remembered>>,
    tasks: TaskTracker,
    inputs: mpsc::Receiver<Input>,
    back: mpsc::WeakSender<Input>,
    over: CancellationToken,
    _over: DropGuard,
}

impl<E: Executor> AgentLoop<E> {
    /// A loop that goes on where the daemon before it stopped: with the set in `file` and what the executor holds.
    ///
    /// # Errors
    /// The file is damaged, or the executor does not answer.
    pub async fn new(
        file: PathBuf,
        executor: Arc<E>,
        gossip: GossipHandle,
        host: watch::Receiver<Option<Host>>,
        tasks: TaskTracker,
    ) -> anyhow::Result<(Self, AgentHandle)> {
        let remembered = match disk::read(&file, REMEMBERED_MAX as u64)? {
            Some(bytes) => covey_wire::decode::<Remembered, REMEMBERED_MAX>(&bytes)
                .map_err(|error| anyhow::anyhow!("{} is damaged: {error}", file.display()))?,
            None => Remembered::default(),
        };
        let worker = Worker::new(clock::now(), remembered, executor.held().await?);
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let (remember, watched) = watch::channel(None);
        tasks.spawn(write_remembered(file, watched));
        let back = sender.downgrade();
        let over = CancellationToken::new();
        let _over = over.clone().drop_guard();
        let shown = BTreeMap::new();
        let agent =
            Self { worker, executor, gossip, host, shown, remember, tasks, inputs, back, over, _over };
        Ok((agent, AgentHandle(sender)))
    }

    /// Runs until nobody holds a handle any more.
    pub async fn run(mut self) {
        self.carry_out().await;
        self.gossip.told(Part::Tasks).await;
        loop {
            self.carry_out().await;
            let due = self.worker.poll_timeout().map(|at| clock::monotonic() + at.since(clock::now()));
            tokio::select! {
                input = self.inputs.recv() => match input {
                    Some(Input::Set { set, taken }) => {
                        // Whoever handed it over may be gone.
                        let _ = taken.send(self.worker.handle_set(clock::now(), set));
                    }
                    Some(Input::Done { task, attempt, done }) => {
                        self.worker.handle_done(clock::now(), task, attempt, done);
                    }
                    None => return,
                },
                () = clock::until(due) => {
                    self.worker.handle_timeout(clock::now());
                }
                // The sender lives as long as the daemon.
                _ = self.host.changed() => self.show_all().await,
            }
        }
    }

    async fn carry_out(&mut self) {
        while let Some(output) = self.worker.poll_output() {
            match output {
                Output::Do { assignment, attempt, step } => self.take_step(*assignment, attempt, step),
                Output::Report { task, status } => self.gossip.report(task, &status).await,
                Output::Show { assignment, container, presence } => {
                    let task = assignment.task;
                    let scopes = self.shown.remove(&task).map(|shown| shown.scopes).unwrap_or_default();
                    self.shown.insert(task, Shown { assignment, container, presence, scopes });
                    self.show(task).await;
                }
                Output::Hide { task } => self.hide(task).await,
                Output::Withdraw { task } => self.gossip.withdraw(task).await,
                Output::Discard { task } => {
                    let executor = self.executor.clone();
                    self.tasks.spawn(async move { remove(&*executor, task).await });
                }
                Output::Remember(remembered) => _ = self.remember.send_replace(Some(remembered)),
            }
        }
    }

    /// Tells all who may be sent to a task.
    async fn show(&mut self, task: Id) {
        // Without a number this node is told of soon, and shows everything then.
        let (Some(host), Some(shown)) = (*self.host.borrow(), self.shown.get_mut(&task)) else { return };
        let draining = shown.presence == Presence::Draining;
        let told = endpoint::of_task(&shown.assignment, &shown.container, host, draining);
        let scopes = told.iter().map(|(scope, _)| *scope).collect();
        let before = std::mem::replace(&mut shown.scopes, scopes);
        let key = task.to_string();
        for scope in before.difference(&shown.scopes) {
            self.gossip.conceal(*scope, &key).await;
        }
        for (scope, told) in told {
            self.gossip.expose(scope, &key, &told).await;
        }
    }

    /// This node is reached another way than before.
    async fn show_all(&mut self) {
        for task in self.shown.keys().copied().collect::<Vec<_>>() {
            self.show(task).await;
        }
    }

    /// Tells all that nobody is there any more.
    async fn hide(&mut self, task: Id) {
        for scope in self.shown.remove(&task).map(|shown| shown.scopes).unwrap_or_default() {
            self.gossip.conceal(scope, &task.to_string()).await;
        }
    }

    fn take_step(&self, assignment: Assignment, attempt: u32, step: Step) {
        let (executor, back, over) = (self.executor.clone(), self.back.clone(), self.over.clone());
        self.tasks.spawn(async move {
            let task = assignment.task;
            let done = match step {
                Step::Prepare => Done::Prepared(executor.prepare(&assignment, attempt).await),
                Step::Start => Done::Started(executor.start(task).await),
                Step::Health => match over.run_until_cancelled(executor.healthy(task)).await {
                    Some(()) => Done::Healthy,
                    None => return,
                },
                // Containers outlive the loop: nobody waits longer than it does.
                Step::Wait => match over.run_until_cancelled(executor.wait(task)).await {
                    Some(exited) => Done::Exited(exited),
                    None => return,
                },
                Step::Stop { grace } => {
                    if is_reached(&assignment) {
                        sleep(DRAIN).await;
                    }
                    Done::Stopped(executor.stop(task, grace).await)
                }
                Step::Remove => Done::Removed(remove(&*executor, task).await),
            };
            if let Some(back) = back.upgrade() {
                // Fails only when the loop has ended meanwhile; the next daemon finds what was done.
                let _ = back.send(Input::Done { task, attempt, done }).await;
            }
        });
    }
}

/// Others may be sent to the task.
fn is_reached(assignment: &Assignment) -> bool {
    !assignment.networks.is_empty() || !assignment.exposure.ports.is_empty()
}

/// Removes what is left of a task. After a failure it waits before it says so, since it will be asked again.
async fn remove(executor: &impl Executor, task: Id) -> Result<(), ExecutorError> {
    let removed = executor.remove(task).await;
    if let Err(error) = &removed {
        tracing::warn!(%task, %error, "what is left of a task cannot be removed yet");
        sleep(REMOVE_AGAIN).await;
    }
    removed
}

/// Keeps the file as the last set is: sets that come faster than the disk are skipped.
async fn write_remembered(file: PathBuf, mut watched: watch::Receiver<Option<Remembered>>) {
    while watched.changed().await.is_ok() {
        let Some(remembered) = watched.borrow_and_update().clone() else { continue };
        let file = file.clone();
        let written =
            tokio::task::spawn_blocking(move || disk::write(&file, &covey_wire::encode(&remembered)?)).await;
        match written {
            Ok(Err(error)) => tracing::error!(%error, "the assignments cannot be remembered"),
            Err(error) => tracing::error!(%error, "the assignments cannot be remembered"),
            Ok(Ok(())) => {}
        }
    }
}
