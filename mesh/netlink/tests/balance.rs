//! Connections through published ports and virtual addresses of a real kernel.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces, run ip, and wait")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in what it is built of as well")]

mod lab;

use std::{
    collections::BTreeSet,
    io::{self, Write},
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use covey_mesh::{
    Backend, Balance, Frontend, Host, Network, Place, Program, Protocol, Virtual,
    object::{Change, Family, Step},
};
use covey_mesh_netlink::Nft;
use lab::{
    Lab, PATIENCE, repair,
    server::{Server, address, ask_tcp, ask_udp, read},
};

/// Where tasks listen.
const PORT: u16 = 9000;
/// Where the host is asked.
const PUBLISHED: u16 = 8080;
/// Enough for three backends to be hit by chance: one is missed once in 10^7 times.
const MANY: usize = 40;
/// How soon a refusal must be there.
const SOON: Duration = Duration::from_secs(1);

const TASKS: [(&str, [&str; 2]); 3] = [
    ("aaaa", ["100.64.1.2", "fd00:c0:0:1:a::2"]),
    ("bbbb", ["100.64.2.2", "fd00:c0:0:1:b::2"]),
    ("cccc", ["100.64.3.2", "fd00:c0:0:1:c::2"]),
];
const OUTSIDE: [&str; 2] = ["10.20.0.2", "fd20::2"];
const HOST: [&str; 2] = ["10.20.0.1", "fd20::1"];

/// A host with three tasks, a client outside of it, and a program that nothing is published in.
struct World {
    lab: Lab,
    /// They answer as long as the world is there.
    _servers: Vec<Server>,
    nft: Nft,
    program: Program,
}

impl World {
    fn new(place: Place) -> Option<Self> {
        let of = |name, link, v4, v6| lab::Place { name, link, v4, v6 };
        let lab = Lab::star(&[
            of("aaaa", "cvaaaa", "100.64.1", "fd00:c0:0:1:a"),
            of("bbbb", "cvbbbb", "100.64.2", "fd00:c0:0:1:b"),
            of("cccc", "cvcccc", "100.64.3", "fd00:c0:0:1:c"),
            of("outside", "out0", "10.20.0", "fd20:0:0:0:0"),
        ])?;
        lab.run("host", "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet");
        let servers = TASKS.map(|(name, _)| Server::start(&lab, name, PORT)).into();
        let (mut nft, program) = (lab.nft(), Program::new(place));
        repair(&mut nft, &program);
        // Links need a moment until they carry.
        for (name, addresses) in TASKS {
            for to in addresses {
                let found = ask_udp(
                    &lab.udp("host", if to.contains(':') { "::" } else { "0.0.0.0" }, 0),
                    SocketAddr::new(address(to), PORT),
                );
                assert!(found.unwrap().starts_with(name));
            }
        }
        Some(Self { lab, _servers: servers, nft, program })
    }

    fn host() -> Option<Self> {
        let block = |block: &str| block.parse().unwrap();
        Self::new(Place::Host(Host {
            blocks: [block("100.64.0.0/16"), block("fd00:c0:0:1::/64")].into(),
            inside: "cv".to_owned(),
            bridged: [].into(),
            edge: None,
        }))
    }

    /// Puts these tasks behind it, of the frontend's family.
    fn put(&mut self, frontend: Frontend, balance: Balance, tasks: &[usize]) {
        let family = usize::from(frontend.address().is_ipv6());
        let port = matches!(frontend, Frontend::Port { .. }).then_some(PORT);
        let backend = |task: &usize| Backend { address: address(TASKS[*task].1[family]), port };
        let service = Virtual { balance, backends: tasks.iter().map(backend).collect() };
        let changes = self.program.set(frontend, Some(service));
        self.nft.apply(&changes).unwrap();
    }

    /// Asks by TCP or UDP, each time as a new connection.
    fn ask(&self, protocol: Protocol, from: &str, to: SocketAddr) -> io::Result<String> {
        match protocol {
            Protocol::Udp => {
                let own = if to.is_ipv4() { "0.0.0.0" } else { "::" };
                ask_udp(&self.lab.udp(from, own, 0), to)
            }
            _ => ask_tcp(&self.lab, from, to),
        }
    }

    fn asked(&self, protocol: Protocol, from: &str, to: SocketAddr, times: usize) -> Vec<String> {
        (0..times).map(|_| self.ask(protocol, from, to).unwrap()).collect()
    }
}

fn port(any: &str, protocol: Protocol) -> Frontend {
    Frontend::Port { address: address(any), protocol, port: PUBLISHED }
}

fn at(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address(host), port)
}

fn all_of(answers: &[String]) -> BTreeSet<&str> {
    answers.iter().map(String::as_str).collect()
}

/// PRT-05, LB-04, LB-05
#[test]
fn a_published_port_reaches_every_backend_and_each_sees_the_client() {
    let Some(mut world) = World::host() else { return };
    for (family, any) in ["0.0.0.0", "::"].into_iter().enumerate() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            world.put(port(any, protocol), Balance::Random, &[0, 1, 2]);
            let answers = world.asked(protocol, "outside", at(HOST[family], PUBLISHED), MANY);
            let expected = TASKS.map(|(name, _)| format!("{name} {}", OUTSIDE[family]));
            assert_eq!(all_of(&answers), expected.iter().map(String::as_str).collect(), "{protocol:?} {any}");
            let own = world.asked(protocol, "host", at(HOST[family], PUBLISHED), MANY);
            assert_eq!(own.len(), MANY, "the host itself, by its own address");
            // A task may reach itself; it sees the host then.
            let task = world.asked(protocol, "aaaa", at(HOST[family], PUBLISHED), MANY);
            let names: BTreeSet<_> = task.iter().map(|answer| &answer[..4]).collect();
            assert_eq!(names, BTreeSet::from(["aaaa", "bbbb", "cccc"]), "{protocol:?} {any}");
        }
    }
    let local = world.asked(Protocol::Tcp, "host", at("127.0.0.1", PUBLISHED), MANY);
    assert!(all_of(&local).len() == 3, "{local:?}");
    let begun = Instant::now();
    let refused = world.ask(Protocol::Tcp, "host", at("::1", PUBLISHED)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "clients go on to 127.0.0.1");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(world.ask(Protocol::Tcp, "outside", at(HOST[0], PORT)).is_err(), "only what is published");
    assert_eq!(repair(&mut world.nft, &world.program), [], "and the kernel has what was said");
}

/// PRT-05
#[test]
fn a_port_of_one_address_is_found_before_that_of_any() {
    let Some(mut world) = World::host() else { return };
    world.put(port("0.0.0.0", Protocol::Tcp), Balance::Random, &[0]);
    world.put(port(HOST[0], Protocol::Tcp), Balance::Random, &[1]);
    let from_outside = world.ask(Protocol::Tcp, "outside", at(HOST[0], PUBLISHED)).unwrap();
    assert!(from_outside.starts_with("bbbb"), "{from_outside}");
    let elsewhere = world.ask(Protocol::Tcp, "cccc", at("100.64.3.1", PUBLISHED)).unwrap();
    assert!(elsewhere.starts_with("aaaa"), "{elsewhere}");
}

/// PRT-05
#[test]
fn a_container_reaches_no_loopback_service_of_the_host() {
    let Some(mut world) = World::host() else { return };
    let kernel = "for of in all default eth0; do echo 1 >$of/route_localnet; echo 0 >$of/rp_filter; done";
    world.lab.run("aaaa", &format!("cd /proc/sys/net/ipv4/conf; {kernel}"));
    // What a raw packet does on any container's behalf: its own loopback is out of the way.
    let own = "ip addr flush dev lo scope host; ip link set lo down; ip addr add 127.0.0.9/32 dev eth0
        ip route add 127.0.0.1/32 via 100.64.1.1 dev eth0 src 100.64.1.2";
    world.lab.run("aaaa", own);
    let guarded = world.lab.udp("host", "127.0.0.1", 0);
    let open = world.lab.udp("host", "100.64.1.1", 0);
    let (client, pretender) = (world.lab.udp("aaaa", "100.64.1.2", 0), world.lab.udp("aaaa", "127.0.0.9", 0));
    let attack = || {
        client.send_to(b"?", guarded.local_addr().unwrap()).unwrap();
        pretender.send_to(b"!", open.local_addr().unwrap()).unwrap();
        // It takes the same way behind the others.
        client.send_to(b".", open.local_addr().unwrap()).unwrap();
    };
    let heard = |socket: &UdpSocket| {
        let mut word = [0];
        let next = || socket.recv(&mut word).ok().map(|_| word[0]);
        std::iter::from_fn(next).collect::<Vec<_>>()
    };
    repair(&mut world.nft, &Program::default());
    attack();
    assert_eq!((heard(&guarded), heard(&open)), (b"?".to_vec(), b"!.".to_vec()), "the kernel lets them");
    repair(&mut world.nft, &world.program);
    attack();
    assert_eq!((heard(&open), heard(&guarded)), (b".".to_vec(), Vec::new()));
}

/// LB-05
#[test]
fn round_robin_takes_turns_and_a_source_sticks() {
    let Some(mut world) = World::host() else { return };
    world.put(port("0.0.0.0", Protocol::Tcp), Balance::RoundRobin, &[0, 1, 2]);
    let answers = world.asked(Protocol::Tcp, "outside", at(HOST[0], PUBLISHED), 9);
    for three in answers.windows(3) {
        assert_eq!(all_of(three).len(), 3, "{answers:?}");
    }
    world.put(port("0.0.0.0", Protocol::Udp), Balance::SourceHash, &[0, 1, 2]);
    let mut found = BTreeSet::new();
    for last in 100..140 {
        let own = format!("10.20.0.{last}");
        world.lab.run("outside", &format!("ip addr add {own}/24 dev eth0"));
        let ask = || ask_udp(&world.lab.udp("outside", &own, 0), at(HOST[0], PUBLISHED)).unwrap();
        let first = ask();
        assert!((0..5).all(|_| ask() == first), "{own} went elsewhere");
        found.insert(first[..4].to_owned());
    }
    assert_eq!(found.len(), 3, "all clients stick to the same: {found:?}");
}

/// LB-07
#[test]
fn a_backend_that_somebody_removed_by_hand_is_stepped_over() {
    let Some(mut world) = World::host() else { return };
    for balance in Balance::ALL {
        world.put(port("0.0.0.0", Protocol::Tcp), balance, &[0, 1, 2]);
        let backends = &world.program.tables()[&Family::Inet].maps["anyport4-backend"].elements;
        let last =
            backends.keys().max_by_key(|key| key.last_chunk::<4>().map(|slot| u32::from_ne_bytes(*slot)));
        let step = Step::DeleteElement("anyport4-backend".to_owned(), last.unwrap().clone());
        world.nft.apply(&[Change { family: Family::Inet, step }]).unwrap();
        let answers = world.asked(Protocol::Tcp, "outside", at(HOST[0], PUBLISHED), MANY);
        assert!(answers.iter().all(|answer| !answer.starts_with("cccc")), "{balance:?}: {answers:?}");
        assert_eq!(repair(&mut world.nft, &world.program).len(), 1);
    }
}

/// LB-02, LB-03
#[test]
fn a_virtual_address_reaches_every_task_also_the_one_that_asks() {
    let own = TASKS.iter().flat_map(|(_, own)| own.iter().map(|own| address(own))).collect();
    let Some(mut world) = World::new(Place::Network(Network { own, outside: "cvx".to_owned() })) else {
        return;
    };
    for (family, vip) in ["10.30.100.1", "fd30::1"].into_iter().enumerate() {
        world.put(Frontend::Address(address(vip)), Balance::Random, &[0, 1, 2]);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let answers = world.asked(protocol, "aaaa", at(vip, PORT), MANY);
            // A task that reaches itself sees the virtual address on the other side.
            let own = TASKS[0].1[family];
            let expected = [format!("aaaa {vip}"), format!("bbbb {own}"), format!("cccc {own}")];
            assert_eq!(all_of(&answers), expected.iter().map(String::as_str).collect(), "{protocol:?}");
        }
        world.lab.run("host", &format!("ip route add local {vip} dev lo"));
        assert!(world.ask(Protocol::Tcp, "host", at(vip, PORT)).is_ok(), "the router itself");
    }
}

/// LB-07
#[test]
fn clients_of_a_virtual_address_without_backends_are_refused_at_once() {
    let Some(mut world) = World::new(Place::Network(Network { own: [].into(), outside: "cvx".to_owned() }))
    else {
        return;
    };
    for vip in ["10.30.100.1", "fd30::1"] {
        world.put(Frontend::Address(address(vip)), Balance::Random, &[]);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let begun = Instant::now();
            let refused = world.ask(protocol, "aaaa", at(vip, PORT)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{protocol:?} {vip}");
            assert!(begun.elapsed() < SOON, "{protocol:?} {vip}: {:?}", begun.elapsed());
        }
    }
}

/// LB-07
#[test]
fn no_new_connection_fails_while_backends_come_and_go() {
    let Some(mut world) = World::host() else { return };
    let front = port("0.0.0.0", Protocol::Tcp);
    world.put(front, Balance::Random, &[0, 1, 2]);
    let (enough, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let lab = &world.lab;
        let client = scope.spawn(|| {
            let work = || {
                while !enough.load(Ordering::Relaxed) {
                    let stream = std::net::TcpStream::connect_timeout(&at(HOST[0], PUBLISHED), PATIENCE)?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    read(&stream)?;
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            };
            lab.inside("outside", work)
        });
        let (mut nft, mut program) = (world.lab.nft(), world.program.clone());
        let sets: [&[usize]; 6] = [&[0, 1], &[1], &[1, 2], &[2, 0], &[0, 1, 2], &[2]];
        let mut changes = 0;
        for set in sets.into_iter().cycle() {
            let backends =
                set.iter().map(|task| Backend { address: address(TASKS[*task].1[0]), port: Some(PORT) });
            let service = Virtual { balance: Balance::Random, backends: backends.collect() };
            nft.apply(&program.set(front, Some(service))).unwrap();
            changes += 1;
            if changes > 1000 && asked.load(Ordering::Relaxed) > 300 || client.is_finished() {
                break;
            }
        }
        enough.store(true, Ordering::Relaxed);
        client.join().unwrap().unwrap();
        world.program = program;
    });
    assert!(asked.load(Ordering::Relaxed) > 300);
    assert_eq!(repair(&mut world.nft, &world.program), []);
}

/// LB-07
#[test]
fn flows_to_a_removed_backend_are_cut_and_others_stay() {
    let Some(mut world) = World::host() else { return };
    for (family, any, crowd) in [(0, "0.0.0.0", 0), (0, "0.0.0.0", 9), (1, "::", 0), (1, "::", 9)] {
        let to = at(HOST[family], PUBLISHED);
        let mut conntrack = world.lab.conntrack();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            world.put(port(any, protocol), Balance::Random, &[0]);
        }
        let stream = world.lab.connect("outside", to).unwrap();
        assert!(read(&stream).unwrap().starts_with("aaaa"));
        let datagrams = world.lab.udp("outside", if family == 0 { "0.0.0.0" } else { "::" }, 0);
        assert!(ask_udp(&datagrams, to).unwrap().starts_with("aaaa"));

        for protocol in [Protocol::Tcp, Protocol::Udp] {
            world.put(port(any, protocol), Balance::Random, &[1]);
        }
        let again = |mut stream: &std::net::TcpStream| stream.write_all(b"?").and_then(|()| read(stream));
        assert!(again(&stream).unwrap().starts_with("aaaa"), "draining: established ones stay");
        assert!(ask_udp(&datagrams, to).unwrap().starts_with("aaaa"), "and UDP sticks");

        let gone = address(TASKS[0].1[family]);
        conntrack.flush(&[address(TASKS[1].1[family])].into()).unwrap();
        let went_on = again(&stream);
        assert!(went_on.is_ok(), "others were meant: {went_on:?}");
        assert!(ask_udp(&datagrams, to).unwrap().starts_with("aaaa"), "others were meant");
        // Of few the kernel is asked for each, of many for all connections.
        let others = (0..crowd).map(|n| address(&format!("{}{n}", ["192.0.2.", "2001:db8::"][family])));
        conntrack.flush(&others.chain([gone]).collect()).unwrap();
        assert!(ask_udp(&datagrams, to).unwrap().starts_with("bbbb"), "UDP goes on elsewhere");
        let begun = Instant::now();
        let cut = again(&stream).unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::ConnectionReset);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        conntrack.flush(&[gone].into()).unwrap();
    }
}

/// LB-07
#[test]
fn datagrams_sent_while_nobody_was_there_do_not_keep_a_client_from_the_next_backend() {
    let Some(mut world) = World::host() else { return };
    for (family, any) in ["0.0.0.0", "::"].into_iter().enumerate() {
        let to = at(HOST[family], PUBLISHED);
        let mut conntrack = world.lab.conntrack();
        let client = world.lab.udp("outside", any, 0);
        let refused = ask_udp(&client, to).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        world.put(port(any, Protocol::Udp), Balance::Random, &[0]);
        conntrack
            .forget_unserved(&[(Protocol::Udp, PUBLISHED + 1), (Protocol::Tcp, PUBLISHED)].into())
            .unwrap();
        assert!(ask_udp(&client, to).is_err(), "others were meant");
        conntrack.forget_unserved(&[(Protocol::Udp, PUBLISHED)].into()).unwrap();
        assert!(ask_udp(&client, to).unwrap().starts_with("aaaa"));
        world.put(port(any, Protocol::Udp), Balance::Random, &[1]);
        conntrack.forget_unserved(&[(Protocol::Udp, PUBLISHED)].into()).unwrap();
        assert!(ask_udp(&client, to).unwrap().starts_with("aaaa"), "who is served stays");
    }
}
