//! One manager's log, from opening to closing.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use covey_state::{store::Store, time::Stamp};
use openraft::errors::{Fatal, InitializeError as NotInitialized, RaftError};
use tokio::{
    sync::{Mutex, broadcast, watch},
    task::{JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};

use crate::{
    database,
    directory::{Directory, Identity},
    error::{Failure, InitializeError, OpenError},
    feed::{CHANGES_MAX, Change, Changes},
    leadership::{Health, Leadership, SHUT_DOWN, may_stand, observe},
    log::LogStore,
    machine::{Machine, Published},
    network::{Network, Transport},
    serve::Incoming,
    settings::{Settings, Timing},
    snapshot::{Held, SnapshotStore},
    types::{Member, Place, SnapshotMeta, Types},
    vault::Vault,
};

/// How long closing waits for the last writes.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// Between two looks at whether a file is free.
const LOOK: Duration = Duration::from_millis(1);

pub(crate) type Core = openraft::Raft<Types, Machine>;

/// One manager's log. Clones are the same log.
pub struct Raft<T>(pub(crate) Arc<Inner<T>>);

impl<T> Clone for Raft<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

pub(crate) struct Inner<T> {
    pub(crate) settings: Settings,
    /// Another one after [`Raft::retime`].
    core: watch::Sender<Core>,
    pub(crate) transport: Arc<T>,
    pub(crate) published: watch::Sender<Published>,
    pub(crate) health: watch::Sender<Health>,
    /// A snapshot that the leader is sending.
    pub(crate) incoming: Mutex<Option<Incoming>>,
    changes: broadcast::WeakSender<Change>,
    clock: Box<dyn Fn() -> Stamp + Send + Sync>,
    /// The last stamp given to a proposal.
    stamped: AtomicI64,
    failure: Failure,
    running: Mutex<Running>,
}

/// What belongs to the core that runs now.
struct Running {
    directory: Directory,
    timing: Timing,
    closed: watch::Receiver<bool>,
    snapshots: Held,
    observer: AbortOnDrop,
    /// Closed for good.
    over: bool,
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is on disk, opened and checked.
pub(crate) struct Files {
    pub(crate) directory: Directory,
    pub(crate) log: LogStore,
    pub(crate) snapshots: SnapshotStore,
    pub(crate) snapshot: Option<(SnapshotMeta, Bytes)>,
    pub(crate) failure: Failure,
}

impl Raft<()> {
    /// Whose log is in `directory`; `None` where no log was ever opened in it.
    ///
    /// # Errors
    /// The directory cannot be read, or a newer build wrote it.
    pub fn stored(directory: &Path) -> Result<Option<Identity>, OpenError> {
        Directory::new(directory).read_identity()
    }

    /// Removes the log in `directory`, its key before its content. Nobody may have it open. Not an error where there
    /// is none.
    ///
    /// # Errors
    /// A file cannot be removed; call it again.
    pub fn destroy(directory: &Path) -> Result<(), OpenError> {
        Directory::new(directory).destroy()
    }
}

impl<T: Transport> Raft<T> {
    /// Opens the log in `directory`, or makes an empty one in it, and takes part in the cluster from then on: a new
    /// log waits until this manager founds a cluster with [`Raft::initialize`] or is added by a leader.
    ///
    /// `clock` is the wall clock; only a leader asks it.
    ///
    /// # Errors
    /// See [`OpenError`]. Everything on disk is read and opened here, so that damage is found now.
    pub async fn open(
        directory: &Path,
        settings: Settings,
        transport: T,
        clock: impl Fn() -> Stamp + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let files = {
            let directory = Directory::new(directory);
            let wanted = Identity { cluster: settings.cluster, node: settings.node };
            spawn_blocking(move || Files::open(&directory, wanted))
                .await
                .map_err(|error| OpenError::Start(error.to_string()))??
        };
        Self::start(files, settings, transport, clock).await
    }

    pub(crate) async fn start(
        files: Files,
        settings: Settings,
        transport: T,
        clock: impl Fn() -> Stamp + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let published = watch::Sender::new(Published::default());
        let (changes, _) = broadcast::channel(CHANGES_MAX);
        let weak = changes.downgrade();
        let transport = Arc::new(transport);
        let Files { directory, log, snapshots, snapshot, failure } = files;
        let (closed, held) = (log.closed(), snapshots.held());
        let machine = Machine::new(snapshots, snapshot, published.clone(), changes)
            .map_err(|error| OpenError::Start(error.to_string()))?;
        let core = launch(&settings, transport.clone(), log, machine).await?;
        let health = watch::Sender::new(Health::default());
        let observer = observe(core.clone(), settings.timing, failure.clone(), health.clone());
        let observer = AbortOnDrop(tokio::spawn(observer));
        let running =
            Running { directory, timing: settings.timing, closed, snapshots: held, observer, over: false };
        Ok(Self(Arc::new(Inner {
            settings,
            core: watch::Sender::new(core),
            transport,
            published,
            health,
            incoming: Mutex::new(None),
            changes: weak,
            clock: Box::new(clock),
            stamped: AtomicI64::new(i64::MIN),
            failure,
            running: Mutex::new(running),
        })))
    }

    /// The core that runs now.
    pub(crate) fn core(&self) -> Core {
        self.0.core.borrow().clone()
    }

    /// Goes on with other timers, which the library takes only when it starts: it is closed, and opened again on the
    /// same files and the same store. A leader hands over first. What is proposed and read meanwhile waits; nobody is
    /// told anything twice. Returns at once where the timers are these already, or the log has stopped.
    ///
    /// # Errors
    /// The timers are none: nothing has changed. Or the log cannot be opened any more: it has stopped.
    pub async fn retime(&self, timing: Timing) -> Result<(), OpenError> {
        let mut running = self.0.running.lock().await;
        let settings = Settings { timing, ..self.0.settings.clone() };
        settings.config()?;
        // The feed lives on through the gap, which is over where the machine that fed it has stopped by itself.
        let Some(changes) = self.0.changes.upgrade().filter(|_| !running.over && running.timing != timing)
        else {
            return Ok(());
        };
        self.hand_over().await;
        // Nobody is to take the end of the core for that of the log.
        running.observer.0.abort();
        let _ = (&mut running.observer.0).await;
        let term = self.0.health.borrow().leadership.term;
        let leadership = Leadership { leader: None, term, am_leader: false };
        self.0.health.send_modify(|health| health.leadership = leadership);
        self.close(&running).await;
        *self.0.incoming.lock().await = None;
        let reopened = async {
            let (directory, wanted) =
                (running.directory.clone(), Identity { cluster: settings.cluster, node: settings.node });
            let failure = self.0.failure.clone();
            let Files { log, snapshots, .. } =
                spawn_blocking(move || Files::load(&directory, wanted, failure))
                    .await
                    .map_err(|error| OpenError::Start(error.to_string()))??;
            (running.closed, running.snapshots) = (log.closed(), snapshots.held());
            let machine = Machine::resume(snapshots, self.0.published.clone(), changes);
            launch(&settings, self.0.transport.clone(), log, machine).await
        };
        match reopened.await {
            Ok(core) => {
                let observer = observe(core.clone(), timing, self.0.failure.clone(), self.0.health.clone());
                running.observer = AbortOnDrop(tokio::spawn(observer));
                running.timing = timing;
                self.0.core.send_replace(core);
                Ok(())
            }
            Err(error) => {
                self.0.health.send_replace(Health::stopped(error.to_string()));
                Err(error)
            }
        }
    }

    /// Founds a cluster whose only manager is this one.
    ///
    /// # Errors
    /// [`InitializeError::Already`] where the log has seen a cluster: it is as it was.
    pub async fn initialize(&self) -> Result<(), InitializeError> {
        let me = (Member(self.0.settings.node), Place { address: self.0.settings.address });
        match self.core().initialize(BTreeMap::from([me])).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(NotInitialized::NotAllowed(_) | NotInitialized::NotInMembers(_))) => {
                Err(InitializeError::Already)
            }
            Err(RaftError::Fatal(fatal)) => Err(InitializeError::Stopped(self.why_stopped(&fatal))),
        }
    }

    /// The log has seen a cluster: this manager founded it, or was added to it.
    pub async fn is_initialized(&self) -> bool {
        self.core().is_initialized().await.unwrap_or(false)
    }

    /// The store as far as this manager has applied the log: perhaps a little old. Costs nothing.
    pub fn store(&self) -> Store {
        self.0.published.borrow().store.clone()
    }

    /// The index of the last entry that this manager has applied; `None` before the first.
    pub fn applied_index(&self) -> Option<u64> {
        self.0.published.borrow().index()
    }

    /// The changes of this manager's store from now on. A change is told after [`Raft::store`] shows it.
    pub fn changes(&self) -> Changes {
        match self.0.changes.upgrade() {
            Some(changes) => Changes(changes.subscribe()),
            // The log has stopped: the feed is over before it begins.
            None => Changes(broadcast::channel(1).1),
        }
    }

    /// Who leads.
    pub fn leadership(&self) -> Leadership {
        self.0.health.borrow().leadership
    }

    /// Waits until somebody else leads, or nobody does, and says who. `None` once the log has stopped.
    ///
    /// To follow leadership, keep what was seen last and ask again with it.
    pub async fn leadership_after(&self, seen: Leadership) -> Option<Leadership> {
        let mut health = self.0.health.subscribe();
        let health =
            health.wait_for(|health| health.stopped.is_some() || health.leadership != seen).await.ok()?;
        health.stopped.is_none().then_some(health.leadership)
    }

    /// Waits until the log has stopped and says why: a disk that is full or broken, an entry of a newer version, or
    /// [`Raft::shutdown`]. It does not start again; the daemon has to.
    pub async fn stopped(&self) -> String {
        let mut health = self.0.health.subscribe();
        match health.wait_for(|health| health.stopped.is_some()).await {
            Ok(health) => health.stopped.clone().unwrap_or_default(),
            Err(_) => SHUT_DOWN.to_owned(),
        }
    }

    /// Stops taking part, writes what is left, and frees the files. Hands leadership over first where that is
    /// possible.
    pub async fn shutdown(&self) {
        let mut running = self.0.running.lock().await;
        running.over = true;
        self.hand_over().await;
        self.close(&running).await;
    }

    async fn close(&self, running: &Running) {
        if let Err(error) = self.core().shutdown().await {
            tracing::warn!(%error, "the raft log did not shut down cleanly");
        }
        let mut closed = running.closed.clone();
        let freed = async {
            // Fails only where the writer has ended, too.
            let _ = closed.wait_for(|closed| *closed).await;
            // Whoever applies entries ends on its own.
            while !running.snapshots.is_over() {
                sleep(LOOK).await;
            }
        };
        if timeout(CLOSE_MAX, freed).await.is_err() {
            tracing::warn!("the raft log is still being written");
        }
    }

    /// A stamp for a proposal that this leader takes: the clock's, but later than every one before.
    pub(crate) fn stamp(&self) -> Stamp {
        let now = (self.0.clock)().max(self.0.published.borrow().store.last_at()).0;
        let mut stamp = now;
        let next = |last: i64| {
            stamp = now.max(last.saturating_add(1));
            Some(stamp)
        };
        // The closure never says no.
        let _ = self.0.stamped.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        Stamp(stamp)
    }

    pub(crate) fn why_stopped(&self, fatal: &Fatal<Types>) -> String {
        self.0.failure.reason().unwrap_or_else(|| fatal.to_string())
    }
}

/// Starts the library on these files.
async fn launch<T: Transport>(
    settings: &Settings,
    transport: Arc<T>,
    log: LogStore,
    machine: Machine,
) -> Result<Core, OpenError> {
    let me = Member(settings.node);
    let config = Arc::new(settings.config()?);
    let core = Core::new(me, config, Network(transport), log, machine)
        .await
        .map_err(|error| OpenError::Start(error.to_string()))?;
    let alone = core.with_raft_state(move |state| {
        let membership = state.membership_state.effective();
        membership.voter_ids().eq([me]) && may_stand(me, membership, state.vote_ref())
    });
    if alone.await.unwrap_or(false) {
        // Nobody else could lead: there is no reason to wait for a heartbeat. Where this fails, the timer elects.
        let _ = core.trigger().elect(false).await;
    }
    Ok(core)
}

impl Files {
    pub(crate) fn open(directory: &Directory, wanted: Identity) -> Result<Self, OpenError> {
        match directory.read_identity()? {
            None => Self::found(directory, wanted),
            Some(found) if found == wanted => Self::load(directory, wanted, Failure::default()),
            Some(Identity { cluster, node }) => {
                Err(OpenError::Foreign { directory: directory.path().to_owned(), cluster, node })
            }
        }
    }

    fn found(directory: &Directory, identity: Identity) -> Result<Self, OpenError> {
        directory.make()?;
        let vault = Vault::new(directory.create_key()?, identity.cluster);
        LogStore::found(&database::create(&directory.log())?, &directory.log(), &vault)?;
        SnapshotStore::found(&database::create(&directory.snapshot())?, &directory.snapshot())?;
        directory.write_identity(identity)?;
        Self::load(directory, identity, Failure::default())
    }

    fn load(directory: &Directory, identity: Identity, failure: Failure) -> Result<Self, OpenError> {
        let vault = Vault::new(directory.read_key()?, identity.cluster);
        let (log, snapshot) = (directory.log(), directory.snapshot());
        let log =
            LogStore::open(database::open(&log)?, &log, &directory.key(), vault.clone(), failure.clone())?;
        let snapshots = SnapshotStore::new(database::open(&snapshot)?, vault, failure.clone());
        let snapshot = snapshots.verify(&snapshot)?;
        Ok(Self { directory: directory.clone(), log, snapshots, snapshot, failure })
    }
}
