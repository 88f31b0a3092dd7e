//! Eager push: a fresh row goes to a few of its subscribers, and from each of them, at first sight, to a few more.

use std::collections::BTreeMap;

use covey_wire::Id;
use rand::{Rng, RngExt, seq::IteratorRandom};

use crate::{
    config::MESSAGE_BYTES_MAX,
    member::{Members, Peer},
    message::{self, Rows},
    row::Signed,
    topic::{NODES, Subscribers, Topic},
};

/// Bytes that a message needs beside its batches.
const FRAME_BYTES: usize = 64;

/// Of those pushed to, how many are the next subscribers round the ring of all, whom chance would leave out now and
/// then: with four random ones each, every fiftieth would be, and with two and two nearly nobody is. To these,
/// connections are there more often than to random ones, too.
const RING: usize = 2;

/// Among so many times the fan-out, others are drawn blindly, so many times each.
const FEW: usize = 4;

/// Chooses who gets which of the fresh batches: for each topic up to `fan_out` live subscribers, but for `except`.
pub(crate) fn plan(
    me: Id,
    fresh: Vec<(Topic, Signed)>,
    members: &Members,
    subscribers: &Subscribers,
    fan_out: usize,
    except: &[Id],
    rng: &mut impl Rng,
) -> Vec<(Peer, Vec<u8>)> {
    let mut by_topic = BTreeMap::<Topic, Vec<Signed>>::new();
    for (topic, signed) in fresh {
        by_topic.entry(topic).or_default().push(signed);
    }
    let mut by_target = BTreeMap::<Id, (Peer, Vec<Signed>)>::new();
    for (topic, batches) in by_topic {
        for peer in targets(me, &topic, members, subscribers, fan_out, except, rng) {
            let entry = by_target.entry(peer.id).or_insert_with(|| (peer.clone(), Vec::new()));
            entry.1.extend(batches.iter().cloned());
        }
    }
    by_target
        .into_values()
        .flat_map(|(peer, batches)| pack(batches).map(move |bytes| (peer.clone(), bytes)))
        .collect()
}

fn targets(
    me: Id,
    topic: &Topic,
    members: &Members,
    subscribers: &Subscribers,
    fan_out: usize,
    except: &[Id],
    rng: &mut impl Rng,
) -> Vec<Peer> {
    let readers = if topic.as_str() == NODES { members.live() } else { subscribers.of(topic) };
    let is_fit = |id: &Id| *id != me && !except.contains(id) && members.is_live(*id);
    let (before, after) = readers.split_at(readers.partition_point(|id| *id <= me));
    let ring = after.iter().chain(before).filter(|id| is_fit(id));
    let mut chosen: Vec<Id> = ring.take(RING.min(fan_out)).copied().collect();
    if readers.len() > FEW * fan_out {
        // Nearly each draw is a fit one, and nobody has to look at all of them.
        for _ in 0..FEW * fan_out {
            let drawn = readers[rng.random_range(..readers.len())];
            if chosen.len() < fan_out && !chosen.contains(&drawn) && is_fit(&drawn) {
                chosen.push(drawn);
            }
        }
    }
    if chosen.len() < fan_out {
        let others = readers.iter().filter(|id| !chosen.contains(id) && is_fit(id));
        let others = others.copied().sample(rng, fan_out - chosen.len());
        chosen.extend(others);
    }
    chosen.into_iter().filter_map(|id| members.get(id)).map(|known| known.peer.clone()).collect()
}

/// Packs batches into as many messages as they need.
fn pack(batches: Vec<Signed>) -> impl Iterator<Item = Vec<u8>> {
    let mut rest = batches.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut room = MESSAGE_BYTES_MAX - FRAME_BYTES;
        let mut batches = Vec::new();
        while let Some(next) = rest.next_if(|next| next.size() <= room) {
            room -= next.size();
            batches.push(next);
        }
        (!batches.is_empty()).then(|| message::write(message::FRESH, &Rows { batches }))
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ed25519_dalek::SigningKey;
    use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

    use super::*;
    use crate::{
        member::Liveness,
        row::{Batch, Version},
        timer::tests::start,
    };

    fn members(count: u128) -> Members {
        let mut members = Members::default();
        for id in 0..count {
            let peer =
                Peer { id: Id::new(id), incarnation: 1, address: ([10, 0, 0, 1], 1).into(), left: false };
            members.put(start(), peer, Liveness::Alive);
        }
        members
    }

    fn signed(topic: &Topic, number: u16, bytes: usize) -> (Topic, Signed) {
        let batch = Batch {
            owner: Id::new(1),
            topic: topic.clone(),
            number,
            version: Version { incarnation: 1, sequence: 1 },
            rows: vec![("key".into(), Bytes::from(vec![0; bytes]))],
        };
        (topic.clone(), batch.sign(&SigningKey::from_bytes(&[1; 32])))
    }

    #[test]
    fn a_row_goes_to_a_few_subscribers_and_to_nobody_else() {
        let members = members(10);
        let tasks: Topic = "tasks".parse().unwrap();
        let mut subscribers = Subscribers::default();
        for id in [1, 2, 3, 77] {
            subscribers.replace(Id::new(id), [tasks.clone()].into());
        }
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let fresh = [signed(&tasks, 0, 1), signed(&Topic::nodes(), 0, 1)];
        let pushes =
            plan(Id::new(0), fresh[..1].to_vec(), &members, &subscribers, 3, &[Id::new(2)], &mut rng);
        assert_eq!(pushes.iter().map(|(peer, _)| peer.id).collect::<Vec<_>>(), [Id::new(1), Id::new(3)]);
        let pushes =
            plan(Id::new(0), fresh[1..].to_vec(), &members, &subscribers, 3, &[Id::new(2)], &mut rng);
        assert_eq!(pushes.len(), 3, "everyone subscribes to what nodes say, and a few are pushed to");
    }

    #[test]
    fn no_message_is_over_its_bound() {
        let members = members(1);
        let nodes = Topic::nodes();
        let fresh = (0..100).map(|number| signed(&nodes, number, 8000)).collect();
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let pushes = plan(Id::new(7), fresh, &members, &Subscribers::default(), 3, &[], &mut rng);
        assert!(pushes.iter().all(|(_, bytes)| bytes.len() <= MESSAGE_BYTES_MAX));
        let all: usize = pushes
            .iter()
            .map(|(_, bytes)| message::read::<Rows>(message::split(bytes).unwrap().1).unwrap().batches.len())
            .sum();
        assert_eq!(all, 100);
    }
}
