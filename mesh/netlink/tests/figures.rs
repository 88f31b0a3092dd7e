//! What programs cost in a real kernel. Prints figures; run it alone:
//! `cargo test --release -p covey-mesh-netlink --test figures -- --ignored --nocapture`.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces, and read the clock")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in what it is built of as well")]

mod lab;

use std::{
    io,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use covey_mesh::{Backend, Balance, Frontend, Host, Place, Program, Protocol, Virtual, plan};
use lab::Lab;

const SERVICES: u16 = 10_000;
const BACKENDS: u8 = 3;
const CHANGES: usize = 1_000;

fn frontend(number: u16) -> Frontend {
    Frontend::Port { address: [0, 0, 0, 0].into(), protocol: Protocol::Tcp, port: 10_000 + number }
}

fn service(backends: u8) -> Option<Virtual> {
    let backend = |n| Backend { address: [100, 64, 1, n].into(), port: Some(80) };
    Some(Virtual { balance: Balance::Random, backends: (1..=backends).map(backend).collect() })
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = work();
    println!("{what}: {:?}", begun.elapsed());
    result
}

/// Whoever runs every test there is does not measure: beside others it would mean nothing.
fn is_wanted() -> bool {
    let wanted = std::env::var_os("COVEY_FIGURES").is_some();
    if !wanted {
        eprintln!("SKIPPED: a measurement; scripts/bench tables runs it");
    }
    wanted
}

/// LB-02
#[test]
#[ignore = "a measurement: COVEY_FIGURES=1, one at a time"]
fn ten_thousand_services() {
    if !is_wanted() {
        return;
    }
    let Some(lab) = Lab::new() else { return };
    let mut nft = lab.nft();
    let mut program = Program::new(Place::Host(Host { inside: "cv".to_owned(), ..Host::default() }));
    timed("say 10,000 x 3", || (0..SERVICES).for_each(|n| drop(program.set(frontend(n), service(BACKENDS)))));
    let nothing = nft.observe().unwrap();
    let changes = timed("plan from empty", || plan(&program, &nothing));
    timed("apply from empty", || nft.apply(&changes).unwrap());
    let observed = timed("observe", || nft.observe().unwrap());
    assert_eq!(timed("plan with nothing to do", || plan(&program, &observed)), []);

    for n in 0..2 {
        nft.apply(&program.set(frontend(n), service(2))).unwrap();
    }
    // One endpoint less, one more: what a task's end and start cost.
    for (what, first, second) in [("number", 2, 3), ("address", 3, 3), ("way", 4, 3)] {
        let mut took: Vec<Duration> = (0..CHANGES)
            .map(|time| {
                let mut service = service(if time % 2 == 0 { first } else { second });
                if first == second && time % 2 == 0 {
                    service.as_mut().unwrap().backends[1].address = [100, 64, 9, 9].into();
                }
                let begun = Instant::now();
                let changes = program.set(frontend(SERVICES / 2), service);
                nft.apply(&changes).unwrap();
                begun.elapsed()
            })
            .collect();
        took.sort();
        let at = |part: usize| took[CHANGES * part / 1_000];
        println!(
            "one change of the {what} of backends: median {:?}, p99 {:?}, worst {:?}",
            at(500),
            at(990),
            took[CHANGES - 1]
        );
    }
    assert_eq!(plan(&program, &nft.observe().unwrap()), []);
    let changes = plan(&Program::default(), &nft.observe().unwrap());
    timed("remove all", || nft.apply(&changes).unwrap());
}

/// How many new flows are measured at a time, and how often each way.
const FLOWS: usize = 2_000;
const PAIRS: usize = 7;

/// LB-02
#[test]
#[ignore = "a measurement: COVEY_FIGURES=1, one at a time"]
fn a_new_flow_costs_the_same_with_one_service_and_ten_thousand() {
    if !is_wanted() {
        return;
    }
    let place = |name, link, v4, v6| lab::Place { name, link, v4, v6 };
    let Some(lab) = Lab::star(&[
        place("aaaa", "cvaaaa", "100.64.1", "fd00:c0:0:1:a"),
        place("outside", "out0", "10.20.0", "fd20:0:0:0:0"),
    ]) else {
        return;
    };
    let mut nft = lab.nft();
    let server = lab.udp("aaaa", "0.0.0.0", 80);
    let echo = thread::spawn(move || {
        let mut buffer = [0; 8];
        while let Ok((_, client)) = server.recv_from(&mut buffer).or_else(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Ok((0, ([127, 0, 0, 1], 9).into())),
            _ => Err(error),
        }) {
            let _ = server.send_to(b"!", client);
            if buffer[0] == b'.' {
                return;
            }
        }
    });
    let programs = [1, SERVICES].map(|services| {
        let mut program = Program::new(Place::Host(Host { inside: "cv".to_owned(), ..Host::default() }));
        for n in 0..services {
            let front =
                Frontend::Port { address: [0, 0, 0, 0].into(), protocol: Protocol::Udp, port: 10_000 + n };
            let backend = Backend { address: [100, 64, 1, 2].into(), port: Some(80) };
            program.set(
                front,
                Some(Virtual { balance: Balance::Random, backends: vec![backend; BACKENDS.into()] }),
            );
        }
        program
    });
    let flow = |word: &[u8]| {
        let client = UdpSocket::bind("0.0.0.0:0")?;
        client.set_read_timeout(Some(lab::PATIENCE))?;
        client.send_to(word, "10.20.0.1:10000")?;
        client.recv(&mut [0; 8])
    };
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..PAIRS {
        for (program, took) in programs.iter().zip(&mut took) {
            lab::repair(&mut nft, program);
            lab.conntrack().flush(&[[100, 64, 1, 2].into()].into()).unwrap();
            let measured = lab.inside("outside", || {
                (0..FLOWS)
                    .map(|_| {
                        let begun = Instant::now();
                        flow(b"?").map(|_| begun.elapsed())
                    })
                    .collect::<io::Result<Vec<_>>>()
            });
            let mut measured = measured.unwrap();
            measured.sort();
            took.push(measured[FLOWS / 2]);
        }
    }
    lab.inside("outside", || flow(b".")).unwrap();
    echo.join().unwrap();
    took.iter_mut().for_each(|took| took.sort());
    let [one, many] = took.map(|took| took[PAIRS / 2]);
    println!(
        "new flow: {one:?} with one service, {many:?} with {SERVICES}: {:.3}",
        many.as_secs_f64() / one.as_secs_f64()
    );
}

/// Connections to one backend, of as many again to another.
const CONNECTIONS: u16 = 15_000;

/// LB-07
#[test]
#[ignore = "a measurement: COVEY_FIGURES=1, one at a time"]
fn flushing_a_backend() {
    if !is_wanted() {
        return;
    }
    let Some(lab) = Lab::new() else { return };
    let mut nft = lab.nft();
    let mut program = Program::new(Place::Host(Host { inside: "cv".to_owned(), ..Host::default() }));
    program.set(frontend(0), service(1));
    lab::repair(&mut nft, &program);
    lab.run(
        "host",
        "ip addr add 127.0.0.2/8 dev lo; ip addr add fd00::1 dev lo nodad; ip addr add fd00::2 dev lo nodad",
    );
    for (kept, gone) in [("127.0.0.1", "127.0.0.2"), ("fd00::1", "fd00::2")] {
        for to in [kept, gone] {
            let socket = lab.udp("host", to, 0);
            for port in 1..=CONNECTIONS {
                // Nobody listens there, and the kernel says so with the next one.
                let _ = socket.send_to(b"?", (gone.parse::<std::net::IpAddr>().unwrap(), port));
                let _ = socket.send_to(b"?", (to.parse::<std::net::IpAddr>().unwrap(), port));
            }
        }
        let mut conntrack = lab.conntrack();
        let count = || lab.run("host", "cat /proc/sys/net/netfilter/nf_conntrack_count").trim().to_owned();
        let before = count();
        timed(&format!("flush {gone}"), || conntrack.flush(&[gone.parse().unwrap()].into()).unwrap());
        println!("{before} connections before, {} after", count());
    }
}
