//! What holds for every store that `apply` made; tests and simulations check it after each entry.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{MANAGERS_MAX, REMOVED_NODES_MAX, Store};
use crate::{
    Id, Version,
    service::TaskSpec,
    task::{DesiredState, Task, TaskState},
    time::Stamp,
};

/// An invariant does not hold: a mistake in the rules, never the user's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {id}: {what}")]
pub struct Broken {
    /// `node`, `service`, `task`, `store`.
    kind: &'static str,
    /// Which object; for the store a count.
    id: String,
    /// What should hold.
    what: &'static str,
}

impl Store {
    /// Checks every invariant: looks at all objects.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check(&self) -> Result<(), Broken> {
        self.check_nodes()?;
        self.check_services()?;
        self.check_tasks()?;
        self.check_sharing()?;
        self.check_networks()
    }

    fn check_nodes(&self) -> Result<(), Broken> {
        let mut numbers = BTreeSet::new();
        for node in self.nodes() {
            let expect = |holds, what| expect("node", node.id, holds, what);
            expect(node.number != 0 && numbers.insert(node.number), "its number is its own")?;
            expect(!self.retired.contains_key(&node.number), "its number has rested")?;
            expect(!self.removed.contains_key(&node.id), "it was not removed")?;
            let pool = self.cluster.as_ref().map(|cluster| cluster.spec.edge);
            // Blocks of different numbers are disjoint: each is the pool's block of that index.
            expect(
                pool.and_then(|pool| pool.block(node.number).ok()) == Some(node.edge),
                "its block is its number's",
            )?;
            expect(self.is_past(node.version, node.created_at, node.updated_at), "it lies in the past")?;
        }
        let removed = self.removed.size();
        expect("store", removed, removed <= REMOVED_NODES_MAX, "not too many removed nodes are remembered")?;
        let managers = self.nodes().filter(|node| node.is_manager()).count();
        expect("store", managers, managers <= MANAGERS_MAX, "there are not too many managers")
    }

    fn check_services(&self) -> Result<(), Broken> {
        for service in self.services() {
            let expect = |holds, what| expect("service", service.id, holds, what);
            expect(self.service_names.get(&service.spec.name) == Some(&service.id), "its name finds it")?;
            let shared = self.task_specs.get(&service.id);
            expect(shared.is_some_and(|spec| **spec == service.spec.task), "new tasks run its spec")?;
            expect(service.spec.check().is_ok(), "its spec is one that services may have")?;
            expect(service.spec_version <= service.version, "its spec is not newer than itself")?;
            expect(
                self.is_past(service.version, service.created_at, service.updated_at),
                "it lies in the past",
            )?;
        }
        let (names, specs) = (self.service_names.size(), self.task_specs.size());
        expect("store", names, names == self.services.size(), "each name is some service's")?;
        expect("store", specs, specs == self.services.size(), "each shared spec is some service's")
    }

    fn check_tasks(&self) -> Result<(), Broken> {
        for task in self.tasks() {
            let expect = |holds, what| expect("task", task.id, holds, what);
            let orphan = self.service(task.service).is_none();
            expect(
                !orphan || task.desired == DesiredState::Remove,
                "without its service it is to be removed",
            )?;
            expect(is_bound_rightly(task), "it has a node from Assigned on")?;
            expect(self.is_on_living_node(task), "on a node that is gone it has ended")?;
            let of_service = (task.service, task.slot, task.id);
            expect(self.tasks_by_service.contains(&of_service), "its service finds it")?;
            let on_node = task.node.map(|node| (node, task.id));
            expect(on_node.is_none_or(|key| self.tasks_by_node.contains(&key)), "its node finds it")?;
            expect(self.is_past(task.version, task.created_at, task.updated_at), "it lies in the past")?;
        }
        let (listed, bound) = (self.tasks_by_service.size(), self.tasks_by_node.size());
        expect("store", listed, listed == self.tasks.size(), "services find tasks that exist only")?;
        let expected = self.tasks().filter(|task| task.node.is_some()).count();
        expect("store", bound, bound == expected, "nodes find tasks that exist only")
    }

    /// Tasks of one spec version hold one copy of the spec.
    fn check_sharing(&self) -> Result<(), Broken> {
        let mut seen: BTreeMap<(Id, Version), &Arc<TaskSpec>> = BTreeMap::new();
        for service in self.services() {
            seen.extend(
                self.task_specs.get(&service.id).map(|spec| ((service.id, service.spec_version), spec)),
            );
        }
        for task in self.tasks() {
            let first = *seen.entry((task.service, task.spec_version)).or_insert(&task.spec);
            expect("task", task.id, Arc::ptr_eq(first, &task.spec), "it shares its spec")?;
        }
        Ok(())
    }

    fn is_on_living_node(&self, task: &Task) -> bool {
        task.status.state.is_terminal() || task.node.is_none_or(|node| self.node(node).is_some())
    }

    fn is_past(&self, version: Version, created_at: Stamp, updated_at: Stamp) -> bool {
        (1..=self.last_changed).contains(&version) && created_at <= updated_at && updated_at <= self.last_at
    }
}

/// The log knows three states before the end.
fn is_bound_rightly(task: &Task) -> bool {
    match task.status.state {
        TaskState::New | TaskState::Pending => task.node.is_none(),
        TaskState::Assigned => task.node.is_some(),
        // One that never got a node can only have been called off.
        ended => ended == TaskState::Shutdown || (ended.is_terminal() && task.node.is_some()),
    }
}

pub(super) fn expect(
    kind: &'static str,
    id: impl ToString,
    holds: bool,
    what: &'static str,
) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { kind, id: id.to_string(), what }) }
}
