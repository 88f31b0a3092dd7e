//! A simulated cluster: a store, a leader that plans, and hosts that do what their assignment sets say.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use covey_manager::{
    Dispatcher, Observed, Plan, Scope,
    dispatcher::Output,
    observed::{Liveness, Session},
    plan,
};
use covey_state::{
    Id, Store,
    assignment::AssignmentSet,
    cluster::{Authority, ClusterSpec, JoinSecrets},
    command::{Command, Proposal},
    container::Amount,
    event::Event,
    network::EndpointSpec,
    node::{Availability, NodeDescription, NodeSpec, Role},
    service::{Mode, Platform, Service, ServiceSpec, TaskSpec, UpdateConfig},
    task::{DesiredState, Task, TaskState, TaskStatus},
    time::Stamp,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::host::{Host, Running, status};

/// Plans in a row at one moment, at most: a cluster that needs more does not settle.
const PLANS_MAX: usize = 2_000;

pub const SECOND: Duration = Duration::from_secs(1);
pub const CPU: u64 = 1_000_000_000;
pub const MIB: u64 = 1 << 20;

pub struct World {
    pub store: Store,
    pub now: Stamp,
    pub observed: Observed,
    /// Nanoseconds by which the clocks of all hosts are ahead.
    pub clock_error: i64,
    /// How long a task takes to stop.
    pub stop_time: Duration,
    pub last_plan: Option<Plan>,
    /// Fewest tasks of any service that were wanted and ran after a plan, since this was set.
    pub fewest_running: u64,
    index: u64,
    scope: Scope,
    wake: Option<Stamp>,
    dispatcher: Dispatcher,
    hosts: BTreeMap<Id, Host>,
    random: StdRng,
}

impl World {
    /// A cluster without nodes.
    pub fn new(seed: u64) -> Self {
        let now = Stamp(1_000_000_000_000);
        let mut world = Self {
            store: Store::default(),
            now,
            observed: Observed::new(now),
            clock_error: 0,
            stop_time: Duration::ZERO,
            last_plan: None,
            fewest_running: u64::MAX,
            index: 0,
            scope: Scope::All,
            wake: None,
            dispatcher: Dispatcher::new(1),
            hosts: BTreeMap::new(),
            random: StdRng::seed_from_u64(seed),
        };
        world.apply(Command::CreateCluster {
            id: Id::new(1),
            spec: ClusterSpec::default(),
            authority: Authority { certificate: String::new(), key: String::new() },
            join: JoinSecrets { worker: "w".into(), manager: "m".into() },
        });
        world
    }

    /// A cluster of so many equal workers of 4 CPUs and 8 GiB.
    pub fn with_nodes(count: u128) -> (Self, Vec<Id>) {
        let mut world = Self::new(7);
        let nodes = (0..count).map(|_| world.add_node(4 * CPU, 8192 * MIB)).collect();
        (world, nodes)
    }

    /// A worker joins.
    pub fn add_node(&mut self, nano_cpus: u64, memory: u64) -> Id {
        self.add_node_as(Role::Worker, nano_cpus, memory)
    }

    pub fn add_node_as(&mut self, role: Role, nano_cpus: u64, memory: u64) -> Id {
        let id = Id::new(self.random.random());
        let number = self.hosts.len() + 1;
        self.apply(Command::CreateNode {
            id,
            spec: NodeSpec {
                name: String::new(),
                labels: BTreeMap::new(),
                role,
                availability: Availability::Active,
            },
            description: NodeDescription {
                hostname: format!("host{number}"),
                platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
                resources: Amount { nano_cpus, memory },
                ..NodeDescription::default()
            },
            address: SocketAddr::from(([10, 0, 0, 1], 2377)),
            public_key: [0; 32],
        });
        self.hosts.insert(id, Host::default());
        self.start(id);
        id
    }

    /// The host boots, and reaches the cluster.
    pub fn start(&mut self, node: Id) {
        let host = self.hosts.get_mut(&node).unwrap();
        if !host.up {
            host.tasks.clear();
        }
        host.up = true;
        self.link(node);
    }

    /// The host reaches the cluster again.
    pub fn link(&mut self, node: Id) {
        self.hosts.get_mut(&node).unwrap().linked = true;
        self.observed.handle_liveness(node, Liveness::Alive);
        self.observed.handle_session(node, Session::Connected);
        self.scope.add_node(node);
        let outputs = self.dispatcher.handle_connected(&self.store, node);
        self.deliver(outputs);
        let known: Vec<_> =
            self.hosts[&node].tasks.iter().map(|(id, task)| (*id, task.status.clone())).collect();
        for (id, status) in known {
            self.report(id, status);
        }
    }

    /// The host dies, and everybody knows.
    pub fn kill(&mut self, node: Id) {
        self.hosts.get_mut(&node).unwrap().up = false;
        self.cut(node);
    }

    /// The host is cut off but goes on running, and everybody knows.
    pub fn cut(&mut self, node: Id) {
        self.hang_up(node);
        self.observed.handle_liveness(node, Liveness::Down { since: self.now });
        self.scope.add_node(node);
    }

    /// The host takes tasks, and fails to prepare any.
    pub fn spoil(&mut self, node: Id) {
        self.hosts.get_mut(&node).unwrap().broken = true;
    }

    /// Only the session to the host breaks; SWIM still hears of it.
    pub fn hang_up(&mut self, node: Id) {
        self.hosts.get_mut(&node).unwrap().linked = false;
        self.dispatcher.handle_disconnected(node);
        self.observed.handle_session(node, Session::Gone { since: self.now });
        self.scope.add_node(node);
    }

    /// Another manager leads from now on: it knows the store, hears the rows again, and nothing else.
    pub fn change_leader(&mut self, term: u64) {
        self.observed = Observed::new(self.now);
        self.dispatcher = Dispatcher::new(term);
        self.scope = Scope::All;
        self.wake = None;
        for node in self.hosts.keys().copied().collect::<Vec<_>>() {
            if self.hosts[&node].up && self.hosts[&node].linked {
                self.link(node);
            } else {
                self.observed.handle_liveness(node, Liveness::Down { since: self.now });
            }
        }
    }

    pub fn set_availability(&mut self, node: Id, availability: Availability) {
        self.change_node(node, |spec| spec.availability = availability);
    }

    pub fn change_node(&mut self, node: Id, change: impl FnOnce(&mut NodeSpec)) {
        let known = self.store.node(node).unwrap();
        let (version, mut spec) = (known.version, known.spec.clone());
        change(&mut spec);
        self.apply(Command::UpdateNode { id: node, version, spec });
    }

    pub fn create(&mut self, spec: ServiceSpec) -> Id {
        let id = Id::new(self.random.random());
        self.apply(Command::CreateService { id, spec });
        id
    }

    pub fn update(&mut self, id: Id, change: impl FnOnce(&mut ServiceSpec)) {
        let service = self.service(id);
        let (version, mut spec) = (service.version, service.spec.clone());
        change(&mut spec);
        self.apply(Command::UpdateService { id, version, spec });
    }

    pub fn scale(&mut self, id: Id, to: u64) {
        self.update(id, |spec| spec.mode = Mode::Replicated { replicas: to });
    }

    /// Applies what a user, or a node, wants.
    pub fn apply(&mut self, command: Command) {
        let proposal = Proposal { planned_at: None, commands: vec![command] };
        self.commit(&proposal);
    }

    fn commit(&mut self, proposal: &Proposal) {
        self.index += 1;
        let events = self.store.apply(self.index, self.now, proposal).unwrap();
        self.publish(&events);
    }

    fn publish(&mut self, events: &[Event]) {
        self.scope.merge(Scope::from_events(events));
        let outputs = self.dispatcher.handle_changes(&self.store, events);
        self.deliver(outputs);
    }

    /// Plans and lets the hosts work until nothing more happens at this moment.
    pub fn settle(&mut self) {
        for _ in 0..PLANS_MAX {
            let planned = self.plan_once();
            let worked = self.work();
            if !planned && !worked {
                return;
            }
            self.note_running();
        }
        panic!("the cluster does not settle: {:?}", self.last_plan);
    }

    fn note_running(&mut self) {
        for service in self.store.services() {
            self.fewest_running = self.fewest_running.min(self.running(service.id).len() as u64);
        }
    }

    /// One plan over what was touched; true if it proposed something.
    pub fn plan_once(&mut self) -> bool {
        let scope = std::mem::take(&mut self.scope);
        let plan = plan(&self.store, &self.observed, &scope, self.now, &mut self.random);
        assert!(
            plan.notices.iter().all(|notice| matches!(notice, covey_manager::Notice::MassLoss(_))),
            "{:?}",
            plan.notices
        );
        self.scope = plan.waiting.clone();
        self.wake = plan.look_again_at;
        if let Some(proposal) = &plan.proposal {
            self.commit(proposal);
        }
        let proposed = plan.proposal.is_some();
        self.last_plan = Some(plan);
        proposed
    }

    /// Time passes, and whatever is due in it happens.
    pub fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        loop {
            let stops = self.hosts.values().filter(|host| host.up).flat_map(|host| host.tasks.values());
            let next = stops.filter_map(|task| task.stops_at).chain(self.wake).min();
            match next.filter(|at| *at <= end) {
                Some(at) => self.now = at.max(self.now + Duration::from_nanos(1)),
                None => break,
            }
            self.settle();
        }
        self.now = self.now.max(end);
        self.settle();
    }

    fn deliver(&mut self, outputs: Vec<Output>) {
        for Output { node, set } in outputs {
            let now = self.now;
            let Some(host) = self.hosts.get_mut(&node).filter(|host| host.linked) else { continue };
            let (update, remove) = match set {
                AssignmentSet::Full { generation, tasks, later } => {
                    assert!(generation > host.generation);
                    host.generation = generation;
                    let gone = host.tasks.keys().copied();
                    let named = |id: &Id| later.contains(id) || tasks.iter().any(|task| task.task == *id);
                    let gone = gone.filter(|id| !named(id)).collect();
                    (tasks, gone)
                }
                AssignmentSet::Changes { base, generation, update, remove } => {
                    assert_eq!(base, host.generation, "each set builds on the last");
                    assert!(generation > base);
                    host.generation = generation;
                    (update, remove)
                }
            };
            for id in remove {
                host.tasks.remove(&id);
                self.observed.forget_task(id);
            }
            for assignment in update {
                match host.tasks.get_mut(&assignment.task) {
                    Some(task) => task.assignment = assignment,
                    None => {
                        let status = status(now, TaskState::Accepted, "accepted");
                        let task = Running { assignment, status, stops_at: None };
                        host.tasks.insert(task.assignment.task, task);
                    }
                }
            }
        }
    }

    /// Each host takes each of its tasks one step further; true if anything changed.
    fn work(&mut self) -> bool {
        let mut reports = Vec::new();
        for host in self.hosts.values_mut().filter(|host| host.up) {
            for (id, task) in &mut host.tasks {
                if task.step(self.now, self.stop_time, host.broken) && host.linked {
                    reports.push((*id, task.status.clone()));
                }
            }
        }
        let changed = !reports.is_empty();
        for (id, status) in reports {
            self.report(id, status);
        }
        changed
    }

    /// A row reaches the leader.
    pub fn report(&mut self, task: Id, mut status: TaskStatus) {
        status.at.0 += self.clock_error;
        if self.observed.handle_task(task, status) {
            self.scope.add_task(task);
        }
    }

    /// A running task of this node ends by itself.
    pub fn end(&mut self, task: Id, state: TaskState) {
        let now = self.now;
        let host = self.hosts.values_mut().find(|host| host.tasks.contains_key(&task)).unwrap();
        let running = host.tasks.get_mut(&task).unwrap();
        running.status = status(now, state, "ended");
        let status = running.status.clone();
        self.report(task, status);
    }

    // What can be seen.

    pub fn service(&self, id: Id) -> &Arc<Service> {
        self.store.service(id).unwrap()
    }

    pub fn tasks(&self, service: Id) -> Vec<Arc<Task>> {
        self.store.tasks_of_service(service).cloned().collect()
    }

    /// Tasks of a service that are wanted and run on a host that is up, by slot.
    pub fn running(&self, service: Id) -> Vec<Arc<Task>> {
        self.store.tasks_of_service(service).filter(|task| self.runs(task)).cloned().collect()
    }

    fn runs(&self, task: &Task) -> bool {
        task.desired == DesiredState::Running
            && task
                .node
                .and_then(|node| self.hosts[&node].tasks.get(&task.id).filter(|_| self.hosts[&node].up))
                .is_some_and(|running| running.status.state == TaskState::Running)
    }

    /// Containers that really run for a service, wanted or not, on each host.
    pub fn containers(&self, service: Id) -> Vec<(Id, u64)> {
        let mut found = Vec::new();
        for (node, host) in self.hosts.iter().filter(|(_, host)| host.up) {
            for task in host.tasks.values() {
                if task.assignment.service == service && task.status.state == TaskState::Running {
                    found.push((*node, task.assignment.slot));
                }
            }
        }
        found
    }

    pub fn pending(&self, service: Id) -> Vec<Arc<Task>> {
        let waits = |task: &&Arc<Task>| {
            task.status.state == TaskState::Pending && task.desired <= DesiredState::Running
        };
        self.store.tasks_of_service(service).filter(waits).cloned().collect()
    }

    /// Running tasks of a service on each of these nodes.
    pub fn spread(&self, service: Id, nodes: &[Id]) -> Vec<usize> {
        let running = self.running(service);
        nodes.iter().map(|node| running.iter().filter(|task| task.node == Some(*node)).count()).collect()
    }

    /// The same, from the fullest node to the emptiest.
    pub fn shape(&self, service: Id, nodes: &[Id]) -> Vec<usize> {
        let mut shape = self.spread(service, nodes);
        shape.sort_unstable_by(|a, b| b.cmp(a));
        shape
    }
}

/// A service that runs `image` so many times.
pub fn service(name: &str, image: &str, replicas: u64) -> ServiceSpec {
    let mut task = TaskSpec::default();
    image.clone_into(&mut task.container.image);
    ServiceSpec {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        task,
        mode: Mode::Replicated { replicas },
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
        endpoint: EndpointSpec::default(),
    }
}

/// The same, reserving so much for each task.
pub fn reserving(name: &str, replicas: u64, nano_cpus: u64, memory: u64) -> ServiceSpec {
    let mut spec = service(name, "web:1", replicas);
    spec.task.resources.reservations = Amount { nano_cpus, memory };
    spec
}
