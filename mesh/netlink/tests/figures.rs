//! What programs cost in a real kernel. Prints figures; run it alone:
//! `cargo test --release -p covey-mesh-netlink --test figures -- --ignored --nocapture`.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces, and read the clock")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in what it is built of as well")]

mod lab;

use std::time::{Duration, Instant};

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

/// LB-02
#[test]
#[ignore = "a measurement"]
fn ten_thousand_services() {
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
