//! What each node has left, and how many tasks it has.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use covey_state::{
    Id,
    container::Amount,
    network::PublishedPort,
    node::{Availability, Node},
    task::{Task, TaskState},
};

use super::{filter, spread};
use crate::{
    draft::Draft,
    health::Health,
    slot::{ended_by_itself, is_active},
};

/// Failures older than this say nothing about a node any more.
const FAILURE_MEMORY: Duration = Duration::from_secs(5 * 60);
/// So many recent failures of a service on a node, and the node comes last for that service.
const FAILURES_MANY: u64 = 5;

/// A node as the scheduler sees it.
pub(crate) struct Candidate {
    pub node: Arc<Node>,
    /// It is alive and takes tasks.
    pub available: bool,
    /// Tasks that are wanted on it.
    pub active: u64,
    /// Tasks that have not ended yet, the stopping ones too: each has an address.
    pub present: u64,
    /// What those have reserved.
    pub reserved: Amount,
    /// Ports of the host that those have for themselves.
    pub ports: Vec<PublishedPort>,
}

impl Candidate {
    fn new(draft: &Draft<'_>, node: &Arc<Node>) -> Self {
        let available =
            node.spec.availability == Availability::Active && draft.health(node.id) == Health::Able;
        let mut candidate = Self {
            node: node.clone(),
            available,
            active: 0,
            present: 0,
            reserved: Amount::default(),
            ports: Vec::new(),
        };
        if available {
            for task in draft.store.tasks_on_node(node.id).filter(|task| !draft.state(task).is_terminal()) {
                candidate.add(task);
            }
        }
        candidate
    }

    fn add(&mut self, task: &Task) {
        let reserved = task.spec.resources.reservations;
        self.active += u64::from(is_active(task));
        self.present += 1;
        self.ports.extend(task.ports.iter().filter(|port| port.published != 0).cloned());
        self.reserved.nano_cpus = self.reserved.nano_cpus.saturating_add(reserved.nano_cpus);
        self.reserved.memory = self.reserved.memory.saturating_add(reserved.memory);
    }

    /// What no task has reserved.
    pub fn free(&self) -> Amount {
        let has = self.node.description.resources;
        Amount {
            nano_cpus: has.nano_cpus.saturating_sub(self.reserved.nano_cpus),
            memory: has.memory.saturating_sub(self.reserved.memory),
        }
    }
}

/// All nodes, with the tasks that this plan has given them so far.
pub(crate) struct Loads {
    candidates: Vec<Candidate>,
    /// What each node has to do with a service, counted when the service comes up.
    of_service: BTreeMap<Id, BTreeMap<Id, Share>>,
}

/// What one node has to do with one service.
#[derive(Clone, Copy, Default)]
pub(super) struct Share {
    /// Active tasks.
    pub active: u64,
    /// Tasks that failed a short while ago.
    failures: u64,
}

impl Share {
    /// Nothing of the service seems to work there.
    pub fn is_failing(self) -> bool {
        self.failures >= FAILURES_MANY
    }
}

impl Loads {
    pub fn new(draft: &Draft<'_>) -> Self {
        let candidates = draft.store.nodes().map(|node| Candidate::new(draft, node)).collect();
        Self { candidates, of_service: BTreeMap::new() }
    }

    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The best of the nodes that can run `task`.
    pub fn best_for(&mut self, draft: &mut Draft<'_>, task: &Task) -> Option<Id> {
        let of_service = self.of_service.entry(task.service).or_insert_with(|| count(draft, task.service));
        let fitting = self.candidates.iter().filter(|node| filter::rejection(task, node).is_none());
        spread::best(fitting, of_service, || draft.random())
    }

    /// `task` was given to `node`.
    pub fn add(&mut self, node: Id, task: &Task) {
        if let Some(candidate) = self.candidates.iter_mut().find(|candidate| candidate.node.id == node) {
            candidate.add(task);
        }
        self.of_service.entry(task.service).or_default().entry(node).or_default().active += 1;
    }
}

fn count(draft: &Draft<'_>, service: Id) -> BTreeMap<Id, Share> {
    let mut shares: BTreeMap<Id, Share> = BTreeMap::new();
    for task in draft.store.tasks_of_service(service) {
        let Some(node) = task.node else { continue };
        let share = shares.entry(node).or_default();
        share.active += u64::from(is_active(task));
        share.failures += u64::from(has_failed_lately(draft, task));
    }
    shares
}

fn has_failed_lately(draft: &Draft<'_>, task: &Task) -> bool {
    ended_by_itself(task)
        && task.status.state != TaskState::Complete
        && draft.now.since(task.updated_at) < FAILURE_MEMORY
}
