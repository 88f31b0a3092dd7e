//! Commands on nodes: who is one, its number and block, its role.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rpds::RedBlackTreeMapSync;

use super::{Entry, check_version, not_found};
use crate::{
    Id, Version,
    command::Refusal,
    event::{Change, Event},
    node::{Node, NodeDescription, NodeSpec, Role},
    task::{DesiredState, TaskState, TaskStatus},
    time::Stamp,
};

/// Managers that a cluster may have: each more makes the log slower and hardly safer.
pub const MANAGERS_MAX: usize = 7;
/// A removed node's number is given to nobody for this long: marks and addresses derived from it may live on.
pub const NUMBER_REST: Duration = Duration::from_secs(24 * 3600);
/// Removed nodes that are remembered: the last ones, however many there were.
pub const REMOVED_NODES_MAX: usize = 4096;

impl Entry {
    pub(super) fn create_node(
        &mut self,
        id: Id,
        spec: &NodeSpec,
        description: &NodeDescription,
        address: SocketAddr,
        public_key: [u8; 32],
    ) -> Result<(), Refusal> {
        if self.store.nodes.contains_key(&id) {
            return Err(Refusal::Invalid(format!("node {id} exists already")));
        }
        if spec.role == Role::Manager {
            self.check_room_for_manager()?;
        }
        let pool = self.cluster()?.spec.edge;
        let number = self.free_number();
        let edge = pool.block(number).map_err(|error| Refusal::Invalid(error.to_string()))?;
        let node = Node {
            id,
            version: self.index,
            created_at: self.at,
            updated_at: self.at,
            spec: spec.clone(),
            role: spec.role,
            description: description.clone(),
            address,
            public_key,
            number,
            edge,
            left: false,
        };
        self.store.removed.remove_mut(&id);
        self.put_node(node, Change::Created);
        Ok(())
    }

    pub(super) fn update_node(&mut self, id: Id, version: Version, spec: &NodeSpec) -> Result<(), Refusal> {
        let mut node = self.node(id)?;
        check_version(version, node.version)?;
        match (node.spec.role, spec.role) {
            (Role::Worker, Role::Manager) if node.role == Role::Worker => self.check_room_for_manager()?,
            (Role::Manager, Role::Worker) => self.check_not_last(id)?,
            _ => {}
        }
        node.spec = spec.clone();
        self.put_node(node, Change::Updated);
        Ok(())
    }

    pub(super) fn describe_node(
        &mut self,
        id: Id,
        description: &NodeDescription,
        address: SocketAddr,
    ) -> Result<(), Refusal> {
        let mut node = self.node(id)?;
        if node.description != *description || node.address != address {
            node.description = description.clone();
            node.address = address;
            self.put_node(node, Change::Updated);
        }
        Ok(())
    }

    /// A fact, which Raft has made already: it is recorded, whatever users want by now.
    pub(super) fn set_node_role(&mut self, id: Id, role: Role) -> Result<(), Refusal> {
        let mut node = self.node(id)?;
        if node.role != role {
            node.role = role;
            self.put_node(node, Change::Updated);
        }
        Ok(())
    }

    pub(super) fn set_node_left(&mut self, id: Id, left: bool) -> Result<(), Refusal> {
        let mut node = self.node(id)?;
        if node.left != left {
            node.left = left;
            self.put_node(node, Change::Updated);
        }
        Ok(())
    }

    pub(super) fn remove_node(&mut self, id: Id) -> Result<(), Refusal> {
        let node = self.node(id)?;
        if node.is_manager() {
            return Err(Refusal::Invalid(format!(
                "node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
            )));
        }
        self.orphan_tasks(id)?;
        self.remove_attachments_on(id)?;
        self.store.nodes.remove_mut(&id);
        self.store.retired.insert_mut(node.number, self.at);
        self.store.removed.insert_mut(id, self.at);
        let lifetime = self.cluster()?.spec.certificate_lifetime;
        forget_removed(&mut self.store.removed, self.at, lifetime);
        self.events.push(Event::Node(id, Change::Removed));
        Ok(())
    }

    /// Nobody will hear of these tasks again; they stay in the history, with the id of the node that was.
    fn orphan_tasks(&mut self, node: Id) -> Result<(), Refusal> {
        let lost: Vec<Id> = (self.store.tasks_on_node(node))
            .filter(|task| !task.status.state.is_terminal())
            .map(|task| task.id)
            .collect();
        for id in lost {
            let task = self.task(id)?;
            self.set_task_desired(id, task.desired.max(DesiredState::Shutdown))?;
            let status = TaskStatus {
                state: TaskState::Orphaned,
                at: self.at,
                message: "its node was removed from the cluster".to_owned(),
                ..task.status
            };
            self.finish_task(id, &status)?;
        }
        Ok(())
    }

    fn node(&self, id: Id) -> Result<Node, Refusal> {
        self.store.node(id).map(|node| (**node).clone()).ok_or_else(|| not_found("node", id))
    }

    fn put_node(&mut self, mut node: Node, change: Change) {
        node.version = self.index;
        node.updated_at = self.at;
        self.events.push(Event::Node(node.id, change));
        self.store.nodes.insert_mut(node.id, Arc::new(node));
    }

    /// One that is being demoted still votes, and counts.
    fn check_room_for_manager(&self) -> Result<(), Refusal> {
        if self.store.nodes().filter(|node| node.is_manager()).count() < MANAGERS_MAX {
            return Ok(());
        }
        Err(Refusal::Invalid(format!("a cluster has at most {MANAGERS_MAX} managers")))
    }

    /// Another manager must remain; one that left is none to rely on.
    fn check_not_last(&self, id: Id) -> Result<(), Refusal> {
        let remains = |other: &Arc<Node>| other.id != id && !other.left && other.spec.role == Role::Manager;
        if self.store.nodes().any(remains) {
            return Ok(());
        }
        Err(Refusal::Invalid("attempting to demote the last manager of the swarm".to_owned()))
    }

    /// The smallest number that no node has, nor had within the last day.
    fn free_number(&mut self) -> u32 {
        let rested: Vec<u32> = (self.store.retired.iter())
            .filter(|(_, removed)| self.at.since(**removed) >= NUMBER_REST)
            .map(|(number, _)| *number)
            .collect();
        for number in rested {
            self.store.retired.remove_mut(&number);
        }
        let mut taken: Vec<u32> =
            self.store.nodes().map(|node| node.number).chain(self.store.retired.keys().copied()).collect();
        taken.sort_unstable();
        // As long as there is no gap they count 1, 2, 3 …
        taken.into_iter().fold(1, |free, taken| if taken == free { free + 1 } else { free })
    }
}

/// Forgets those whose certificates have run out, and then the oldest where there are too many.
fn forget_removed(removed: &mut RedBlackTreeMapSync<Id, Stamp>, now: Stamp, lifetime: Duration) {
    let mut by_age: Vec<(Stamp, Id)> = removed.iter().map(|(id, at)| (*at, *id)).collect();
    by_age.sort_unstable();
    let expired = by_age.partition_point(|(at, _)| now.since(*at) >= lifetime);
    let surplus = by_age.len().saturating_sub(REMOVED_NODES_MAX);
    for (_, id) in by_age.iter().take(expired.max(surplus)) {
        removed.remove_mut(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids count down, so that their order is not the one in which the nodes went.
    #[test]
    fn of_many_removed_nodes_the_last_ones_are_remembered() {
        let count = REMOVED_NODES_MAX as i64 + 2;
        let mut removed: RedBlackTreeMapSync<Id, Stamp> =
            (1..=count).map(|age| (Id::new(age as u128), Stamp(-age))).collect();
        forget_removed(&mut removed, Stamp(0), Duration::from_secs(1));
        assert_eq!(removed.size(), REMOVED_NODES_MAX);
        assert_eq!(removed.last().map(|(id, _)| id.bits()), Some(count as u128 - 2));
    }
}
