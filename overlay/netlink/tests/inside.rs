//! The container's end of a link against a real kernel: whatever of ours is struck there heals, and what the container has
//! of its own stays.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces and use sockets in them")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lab;

use std::{net::IpAddr, time::Instant};

use covey_overlay::{
    block::Pair,
    edge::{Desired, Veth},
    mac::Mac,
    object::{Change, GATEWAY_V4, GATEWAY_V6, LinkName},
    peer::Peer,
};
use covey_overlay_netlink::Stack;
use ipnet::IpNet;
use lab::{Lab, exchange, family};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage as M,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};

const A: &str = "aaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbb";
const END: &str = "eth0";
/// What the container's own objects are told apart by.
const OWN: [u8; 4] = [198, 51, 100, 9];

fn veth(lab: &Lab, id: &str, last: u16) -> Veth {
    lab.add(id);
    let [_, low] = last.to_be_bytes();
    Veth {
        name: LinkName::of_container(id),
        namespace: lab.text(id),
        addresses: Pair { v4: [100, 64, 1, low].into(), v6: [0xfd00, 0xc0, 0, 1, 0, 0, 0, last].into() },
        mtu: 1430,
    }
}

fn addresses(veth: &Veth) -> [IpAddr; 2] {
    [veth.addresses.v4.into(), veth.addresses.v6.into()]
}

fn edge_of(veths: &[Veth]) -> Desired {
    Desired {
        device: None,
        peers: [].into_iter().collect::<std::collections::BTreeMap<u32, Peer>>(),
        veths: veths.iter().map(|veth| (veth.name.clone(), veth.clone())).collect(),
        cached: false,
    }
}

fn mend(lab: &Lab, desired: &Desired) -> Vec<Change> {
    lab.within("h1", || Stack::edge(None).unwrap().mend(&desired.objects())).unwrap()
}

fn address(lab: &Lab, link: &str, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = IpNet::from(address).max_prefix_len();
    message.header.index = lab.index(A, link);
    message.attributes = vec![AddressAttribute::Address(address), AddressAttribute::Local(address)];
    message
}

/// A permanent neighbour at the container's end.
fn neighbour(lab: &Lab, to: IpAddr, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(to);
    message.header.ifindex = lab.index(A, END);
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::from(to)),
        NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
    ];
    message
}

/// A way to everything of a family, by this link.
fn default_route(lab: &Lab, v6: bool, link: &str, protocol: RouteProtocol) -> RouteMessage {
    let any: IpAddr = if v6 { [0_u16; 8].into() } else { [0_u8; 4].into() };
    let mut message = RouteMessage::default();
    message.header.address_family = family(any);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = protocol;
    message.header.scope = if v6 { RouteScope::Universe } else { RouteScope::Link };
    message.header.kind = RouteType::Unicast;
    message.header.flags = RouteFlags::empty();
    message.attributes = vec![RouteAttribute::Oif(lab.index(A, link))];
    message
}

/// The same, whichever it is, to be deleted.
fn no_default_route(lab: &Lab, v6: bool, link: &str) -> M {
    let mut message = default_route(lab, v6, link, RouteProtocol::Unspec);
    (message.header.scope, message.header.kind) = (RouteScope::NoWhere, RouteType::Unspec);
    M::DelRoute(message)
}

fn ask(lab: &Lab, message: M) {
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    lab.within(A, || exchange(message, flags)).unwrap();
}

/// CTR-13, NET-12
#[test]
fn whatever_of_ours_is_struck_inside_a_container_heals_and_what_is_its_own_stays() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(1);
    let veths = [veth(&lab, A, 5), veth(&lab, B, 6)];
    let wanted = edge_of(&veths);
    mend(&lab, &wanted);
    assert_eq!(mend(&lab, &wanted), []);
    // A link, a route, an address and a neighbour of the container's own.
    lab.foreign(A);
    let others = |lab: &Lab| {
        ask(lab, M::NewAddress(address(lab, "other", OWN.into())));
        ask(lab, M::NewNeighbour(neighbour(lab, OWN.into(), Mac([2; 6]))));
    };
    others(&lab);
    let healthy = lab.everything(A);
    assert_eq!(mend(&lab, &wanted), [], "what a container has of its own is no drift");
    let stranger = Mac([2, 0, 0, 0, 0, 9]);
    let v6_gateway = neighbour(&lab, GATEWAY_V6.into(), stranger);
    type Blow<'a> = (&'a str, Box<dyn Fn(&Lab) + 'a>);
    let blow = |object, blow: fn(&Lab)| -> Blow<'_> { (object, Box::new(blow)) };
    let blows: Vec<Blow<'_>> = vec![
        ("address", Box::new(|lab| ask(lab, M::DelAddress(address(lab, END, addresses(&veths[0])[0]))))),
        ("address", Box::new(|lab| ask(lab, M::DelAddress(address(lab, END, addresses(&veths[0])[1]))))),
        blow("link", |lab| lab.set(A, END, LinkFlags::empty(), vec![])),
        blow("link", |lab| lab.set(A, END, LinkFlags::Up, vec![LinkAttribute::Mtu(1300)])),
        blow("route", |lab| {
            ask(lab, no_default_route(lab, false, END));
        }),
        blow("route", |lab| ask(lab, no_default_route(lab, true, END))),
        blow("route", |lab| ask(lab, M::NewRoute(default_route(lab, false, END, RouteProtocol::Boot)))),
        blow("route", |lab| ask(lab, M::NewRoute(default_route(lab, true, END, RouteProtocol::Boot)))),
        blow("neighbour", |lab| {
            ask(lab, M::DelNeighbour(neighbour(lab, GATEWAY_V4.into(), Mac([0; 6]))));
        }),
        ("neighbour", Box::new(|lab| ask(lab, M::NewNeighbour(v6_gateway.clone())))),
    ];
    for (number, (object, strike)) in blows.iter().enumerate() {
        strike(&lab);
        let mended = mend(&lab, &wanted);
        assert!(mended.iter().any(|change| change.object() == *object), "{number} {object}: {mended:?}");
        assert_eq!(mend(&lab, &wanted), [], "{number} {object} is not healed by one plan");
        for (there, here) in addresses(&veths[1]).into_iter().zip(addresses(&veths[0])) {
            assert_eq!(lab.tcp(A, B, there), here);
        }
        // With the link that goes down the kernel takes the neighbour that somebody else put there.
        others(&lab);
        assert_eq!(lab.everything(A), healthy, "after blow {number}, {object}");
    }
}

/// CTR-13
#[test]
fn an_end_that_is_another_one_or_elsewhere_is_made_anew() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(1);
    let veths = [veth(&lab, A, 5), veth(&lab, B, 6)];
    let wanted = edge_of(&veths);
    mend(&lab, &wanted);
    let elsewhere = std::fs::File::open(lab.add("elsewhere")).unwrap();
    let attributes = [
        LinkAttribute::Address(vec![2, 0, 0, 0, 0, 9]),
        LinkAttribute::IfName("renamed".to_owned()),
        LinkAttribute::NetNsFd(std::os::fd::AsRawFd::as_raw_fd(&elsewhere)),
    ];
    for attribute in attributes {
        lab.set(A, END, LinkFlags::empty(), vec![]);
        lab.set(A, END, LinkFlags::empty(), vec![attribute.clone()]);
        let kinds: Vec<_> = mend(&lab, &wanted).iter().map(Change::object).collect();
        assert!(kinds.contains(&"link"), "{attribute:?}: {kinds:?}");
        assert_eq!(mend(&lab, &wanted), [], "{attribute:?}");
        for (there, here) in addresses(&veths[1]).into_iter().zip(addresses(&veths[0])) {
            assert_eq!(lab.tcp(A, B, there), here);
        }
    }
    assert!(lab.within("elsewhere", || nix::net::if_::if_nametoindex(END)).is_err(), "the old pair is gone");
}

/// A container may leave by a tunnel of its own: ours comes back when that is gone, and not before.
#[test]
fn a_way_out_that_the_container_has_chosen_itself_stays() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(1);
    let wanted = edge_of(&[veth(&lab, A, 5)]);
    mend(&lab, &wanted);
    lab.foreign(A);
    for v6 in [false, true] {
        let anywhere: IpAddr = if v6 { "2001:db8:9::1".parse().unwrap() } else { [203, 0, 113, 7].into() };
        let own = || default_route(&lab, v6, "other", RouteProtocol::Static);
        ask(&lab, no_default_route(&lab, v6, END));
        ask(&lab, M::NewRoute(own()));
        assert_eq!(mend(&lab, &wanted), []);
        assert_eq!(lab.way(A, anywhere, 0), lab.index(A, "other"));
        ask(&lab, no_default_route(&lab, v6, "other"));
        assert_ne!(mend(&lab, &wanted), []);
        assert_eq!(lab.way(A, anywhere, 0), lab.index(A, END));
    }
}

/// A container that has ended, and whose links are to go with the next change, is no fault of the others.
#[test]
fn a_container_that_cannot_be_looked_into_is_left_alone() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(1);
    let veths = [veth(&lab, A, 5), veth(&lab, B, 6)];
    let wanted = edge_of(&veths);
    mend(&lab, &wanted);
    let _alive = std::fs::File::open(lab.path(A)).unwrap();
    covey_overlay_netlink::namespace::remove(&lab.path(A)).unwrap();
    assert_eq!(mend(&lab, &wanted), []);
    lab.set(B, END, LinkFlags::empty(), vec![]);
    assert_ne!(mend(&lab, &wanted), []);
    assert_eq!(mend(&lab, &wanted), []);
}

#[test]
fn a_look_into_a_hundred_containers_costs_less_than_they_did() {
    const CONTAINERS: u16 = 100;
    let Some(lab) = Lab::new() else { return };
    lab.hosts(1);
    let veths: Vec<_> =
        (1..=CONTAINERS).map(|number| veth(&lab, &format!("{number:013x}"), number)).collect();
    let wanted = edge_of(&veths);
    let start = Instant::now();
    mend(&lab, &wanted);
    let made = start.elapsed();
    let outside = lab.within("h1", || {
        let mut edge = Stack::edge(None).unwrap();
        let start = Instant::now();
        edge.observe().unwrap();
        start.elapsed()
    });
    let start = Instant::now();
    assert_eq!(mend(&lab, &wanted), []);
    let whole = start.elapsed();
    let times = format!("made in {made:?}, a look from outside {outside:?}, with all ends {whole:?}");
    if std::env::var_os("SHOW_TIMES").is_some() {
        eprintln!("{times}");
    }
    assert!(whole < made, "{times}");
}

/// CTR-03: a container that wants no IPv6 has none, on the links that it has and on new ones.
#[test]
fn a_container_without_ipv6_is_as_wanted() {
    let Some(lab) = Lab::new() else { return };
    lab.hosts(1);
    let veths = [veth(&lab, A, 5), veth(&lab, B, 6)];
    let wanted = edge_of(&veths);
    let switch_off = || std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    lab.within(A, switch_off);
    mend(&lab, &wanted);
    lab.within(B, switch_off);
    assert_eq!(mend(&lab, &wanted), []);
    let (a, b) = (veths[0].addresses.v4, veths[1].addresses.v4);
    assert_eq!(lab.tcp(A, B, b.into()), IpAddr::from(a));
}
