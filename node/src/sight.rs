//! What this node has heard by gossip: who is alive, and how tasks are doing. Written by the gossip loop, read by the
//! leader and by the API.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use covey_gossip::{Liveness, MemberEvent};
use covey_state::{Id, store::Store, task::TaskStatus, time::Stamp};
use tokio::sync::Notify;

use crate::refused::RefusedPort;

/// What has changed since it was asked last.
#[derive(Debug, Default)]
pub struct News {
    /// Tasks with a new or withdrawn row.
    pub tasks: BTreeSet<Id>,
    /// Nodes that came or went.
    pub nodes: BTreeSet<Id>,
    /// Nodes to which a kept connection was lost, or whose daemon is another one than before.
    pub lost: BTreeSet<Id>,
}

impl News {
    fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.nodes.is_empty() && self.lost.is_empty()
    }
}

#[derive(Default)]
struct Heard {
    /// Rows by task, then by who wrote them: only the task's own node is believed.
    tasks: BTreeMap<Id, BTreeMap<Id, TaskStatus>>,
    nodes: BTreeMap<Id, (Liveness, Stamp)>,
    /// Under which incarnation each node is alive.
    incarnations: BTreeMap<Id, u64>,
    /// Published ports that hosts cannot take; no host without any.
    refused: BTreeMap<Id, Vec<RefusedPort>>,
    news: News,
}

/// What was heard, shared.
#[derive(Clone, Default)]
pub struct Sight(Arc<(Mutex<Heard>, Notify)>);

impl Sight {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        // Nothing here panics half-way through a change.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member came or went.
    pub fn handle_member(&self, now: Stamp, event: MemberEvent) {
        let (id, liveness) = match event {
            MemberEvent::Up { id, .. } => (id, Liveness::Alive),
            MemberEvent::Down { id, .. } => (id, Liveness::Down),
            MemberEvent::Left { id, .. } => (id, Liveness::Left),
        };
        let mut heard = self.heard();
        if let MemberEvent::Up { incarnation, .. } = event
            && heard.incarnations.insert(id, incarnation).is_some_and(|before| before != incarnation)
        {
            // It may have come back so quickly that nothing else shows it: it knows nothing of what it was told.
            heard.news.lost.insert(id);
        }
        if heard.nodes.insert(id, (liveness, now)).is_none_or(|(before, _)| before != liveness) {
            heard.news.nodes.insert(id);
        }
        if !heard.news.is_empty() {
            drop(heard);
            self.0.1.notify_one();
        }
    }

    /// A row about a task was written, or withdrawn.
    pub fn handle_task(&self, owner: Id, task: Id, status: Option<TaskStatus>) {
        let mut heard = self.heard();
        match status {
            Some(status) => _ = heard.tasks.entry(task).or_default().insert(owner, status),
            None => {
                if let Some(rows) = heard.tasks.get_mut(&task) {
                    rows.remove(&owner);
                    if rows.is_empty() {
                        heard.tasks.remove(&task);
                    }
                }
            }
        }
        heard.news.tasks.insert(task);
        drop(heard);
        self.0.1.notify_one();
    }

    /// A host says which published ports it cannot take.
    pub fn handle_refused(&self, owner: Id, ports: Vec<RefusedPort>) {
        let refused = &mut self.heard().refused;
        if ports.is_empty() {
            refused.remove(&owner)
        } else {
            refused.insert(owner, ports)
        };
    }

    /// A kept connection was lost.
    pub fn handle_lost(&self, peer: Id) {
        self.heard().news.lost.insert(peer);
        self.0.1.notify_one();
    }

    /// Waits for news and takes them. One reader at a time gets each.
    pub async fn news(&self) -> News {
        loop {
            let told = self.0.1.notified();
            let news = std::mem::take(&mut self.heard().news);
            if !news.is_empty() {
                return news;
            }
            told.await;
        }
    }

    /// What a task's own node says of it.
    pub fn task(&self, task: Id, node: Id) -> Option<TaskStatus> {
        self.heard().tasks.get(&task)?.get(&node).cloned()
    }

    /// What the nodes of a store's tasks say of them.
    pub fn tasks(&self, store: &Store) -> BTreeMap<Id, TaskStatus> {
        let heard = self.heard();
        let told = heard.tasks.iter().filter_map(|(id, rows)| {
            let node = store.task(*id)?.node?;
            Some((*id, rows.get(&node)?.clone()))
        });
        told.collect()
    }

    /// Published ports that hosts cannot take, down ones too.
    pub fn refused(&self) -> BTreeMap<Id, Vec<RefusedPort>> {
        self.heard().refused.clone()
    }

    /// How a node is, and since when; `None`: it was never heard of.
    pub fn node(&self, node: Id) -> Option<(Liveness, Stamp)> {
        self.heard().nodes.get(&node).copied()
    }

    /// All nodes ever heard of.
    pub fn nodes(&self) -> BTreeMap<Id, (Liveness, Stamp)> {
        self.heard().nodes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_daemon_that_is_back_before_anybody_misses_it_is_news() {
        let sight = Sight::default();
        let up = |incarnation| MemberEvent::Up {
            id: Id::new(1),
            address: ([127, 0, 0, 1], 1).into(),
            incarnation,
        };
        sight.handle_member(Stamp(1), up(4));
        let news = sight.news().await;
        assert_eq!((news.nodes, news.lost), ([Id::new(1)].into(), [].into()));
        sight.handle_member(Stamp(2), up(4));
        sight.handle_member(Stamp(3), up(5));
        let news = sight.news().await;
        assert_eq!((news.nodes, news.lost), ([].into(), [Id::new(1)].into()));
    }
}
