//! The edge planner: what is wanted on this host against what its kernel has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    mac::Mac,
    object::{Change, LinkName, Reach, Veth},
};

/// The containers' veths that are wanted on this host.
pub type Desired = BTreeMap<LinkName, Veth>;

/// What the kernel has of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Links of ours.
    pub links: BTreeMap<LinkName, ObservedLink>,
    /// Routes to single addresses by links of ours.
    pub routes: BTreeSet<(LinkName, IpAddr)>,
    /// Permanent neighbours on links of ours.
    pub neighbours: BTreeSet<Reach>,
}

/// A link of ours, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedLink {
    /// Its Ethernet address; another one than ours makes it a stranger.
    pub mac: Option<Mac>,
    /// Bytes of a packet, at most.
    pub mtu: u32,
    /// It is up.
    pub up: bool,
}

/// The steps from `observed` to `desired`, in the order in which they are to be taken.
pub fn plan(desired: &Desired, observed: &Observed) -> Vec<Change> {
    let mut changes: Vec<Change> = observed
        .links
        .iter()
        .filter(|(name, link)| desired.get(name).is_none_or(|veth| link.mac != Some(veth.host_mac())))
        .map(|(name, _)| Change::DeleteLink(name.clone()))
        .collect();
    for veth in desired.values() {
        attach(veth, observed, &mut changes);
    }
    changes
}

/// The steps for one container that is new: nothing of it is in the kernel.
pub fn plan_new(veth: &Veth) -> Vec<Change> {
    let mut changes = Vec::new();
    attach(veth, &Observed::default(), &mut changes);
    changes
}

fn attach(veth: &Veth, observed: &Observed, changes: &mut Vec<Change>) {
    let kept = observed.links.get(&veth.name).filter(|link| link.mac == Some(veth.host_mac()));
    match kept {
        None => changes.push(Change::CreateVeth(veth.clone())),
        Some(link) if !link.up || link.mtu != veth.mtu => {
            changes.push(Change::MendLink { name: veth.name.clone(), mtu: veth.mtu });
        }
        Some(_) => {}
    }
    for to in [IpAddr::V4(veth.addresses.v4), IpAddr::V6(veth.addresses.v6)] {
        let reach = Reach { link: veth.name.clone(), to, mac: veth.container_mac() };
        // Routes and neighbours go with the link that they are on, also when it goes down.
        let has = |found: bool| found && kept.is_some_and(|link| link.up);
        if !has(observed.routes.contains(&(veth.name.clone(), to))) {
            changes.push(Change::SetRoute { link: veth.name.clone(), to });
        }
        if !has(observed.neighbours.contains(&reach)) {
            changes.push(Change::SetNeighbour(reach));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Pair;

    fn veth(id: &str, last: u8) -> Veth {
        Veth {
            name: LinkName::of_container(id),
            namespace: format!("/run/{id}"),
            addresses: Pair {
                v4: [100, 64, 1, last].into(),
                v6: [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)].into(),
            },
            mtu: 1450,
        }
    }

    fn wanted(veths: &[Veth]) -> Desired {
        veths.iter().map(|veth| (veth.name.clone(), veth.clone())).collect()
    }

    /// A kernel as simple as can be: enough to see where a plan leads.
    fn carry_out(observed: &mut Observed, changes: &[Change]) {
        for change in changes {
            match change {
                Change::DeleteLink(name) => {
                    observed.links.remove(name);
                    observed.routes.retain(|(link, _)| link != name);
                    observed.neighbours.retain(|reach| reach.link != *name);
                }
                Change::CreateVeth(veth) => {
                    let link = ObservedLink { mac: Some(veth.host_mac()), mtu: veth.mtu, up: true };
                    assert!(observed.links.insert(veth.name.clone(), link).is_none(), "it exists");
                }
                Change::MendLink { name, mtu } => {
                    let link = observed.links.get_mut(name).unwrap();
                    (link.mtu, link.up) = (*mtu, true);
                }
                Change::SetRoute { link, to } => _ = observed.routes.insert((link.clone(), *to)),
                Change::SetNeighbour(reach) => {
                    observed.neighbours.retain(|r| (&r.link, r.to) != (&reach.link, reach.to));
                    observed.neighbours.insert(reach.clone());
                }
            }
        }
    }

    #[test]
    fn a_new_container_gets_its_veth_routes_and_neighbours() {
        let changes = plan(&wanted(&[veth("aaaa", 5)]), &Observed::default());
        assert_eq!(changes.len(), 5);
        assert!(matches!(&changes[0], Change::CreateVeth(veth) if veth.name.as_str() == "cvaaaa"));
        assert_eq!(changes, plan_new(&veth("aaaa", 5)));
    }

    #[test]
    fn what_nobody_wants_is_deleted_and_nothing_else_changes() {
        let desired = wanted(&[veth("aaaa", 5), veth("bbbb", 6)]);
        let mut observed = Observed::default();
        carry_out(&mut observed, &plan(&desired, &Observed::default()));
        assert_eq!(plan(&desired, &observed), []);
        let fewer = wanted(&[veth("bbbb", 6)]);
        assert_eq!(plan(&fewer, &observed), [Change::DeleteLink(LinkName::of_container("aaaa"))]);
    }

    #[test]
    fn every_kind_of_damage_is_repaired_by_one_plan() {
        let desired = wanted(&[veth("aaaa", 5), veth("bbbb", 6)]);
        let mut whole = Observed::default();
        carry_out(&mut whole, &plan(&desired, &Observed::default()));
        let name = LinkName::of_container("aaaa");
        let damages: Vec<fn(&mut Observed, &LinkName)> = vec![
            |o, name| {
                o.links.remove(name);
                o.routes.retain(|(link, _)| link != name);
                o.neighbours.retain(|reach| reach.link != *name);
            },
            |o, name| o.links.get_mut(name).unwrap().mtu = 9000,
            |o, name| o.links.get_mut(name).unwrap().mac = Some(Mac([2; 6])),
            |o, name| {
                // The kernel drops routes and neighbours of a link that goes down.
                o.links.get_mut(name).unwrap().up = false;
                o.routes.retain(|(link, _)| link != name);
                o.neighbours.retain(|reach| reach.link != *name);
            },
            |o, _| o.routes.clear(),
            |o, _| o.neighbours.clear(),
            |o, _| {
                o.neighbours =
                    o.neighbours.iter().cloned().map(|r| Reach { mac: Mac([2; 6]), ..r }).collect();
            },
        ];
        for (number, damage) in damages.into_iter().enumerate() {
            let mut observed = whole.clone();
            damage(&mut observed, &name);
            let changes = plan(&desired, &observed);
            assert!(!changes.is_empty(), "damage {number} was not seen");
            carry_out(&mut observed, &changes);
            assert_eq!(observed, whole, "damage {number} was not repaired");
        }
    }

    #[test]
    fn a_link_name_fits_the_kernel() {
        assert_eq!(LinkName::of_container(&"0123456789abcdef".repeat(4)).as_str(), "cv0123456789abc");
        assert_eq!(LinkName::ours("eth0"), None);
    }
}
