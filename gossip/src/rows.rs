//! Which rows count: signed by their owner, in a topic that it may write and that this node wants, not outdated.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use covey_wire::Id;

use crate::{
    config::{ROW_BYTES_MAX, SUBSCRIPTION_ROWS, SUBSCRIPTIONS_MAX},
    digest::name_rank,
    error::RowError,
    member::{Liveness, Members, Peer},
    own::Own,
    owner::Owners,
    row::{Batch, Row, Signed, Version},
    table::{Cell, Changed, Table},
    topic::{NODES, SUBSCRIPTIONS, Subscribers, Topic},
};

/// Objections to rows in whose place others may come that count, or that may count themselves.
const NO_MEMBER: &str = "its owner is no member";
const UNKNOWN: &str = "its owner is unknown";
const RESTARTED: &str = "its owner has restarted since";

/// The rows of this node and of the topics that it subscribes to.
pub(crate) struct Rows {
    me: Id,
    pub own: Own,
    pub owners: Owners,
    pub subscribers: Subscribers,
    pub subscribed: BTreeSet<Topic>,
    pub table: Table,
    /// Members that began a new life: what they said in the last one counts until then.
    settling: BTreeMap<Id, Instant>,
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is new, and now in the table.
    Taken(Topic, Vec<Changed>),
    /// This version, or a newer one, is here already; or nobody here wants the topic.
    Needless,
    /// It does not count, and why.
    Refused(&'static str),
    /// This node wrote it in a life that it does not remember.
    Overtaken(u64),
}

/// What changed subscriptions mean for this node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct NewReaders {
    /// The topics that this node writes to which have new subscribers.
    pub of_ours: BTreeSet<Topic>,
    /// The first ones known that share a subscription with this node: they have what it lacks.
    pub fellows: BTreeSet<Id>,
}

/// In which of the rows a subscription is told.
fn part_of(topic: &Topic) -> u64 {
    name_rank(topic.as_str()) % SUBSCRIPTION_ROWS
}

fn key_of(part: u64) -> String {
    format!("{SUBSCRIPTIONS}.{part}")
}

impl Rows {
    pub fn new(me: Id, own: Own) -> Self {
        Self {
            me,
            own,
            owners: Owners::default(),
            subscribers: Subscribers::default(),
            subscribed: [Topic::nodes()].into(),
            table: Table::default(),
            settling: BTreeMap::new(),
        }
    }

    /// Subscribes to a topic, or no longer.
    pub fn subscribe(&mut self, topic: &Topic, wanted: bool) -> Result<Vec<Changed>, RowError> {
        if topic.as_str() == NODES || self.subscribed.contains(topic) == wanted {
            return Ok(Vec::new());
        }
        if wanted && self.subscribed.len() > SUBSCRIPTIONS_MAX {
            return Err(RowError::Subscriptions);
        }
        let mut subscribed = self.subscribed.clone();
        if wanted {
            subscribed.insert(topic.clone());
        } else {
            subscribed.remove(topic);
        }
        let part = part_of(topic);
        let told: BTreeSet<&Topic> =
            subscribed.iter().filter(|topic| topic.as_str() != NODES && part_of(topic) == part).collect();
        let payload = covey_wire::encode(&told).expect("names always encode");
        self.own.set(&Topic::nodes(), &key_of(part), payload.into())?;
        self.subscribed = subscribed;
        let me = self.me;
        Ok(if wanted {
            Vec::new()
        } else {
            self.table.drop_batches(|held, owner, _| held == topic && owner != me)
        })
    }

    /// Topics that this node writes to without subscribing to them.
    pub fn only_written(&self) -> impl Iterator<Item = &Topic> {
        self.own.topics().filter(|topic| !self.subscribed.contains(*topic))
    }

    /// Whether a batch of this name and version is worth asking for.
    pub fn is_wanted(
        &self,
        topic: &Topic,
        owner: Id,
        number: u16,
        version: Version,
        members: &Members,
    ) -> bool {
        self.is_news(topic, owner, number, version)
            && (owner == self.me || self.objection(topic, owner, version, members).is_none())
    }

    /// Whether all of these batches are here, but for those that will never count. Those of an owner that is not known
    /// yet may, unless it would be a member then and `knows_members`; of one that has begun anew, others will come.
    pub fn has_all(
        &self,
        topic: &Topic,
        batches: &[(Id, u16, Version)],
        members: &Members,
        knows_members: bool,
    ) -> bool {
        !batches.iter().any(|(owner, number, version)| {
            *owner != self.me
                && self.is_news(topic, *owner, *number, *version)
                && match self.objection(topic, *owner, *version, members) {
                    None => true,
                    Some(NO_MEMBER) => !knows_members,
                    Some(UNKNOWN | RESTARTED) => members.is_live(*owner),
                    Some(_) => false,
                }
        })
    }

    fn is_news(&self, topic: &Topic, owner: Id, number: u16, version: Version) -> bool {
        let wanted = self.subscribed.contains(topic) || owner == self.me;
        wanted && self.table.held(topic.as_str(), owner, number).is_none_or(|held| held.version < version)
    }

    /// Why a batch does not count, whoever signed it.
    fn objection(
        &self,
        topic: &Topic,
        owner: Id,
        version: Version,
        members: &Members,
    ) -> Option<&'static str> {
        let Some(member) = members.get(owner) else { return Some(NO_MEMBER) };
        let life = member.peer.incarnation;
        if member.liveness == Liveness::Left && version.incarnation <= life {
            return Some("its owner has left");
        }
        if version.incarnation < life && !self.settling.contains_key(&owner) {
            return Some(RESTARTED);
        }
        match self.owners.get(owner) {
            None => Some(UNKNOWN),
            Some(known) if !known.may_write(topic) => Some("its owner may not write this topic"),
            Some(_) => None,
        }
    }

    /// Takes a batch from outside, if it counts.
    pub fn accept(&mut self, signed: &Signed, members: &Members, incarnation: u64) -> Verdict {
        let Some(batch) = signed.open() else { return Verdict::Refused("it is malformed") };
        let Batch { owner, number, version, .. } = batch;
        if !self.is_news(&batch.topic, owner, number, version) {
            return Verdict::Needless;
        }
        if owner == self.me {
            return if version.incarnation < incarnation {
                Verdict::Needless
            } else if signed.is_signed_by(&self.own.signer().verifying_key()) {
                Verdict::Overtaken(version.incarnation)
            } else {
                Verdict::Refused("this node did not sign it")
            };
        }
        if let Some(objection) = self.objection(&batch.topic, owner, version, members) {
            return Verdict::Refused(objection);
        }
        if !self.owners.get(owner).is_some_and(|known| signed.is_signed_by(&known.key)) {
            return Verdict::Refused("its owner did not sign it");
        }
        Verdict::Taken(batch.topic.clone(), self.table.put(batch, signed.clone()))
    }

    /// Looks through changed rows for what nodes subscribe to.
    pub fn note_subscriptions(&mut self, changed: &[Changed]) -> NewReaders {
        let mut new = NewReaders::default();
        let told =
            changed.iter().filter(|row| row.topic.as_str() == NODES && row.key.starts_with(SUBSCRIPTIONS));
        let told: BTreeSet<Id> = told.map(|row| row.owner).filter(|owner| *owner != self.me).collect();
        for owner in told {
            let topics = self.told_by(owner).into_iter().take(SUBSCRIPTIONS_MAX).collect();
            let added = self.subscribers.replace(owner, topics);
            new.of_ours.extend(self.own.topics().filter(|topic| added.contains(*topic)).cloned());
            let shared = added.intersection(&self.subscribed);
            if shared.into_iter().any(|topic| self.subscribers.of(topic).len() == 1) {
                new.fellows.insert(owner);
            }
        }
        new
    }

    /// The topics that `owner` says it subscribes to.
    fn told_by(&self, owner: Id) -> BTreeSet<Topic> {
        let shelf = self.table.shelf(NODES);
        let rows = (0..SUBSCRIPTION_ROWS).filter_map(|part| shelf?.row(owner, &key_of(part)));
        let told = rows
            .filter_map(|(_, cell)| covey_wire::decode::<BTreeSet<Topic>, ROW_BYTES_MAX>(&cell.payload).ok());
        told.flatten().collect()
    }

    /// A member began a new life: what it said in the last one counts until `until`.
    pub fn renewed(&mut self, owner: Id, until: Instant) {
        self.settling.insert(owner, until);
    }

    /// Drops what members said in lives that are over for long enough.
    pub fn expire(&mut self, now: Instant, members: &Members) -> Vec<Changed> {
        let over: BTreeMap<Id, u64> = self
            .settling
            .extract_if(.., |_, until| *until <= now)
            .filter_map(|(owner, _)| Some((owner, members.get(owner)?.peer.incarnation)))
            .collect();
        if over.is_empty() {
            return Vec::new();
        }
        self.table.drop_batches(|_, owner, version| {
            over.get(&owner).is_some_and(|life| version.incarnation < *life)
        })
    }

    /// A member left: what it said until then is void.
    pub fn left(&mut self, peer: &Peer) -> Vec<Changed> {
        self.settling.remove(&peer.id);
        self.table
            .drop_batches(|_, owner, version| owner == peer.id && version.incarnation <= peer.incarnation)
    }

    /// A node is no member any more.
    pub fn forget(&mut self, id: Id) -> Vec<Changed> {
        self.settling.remove(&id);
        self.table.drop_batches(|_, owner, _| owner == id)
    }

    pub fn iter<'a>(&'a self, topic: &str, members: &'a Members) -> impl Iterator<Item = Row<'a>> {
        let rows = self.table.shelf(topic).into_iter().flat_map(|shelf| shelf.rows());
        rows.map(|(owner, key, cell)| self.view(owner, key, cell, members))
    }

    pub fn get<'a>(&'a self, topic: &str, owner: Id, key: &str, members: &Members) -> Option<Row<'a>> {
        let (key, cell) = self.table.shelf(topic)?.row(owner, key)?;
        Some(self.view(owner, key, cell, members))
    }

    fn view<'a>(&self, owner: Id, key: &'a str, cell: &'a Cell, members: &Members) -> Row<'a> {
        let suspended = owner != self.me && !members.is_live(owner);
        Row { owner, key, payload: &cell.payload, version: cell.version, suspended }
    }
}
