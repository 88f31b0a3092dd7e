//! Commands: all that may change the store, each decided once and applied alike on every manager.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{
    Id, Version,
    cluster::{Authority, ClusterSpec, JoinSecrets},
    network::NetworkSpec,
    node::{NodeDescription, NodeSpec, Role},
    service::{ServiceSpec, UpdateStatus},
    task::{DesiredState, TaskStatus},
    time::Stamp,
};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first entry of every log.
    CreateCluster {
        /// Id of the cluster.
        id: Id,
        /// Its settings.
        spec: ClusterSpec,
        /// Its CA.
        authority: Authority,
        /// Its join secrets.
        join: JoinSecrets,
    },
    /// New settings.
    UpdateCluster {
        /// What the user had read.
        version: Version,
        /// The settings.
        spec: ClusterSpec,
    },
    /// New join secrets; the old ones are void at once.
    SetJoinSecrets {
        /// What the user had read: of two who make new ones at once, neither brings back what the other made void.
        version: Version,
        /// The secrets.
        join: JoinSecrets,
    },

    /// A node joins. The store gives it a number and an edge block.
    CreateNode {
        /// Its id.
        id: Id,
        /// What it may do, and whether it takes tasks.
        spec: NodeSpec,
        /// What it says of itself.
        description: NodeDescription,
        /// Where others reach it.
        address: SocketAddr,
        /// Its ed25519 key.
        public_key: [u8; 32],
    },
    /// The user changes a node.
    UpdateNode {
        /// Which.
        id: Id,
        /// What the user had read.
        version: Version,
        /// What is wanted.
        spec: NodeSpec,
    },
    /// A node said something new of itself, or moved.
    DescribeNode {
        /// Which.
        id: Id,
        /// What it says.
        description: NodeDescription,
        /// Where others reach it.
        address: SocketAddr,
    },
    /// Raft and certificate have followed a change of role.
    SetNodeRole {
        /// Which.
        id: Id,
        /// What it is now.
        role: Role,
    },
    /// A node said goodbye, or came back.
    SetNodeLeft {
        /// Which.
        id: Id,
        /// It left.
        left: bool,
    },
    /// A node is forgotten.
    RemoveNode {
        /// Which.
        id: Id,
    },

    /// A new service.
    CreateService {
        /// Its id.
        id: Id,
        /// What is wanted.
        spec: ServiceSpec,
    },
    /// The user changes a service.
    UpdateService {
        /// Which.
        id: Id,
        /// What the user had read.
        version: Version,
        /// What is wanted.
        spec: ServiceSpec,
    },
    /// A roll-out went on.
    SetUpdateStatus {
        /// Which service.
        id: Id,
        /// How far it is; `None` forgets the last one.
        status: Option<UpdateStatus>,
    },
    /// A service is forgotten; its tasks are wanted removed.
    RemoveService {
        /// Which.
        id: Id,
    },

    /// A new network. The store chooses what the spec leaves open.
    CreateNetwork {
        /// Its id.
        id: Id,
        /// What is wanted.
        spec: NetworkSpec,
    },
    /// A network is forgotten; refused while a service, a task or a container uses it.
    RemoveNetwork {
        /// Which.
        id: Id,
    },
    /// A plain container joins a network. The store chooses its addresses.
    CreateAttachment {
        /// Its id.
        id: Id,
        /// Which network.
        network: Id,
        /// The container's node.
        node: Id,
        /// The container, for the user.
        container: String,
        /// The addresses that the user asks for, at most one of each family.
        addresses: Vec<IpAddr>,
    },
    /// A plain container left a network.
    RemoveAttachment {
        /// Which.
        id: Id,
    },

    /// The orchestrator fills a slot.
    CreateTask {
        /// Its id.
        id: Id,
        /// Its service; the task takes the service's spec of now.
        service: Id,
        /// The place it fills.
        slot: u64,
        /// `Ready` where it has to wait for its turn.
        desired: DesiredState,
        /// When it may start.
        not_before: Option<Stamp>,
    },
    /// The allocator is done with it: `New` → `Pending`. The store chooses its addresses; refused where a network has
    /// none left.
    AllocateTask {
        /// Which.
        id: Id,
    },
    /// The scheduler gives it a node: `Pending` → `Assigned`.
    AssignTask {
        /// Which.
        id: Id,
        /// Where.
        node: Id,
    },
    /// The allocator or the scheduler says why it waits.
    ExplainTask {
        /// Which.
        id: Id,
        /// `network web has no free address (254 used)`, `no suitable node (2 not available, 1 lacks memory)`.
        reason: String,
    },
    /// What is wanted of it; only grows.
    SetTaskDesired {
        /// Which.
        id: Id,
        /// What is wanted.
        desired: DesiredState,
    },
    /// How it ended; once.
    FinishTask {
        /// Which.
        id: Id,
        /// Its last status, in a terminal state.
        status: TaskStatus,
    },
    /// The reaper forgets it.
    RemoveTask {
        /// Which.
        id: Id,
    },
}

/// What is proposed to the log: all of it is applied, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// For plans: the last index that had changed the store when it was made. Refused where something that the
    /// commands are about has changed since. Users' commands carry none.
    pub planned_at: Option<Version>,
    /// The changes, in order.
    pub commands: Vec<Command>,
}

/// Why a proposal was refused. Nothing of it was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The object has changed since the user read it.
    #[error("update out of sequence")]
    OutOfSequence,
    /// The store has moved on since the plan was made.
    #[error("the plan is out of date")]
    Stale,
    /// There is no such object.
    #[error("{kind} {id} not found")]
    NotFound {
        /// `service`, `node`, `network`, `attachment`, `task`, `cluster`.
        kind: String,
        /// Which.
        id: Id,
    },
    /// The name is taken.
    #[error("name conflicts with an existing object: {kind} {name} already exists")]
    NameInUse {
        /// `service`, `network`.
        kind: String,
        /// Which.
        name: String,
    },
    /// Others need the object as it is.
    #[error("{kind} {id} is in use by {user}")]
    InUse {
        /// `network`.
        kind: String,
        /// Which.
        id: Id,
        /// `service …`, `task …`, `container …`.
        user: String,
    },
    /// The user may not do that here.
    #[error("{0}")]
    Denied(String),
    /// The change is not allowed.
    #[error("{0}")]
    Invalid(String),
}
