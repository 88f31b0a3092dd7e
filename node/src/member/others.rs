//! The other nodes, as this member knows them: who they are, which of them manage, and to whom it keeps connections.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use covey_gossip::SEEDS_MAX;
use covey_state::Id;
use tokio::{sync::watch, time::sleep};

use super::Member;
use crate::{clock, protocol::Roster, roster::Nodes};

/// Connections that are kept, at most: enough of the endpoint's are left for those that come and go.
const KEPT_MAX: usize = 40;

/// Between two attempts of a node that knows of nobody who is alive.
const SEEK_EVERY: Duration = Duration::from_secs(2);

impl Member {
    /// All nodes, as far as this one was told. Not to be held across an await.
    pub fn nodes(&self) -> watch::Ref<'_, Nodes> {
        self.nodes.borrow()
    }

    /// Follows the nodes.
    pub fn watch_nodes(&self) -> watch::Receiver<Nodes> {
        self.nodes.subscribe()
    }

    /// The managers to ask for something, this node left out.
    pub fn managers(&self) -> Vec<(Id, SocketAddr)> {
        let (me, nodes) = (self.id(), self.nodes.borrow().managers());
        let mut managers = if nodes.is_empty() { self.notes().managers } else { nodes };
        managers.retain(|(id, _)| *id != me);
        managers
    }

    /// The leader says which nodes it works with: connections to them are kept.
    pub fn lead(&self, nodes: BTreeMap<Id, SocketAddr>) {
        self.led.send_replace(nodes);
    }

    /// True while this node leads, and works with the nodes.
    pub fn leads(&self) -> bool {
        !self.led.borrow().is_empty()
    }

    /// It was a node and is none any more: a leader knows for sure, everybody else what it was told.
    pub fn is_gone(&self, id: Id) -> bool {
        match self.log().filter(|_| self.leads()) {
            Some(log) => log.store().node(id).is_none_or(|node| node.left),
            None => self.nodes().was_removed(id),
        }
    }

    /// Takes what the leader tells of the nodes.
    pub async fn take_roster(&self, roster: Roster) {
        let mut changed = Default::default();
        let is_news = self.nodes.send_if_modified(|nodes| {
            changed = nodes.take(roster);
            !changed.known.is_empty() || !changed.gone.is_empty()
        });
        let (me, mut edge) = (self.id(), None);
        for peer in changed.known {
            if peer.id == me {
                edge = Some(peer.edge);
            }
            self.gossip.learn_owner(peer.id, peer.public_key).await;
        }
        for id in changed.gone {
            if id == me {
                self.expelled.send_replace(true);
            } else {
                self.gossip.forget_owner(id).await;
                // The leader still has to tell it.
                if !self.leads() {
                    self.endpoint.disconnect(id).await;
                }
            }
        }
        if is_news {
            self.network.handle_nodes(me, &self.nodes.borrow());
        }
        let managers = self.nodes.borrow().managers();
        self.note(move |notes| {
            notes.edge = edge.or(notes.edge);
            if !managers.is_empty() {
                notes.managers = managers;
            }
        });
    }
}

/// Finds the others while nobody is known to be alive: where all managers are gone, another node knows who is there.
pub async fn find_others(member: Arc<Member>) {
    let mut partners = member.partners.clone();
    while partners.wait_for(Vec::is_empty).await.is_ok() {
        let mut seeds = member.managers();
        let place = usize::from_ne_bytes(clock::random());
        seeds.extend(member.nodes().some_workers(member.id(), place, SEEDS_MAX.saturating_sub(seeds.len())));
        if !seeds.is_empty() {
            member.gossip.join(seeds).await;
        }
        sleep(SEEK_EVERY).await;
    }
}

/// Keeps connections to those whose silence matters: managers, gossip partners, and for a leader its nodes.
pub async fn keep_connections(member: Arc<Member>) {
    let mut nodes = member.nodes.subscribe();
    let mut led = member.led.subscribe();
    let mut partners = member.partners.clone();
    loop {
        let me = member.id();
        let mut kept: BTreeMap<Id, SocketAddr> = member.managers().into_iter().collect();
        {
            let nodes = nodes.borrow_and_update();
            let partners = partners.borrow_and_update();
            kept.extend(partners.iter().filter_map(|id| nodes.get(*id)).map(|peer| (peer.id, peer.address)));
        }
        let room = KEPT_MAX.saturating_sub(kept.len());
        kept.extend(led.borrow_and_update().iter().map(|(id, address)| (*id, *address)).take(room));
        kept.remove(&me);
        member.endpoint.keep(kept);
        let changed = tokio::select! {
            changed = nodes.changed() => changed,
            changed = led.changed() => changed,
            changed = partners.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Notes the nodes whenever they have changed: a daemon that starts while no manager is there checks rows by them.
pub async fn note_nodes(member: Arc<Member>) {
    let mut nodes = member.nodes.subscribe();
    loop {
        let news = {
            let nodes = nodes.borrow_and_update();
            // A node that was removed forgets all this.
            let counts = nodes.is_told() && nodes.get(member.id()).is_some();
            counts.then(|| nodes.to_note())
        };
        if let Some(news) = news {
            let folder = member.folder.clone();
            let write = move || folder.save_nodes(&news);
            // It is waited for at the end: afterwards the folder may be another membership's.
            if let Ok(Err(error)) = member.tasks.spawn_blocking(write).await {
                tracing::warn!(error = format!("{error:#}"), "the next start does not know these nodes");
            }
        }
        if nodes.changed().await.is_err() {
            return;
        }
    }
}
