//! The machine with one or two others at hand: who is believed, and what is sent to whom.

use std::time::Duration;

use bytes::Bytes;
use covey_wire::Id;
use ed25519_dalek::SigningKey;

use super::*;
use crate::{
    NODES,
    member::MemberEvent,
    row::{Batch, Version},
    timer::tests::start,
};

fn id(node: u8) -> Id {
    Id::new(u128::from(node))
}

fn signer(node: u8) -> SigningKey {
    SigningKey::from_bytes(&[node; 32])
}

fn address(node: u8) -> SocketAddr {
    ([10, 0, 0, node], 2377).into()
}

fn topic(name: &str) -> Topic {
    name.parse().unwrap()
}

fn machine(now: Instant, node: u8) -> Gossip {
    let myself = Myself { id: id(node), incarnation: 1, address: address(node), signer: signer(node) };
    Gossip::new(now, Config::lan(), myself, u64::from(node))
}

/// Node 1, which knows members 2 and 3, may hear `tasks` from 2 and nothing special from 3, and subscribes to `tasks`.
fn reader(now: Instant) -> Gossip {
    let mut gossip = machine(now, 1);
    for (node, rights) in [(2, Rights::Only([topic("tasks")].into())), (3, Rights::Only([].into()))] {
        gossip.swim.apply(now, vec![foca::Member::alive(life(node, 1))]);
        assert!(gossip.learn_owner(now, id(node), signer(node).verifying_key().as_bytes(), rights));
    }
    gossip.pump(now);
    gossip.subscribe(now, &topic("tasks")).unwrap();
    outputs(&mut gossip);
    gossip
}

fn life(node: u8, incarnation: u64) -> Peer {
    Peer { id: id(node), incarnation, address: address(node), left: false }
}

fn batch(owner: u8, name: &str, incarnation: u64, sequence: u64, payload: &'static str) -> Batch {
    Batch {
        owner: id(owner),
        topic: topic(name),
        number: 0,
        version: Version { incarnation, sequence },
        rows: vec![("key".into(), Bytes::from_static(payload.as_bytes()))],
    }
}

fn push(batches: Vec<Signed>) -> Vec<u8> {
    message::write(message::FRESH, &message::Rows { batches })
}

fn outputs(gossip: &mut Gossip) -> Vec<Output> {
    std::iter::from_fn(|| gossip.poll_output()).collect()
}

fn said(gossip: &Gossip, owner: u8) -> Option<(String, bool)> {
    let row = gossip.row("tasks", id(owner), "key")?;
    Some((String::from_utf8_lossy(row.payload).into_owned(), row.suspended))
}

/// TSK-15, C-31
#[test]
fn a_row_counts_only_if_its_owner_signed_it_and_may_write_its_topic() {
    let now = start();
    let mut gossip = reader(now);
    let refused = [
        batch(2, "tasks", 1, 1, "signed by another").sign(&signer(3)),
        batch(3, "tasks", 1, 1, "no right").sign(&signer(3)),
        batch(4, "tasks", 1, 1, "no member").sign(&signer(4)),
        batch(2, "tasks", 0, 9, "of an earlier life").sign(&signer(2)),
        batch(2, "network", 1, 1, "of no interest").sign(&signer(2)),
    ];
    gossip.handle_push(now, id(3), &push(refused.to_vec())).unwrap();
    assert_eq!(outputs(&mut gossip), []);
    assert_eq!(gossip.rows("tasks").count(), 0);

    let good = batch(2, "tasks", 1, 1, "running").sign(&signer(2));
    gossip.handle_push(now, id(3), &push(vec![good.clone()])).unwrap();
    let row = Output::Row { owner: id(2), topic: topic("tasks"), key: "key".into() };
    assert_eq!(outputs(&mut gossip), [row]);
    assert_eq!(said(&gossip, 2), Some(("running".into(), false)), "whoever relayed it");
    gossip.handle_push(now, id(3), &push(vec![good])).unwrap();
    assert_eq!(outputs(&mut gossip), [], "a repetition is no news");
    gossip.handle_push(now, id(3), &push(vec![batch(2, "tasks", 1, 0, "older").sign(&signer(2))])).unwrap();
    assert_eq!(said(&gossip, 2), Some(("running".into(), false)));
}

#[test]
fn what_is_fresh_is_relayed_once_but_not_back() {
    let now = start();
    let mut gossip = reader(now);
    let row = batch(2, "nodes", 1, 1, "load").sign(&signer(2));
    for first in [true, false] {
        gossip.handle_push(now, id(2), &push(vec![row.clone()])).unwrap();
        let pushed: Vec<Id> = outputs(&mut gossip)
            .into_iter()
            .filter_map(|output| if let Output::Push { to, .. } = output { Some(to) } else { None })
            .collect();
        assert_eq!(pushed, if first { vec![id(3)] } else { vec![] });
    }
}

/// NOD-02
#[test]
fn the_rows_of_the_dead_are_suspended_and_those_of_the_gone_dropped() {
    let now = start();
    let mut gossip = reader(now);
    gossip.handle_push(now, id(2), &push(vec![batch(2, "tasks", 1, 1, "running").sign(&signer(2))])).unwrap();
    let mut now = now;
    gossip.handle_lost(now, id(2));
    while gossip.members().any(|member| member.id == id(2) && member.liveness.is_live()) {
        now = gossip.poll_timeout().unwrap();
        gossip.handle_timeout(now);
    }
    assert_eq!(said(&gossip, 2), Some(("running".into(), true)));
    gossip.swim.apply(now, vec![foca::Member::alive(life(2, 2))]);
    gossip.pump(now);
    assert_eq!(said(&gossip, 2), Some(("running".into(), false)), "it counts until the new life has settled");

    outputs(&mut gossip);
    gossip.swim.apply(now, vec![foca::Member::down(Peer { left: true, ..life(2, 2) })]);
    gossip.pump(now);
    assert_eq!(said(&gossip, 2), None);
    let told = outputs(&mut gossip);
    assert!(told.contains(&Output::Member(MemberEvent::Left { id: id(2), address: address(2) })), "{told:?}");
    gossip.handle_push(now, id(3), &push(vec![batch(2, "tasks", 2, 9, "late").sign(&signer(2))])).unwrap();
    assert_eq!(said(&gossip, 2), None, "nobody brings it back");
}

#[test]
fn who_meets_a_newer_version_of_itself_jumps_above_it_once_that_is_on_disk() {
    let now = start();
    let mut gossip = reader(now);
    gossip.set_row(&topic("tasks"), "key", Bytes::from_static(b"truth")).unwrap();
    outputs(&mut gossip);
    let forged = batch(1, "tasks", 8, 1, "forged").sign(&signer(2));
    gossip.handle_push(now, id(2), &push(vec![forged])).unwrap();
    assert_eq!(outputs(&mut gossip), []);

    let forgotten = batch(1, "tasks", 8, 1, "forgotten").sign(&signer(1));
    gossip.handle_push(now, id(2), &push(vec![forgotten.clone(), forgotten])).unwrap();
    assert_eq!(outputs(&mut gossip), [Output::Persist { incarnation: 9 }], "asked for once");
    assert_eq!(gossip.incarnation(), 1);

    gossip.handle_persisted(now, 8);
    assert_eq!(gossip.incarnation(), 1, "another one was asked for");
    gossip.handle_persisted(now, 9);
    assert_eq!(gossip.incarnation(), 9);
    outputs(&mut gossip);
    assert_eq!(said(&gossip, 1), Some(("truth".into(), false)));
    assert_eq!(gossip.row("tasks", id(1), "key").unwrap().version.incarnation, 9);
}

/// Carries what node 1 says to node 2, and the answers, until it has no more to say; what it tells of topics beside.
fn carry(now: Instant, one: &mut Gossip, two: &mut Gossip) -> Vec<Output> {
    let mut told = Vec::new();
    while let Some(output) = one.poll_output() {
        match output {
            Output::Request { bytes, .. } => {
                let reply = two.handle_request(now, id(1), &bytes).unwrap();
                one.handle_reply(now, id(2), &reply).unwrap();
            }
            Output::Push { bytes, .. } => two.handle_push(now, id(1), &bytes).unwrap(),
            Output::Row { ref topic, .. } | Output::Heard { ref topic } if topic.as_str() != NODES => {
                told.push(output)
            }
            _ => {}
        }
    }
    told
}

#[test]
fn what_two_nodes_lack_they_get_in_one_exchange() {
    let now = start();
    let (mut one, mut two) = (machine(now, 1), machine(now, 2));
    for gossip in [&mut one, &mut two] {
        for node in [1, 2] {
            gossip.learn_owner(now, id(node), signer(node).verifying_key().as_bytes(), Rights::All);
        }
    }
    one.set_row(&Topic::nodes(), "key", Bytes::from_static(b"one")).unwrap();
    two.set_row(&Topic::nodes(), "key", Bytes::from_static(b"two")).unwrap();
    // What only one of them reads, the other writes.
    two.subscribe(now, &topic("tasks")).unwrap();
    one.set_row(&topic("tasks"), "key", Bytes::from_static(b"running")).unwrap();
    outputs(&mut two);

    one.join(now, vec![(id(2), address(2))]);
    carry(now, &mut one, &mut two);
    for gossip in [&one, &two] {
        assert_eq!(gossip.rows("nodes").filter(|row| row.key == "key").count(), 2);
        assert_eq!(gossip.members().count(), 1);
        assert_eq!(said(gossip, 1), Some(("running".into(), false)));
    }
}

/// NET: a daemon that has just begun learns the others' keys last of all.
#[test]
fn a_topic_is_heard_only_when_the_rows_of_all_that_are_known_later_are_here() {
    let now = start();
    let (mut one, mut two) = (machine(now, 1), machine(now, 2));
    let tasks = topic("tasks");
    two.learn_owner(now, id(1), signer(1).verifying_key().as_bytes(), Rights::All);
    // It is the first node of all.
    two.join(now, Vec::new());
    two.subscribe(now, &tasks).unwrap();
    two.set_row(&tasks, "key", Bytes::from_static(b"running")).unwrap();
    let told = outputs(&mut two);
    assert!(told.contains(&Output::Heard { topic: tasks.clone() }), "nobody knows more: {told:?}");

    one.join(now, vec![(id(2), address(2))]);
    one.subscribe(now, &tasks).unwrap();
    assert_eq!(carry(now, &mut one, &mut two), [], "whose row that is, is not known");
    one.learn_owner(now, id(2), signer(2).verifying_key().as_bytes(), Rights::All);
    let soon = one.poll_timeout().unwrap();
    assert!(soon < now + Duration::from_millis(5), "{:?}", soon - now);
    one.handle_timeout(soon);
    let row = Output::Row { owner: id(2), topic: tasks.clone(), key: "key".into() };
    assert_eq!(carry(soon, &mut one, &mut two), [row, Output::Heard { topic: tasks.clone() }]);
    one.subscribe(soon, &tasks).unwrap();
    assert_eq!(carry(soon, &mut one, &mut two), [], "it is told once");
    one.unsubscribe(&tasks).unwrap();
    one.subscribe(soon, &tasks).unwrap();
    assert_eq!(
        carry(soon, &mut one, &mut two).last(),
        Some(&Output::Heard { topic: tasks }),
        "and once more anew"
    );
}

/// NET: where all begin at the same time, nobody can say of a topic that it is whole; but nobody waits for ever.
#[test]
fn whoever_has_not_heard_a_topic_itself_does_not_say_that_it_is_whole() {
    let now = start();
    let (mut one, mut two) = (machine(now, 1), machine(now, 2));
    let tasks = topic("tasks");
    for gossip in [&mut one, &mut two] {
        gossip.learn_owner(now, id(1), signer(1).verifying_key().as_bytes(), Rights::All);
        gossip.learn_owner(now, id(2), signer(2).verifying_key().as_bytes(), Rights::All);
        gossip.subscribe(now, &tasks).unwrap();
    }
    one.join(now, vec![(id(2), address(2))]);
    assert_eq!(carry(now, &mut one, &mut two), []);
    let late = now + 2 * Config::lan().sync_period;
    one.handle_timeout(late);
    assert_eq!(carry(late, &mut one, &mut two), [Output::Heard { topic: tasks }]);
}

/// NET-29: who is cut off does not take what it cannot hear for nothing.
#[test]
fn whoever_reaches_nobody_waits_long_before_that_counts_as_nothing() {
    let now = start();
    let mut gossip = machine(now, 1);
    let tasks = topic("tasks");
    gossip.join(now, vec![(id(2), address(2))]);
    gossip.subscribe(now, &tasks).unwrap();
    let mut heard = |at: Instant| -> Vec<Topic> {
        gossip.handle_timeout(at);
        let heard = outputs(&mut gossip).into_iter().filter_map(|output| match output {
            Output::Heard { topic } => Some(topic),
            _ => None,
        });
        heard.collect()
    };
    let period = Config::lan().sync_period;
    assert_eq!(heard(now + 14 * period), []);
    assert_eq!(heard(now + 15 * period), [Topic::nodes(), tasks]);
}

#[test]
fn kinds_that_this_build_does_not_know_are_ignored() {
    let now = start();
    let mut gossip = reader(now);
    let unknown = message::write(99, &"whatever it means");
    gossip.handle_datagram(now, id(2), &unknown).unwrap();
    gossip.handle_push(now, id(2), &unknown).unwrap();
    gossip.handle_reply(now, id(2), &unknown).unwrap();
    assert_eq!(gossip.handle_request(now, id(2), &unknown).unwrap(), []);
    let newer = [covey_wire::VERSION + 1, 1];
    assert!(matches!(gossip.handle_push(now, id(2), &newer), Err(MessageError::Malformed(_))));
    let long = vec![covey_wire::VERSION; MESSAGE_BYTES_MAX + 1];
    assert!(matches!(gossip.handle_push(now, id(2), &long), Err(MessageError::TooLong(_))));
}

#[test]
fn a_digest_in_the_name_of_another_is_refused() {
    let now = start();
    let mut gossip = reader(now);
    let mut other = machine(now, 2);
    other.join(now, vec![(id(1), address(1))]);
    let Some(Output::Request { bytes, .. }) = other.poll_output() else { panic!("a seed is asked at once") };
    assert!(matches!(gossip.handle_request(now, id(3), &bytes), Err(MessageError::Impostor { .. })));
    gossip.handle_request(now, id(2), &bytes).unwrap();
}

#[test]
fn nothing_is_said_after_the_good_bye() {
    let now = start();
    let mut gossip = reader(now);
    gossip.leave(now);
    assert!(outputs(&mut gossip).iter().all(|output| matches!(output, Output::Datagram { .. })));
    assert_eq!(gossip.poll_timeout(), None);
    gossip.set_row(&topic("tasks"), "key", Bytes::new()).unwrap();
    gossip.handle_timeout(now + Duration::from_secs(10));
    assert_eq!(outputs(&mut gossip), []);
}
