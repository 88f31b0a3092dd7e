//! The edge against a real kernel, in namespaces of its own: what it makes, what it mends, what it leaves.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces and use sockets in them")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lab;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use covey_overlay::{
    block::Pair,
    edge::{Desired, Device, VNI, Veth, plan_new},
    mac::Mac,
    object::{Change, Conf, Destination, Hop, LinkName, Rule, Underlay},
    peer::Peer,
    underlay::overhead,
};
use covey_overlay_netlink::{FlowCache, Stack, StackError, local_networks, namespace, underlay};
use lab::Lab;
use netlink_packet_core::{DefaultNla, NLM_F_ACK};
use netlink_packet_route::{
    RouteNetlinkMessage as M,
    link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo},
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};

// Containers: a link is ours where its name is made of so many hexadecimal digits.
const A: &str = "aaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbb";
const MARK: (u32, u32) = (0x1_0000, 0xffff_0000);

fn veth(lab: &Lab, host: u8, id: &str, last: u8) -> Veth {
    lab.add(id);
    Veth {
        name: LinkName::of_container(id),
        namespace: lab.text(id),
        addresses: Pair {
            v4: [100, 64, host, last].into(),
            v6: [0xfd00, 0xc0, 0, u16::from(host), 0, 0, 0, u16::from(last)].into(),
        },
        mtu: 1430,
    }
}

fn local(host: u8, v6: bool) -> IpAddr {
    if v6 { [0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)].into() } else { [192, 0, 2, host].into() }
}

/// The edge of host `host` of three, with these containers.
fn desired(host: u8, v6: bool, veths: &[Veth]) -> Desired {
    let block = |number: u8| {
        let v4 = format!("100.64.{number}.0/24").parse().unwrap();
        (v4, format!("fd00:c0:0:{number}::/64").parse().unwrap())
    };
    let local_address = local(host, v6);
    let (v4_block, v6_block) = block(host);
    Desired {
        device: Some(Device {
            mac: Mac::of_node([0, 0, 0, host]),
            local: local_address,
            port: 4789,
            mtu: 1500 - overhead(local_address),
            v4: v4_block,
            v6: v6_block,
            return_mark: MARK,
        }),
        peers: (1..=3)
            .filter(|number| *number != host)
            .map(|number| {
                let (v4, v6_block) = block(number);
                let mac = Mac::of_node([0, 0, 0, number]);
                (u32::from(number), Peer { mac, underlay: local(number, v6), v4, v6: v6_block })
            })
            .collect(),
        veths: veths.iter().map(|veth| (veth.name.clone(), veth.clone())).collect(),
        cached: true,
    }
}

fn on_host<T: Send>(
    lab: &Lab,
    host: u8,
    work: impl FnOnce(&mut Stack) -> Result<T, StackError> + Send,
) -> Result<T, StackError> {
    let cache = Some(lab.cache(host));
    namespace::inside(&lab.path(&format!("h{host}")), || work(&mut Stack::edge(cache)?))
}

fn repair(lab: &Lab, host: u8, desired: &Desired) -> Vec<Change> {
    on_host(lab, host, |edge| edge.mend(&desired.objects())).unwrap()
}

fn addresses(veth: &Veth) -> [IpAddr; 2] {
    [veth.addresses.v4.into(), veth.addresses.v6.into()]
}

/// CTR-11, CTR-13
#[test]
fn containers_of_one_host_reach_it_and_each_other_in_both_families() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(1);
    let veths = [veth(&lab, 1, A, 5), veth(&lab, 1, B, 6)];
    repair(&lab, 1, &Desired { cached: true, ..Desired::default() });
    let all = Desired { device: None, peers: [].into(), ..desired(1, false, &veths) };
    let changes: Vec<_> = veths.iter().flat_map(|veth| plan_new(&all, &veth.name)).collect();
    on_host(&lab, 1, |edge| edge.apply_all(&changes)).unwrap();
    assert_eq!(repair(&lab, 1, &all), [], "a new container is complete");
    for (from, seen) in addresses(&veths[0]).into_iter().zip(addresses(&veths[1])) {
        assert_eq!(lab.tcp(B, A, from), seen);
        lab.tcp("h1", A, from);
    }
}

/// CTR-11
#[test]
fn containers_of_two_hosts_reach_each_other_over_either_underlay() {
    for over_v6 in [false, true] {
        let Some(lab) = Lab::new() else { return };
        lab.hosts(3);
        let (a, b) = (veth(&lab, 1, A, 5), veth(&lab, 2, B, 6));
        repair(&lab, 1, &desired(1, over_v6, std::slice::from_ref(&a)));
        repair(&lab, 2, &desired(2, over_v6, std::slice::from_ref(&b)));
        assert_eq!(repair(&lab, 1, &desired(1, over_v6, std::slice::from_ref(&a))), []);
        for (there, here) in addresses(&b).into_iter().zip(addresses(&a)) {
            assert_eq!(lab.tcp(A, B, there), here, "the other end sees the container itself");
            let first: IpAddr =
                if there.is_ipv4() { [100, 64, 1, 0].into() } else { "fd00:c0:0:1::".parse().unwrap() };
            assert_eq!(lab.tcp("h1", B, there), first, "the host speaks from its edge address");
            let (near, far) = (lab.udp(A, here), lab.udp(B, there));
            let headers = if there.is_ipv4() { 28 } else { 48 };
            // The container's link is what limits it: 1430 here.
            let full = vec![9; 1430 - headers];
            near.send_to(&full, far.local_addr().unwrap()).unwrap();
            assert_eq!(far.recv(&mut [0; 2000]).unwrap(), full.len());
        }
    }
}

/// CTR-11
#[test]
fn an_edge_address_that_nobody_has_fails_at_once() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(2);
    let a = veth(&lab, 1, A, 5);
    repair(&lab, 1, &desired(1, false, std::slice::from_ref(&a)));
    repair(&lab, 2, &desired(2, false, &[]));
    for nobody in ["100.64.2.99", "100.64.1.99", "fd00:c0:0:2::99"] {
        lab.fails_at_once(A, nobody.parse().unwrap());
    }
}

#[test]
fn a_packet_with_the_address_of_another_does_not_leave_its_container() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(1);
    let veths = [veth(&lab, 1, A, 5), veth(&lab, 1, B, 6)];
    repair(&lab, 1, &desired(1, false, &veths));
    let [b4, _] = addresses(&veths[1]);
    let far = lab.udp(B, b4);
    // Another container's, the host's, somebody's outside, and its own.
    for stolen in [[100, 64, 1, 7], [192, 0, 2, 1], [198, 51, 100, 1], [100, 64, 1, 5]].map(IpAddr::from) {
        if stolen != addresses(&veths[0])[0] {
            lab.address(A, "eth0", stolen.into());
        }
        lab.udp(A, stolen).send_to(&[1], far.local_addr().unwrap()).unwrap();
    }
    let (_, from) = far.recv_from(&mut [0]).unwrap();
    assert_eq!(from.ip(), addresses(&veths[0])[0], "the first that is heard");
}

#[test]
fn marked_packets_go_back_by_the_edge_and_others_do_not() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(1);
    repair(&lab, 1, &desired(1, false, &[]));
    let (edge, uplink) = (lab.index("h1", "cvx4096"), lab.index("h1", "up0"));
    for client in [[192, 0, 2, 77].into(), "2001:db8::77".parse().unwrap()] {
        assert_eq!(lab.way("h1", client, MARK.0), edge);
        assert_eq!(lab.way("h1", client, 0), uplink);
    }
}

#[test]
fn drift_of_every_kind_heals_and_nothing_of_others_is_touched() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(2);
    lab.foreign("h1");
    let veths = [veth(&lab, 1, A, 5), veth(&lab, 1, B, 6)];
    let wanted = desired(1, false, &veths);
    repair(&lab, 1, &wanted);
    let device = LinkName::of_vni(VNI);
    let (a, b) = (veths[0].name.clone(), veths[1].name.clone());
    let [a4, a6] = addresses(&veths[0]);
    let conf = Conf { rp_filter: 2, send_redirects: true, route_localnet: false, accept_local: true };
    let peer = wanted.peers[&2];
    let stranger = Mac([2, 0, 0, 0, 0, 9]);
    let rule = |mark| Rule { v6: false, mark: (mark, u32::MAX), table: 100 };
    let damages = [
        ("link", Change::DeleteLink(a.clone())),
        ("link", Change::DeleteLink(device.clone())),
        ("link", Change::MendLink { name: b.clone(), mtu: 1000 }),
        ("sysctl", Change::SetConf(b.clone(), conf)),
        ("sysctl", Change::SetConf(device.clone(), conf)),
        ("sysctl", Change::SetSwitch("ipv4/ip_forward", 0)),
        ("sysctl", Change::SetSwitch("ipv4/conf/all/rp_filter", 1)),
        ("address", Change::SetAddress(device.clone(), "10.7.7.7/32".parse().unwrap())),
        ("address", Change::DeleteAddress(device.clone(), "100.64.1.0/32".parse().unwrap())),
        ("route", Change::DeleteRoute(Destination::main(a4))),
        ("route", Change::DeleteRoute(Destination::main(a6))),
        ("route", Change::SetRoute(Destination::main(a4), Hop::Unreachable)),
        ("route", Change::SetRoute(Destination::main(a6), Hop::On(b.clone()))),
        (
            "route",
            Change::SetRoute(
                Destination::main("10.6.6.0/24".parse::<ipnet::IpNet>().unwrap()),
                Hop::On(a.clone()),
            ),
        ),
        ("route", Change::DeleteRoute(Destination { table: 100, net: "::/0".parse().unwrap() })),
        ("neighbour", Change::DeleteNeighbour { link: a.clone(), to: a4 }),
        ("neighbour", Change::SetNeighbour { link: a.clone(), to: a4, mac: stranger }),
        ("neighbour", Change::SetNeighbour { link: device.clone(), to: peer.hop(true), mac: stranger }),
        ("fdb", Change::DeleteFdb { link: device.clone(), mac: peer.mac, underlay: peer.underlay }),
        ("fdb", Change::SetFdb { link: device.clone(), mac: peer.mac, underlay: local(9, false) }),
        ("rule", Change::DeleteRule(Rule { v6: true, mark: MARK, table: 100 })),
        ("rule", Change::SetRule(rule(9))),
    ];
    for (object, damage) in damages {
        on_host(&lab, 1, |edge| edge.apply(&damage)).unwrap();
        let mended = repair(&lab, 1, &wanted);
        assert!(mended.iter().any(|change| change.object() == object), "{damage:?}: {mended:?}");
        assert_eq!(repair(&lab, 1, &wanted), [], "{damage:?}: not healed by one plan");
        lab.tcp(B, A, a4);
        lab.tcp(B, A, a6);
    }
    lab.send_unknown_to("h1", "cvx4096", local(9, false));
    lab.send_unknown_to("h1", "cvx4096", local(8, false));
    assert_eq!(repair(&lab, 1, &wanted).len(), 2, "packets to nobody known stay here");
    assert_eq!(repair(&lab, 1, &wanted), []);
    lab.set("h1", LinkName::of_container(A).as_str(), LinkFlags::empty(), vec![]);
    lab.set("h1", "cvx4096", LinkFlags::empty(), vec![]);
    assert_ne!(repair(&lab, 1, &wanted), []);
    assert_eq!(repair(&lab, 1, &wanted), [], "a link that was down");
    lab.ask("h1", lab::new_link("bridge", InfoKind::Bridge, None, None));
    let bridge = lab.index("h1", "bridge");
    for link in [a.as_str(), device.as_str()] {
        lab.set("h1", link, LinkFlags::Up, vec![LinkAttribute::Controller(bridge)]);
        assert_ne!(repair(&lab, 1, &wanted), [], "{link} is a bridge's port");
        lab.silence("h1", link);
        assert_ne!(repair(&lab, 1, &wanted), [], "{link} has no neighbours");
        assert_eq!(repair(&lab, 1, &wanted), [], "{link} is restored at once");
        lab.tcp(B, A, a4);
        lab.tcp(B, A, a6);
    }
    let other = lab.index("h1", "other");
    assert_eq!(lab.way("h1", [10, 9, 9, 9].into(), 0), other, "the route of others");
}

#[test]
fn no_residue_is_left_when_nothing_is_wanted() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(2);
    lab.foreign("h1");
    // A host that forwards has some addresses more: that it does so stays.
    repair(&lab, 1, &Desired::default());
    let before = lab.everything("h1");
    repair(&lab, 1, &desired(1, false, &[veth(&lab, 1, A, 5)]));
    assert_ne!(lab.everything("h1"), before);
    repair(&lab, 1, &Desired::default());
    assert_eq!(lab.everything("h1"), before);
}

fn covey() -> [BTreeSet<String>; 2] {
    [(); 2].map(|()| ["covey".to_owned()].into())
}

/// A filter of somebody else at what a link receives: a program of one instruction, which says that it does not care
/// (linux/filter.h).
fn foreign_filter(lab: &Lab, link: &str) -> M {
    const COUNT: u16 = 4;
    const INSTRUCTIONS: u16 = 5;
    let mut filter = TcMessage::with_index(lab.index("h1", link).cast_signed());
    filter.header.parent = TcHandle { major: u16::MAX, minor: TcHandle::MIN_INGRESS };
    filter.header.handle = TcHandle { major: 0, minor: 1 };
    filter.header.info = 7 << 16 | u32::from(3_u16.to_be());
    let options = [
        DefaultNla::new(COUNT, 1_u16.to_ne_bytes().to_vec()),
        DefaultNla::new(INSTRUCTIONS, 6_u64.to_le_bytes().to_vec()),
    ];
    filter.attributes = vec![
        TcAttribute::Kind("bpf".to_owned()),
        TcAttribute::Options(options.map(TcFilterBpfOption::Other).map(TcOption::Bpf).into()),
    ];
    M::NewTrafficFilter(filter)
}

#[test]
fn the_link_to_the_others_has_the_programs_and_no_other_link_of_others() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(2);
    lab.foreign("h1");
    let mut edge = lab.within("h1", || Stack::edge(Some(lab.cache(1)))).unwrap();
    let mut mend = |v6| lab.within("h1", || edge.mend(&desired(1, v6, &[]).objects())).unwrap();
    let none = [const { BTreeSet::new() }; 2];
    mend(false);
    assert_eq!(mend(false), []);
    assert_eq!(lab.filters("h1", "up0"), covey());
    let underlay = Underlay { local: local(1, false), port: 4789 };
    lab.strip("h1", "up0");
    assert_eq!(mend(false), [Change::SetUnderlay(Some(underlay))]);
    assert_eq!(mend(false), []);
    // Its address moves to another link, where somebody else has a filter.
    lab.ask("h1", M::NewQueueDiscipline(lab.clsact("h1", "other")));
    lab.ask("h1", foreign_filter(&lab, "other"));
    let others = lab.filters("h1", "other");
    assert_ne!(others, none);
    lab.remove_address("h1", "up0", "192.0.2.1/24".parse().unwrap());
    lab.address("h1", "other", "192.0.2.1/24".parse().unwrap());
    assert_eq!(mend(false), [Change::SetUnderlay(Some(underlay))]);
    assert_eq!(mend(false), []);
    assert_eq!(lab.filters("h1", "up0"), none);
    let [received, sent] = lab.filters("h1", "other");
    assert_eq!((&received - &sent, sent), (others[0].clone(), covey()[1].clone()));
    mend(true);
    assert_eq!(mend(true), []);
    assert_eq!((lab.filters("h1", "up0"), lab.filters("h1", "other")), (covey(), others.clone()));
    repair(&lab, 1, &Desired::default());
    assert_eq!((lab.filters("h1", "up0"), lab.filters("h1", "other")), (none, others));
}

#[test]
fn an_underlay_that_cannot_have_the_programs_keeps_nothing_else_back() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(2);
    let (a, b) = (veth(&lab, 1, A, 5), veth(&lab, 2, B, 6));
    let mut theirs = lab.clsact("h1", "up0");
    theirs.attributes = vec![TcAttribute::Kind("ingress".to_owned())];
    lab.ask("h1", M::NewQueueDiscipline(theirs));
    let wanted = desired(1, false, std::slice::from_ref(&a));
    for _ in 0..2 {
        on_host(&lab, 1, |edge| edge.mend(&wanted.objects())).unwrap_err();
        let missing = on_host(&lab, 1, |edge| edge.compare(&wanted.objects())).unwrap().0;
        assert!(matches!(missing[..], [Change::SetUnderlay(Some(_))]), "{missing:?}");
    }
    repair(&lab, 2, &desired(2, false, std::slice::from_ref(&b)));
    lab.tcp(A, B, addresses(&b)[0]);
    lab.strip("h1", "up0");
    repair(&lab, 1, &wanted);
    assert_eq!(lab.filters("h1", "up0"), covey());
    // What is no Ethernet has none, as little as what is not there.
    lab.remove_address("h1", "up0", "192.0.2.1/24".parse().unwrap());
    for come in [false, true] {
        if come {
            lab.address("h1", "lo", "192.0.2.1/32".parse().unwrap());
        }
        lab.within("h1", || {
            let mut edge = Stack::edge(Some(lab.cache(1))).unwrap();
            edge.mend(&wanted.objects()).unwrap();
            assert_eq!(edge.mend(&wanted.objects()).unwrap(), []);
        });
        for link in ["up0", "lo"] {
            assert_eq!(lab.filters("h1", link), [const { BTreeSet::new() }; 2]);
        }
    }
}

#[test]
fn the_host_has_the_programs_of_who_opened_it_last() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(1);
    let a = veth(&lab, 1, A, 5);
    let wanted = desired(1, false, std::slice::from_ref(&a));
    repair(&lab, 1, &wanted);
    let other = Arc::new(FlowCache::open().unwrap());
    other.forget().unwrap();
    lab.within("h1", || {
        let mut edge = Stack::edge(Some(other)).unwrap();
        assert_eq!(edge.mend(&wanted.objects()).unwrap(), [], "no drift");
        repair(&lab, 1, &wanted);
        assert_ne!(edge.mend(&wanted.objects()).unwrap(), [], "it has those of another one");
    });
    let none = Desired { cached: false, ..wanted };
    lab.within("h1", || {
        let mut edge = Stack::edge(None).unwrap();
        assert_eq!(lab.filters("h1", a.name.as_str()), [const { BTreeSet::new() }; 2]);
        assert_eq!(edge.mend(&none.objects()).unwrap(), [Change::SetUnderlay(None)]);
        assert_eq!(edge.mend(&none.objects()).unwrap(), []);
    });
    assert_eq!(lab.filters("h1", "up0"), [const { BTreeSet::new() }; 2]);
}

#[test]
fn an_uplink_is_not_the_edges() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(1);
    lab.ask("h1", lab::new_link("cvu4097", InfoKind::Veth, Some(lab::peer_named("cvu4098")), None));
    repair(&lab, 1, &desired(1, false, &[]));
    assert_eq!(repair(&lab, 1, &desired(1, false, &[])), []);
    lab.index("h1", "cvu4097");
}

/// What the flow cache sends has no checksum there.
#[test]
fn a_device_over_ipv6_needs_no_checksums() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(1);
    repair(&lab, 1, &desired(1, true, &[]));
    let device = M::GetLink(lab::peer_named("cvx4096"));
    let found = lab.within("h1", || lab::exchange(device, NLM_F_ACK)).unwrap();
    let Some(M::NewLink(link)) = found.first() else { panic!("{found:?}") };
    let device = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(parts) => parts.iter().find_map(|part| match part {
            LinkInfo::Data(InfoData::Vxlan(device)) => Some(device),
            _ => None,
        }),
        _ => None,
    });
    let device = device.unwrap();
    for part in [InfoVxlan::UDPZeroCsumTX(true), InfoVxlan::UDPZeroCsumRX(true)] {
        assert!(device.contains(&part), "{device:?}");
    }
}

#[test]
fn a_device_of_another_underlay_address_is_made_anew() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(2);
    repair(&lab, 1, &desired(1, false, &[]));
    repair(&lab, 1, &desired(1, true, &[]));
    assert_eq!(repair(&lab, 1, &desired(1, true, &[])), []);
}

#[test]
fn links_of_others_keep_the_rp_filter_that_they_have_in_effect() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(1);
    let of = |link: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/{link}/rp_filter");
        lab.within("h1", || std::fs::read_to_string(path)).unwrap().trim().to_owned()
    };
    on_host(&lab, 1, |edge| edge.apply(&Change::SetSwitch("ipv4/conf/all/rp_filter", 2))).unwrap();
    repair(&lab, 1, &desired(1, false, &[]));
    assert_eq!((of("all"), of("up0"), of("cvx4096")), ("0".into(), "2".into(), "0".into()));
}

#[test]
fn a_device_of_others_with_our_vni_is_an_error_that_names_it() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(1);
    repair(&lab, 1, &desired(1, false, &[]));
    lab.set("h1", "cvx4096", LinkFlags::empty(), vec![]);
    lab.set("h1", "cvx4096", LinkFlags::empty(), vec![LinkAttribute::IfName("theirs".to_owned())]);
    let wanted = desired(1, false, &[]);
    let error = on_host(&lab, 1, |edge| edge.mend(&wanted.objects())).unwrap_err();
    assert!(matches!(error, StackError::VniTaken { vni: 4096 }), "{error}");
    assert_eq!(error.to_string(), "VNI 4096 is taken by another VXLAN device of this host");
}

#[test]
fn a_namespace_is_there_until_it_is_removed_and_removing_twice_is_no_error() {
    let Some(lab) = Lab::new() else { return };
    let path = lab.add("once");
    assert!(namespace::create(&path).is_err(), "the name is taken");
    namespace::remove(&path).unwrap();
    namespace::remove(&path).unwrap();
    assert!(!path.exists());
}

#[test]
fn networks_that_the_host_reaches_are_listed_but_not_those_of_the_edge() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(2);
    repair(&lab, 1, &desired(1, false, &[]));
    let networks = lab.within("h1", local_networks).unwrap();
    assert!(networks.contains(&"192.0.2.0/24".parse().unwrap()));
    assert!(networks.iter().all(|net| !net.to_string().starts_with("100.64.")), "{networks:?}");
}

#[test]
fn the_underlay_tells_its_mtu() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(1);
    lab.ask("h1", lab::new_link("small", InfoKind::Veth, Some(lab::peer_named("llams")), None));
    lab.set("h1", "small", LinkFlags::Up, vec![LinkAttribute::Mtu(1400)]);
    lab.address("h1", "small", "10.3.0.1/16".parse().unwrap());
    let mtu = |address: &str| {
        let address = address.parse().unwrap();
        lab.within("h1", || underlay::mtu_of(address)).unwrap()
    };
    assert_eq!(mtu("10.3.0.1"), Some(1400));
    assert_eq!(mtu("2001:db8::1"), Some(1500));
    assert_eq!(mtu("10.3.0.2"), None);
}
