//! The planner: the steps from what the kernel has to what is wanted, in an order that never takes away what works.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::object::{Change, Hop, Link, LinkKind, LinkName, Observed, ObservedLink, Wanted};

/// The steps from `observed` to `wanted`, in the order in which they are to be taken.
///
/// What leads over links that stay is set first, then links are deleted and made, then what leads over the new ones is
/// set, and what is no longer wanted goes last. A route whose hop changes is replaced, never deleted and added.
pub fn plan(wanted: &Wanted, observed: &Observed) -> Vec<Change> {
    let mut diff = Diff { wanted, observed, changes: Vec::new() };
    diff.switches();
    diff.mend_links();
    diff.mend_insides();
    diff.set_addresses(false);
    diff.delete_addresses();
    diff.set(false);
    diff.links();
    diff.flow_cache();
    diff.set_addresses(true);
    diff.set(true);
    diff.delete();
    diff.changes
}

struct Diff<'a> {
    wanted: &'a Wanted,
    observed: &'a Observed,
    changes: Vec<Change>,
}

impl Diff<'_> {
    /// This link is not there, or one that only has its name: nothing on it counts.
    fn is_new(&self, name: &LinkName) -> bool {
        self.wanted
            .links
            .get(name)
            .is_some_and(|link| self.observed.links.get(name).is_none_or(|observed| !is_same(link, observed)))
    }

    /// This link will be deleted, and what is on it goes with it.
    fn goes(&self, name: &LinkName) -> bool {
        self.observed.links.contains_key(name) && (self.is_new(name) || !self.wanted.links.contains_key(name))
    }

    fn switches(&mut self) {
        let differ =
            |(path, value): &(&&'static str, &u32)| self.observed.switches.get(**path) != Some(*value);
        let set =
            self.wanted.switches.iter().filter(differ).map(|(path, value)| Change::SetSwitch(path, *value));
        self.changes.extend(set);
    }

    fn mend_links(&mut self) {
        for (name, link) in &self.wanted.links {
            let Some(observed) = self.observed.links.get(name).filter(|_| !self.is_new(name)) else {
                continue;
            };
            if !observed.up || observed.mtu != link.mtu {
                self.changes.push(Change::MendLink { name: name.clone(), mtu: link.mtu });
            }
            if observed.conf != Some(link.conf) {
                self.changes.push(Change::SetConf(name.clone(), link.conf));
            }
        }
    }

    /// The containers' ends of links that stay, where somebody looked.
    fn mend_insides(&mut self) {
        for (name, link) in &self.wanted.links {
            let Some(inside) = link.inside() else { continue };
            let Some(found) = self.observed.links.get(name).and_then(|link| link.inside.as_ref()) else {
                continue;
            };
            if self.is_new(name) {
                continue;
            }
            let set =
                |part: &_| Change::SetInside { link: name.clone(), inside: inside.clone(), part: *part };
            let missing = link.parts();
            let missing = missing.difference(&found.parts).filter(|part| !(found.v4_only && part.is_v6()));
            self.changes.extend(missing.map(set));
        }
    }

    fn links(&mut self) {
        let gone = self.observed.links.keys().filter(|name| self.goes(name));
        self.changes.extend(gone.cloned().map(Change::DeleteLink).collect::<Vec<_>>());
        // The programs at containers' links know the uplink.
        let (uplinks, others): (Vec<_>, Vec<_>) =
            self.wanted.links.iter().filter(|(name, _)| self.is_new(name)).partition(|new| is_uplink(new.1));
        for (name, link) in uplinks.into_iter().chain(others) {
            self.changes.push(Change::CreateLink(name.clone(), link.clone()));
            self.changes.push(Change::SetConf(name.clone(), link.conf));
        }
    }

    /// Of links that stay: a new one has its programs from the beginning.
    fn flow_cache(&mut self) {
        // Programs that know another uplink are none.
        let starts = self.wanted.links.iter().any(|(name, link)| is_uplink(link) && self.is_new(name));
        for (name, link) in &self.wanted.links {
            let has = self.observed.links.get(name).is_some_and(|observed| observed.cached);
            if link.cached && (starts || !has) && !self.is_new(name) {
                self.changes.push(Change::SetCached(name.clone()));
            }
        }
        if self.observed.underlay != self.wanted.underlay {
            self.changes.push(Change::SetUnderlay(self.wanted.underlay));
        }
    }

    fn set_addresses(&mut self, new: bool) {
        for entry @ (link, address) in &self.wanted.addresses {
            if self.is_new(link) == new && (new || !self.observed.addresses.contains(entry)) {
                self.changes.push(Change::SetAddress(link.clone(), *address));
            }
        }
    }

    /// Comes before what leads over the link is set: see [`Diff::loses_all`].
    fn delete_addresses(&mut self) {
        for (link, address) in self.observed.addresses.difference(&self.wanted.addresses) {
            if !self.goes(link) {
                self.changes.push(Change::DeleteAddress(link.clone(), *address));
            }
        }
    }

    /// With the last IPv4 address of a link the kernel takes away all IPv4 routes and neighbours on it.
    fn loses_all(&self, link: &LinkName, address: IpAddr) -> bool {
        let has = |addresses: &BTreeSet<(LinkName, IpNet)>| {
            addresses.iter().any(|(on, net)| on == link && net.addr().is_ipv4())
        };
        address.is_ipv4() && has(&self.observed.addresses) && !has(&self.wanted.addresses)
    }

    /// Sets what leads over new links, or what leads over those that stay.
    fn set(&mut self, new: bool) {
        let mut changes = Vec::new();
        for (key @ (link, to), mac) in &self.wanted.neighbours {
            let has = self.observed.neighbours.get(key) == Some(mac) && !self.loses_all(link, *to);
            if self.lacks(link, new, has) {
                changes.push(Change::SetNeighbour { link: link.clone(), to: *to, mac: *mac });
            }
        }
        for (key @ (link, mac), underlay) in &self.wanted.fdb {
            if self.lacks(link, new, self.observed.fdb.get(key) == Some(underlay)) {
                let set =
                    |underlay: &_| Change::SetFdb { link: link.clone(), mac: *mac, underlay: *underlay };
                changes.extend(underlay.iter().map(set));
            }
        }
        for (to, hop) in &self.wanted.routes {
            let has = self.observed.routes.get(to) == Some(hop);
            let stays = |link| has && !self.loses_all(link, to.net.addr());
            if hop.link().map_or(!new && !has, |link| self.lacks(link, new, stays(link))) {
                changes.push(Change::SetRoute(*to, hop.clone()));
            }
        }
        if !new {
            let rules = self.wanted.rules.difference(&self.observed.rules);
            changes.extend(rules.map(|rule| Change::SetRule(*rule)));
        }
        self.changes.append(&mut changes);
    }

    fn lacks(&self, link: &LinkName, new: bool, has: bool) -> bool {
        self.is_new(link) == new && (new || !has)
    }

    /// Deletes what else is not wanted, but for what went with its link.
    fn delete(&mut self) {
        let mut changes = Vec::new();
        let rules = self.observed.rules.difference(&self.wanted.rules);
        changes.extend(rules.map(|rule| Change::DeleteRule(*rule)));
        for (to, hop) in unwanted(&self.observed.routes, &self.wanted.routes) {
            if !Hop::link(hop).is_some_and(|link| self.goes(link)) {
                changes.push(Change::DeleteRoute(*to));
            }
        }
        for ((link, mac), underlay) in unwanted(&self.observed.fdb, &self.wanted.fdb) {
            if !self.goes(link) {
                let delete =
                    |underlay: &_| Change::DeleteFdb { link: link.clone(), mac: *mac, underlay: *underlay };
                changes.extend(underlay.iter().map(delete));
            }
        }
        for ((link, to), _) in unwanted(&self.observed.neighbours, &self.wanted.neighbours) {
            if !self.goes(link) {
                changes.push(Change::DeleteNeighbour { link: link.clone(), to: *to });
            }
        }
        self.changes.append(&mut changes);
    }
}

const fn is_uplink(link: &Link) -> bool {
    matches!(link.kind, LinkKind::Uplink)
}

/// The link that is there is the wanted one, up to what can be mended.
fn is_same(wanted: &Link, observed: &ObservedLink) -> bool {
    let (vxlan, inside) = match &wanted.kind {
        LinkKind::Vxlan(vxlan) => (Some(*vxlan), None),
        LinkKind::Veth(inside) => (None, Some(inside.mac)),
        LinkKind::Uplink => (None, None),
    };
    observed.mac == Some(wanted.mac)
        && observed.vxlan == vxlan
        && observed.inside.as_ref().is_none_or(|found| found.mac == inside)
}

fn unwanted<'a, K: Ord, V, W>(
    observed: &'a BTreeMap<K, V>,
    wanted: &'a BTreeMap<K, W>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    observed.iter().filter(|(key, _)| !wanted.contains_key(key))
}
