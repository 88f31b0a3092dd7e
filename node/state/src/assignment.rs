//! What the leader hands to a node: the tasks that it is to run.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Id, Store,
    network::{Attached, Exposure, PublishMode, PublishedPort, TaskAttachment, Wiring},
    service::TaskSpec,
    task::{DesiredState, Task},
};

/// Orders assignment sets: a node refuses an older one, so that two leaders cannot move it backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generation {
    /// Term of the leader.
    pub term: u64,
    /// Counts the sets of that leader for this node.
    pub sequence: u64,
}

/// One task for a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The task.
    pub task: Id,
    /// Its service.
    pub service: Id,
    /// Name of the service.
    pub service_name: Arc<str>,
    /// The place it fills.
    pub slot: u64,
    /// What to run.
    pub spec: Arc<TaskSpec>,
    /// What is wanted.
    pub desired: DesiredState,
    /// It has an interface at the edge.
    pub edge: bool,
    /// The networks that it is in.
    pub networks: Vec<Attached>,
    /// Ports of its host that are its own (host mode).
    pub ports: Vec<PublishedPort>,
    /// How its service is reached, as of now.
    pub exposure: Arc<Exposure>,
}

impl Assignment {
    /// The assignment of `task`, a task of `store`.
    pub fn of(store: &Store, task: &Task) -> Self {
        let attached = |attachment: &TaskAttachment| {
            let aliases = task.spec.networks.iter().find(|spec| spec.network == attachment.network);
            Some(Attached {
                network: Arc::new(store.network(attachment.network)?.config()),
                addresses: attachment.addresses.clone(),
                aliases: aliases.map(|spec| spec.aliases.clone()).unwrap_or_default(),
                attachment: None,
            })
        };
        let service = store.service(task.service);
        Self {
            edge: task.edge,
            ports: task.ports.clone(),
            networks: task.attachments.iter().filter_map(attached).collect(),
            exposure: service.map(|service| service.exposure.clone()).unwrap_or_default(),
            task: task.id,
            service: task.service,
            service_name: task.service_name.clone(),
            slot: task.slot,
            spec: task.spec.clone(),
            desired: task.desired,
        }
    }

    /// Bytes that it takes on the wire.
    pub fn encoded_len(&self) -> usize {
        covey_wire::encode(self).map_or(0, |bytes| bytes.len())
    }

    /// What its container has of the networks.
    pub fn wiring(&self) -> Wiring {
        let ingress = self.exposure.ports.iter().filter(|port| port.mode == PublishMode::Ingress);
        Wiring {
            edge: self.edge,
            bridge: false,
            networks: self.networks.clone(),
            ports: self.ports.iter().chain(ingress).cloned().collect(),
            nameservers: self.spec.container.naming.servers.clone(),
            names: Vec::new(),
            chosen: Vec::new(),
        }
    }

    /// `service.slot`.
    pub fn task_name(&self) -> String {
        format!("{}.{}", self.service_name, self.slot)
    }

    /// `service.slot.task`, the name of its container.
    pub fn container_name(&self) -> String {
        format!("{}.{}.{}", self.service_name, self.slot, self.task)
    }
}

/// What changed for a node, or all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AssignmentSet {
    /// All tasks of the node, or the first ones; others of it are to be removed.
    Full {
        /// Orders the sets.
        generation: Generation,
        /// The tasks.
        tasks: Vec<Assignment>,
        /// More tasks of the node, which follow in [`AssignmentSet::Changes`]: what it has of them stays.
        later: Vec<Id>,
    },
    /// What changed since the set of `base`; refused where that is not the last one seen.
    Changes {
        /// The set that this one builds on.
        base: Generation,
        /// Orders the sets.
        generation: Generation,
        /// New or changed tasks.
        update: Vec<Assignment>,
        /// Tasks to forget, with their containers.
        remove: Vec<Id>,
    },
}
