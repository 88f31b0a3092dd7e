//! What the flow cache leaves as it is, and what it leaves to the kernel.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces and use sockets in them")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lab;

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use covey_mesh::{Frontend, Protocol};
use covey_overlay::mac::Mac;
use lab::{
    PATIENCE,
    frames::{DATAGRAM, Kind, Packet, Raw, Tap, in_ethernet, send_vxlan},
    routers::{VNI, local},
    world::*,
};
use nix::sys::socket::{
    setsockopt,
    sockopt::{Ipv4Tos, Ipv6TClass},
};

/// For what never comes.
const UNHEARD: Duration = Duration::from_millis(150);
const PORT: u16 = 7000;
/// Congestion experienced, and a transport that knows what that is (RFC 3168).
const CE: u8 = 3;
const ECT: u8 = 2;

/// A container's link in the overlay network.
struct End<'a> {
    world: &'a World,
    of: &'a Container,
    tap: Tap,
    raw: Raw,
    /// Nobody is told that nobody is there.
    _sockets: [UdpSocket; 2],
}

impl<'a> End<'a> {
    fn open(world: &'a World, of: &'a Container) -> Self {
        let tap = Tap::open(&world.lab, of.id, "eth1");
        let raw = Raw::open(&world.lab, of.id);
        let socket = |v6| {
            let at = SocketAddr::new(of.address(v6), PORT);
            world.lab.within(of.id, || UdpSocket::bind(at)).unwrap()
        };
        Self { world, of, tap, raw, _sockets: FAMILIES.map(socket) }
    }

    fn at(&self, v6: bool) -> SocketAddr {
        (self.of.address(v6), PORT).into()
    }

    fn send(&self, packet: &Packet) {
        self.raw.send(packet);
    }

    /// The packet with this payload that came from another one.
    fn gets(&self, payload: &[u8]) -> Option<Packet> {
        let own = [false, true].map(|v6| self.of.address(v6));
        self.tap.find(UNHEARD, |packet| own.contains(&packet.to.ip()) && packet.payload == payload)
    }

    /// Sends it over and over: what arrives is always the same, whoever carries it. Answers that.
    fn arrives(&self, packet: &Packet, at: &End<'_>) -> Packet {
        let mut seen = Vec::new();
        let mut arrive = || {
            self.send(packet);
            seen.push(at.gets(&packet.payload).expect("it arrives"));
        };
        arrive();
        self.world.is_fast(&format!("{packet:?}"), arrive);
        seen.dedup();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }
}

/// All checksums are there when frames are read, and are looked at.
///
/// LB-03
#[test]
fn checksums_are_right_after_a_translation() {
    let Some(world) = World::over(false) else { return };
    let (near, far) = (End::open(&world, &CLIENT), End::open(&world, &FAR));
    for v6 in FAMILIES {
        let service = SocketAddr::new(virtual_address(v6), PORT);
        world.serve("r1", Frontend::Address(service.ip()), &[far.at(v6)]);
        for kind in [DATAGRAM, Kind::Udp { sum: false }] {
            if v6 && kind == (Kind::Udp { sum: false }) {
                continue;
            }
            for payload in [&b"a"[..], b"", b"odd", b"even", &[0; 300], &[0xff; 301]] {
                let call = Packet::new(kind.clone(), near.at(v6), service, payload);
                let call_seen = near.arrives(&call, &far);
                let expected = Packet { from: near.at(v6), to: far.at(v6), hops: 62, ..call };
                assert_eq!(call_seen, expected);
                let answer = Packet::new(kind.clone(), far.at(v6), near.at(v6), payload);
                let expected = Packet { from: service, hops: 62, ..answer.clone() };
                assert_eq!(far.arrives(&answer, &near), expected);
            }
        }
    }
}

#[test]
fn class_of_service_and_marks_of_congestion_arrive_as_they_were_sent() {
    let Some(world) = World::over(false) else { return };
    let (near, far) = (End::open(&world, &CLIENT), End::open(&world, &FAR));
    for v6 in FAMILIES {
        for class in [0, 0, ECT, ECT, CE, CE, CE, ECT, 0xb8, 0xb8, 0xb8 | CE, 0xb8 | CE, 0, 0] {
            let packet = Packet { class, ..Packet::new(DATAGRAM, near.at(v6), far.at(v6), b"class") };
            near.send(&packet);
            assert_eq!(far.gets(b"class"), Some(Packet { hops: 62, ..packet }));
        }
    }
}

/// Host 1's socket for VXLAN packets made by hand, and where they go.
fn underlay(world: &World, from: &str, number: u8, class: u8) -> (UdpSocket, SocketAddr) {
    let socket = world.lab.udp(from, local(number, world.v6));
    if world.v6 {
        setsockopt(&socket, Ipv6TClass, &i32::from(class)).unwrap();
    } else {
        setsockopt(&socket, Ipv4Tos, &i32::from(class)).unwrap();
    }
    (socket, (local(2, world.v6), VXLAN).into())
}

fn between_routers(packet: &Packet) -> Vec<u8> {
    let [to, from] = [2, 1].map(|host| Mac::of_node([0, 0, 0, host]));
    in_ethernet(to, from, &packet.bytes())
}

/// RFC 6040
#[test]
fn a_mark_of_congestion_from_between_the_hosts_reaches_the_container() {
    for over in FAMILIES {
        let Some(world) = World::over(over) else { return };
        let far = End::open(&world, &FAR);
        for v6 in FAMILIES {
            let vni = if v6 { VNI + 2 } else { VNI };
            let from = (CLIENT.address(v6), PORT).into();
            let packet = Packet { class: ECT, ..Packet::new(DATAGRAM, from, far.at(v6), b"marked") };
            for class in [ECT, ECT, CE, CE, CE, ECT, ECT, CE] {
                let (socket, to) = underlay(&world, "h1", 1, class);
                send_vxlan(&socket, to, vni, &between_routers(&packet));
                let seen = far.gets(b"marked").expect("it arrives");
                assert_eq!(seen.class, class, "IPv6 {v6} over IPv6 {over}");
            }
        }
    }
}

/// Nobody speaks for another container, nor does a stranger for a host, even where that one is just being heard.
#[test]
fn packets_from_elsewhere_do_not_pass_for_those_of_a_flow() {
    for over in FAMILIES {
        let Some(world) = World::over(over) else { return };
        let [near, far] = [&CLIENT, &FAR].map(|of| End::open(&world, of));
        let beside = End::open(&world, &NEAR);
        for v6 in FAMILIES {
            let packet = Packet::new(DATAGRAM, near.at(v6), far.at(v6), b"true");
            near.arrives(&packet, &far);
            let spoofed = Packet { payload: b"from a neighbour".to_vec(), ..packet.clone() };
            beside.send(&spoofed);
            assert_eq!(far.gets(&spoofed.payload), None);

            let vni = if v6 { VNI + 2 } else { VNI };
            for (host, number, passes) in [("h1", 1, true), ("h4", 4, false)] {
                let (socket, to) = underlay(&world, host, number, 0);
                let packet = Packet { payload: host.as_bytes().to_vec(), ..packet.clone() };
                send_vxlan(&socket, to, vni, &between_routers(&packet));
                assert_eq!(
                    far.gets(&packet.payload).is_some(),
                    passes,
                    "from {host}, IPv6 {v6}, over IPv6 {over}"
                );
            }
        }
    }
}

#[test]
fn who_has_no_hops_left_is_told_so() {
    const TIME_EXCEEDED: [u8; 2] = [11, 3];
    let Some(world) = World::over(false) else { return };
    let [near, far] = [&CLIENT, &FAR].map(|of| End::open(&world, of));
    for v6 in FAMILIES {
        let packet = Packet::new(DATAGRAM, near.at(v6), far.at(v6), b"hops");
        near.arrives(&packet, &far);
        for hops in [1, 2] {
            near.send(&Packet { hops, payload: b"few".to_vec(), ..packet.clone() });
            let is = |packet: &Packet| packet.kind == Kind::Icmp(TIME_EXCEEDED[usize::from(v6)]);
            assert!(near.tap.find(PATIENCE, is).is_some(), "{hops} hops, IPv6 {v6}");
            assert_eq!(far.gets(b"few"), None);
        }
        near.send(&Packet { hops: 3, ..packet.clone() });
        assert_eq!(far.gets(&packet.payload).unwrap().hops, 1);
    }
}

#[test]
fn options_and_fragments_arrive_whole() {
    const NOTHING: [u8; 4] = [1, 1, 1, 0];
    for over in FAMILIES {
        let Some(world) = World::over(over) else { return };
        let [near, far] = [&CLIENT, &FAR].map(|of| End::open(&world, of));
        let packet = Packet::new(DATAGRAM, near.at(false), far.at(false), b"plain");
        near.arrives(&packet, &far);
        let packet = Packet { options: NOTHING.to_vec(), payload: b"options".to_vec(), ..packet };
        for _ in 0..3 {
            near.send(&packet);
            let seen = far.gets(&packet.payload).expect("it arrives");
            assert_eq!((seen.options, seen.hops), (packet.options.clone(), 62));
        }
        for v6 in FAMILIES {
            let (near, far) = (world.udp(&CLIENT, v6), world.udp(&FAR, v6));
            let there = far.local_addr().unwrap();
            for size in [100, 4000, 100, 4000, 1410, 1500, 30_000, 2820, 2850] {
                ask(&near, there, &[&far], &vec![size as u8; size]).unwrap();
            }
        }
    }
}

/// A container's network has room for less than what leads to a host.
#[test]
fn what_is_too_large_is_told_so_or_cut_up() {
    const PUBLISHED: u16 = 8080;
    for over in FAMILIES {
        let Some(world) = World::over(over) else { return };
        let server = world.lab.udp(FAR.id, FAR.edge(over));
        world.publish(Protocol::Udp, PUBLISHED, &[server.local_addr().unwrap()]);
        let client = world.lab.udp(OUTSIDE, local(4, over));
        let to = SocketAddr::new(local(1, over), PUBLISHED);
        for _ in 0..3 {
            ask(&client, to, &[&server], b"small").unwrap();
        }
        let largest = vec![7; if over { 1452 } else { 1472 }];
        // The first one is lost, which its sender is told; the next one is cut up by him.
        client.send_to(&largest, to).unwrap();
        let mut buffer = [0; 2000];
        server.set_nonblocking(false).unwrap();
        server.set_read_timeout(Some(UNHEARD)).unwrap();
        server.recv_from(&mut buffer).unwrap_err();
        ask(&client, to, &[&server], &largest).unwrap();
    }
}

/// A host forwards between links that are none of ours, and answers for itself, as if there were no cache.
#[test]
fn what_is_none_of_ours_is_not_carried() {
    const ROUNDS: u64 = 5;
    let Some(world) = World::over(false) else { return };
    let lab = &world.lab;
    // A network of somebody else behind host 1, and one behind a router beside it, on the same wire.
    lab.add("theirs");
    lab.join("h1", "other", "theirs", "eth0");
    for (name, link, net) in [
        ("h1", "other", "10.9.9.1/24"),
        ("theirs", "eth0", "10.9.9.2/24"),
        (OUTSIDE, "up0", "198.51.100.4/24"),
        ("h3", "up0", "198.51.100.3/24"),
        ("h1", "up0", "198.51.100.1/24"),
    ] {
        lab.address(name, link, net.parse().unwrap());
    }
    lab.route("theirs", "0.0.0.0/0", [10, 9, 9, 1].into());
    lab.route(OUTSIDE, "10.9.9.0/24", [192, 0, 2, 1].into());
    lab.route(OUTSIDE, "192.0.2.3/32", [198, 51, 100, 1].into());
    for (from, own, there, at) in [
        (OUTSIDE, [192, 0, 2, 4], "theirs", [10, 9, 9, 2]),
        (OUTSIDE, [198, 51, 100, 4], "h3", [192, 0, 2, 3]),
    ] {
        let (near, far) = (lab.udp(from, own.into()), lab.udp(there, at.into()));
        let to = far.local_addr().unwrap();
        for _ in 0..3 {
            ask(&near, to, &[&far], b"theirs").unwrap();
        }
        let count = || lab.forwarded("h1");
        let before = count();
        for _ in 0..ROUNDS {
            ask(&near, to, &[&far], b"theirs").unwrap();
        }
        assert!(count() >= before + ROUNDS, "{there}");
    }
    // Of the host itself.
    let (near, far) = (lab.udp(OUTSIDE, [192, 0, 2, 4].into()), lab.udp("h1", [192, 0, 2, 1].into()));
    for _ in 0..ROUNDS {
        ask(&near, far.local_addr().unwrap(), &[&far], b"its own").unwrap();
    }
}

/// LB-03
#[test]
fn who_calls_a_port_that_was_closed_is_told_so() {
    let Some(world) = World::over(false) else { return };
    for v6 in FAMILIES {
        world.serve("r1", Frontend::Address(virtual_address(v6)), &[SocketAddr::new(FAR.address(v6), 0)]);
        for to in [virtual_address(v6), FAR.address(v6)] {
            let (near, far) = (world.udp(&CLIENT, v6), world.udp(&FAR, v6));
            let there = SocketAddr::new(to, far.local_addr().unwrap().port());
            near.connect(there).unwrap();
            for _ in 0..3 {
                ask(&near, there, &[&far], b"call").unwrap();
            }
            drop(far);
            near.send(b"call").unwrap();
            let error = near.recv(&mut [0; 10]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{there}");
        }
    }
}

/// A host sends VXLAN for its containers, and none that they have made: it would leave under the host's address.
///
/// NET-18
#[test]
fn a_container_sends_no_vxlan() {
    for over in FAMILIES {
        let Some(world) = World::over(over) else { return };
        let far = End::open(&world, &FAR);
        let socket = world.lab.udp(CLIENT.id, CLIENT.edge(over));
        for v6 in FAMILIES {
            let vni = if v6 { VNI + 2 } else { VNI };
            let from = (NEAR.address(v6), PORT).into();
            let packet = Packet::new(DATAGRAM, from, far.at(v6), b"by a container");
            for _ in 0..3 {
                send_vxlan(&socket, (local(2, over), VXLAN).into(), vni, &between_routers(&packet));
                assert_eq!(far.gets(&packet.payload), None, "IPv6 {v6} over IPv6 {over}");
            }
        }
    }
}
