//! Commands on tasks: each moves one only where the table of transitions lets it.

use std::sync::Arc;

use super::{Entry, not_found};
use crate::{
    Id,
    command::Refusal,
    event::{Change, Event},
    network::{AttachmentSpec, TaskAttachment},
    task::{DesiredState, Task, TaskState, TaskStatus},
    time::Stamp,
    transition::{self, Owner},
};

impl Entry {
    pub(super) fn create_task(
        &mut self,
        id: Id,
        service: Id,
        slot: u64,
        desired: DesiredState,
        not_before: Option<Stamp>,
    ) -> Result<(), Refusal> {
        if self.store.tasks.contains_key(&id) {
            return Err(Refusal::Invalid(format!("task {id} exists already")));
        }
        if slot == 0 {
            return Err(Refusal::Invalid(format!("task {id} has no slot: slots count from 1")));
        }
        if desired > DesiredState::Running {
            return Err(Refusal::Invalid(format!("task {id} would be made to be {}", desired.as_str())));
        }
        if desired == DesiredState::Running
            && self.store.tasks_of_slot(service, slot).any(|task| task.is_wanted_running())
        {
            return Err(Refusal::Invalid(format!(
                "slot {slot} of service {service} has a running task already"
            )));
        }
        let owner = self.service(service)?;
        let spec =
            self.store.task_specs.get(&service).cloned().ok_or_else(|| not_found("service", service))?;
        let sibling = self.store.tasks_of_service(service).next();
        let task = Task {
            id,
            version: self.index,
            created_at: self.at,
            updated_at: self.at,
            service,
            service_name: sibling
                .map_or_else(|| owner.spec.name.as_str().into(), |task| task.service_name.clone()),
            slot,
            spec,
            spec_version: owner.spec_version,
            node: None,
            desired,
            status: TaskStatus {
                attempt: 0,
                state: TaskState::New,
                at: self.at,
                message: "created".to_owned(),
                error: String::new(),
                container: None,
            },
            not_before,
            attachments: Vec::new(),
            edge: owner.edge,
            ports: owner.spec.endpoint.host_ports().cloned().collect(),
        };
        self.put_task(task, Change::Created);
        Ok(())
    }

    pub(super) fn allocate_task(&mut self, id: Id) -> Result<(), Refusal> {
        let mut task = self.task(id)?;
        self.advance(&mut task, Owner::Allocator, TaskState::Pending, "pending task scheduling")?;
        for AttachmentSpec { network, .. } in &task.spec.networks {
            let addresses = self.take_addresses(*network, &[])?;
            task.attachments.push(TaskAttachment { network: *network, addresses });
        }
        self.put_task(task, Change::Updated);
        Ok(())
    }

    pub(super) fn assign_task(&mut self, id: Id, node: Id) -> Result<(), Refusal> {
        let mut task = self.task(id)?;
        if self.store.node(node).is_none() {
            return Err(not_found("node", node));
        }
        self.advance(&mut task, Owner::Scheduler, TaskState::Assigned, "scheduler assigned task to node")?;
        task.node = Some(node);
        self.put_task(task, Change::Updated);
        Ok(())
    }

    pub(super) fn explain_task(&mut self, id: Id, reason: &str) -> Result<(), Refusal> {
        let mut task = self.task(id)?;
        if !matches!(task.status.state, TaskState::New | TaskState::Pending) {
            return Err(Refusal::Invalid(format!(
                "task {id} waits neither for addresses nor for a node: {}",
                task.status.state
            )));
        }
        if task.status.error != reason {
            reason.clone_into(&mut task.status.error);
            self.put_task(task, Change::Updated);
        }
        Ok(())
    }

    pub(super) fn set_task_desired(&mut self, id: Id, desired: DesiredState) -> Result<(), Refusal> {
        let mut task = self.task(id)?;
        if desired < task.desired {
            let (old, new) = (task.desired.as_str(), desired.as_str());
            return Err(Refusal::Invalid(format!(
                "task {id} is wanted {old} and cannot be wanted {new} again"
            )));
        }
        if desired != task.desired {
            task.desired = desired;
            self.put_task(task, Change::Updated);
        }
        Ok(())
    }

    pub(super) fn finish_task(&mut self, id: Id, status: &TaskStatus) -> Result<(), Refusal> {
        let mut task = self.task(id)?;
        if !transition::may_end(task.status.state, status.state) {
            return Err(forbidden(&task, status.state));
        }
        self.free_addresses_of(&task);
        task.status = status.clone();
        self.put_task(task, Change::Updated);
        Ok(())
    }

    pub(super) fn remove_task(&mut self, id: Id) -> Result<(), Refusal> {
        let task = self.task(id)?;
        if transition::owner(Some(task.status.state), None) != Some(Owner::Reaper) {
            return Err(Refusal::Invalid(format!(
                "task {id} cannot be removed: it is {}",
                task.status.state
            )));
        }
        self.free_addresses_of(&task);
        self.store.tasks.remove_mut(&id);
        self.store.tasks_by_service.remove_mut(&(task.service, task.slot, id));
        if let Some(node) = task.node {
            self.store.tasks_by_node.remove_mut(&(node, id));
        }
        self.note(&task, Change::Removed);
        Ok(())
    }

    fn free_addresses_of(&mut self, task: &Task) {
        for attachment in task.held_addresses() {
            self.free_addresses(attachment.network, &attachment.addresses);
        }
    }

    /// A copy of the task to change.
    pub(super) fn task(&self, id: Id) -> Result<Task, Refusal> {
        self.store.task(id).map(|task| (**task).clone()).ok_or_else(|| not_found("task", id))
    }

    /// Moves a task to `to`, if that is `owner`'s to do.
    fn advance(&self, task: &mut Task, owner: Owner, to: TaskState, message: &str) -> Result<(), Refusal> {
        if transition::owner(Some(task.status.state), Some(to)) != Some(owner) {
            return Err(forbidden(task, to));
        }
        task.status.state = to;
        task.status.at = self.at;
        message.clone_into(&mut task.status.message);
        task.status.error.clear();
        Ok(())
    }

    fn put_task(&mut self, mut task: Task, change: Change) {
        task.version = self.index;
        task.updated_at = self.at;
        self.note(&task, change);
        self.store.index_task(&task);
        self.store.tasks.insert_mut(task.id, Arc::new(task));
    }

    fn note(&mut self, task: &Task, change: Change) {
        self.events.push(Event::Task { id: task.id, service: task.service, node: task.node, change });
    }
}

fn forbidden(task: &Task, to: TaskState) -> Refusal {
    Refusal::Invalid(format!("task {} cannot go from {} to {to}", task.id, task.status.state))
}
