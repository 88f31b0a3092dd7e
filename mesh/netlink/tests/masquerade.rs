//! The way out: what packets show, in a real kernel.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces, run ip, and wait")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in what it is built of as well")]

mod lab;

use std::{
    collections::BTreeSet,
    io::{self, Write},
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use covey_mesh::{Backend, Balance, Frontend, Host, Place, Program, Protocol, Virtual};
use lab::{
    Lab, PATIENCE, repair,
    server::{Server, address, ask_tcp, ask_udp, read},
};

const PUBLISHED: u16 = 8080;
const PORT: u16 = 9000;

/// Connections made while rules are replaced all the time.
const FLOWS: usize = 300;

fn program(blocks: &[&str]) -> Program {
    let blocks = blocks.iter().map(|block| block.parse().unwrap()).collect();
    Program::new(Place::Host(Host { blocks, inside: "cv".to_owned(), ..Host::default() }))
}

/// Two containers of the block and one of another, a host, and the world behind it.
fn world() -> Option<Lab> {
    let of = |name, link, v4, v6| lab::Place { name, link, v4, v6 };
    Lab::star(&[
        of("aaaa", "cvaaaa", "100.64.1", "fd00:c0:0:1:a"),
        of("bbbb", "cvbbbb", "100.64.2", "fd00:c0:0:1:b"),
        of("other", "cvother", "100.65.1", "fd00:c1:0:1:c"),
        of("outside", "out0", "10.20.0", "fd20:0:0:0:0"),
    ])
}

/// CTR-11, NET-05
#[test]
fn packets_of_the_block_go_out_under_the_address_of_the_host_and_nothing_else_does() {
    let Some(lab) = world() else { return };
    let mut nft = lab.nft();
    let seen = |from, to| {
        let own = |name| match name {
            "aaaa" => ["100.64.1.2", "fd00:c0:0:1:a::2"],
            "bbbb" => ["100.64.2.2", "fd00:c0:0:1:b::2"],
            "other" => ["100.65.1.2", "fd00:c1:0:1:c::2"],
            _ => ["10.20.0.2", "fd20::2"],
        };
        [0, 1].map(|family| lab.seen((from, own(from)[family]), (to, own(to)[family])))
    };
    let (own, host) = (["100.64.1.2", "fd00:c0:0:1:a::2"], ["10.20.0.1", "fd20::1"]);
    assert_eq!(seen("aaaa", "outside"), own, "nothing is translated yet");
    repair(&mut nft, &program(&["100.64.0.0/16", "fd00:c0:0:1::/64"]));
    assert_eq!(seen("aaaa", "outside"), host, "out of the host");
    assert_eq!(seen("bbbb", "outside"), host, "out of the host");
    assert_eq!(seen("other", "outside"), ["100.65.1.2", "fd00:c1:0:1:c::2"], "not of the block");
    assert_eq!(seen("outside", "other"), ["10.20.0.2", "fd20::2"], "from outside");
    repair(&mut nft, &Program::default());
    assert_eq!(seen("aaaa", "outside"), own, "nothing is translated any more");
}

/// Whether `from` reaches a listener of `to`; if not, it is told at once.
fn reaches(lab: &Lab, from: &str, to: &str, address: &str) -> bool {
    let listener = lab.listen(to, address, 0);
    match lab.connect(from, listener.local_addr().unwrap()) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{from} to {address}: {error}");
            false
        }
    }
}

/// NET-05, NET-18
#[test]
fn containers_reach_each_other_by_their_addresses_at_the_edge_only_where_both_are_open() {
    let Some(lab) = world() else { return };
    let mut nft = lab.nft();
    let blocks = ["100.64.0.0/16", "fd00:c0:0:1::/64"].map(|block| block.parse().unwrap());
    for (to, address, from, own) in [
        ("aaaa", "100.64.1.2", "bbbb", "100.64.2.2"),
        ("aaaa", "fd00:c0:0:1:a::2", "bbbb", "fd00:c0:0:1:b::2"),
    ] {
        for (bridged, open) in
            [(vec![], false), (vec![address], false), (vec![own], false), (vec![address, own], true)]
        {
            let bridged = bridged.iter().map(|address| address.parse().unwrap()).collect();
            let host = Host { blocks: blocks.into(), inside: "cv".to_owned(), bridged, edge: None };
            repair(&mut nft, &Program::new(Place::Host(host)));
            assert_eq!(reaches(&lab, from, to, address), open, "{address}");
            assert!(reaches(&lab, "host", to, address), "the host itself reaches {address}");
        }
    }
    assert!(reaches(&lab, "aaaa", "host", "100.64.1.1"), "a container reaches its host");
    assert!(reaches(&lab, "aaaa", "outside", "10.20.0.2"), "and the world");
    assert!(!reaches(&lab, "other", "aaaa", "100.64.1.2"), "a container of another block");
}

/// NET-18, PRT-05
#[test]
fn whoever_has_a_route_to_containers_reaches_only_their_published_ports() {
    let Some(lab) = world() else { return };
    let mut nft = lab.nft();
    let _server = Server::start(&lab, "aaaa", PORT);
    let families = [
        ("0.0.0.0", "10.20.0.2", "10.20.0.1", "100.64.1.1", "100.64.1.2"),
        ("::", "fd20::2", "fd20::1", "fd00:c0:0:1:a::1", "fd00:c0:0:1:a::2"),
    ];
    let mut program = program(&["100.64.0.0/16", "fd00:c0:0:1::/64"]);
    for (any, _, _, _, container) in families {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let front = Frontend::Port { address: address(any), protocol, port: PUBLISHED };
            let backends = vec![Backend { address: address(container), port: Some(PORT) }];
            program.set(front, Some(Virtual { balance: Balance::Random, backends }));
        }
    }
    repair(&mut nft, &self::program(&[]));
    let of_before = families.map(|(_, own, _, _, container)| {
        let stream = lab.connect("outside", SocketAddr::new(address(container), PORT)).unwrap();
        assert_eq!(read(&stream).unwrap(), format!("aaaa {own}"), "nobody is kept out yet");
        stream
    });
    repair(&mut nft, &program);
    for (_, own, host, beside, container) in families {
        let ask = |from, own, to, port| {
            let to = SocketAddr::new(address(to), port);
            [ask_tcp(&lab, from, to), ask_udp(&lab.udp(from, own, 0), to)]
        };
        for port in [PORT, PUBLISHED] {
            for refused in ask("outside", own, container, port) {
                let error = refused.expect_err(container);
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{container}, {port}: {error}");
            }
        }
        for (from, own, to, port) in [
            ("outside", own, host, PUBLISHED),
            ("host", beside, container, PORT),
            ("host", beside, beside, PUBLISHED),
        ] {
            for answer in ask(from, own, to, port) {
                assert_eq!(answer.unwrap(), format!("aaaa {own}"), "{from} to {to}, {port}");
            }
        }
    }
    assert!(
        reaches(&lab, "host", "host", "100.64.1.1"),
        "the host's own listener, by its address among them"
    );
    assert!(reaches(&lab, "host", "host", "fd00:c0:0:1:a::1"), "likewise");
    for (mut stream, (_, own, ..)) in of_before.iter().zip(families) {
        stream.write_all(b"?").unwrap();
        assert_eq!(read(stream).unwrap(), format!("aaaa {own}"), "a connection of before goes on");
    }
}

/// NET-05
#[test]
fn what_a_container_sends_from_an_address_that_is_not_its_own_is_dropped() {
    let Some(lab) = world() else { return };
    let mut nft = lab.nft();
    lab.run("aaaa", "ip addr add fd00:c0:0:1:b::9 dev eth0 nodad");
    let (foreign, own) = (lab.udp("aaaa", "fd00:c0:0:1:b::9", 0), lab.udp("aaaa", "fd00:c0:0:1:a::2", 0));
    let server = lab.udp("outside", "fd20::2", 0);
    let arrives = |packet: &[u8], sender: &UdpSocket| {
        let (mut buffer, begun) = ([0; 8], Instant::now());
        while begun.elapsed() < PATIENCE {
            sender.send_to(packet, server.local_addr().unwrap()).unwrap();
            if let Ok((length, _)) = server.recv_from(&mut buffer) {
                assert_ne!(&buffer[..length], b"foreign");
                if &buffer[..length] == packet {
                    return;
                }
            }
        }
        panic!("nothing arrives");
    };
    arrives(b"before", &foreign);
    repair(&mut nft, &program(&["100.64.0.0/16", "fd00:c0:0:1::/64"]));
    foreign.send_to(b"foreign", server.local_addr().unwrap()).unwrap();
    // They take the same way, in turn.
    arrives(b"own", &own);
}

/// CTR-11, NET-05
#[test]
fn no_packet_slips_through_while_rules_are_replaced() {
    let Some(lab) = world() else { return };
    let mut nft = lab.nft();
    let states = [program(&["100.64.0.0/16"]), program(&["100.64.1.0/24", "100.66.0.0/16"])];
    repair(&mut nft, &states[1]);
    let enough = AtomicBool::new(false);
    let (seen, replaced) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut wanted, mut replaced) = (states.iter().cycle(), 0);
            while !enough.load(Ordering::Relaxed) {
                replaced += repair(&mut nft, wanted.next().unwrap()).len();
            }
            replaced
        });
        let seen: BTreeSet<_> =
            (0..FLOWS).map(|_| lab.seen(("aaaa", "100.64.1.2"), ("outside", "10.20.0.2"))).collect();
        enough.store(true, Ordering::Relaxed);
        (seen, writer.join().unwrap())
    });
    assert_eq!(seen, BTreeSet::from(["10.20.0.1".to_owned()]));
    assert!(replaced > 10, "only {replaced} times replaced");
}
