//! Garbage from the network: whatever bytes arrive, and however genuine messages are mangled, nothing panics.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use bytes::Bytes;
use covey_gossip::{Config, Gossip, MESSAGE_BYTES_MAX, Myself, Output, Rights, Topic};
use covey_wire::Id;
use ed25519_dalek::SigningKey;
use proptest::{
    prelude::*,
    test_runner::{Config as Runs, RngSeed, TestRunner},
};

const PROPER: &str = "a machine takes what another sends";
const ME: Id = Id::new(1);
const OTHER: Id = Id::new(2);

#[expect(clippy::disallowed_methods, reason = "time has no zero, and tests need one instant to count from")]
fn start() -> Instant {
    Instant::now()
}

fn machine(now: Instant, id: Id) -> Gossip {
    let signer = SigningKey::from_bytes(&[id.bits() as u8; 32]);
    let myself = Myself { id, incarnation: 1, address: ([10, 0, 0, id.bits() as u8], 2377).into(), signer };
    let mut gossip = Gossip::new(now, Config::lan(), myself, 7);
    for owner in [ME, OTHER] {
        let key = SigningKey::from_bytes(&[owner.bits() as u8; 32]).verifying_key();
        assert!(gossip.learn_owner(now, owner, key.as_bytes(), Rights::All));
    }
    let topic: Topic = "tasks".parse().expect("a topic");
    gossip.subscribe(now, &topic).expect(PROPER);
    gossip.set_row(&topic, "key", Bytes::from_static(b"payload")).expect(PROPER);
    gossip.set_row(&Topic::nodes(), "load", Bytes::from_static(b"low")).expect(PROPER);
    gossip
}

/// Everything that two machines said to each other in their first seconds, as `(kind of handling, bytes)`.
fn genuine() -> Vec<(u8, Bytes)> {
    let mut now = start();
    let (mut one, mut two) = (machine(now, ME), machine(now, OTHER));
    one.join(now, vec![(OTHER, ([10, 0, 0, 2], 2377).into())]);
    let mut said = Vec::new();
    for _ in 0..100 {
        for (from, to, id) in [(0, 1, ME), (1, 0, OTHER)] {
            let both = [&mut one, &mut two];
            both[from].handle_timeout(now);
            while let Some(output) = both[from].poll_output() {
                match output {
                    Output::Datagram { bytes, .. } => {
                        both[to].handle_datagram(now, id, &bytes).expect(PROPER);
                        said.push((0, bytes));
                    }
                    Output::Push { bytes, .. } => {
                        both[to].handle_push(now, id, &bytes).expect(PROPER);
                        said.push((1, bytes));
                    }
                    Output::Request { to: other, bytes, .. } => {
                        let reply = both[to].handle_request(now, id, &bytes).expect(PROPER);
                        both[from].handle_reply(now, other, &reply).expect(PROPER);
                        said.extend([(2, bytes), (3, reply.into())]);
                    }
                    _ => {}
                }
            }
        }
        now += Duration::from_millis(100);
    }
    assert!((0..4).all(|kind| said.iter().any(|(said, _)| *said == kind)), "every kind of message was heard");
    said
}

fn handle(gossip: &mut Gossip, now: Instant, kind: u8, bytes: &[u8]) {
    let _ = match kind {
        0 => gossip.handle_datagram(now, OTHER, bytes),
        1 => gossip.handle_push(now, OTHER, bytes),
        2 => gossip.handle_request(now, OTHER, bytes).map(|reply| assert!(reply.len() <= MESSAGE_BYTES_MAX)),
        _ => gossip.handle_reply(now, OTHER, bytes),
    };
    while gossip.poll_output().is_some() {}
}

fn runs(cases: u32) -> Runs {
    Runs { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..Runs::default() }
}

proptest! {
    #![proptest_config(runs(2000))]

    #[test]
    fn no_bytes_make_it_panic(kind in 0_u8..4, tag in 0_u8..9, body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let now = start();
        let mut gossip = machine(now, ME);
        handle(&mut gossip, now, kind, &body);
        let framed = [&[covey_wire::VERSION, tag, covey_wire::VERSION], &body[..]].concat();
        handle(&mut gossip, now, kind, &framed);
    }
}

#[test]
fn no_mangled_message_makes_it_panic() {
    let said = genuine();
    let now = start();
    let gossip = RefCell::new(machine(now, ME));
    let places = (0..said.len(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>());
    TestRunner::new(runs(20_000))
        .run(&places, |(message, place, value, cut)| {
            let (kind, bytes) = &said[message];
            let mut bytes = bytes.to_vec();
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = value;
                bytes.truncate(if cut { place } else { bytes.len() });
            }
            handle(&mut gossip.borrow_mut(), now, *kind, &bytes);
            Ok(())
        })
        .unwrap();
}
