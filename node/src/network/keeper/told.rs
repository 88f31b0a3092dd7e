//! What hosts tell of endpoints: weighed, taken, and remembered for the next daemon.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use covey_state::Id;

use super::Keeper;
use crate::{
    clock,
    endpoint::{Endpoint, Scope},
    network::{
        remembered::Remembered,
        rows::{self, Key, Rows, Standing},
    },
};

/// Names that a network does not know are taken for names of nobody after this long, though not everything has been told
/// of it: of one that the daemon before carried, whose containers know names that may be forgotten here. Clients ask again
/// after 5 s (resolv.conf(5)).
pub(super) const HEAR_AGAIN_WITHIN: Duration = Duration::from_secs(2);
/// The same of one that is new here. Where several hosts begin at once, none of them can say for long that it knows
/// all; and whoever starts is not to wait long for names outside.
pub(super) const HEAR_WITHIN: Duration = Duration::from_millis(500);
/// What is told is written down this long after it has changed, for the next daemon.
const REMEMBER_AFTER: Duration = Duration::from_millis(100);
/// The same where much is told.
const REMEMBER_MUCH_AFTER: Duration = Duration::from_secs(2);
/// Rows from which on it is much.
const MUCH: usize = 2_000;

impl Keeper {
    /// What gossip says.
    pub(super) fn hear(
        &mut self,
        rows: BTreeMap<(Scope, Key), Option<Endpoint>>,
        withdrawn: &BTreeSet<(Scope, Key)>,
        down: BTreeMap<Id, bool>,
    ) {
        if rows.is_empty() && down.is_empty() {
            return;
        }
        self.memory.note(&rows, &down);
        for (host, down) in down {
            if down {
                self.down.insert(host)
            } else {
                self.down.remove(&host)
            };
            self.edge.balancer.suspend(host, down);
            self.carriers.values_mut().for_each(|carrier| carrier.suspend(host, down));
        }
        for (at, row) in rows {
            let (scope, key) = &at;
            tracing::debug!(?scope, owner = %key.0, key = &*key.1, told = row.is_some(), "endpoint");
            // One that is not there yet need not have been withdrawn.
            if row.is_some() || withdrawn.contains(&at) || clock::monotonic() >= self.confirm_until {
                self.unconfirmed.remove(&at);
            }
            self.put(*scope, key, row);
        }
        self.settle_all();
        self.remember_soon();
    }

    /// What has not been told by now is not there: in those networks of which this is true.
    pub(super) fn close_names(&mut self, is_time: impl Fn(Id, Instant) -> bool) {
        for (network, _) in self.unheard.extract_if(.., |id, at| is_time(*id, *at)) {
            if let Some(carrier) = self.carriers.get(&network) {
                carrier.close_names();
            }
        }
    }

    /// Takes a row if it may be so.
    pub(super) fn put(&mut self, scope: Scope, key: &Key, row: Option<Endpoint>) {
        let at = (scope, key.clone());
        self.aside.remove(&at);
        let standing = row.as_ref().map(|row| self.weigh(scope, key.0, row));
        if standing.is_some_and(|standing| standing != Standing::True) {
            tracing::debug!(?scope, owner = %key.0, key = &*key.1, ?standing, "an endpoint does not count");
        }
        let row = match standing {
            Some(Standing::Early) => {
                self.aside.extend(row.map(|row| (at, row)));
                None
            }
            Some(Standing::False) => None,
            Some(Standing::True) | None => row,
        };
        match scope {
            Scope::Ingress => _ = self.edge.balancer.put(key, row),
            Scope::Network(id) => {
                if let Some(carrier) = self.carriers.get_mut(&id) {
                    carrier.put(key, row);
                }
            }
        }
    }

    fn weigh(&self, scope: Scope, owner: Id, row: &Endpoint) -> Standing {
        let network = match scope {
            Scope::Ingress => None,
            Scope::Network(id) => match self.carriers.get(&id) {
                Some(carrier) => Some(&*carrier.config),
                // Once it is carried, it is told anew.
                None => return Standing::False,
            },
        };
        // What this node tells is its own daemon's word.
        if self.place.is_some_and(|place| place.id == owner) {
            return Standing::True;
        }
        let host = self.neighbours.iter().find(|neighbour| neighbour.id == owner);
        rows::weigh(row, host.map(|neighbour| neighbour.host), network)
    }

    /// Weighs again what was put aside, and what these hosts told, of whom the roster says something else now.
    pub(super) fn weigh_again(&mut self, changed: &BTreeSet<Id>) {
        let mut rows = std::mem::take(&mut self.aside);
        let mut take = |scope: Scope, of: &Rows| {
            let told = changed.iter().flat_map(|owner| of.of_owner(*owner));
            rows.extend(told.map(|(key, row)| ((scope, key.clone()), row.clone())));
        };
        take(Scope::Ingress, &self.edge.balancer.rows);
        self.carriers.iter().for_each(|(id, carrier)| take(Scope::Network(*id), &carrier.balancer.rows));
        if rows.is_empty() {
            return;
        }
        for ((scope, key), row) in rows {
            self.put(scope, &key, Some(row));
        }
        self.settle_all();
    }

    /// Takes what the daemon before was told.
    pub(super) fn recall(&mut self, scope: Scope) {
        let rows = self.unconfirmed.iter().filter(|((of, _), _)| *of == scope);
        let rows: Vec<_> = rows.map(|((_, key), row)| (key.clone(), row.clone())).collect();
        rows.into_iter().for_each(|(key, row)| self.put(scope, &key, Some(row)));
    }

    /// A container of this host has ended. That nobody is there any more gossip says a moment later; but its links are
    /// taken down meanwhile, which takes long.
    pub(super) fn take_back(&mut self, container: &str) {
        self.edge.release(container);
        self.carriers.values_mut().for_each(|carrier| carrier.release(container));
        let of = |rows: &Rows| -> Vec<Key> {
            let own = self.place.into_iter().flat_map(|place| rows.of_owner(place.id));
            own.filter(|(_, row)| row.container == container).map(|(key, _)| key.clone()).collect()
        };
        let networks =
            self.carriers.iter().map(|(id, carrier)| (Scope::Network(*id), of(&carrier.balancer.rows)));
        let told: Vec<_> = networks.chain([(Scope::Ingress, of(&self.edge.balancer.rows))]).collect();
        for (scope, keys) in told {
            keys.iter().for_each(|key| self.put(scope, key, None));
        }
        self.settle_all();
    }

    /// Which containers this host has is known, whatever the daemon before told of them: those that ended while no
    /// daemon was there are not found any more.
    pub(super) fn forget_own(&mut self) {
        let Some(place) = self.place else { return };
        let mut held: BTreeSet<IpAddr> = BTreeSet::new();
        for (container, wired) in &self.containers {
            held.extend(wired.wiring.networks.iter().flat_map(|attached| &attached.addresses));
            let pair = self.edge.addresses(container);
            held.extend(pair.into_iter().flat_map(|pair| [IpAddr::V4(pair.v4), IpAddr::V6(pair.v6)]));
        }
        let gone = |(_, key): &(Scope, Key), row: &Endpoint| {
            key.0 == place.id && !row.addresses.iter().any(|address| held.contains(address))
        };
        let gone: Vec<_> = self.unconfirmed.extract_if(.., |at, row| gone(at, row)).collect();
        for ((scope, key), _) in gone {
            self.put(scope, &key, None);
        }
    }

    pub(super) fn remember_soon(&mut self) {
        let networks = self.carriers.values().map(|carrier| carrier.balancer.rows.count());
        let rows = networks.sum::<usize>() + self.edge.balancer.rows.count();
        let after = if rows > MUCH { REMEMBER_MUCH_AFTER } else { REMEMBER_AFTER };
        self.remember_at.get_or_insert_with(|| clock::monotonic() + after);
    }

    /// Has what is told written down, unless that is being done: then a moment later.
    pub(super) fn remember(&mut self) {
        self.remember_at = None;
        self.tell_carried();
        if self.memory.is_busy() {
            return self.remember_soon();
        }
        self.memory.write_aside(self.remembered());
    }

    /// The same, and it is written when this is done.
    pub(super) fn remember_now(&mut self) {
        self.remember_at = None;
        self.tell_carried();
        self.memory.write(&self.remembered());
    }

    fn remembered(&self) -> Remembered {
        let rows = |scope: Scope, rows: &Rows| -> Vec<_> {
            rows.iter().map(|((owner, key), row)| (scope, *owner, key.to_string(), row.clone())).collect()
        };
        let mut all = rows(Scope::Ingress, &self.edge.balancer.rows);
        for (id, carrier) in &self.carriers {
            all.extend(rows(Scope::Network(*id), &carrier.balancer.rows));
        }
        let neighbours = self.neighbours.clone();
        let down = neighbours.iter().map(|neighbour| neighbour.id).filter(|id| self.down.contains(id));
        let origins = self.origins.clone();
        Remembered { place: self.place, down: down.collect(), neighbours, origins, rows: all }
    }

    /// All that others tell of these is here: what the daemon before was told beside is no more.
    pub(super) fn forget_untold(&mut self, heard: &BTreeSet<Scope>) {
        let me = self.place.map(|place| place.id);
        self.forget(|(scope, (owner, _))| heard.contains(scope) && Some(*owner) != me);
    }

    /// What was told to the daemon before, and to this one not again for long, is no more.
    pub(super) fn forget_unconfirmed(&mut self, now: Instant) {
        if now >= self.confirm_until {
            self.forget(|_| true);
        }
    }

    fn forget(&mut self, is_gone: impl Fn(&(Scope, Key)) -> bool) {
        let gone: Vec<_> = self.unconfirmed.extract_if(.., |at, _| is_gone(at)).collect();
        if gone.is_empty() {
            return;
        }
        for ((scope, key), _) in gone {
            self.put(scope, &key, None);
        }
        self.settle_all();
        self.remember_soon();
    }
}
