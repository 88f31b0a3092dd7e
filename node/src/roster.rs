//! The roster: what this node knows of every node, as the leader told it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use covey_state::{
    Id, Version,
    event::{Change, Event},
    node::Role,
    store::Store,
};

use crate::{
    protocol::{Ground, Peer, Roster},
    translate,
};

/// Removed nodes that are remembered: their certificates outlive their membership.
const REMOVED_MAX: usize = 4096;

/// All nodes, as of one version of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    version: Version,
    ground: Option<Ground>,
    peers: BTreeMap<Id, Peer>,
    removed: BTreeSet<Id>,
}

/// What a roster changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Nodes that are new, or not as they were.
    pub known: Vec<Peer>,
    /// Nodes that are gone.
    pub gone: BTreeSet<Id>,
}

impl Nodes {
    /// Takes what the leader told. What is older than this changes nothing.
    pub fn take(&mut self, roster: Roster) -> Changed {
        let mut changed = Changed::default();
        if roster.version < self.version {
            return changed;
        }
        self.version = roster.version;
        self.ground = roster.ground.or(self.ground);
        if roster.full {
            let named: BTreeSet<Id> = roster.peers.iter().map(|peer| peer.id).collect();
            changed.gone.extend(self.peers.keys().filter(|id| !named.contains(id)));
        }
        changed.gone.extend(roster.removed.into_iter().filter(|id| !self.removed.contains(id)));
        for id in &changed.gone {
            self.peers.remove(id);
            self.removed.insert(*id);
        }
        while self.removed.len() > REMOVED_MAX {
            self.removed.pop_first();
        }
        for peer in roster.peers {
            self.removed.remove(&peer.id);
            if self.peers.get(&peer.id) != Some(&peer) {
                self.peers.insert(peer.id, peer.clone());
                changed.known.push(peer);
            }
        }
        changed
    }

    /// True once a leader has told, or this manager's own log: until then it is what was noted, if anything.
    pub fn is_told(&self) -> bool {
        self.version > Version::default()
    }

    /// What is to be noted for the next daemon. Whatever it is told first is newer than this: it need not be of the
    /// managers who told these.
    pub fn to_note(&self) -> Roster {
        Roster {
            version: Version::default(),
            full: true,
            ground: self.ground,
            peers: self.all().cloned().collect(),
            removed: self.removed.iter().copied().collect(),
        }
    }

    /// What all networks of the cluster share, once it was told.
    pub fn ground(&self) -> Option<Ground> {
        self.ground
    }

    /// One node.
    pub fn get(&self, id: Id) -> Option<&Peer> {
        self.peers.get(&id)
    }

    /// It was a node and is none any more: what it says does not count, whatever its certificate says.
    pub fn was_removed(&self, id: Id) -> bool {
        self.removed.contains(&id)
    }

    /// All nodes.
    pub fn all(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    /// Where some of the others are that do not manage: `count` of them, from a `place` in the row of all on, round it.
    pub fn some_workers(&self, me: Id, place: usize, count: usize) -> Vec<(Id, SocketAddr)> {
        let others = self.all().filter(|peer| peer.role == Role::Worker && peer.id != me);
        let mut others: Vec<_> = others.map(|peer| (peer.id, peer.address)).collect();
        let length = others.len();
        others.rotate_left(place.checked_rem(length).unwrap_or_default());
        others.truncate(count);
        others
    }

    /// Where the managers are.
    pub fn managers(&self) -> Vec<(Id, SocketAddr)> {
        self.all().filter(|peer| peer.role == Role::Manager).map(|peer| (peer.id, peer.address)).collect()
    }
}

/// All nodes of a store, and those that were and whose certificates may still be valid.
pub fn full(store: &Store) -> Roster {
    let peers = store.nodes().filter(|node| !node.left).map(|node| translate::peer(node)).collect();
    Roster { full: true, peers, removed: store.removed_nodes().collect(), ..empty(store) }
}

fn empty(store: &Store) -> Roster {
    let ground = store
        .cluster()
        .map(|cluster| Ground { data_path_port: cluster.spec.data_path_port, edge: cluster.spec.edge });
    Roster { version: store.last_changed(), ground, ..Roster::default() }
}

/// The nodes that these events touched; `None` where they touched none.
pub fn changes(store: &Store, events: &[Event]) -> Option<Roster> {
    let mut roster = empty(store);
    for event in events {
        if let Event::Node(id, change) = event {
            match store.node(*id).filter(|node| *change != Change::Removed && !node.left) {
                Some(node) => roster.peers.push(translate::peer(node)),
                None => roster.removed.push(*id),
            }
        }
    }
    (!roster.peers.is_empty() || !roster.removed.is_empty()).then_some(roster)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: u128, role: Role) -> Peer {
        Peer {
            id: Id::new(id),
            address: ([10, 0, 0, 1], 2377).into(),
            public_key: [1; 32],
            role,
            number: 1,
            edge: covey_state::cluster::EdgePool::default().block(1).unwrap(),
            data_path: [10, 0, 0, 1].into(),
            hostname: "m1".into(),
        }
    }

    fn roster(version: Version, full: bool, peers: Vec<Peer>, removed: Vec<Id>) -> Roster {
        Roster { version, full, ground: None, peers, removed }
    }

    #[test]
    fn a_full_roster_forgets_whom_it_does_not_name() {
        let mut nodes = Nodes::default();
        nodes.take(roster(1, true, vec![peer(1, Role::Manager), peer(2, Role::Worker)], vec![]));
        let changed = nodes.take(roster(2, true, vec![peer(1, Role::Manager)], vec![]));
        assert_eq!(changed, Changed { known: vec![], gone: [Id::new(2)].into() });
        assert!(nodes.was_removed(Id::new(2)) && !nodes.was_removed(Id::new(1)));
        assert_eq!(nodes.managers().len(), 1);
    }

    /// NET-29
    #[test]
    fn what_was_noted_counts_until_anything_is_told() {
        let mut before = Nodes::default();
        before.take(roster(7, true, vec![peer(1, Role::Manager), peer(2, Role::Worker)], vec![Id::new(9)]));
        let mut nodes = Nodes::default();
        assert_eq!(nodes.take(before.to_note()).known.len(), 2);
        assert!(!nodes.is_told() && nodes.was_removed(Id::new(9)) && nodes.get(Id::new(2)).is_some());
        // A leader that tells of an older version than the one before did is the leader all the same.
        let changed = nodes.take(roster(3, true, vec![peer(1, Role::Manager)], vec![]));
        assert_eq!(changed.gone, [Id::new(2)].into());
        assert!(nodes.is_told());
        assert_eq!(nodes.take(before.to_note()), Changed::default(), "it is known better");
    }

    /// NET-29
    #[test]
    fn whoever_looks_for_others_comes_round_to_all_of_them() {
        let mut nodes = Nodes::default();
        assert_eq!(nodes.some_workers(Id::new(1), 5, 3), []);
        let workers = (2..=6).map(|id| peer(id, Role::Worker));
        nodes.take(roster(1, true, workers.chain([peer(1, Role::Manager)]).collect(), vec![]));
        let some = |place, count| -> Vec<Id> {
            nodes.some_workers(Id::new(4), place, count).into_iter().map(|(id, _)| id).collect()
        };
        assert_eq!(some(0, 9), [2, 3, 5, 6].map(Id::new));
        assert_eq!(some(3, 2), [6, 2].map(Id::new));
        assert_eq!(some(usize::MAX, 1), [Id::new(6)]);
        assert_eq!(some(2, 0), []);
    }

    #[test]
    fn an_older_roster_changes_nothing() {
        let mut nodes = Nodes::default();
        nodes.take(roster(5, true, vec![peer(1, Role::Manager)], vec![]));
        assert_eq!(nodes.take(roster(4, true, vec![], vec![])), Changed::default());
        let changed = nodes.take(roster(6, false, vec![peer(1, Role::Worker)], vec![]));
        assert_eq!(changed.known, [peer(1, Role::Worker)]);
        assert!(nodes.managers().is_empty());
    }
}
