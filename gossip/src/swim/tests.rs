//! SWIM alone: whom it suspects, how long, and what a stall or a claim about itself makes of it.

use super::*;
use crate::timer::tests::start;

const ME: u128 = 1;

fn peer(id: u128) -> Peer {
    Peer { id: Id::new(id), incarnation: 1, address: ([10, 0, 0, 1], 2377).into(), left: false }
}

/// A node that just met `others`.
fn met(now: Instant, others: &[u128]) -> Swim {
    let mut swim = Swim::new(now, Config::lan(), peer(ME), 7);
    swim.apply(now, others.iter().map(|other| foca::Member::alive(peer(*other))).collect());
    events(&mut swim);
    swim
}

fn events(swim: &mut Swim) -> Vec<SwimEvent> {
    std::iter::from_fn(|| swim.poll_event()).collect()
}

/// Serves timeouts in time, until somebody is declared down.
fn first_death(swim: &mut Swim) -> (Instant, Id) {
    for _ in 0..1000 {
        let now = swim.poll_timeout().unwrap();
        swim.handle_timeout(now);
        for event in events(swim) {
            if let SwimEvent::Down(peer) = event {
                return (now, peer.id);
            }
        }
    }
    panic!("nobody died");
}

fn packet(from: Peer, to: Peer, message: foca::Message<Peer>, news: &[foca::Member<Peer>]) -> Vec<u8> {
    let header = foca::Header { src: from, src_incarnation: 0, dst: to, message };
    let mut packet = covey_wire::encode(&header).unwrap();
    packet.extend((news.len() as u16).to_be_bytes());
    packet.extend(news.iter().flat_map(|member| covey_wire::encode(member).unwrap()));
    packet
}

/// NOD-02
#[test]
fn a_lost_peer_is_asked_at_once_and_declared_down_soon() {
    let now = start();
    let mut swim = met(now, &[2, 3]);
    swim.lost(now, Id::new(2));
    let asked = events(&mut swim);
    assert!(asked.iter().any(|event| matches!(event, SwimEvent::Send { to, .. } if to.id == Id::new(2))));
    assert_eq!(first_death(&mut swim), (now + Config::lan().lost_after, Id::new(2)));
}

#[test]
fn a_suspect_that_answers_is_acquitted() {
    let now = start();
    let (mut swim, mut suspect) = (met(now, &[2]), Swim::new(now, Config::lan(), peer(2), 8));
    suspect.apply(now, vec![foca::Member::alive(peer(ME))]);
    events(&mut suspect);
    swim.lost(now, Id::new(2));
    for event in events(&mut swim) {
        if let SwimEvent::Send { packet, .. } = event {
            suspect.handle_packet(now, Id::new(ME), &packet).unwrap();
        }
    }
    for event in events(&mut suspect) {
        if let SwimEvent::Send { packet, .. } = event {
            swim.handle_packet(now, Id::new(2), &packet).unwrap();
        }
    }
    assert!(swim.members().all(|member| member.state() == State::Alive));
    let (died, _) = first_death(&mut swim);
    assert!(died > now + Config::lan().lost_after, "what it later fails is the next probe");
}

#[test]
fn who_loses_several_peers_at_once_and_hears_nobody_doubts_itself() {
    let now = start();
    let mut swim = met(now, &[2, 3, 4, 5]);
    for lost in [2, 3, 4] {
        swim.lost(now, Id::new(lost));
    }
    assert_eq!(swim.patience(now, Duration::from_secs(1)), Duration::from_secs(3));
    for heard in [5, 6, 7] {
        swim.heard(now, Id::new(heard));
    }
    assert_eq!(swim.patience(now, Duration::from_secs(1)), Duration::from_secs(1));
}

#[test]
fn a_stalled_observer_hears_the_others_before_it_judges() {
    let now = start();
    let mut swim = met(now, &[2]);
    swim.lost(now, Id::new(2));
    let awake = now + Duration::from_secs(10);
    swim.wake(awake);
    swim.handle_timeout(awake);
    assert!(!events(&mut swim).iter().any(|event| matches!(event, SwimEvent::Down(_))));
    assert!(first_death(&mut swim).0 >= awake + Config::lan().late_after);
}

/// NOD-02
#[test]
fn whoever_is_taken_for_dead_asks_for_a_new_incarnation_and_uses_none_before() {
    let now = start();
    for claim in [foca::Member::down(peer(ME)), foca::Member::alive(Peer { incarnation: 5, ..peer(ME) })] {
        let life = claim.id().incarnation;
        let mut swim = met(now, &[2]);
        let gossip = packet(peer(2), peer(ME), foca::Message::Gossip, &[claim]);
        swim.handle_packet(now, Id::new(2), &gossip).unwrap();
        let seen = events(&mut swim);
        assert!(seen.contains(&SwimEvent::Overtaken(life)), "{seen:?}");
        assert_eq!(swim.me(), &peer(ME));

        swim.renew(now, life + 1);
        assert_eq!(swim.me().incarnation, life + 1);
        assert!(
            events(&mut swim).iter().any(|event| matches!(event, SwimEvent::Send { .. })),
            "it tells at once"
        );
    }
}

#[test]
fn a_packet_in_the_name_of_another_is_dropped() {
    let now = start();
    let mut swim = met(now, &[2, 3]);
    let forged = packet(peer(2), peer(ME), foca::Message::Gossip, &[foca::Member::down(peer(3))]);
    let result = swim.handle_packet(now, Id::new(3), &forged);
    assert!(matches!(result, Err(MessageError::Impostor { claimed, .. }) if claimed == Id::new(2)));
    assert!(swim.members().all(|member| member.state() == State::Alive));
}

#[test]
fn the_dead_of_others_are_not_learned_from_lists() {
    let now = start();
    let mut swim = met(now, &[2]);
    swim.apply(now, vec![foca::Member::down(peer(2)), foca::Member::down(peer(9))]);
    assert_eq!(
        swim.members().map(|member| (member.id().id, member.state())).collect::<Vec<_>>(),
        [(Id::new(2), State::Alive)]
    );
    swim.apply(now, vec![foca::Member::down(Peer { left: true, ..peer(2) })]);
    assert_eq!(events(&mut swim).first(), Some(&SwimEvent::Left(Peer { left: true, ..peer(2) })));
}

#[test]
fn the_dead_are_forgotten_in_time() {
    let now = start();
    let mut swim = met(now, &[2, 3]);
    swim.lost(now, Id::new(2));
    let end = now + Config::lan().remove_down_after + Duration::from_secs(10);
    let mut forgotten = Vec::new();
    while let Some(now) = swim.poll_timeout().filter(|now| *now < end) {
        swim.handle_timeout(now);
        forgotten
            .extend(events(&mut swim).into_iter().filter(|event| matches!(event, SwimEvent::Forgotten(_))));
        swim.heard(now, Id::new(3));
    }
    assert!(forgotten.contains(&SwimEvent::Forgotten(Id::new(2))), "{forgotten:?}");
}

/// Everything that a member may say, in any order: the machine may believe it, but never stumble.
#[test]
fn no_sequence_of_well_formed_packets_makes_it_panic() {
    let mut now = start();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
    let mut swim = met(now, &[2, 3]);
    for _ in 0..20_000 {
        let any = |rng: &mut Xoshiro256PlusPlus| Peer {
            incarnation: rng.random_range(0..4),
            left: rng.random_ratio(1, 8),
            ..peer(rng.random_range(1..6))
        };
        let probe_number = rng.random_range(0..4);
        let message = match rng.random_range(0..11) {
            0 => foca::Message::Ping(probe_number),
            1 => foca::Message::Ack(probe_number),
            2 => foca::Message::PingReq { target: any(&mut rng), probe_number },
            3 => foca::Message::IndirectPing { origin: any(&mut rng), probe_number },
            4 => foca::Message::IndirectAck { target: any(&mut rng), probe_number },
            5 => foca::Message::ForwardedAck { origin: any(&mut rng), probe_number },
            6 => foca::Message::Feed,
            7 => foca::Message::Broadcast,
            8 => foca::Message::TurnUndead,
            9 => foca::Message::Announce,
            _ => foca::Message::Gossip,
        };
        let state = |rng: &mut Xoshiro256PlusPlus| match rng.random_range(0..3) {
            0 => State::Alive,
            1 => State::Suspect,
            _ => State::Down,
        };
        let news: Vec<_> = (0..rng.random_range(0..4))
            .map(|_| foca::Member::new(any(&mut rng), rng.random_range(0..3), state(&mut rng)))
            .collect();
        let from = any(&mut rng);
        let to = if rng.random() { swim.me().clone() } else { any(&mut rng) };
        let id = from.id;
        swim.wake(now);
        let _ = swim.handle_packet(now, id, &packet(from, to, message, &news));
        match rng.random_range(0..8) {
            0 => swim.lost(now, Id::new(rng.random_range(1..6))),
            1 => swim.apply(now, news),
            2 => now += Duration::from_millis(rng.random_range(0..2000)),
            _ => {}
        }
        while swim.poll_timeout().is_some_and(|due| due <= now) {
            swim.handle_timeout(now);
            swim.wake(now);
        }
        for event in events(&mut swim) {
            if let SwimEvent::Overtaken(life) = event {
                let next = swim.me().incarnation.max(life) + 1;
                swim.renew(now, if rng.random_ratio(1, 4) { 0 } else { next });
            }
        }
    }
}
