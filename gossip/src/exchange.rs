//! Anti-entropy: two nodes compare what they know in sums, then in names, then send what the other lacks.
//!
//! ```text
//! asking ── Digest ──────► replying     sums of members and of each topic, 32 a piece
//!        ◄─ Differences ──              names of all that the replier has where sums differ
//!        ── Repair (push) ►             what the replier turned out to lack; what of it is the asking
//!        ── Rows (fresh push) ►         node's own is passed on like any fresh row
//!        ── Wants ───────►              names of what the asking node lacks
//!        ◄─ Rows ────────
//! ```
//! Every message is bounded. What does not fit waits for the next round; rounds begin at random places, so that
//! nothing waits for ever.

use std::collections::BTreeMap;

use covey_wire::Id;
use rand::{
    Rng, RngExt,
    seq::{IndexedRandom, IteratorRandom},
};

use crate::{
    config::{
        MEMBERS_PER_MESSAGE_MAX, MESSAGE_BYTES_MAX, ROWS_PER_DIGEST_MAX, TOPICS_PER_DIGEST_MAX, WANTS_MAX,
        WRITTEN_PER_DIGEST_MAX,
    },
    digest::{Buckets, Sums},
    hearing::Hearing,
    member::{Members, Peer},
    message::{self, Differences, Digest, Extent, Name, Repair, TopicDifferences, Wants},
    row::{Signed, Version},
    rows::Rows,
    swim::{self, Swim},
    topic::{NODES, Topic},
};

/// So often one is drawn blindly before all are looked at.
const DRAWS: usize = 4;
/// Bytes that one member takes on the wire, at most.
const MEMBER_BYTES: usize = 64;

/// What the asking node does about the differences.
pub(crate) struct Remedy {
    /// What it asks the replier for.
    pub wants: Wants,
    /// What it sends to the replier.
    pub repair: Repair,
    /// The same of its own batches: whoever lacks these from their owner itself is likely not the only one.
    pub fresh: Vec<Signed>,
}

/// The first message, for `to`: all that this node knows, in sums. Where that are too many topics, those behind
/// `last`, which is the last one then.
pub(crate) fn digest(
    to: Id,
    last: &mut Option<Topic>,
    rows: &Rows,
    swim: &Swim,
    hearing: &Hearing,
    rng: &mut impl Rng,
) -> Vec<u8> {
    let sums =
        |topic: &Topic| rows.table.shelf(topic.as_str()).map_or(Sums::new(), |shelf| shelf.sums().clone());
    let (mut topics, others): (Vec<_>, Vec<_>) =
        rows.subscribed.iter().partition(|topic| rows.subscribers.wants(to, topic));
    if topics.len() > TOPICS_PER_DIGEST_MAX {
        let next = topics.partition_point(|topic| Some(*topic) <= last.as_ref());
        topics.rotate_left(next);
        topics.truncate(TOPICS_PER_DIGEST_MAX);
        *last = topics.last().map(|topic| (*topic).clone());
    }
    let room = TOPICS_PER_DIGEST_MAX - topics.len();
    // What the other has subscribed to is perhaps not known yet.
    topics.extend(others.into_iter().sample(rng, room));
    let written = rows.only_written().sample(rng, WRITTEN_PER_DIGEST_MAX);
    let own = |topic: &Topic| {
        let shelf = rows.table.shelf(topic.as_str()).into_iter();
        shelf
            .flat_map(|shelf| shelf.batches_of(swim.me().id))
            .map(|(number, held)| (number, held.version))
            .collect()
    };
    let digest = Digest {
        sender: swim.me().clone(),
        members: swim.sums(),
        topics: topics.into_iter().map(|topic| (topic.clone(), sums(topic))).collect(),
        written: written.into_iter().map(|topic| (topic.clone(), own(topic))).collect(),
        hearing: !hearing.is_over(),
    };
    message::write(message::DIGEST, &digest)
}

/// The reply to a digest: where this node knows other things.
pub(crate) fn answer(
    asked: &Digest,
    rows: &Rows,
    swim: &Swim,
    members: &Members,
    hearing: &Hearing,
    rng: &mut impl Rng,
) -> Vec<u8> {
    let mut more = false;
    let from = rng.random();
    let differing = asked.members.differ(&swim.sums());
    let (told, buckets) = members_in(differing, from, swim, &mut more);
    let mut shared: Vec<_> =
        asked.topics.iter().filter(|(topic, _)| rows.subscribed.contains(topic)).collect();
    // Whoever comes first has the room, which is another one each time.
    let first = from as usize % shared.len().max(1);
    shared.rotate_left(first);
    let mut room = ROWS_PER_DIGEST_MAX;
    let topics = shared.into_iter().map(|(topic, theirs)| batches_in(topic, theirs, from, &mut room, rows));
    let mut topics: Vec<TopicDifferences> = topics.collect();
    for told in &mut topics {
        more |= told.extent == Extent::Part;
        if rows.own.is_held() {
            told.extent = Extent::Part;
        } else if told.extent == Extent::Own && !hearing.has(&told.topic) {
            told.extent = Extent::Whole;
        }
    }
    topics.retain(|told| told.differs() || asked.hearing);
    let wants = asked.written.iter().flat_map(|(topic, batches)| {
        let lacking = batches
            .iter()
            .filter(|(number, version)| rows.is_wanted(topic, asked.sender.id, *number, *version, members));
        lacking.map(|(number, _)| Name { topic: topic.clone(), owner: asked.sender.id, number: *number })
    });
    let differences = Differences {
        sender: swim.me().clone(),
        down: members.get(asked.sender.id).and_then(|known| {
            let over = !known.liveness.is_live() && !asked.sender.replaces(&known.peer);
            over.then_some(known.peer.incarnation)
        }),
        members: told,
        buckets,
        topics,
        wants: wants.take(WANTS_MAX).collect(),
        more,
    };
    message::write(message::DIFFERENCES, &differences)
}

/// The members of the differing buckets: the live ones, this node, and those that said good-bye. The dead are
/// not told of: each node finds them out itself, or else a healed partition would kill everybody once more.
fn members_in(
    differing: Buckets,
    from: u32,
    swim: &Swim,
    more: &mut bool,
) -> (Vec<foca::Member<Peer>>, Buckets) {
    let me = foca::Member::alive(swim.me().clone());
    let tellable = |member: &&foca::Member<_>| swim::is_live(member) || member.id().left;
    let (mut told, mut complete) = (Vec::new(), Buckets::default());
    for bucket in differing.each(from) {
        let inside =
            swim.members().filter(tellable).chain([&me]).filter(|member| bucket.holds(member.id().id));
        let before = told.len();
        told.extend(inside.take(MEMBERS_PER_MESSAGE_MAX - before).cloned());
        if told.len() == MEMBERS_PER_MESSAGE_MAX {
            *more = true;
            break;
        }
        complete.add(bucket);
    }
    (told, complete)
}

/// Names of what is here of a topic in the differing buckets, as long as there is room.
fn batches_in(topic: &Topic, theirs: &Sums, from: u32, room: &mut usize, rows: &Rows) -> TopicDifferences {
    let shelf = rows.table.shelf(topic.as_str());
    let differing = theirs.differ(shelf.map_or(&Sums::new(), |shelf| shelf.sums()));
    let (mut batches, mut complete) = (Vec::<(Id, u16, Version)>::new(), Buckets::default());
    let mut extent = Extent::Own;
    for bucket in differing.each(from) {
        let inside = shelf.into_iter().flat_map(|shelf| shelf.batches());
        let inside = inside.filter(|(owner, ..)| bucket.holds(*owner));
        let mut inside: Vec<_> = inside.map(|(owner, number, held)| (owner, number, held.version)).collect();
        if inside.len() > *room {
            extent = Extent::Part;
            // Others each time, so that all are named in the end.
            let first = from as usize % inside.len();
            inside.rotate_left(first);
            inside.truncate(*room);
        } else {
            complete.add(bucket);
        }
        *room -= inside.len();
        batches.extend(inside);
    }
    TopicDifferences { topic: topic.clone(), extent, buckets: complete, batches }
}

/// What follows from a reply.
pub(crate) fn compare(told: &Differences, rows: &Rows, swim: &Swim, members: &Members) -> Remedy {
    let mut names = Vec::new();
    let mut lacking = Vec::new();
    for topic in told.topics.iter().filter(|told| rows.subscribed.contains(&told.topic)) {
        let wanted = topic.batches.iter().filter(|(owner, number, version)| {
            rows.is_wanted(&topic.topic, *owner, *number, *version, members)
        });
        names.extend(wanted.map(|(owner, number, _)| Name {
            topic: topic.topic.clone(),
            owner: *owner,
            number: *number,
        }));
        lacking.extend(lacking_there(topic, rows));
    }
    names.truncate(WANTS_MAX);
    lacking.extend(told.wants.iter().filter(|name| name.owner == swim.me().id).cloned());
    let (own, others): (Vec<_>, Vec<_>) = lacking.into_iter().partition(|name| name.owner == swim.me().id);
    Remedy {
        wants: Wants { names },
        repair: repair(told, &others, rows, swim),
        fresh: fill(own.iter(), MESSAGE_BYTES_MAX, rows),
    }
}

/// Batches that are here, and not there or older there, in the buckets of which the replier named all.
fn lacking_there(told: &TopicDifferences, rows: &Rows) -> Vec<Name> {
    let theirs: BTreeMap<(Id, u16), Version> =
        told.batches.iter().map(|(owner, number, version)| ((*owner, *number), *version)).collect();
    let ours = rows.table.shelf(told.topic.as_str()).into_iter().flat_map(|shelf| shelf.batches());
    ours.filter(|(owner, number, held)| {
        let here = told.buckets.holds(*owner);
        here && theirs.get(&(*owner, *number)).is_none_or(|version| *version < held.version)
    })
    .map(|(owner, number, _)| Name { topic: told.topic.clone(), owner, number })
    .collect()
}

fn repair(told: &Differences, lacking: &[Name], rows: &Rows, swim: &Swim) -> Repair {
    let theirs: BTreeMap<Id, u64> =
        told.members.iter().map(|member| (member.id().id, member.id().incarnation)).collect();
    let members: Vec<_> = swim
        .members()
        .filter(|member| swim::is_live(member) || member.id().left)
        .filter(|member| told.buckets.holds(member.id().id) && member.id().id != told.sender.id)
        .filter(|member| theirs.get(&member.id().id).is_none_or(|life| *life < member.id().incarnation))
        .take(MEMBERS_PER_MESSAGE_MAX)
        .cloned()
        .collect();
    let batches = fill(lacking.iter(), MESSAGE_BYTES_MAX - members.len() * MEMBER_BYTES, rows);
    Repair { members, batches }
}

/// The reply to a request for batches.
pub(crate) fn serve(wants: &Wants, rows: &Rows) -> Vec<u8> {
    let batches = fill(wants.names.iter().take(WANTS_MAX), MESSAGE_BYTES_MAX, rows);
    message::write(message::ROWS, &message::Rows { batches })
}

/// As many of the named batches as `bytes` hold.
fn fill<'a>(names: impl Iterator<Item = &'a Name>, bytes: usize, rows: &Rows) -> Vec<Signed> {
    let mut room = bytes - MEMBER_BYTES;
    names
        .filter_map(|name| rows.table.held(name.topic.as_str(), name.owner, name.number))
        .map(|held| held.signed.clone())
        .take_while(|signed| {
            let fits = signed.size() <= room;
            room = room.saturating_sub(signed.size());
            fits
        })
        .collect()
}

/// Whom to ask next: who subscribes to a topic that is still being heard, rather one with whom it was not compared;
/// without one half of the time any live member, else one that subscribes to some topic of ours, since among many nodes a
/// few subscribers would otherwise seldom meet.
pub(crate) fn partner(rows: &Rows, members: &Members, hearing: &Hearing, rng: &mut impl Rng) -> Option<Id> {
    let unheard = hearing.topics().choose(rng);
    if let Some(topic) = unheard
        && let Some(stranger) = reader(topic, rows, members, rng, |id| !hearing.is_compared(topic, id))
    {
        return Some(stranger);
    }
    let special = rows.subscribed.iter().filter(|topic| topic.as_str() != NODES);
    let special = if rng.random() { special.choose(rng) } else { None };
    let fellow = unheard.or(special).and_then(|topic| reader(topic, rows, members, rng, |_| true));
    fellow.or_else(|| members.live().choose(rng).copied())
}

/// The subscribers of a topic, live or not.
pub(crate) fn readers<'a>(topic: &Topic, rows: &'a Rows, members: &'a Members) -> &'a [Id] {
    if topic.as_str() == NODES { members.live() } else { rows.subscribers.of(topic) }
}

/// A live subscriber of a topic of whom this is true.
pub(crate) fn reader(
    topic: &Topic,
    rows: &Rows,
    members: &Members,
    rng: &mut impl Rng,
    is_wanted: impl Fn(Id) -> bool,
) -> Option<Id> {
    let readers = readers(topic, rows, members);
    let is_fit = |id: &Id| is_wanted(*id) && members.is_live(*id);
    // Nearly each draw is a fit one, where there are many.
    let drawn = (0..DRAWS).find_map(|_| readers.choose(rng).copied().filter(is_fit));
    drawn.or_else(|| readers.iter().copied().filter(is_fit).choose(rng))
}
