//! A kernel as simple as can be: enough to see where a plan leads, and strict where the real one is.

use covey_overlay::object::{
    Change, Hop, Link, LinkKind, LinkName, Objects, Observed, ObservedInside, ObservedLink, Part, Wanted,
};

/// What the kernel has once all of `wanted` is in it.
pub fn whole(wanted: &Wanted) -> Observed {
    Objects {
        links: wanted.links.iter().map(|(name, link)| (name.clone(), made(link))).collect(),
        addresses: wanted.addresses.clone(),
        routes: wanted.routes.clone(),
        neighbours: wanted.neighbours.clone(),
        fdb: wanted.fdb.clone(),
        rules: wanted.rules.clone(),
        switches: wanted.switches.clone(),
        underlay: wanted.underlay,
    }
}

fn made(link: &Link) -> ObservedLink {
    let (vxlan, inside) = match &link.kind {
        LinkKind::Vxlan(vxlan) => (Some(*vxlan), None),
        LinkKind::Veth(inside) => {
            (None, Some(ObservedInside { mac: Some(inside.mac), v4_only: false, parts: link.parts() }))
        }
        LinkKind::Uplink => (None, None),
    };
    let conf = Some(link.conf);
    ObservedLink { mac: Some(link.mac), mtu: link.mtu, up: true, conf, vxlan, inside, cached: link.cached }
}

/// An uplink came or went: programs that know another one are none.
fn drop_programs(kernel: &mut Observed) {
    kernel.links.values_mut().for_each(|link| link.cached = false);
}

/// Something of a container's end is set; it takes the place of what was there of its kind.
fn furnish(end: &mut ObservedInside, part: Part) {
    end.parts.retain(|old| !part.excludes(old));
    let is_up = end.parts.iter().any(|part| matches!(part, Part::Up { .. }));
    let needs_up = matches!(part, Part::Gateway(..) | Part::Route(_));
    assert!(is_up || !needs_up, "{part} over a container's end that is down");
    end.parts.insert(part);
}

/// Takes one step.
pub fn carry_out(kernel: &mut Observed, change: &Change) {
    match change.clone() {
        Change::SetSwitch(path, value) => _ = kernel.switches.insert(path, value),
        Change::DeleteLink(name) => {
            assert!(kernel.links.remove(&name).is_some(), "{name} is not there");
            drop_all_on(kernel, &name);
        }
        Change::CreateLink(name, link) => {
            // Its switches are whatever the namespace has by default.
            let link = ObservedLink { conf: None, ..made(&link) };
            assert!(link.vxlan.is_none_or(|new| no_vni(kernel, new.vni)), "the VNI is taken");
            if name.is_uplink() {
                drop_programs(kernel);
            }
            assert!(kernel.links.insert(name.clone(), link).is_none(), "{name} exists");
        }
        Change::MendLink { name, mtu } => {
            let link = kernel.links.get_mut(&name).expect("a link that is there");
            (link.mtu, link.up) = (mtu, true);
        }
        Change::SetConf(name, conf) => kernel.links.get_mut(&name).expect("a link").conf = Some(conf),
        Change::SetInside { link, inside, part } => {
            let end = kernel.links.get_mut(&link).and_then(|link| link.inside.as_mut()).expect("an end");
            assert_eq!(end.mac, Some(inside.mac), "{part} at another's end");
            furnish(end, part);
        }
        Change::SetCached(name) => kernel.links.get_mut(&name).expect("a link").cached = true,
        Change::SetUnderlay(underlay) => kernel.underlay = underlay,
        Change::SetAddress(link, address) => {
            needs(kernel, &link);
            kernel.addresses.insert((link, address));
        }
        Change::DeleteAddress(link, address) => {
            assert!(kernel.addresses.remove(&(link.clone(), address)), "{address} is not there");
            let last = !kernel.addresses.iter().any(|(on, net)| *on == link && net.addr().is_ipv4());
            if last && address.addr().is_ipv4() {
                // The kernel switches IPv4 off on this link.
                kernel.routes.retain(|to, hop| Hop::link(hop) != Some(&link) || !to.net.addr().is_ipv4());
                kernel.neighbours.retain(|(on, to), _| *on != link || !to.is_ipv4());
            }
        }
        Change::SetNeighbour { link, to, mac } => {
            needs(kernel, &link);
            kernel.neighbours.insert((link, to), mac);
        }
        Change::DeleteNeighbour { link, to } => _ = kernel.neighbours.remove(&(link, to)),
        Change::SetFdb { link, mac, underlay } => {
            needs(kernel, &link);
            kernel.fdb.insert((link, mac), [underlay].into());
        }
        Change::DeleteFdb { link, mac, underlay } => {
            let key = (link, mac);
            if let Some(entry) = kernel.fdb.get_mut(&key) {
                entry.remove(&underlay);
            }
            kernel.fdb.retain(|_, entry| !entry.is_empty());
        }
        Change::SetRoute(to, hop) => {
            if let Some(link) = hop.link() {
                needs(kernel, link);
                assert!(kernel.links[link].up, "a route over {link}, which is down");
            }
            kernel.routes.insert(to, hop);
        }
        Change::DeleteRoute(to) => _ = kernel.routes.remove(&to),
        Change::SetRule(rule) => _ = kernel.rules.insert(rule),
        Change::DeleteRule(rule) => _ = kernel.rules.remove(&rule),
    }
}

/// What goes with a link.
pub fn drop_all_on(kernel: &mut Observed, name: &LinkName) {
    kernel.addresses.retain(|(link, _)| link != name);
    kernel.routes.retain(|_, hop| Hop::link(hop) != Some(name));
    kernel.neighbours.retain(|(link, _), _| link != name);
    kernel.fdb.retain(|(link, _), _| link != name);
    if name.is_uplink() {
        drop_programs(kernel);
    }
}

fn needs(kernel: &Observed, link: &LinkName) {
    assert!(*link == LinkName::loopback() || kernel.links.contains_key(link), "no link {link}");
}

fn no_vni(kernel: &Observed, vni: u32) -> bool {
    kernel.links.values().all(|link| link.vxlan.is_none_or(|vxlan| vxlan.vni != vni))
}
