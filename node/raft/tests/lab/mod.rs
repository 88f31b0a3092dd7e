//! Managers in one process, joined by a network that can be cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use covey_raft::{
    Applied, Leadership, OpenError, ProposeError, Raft, Settings, Timing, Transport, TransportError,
};
use covey_state::{
    Id,
    cluster::{Authority, ClusterSpec, JoinSecrets},
    command::{Command, Proposal},
    network::EndpointSpec,
    service::{Mode, ServiceSpec, TaskSpec, UpdateConfig},
    store::Store,
    time::Stamp,
};
use tempfile::TempDir;
use tokio::{
    sync::RwLock,
    time::{Instant, sleep, timeout},
};

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Switch {
    managers: BTreeMap<Id, Raft<Wire>>,
    /// Nobody reaches them, and they reach nobody.
    cut: BTreeSet<Id>,
    /// They reach everybody, but hear no answer.
    deaf: BTreeSet<Id>,
    /// What is sent to them is never answered, nor said to be lost: for a while a dead host is like that.
    silent: BTreeSet<Id>,
}

/// A manager's end of the network.
#[derive(Clone)]
pub struct Wire {
    from: Id,
    switch: Arc<RwLock<Switch>>,
}

impl Transport for Wire {
    async fn call(&self, to: Id, address: SocketAddr, request: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        assert!(request.len() <= covey_raft::MESSAGE_BYTES_MAX);
        assert_eq!(address, address_of(to));
        let switch = self.switch.read().await;
        let peer = switch
            .managers
            .get(&to)
            .filter(|_| !switch.cut.contains(&to) && !switch.cut.contains(&self.from));
        let peer = peer.ok_or_else(|| TransportError::Unreachable("cut".to_owned()))?.clone();
        let deaf = switch.deaf.contains(&self.from);
        let silent = switch.silent.contains(&to) || switch.silent.contains(&self.from);
        drop(switch);
        if silent {
            std::future::pending::<()>().await;
        }
        // As over a real network, a caller that gives up does not stop the one that answers.
        let from = self.from;
        let answer = tokio::spawn(async move { peer.handle(from, request).await });
        match answer.await {
            Ok(answer) if !deaf => Ok(answer),
            _ => Err(TransportError::Unanswered("lost".to_owned())),
        }
    }
}

pub fn id(number: u128) -> Id {
    Id::new(number)
}

pub fn address_of(node: Id) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 2000 + node.bits() as u16))
}

/// A lab: managers, their directories, and a clock that stands still unless it is set.
pub struct Lab {
    pub directory: TempDir,
    switch: Arc<RwLock<Switch>>,
    pub clock: Arc<AtomicI64>,
    pub snapshot_interval: u64,
    pub timing: Timing,
}

impl Lab {
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            switch: Arc::default(),
            clock: Arc::new(AtomicI64::new(1_000)),
            snapshot_interval: 10_000,
            timing: Timing::default(),
        }
    }

    pub fn path(&self, node: Id) -> std::path::PathBuf {
        self.directory.path().join(node.to_string())
    }

    /// Opens a manager's log; with less patience than usual, for the tests' sake.
    pub async fn try_open(&self, node: Id) -> Result<Raft<Wire>, OpenError> {
        let mut settings = Settings::new(id(100), node, address_of(node));
        settings.snapshot_interval = self.snapshot_interval;
        settings.kept_entries = 5;
        settings.timing = self.timing;
        settings.patience = Duration::from_secs(2);
        let wire = Wire { from: node, switch: self.switch.clone() };
        let clock = self.clock.clone();
        let raft = Raft::open(&self.path(node), settings, wire, move || Stamp(clock.load(Ordering::Relaxed)))
            .await?;
        self.switch.write().await.managers.insert(node, raft.clone());
        Ok(raft)
    }

    pub async fn open(&self, node: u128) -> Raft<Wire> {
        self.try_open(id(node)).await.unwrap()
    }

    /// A cluster of one, with its first entry.
    pub async fn found(&self) -> Raft<Wire> {
        let raft = self.open(1).await;
        raft.initialize().await.unwrap();
        // On a machine that is busy elsewhere this takes longer than the patience of the tests.
        until("the founder leads", || raft.leadership().am_leader).await;
        raft.propose(&create_cluster()).await.unwrap();
        raft
    }

    /// A cluster of three voters; the first one founded it.
    pub async fn three(&self) -> [Raft<Wire>; 3] {
        let first = self.found().await;
        let others = [self.open(2).await, self.open(3).await];
        for number in [2, 3] {
            first.add_learner(id(number), address_of(id(number))).await.unwrap();
            first.promote(id(number)).await.unwrap();
        }
        let [second, third] = others;
        [first, second, third]
    }

    /// Stops a manager as a daemon that ends does.
    pub async fn stop(&self, raft: Raft<Wire>, node: u128) {
        self.switch.write().await.managers.remove(&id(node));
        raft.shutdown().await;
    }

    pub async fn cut(&self, node: u128) {
        self.switch.write().await.cut.insert(id(node));
    }

    pub async fn deafen(&self, node: u128) {
        self.switch.write().await.deaf.insert(id(node));
    }

    pub async fn silence(&self, node: u128) {
        self.switch.write().await.silent.insert(id(node));
    }

    pub async fn heal(&self) {
        let mut switch = self.switch.write().await;
        switch.cut.clear();
        switch.deaf.clear();
        switch.silent.clear();
    }
}

pub fn create_cluster() -> Proposal {
    let text = |text: &str| text.to_owned();
    propose(Command::CreateCluster {
        id: id(100),
        spec: ClusterSpec::default(),
        authority: Authority { certificate: text("certificate"), key: text("THE-KEY-OF-THE-AUTHORITY") },
        join: JoinSecrets { worker: text("worker"), manager: text("THE-SECRET-OF-MANAGERS") },
    })
}

pub fn create_service(number: u128) -> Proposal {
    propose(Command::CreateService { id: id(number), spec: service(number) })
}

pub fn service(number: u128) -> ServiceSpec {
    let mut task = TaskSpec::default();
    task.container.image = "image".to_owned();
    task.container.env = vec!["PASSWORD=A-SECRET-OF-A-SERVICE".to_owned()];
    ServiceSpec {
        name: format!("service-{number}"),
        labels: BTreeMap::new(),
        task,
        mode: Mode::Replicated { replicas: 1 },
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
        endpoint: EndpointSpec::default(),
    }
}

pub fn propose(command: Command) -> Proposal {
    Proposal { planned_at: None, commands: vec![command] }
}

/// Waits for something that has no event of its own.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "still not: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until one of `managers` leads and says which.
pub async fn leader(managers: &[&Raft<Wire>]) -> usize {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(at) = managers.iter().position(|raft| raft.leadership().am_leader) {
            return at;
        }
        assert!(Instant::now() < end, "nobody leads");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Proposes until it goes through: an election may cost an attempt its answer.
pub async fn insist(raft: &Raft<Wire>, number: u128) -> Option<Applied> {
    let end = Instant::now() + PATIENCE;
    loop {
        match raft.propose(&create_service(number)).await {
            Ok(applied) => return Some(applied),
            // An attempt without an answer was made after all.
            Err(ProposeError::Refused(_)) if raft.store().service(id(number)).is_some() => return None,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
    }
}

pub fn has_services(store: &Store, numbers: impl IntoIterator<Item = u128>) -> bool {
    numbers.into_iter().all(|number| store.service(id(number)).is_some())
}

/// Follows leadership until it is as wanted.
pub async fn follow(raft: &Raft<Wire>, wanted: impl Fn(Leadership) -> bool) -> Leadership {
    let mut seen = raft.leadership();
    while !wanted(seen) {
        let next = timeout(PATIENCE, raft.leadership_after(seen)).await;
        seen = next.expect("leadership does not change").expect("the log has stopped");
    }
    seen
}
