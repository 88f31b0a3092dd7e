//! The store as it is written: objects only, each task spec once; what is derived is derived again on reading.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::Store;
use crate::{
    Id, Version,
    cluster::Cluster,
    network::{Attachment, Network},
    node::Node,
    service::{Service, TaskSpec},
    task::Task,
    time::Stamp,
};

/// What is written of a [`Store`].
#[derive(Serialize, Deserialize)]
pub(super) struct Snapshot {
    last_changed: Version,
    last_at: Stamp,
    cluster: Option<Arc<Cluster>>,
    nodes: Vec<Arc<Node>>,
    retired: BTreeMap<u32, Stamp>,
    removed: BTreeMap<Id, Stamp>,
    services: Vec<Arc<Service>>,
    /// (service, spec version) → what its tasks run.
    specs: BTreeMap<(Id, Version), Arc<TaskSpec>>,
    /// Each with an empty spec in place of its own.
    tasks: Vec<Task>,
    networks: Vec<Arc<Network>>,
    attachments: Vec<Arc<Attachment>>,
    turns: BTreeMap<(Id, u8), u128>,
    last_vni: u32,
}

impl From<Store> for Snapshot {
    fn from(store: Store) -> Self {
        let nothing = Arc::new(TaskSpec::default());
        let mut specs = BTreeMap::new();
        let mut tasks = Vec::with_capacity(store.tasks.size());
        for task in store.tasks() {
            specs.entry((task.service, task.spec_version)).or_insert_with(|| task.spec.clone());
            tasks.push(Task { spec: nothing.clone(), ..(**task).clone() });
        }
        Self {
            last_changed: store.last_changed,
            last_at: store.last_at,
            cluster: store.cluster.clone(),
            nodes: store.nodes().cloned().collect(),
            retired: store.retired.iter().map(|(number, removed)| (*number, *removed)).collect(),
            removed: store.removed.iter().map(|(id, removed)| (*id, *removed)).collect(),
            services: store.services().cloned().collect(),
            specs,
            tasks,
            networks: store.networks().cloned().collect(),
            attachments: store.attachments().cloned().collect(),
            turns: store.turns.iter().map(|(place, turn)| (*place, *turn)).collect(),
            last_vni: store.last_vni,
        }
    }
}

/// A snapshot lacks what a task runs.
#[derive(Debug, thiserror::Error)]
#[error("the snapshot has no spec for task {0}")]
pub(super) struct NoSpec(Id);

impl TryFrom<Snapshot> for Store {
    type Error = NoSpec;

    fn try_from(mut snapshot: Snapshot) -> Result<Self, NoSpec> {
        let mut store = Self {
            last_changed: snapshot.last_changed,
            last_at: snapshot.last_at,
            cluster: snapshot.cluster,
            nodes: snapshot.nodes.into_iter().map(|node| (node.id, node)).collect(),
            retired: snapshot.retired.into_iter().collect(),
            removed: snapshot.removed.into_iter().collect(),
            turns: snapshot.turns.into_iter().collect(),
            last_vni: snapshot.last_vni,
            ..Self::default()
        };
        for network in snapshot.networks {
            store.index_network(&network);
            store.networks.insert_mut(network.id, network);
        }
        for service in snapshot.services {
            let spec = (snapshot.specs)
                .entry((service.id, service.spec_version))
                .or_insert_with(|| Arc::new(service.spec.task.clone()));
            store.task_specs.insert_mut(service.id, spec.clone());
            store.index_service(&service);
            for vip in &service.exposure.vips {
                store.index_addresses(vip.network, &vip.addresses);
            }
            store.services.insert_mut(service.id, service);
        }
        for attachment in snapshot.attachments {
            store.index_addresses(attachment.network, &attachment.addresses);
            store.attachments.insert_mut(attachment.id, attachment);
        }
        let mut names: BTreeMap<Id, Arc<str>> = BTreeMap::new();
        for mut task in snapshot.tasks {
            let spec = snapshot.specs.get(&(task.service, task.spec_version)).ok_or(NoSpec(task.id))?;
            task.spec = spec.clone();
            task.service_name = names.entry(task.service).or_insert(task.service_name).clone();
            store.index_task(&task);
            for attachment in task.held_addresses() {
                store.index_addresses(attachment.network, &attachment.addresses);
            }
            store.tasks.insert_mut(task.id, Arc::new(task));
        }
        Ok(store)
    }
}

impl Store {
    /// Adds a task to what is derived from tasks; one that is there costs nothing.
    pub(super) fn index_task(&mut self, task: &Task) {
        let of_service = (task.service, task.slot, task.id);
        if !self.tasks_by_service.contains(&of_service) {
            self.tasks_by_service.insert_mut(of_service);
        }
        if let Some(on_node) = task.node.map(|node| (node, task.id))
            && !self.tasks_by_node.contains(&on_node)
        {
            self.tasks_by_node.insert_mut(on_node);
        }
    }
}
