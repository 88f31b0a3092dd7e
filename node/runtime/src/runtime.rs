//! The daemon side: the table of containers, and what does not start or read them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use covey_state::{
    container::Health,
    network::{PublishedPort, Wiring},
    time::Stamp,
};
use tokio::{
    sync::{Semaphore, broadcast, watch},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    cgroup::Cgroup,
    container::{Container, ContainerId, ContainerState, ExitStatus, LOST_WITH_HOST, Record},
    event::{Action, BACKLOG, Event},
    image::ImageStore,
    layout::{self, ExitRecord, Layout},
    name::{LookupError, Table},
    network::{BoxFuture, Network},
    sys,
};

pub(crate) mod adopt;

/// Containers that are started at the same time; the others wait, which is faster for all.
const LAUNCHES_MAX: usize = 8;
/// Exit code of a container whose shim was lost: as if it had been killed.
const LOST: i32 = 137;

/// Where a runtime lives and what it works with.
#[derive(Clone)]
pub struct Config {
    /// Containers' logs, exit codes and specs; one daemon at a time.
    pub data_root: PathBuf,
    /// Pids and sockets; should be a tmpfs.
    pub exec_root: PathBuf,
    /// Group below which each container gets its own, such as `/covey`. Never the root.
    pub cgroup_parent: String,
    /// The program that calls [`crate::reexec`] first thing in `main`: for the product `/proc/self/exe`.
    pub program: PathBuf,
    /// The images that containers are made of.
    pub images: ImageStore,
    /// Makes the networks of [`crate::NetworkMode::Edge`]; without one such containers do not start.
    pub network: Option<Arc<dyn Network>>,
}

/// The containers of this node. Cheap to clone; when the last clone is dropped the containers run on, and the next
/// [`Runtime::open`] finds them.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub config: Config,
    pub layout: Layout,
    pub cgroup: Cgroup,
    pub launches: Semaphore,
    /// A spawn leaves a descriptor open for its child: no other child may be born at that time.
    pub spawning: Mutex<()>,
    /// Cancelled when the runtime is dropped: ends the tasks that watch shims.
    pub open: CancellationToken,
    _guard: DropGuard,
    events: broadcast::Sender<Event>,
    table: Mutex<Table>,
}

/// One container in the table.
pub(crate) struct Slot {
    pub record: Record,
    pub life: watch::Sender<Life>,
    /// Held by whoever starts, buries or removes it.
    pub gate: tokio::sync::Mutex<()>,
}

/// What changes of a container.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub state: ContainerState,
    pub started_at: Option<Stamp>,
    pub pid: u32,
    pub addresses: Vec<std::net::IpAddr>,
    pub ports: Vec<PublishedPort>,
    pub wiring: Wiring,
    /// What the checks since its start say; none where nobody checks.
    pub health: Option<Health>,
    /// How often it has ended under this daemon.
    pub ends: u64,
    /// Somebody asked it to end.
    pub stopping: bool,
    pub removed: bool,
}

impl Life {
    /// Of a container that was never started.
    pub(crate) fn of(record: &Record) -> Self {
        Self {
            state: ContainerState::Created,
            started_at: None,
            pid: 0,
            addresses: vec![],
            ports: vec![],
            wiring: record.wiring.clone(),
            health: None,
            ends: 0,
            stopping: false,
            removed: false,
        }
    }
}

/// The runtime cannot work with these directories.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system or the kernel refused.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A newer version of this program made a container.
    #[error("{path} has format {format}, which is newer than this program's {known}", path = .path.display())]
    Newer {
        /// The container's directory.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The newest that is understood.
        known: u32,
    },
    /// A container's record is damaged.
    #[error("{path} is damaged; move the directory away to go on without this container", path = .path.display())]
    Corrupt {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl OpenError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// A container could not be stopped, killed, waited for, looked at or removed.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// Which container?
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It has no process.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// A running container is removed only by force.
    #[error(
        "cannot remove container \"/{name}\": container is running: stop the container before removing or force remove"
    )]
    Running {
        /// Its name.
        name: String,
    },
    /// The signal is none.
    #[error("Invalid signal: {0}")]
    Signal(String),
    /// The file system or the kernel refused.
    #[error("container {id}")]
    Io {
        /// The container.
        id: ContainerId,
        /// Why.
        source: io::Error,
    },
}

impl OperationError {
    pub(crate) fn io(id: &ContainerId) -> impl FnOnce(io::Error) -> Self {
        let id = id.clone();
        move |source| Self::Io { id, source }
    }
}

impl Runtime {
    /// Opens the runtime and adopts the containers of the one before: those that run go on, those that ended meanwhile
    /// have their exit code. Must be called on a tokio runtime.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let layout = Layout::open(&config.data_root, &config.exec_root)
            .map_err(OpenError::io("directories of the runtime"))?;
        let cgroup = Cgroup::at(Path::new(&config.cgroup_parent))
            .map_err(OpenError::io(format!("cgroup {}", config.cgroup_parent)))?;
        let open = CancellationToken::new();
        let runtime = Self {
            inner: Arc::new(Inner {
                config,
                layout,
                cgroup,
                launches: Semaphore::new(LAUNCHES_MAX),
                spawning: Mutex::new(()),
                _guard: open.clone().drop_guard(),
                open,
                events: broadcast::channel(BACKLOG).0,
                table: Mutex::default(),
            }),
        };
        adopt::adopt(&runtime.inner).await?;
        Ok(runtime)
    }

    /// What happens from now on. A listener that is more than 1024 events behind is told how many it lost.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// The container that `text` means: its full id, its name, or a beginning of its id that no other shares.
    pub fn find(&self, text: &str) -> Result<ContainerId, LookupError> {
        self.inner.find(text).map(|slot| slot.record.id.clone())
    }

    /// All containers, oldest first.
    pub fn list(&self) -> Vec<Container> {
        let mut all: Vec<_> = self.inner.table().slots.values().map(|slot| self.inner.show(slot)).collect();
        all.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.id.cmp(&b.id)));
        all
    }

    /// One container.
    pub fn inspect(&self, container: &str) -> Result<Container, LookupError> {
        self.inner.find(container).map(|slot| self.inner.show(&slot))
    }

    /// Waits until the container does not run, and says how it ended. One that was never started is waited for.
    pub async fn wait(&self, container: &str) -> Result<ExitStatus, OperationError> {
        let slot = self.inner.find(container)?;
        slot.ended().await.ok_or_else(|| LookupError::NotFound(container.to_owned()).into())
    }

    /// Waits for the next end of the container, even if it has ended before.
    pub async fn wait_next(&self, container: &str) -> Result<ExitStatus, OperationError> {
        let slot = self.inner.find(container)?;
        slot.ends_again().await.ok_or_else(|| LookupError::NotFound(container.to_owned()).into())
    }

    /// Waits until the container is removed; at once where there is none.
    pub async fn wait_removed(&self, container: &str) {
        if let Ok(slot) = self.inner.find(container) {
            let _ = slot.life.subscribe().wait_for(|life| life.removed).await;
        }
    }

    /// Sends `signal` (`SIGHUP`, `HUP`, `1`) to the container's init.
    pub fn kill(&self, container: &str, signal: &str) -> Result<(), OperationError> {
        let slot = self.inner.find(container)?;
        let number = crate::signal::parse(signal).ok_or_else(|| OperationError::Signal(signal.to_owned()))?;
        slot.signal(&self.inner, number)?;
        self.inner.tell(&slot.record, Action::Kill(number));
        Ok(())
    }

    /// Sends the stop signal and, after `grace` (`None`: the container's own), kills the container. Returns when it has
    /// ended; at once where it does not run.
    pub async fn stop(&self, container: &str, grace: Option<Duration>) -> Result<(), OperationError> {
        let slot = self.inner.find(container)?;
        if slot.life.borrow().state != ContainerState::Running {
            return Ok(());
        }
        slot.life.send_modify(|life| life.stopping = true);
        let signal = slot.record.invocation.stop_signal;
        match slot.signal(&self.inner, signal) {
            Ok(()) => self.inner.tell(&slot.record, Action::Kill(signal)),
            // It ended in between.
            Err(OperationError::NotRunning(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
        let grace = grace.unwrap_or_else(|| slot.record.spec.stop_grace());
        if tokio::time::timeout(grace, slot.ended()).await.is_err() {
            if slot.signal(&self.inner, libc::SIGKILL).is_ok() {
                self.inner.tell(&slot.record, Action::Kill(libc::SIGKILL));
            }
            slot.ended().await;
        }
        Ok(())
    }

    /// Removes a container with everything that it left. `force` kills it first.
    pub async fn remove(&self, container: &str, force: bool) -> Result<(), OperationError> {
        let slot = self.inner.find(container)?;
        loop {
            {
                // Nobody starts or buries it while we hold this.
                let _gate = slot.gate.lock().await;
                let life = slot.life.borrow().clone();
                if life.removed {
                    return Ok(());
                }
                if life.state != ContainerState::Running {
                    return self.inner.forget(&slot).await;
                }
            }
            if !force {
                return Err(OperationError::Running { name: slot.record.name.clone() });
            }
            match slot.signal(&self.inner, libc::SIGKILL) {
                Ok(()) | Err(OperationError::NotRunning(_)) => {}
                Err(error) => return Err(error),
            }
            slot.ended().await;
        }
    }

    /// The container's log, so that nobody needs to ask where it is.
    pub(crate) fn log_directory(&self, slot: &Slot) -> PathBuf {
        self.inner.layout.data(&slot.record.id)
    }
}

impl Slot {
    pub(crate) fn new(record: Record, life: Life) -> Arc<Self> {
        Arc::new(Self { record, life: watch::Sender::new(life), gate: tokio::sync::Mutex::default() })
    }

    /// Waits until it has ended; `None` if it was removed without ever running.
    pub(crate) async fn ended(&self) -> Option<ExitStatus> {
        let mut life = self.life.subscribe();
        let over = |life: &Life| life.removed || matches!(life.state, ContainerState::Exited(_));
        match &life.wait_for(over).await.ok()?.state {
            ContainerState::Exited(exit) => Some(exit.clone()),
            _ => None,
        }
    }

    /// Waits for an end that comes after now.
    pub(crate) async fn ends_again(&self) -> Option<ExitStatus> {
        let mut life = self.life.subscribe();
        let ends = life.borrow().ends;
        let life = life.wait_for(|life| life.ends > ends || life.removed).await.ok()?;
        match &life.state {
            ContainerState::Exited(exit) if life.ends > ends => Some(exit.clone()),
            _ => None,
        }
    }

    /// Signals its init. The shim reaps it only after it has ended, so its number is its own until the state changes.
    pub(crate) fn signal(&self, inner: &Inner, number: i32) -> Result<(), OperationError> {
        let id = &self.record.id;
        let init = layout::Process::read(&inner.layout.exec(id).join(layout::INIT));
        let running = self.life.borrow().state == ContainerState::Running;
        let init = init.filter(|_| running).and_then(layout::Process::open);
        let init = init.ok_or_else(|| OperationError::NotRunning(id.clone()))?;
        match sys::pidfd_send_signal(std::os::fd::AsFd::as_fd(&init), number) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                Err(OperationError::NotRunning(id.clone()))
            }
            other => other.map_err(OperationError::io(id)),
        }
    }
}

impl Inner {
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        // Each change of the table is complete in itself, so one that panicked elsewhere left it whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn find(&self, text: &str) -> Result<Arc<Slot>, LookupError> {
        self.table().find(text)
    }

    pub(crate) fn tell(&self, record: &Record, action: Action) {
        // Nobody listening is no error.
        let _ = self.events.send(Event::of(record, action));
    }

    /// The container as callers see it.
    fn show(&self, slot: &Slot) -> Container {
        let (record, life) = (&slot.record, slot.life.borrow().clone());
        let finished_at = match &life.state {
            ContainerState::Exited(exit) => Some(exit.at),
            _ => None,
        };
        Container {
            id: record.id.clone(),
            name: record.name.clone(),
            created: record.created,
            state: life.state,
            started_at: life.started_at,
            finished_at,
            pid: life.pid,
            hostname: record.hostname().to_owned(),
            log: self.layout.data(&record.id).join(layout::LOG),
            addresses: life.addresses,
            ports: life.ports,
            spec: record.spec.clone(),
            resources: record.resources,
            invocation: record.invocation.clone(),
            image: record.image.clone(),
            task: record.task,
            network: record.network.clone(),
            wiring: life.wiring,
            exposed_ports: record.exposed_ports.clone(),
            open_stdin: record.open_stdin,
            auto_remove: record.auto_remove,
            health_check: record.health_check.clone(),
            health: life.health,
        }
    }

    /// A container's cgroup.
    pub(crate) fn cgroup(&self, id: &ContainerId) -> Cgroup {
        self.cgroup.child(id.as_str())
    }

    /// A container's cgroup as its spec names it.
    pub(crate) fn cgroup_path(&self, id: &ContainerId) -> PathBuf {
        Path::new("/").join(&self.config.cgroup_parent).join(id.as_str())
    }

    /// The shim of a container is gone: reads how the container ended, cleans up, and tells. Without an exit record the
    /// shim was killed: the container cannot go on without it. The caller holds the gate.
    pub(crate) async fn bury(&self, slot: &Slot) {
        let id = &slot.record.id;
        let (data, exec, cgroup) = (self.layout.data(id), self.layout.exec(id), self.cgroup(id));
        let durable = slot.record.durable();
        let exit = ExitStatus::from(match ExitRecord::read(&data) {
            // The shim wrote it a moment ago: that waits for no disk.
            Some(record) => record,
            None => blocking(move || lost(&data, &cgroup, durable)).await,
        });
        if !slot.record.auto_remove
            && let Err(error) = layout::remove_tree(&exec)
        {
            tracing::warn!(%error, path = %exec.display(), "cannot remove a container's directory");
        }
        // Asked for before anybody hears of the end, so that whoever comes next finds its ports free; whoever waits for the
        // end need not wait for it.
        let leaving = self.leave_network(slot);
        let (code, oom) = (exit.code, exit.oom_killed);
        let stopping = slot.life.borrow().stopping;
        slot.life.send_modify(|life| {
            life.state = ContainerState::Exited(exit);
            life.ends += 1;
            life.pid = 0;
            life.addresses.clear();
            life.ports.clear();
            life.stopping = false;
        });
        if oom {
            self.tell(&slot.record, Action::Oom);
        }
        self.tell(&slot.record, Action::Die(code));
        if stopping {
            self.tell(&slot.record, Action::Stop);
        }
        left(slot, leaving).await;
        if slot.record.auto_remove
            && let Err(error) = self.forget(slot).await
        {
            tracing::warn!(%error, container = %id, "cannot remove a container that has ended");
        }
    }

    /// Asks for the end of the container's network, if it has one.
    fn leave_network<'a>(&'a self, slot: &'a Slot) -> Option<BoxFuture<'a, Result<(), String>>> {
        let network =
            self.config.network.as_ref().filter(|_| slot.record.network == crate::NetworkMode::Edge)?;
        Some(network.detach(slot.record.id.as_str()))
    }

    /// Removes a container that does not run. The caller holds the gate.
    pub(crate) async fn forget(&self, slot: &Slot) -> Result<(), OperationError> {
        let id = &slot.record.id;
        {
            let mut table = self.table();
            if table.slots.remove(id).is_none() {
                return Err(LookupError::NotFound(id.to_string()).into());
            }
            table.names.remove(&slot.record.name);
        }
        let (data, exec) = (self.layout.data(id), self.layout.exec(id));
        let remove = move || {
            // The record first: a directory without one is removed at the next start.
            match fs::remove_file(data.join(layout::RECORD)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            layout::remove_tree(&exec)?;
            layout::remove_tree(&data)
        };
        let removed = if slot.record.auto_remove {
            // Nobody asked, so nobody is told of an error nor waits for the disk.
            let id = id.clone();
            tokio::task::spawn_blocking(move || {
                if let Err(error) = remove() {
                    tracing::warn!(%error, container = %id, "cannot remove a container that has ended");
                }
            });
            Ok(())
        } else {
            blocking(remove).await
        };
        if let Err(error) = self.config.images.release(id.as_str()).await {
            tracing::warn!(%error, container = %id, "cannot give back a container's image");
        }
        slot.life.send_modify(|life| life.removed = true);
        self.tell(&slot.record, Action::Destroy);
        removed.map_err(OperationError::io(id))
    }
}

/// Ends what is left of a container whose shim is gone.
fn lost(data: &Path, cgroup: &Cgroup, durable: bool) -> ExitRecord {
    let oom = cgroup.oom_kills() > 0;
    if let Err(error) = cgroup.remove() {
        tracing::warn!(%error, path = %data.display(), "cannot remove a container's cgroup");
    }
    let rebooted = adopt::started(data).zip(sys::boot_id().ok()).is_some_and(|((_, then), now)| then != now);
    let error = if rebooted { LOST_WITH_HOST } else { "the container was lost: its shim was killed" };
    let record = ExitRecord { code: LOST, oom, at: sys::now(), error: error.to_owned() };
    if let Err(error) = record.write(data, durable) {
        tracing::warn!(%error, path = %data.display(), "cannot write down how a container ended");
    }
    record
}

/// Runs blocking work aside; a panic in it goes on in the caller.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    done(tokio::task::spawn_blocking(work)).await
}

/// Runs work that must come to its end even if the caller gives up waiting; a panic in it goes on in the caller.
pub(crate) async fn to_the_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    done(tokio::spawn(work)).await
}

/// Waits for the end of a container's network.
async fn left(slot: &Slot, leaving: Option<BoxFuture<'_, Result<(), String>>>) {
    if let Some(leaving) = leaving
        && let Err(error) = leaving.await
    {
        tracing::warn!(error, container = %slot.record.id, "cannot remove a container's network");
    }
}

async fn done<T>(work: JoinHandle<T>) -> T {
    match work.await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a tokio runtime that is shutting down cancels such work, and then nobody polls this again.
            Err(_) => std::future::pending().await,
        },
    }
}
