//! A cluster that does at once what it is told: every task of a service runs as soon as it is wanted.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use covey_api::{
    Control, Failure,
    control::{
        Carried, CarriedNetwork, DataPlane, Finding, Hop, InitRequest, Issuer, JoinRequest, JoinTokens,
        Liveness, LocalState, LogsOf, Membership, NetworkPeer, NodeState, PathRequest, Rotate, Severity,
        StoreChange, TaskLine, ToldService, ToldTask, View,
    },
    log::{LogLine, LogQuery, Output},
};
use covey_state::{
    Id, Store,
    cluster::{Authority, ClusterSpec, JoinSecrets},
    command::{Command, Proposal},
    container::Amount,
    network::Network,
    node::{Availability, Node, NodeDescription, NodeSpec, Role},
    service::{Mode, Platform},
    task::{ContainerStatus, DesiredState, TaskState, TaskStatus},
    time::Stamp,
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream, stream::BoxStream};
use tokio::sync::broadcast;

/// The manager that answers.
pub const MANAGER: Id = Id::new(1);
/// A worker, alive.
pub const WORKER: Id = Id::new(2);

pub struct FakeControl {
    state: Mutex<State>,
    ids: AtomicU64,
    changes: broadcast::Sender<StoreChange>,
}

#[derive(Default)]
struct State {
    store: Store,
    index: u64,
    membership: Membership,
    observed: BTreeMap<Id, TaskStatus>,
    service_errors: BTreeMap<Id, Vec<String>>,
    down: Vec<Id>,
    tokens: u32,
    joined: Option<JoinRequest>,
    path: Option<PathRequest>,
    silent: bool,
}

impl Default for FakeControl {
    fn default() -> Self {
        Self { state: Mutex::default(), ids: AtomicU64::new(100), changes: broadcast::Sender::new(1024) }
    }
}

impl FakeControl {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Makes this node the manager of a cluster of two.
    pub fn form_cluster(&self) {
        self.init_as(Availability::Active, ClusterSpec::default());
        self.apply(create_node(WORKER, "w1", Role::Worker, Availability::Active)).unwrap();
    }

    fn init_as(&self, availability: Availability, spec: ClusterSpec) {
        self.state().membership = Membership {
            state: LocalState::Active,
            node: Some(MANAGER),
            address: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
            manager: true,
            managers: vec![(MANAGER, SocketAddr::from(([10, 0, 0, 1], 2377)))],
            error: String::new(),
        };
        let authority = Authority { certificate: "PEM".into(), key: "KEY".into() };
        let join = JoinSecrets { worker: "w".into(), manager: "m".into() };
        self.apply(Command::CreateCluster { id: Id::new(9), spec, authority, join }).unwrap();
        self.apply(create_node(MANAGER, "m1", Role::Manager, availability)).unwrap();
    }

    /// Makes this node a worker.
    pub fn become_worker(&self) {
        self.state().membership =
            Membership { state: LocalState::Active, node: Some(WORKER), ..Membership::default() };
    }

    /// No manager answers workers any more.
    pub fn silence(&self) {
        self.state().silent = true;
    }

    /// The node is gone.
    pub fn lose(&self, node: Id) {
        self.state().down.push(node);
    }

    /// The tasks of services that are gone have ended.
    pub fn end_orphans(&self) {
        let store = self.store();
        let orphans = store.tasks().filter(|task| store.service(task.service).is_none());
        for task in orphans {
            let status = TaskStatus { state: TaskState::Shutdown, ..task.status.clone() };
            self.apply(Command::FinishTask { id: task.id, status }).unwrap();
        }
    }

    /// Something is wrong with a service on some host.
    pub fn fault(&self, service: Id, error: &str) {
        self.state().service_errors.entry(service).or_default().push(error.to_owned());
    }

    pub fn joined(&self) -> Option<JoinRequest> {
        self.state().joined.clone()
    }

    /// The way that was asked for last.
    pub fn path_asked(&self) -> Option<PathRequest> {
        self.state().path.clone()
    }

    pub fn store(&self) -> Store {
        self.state().store.clone()
    }

    fn apply(&self, command: Command) -> Result<(), Failure> {
        let mut state = self.state();
        self.apply_to(&mut state, command)?;
        for command in settle(&state.store, || self.new_id()) {
            self.apply_to(&mut state, command)?;
        }
        observe(&mut state);
        Ok(())
    }

    fn apply_to(&self, state: &mut State, command: Command) -> Result<(), Failure> {
        state.index += 1;
        let (index, before) = (state.index, state.store.clone());
        let at = Stamp(1_700_000_000_000_000_000 + index as i64);
        let events = state.store.apply(index, at, &Proposal { planned_at: None, commands: vec![command] })?;
        let _ = self.changes.send(StoreChange { at, events, before, after: state.store.clone() });
        Ok(())
    }
}

fn create_node(id: Id, hostname: &str, role: Role, availability: Availability) -> Command {
    Command::CreateNode {
        id,
        spec: NodeSpec { name: String::new(), labels: BTreeMap::new(), role, availability },
        description: NodeDescription {
            hostname: hostname.into(),
            platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
            resources: Amount { nano_cpus: 2_000_000_000, memory: 1 << 30 },
            engine_version: "0.1.0".into(),
            engine_labels: BTreeMap::new(),
            data_path: None,
        },
        address: SocketAddr::from(([10, 0, 0, id.bits() as u8], 2377)),
        public_key: [0; 32],
    }
}

/// What a leader would propose until nothing is left to do.
fn settle(store: &Store, new_id: impl Fn() -> Id) -> Vec<Command> {
    let mut commands = Vec::new();
    for service in store.services() {
        let Mode::Replicated { replicas } = service.spec.mode;
        let alive = |slot| {
            store.tasks_of_slot(service.id, slot).any(|task| {
                task.spec_version == service.spec_version && task.desired <= DesiredState::Running
            })
        };
        for task in store.tasks_of_service(service.id).filter(|task| task.desired <= DesiredState::Running) {
            if task.slot > replicas {
                commands.push(Command::SetTaskDesired { id: task.id, desired: DesiredState::Remove });
            } else if task.spec_version != service.spec_version {
                commands.push(Command::SetTaskDesired { id: task.id, desired: DesiredState::Shutdown });
            }
        }
        for slot in (1..=replicas).filter(|slot| !alive(*slot)) {
            let id = new_id();
            let node = if slot % 2 == 0 { WORKER } else { MANAGER };
            commands.extend([
                Command::CreateTask {
                    id,
                    service: service.id,
                    slot,
                    desired: DesiredState::Running,
                    not_before: None,
                },
                Command::AllocateTask { id },
                Command::AssignTask { id, node },
            ]);
        }
    }
    commands
}

/// What the nodes would report.
fn observe(state: &mut State) {
    for task in state.store.tasks() {
        let ended = task.desired > DesiredState::Running;
        let container = ContainerStatus {
            id: format!("{:064x}", task.id.bits()),
            pid: 4242,
            exit_code: ended.then_some(0),
            addresses: (task.attachments.iter())
                .flat_map(|attachment| attachment.addresses.iter().copied())
                .chain([IpAddr::V4(Ipv4Addr::new(100, 64, 1, 9))])
                .collect(),
            ports: (state.store.service(task.service).iter())
                .flat_map(|service| service.exposure.ports.iter())
                .filter(|port| !port.is_ingress())
                .cloned()
                .collect(),
        };
        let status = TaskStatus {
            attempt: 1,
            state: if ended { TaskState::Shutdown } else { TaskState::Running },
            at: task.updated_at,
            message: if ended { "shutdown" } else { "started" }.into(),
            error: String::new(),
            container: Some(container),
        };
        state.observed.insert(task.id, status);
    }
}

fn peer(node: &Node) -> NetworkPeer {
    let hostname = node.description.hostname.clone();
    NetworkPeer { node: node.id, hostname, address: node.data_path() }
}

/// The networks that a node's tasks are on.
fn carried_by(store: &Store, id: Id) -> Vec<CarriedNetwork> {
    let runs_on = |network: Id, node: Id| {
        let mut tasks = store.tasks_on_node(node).filter(|task| task.is_wanted_running());
        tasks.any(|task| task.attachments.iter().any(|attachment| attachment.network == network))
    };
    let here = store.networks().filter(|network| runs_on(network.id, id));
    here.map(|network| CarriedNetwork {
        network: Arc::new(network.config()),
        peers: store.nodes().filter(|node| runs_on(network.id, node.id)).map(|node| peer(node)).collect(),
    })
    .collect()
}

fn now<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    std::future::ready(value).boxed()
}

impl Control for FakeControl {
    fn membership(&self) -> Membership {
        self.state().membership.clone()
    }

    fn read(&self) -> BoxFuture<'_, Result<View, Failure>> {
        let state = self.state();
        let nodes = state.store.nodes().map(|node| {
            let down = state.down.contains(&node.id);
            let liveness = Liveness {
                state: if down { NodeState::Down } else { NodeState::Ready },
                message: String::new(),
                leader: node.id == MANAGER,
                reachable: node.id == MANAGER,
            };
            (node.id, liveness)
        });
        now(Ok(View {
            nodes: Arc::new(nodes.collect()),
            store: state.store.clone(),
            observed: Arc::new(state.observed.clone()),
            service_errors: Arc::new(state.service_errors.clone()),
            tokens: JoinTokens {
                worker: format!("SWMTKN-1-ca-worker{}", state.tokens),
                manager: format!("SWMTKN-1-ca-manager{}", state.tokens),
            },
            issuer: Issuer { subject: vec![1], public_key: vec![2] },
        }))
    }

    fn propose(&self, command: Command) -> BoxFuture<'_, Result<(), Failure>> {
        now(self.apply(command))
    }

    fn new_id(&self) -> Id {
        let count = u128::from(self.ids.fetch_add(1, Ordering::Relaxed));
        Id::new(count.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    fn init(&self, request: InitRequest) -> BoxFuture<'_, Result<Id, Failure>> {
        self.init_as(request.availability, request.spec);
        now(Ok(MANAGER))
    }

    fn join(&self, request: JoinRequest) -> BoxFuture<'_, Result<(), Failure>> {
        self.state().joined = Some(request);
        self.become_worker();
        now(Ok(()))
    }

    fn leave(&self, force: bool) -> BoxFuture<'_, Result<(), Failure>> {
        let mut state = self.state();
        if state.membership.manager && !force {
            return now(Err(Failure::unavailable("You are attempting to leave the swarm …")));
        }
        *state = State::default();
        now(Ok(()))
    }

    fn rotate_tokens(&self, _: Rotate) -> BoxFuture<'_, Result<(), Failure>> {
        self.state().tokens += 1;
        now(Ok(()))
    }

    fn logs(
        &self,
        of: LogsOf,
        _: LogQuery,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<TaskLine, Failure>>, Failure>> {
        let store = self.store();
        let tasks = store.tasks().filter(|task| match of {
            LogsOf::Service(service) => task.service == service,
            LogsOf::Task(id) => task.id == id,
        });
        let line = |slot: u64| LogLine {
            at: Stamp(1_700_000_000_000_000_000),
            output: Output::Stdout,
            text: Bytes::from(format!("hello from slot {slot}")),
        };
        let lines: Vec<_> = tasks
            .filter_map(|task| {
                let node = task.node?;
                Some(Ok(TaskLine { task: task.id, service: task.service, node, line: line(task.slot) }))
            })
            .collect();
        now(Ok(stream::iter(lines).boxed()))
    }

    fn data_plane(&self) -> BoxFuture<'_, DataPlane> {
        now(DataPlane { drift: [("route", 1)].into(), repairs: 1, ..DataPlane::default() })
    }

    fn changes(&self) -> BoxStream<'static, StoreChange> {
        stream::unfold(self.changes.subscribe(), |mut changes| async {
            Some((changes.recv().await.ok()?, changes))
        })
        .boxed()
    }

    fn carried(&self) -> Carried {
        let state = self.state();
        let Some(me) = state.membership.node else { return Carried::default() };
        Carried {
            block: state.store.node(me).map(|node| node.edge),
            pool: state.store.cluster().map(|cluster| cluster.spec.edge),
            nodes: state.store.nodes().map(|node| peer(node)).collect(),
            networks: carried_by(&state.store, me),
        }
    }

    fn told_services(&self, network: Option<Id>) -> BoxFuture<'_, Vec<ToldService>> {
        let store = self.store();
        let told = store.services().map(|service| ToldService {
            name: service.spec.name.clone(),
            vip: network.map(|_| [10, 0, 0, 2].into()),
            ports: if network.is_none() { service.exposure.ports.clone() } else { Vec::new() },
            tasks: vec![ToldTask {
                name: "web.1.x".into(),
                container: "7".repeat(64),
                address: [10, 0, 0, 3].into(),
                host: [10, 0, 0, 1].into(),
            }],
        });
        now(told.collect())
    }

    fn find_network(&self, reference: &str) -> BoxFuture<'_, Result<Option<Arc<Network>>, Failure>> {
        if self.state().silent {
            return now(Err(Failure::unavailable("no manager of the swarm could be asked")));
        }
        now(Ok(self.store().find_network(reference).ok().cloned()))
    }

    fn doctor(&self) -> BoxFuture<'_, Result<Vec<Finding>, Failure>> {
        now(Ok(vec![Finding {
            host: "m1".into(),
            network: "front".into(),
            object: "mtu".into(),
            severity: Severity::Repaired,
            text: "was 1500, is 1450".into(),
        }]))
    }

    fn path(&self, request: PathRequest) -> BoxFuture<'_, Result<Vec<Hop>, Failure>> {
        let hop = |step: &str, packets| Hop { step: step.into(), decision: "10.0.1.2".into(), packets };
        self.state().path = Some(request);
        now(Ok(vec![hop("dns", None), hop("vip", Some((7, 8)))]))
    }
}
