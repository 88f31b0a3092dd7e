//! A store under test: applies, and checks after each entry what always holds.

use std::time::Duration;

use covey_state::{
    Id, Store,
    cluster::{Authority, ClusterSpec, JoinSecrets},
    command::{Command, Proposal, Refusal},
    container::ContainerSpec,
    event::Event,
    network::{AttachmentSpec, EndpointSpec, NetworkSpec, SubnetSpec},
    node::{Availability, NodeDescription, NodeSpec, Role},
    service::{Mode, ServiceSpec, TaskSpec, UpdateConfig},
    task::{DesiredState, TaskState, TaskStatus},
    time::Stamp,
};

/// Largest encoded store of a test, bytes.
const ENCODED_MAX: usize = 16 << 20;

/// A store, and the log index it is at.
#[derive(Default)]
pub struct Scene {
    pub store: Store,
    pub index: u64,
}

impl Scene {
    /// With a cluster.
    pub fn new() -> Self {
        Self::with(ClusterSpec::default())
    }

    pub fn with(spec: ClusterSpec) -> Self {
        let mut scene = Self::default();
        scene.ok(create_cluster(spec));
        scene
    }

    /// The next log entry, one second after the last.
    pub fn apply(&mut self, proposal: &Proposal) -> Result<Vec<Event>, Refusal> {
        self.index += 1;
        let before = self.store.clone();
        let at = before.last_at() + Duration::from_secs(1);
        let result = self.store.apply(self.index, at, proposal);
        self.store.check().unwrap();
        if result.as_ref().map_or(true, Vec::is_empty) {
            assert_eq!(self.store, before, "neither refused nor idle entries leave a trace");
        }
        result
    }

    pub fn all(&mut self, commands: Vec<Command>) -> Result<Vec<Event>, Refusal> {
        self.apply(&Proposal { planned_at: None, commands })
    }

    /// Applies one command, which must pass.
    pub fn ok(&mut self, command: Command) -> Vec<Event> {
        self.all(vec![command]).unwrap()
    }

    /// Applies one command, which must be refused.
    pub fn refused(&mut self, command: Command) -> Refusal {
        self.all(vec![command]).unwrap_err()
    }

    /// Lets time pass.
    pub fn wait(&mut self, time: Duration) {
        self.index += 1;
        let version = self.store.cluster().unwrap().version;
        let commands = vec![Command::SetJoinSecrets { version, join: join(self.index) }];
        let at = self.store.last_at() + time;
        self.store.apply(self.index, at, &Proposal { planned_at: None, commands }).unwrap();
    }

    pub fn service_version(&self, number: u128) -> u64 {
        self.store.service(id(number)).unwrap().version
    }

    pub fn node_version(&self, number: u128) -> u64 {
        self.store.node(id(number)).unwrap().version
    }

    pub fn update_service(&mut self, number: u128, spec: ServiceSpec) -> Result<Vec<Event>, Refusal> {
        let version = self.service_version(number);
        self.all(vec![Command::UpdateService { id: id(number), version, spec }])
    }

    pub fn update_node(&mut self, number: u128, spec: NodeSpec) -> Result<Vec<Event>, Refusal> {
        let version = self.node_version(number);
        self.all(vec![Command::UpdateNode { id: id(number), version, spec }])
    }

    /// A service, a node and a task of it on that node.
    pub fn with_task_on_node(service: u128, node: u128, task: u128) -> Self {
        let mut scene = Self::new();
        scene.ok(create_node(node, Role::Worker));
        scene.ok(create_service(service, "web"));
        scene.all(place_task(task, service, 1, node)).unwrap();
        scene
    }
}

pub fn id(number: u128) -> Id {
    Id::new(number)
}

pub fn join(number: u64) -> JoinSecrets {
    JoinSecrets { worker: format!("w{number}"), manager: format!("m{number}") }
}

pub fn create_cluster(spec: ClusterSpec) -> Command {
    let authority = Authority { certificate: "certificate".into(), key: "key".into() };
    Command::CreateCluster { id: id(9000), spec, authority, join: join(0) }
}

pub fn node_spec(role: Role) -> NodeSpec {
    NodeSpec { name: String::new(), labels: Default::default(), role, availability: Availability::Active }
}

pub fn create_node(number: u128, role: Role) -> Command {
    create_node_named(number, role, &format!("host{number}"))
}

pub fn create_node_named(number: u128, role: Role, hostname: &str) -> Command {
    Command::CreateNode {
        id: id(number),
        spec: node_spec(role),
        description: NodeDescription { hostname: hostname.into(), ..Default::default() },
        address: ([10, 0, 0, 1], 2377).into(),
        public_key: [7; 32],
    }
}

pub fn service_spec(name: &str) -> ServiceSpec {
    ServiceSpec {
        name: name.into(),
        labels: Default::default(),
        task: TaskSpec {
            container: ContainerSpec { image: "nginx:1".into(), ..Default::default() },
            ..Default::default()
        },
        mode: Mode::Replicated { replicas: 1 },
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
        endpoint: EndpointSpec::default(),
    }
}

pub fn service_spec_of_image(name: &str, image: &str) -> ServiceSpec {
    let mut spec = service_spec(name);
    spec.task.container.image = image.to_owned();
    spec
}

pub fn create_service(number: u128, name: &str) -> Command {
    Command::CreateService { id: id(number), spec: service_spec(name) }
}

pub fn create_task(number: u128, service: u128, slot: u64) -> Command {
    let desired = DesiredState::Running;
    Command::CreateTask { id: id(number), service: id(service), slot, desired, not_before: None }
}

/// An attachable network of these subnets; of none, one from the pool.
pub fn network_spec(name: &str, subnets: &[&str]) -> NetworkSpec {
    let subnets = subnets.iter().map(|subnet| subnet_spec(subnet)).collect();
    NetworkSpec { name: name.into(), attachable: true, subnets, ..Default::default() }
}

pub fn subnet_spec(subnet: &str) -> SubnetSpec {
    SubnetSpec { subnet: subnet.parse().unwrap(), gateway: None, range: None }
}

pub fn create_network(number: u128, name: &str, subnets: &[&str]) -> Command {
    Command::CreateNetwork { id: id(number), spec: network_spec(name, subnets) }
}

/// A service in these networks.
pub fn service_in(name: &str, networks: &[u128]) -> ServiceSpec {
    let mut spec = service_spec(name);
    let attach = |network: &u128| AttachmentSpec { network: id(*network), aliases: Vec::new() };
    spec.task.networks = networks.iter().map(attach).collect();
    spec
}

pub fn create_service_in(number: u128, name: &str, networks: &[u128]) -> Command {
    Command::CreateService { id: id(number), spec: service_in(name, networks) }
}

pub fn attach(number: u128, network: u128, node: u128) -> Command {
    attach_at(number, network, node, &[])
}

pub fn attach_at(number: u128, network: u128, node: u128, addresses: &[&str]) -> Command {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let container = format!("plain{number}");
    Command::CreateAttachment { id: id(number), network: id(network), node: id(node), container, addresses }
}

/// Creates, allocates and assigns a task.
pub fn place_task(number: u128, service: u128, slot: u64, node: u128) -> Vec<Command> {
    vec![
        create_task(number, service, slot),
        Command::AllocateTask { id: id(number) },
        Command::AssignTask { id: id(number), node: id(node) },
    ]
}

pub fn status(state: TaskState) -> TaskStatus {
    TaskStatus {
        attempt: 1,
        state,
        at: Stamp(5),
        message: "finished".into(),
        error: String::new(),
        container: None,
    }
}

pub fn finish(number: u128, state: TaskState) -> Command {
    Command::FinishTask { id: id(number), status: status(state) }
}

pub fn want(number: u128, desired: DesiredState) -> Command {
    Command::SetTaskDesired { id: id(number), desired }
}

pub fn encode(store: &Store) -> Vec<u8> {
    covey_wire::encode(store).unwrap()
}

pub fn decode(bytes: &[u8]) -> Store {
    covey_wire::decode::<Store, ENCODED_MAX>(bytes).unwrap()
}
