//! Stacks of overlay networks against a real kernel: traffic across hosts, drift, residue, and how long it takes.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces and use sockets in them")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lab;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use covey_overlay::{
    mac::Mac,
    network::{Attachment, plan_attachment, plan_endpoint, plan_peer},
    object::{Change, Conf, Destination, Hop, LinkName, Observed},
    plan,
    underlay::overhead,
};
use covey_overlay_netlink::{FlowCache, Stack, StackError, namespace, remove_router, underlay};
use lab::{Lab, routers::*};
use netlink_packet_route::link::{LinkAttribute, LinkFlags};

/// At both ends.
const UPLINK: &str = "cvu4097";

/// NET-12, NET-13, NET-18
#[test]
fn containers_on_any_hosts_and_subnets_reach_each_other_over_either_underlay() {
    for over_v6 in [false, true] {
        let Some((lab, routers)) = network(over_v6) else { return };
        drop(routers);
        let wanted = desired(&lab, 1, over_v6, &places());
        assert_eq!(repair(&mut open(&lab, 1), &wanted), [], "whoever comes later finds it whole");
        let places = places();
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2)] {
            let (from, to): (&Place, &Place) = (&places[from], &places[to]);
            for (there, here) in to.addresses.iter().zip(&from.addresses) {
                assert_eq!(lab.tcp(from.id, to.id, *there), *here, "the other end sees the container itself");
            }
        }
    }
}

/// NET-18
#[test]
fn the_largest_packet_passes_whole_and_counts_once() {
    const PACKETS: u64 = 50;
    for over_v6 in [false, true] {
        let Some((lab, _routers)) = network(over_v6) else { return };
        for (there, here) in places()[1].addresses.iter().zip(&places()[0].addresses) {
            let (near, far) = (lab.udp(A, *here), lab.udp(B, *there));
            let headers = if there.is_ipv4() { 28 } else { 48 };
            let full = vec![9; 1500 - overhead(local(1, over_v6)) as usize - headers];
            let device = if there.is_ipv4() { "cvx4097" } else { "cvx4099" };
            let uplink = || underlay::link_counters(Some(&lab.path("h1")), "up0").unwrap();
            let tunnel = || underlay::link_counters(Some(&lab.path("r1")), device).unwrap();
            let before = (uplink(), tunnel());
            for _ in 0..PACKETS {
                near.send_to(&full, far.local_addr().unwrap()).unwrap();
                assert_eq!(far.recv(&mut [0; 2000]).unwrap(), full.len());
            }
            assert_eq!(tunnel().tx_packets - before.1.tx_packets, PACKETS);
            // Neighbour discovery and the like may add a few; fragments would double them.
            let sent = uplink().tx_packets - before.0.tx_packets;
            assert!((PACKETS..PACKETS * 3 / 2).contains(&sent), "{sent} packets on the wire");
        }
    }
}

/// NET-18
#[test]
fn an_address_that_nobody_has_fails_at_once() {
    let Some((lab, mut routers)) = network(false) else { return };
    for nobody in ["10.0.1.99", "10.0.2.99", "fd01::99"] {
        lab.fails_at_once(A, nobody.parse().unwrap());
    }
    // The container is gone, and this host has not heard of it yet: the other router says so.
    routers[1].apply(&Change::DeleteLink(LinkName::of_container(B))).unwrap();
    lab.fails_at_once(A, [10, 0, 1, 6].into());
}

#[test]
fn every_router_answers_at_the_gateway() {
    let Some((lab, _routers)) = network(false) else { return };
    for (id, gateway) in [(A, "10.0.1.1"), (B, "10.0.1.1"), (A, "10.0.2.1"), (C, "fd01::1")] {
        let error = lab.connect(id, SocketAddr::new(gateway.parse().unwrap(), 80)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{gateway}: nothing listens there");
    }
}

#[test]
fn a_packet_with_the_address_of_another_is_dropped() {
    let Some((lab, _routers)) = network(false) else { return };
    let stolen: IpAddr = [10, 0, 2, 7].into();
    lab.address(A, "eth1", "10.0.2.7/32".parse().unwrap());
    let far = lab.udp(B, [10, 0, 1, 6].into());
    lab.udp(A, stolen).send_to(b"stolen", far.local_addr().unwrap()).unwrap();
    lab.udp(A, [10, 0, 1, 5].into()).send_to(b"own", far.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 16];
    let (length, from) = far.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.ip()), (&b"own"[..], IpAddr::from([10, 0, 1, 5])));
}

/// NET-24
#[test]
fn only_a_network_that_is_said_to_has_the_way_out() {
    let Some((lab, _routers)) = network(false) else { return };
    let out = SocketAddr::from(([198, 51, 100, 1], 80));
    assert_eq!(lab.connect(A, out).unwrap_err().kind(), std::io::ErrorKind::NetworkUnreachable);
    lab.add(D);
    let mut wanted = desired(&lab, 1, false, &places());
    let mut attachment = wanted.attachments[&LinkName::of_container(A)].clone();
    attachment.namespace = lab.text(D);
    attachment.addresses = vec![[10, 0, 1, 8].into()];
    attachment.default_route = true;
    let name = LinkName::of_container(D);
    wanted.attachments.insert(name.clone(), attachment);
    open(&lab, 1).apply_all(&plan_attachment(&wanted, &name)).unwrap();
    assert_eq!(lab.way(D, out.ip(), 0), lab.index(D, "eth1"));
}

/// NET-18
#[test]
fn a_network_of_one_host_needs_no_vxlan_device() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(1);
    let places: Vec<Place> = places().into_iter().map(|place| Place { host: 1, ..place }).collect();
    places.iter().for_each(|place| _ = lab.add(place.id));
    lab.add("r1");
    let mut wanted = desired(&lab, 1, false, &places);
    wanted.subnets.iter_mut().for_each(|subnet| subnet.vni = None);
    let mut router = open(&lab, 1);
    repair(&mut router, &wanted);
    let observed = router.observe().unwrap();
    assert!(observed.links.values().all(|link| link.vxlan.is_none()));
    assert_eq!(lab.tcp(A, C, [10, 0, 2, 7].into()), IpAddr::from([10, 0, 1, 5]));
    lab.fails_at_once(A, [10, 0, 1, 99].into());
}

#[test]
fn drift_of_every_kind_heals() {
    let Some((lab, mut routers)) = network(false) else { return };
    let wanted = desired(&lab, 1, false, &places());
    let router = &mut routers[0];
    let (device, veth) = (LinkName::of_vni(VNI), LinkName::of_container(A));
    let far = peer(2, false);
    let (here, there): (IpAddr, IpAddr) = ([10, 0, 1, 5].into(), [10, 0, 1, 6].into());
    let there_v6: IpAddr = "fd01::6".parse().unwrap();
    let stranger = Mac([2, 0, 0, 0, 0, 9]);
    let conf = Conf { rp_filter: 0, send_redirects: true, route_localnet: true, accept_local: false };
    let nowhere = Destination::main("10.6.6.0/24".parse::<ipnet::IpNet>().unwrap());
    let damages = [
        ("link", Change::DeleteLink(veth.clone())),
        ("link", Change::DeleteLink(device.clone())),
        ("link", Change::MendLink { name: device.clone(), mtu: 1000 }),
        ("sysctl", Change::SetConf(veth.clone(), conf)),
        ("sysctl", Change::SetConf(device.clone(), conf)),
        ("sysctl", Change::SetSwitch("ipv4/ip_forward", 0)),
        ("sysctl", Change::SetSwitch("ipv6/conf/all/forwarding", 0)),
        ("address", Change::DeleteAddress(LinkName::loopback(), "10.0.1.1/32".parse().unwrap())),
        ("address", Change::SetAddress(device.clone(), "10.7.7.7/32".parse().unwrap())),
        ("route", Change::DeleteRoute(Destination::main(here))),
        ("route", Change::DeleteRoute(Destination::main(there))),
        ("route", Change::DeleteRoute(Destination::main(there_v6))),
        ("route", Change::SetRoute(Destination::main(there), Hop::Unreachable)),
        ("route", Change::SetRoute(Destination::main(there_v6), Hop::On(veth.clone()))),
        ("route", Change::SetRoute(nowhere, Hop::On(veth.clone()))),
        ("route", Change::DeleteRoute(Destination::main(wanted.subnets[0].net))),
        ("neighbour", Change::DeleteNeighbour { link: veth.clone(), to: here }),
        ("neighbour", Change::SetNeighbour { link: veth.clone(), to: here, mac: stranger }),
        ("neighbour", Change::SetNeighbour { link: device.clone(), to: far.hop(false), mac: stranger }),
        ("neighbour", Change::SetNeighbour { link: device.clone(), to: [9, 9, 9, 9].into(), mac: stranger }),
        ("fdb", Change::DeleteFdb { link: device.clone(), mac: far.mac, underlay: far.underlay }),
        ("fdb", Change::SetFdb { link: device.clone(), mac: far.mac, underlay: local(9, false) }),
        ("fdb", Change::SetFdb { link: device.clone(), mac: stranger, underlay: local(9, false) }),
    ];
    for (object, damage) in damages {
        router.apply(&damage).unwrap();
        let mended = repair(router, &wanted);
        assert!(mended.iter().any(|change| change.object() == object), "{damage:?}: {mended:?}");
        assert_eq!(repair(router, &wanted), [], "{damage:?}: not healed by one plan");
        for to in [there, there_v6] {
            lab.tcp(A, B, to);
        }
    }
    lab.send_unknown_to("r1", device.as_str(), local(9, false));
    assert_eq!(repair(router, &wanted).len(), 1, "packets to nobody known stay here");
    for link in [&device, &veth] {
        lab.set("r1", link.as_str(), LinkFlags::empty(), vec![]);
        assert_ne!(repair(router, &wanted), []);
        assert_eq!(repair(router, &wanted), [], "{link} was down");
        lab.tcp(A, B, there);
    }
}

/// A way out of its router for what the flow cache carries.
#[test]
fn an_uplink_heals_at_both_ends() {
    let Some((lab, mut routers)) = network(false) else { return };
    let wanted = desired(&lab, 1, false, &places());
    let router = &mut routers[0];
    let veth = LinkName::of_container(A);
    type Blow = fn(&Lab);
    let blows: [(&str, Blow); 10] = [
        ("link", |lab| lab.set("h1", UPLINK, LinkFlags::empty(), vec![])),
        ("link", |lab| lab.set("r1", UPLINK, LinkFlags::empty(), vec![])),
        ("link", |lab| lab.set("h1", UPLINK, LinkFlags::Up, vec![LinkAttribute::Mtu(1300)])),
        ("link", |lab| lab.set("h1", UPLINK, LinkFlags::Up, vec![LinkAttribute::Address(vec![2; 6])])),
        ("link", |lab| lab.delete("h1", UPLINK)),
        ("link", |lab| lab.delete("r1", UPLINK)),
        ("link", |lab| {
            lab.set("h1", UPLINK, LinkFlags::empty(), vec![]);
            lab.set("h1", UPLINK, LinkFlags::empty(), vec![LinkAttribute::IfName("renamed".to_owned())]);
        }),
        ("flow_cache", |lab| lab.strip("h1", UPLINK)),
        ("flow_cache", |lab| lab.strip("r1", UPLINK)),
        ("flow_cache", |lab| lab.strip("r1", LinkName::of_container(A).as_str())),
    ];
    for (number, (object, blow)) in blows.into_iter().enumerate() {
        blow(&lab);
        let mended = repair(router, &wanted);
        assert!(mended.iter().any(|change| change.object() == object), "{number}: {mended:?}");
        assert_eq!(repair(router, &wanted), [], "{number} is not healed by one plan");
        for host in ["h1", "r1"] {
            assert_eq!(lab.filters(host, UPLINK), [["covey".to_owned()].into(), [].into()], "{number}");
        }
        assert_eq!(lab.filters("r1", veth.as_str()), [(); 2].map(|()| ["covey".to_owned()].into()));
        lab.tcp(A, B, [10, 0, 1, 6].into());
    }
}

#[test]
fn a_router_has_the_programs_of_who_opened_it_last() {
    let Some((lab, routers)) = network(false) else { return };
    drop(routers);
    let path = lab.path("r1");
    let mut wanted = desired(&lab, 1, false, &places());
    let other = Some(Arc::new(FlowCache::open().unwrap()));
    let mut router = lab.within("h1", || Stack::router(&path, other)).unwrap();
    assert_eq!(repair(&mut router, &wanted), [], "no drift");
    assert!(!open(&lab, 1).observe().unwrap().links.is_empty());
    assert_ne!(repair(&mut router, &wanted), [], "it has those of another one");
    drop(router);
    wanted.cached = false;
    let mut router = lab.within("h1", || Stack::router(&path, None)).unwrap();
    assert_eq!(lab.filters("r1", LinkName::of_container(A).as_str()), [const { BTreeSet::new() }; 2]);
    repair(&mut router, &wanted);
    assert_eq!(repair(&mut router, &wanted), []);
    assert!(lab.within("h1", || nix::net::if_::if_nametoindex(UPLINK)).is_err(), "it has no uplink");
    lab.tcp(A, B, [10, 0, 1, 6].into());
}

#[test]
fn an_endpoint_that_moves_is_never_without_a_route() {
    let Some((lab, mut routers)) = network(false) else { return };
    let mut wanted = desired(&lab, 1, false, &places());
    let router = &mut routers[0];
    wanted.peers.insert(3, peer(3, false));
    router.apply_all(&plan_peer(&wanted, 3, None)).unwrap();
    for address in places()[1].addresses.clone() {
        for number in [3, 2, 3] {
            wanted.endpoints.insert(address, number);
            let change = plan_endpoint(&wanted, address);
            assert!(matches!(change, Change::SetRoute(..)));
            router.apply(&change).unwrap();
            assert_eq!(repair(router, &wanted), [], "one change is all it takes");
        }
        wanted.endpoints.remove(&address);
        router.apply(&plan_endpoint(&wanted, address)).unwrap();
    }
    let before = wanted.peers.remove(&3).unwrap();
    router.apply_all(&plan_peer(&wanted, 3, Some(&before))).unwrap();
    assert_eq!(repair(router, &wanted), []);
}

#[test]
fn removing_a_router_leaves_nothing_and_frees_its_vnis() {
    let Some((lab, routers)) = network(false) else { return };
    drop(routers);
    let path = lab.path("r1");
    let mut before = lab.everything("h1");
    let uplink = lab.index("h1", UPLINK);
    before.retain(|line| !line.contains(UPLINK) && !line.starts_with(&uplink.to_string()));
    // A daemon that does not know of the router of before makes another one.
    lab.add("again");
    let wanted = desired(&lab, 1, false, &[]);
    let again = lab.path("again");
    let cache = Some(lab.cache(1));
    let mut router = lab.within("h1", || Stack::router(&again, cache)).unwrap();
    let error = router.apply_all(&plan(&wanted.objects(), &Observed::default())).unwrap_err();
    assert!(matches!(error, StackError::VniTaken { vni: VNI }), "{error}");
    lab.within("h1", || remove_router(&path)).unwrap();
    repair(&mut router, &wanted);
    assert_eq!(repair(&mut router, &wanted), []);
    drop(router);
    for name in ["again", "again", "r1"] {
        let path = lab.path(name);
        lab.within("h1", || remove_router(&path)).unwrap();
        assert!(!path.exists());
    }
    assert_eq!(lab.everything("h1"), before, "a router leaves nothing with its host");
    assert!(lab.within(A, || nix::net::if_::if_nametoindex("eth1")).is_err(), "nor with a container");
    let stale = lab.path("stale");
    std::fs::write(&stale, "").unwrap();
    lab.within("h1", || remove_router(&stale)).unwrap();
    assert!(!stale.exists(), "a file that never became a namespace");
}

#[test]
fn a_container_that_is_no_more_does_not_keep_the_others_from_being_mended() {
    let Some((lab, mut routers)) = network(false) else { return };
    let mut wanted = desired(&lab, 2, false, &places());
    let router = &mut routers[1];
    router.apply(&Change::DeleteLink(LinkName::of_container(B))).unwrap();
    router.apply(&Change::DeleteLink(LinkName::of_container(C))).unwrap();
    namespace::remove(&lab.path(B)).unwrap();
    let error = router.mend(&wanted.objects()).unwrap_err();
    assert!(matches!(error, StackError::Namespace { .. }), "{error}");
    lab.tcp(A, C, [10, 0, 2, 7].into());
    wanted.attachments.remove(&LinkName::of_container(B));
    assert_eq!(repair(router, &wanted), []);
}

#[test]
fn a_container_that_cannot_be_wired_whole_is_not_wired_at_all() {
    let Some((lab, mut routers)) = network(false) else { return };
    lab.add(D);
    let mut wanted = desired(&lab, 1, false, &places());
    let wrong = vec![[10, 0, 1, 8].into(), "ff02::9".parse().unwrap()];
    let inside = Attachment {
        namespace: lab.text(D),
        inside: "eth1".to_owned(),
        addresses: wrong,
        default_route: false,
    };
    let name = LinkName::of_container(D);
    wanted.attachments.insert(name.clone(), inside);
    routers[0].apply_all(&plan_attachment(&wanted, &name)).unwrap_err();
    assert!(!routers[0].observe().unwrap().links.contains_key(&name));
    wanted.attachments.get_mut(&name).unwrap().addresses.pop();
    routers[0].apply_all(&plan_attachment(&wanted, &name)).unwrap();
    assert_eq!(lab.tcp(A, D, [10, 0, 1, 8].into()), IpAddr::from([10, 0, 1, 5]));
}

#[test]
fn a_thousand_endpoints_and_a_network_take_no_time() {
    const ENDPOINTS: u16 = 1000;
    let Some(lab) = Lab::new() else { return };
    lab.hosts(1);
    lab.add(A);
    let start = Instant::now();
    lab.add("r1");
    let mut router = open(&lab, 1);
    let mut wanted = desired(&lab, 1, false, &[]);
    repair(&mut router, &wanted);
    let made = start.elapsed();
    let name = LinkName::of_container(A);
    wanted.attachments = desired(&lab, 1, false, &places()[..1]).attachments;
    let start = Instant::now();
    router.apply_all(&plan_attachment(&wanted, &name)).unwrap();
    let attached = start.elapsed();
    wanted.subnets[0].net = "10.0.0.0/16".parse().unwrap();
    wanted.peers.insert(2, peer(2, false));
    wanted.endpoints = (0..ENDPOINTS)
        .map(|number| ([10, 0, 16 + number.to_be_bytes()[0], number.to_be_bytes()[1]].into(), 2))
        .collect();
    let start = Instant::now();
    let changes = repair(&mut router, &wanted);
    let filled = start.elapsed();
    assert!(changes.len() > usize::from(ENDPOINTS));
    let start = Instant::now();
    assert_eq!(repair(&mut router, &wanted), []);
    let looked = start.elapsed();
    let times = format!("network {made:?}, container {attached:?}, endpoints {filled:?}, a look {looked:?}");
    if std::env::var_os("SHOW_TIMES").is_some() {
        eprintln!("{times}");
    }
    assert!(filled < Duration::from_secs(1), "{times}");
}
