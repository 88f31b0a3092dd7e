//! What the API asks of the cluster, in its own words.

mod network;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use covey_state::{
    Id, Store, cluster::ClusterSpec, command::Command, event::Event, network::Network, node::Availability,
    task::TaskStatus, time::Stamp,
};
use futures_util::{future::BoxFuture, stream::BoxStream};

pub use self::network::{
    Carried, CarriedNetwork, DataPlane, Finding, Hop, NetworkPeer, PathRequest, Severity, ToldService,
    ToldTask,
};
use crate::{
    failure::Failure,
    log::{LogLine, LogQuery},
};

/// The cluster, as this node can ask it. `node` plugs the real one in, tests plug a fake.
///
/// Futures resolve in bounded time: a cluster that cannot answer (no quorum, no leader) is `Unavailable`, and a
/// node that is no manager answers [`Failure::not_a_manager`] or [`Failure::not_in_swarm`].
pub trait Control: Send + Sync + 'static {
    /// What this node knows of its own membership. Never waits.
    fn membership(&self) -> Membership;

    /// The cluster as of now: linearizable, so it shows every change that was acknowledged before.
    fn read(&self) -> BoxFuture<'_, Result<View, Failure>>;

    /// Has the leader put `command` in the log; returns when it is applied on this node. A refusal of the store
    /// comes back as `Failure::from(refusal)`.
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<(), Failure>>;

    /// A fresh random id.
    fn new_id(&self) -> Id;

    /// Makes a new cluster with this node as its only manager; returns the node's id.
    fn init(&self, request: InitRequest) -> BoxFuture<'_, Result<Id, Failure>>;

    /// Joins a cluster; returns when this node is a member.
    fn join(&self, request: JoinRequest) -> BoxFuture<'_, Result<(), Failure>>;

    /// Leaves the cluster; without `force` a manager refuses where CLU-11 and CLU-13 say so.
    fn leave(&self, force: bool) -> BoxFuture<'_, Result<(), Failure>>;

    /// Makes new join tokens for the roles that are named; the old ones are void at once.
    fn rotate_tokens(&self, roles: Rotate) -> BoxFuture<'_, Result<(), Failure>>;

    /// Log lines of the tasks of a service, or of one task, from whichever node they are on. With
    /// [`LogQuery::follow`] tasks that appear later are included, and the stream ends when the client leaves.
    fn logs(
        &self,
        of: LogsOf,
        query: LogQuery,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<TaskLine, Failure>>, Failure>>;

    /// What changes in the store from now on, while this node is a manager. One stream lasts for the life of the
    /// daemon, through `init`, `join` and `leave`; it is silent while there is nothing to tell.
    fn changes(&self) -> BoxStream<'static, StoreChange>;

    /// What this node carries of the cluster's networks, manager or not. Never waits.
    fn carried(&self) -> Carried;

    /// The services in a network of the cluster that this node carries, as gossip tells it of them; without one, those that
    /// publish ports on every host. Resolves in bounded time, whether or not a manager can be reached.
    fn told_services(&self, network: Option<Id>) -> BoxFuture<'_, Vec<ToldService>>;

    /// The network of the cluster that is meant: by its id, its name or the beginning of its id. Asked on a worker,
    /// where [`Self::read`] is refused: a plain container is to join a network that the node may not carry yet.
    /// `None`: there is no such network.
    fn find_network(&self, reference: &str) -> BoxFuture<'_, Result<Option<Arc<Network>>, Failure>>;

    /// Examines every network on every host: what is wanted, what the kernel has, what the peers say, and whether each
    /// host reaches each other's data path with packets of full size. A host that does not answer in time is a finding.
    fn doctor(&self) -> BoxFuture<'_, Result<Vec<Finding>, Failure>>;

    /// Follows the way of a packet from a container of this node, step by step, and sends one to prove it.
    /// `NotFound`: there is no such container. A name that means nothing, or a way that ends, is the last hop.
    fn path(&self, request: PathRequest) -> BoxFuture<'_, Result<Vec<Hop>, Failure>>;

    /// What this node counts of its networks. Resolves in bounded time.
    fn data_plane(&self) -> BoxFuture<'_, DataPlane>;
}

/// Where this node stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// In a cluster or not.
    pub state: LocalState,
    /// This node's id in the cluster.
    pub node: Option<Id>,
    /// The address that it advertises.
    pub address: Option<IpAddr>,
    /// It is a manager, so cluster requests can be served here.
    pub manager: bool,
    /// The managers that it knows of.
    pub managers: Vec<(Id, SocketAddr)>,
    /// What is wrong with its membership; empty: nothing.
    pub error: String,
}

/// In a cluster or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalState {
    /// In none.
    #[default]
    Inactive,
    /// On its way in.
    Pending,
    /// In one.
    Active,
    /// In one, but it cannot take part; see [`Membership::error`].
    Error,
}

impl LocalState {
    /// As the Engine API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Error => "error",
        }
    }
}

/// The cluster as of one moment.
#[derive(Clone)]
pub struct View {
    /// What was decided.
    pub store: Store,
    /// What was observed of tasks; a task without an entry is as the store has it.
    pub observed: Arc<BTreeMap<Id, TaskStatus>>,
    /// What is wrong with a service on some hosts, though its tasks run: a sentence each. Most services have no entry.
    pub service_errors: Arc<BTreeMap<Id, Vec<String>>>,
    /// What was observed of nodes.
    pub nodes: Arc<BTreeMap<Id, Liveness>>,
    /// How nodes join.
    pub tokens: JoinTokens,
    /// The subject and public key of the CA's certificate, both DER.
    pub issuer: Issuer,
}

/// What was observed of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Liveness {
    /// Whether it is alive.
    pub state: NodeState,
    /// For the user, such as `heartbeat failure`.
    pub message: String,
    /// It leads the managers.
    pub leader: bool,
    /// A manager that takes part in the quorum.
    pub reachable: bool,
}

/// Whether a node is alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeState {
    /// Not heard of yet by this leader.
    #[default]
    Unknown,
    /// Alive.
    Ready,
    /// Gone.
    Down,
}

impl NodeState {
    /// As the Engine API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ready => "ready",
            Self::Down => "down",
        }
    }
}

/// Full join tokens, `SWMTKN-1-…`.
#[derive(Clone, Default)]
pub struct JoinTokens {
    /// Makes a worker.
    pub worker: String,
    /// Makes a manager.
    pub manager: String,
}

/// Who signs the members' certificates.
#[derive(Clone, Default)]
pub struct Issuer {
    /// DER of the subject.
    pub subject: Vec<u8>,
    /// DER of the public key (SubjectPublicKeyInfo).
    pub public_key: Vec<u8>,
}

/// `swarm init`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitRequest {
    /// `ip|interface[:port]`; empty: the only address of this host.
    pub advertise: String,
    /// `ip|interface[:port]`; empty: all addresses, default port.
    pub listen: String,
    /// `ip|interface` where packets of networks come in; empty: as `advertise`.
    pub data_path: String,
    /// Whether this node takes tasks.
    pub availability: Availability,
    /// Keep this node's state and make it the only manager.
    pub force_new_cluster: bool,
    /// Settings.
    pub spec: ClusterSpec,
}

/// `swarm join`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// Managers to ask, `host:port`; at least one.
    pub remotes: Vec<String>,
    /// `SWMTKN-1-…`, decides the role.
    pub token: String,
    /// `ip|interface[:port]`; empty: the address by which the manager is reached.
    pub advertise: String,
    /// `ip|interface[:port]`; empty: all addresses, default port.
    pub listen: String,
    /// `ip|interface` where packets of networks come in; empty: as `advertise`.
    pub data_path: String,
    /// Whether this node takes tasks.
    pub availability: Availability,
}

/// Which tokens are made anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotate {
    /// The worker's.
    pub worker: bool,
    /// The manager's.
    pub manager: bool,
}

/// Whose logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogsOf {
    /// Those of all tasks of a service.
    Service(Id),
    /// Those of one task.
    Task(Id),
}

/// A log line of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskLine {
    /// The task.
    pub task: Id,
    /// Its service.
    pub service: Id,
    /// Its node.
    pub node: Id,
    /// The line.
    pub line: LogLine,
}

/// One applied log entry.
#[derive(Clone)]
pub struct StoreChange {
    /// When.
    pub at: Stamp,
    /// What was touched.
    pub events: Vec<Event>,
    /// The store before: knows the names of what is gone.
    pub before: Store,
    /// The store after.
    pub after: Store,
}
