//! What the flow cache leaves as it is, and what it leaves to the kernel.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces and use sockets in them")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lab;

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use covey_mesh::Frontend;
use covey_overlay::mac::Mac;
use lab::{
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
    /// The container's and the router's Ethernet address.
    macs: [Mac; 2],
}

impl<'a> End<'a> {
    fn open(world: &'a World, of: &'a Container) -> Self {
        let tap = Tap::open(&world.lab, of.id, "eth1");
        let links = world.network(of.host).objects().links;
        let link = &links[&of.link()];
        let raw = Raw::open(&world.lab, of.id);
        let socket = |v6| {
            let at = SocketAddr::new(of.address(v6), PORT);
            world.lab.within(of.id, || UdpSocket::bind(at)).unwrap()
        };
        Self {
            world,
            of,
            tap,
            raw,
            _sockets: FAMILIES.map(socket),
            macs: [link.inside().unwrap().mac, link.mac],
        }
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
