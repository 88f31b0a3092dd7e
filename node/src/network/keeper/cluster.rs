//! Where this host is in its cluster, and who else is there.

use std::collections::BTreeSet;

use covey_state::Id;

use super::{Carrier, Keeper};
use crate::{
    clock,
    endpoint::Scope,
    network::{
        place::{Neighbour, Place},
        rows::Key,
    },
    origins::Origins,
};

impl Keeper {
    /// This host is here, and these are the others.
    pub(super) fn locate(&mut self, place: Place, neighbours: Vec<Neighbour>) {
        let moved = self.place != Some(place);
        self.place = Some(place);
        let is_other = |now: &&Neighbour| {
            self.neighbours.iter().any(|before| before.id == now.id && before.host != now.host)
        };
        let changed: BTreeSet<Id> =
            neighbours.iter().filter(is_other).map(|neighbour| neighbour.id).collect();
        self.neighbours = neighbours;
        self.remember_soon();
        if moved {
            tracing::info!(number = place.host.number, vtep = %place.host.vtep, "this node's place in the networks");
            for error in self.carriers.values_mut().filter_map(|carrier| carrier.settle_at(&place).err()) {
                tracing::warn!(error = format!("{error:#}"), "a network's packets are as long as before");
            }
            self.repair_at = clock::monotonic();
            // Without it the next daemon could not take over a single network.
            self.remember_now();
        }
        self.join();
        self.weigh_again(&changed);
    }

    /// A host is seen under these addresses.
    pub(super) fn see(&mut self, host: Id, origins: Origins) {
        let before =
            if origins.is_empty() { self.origins.remove(&host) } else { self.origins.insert(host, origins) };
        if before.as_ref() != self.origins.get(&host) {
            self.remember_soon();
            if self.begun {
                let recognized = self.edge.recognize(&self.neighbours, &self.origins);
                self.mend_soon(recognized);
                self.forget_flows();
            }
        }
    }

    /// Joins this host's edge to the others, if there are any.
    pub(super) fn join(&mut self) {
        if !self.begun {
            return;
        }
        let networks = self.carriers.values().flat_map(Carrier::vnis).collect();
        let joined = match &self.place {
            Some(place) => self.edge.join(place, &self.neighbours, &self.origins, networks),
            None => self.edge.part(),
        };
        self.mend_soon(joined);
        self.forget_flows();
    }

    /// This host is in no cluster any more.
    pub(super) fn leave(&mut self) {
        self.part(|_, _| true);
        self.place = None;
        self.neighbours.clear();
        self.origins.clear();
        for host in std::mem::take(&mut self.down) {
            self.edge.balancer.suspend(host, false);
            self.carriers.values_mut().for_each(|carrier| carrier.suspend(host, false));
        }
        self.unconfirmed.clear();
        self.aside.clear();
        let keys: Vec<Key> = self.edge.balancer.rows.iter().map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.put(Scope::Ingress, key, None));
        self.settle_all();
        let parted = self.edge.part();
        self.mend_soon(parted);
        self.remember_soon();
    }
}
