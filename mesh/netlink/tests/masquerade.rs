//! The way out: what packets show, in a real kernel.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces, run ip, and wait")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in what it is built of as well")]

mod lab;

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use covey_mesh::{Host, Place, Program};
use lab::{Lab, repair};

/// Connections made while rules are replaced all the time.
const FLOWS: usize = 300;

fn program(blocks: &[&str]) -> Program {
    let blocks = blocks.iter().map(|block| block.parse().unwrap()).collect();
    Program::new(Place::Host(Host { blocks, inside: "cv".to_owned(), edge: None }))
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
    assert_eq!(seen("aaaa", "bbbb"), own, "within the host");
    assert_eq!(seen("other", "outside"), ["100.65.1.2", "fd00:c1:0:1:c::2"], "not of the block");
    assert_eq!(seen("outside", "aaaa"), ["10.20.0.2", "fd20::2"], "from outside");
    repair(&mut nft, &Program::default());
    assert_eq!(seen("aaaa", "outside"), own, "nothing is translated any more");
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
