//! The store: what the cluster remembers, changed by `apply` and by nothing else.

mod address;
mod check;
mod check_networks;
mod cluster;
mod exposure;
mod network;
mod node;
mod service;
mod snapshot;
mod stale;
mod subnet;
mod task;

use std::sync::Arc;

use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};
use serde::{Deserialize, Serialize};

use self::{address::FreeAddresses, exposure::Naming, snapshot::Snapshot};
pub use self::{
    address::NoAddress,
    check::Broken,
    exposure::TOLD_BYTES_MAX,
    node::{MANAGERS_MAX, NUMBER_REST, REMOVED_NODES_MAX},
};
use crate::{
    Id, Version,
    cluster::Cluster,
    command::{Command, Proposal, Refusal},
    event::Event,
    network::{Attachment, Network, Protocol},
    node::Node,
    service::{Service, TaskSpec},
    task::Task,
    time::Stamp,
};

/// All that the cluster remembers. A clone costs nothing and shares what neither side changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Snapshot", into = "Snapshot")]
pub struct Store {
    /// Index of the last proposal that changed something.
    last_changed: Version,
    /// Its time.
    last_at: Stamp,
    cluster: Option<Arc<Cluster>>,
    pub(crate) nodes: RedBlackTreeMapSync<Id, Arc<Node>>,
    /// Numbers of removed nodes, and when each was removed: nobody gets them for a day.
    retired: RedBlackTreeMapSync<u32, Stamp>,
    /// Removed nodes, and when each was removed: their certificates may still be valid.
    removed: RedBlackTreeMapSync<Id, Stamp>,
    pub(crate) services: RedBlackTreeMapSync<Id, Arc<Service>>,
    pub(crate) tasks: RedBlackTreeMapSync<Id, Arc<Task>>,
    pub(crate) networks: RedBlackTreeMapSync<Id, Arc<Network>>,
    attachments: RedBlackTreeMapSync<Id, Arc<Attachment>>,
    /// (network, place of a subnet in it) → the address that was given last there, as a number.
    turns: RedBlackTreeMapSync<(Id, u8), u128>,
    /// The VXLAN id that was chosen last; 0: none yet.
    last_vni: u32,

    // Derived from the maps above, kept by `apply`, never written to disk.
    /// Name → service.
    service_names: RedBlackTreeMapSync<String, Id>,
    /// Service → its task spec of now, which its new tasks share.
    task_specs: RedBlackTreeMapSync<Id, Arc<TaskSpec>>,
    /// Name → network.
    network_names: RedBlackTreeMapSync<String, Id>,
    /// What no task, service or attachment has.
    free: FreeAddresses,
    /// (network, name of a service or its alias there in small letters, which of both, service).
    names: RedBlackTreeSetSync<(Id, String, Naming, Id)>,
    /// (protocol, published port, service), of both modes.
    ports: RedBlackTreeSetSync<(Protocol, u16, Id)>,
    /// (service, slot, task).
    tasks_by_service: RedBlackTreeSetSync<(Id, u64, Id)>,
    /// (node, task).
    tasks_by_node: RedBlackTreeSetSync<(Id, Id)>,
}

/// The smallest and the largest id: the ends of a range over all of them.
const IDS: (Id, Id) = (Id::new(0), Id::new(u128::MAX));

/// What is read. Order is always by id, unless said otherwise.
impl Store {
    /// Index of the last proposal that changed something; 0 while nothing has.
    pub fn last_changed(&self) -> Version {
        self.last_changed
    }

    /// Time of that proposal: every later one has a later time.
    pub fn last_at(&self) -> Stamp {
        self.last_at
    }

    /// The cluster; `None` before its first entry.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_deref()
    }

    /// One node.
    pub fn node(&self, id: Id) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// Nodes that were removed and may still show a valid certificate: those of the last lifetime of certificates,
    /// and the last [`REMOVED_NODES_MAX`] at most.
    pub fn removed_nodes(&self) -> impl Iterator<Item = Id> {
        self.removed.keys().copied()
    }

    /// One service.
    pub fn service(&self, id: Id) -> Option<&Arc<Service>> {
        self.services.get(&id)
    }

    /// All services.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The service of exactly this name.
    pub fn service_by_name(&self, name: &str) -> Option<&Arc<Service>> {
        self.service(*self.service_names.get(name)?)
    }

    /// One network.
    pub fn network(&self, id: Id) -> Option<&Arc<Network>> {
        self.networks.get(&id)
    }

    /// All networks.
    pub fn networks(&self) -> impl Iterator<Item = &Arc<Network>> {
        self.networks.values()
    }

    /// The network of exactly this name.
    pub fn network_by_name(&self, name: &str) -> Option<&Arc<Network>> {
        self.network(*self.network_names.get(name)?)
    }

    /// One plain container's place in a network.
    pub fn attachment(&self, id: Id) -> Option<&Arc<Attachment>> {
        self.attachments.get(&id)
    }

    /// All plain containers' places in networks.
    pub fn attachments(&self) -> impl Iterator<Item = &Arc<Attachment>> {
        self.attachments.values()
    }

    /// Those of the containers of a node.
    pub fn attachments_on_node(&self, node: Id) -> impl Iterator<Item = &Arc<Attachment>> {
        self.attachments().filter(move |attachment| attachment.node == node)
    }

    /// One task.
    pub fn task(&self, id: Id) -> Option<&Arc<Task>> {
        self.tasks.get(&id)
    }

    /// All tasks.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    /// The tasks of a service, ended ones and those of a removed service too, ordered by slot and then by id.
    pub fn tasks_of_service(&self, id: Id) -> impl Iterator<Item = &Arc<Task>> {
        let range = (id, 0, IDS.0)..=(id, u64::MAX, IDS.1);
        self.tasks_by_service.range(range).filter_map(|(_, _, task)| self.task(*task))
    }

    /// The tasks that fill, or filled, one place of a service.
    pub fn tasks_of_slot(&self, service: Id, slot: u64) -> impl Iterator<Item = &Arc<Task>> {
        let range = (service, slot, IDS.0)..=(service, slot, IDS.1);
        self.tasks_by_service.range(range).filter_map(|(_, _, task)| self.task(*task))
    }

    /// The tasks bound to a node, ended ones and those of a removed node too.
    pub fn tasks_on_node(&self, id: Id) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_by_node.range((id, IDS.0)..=(id, IDS.1)).filter_map(|(_, task)| self.task(*task))
    }
}

impl Store {
    /// Applies a proposal as log entry `index`, proposed at `at`: all of it, or nothing.
    ///
    /// Every object that it touches gets `version = index`; time never goes back, so that the entry counts as
    /// applied at `max(at, last_at + 1 ns)`. A proposal that changes nothing is accepted and leaves no trace.
    ///
    /// # Errors
    /// The first command that may not be; or [`Refusal::Stale`] for a plan that is about something which has changed
    /// since. The store is then as it was.
    pub fn apply(&mut self, index: Version, at: Stamp, proposal: &Proposal) -> Result<Vec<Event>, Refusal> {
        let outrun = proposal.planned_at.filter(|planned| *planned != self.last_changed);
        if let Some(planned) = outrun
            && proposal.commands.iter().any(|command| self.has_outrun(command, planned))
        {
            return Err(Refusal::Stale);
        }
        let at = at.max(Stamp(self.last_at.0.saturating_add(1)));
        let mut entry = Entry { store: self.clone(), index, at, events: Vec::new() };
        for command in &proposal.commands {
            // What a plan was about may be gone since.
            entry
                .apply(command)
                .map_err(|refusal| if outrun.is_some() { Refusal::Stale } else { refusal })?;
        }
        if !entry.events.is_empty() {
            entry.store.last_changed = index;
            entry.store.last_at = at;
            *self = entry.store;
        }
        Ok(entry.events)
    }
}

/// A log entry on its way in: works on a scratch store, which replaces the real one if every command passes.
struct Entry {
    store: Store,
    index: Version,
    at: Stamp,
    events: Vec<Event>,
}

impl Entry {
    /// The hub: each noun's rules are in a file of its own.
    fn apply(&mut self, command: &Command) -> Result<(), Refusal> {
        match command {
            Command::CreateCluster { id, spec, authority, join } => {
                self.create_cluster(*id, spec, authority, join)
            }
            Command::UpdateCluster { version, spec } => self.update_cluster(*version, spec),
            Command::SetJoinSecrets { version, join } => self.set_join_secrets(*version, join),

            Command::CreateNode { id, spec, description, address, public_key } => {
                self.create_node(*id, spec, description, *address, *public_key)
            }
            Command::UpdateNode { id, version, spec } => self.update_node(*id, *version, spec),
            Command::DescribeNode { id, description, address } => {
                self.describe_node(*id, description, *address)
            }
            Command::SetNodeRole { id, role } => self.set_node_role(*id, *role),
            Command::SetNodeLeft { id, left } => self.set_node_left(*id, *left),
            Command::RemoveNode { id } => self.remove_node(*id),

            Command::CreateService { id, spec } => self.create_service(*id, spec),
            Command::UpdateService { id, version, spec } => self.update_service(*id, *version, spec),
            Command::SetUpdateStatus { id, status } => self.set_update_status(*id, status.as_ref()),
            Command::RemoveService { id } => self.remove_service(*id),

            Command::CreateNetwork { id, spec } => self.create_network(*id, spec),
            Command::RemoveNetwork { id } => self.remove_network(*id),
            Command::CreateAttachment { id, network, node, container, addresses } => {
                self.create_attachment(*id, *network, *node, container, addresses)
            }
            Command::RemoveAttachment { id } => self.remove_attachment(*id),

            Command::CreateTask { id, service, slot, desired, not_before } => {
                self.create_task(*id, *service, *slot, *desired, *not_before)
            }
            Command::AllocateTask { id } => self.allocate_task(*id),
            Command::AssignTask { id, node } => self.assign_task(*id, *node),
            Command::ExplainTask { id, reason } => self.explain_task(*id, reason),
            Command::SetTaskDesired { id, desired } => self.set_task_desired(*id, *desired),
            Command::FinishTask { id, status } => self.finish_task(*id, status),
            Command::RemoveTask { id } => self.remove_task(*id),
        }
    }
}

fn not_found(kind: &str, id: Id) -> Refusal {
    Refusal::NotFound { kind: kind.to_owned(), id }
}

/// Only what the user has read may be replaced.
fn check_version(read: Version, stored: Version) -> Result<(), Refusal> {
    if read == stored { Ok(()) } else { Err(Refusal::OutOfSequence) }
}
