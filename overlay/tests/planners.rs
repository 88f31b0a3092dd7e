//! Both planners against a model kernel: a plan leads to what is wanted, twice changes nothing, and nothing that works
//! is away in between.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod kernel;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use covey_overlay::{
    block::Pair,
    edge::{self, Device, Veth},
    mac::Mac,
    network::{self, Attachment, Subnet},
    object::{
        Change, Destination, Hop, Link, LinkKind, LinkName, Observed, ObservedInside, ObservedLink, Part,
        Underlay, Wanted,
    },
    peer::Peer,
    plan,
};
use kernel::{carry_out, drop_all_on, whole};
use proptest::prelude::*;

fn peer(number: u32, variant: u8) -> Peer {
    let [.., c, d] = number.to_be_bytes();
    Peer {
        mac: Mac::of_node(number.to_be_bytes()),
        underlay: [192, 0, 2, d.wrapping_add(variant)].into(),
        v4: format!("100.64.{d}.0/24").parse().unwrap(),
        v6: format!("fd00:c0:{c:x}:{d:x}::/64").parse().unwrap(),
    }
}

fn veth(number: u8, mtu: u32) -> Veth {
    Veth {
        name: LinkName::of_container(&format!("{number:013x}")),
        namespace: format!("/run/{number}"),
        addresses: Pair {
            v4: [100, 64, 1, number].into(),
            v6: [0xfd00, 0xc0, 0, 1, 0, 0, 0, u16::from(number)].into(),
        },
        mtu,
    }
}

fn edges() -> impl Strategy<Value = edge::Desired> {
    let device = prop::option::of((prop::bool::ANY, 1400_u32..1402, 1_u32..3));
    let peers = prop::collection::btree_map(2_u32..6, 0_u8..2, 0..4);
    let veths = prop::collection::btree_map(1_u8..6, 1400_u32..1402, 0..5);
    (device, peers, veths).prop_map(|(device, peers, veths)| edge::Desired {
        device: device.map(|(v6, mtu, mark)| Device {
            mac: Mac::of_node([0, 0, 0, 1]),
            local: if v6 { "2001:db8::1".parse().unwrap() } else { [192, 0, 2, 1].into() },
            port: 4789,
            mtu,
            v4: "100.64.1.0/24".parse().unwrap(),
            v6: "fd00:c0:0:1::/64".parse().unwrap(),
            return_mark: (mark, 0xff),
        }),
        peers: peers.into_iter().map(|(number, variant)| (number, peer(number, variant))).collect(),
        veths: veths.into_iter().map(|(n, mtu)| (veth(n, mtu).name.clone(), veth(n, mtu))).collect(),
        cached: true,
    })
}

fn subnets(shape: u8) -> Vec<Subnet> {
    let subnet = |net: &str, vni, gateway: &str| Subnet {
        net: net.parse().unwrap(),
        vni,
        gateway: gateway.parse().unwrap(),
    };
    match shape {
        0 => vec![subnet("10.0.1.0/24", Some(4097), "10.0.1.1")],
        1 => vec![
            subnet("10.0.1.0/24", Some(4097), "10.0.1.1"),
            subnet("10.0.2.0/24", Some(4098), "10.0.2.1"),
            subnet("fd01::/64", Some(4099), "fd01::1"),
        ],
        _ => vec![subnet("10.0.1.0/24", None, "10.0.1.1")],
    }
}

fn address(number: u8) -> IpAddr {
    match number % 3 {
        0 => [10, 0, 1, number].into(),
        1 => [10, 0, 2, number].into(),
        _ => [0xfd01, 0, 0, 0, 0, 0, 0, u16::from(number)].into(),
    }
}

fn networks() -> impl Strategy<Value = network::Desired> {
    let attachments = prop::collection::btree_map(10_u8..14, prop::bool::ANY, 0..4);
    let peers = prop::collection::btree_map(2_u32..6, 0_u8..2, 0..4);
    let endpoints = prop::collection::btree_map(10_u8..40, 2_u32..7, 0..20);
    (0_u8..3, 1400_u32..1402, attachments, peers, endpoints).prop_map(
        |(shape, mtu, attachments, peers, endpoints)| network::Desired {
            local: [192, 0, 2, 1].into(),
            port: 4789,
            mac: Mac::of_node([0, 0, 0, 1]),
            mtu,
            cached: true,
            subnets: subnets(shape),
            attachments: attachments.into_iter().map(|(n, default)| attachment(n, default)).collect(),
            peers: peers.into_iter().map(|(number, variant)| (number, peer(number, variant))).collect(),
            endpoints: endpoints.into_iter().map(|(n, node)| (address(n), node)).collect(),
        },
    )
}

fn attachment(number: u8, default_route: bool) -> (LinkName, Attachment) {
    let attachment = Attachment {
        namespace: format!("/run/{number}"),
        inside: "eth1".to_owned(),
        addresses: vec![address(number)],
        default_route,
    };
    (LinkName::of_container(&format!("{number:013x}")), attachment)
}

/// One thing done to the kernel behind our back, chosen by `seed`.
fn damage(kernel: &mut Observed, seed: u16) {
    let at = |length: usize| usize::from(seed / 16) % length.max(1);
    let link = kernel.links.keys().nth(at(kernel.links.len())).cloned();
    let route = kernel.routes.keys().nth(at(kernel.routes.len())).copied();
    let neighbour = kernel.neighbours.keys().nth(at(kernel.neighbours.len())).cloned();
    let fdb = kernel.fdb.keys().nth(at(kernel.fdb.len())).cloned();
    match (seed % 16, link, route, neighbour, fdb) {
        (0, Some(link), ..) => {
            kernel.links.remove(&link);
            drop_all_on(kernel, &link);
        }
        (1, Some(link), ..) => kernel.links.get_mut(&link).unwrap().mtu = 9000,
        (2, Some(link), ..) => kernel.links.get_mut(&link).unwrap().mac = Some(Mac([2; 6])),
        (3, Some(link), ..) => {
            kernel.links.get_mut(&link).unwrap().up = false;
            kernel.routes.retain(|_, hop| Hop::link(hop) != Some(&link));
            kernel.neighbours.retain(|(on, _), _| *on != link);
        }
        (4, Some(link), ..) => kernel.links.get_mut(&link).unwrap().conf = None,
        (5, Some(link), ..) if seed > u16::MAX / 2 => kernel.links.get_mut(&link).unwrap().vxlan = None,
        (5, Some(link), ..) => kernel.links.get_mut(&link).unwrap().cached = false,
        (6, Some(link), ..) => {
            if seed > u16::MAX / 2 {
                kernel.addresses.retain(|(on, _)| *on != link);
            }
            kernel.addresses.insert((link, "10.9.9.9/24".parse().unwrap()));
        }
        (7, _, Some(route), ..) => _ = kernel.routes.remove(&route),
        (8, _, Some(route), ..) => _ = kernel.routes.insert(route, Hop::Unreachable),
        (9, .., Some(key), _) => _ = kernel.neighbours.remove(&key),
        (10, .., Some(key), _) => _ = kernel.neighbours.insert(key, Mac([2; 6])),
        (11, .., Some(key)) => _ = kernel.fdb.remove(&key),
        (12, .., Some(key)) => _ = kernel.fdb.insert(key, [[203, 0, 113, 9].into()].into()),
        (13, Some(link), ..) => {
            let zero = Mac([0; 6]);
            let strangers: BTreeSet<IpAddr> = [[203, 0, 113, 1].into(), [203, 0, 113, 2].into()].into();
            kernel.fdb.insert((link, zero), strangers);
        }
        (14, ..) if seed > u16::MAX / 2 => kernel.rules.clear(),
        (14, Some(link), ..) => strike_inside(kernel.links.get_mut(&link).unwrap(), seed),
        (15, ..) if seed > u16::MAX / 2 => {
            let other = Underlay { local: [203, 0, 113, 1].into(), port: 4789 };
            kernel.underlay = (at(2) == 0).then_some(other);
        }
        _ => kernel.switches.values_mut().for_each(|value| *value += 1),
    }
}

/// The same at a container's end: a part of it goes, all of it is altered, it is another one, or nobody can look.
fn strike_inside(link: &mut ObservedLink, seed: u16) {
    let Some(end) = &mut link.inside else { return };
    match usize::from(seed / 16) % 10 {
        0 => *end = ObservedInside::default(),
        1 => end.mac = Some(Mac([2; 6])),
        2 => end.parts.retain(|part| matches!(part, Part::Address(address) if address.is_ipv4())),
        3 => {
            let others = [Part::Up { mtu: 1300 }, Part::Address([10, 9, 9, 9].into())];
            end.parts.retain(|part| !matches!(part, Part::Up { .. }));
            end.parts.extend(others);
        }
        which => {
            let part = end.parts.iter().nth(which % end.parts.len().max(1)).copied();
            part.map(|part| end.parts.remove(&part));
        }
    }
}

/// Whatever else a container has at its end stays there: it is not looked at.
fn without_others(mut kernel: Observed, wanted: &Wanted) -> Observed {
    for (name, link) in &mut kernel.links {
        let ours = wanted.links.get(name).map(Link::parts).unwrap_or_default();
        if let Some(end) = &mut link.inside {
            end.parts.retain(|part| ours.contains(part));
        }
    }
    kernel
}

/// Carries a plan out, and sees to it that no destination that has a route before, and in the end one over a link that
/// is there already, is ever without one. (Where somebody gave one of these links an address it may be.)
fn follow(kernel: &mut Observed, wanted: &Wanted, changes: &[Change]) {
    let meddled = |kernel: &Observed, link: &LinkName| {
        kernel.addresses.iter().any(|entry| entry.0 == *link && !wanted.addresses.contains(entry))
    };
    let stays = |to: &Destination, hop: &Hop| {
        let now = hop.link().is_none_or(|link| !meddled(kernel, link));
        let then = wanted.routes.get(to).is_some_and(|hop| {
            hop.link().is_none_or(|link| same_link(kernel, wanted, link) && !meddled(kernel, link))
        });
        now && then
    };
    let live: Vec<_> = kernel.routes.iter().filter(|(to, hop)| stays(to, hop)).map(|(to, _)| *to).collect();
    for change in changes {
        carry_out(kernel, change);
        for to in &live {
            assert!(kernel.routes.contains_key(to), "{to:?} is away after {change:?}");
        }
    }
}

fn same_link(kernel: &Observed, wanted: &Wanted, name: &LinkName) -> bool {
    match (kernel.links.get(name), whole(wanted).links.get(name)) {
        (Some(is), Some(wanted)) => {
            let end = |link: &ObservedLink| link.inside.as_ref().map(|end| end.mac);
            is.mac == wanted.mac && is.vxlan == wanted.vxlan && end(is) == end(wanted)
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_of_the_edge_leads_from_anything_to_what_is_wanted(
        before in edges(), after in edges(), damages in prop::collection::vec(any::<u16>(), 0..4),
    ) {
        let mut kernel = whole(&before.objects());
        damages.into_iter().for_each(|seed| damage(&mut kernel, seed));
        let wanted = after.objects();
        let changes = plan(&wanted, &kernel);
        follow(&mut kernel, &wanted, &changes);
        // Switches that nobody wants any more stay as they are.
        kernel.switches.retain(|path, _| wanted.switches.contains_key(path));
        prop_assert_eq!(without_others(kernel.clone(), &wanted), whole(&wanted));
        prop_assert_eq!(plan(&wanted, &kernel), vec![]);
    }

    #[test]
    fn a_plan_of_a_network_leads_from_anything_to_what_is_wanted(
        before in networks(), after in networks(), damages in prop::collection::vec(any::<u16>(), 0..4),
    ) {
        let mut kernel = whole(&before.objects());
        damages.into_iter().for_each(|seed| damage(&mut kernel, seed));
        let wanted = after.objects();
        let changes = plan(&wanted, &kernel);
        follow(&mut kernel, &wanted, &changes);
        kernel.switches.retain(|path, _| wanted.switches.contains_key(path));
        prop_assert_eq!(without_others(kernel.clone(), &wanted), whole(&wanted));
        prop_assert_eq!(plan(&wanted, &kernel), vec![]);
    }

    #[test]
    fn endpoints_and_peers_planned_one_by_one_lead_to_the_same_as_all_at_once(
        mut desired in networks(), after in networks(),
    ) {
        let mut kernel = whole(&desired.objects());
        let before = std::mem::replace(&mut desired.peers, after.peers.clone());
        for (address, number) in &desired.endpoints {
            if !desired.peers.contains_key(number) {
                carry_out(&mut kernel, &network::plan_endpoint(&desired, *address));
            }
        }
        for number in before.keys().chain(desired.peers.keys()).copied().collect::<BTreeSet<_>>() {
            let changes = network::plan_peer(&desired, number, before.get(&number));
            changes.iter().for_each(|change| carry_out(&mut kernel, change));
        }
        let touched: BTreeSet<IpAddr> = desired.endpoints.keys().chain(after.endpoints.keys()).copied().collect();
        desired.endpoints = after.endpoints;
        for address in touched {
            carry_out(&mut kernel, &network::plan_endpoint(&desired, address));
        }
        prop_assert_eq!(&kernel, &whole(&desired.objects()));
    }

    #[test]
    fn a_container_planned_alone_is_complete(mut desired in networks(), number in 20_u8..24) {
        let mut kernel = whole(&desired.objects());
        let (name, attachment) = attachment(number, false);
        desired.endpoints.remove(&attachment.addresses[0]);
        kernel.routes.remove(&Destination::main(attachment.addresses[0]));
        desired.attachments.insert(name.clone(), attachment);
        for change in network::plan_attachment(&desired, &name) {
            carry_out(&mut kernel, &change);
        }
        prop_assert_eq!(&kernel, &whole(&desired.objects()));
    }
}

/// One container alone, on a host that knows no others.
fn lonely(number: u8) -> (LinkName, edge::Desired) {
    let veth = veth(number, 1450);
    let name = veth.name.clone();
    (name.clone(), edge::Desired { veths: [(name, veth)].into(), cached: true, ..edge::Desired::default() })
}

#[test]
fn a_new_container_of_the_edge_is_complete() {
    let mut kernel = Observed::default();
    let (name, desired) = lonely(5);
    for change in edge::plan_new(&desired, &name) {
        carry_out(&mut kernel, &change);
    }
    kernel.switches = desired.objects().switches;
    assert_eq!(plan(&desired.objects(), &kernel), []);
    assert_eq!(plan(&edge::Desired::default().objects(), &kernel), [Change::DeleteLink(name)]);
}

/// A network of subnets of this shape with one container.
fn network(shape: u8, cached: bool) -> network::Desired {
    network::Desired {
        local: [192, 0, 2, 1].into(),
        port: 4789,
        mac: Mac::of_node([0, 0, 0, 1]),
        mtu: 1450,
        cached,
        subnets: subnets(shape),
        attachments: [attachment(12, false)].into(),
        peers: BTreeMap::new(),
        endpoints: BTreeMap::new(),
    }
}

/// Programs at a container's link know the uplink.
#[test]
fn a_router_has_its_uplink_before_it_has_containers() {
    let changes = plan(&network(1, true).objects(), &Observed::default());
    let made = changes.iter().filter_map(|change| match change {
        Change::CreateLink(name, link) => Some((name.as_str(), link.cached)),
        _ => None,
    });
    let expected = [
        ("cvu4097", true),
        ("cv000000000000c", true),
        ("cvx4097", false),
        ("cvx4098", false),
        ("cvx4099", false),
    ];
    assert_eq!(made.collect::<Vec<_>>(), expected);
}

#[test]
fn a_network_without_the_cache_or_of_one_host_has_no_uplink() {
    for desired in [network(1, false), network(2, true)] {
        let wanted = desired.objects();
        assert!(wanted.links.values().all(|link| !link.cached && link.kind != LinkKind::Uplink));
        assert_eq!(wanted.switches, network::SWITCHES.iter().copied().collect());
    }
}

#[test]
fn only_links_that_lack_the_programs_get_them_and_all_do_where_the_uplink_is_new() {
    let wanted = network(1, true).objects();
    let (uplink, container) = (LinkName::of_uplink(4097), attachment(12, false).0);
    let mut kernel = whole(&wanted);
    kernel.links.get_mut(&container).unwrap().cached = false;
    assert_eq!(plan(&wanted, &kernel), [Change::SetCached(container.clone())]);

    let mut kernel = whole(&wanted);
    kernel.links.get_mut(&uplink).unwrap().cached = false;
    assert_eq!(plan(&wanted, &kernel), [Change::SetCached(uplink.clone())]);

    let mut kernel = whole(&wanted);
    kernel.links.remove(&uplink);
    let link = wanted.links[&uplink].clone();
    let conf = Change::SetConf(uplink.clone(), link.conf);
    let made = [Change::CreateLink(uplink, link), conf, Change::SetCached(container)];
    assert_eq!(plan(&wanted, &kernel), made);
}

#[test]
fn the_hosts_link_to_the_others_has_the_programs_while_there_are_others() {
    let joined = joined();
    let underlay = Underlay { local: [192, 0, 2, 1].into(), port: 4789 };
    let mut kernel = whole(&joined.objects());
    for lost in [None, Some(Underlay { local: [192, 0, 2, 9].into(), ..underlay })] {
        kernel.underlay = lost;
        assert_eq!(plan(&joined.objects(), &kernel), [Change::SetUnderlay(Some(underlay))]);
    }
    let kernel = whole(&joined.objects());
    let parted = edge::Desired { device: None, ..joined.clone() };
    let without = edge::Desired { cached: false, ..joined };
    for wanted in [parted, without] {
        assert!(plan(&wanted.objects(), &kernel).contains(&Change::SetUnderlay(None)));
    }
}

#[test]
fn a_link_name_fits_the_kernel_and_no_container_has_that_of_a_vni() {
    assert_eq!(LinkName::of_container(&"0123456789abcdef".repeat(4)).as_str(), "cv0123456789abc");
    assert_eq!(LinkName::of_vni(network::VNI_MAX).as_str(), "cvx16777215");
    assert_eq!(LinkName::of_uplink(network::VNI_MAX).as_str(), "cvu16777215");
    for ours in ["cv0123456789abc", "cvx4096", "cvx16777215", "cvu4097"] {
        assert_eq!(LinkName::ours(ours).as_ref().map(LinkName::as_str), Some(ours));
    }
    for theirs in [
        "eth0",
        "cv",
        "cvx",
        "cvu",
        "cvd-ebr",
        "cvx1-2",
        "cv0123456789ab",
        "cv0123456789ABC",
        "cv0123456789abcd",
    ] {
        assert_eq!(LinkName::ours(theirs), None, "{theirs}");
    }
}

#[test]
fn an_endpoint_of_an_unknown_host_is_unreachable() {
    let mut desired = network::Desired {
        attachments: BTreeMap::new(),
        endpoints: [(address(12), 7)].into(),
        ..network(1, false)
    };
    let to = Destination::main(address(12));
    assert_eq!(network::plan_endpoint(&desired, address(12)), Change::DeleteRoute(to));
    desired.peers.insert(7, peer(7, 0));
    let hop = Hop::Via(LinkName::of_vni(4097), Ipv4Addr::new(100, 64, 7, 0).into());
    assert_eq!(network::plan_endpoint(&desired, address(12)), Change::SetRoute(to, hop));
}

/// The edge of a host that knows another one.
fn joined() -> edge::Desired {
    edge::Desired {
        device: Some(Device {
            mac: Mac::of_node([0, 0, 0, 1]),
            local: [192, 0, 2, 1].into(),
            port: 4789,
            mtu: 1450,
            v4: "100.64.1.0/24".parse().unwrap(),
            v6: "fd00:c0:0:1::/64".parse().unwrap(),
            return_mark: (1, 1),
        }),
        peers: [(2, peer(2, 0))].into(),
        veths: BTreeMap::new(),
        cached: true,
    }
}

#[test]
fn every_change_says_which_kind_of_object_it_is_about() {
    let changes = plan(&joined().objects(), &Observed::default());
    let kinds: BTreeSet<_> = changes.iter().map(Change::object).collect();
    assert_eq!(
        kinds,
        ["address", "fdb", "flow_cache", "link", "neighbour", "route", "rule", "sysctl"].into()
    );
}
