//! The machine: takes what comes in to the part that it concerns, and gathers what comes out.

use std::{collections::VecDeque, net::SocketAddr, time::Instant};

use bytes::Bytes;
use covey_wire::Id;
use ed25519_dalek::SigningKey;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::{
    broadcast,
    config::{Config, MESSAGE_BYTES_MAX, OUTPUTS_MAX, SEEDS_MAX},
    error::{MessageError, RowError},
    exchange,
    hearing::Hearing,
    member::{Liveness, Member, Members, Peer},
    message::{self, Repair, Wants},
    output::Output,
    own::Own,
    owner::Rights,
    retelling::Retelling,
    row::{Row, Signed},
    rows::{Rows, Verdict},
    swim::{Swim, SwimEvent},
    table::Changed,
    topic::Topic,
};

mod rounds;
#[cfg(test)]
mod tests;

/// The incarnation of a node that never spoke before.
const FIRST_LIFE: u64 = 1;
/// How many times as often a node compares that still has to hear a topic.
const HEARING_PACE: u32 = 10;
/// Readers of a topic that are asked at once when it is subscribed to.
const SEEKS_AT_ONCE: usize = 3;
/// What a node only writes is compared with its readers ever more seldom, down to once in so many rounds.
const CHECK_ROUNDS_MAX: u32 = 16;

/// Who this node is.
#[derive(Debug, Clone)]
pub struct Myself {
    /// The node's id for life.
    pub id: Id,
    /// The life that begins now: larger than any before, and already on disk.
    pub incarnation: u64,
    /// Where the others reach this node.
    pub address: SocketAddr,
    /// Signs this node's rows.
    pub signer: SigningKey,
}

/// The gossip machine of one node.
pub struct Gossip {
    config: Config,
    id: Id,
    swim: Swim,
    members: Members,
    rows: Rows,
    hearing: Hearing,
    retelling: Retelling,
    seeds: Vec<(Id, SocketAddr)>,
    /// The incarnation that is being written to disk.
    pending: Option<u64>,
    has_left: bool,
    /// The latest time that anybody told.
    now: Instant,
    next_round: Instant,
    next_check: Instant,
    check_rounds: u32,
    /// Where the last digest ended that could not carry all topics.
    last_compared: Option<Topic>,
    rng: Xoshiro256PlusPlus,
    outputs: VecDeque<Output>,
}

impl Gossip {
    /// A machine that knows nobody yet. `myself.incarnation` must be on disk already; all randomness comes from
    /// `seed`, which should differ from node to node.
    pub fn new(now: Instant, config: Config, myself: Myself, seed: u64) -> Self {
        let Myself { id, incarnation, address, signer } = myself;
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let me = Peer { id, incarnation, address, left: false };
        let mut hearing = Hearing::default();
        hearing.begin(Topic::nodes(), now, config.sync_period);
        Self {
            swim: Swim::new(now, config.clone(), me, rng.random()),
            members: Members::default(),
            rows: Rows::new(id, Own::new(id, signer)),
            hearing,
            retelling: Retelling::new(config.sync_period),
            seeds: Vec::new(),
            pending: None,
            has_left: false,
            now,
            next_round: now + (config.sync_period / HEARING_PACE).mul_f64(rng.random()),
            next_check: now + config.sync_period,
            check_rounds: 1,
            last_compared: None,
            rng,
            outputs: VecDeque::new(),
            config,
            id,
        }
    }

    /// Joins the nodes that `peers` name: asks some of them for all members and rows, and asks again whenever nobody else
    /// is alive. Only the first [`SEEDS_MAX`] are remembered.
    pub fn join(&mut self, now: Instant, peers: Vec<(Id, SocketAddr)>) {
        self.wake(now);
        if self.has_left {
            return;
        }
        self.seeds = peers.into_iter().filter(|(id, _)| *id != self.id).take(SEEDS_MAX).collect();
        if self.seeds.is_empty() && self.incarnation() <= FIRST_LIFE {
            // The first node of all: nobody knows more.
            self.end_hearing(&Topic::nodes());
        }
        self.ask_seeds();
    }

    /// Says good-bye: the others drop this node's rows at once. Nothing is sent or heard after these last outputs.
    pub fn leave(&mut self, now: Instant) {
        self.has_left = true;
        self.swim.leave(now);
        self.pump(now);
    }

    /// A datagram came in from the node that its connection authenticates.
    ///
    /// # Errors
    /// See [`MessageError`]; the datagram is dropped. Unknown kinds are ignored.
    pub fn handle_datagram(&mut self, now: Instant, from: Id, bytes: &[u8]) -> Result<(), MessageError> {
        self.hear(now, from);
        let (kind, packet) = message::split(bytes)?;
        if kind != message::SWIM || self.has_left {
            return Ok(());
        }
        let result = self.swim.handle_packet(now, from, packet);
        self.pump(now);
        result
    }

    /// A pushed message came in from the node that its connection authenticates.
    ///
    /// # Errors
    /// See [`MessageError`]; the message is dropped. Unknown kinds are ignored, as are rows that do not count.
    pub fn handle_push(&mut self, now: Instant, from: Id, bytes: &[u8]) -> Result<(), MessageError> {
        self.hear(now, from);
        match message::split(bytes)? {
            _ if self.has_left => {}
            (message::FRESH, body) => self.take_fresh(from, message::read(body)?),
            (message::REPAIR, body) => self.take_repair(now, message::read(body)?),
            _ => {}
        }
        Ok(())
    }

    /// A request came in from the node that its connection authenticates; returns the reply. An empty one answers
    /// unknown kinds.
    ///
    /// # Errors
    /// See [`MessageError`]; the request should be closed without a reply.
    pub fn handle_request(&mut self, now: Instant, from: Id, bytes: &[u8]) -> Result<Vec<u8>, MessageError> {
        self.hear(now, from);
        match message::split(bytes)? {
            _ if self.has_left => Ok(Vec::new()),
            (message::DIGEST, body) => self.answer(now, from, &message::read(body)?),
            (message::WANTS, body) => Ok(exchange::serve(&message::read::<Wants>(body)?, &self.rows)),
            _ => Ok(Vec::new()),
        }
    }

    /// The reply to a request came in.
    ///
    /// # Errors
    /// See [`MessageError`]; the reply is dropped. Unknown kinds are ignored.
    pub fn handle_reply(&mut self, now: Instant, from: Id, bytes: &[u8]) -> Result<(), MessageError> {
        self.hear(now, from);
        if bytes.is_empty() || self.has_left {
            return Ok(());
        }
        match message::split(bytes)? {
            (message::DIFFERENCES, body) => self.compare(now, from, message::read(body)?),
            (message::ROWS, body) => {
                let (news, known) = self.accept(message::read::<message::Rows>(body)?.batches);
                let lacks = self.fulfil(now, from);
                match self.hearing.is_urgent(now) {
                    // Not all of it fits into one message; some may have come another way.
                    true if lacks && (known || !news.is_empty()) => self.ask(from),
                    true => self.seek(now),
                    false if !news.is_empty() && bytes.len() > MESSAGE_BYTES_MAX / 2 => self.hasten(now),
                    false => {}
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A connection that was kept to `peer` is lost: a hint that it may be dead.
    pub fn handle_lost(&mut self, now: Instant, peer: Id) {
        self.wake(now);
        self.swim.lost(now, peer);
        self.pump(now);
    }

    /// The incarnation of [`Output::Persist`] is on disk.
    pub fn handle_persisted(&mut self, now: Instant, incarnation: u64) {
        self.wake(now);
        if self.pending != Some(incarnation) || self.has_left {
            return;
        }
        self.pending = None;
        self.swim.renew(now, incarnation);
        self.rows.own.rewrite();
        self.pump(now);
    }

    /// Does what is due. To be called at [`Gossip::poll_timeout`], not before.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.wake(now);
        if self.has_left {
            return;
        }
        self.swim.handle_timeout(now);
        self.pump(now);
        if now >= self.next_round {
            let pace = if self.hearing.is_urgent(now) { HEARING_PACE } else { 1 };
            let period = self.config.sync_period / pace;
            self.next_round = now + period.mul_f64(self.rng.random_range(0.75..1.25));
            self.begin_round(now);
        }
        self.settle_hearing(now);
        self.retell(now);
        if now >= self.next_check {
            self.check_rounds = (self.check_rounds * 2).min(CHECK_ROUNDS_MAX);
            self.next_check = now + self.config.sync_period * self.check_rounds;
            self.check();
        }
    }

    /// When [`Gossip::handle_timeout`] is to be called next. May change with every call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let rounds = [self.next_round, self.next_check];
        self.swim
            .poll_timeout()
            .into_iter()
            .chain(rounds)
            .chain(self.retelling.next())
            .min()
            .filter(|_| !self.has_left)
    }

    /// The next thing to be done. Rows that were written since the last time are signed and sent together.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() && !self.has_left {
            self.flush();
        }
        self.outputs.pop_front()
    }

    /// Learns whose signature counts for the rows of `id`, and which topics it may write. Tells whether the key is one,
    /// and there is room.
    pub fn learn_owner(&mut self, now: Instant, id: Id, public_key: &[u8; 32], rights: Rights) -> bool {
        self.wake(now);
        let learned = self.rows.owners.learn(id, public_key, rights);
        if learned && self.members.is_live(id) {
            self.hasten(now);
        }
        learned
    }

    /// Forgets an owner; its rows are dropped, and no new ones taken.
    pub fn forget_owner(&mut self, id: Id) {
        self.rows.owners.forget(id);
        let changed = self.rows.forget(id);
        self.tell(changed);
    }

    /// Writes a row of this node. The others hear of it after the next [`Gossip::poll_output`].
    ///
    /// # Errors
    /// See [`RowError`]; nothing is written.
    pub fn set_row(&mut self, topic: &Topic, key: &str, payload: Bytes) -> Result<(), RowError> {
        self.rows.own.set(topic, key, payload)
    }

    /// Takes back a row of this node, if there is one.
    pub fn withdraw_row(&mut self, topic: &Topic, key: &str) {
        self.rows.own.withdraw(topic, key);
    }

    /// Says nothing of its own until it is [released](Self::release). A node that begins anew tells all that it told
    /// before at once: what others know of it from its last life counts until then.
    pub const fn hold(&mut self) {
        self.rows.own.hold(true);
    }

    /// Says all that there is to say, and from now on whatever is new.
    pub const fn release(&mut self) {
        self.rows.own.hold(false);
    }

    /// Subscribes to a topic: its rows come soon. To [`NODES`](crate::NODES) every node is subscribed.
    ///
    /// # Errors
    /// See [`RowError`]; nothing changes.
    pub fn subscribe(&mut self, now: Instant, topic: &Topic) -> Result<(), RowError> {
        self.wake(now);
        if self.rows.subscribed.contains(topic) {
            return Ok(());
        }
        self.rows.subscribe(topic, true)?;
        self.hearing.begin(topic.clone(), now, self.config.sync_period);
        self.settle_hearing(now);
        if self.hearing.has(topic) {
            self.next_round = self.next_round.min(now + self.config.sync_period / HEARING_PACE);
            if (0..SEEKS_AT_ONCE).take_while(|_| self.seek_for(topic)).count() == 0 {
                self.hasten(now);
            }
        }
        Ok(())
    }

    /// Drops a topic with all rows of others in it.
    ///
    /// # Errors
    /// See [`RowError`]; nothing changes.
    pub fn unsubscribe(&mut self, topic: &Topic) -> Result<(), RowError> {
        let changed = self.rows.subscribe(topic, false)?;
        self.hearing.end(topic);
        self.tell(changed);
        Ok(())
    }

    /// This node's id.
    pub const fn id(&self) -> Id {
        self.id
    }

    /// This node's present incarnation.
    pub const fn incarnation(&self) -> u64 {
        self.swim.me().incarnation
    }

    /// All other members that are not forgotten, dead ones included.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.swim.members().filter_map(|member| {
            let known = self.members.get(member.id().id)?;
            let suspected = known.liveness == Liveness::Alive && member.state() == foca::State::Suspect;
            let liveness = if suspected { Liveness::Suspect } else { known.liveness };
            let Peer { id, incarnation, address, .. } = known.peer;
            Some(Member { id, incarnation, address, liveness, since: known.since })
        })
    }

    /// The rows of a topic, by owner and key: this node's own, and everyone's if it subscribes.
    pub fn rows(&self, topic: &str) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter(topic, &self.members)
    }

    /// One row.
    pub fn row(&self, topic: &str, owner: Id, key: &str) -> Option<Row<'_>> {
        self.rows.get(topic, owner, key, &self.members)
    }

    /// The live members to whom connections should be kept, at most [`PARTNERS_MAX`](crate::PARTNERS_MAX): losing
    /// one is the fastest sign of a death. They change only as members come and go.
    pub fn partners(&self) -> Vec<Id> {
        self.members.partners(self.id)
    }

    fn wake(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.swim.wake(now);
    }

    fn hear(&mut self, now: Instant, from: Id) {
        self.wake(now);
        self.swim.heard(now, from);
    }

    fn take_fresh(&mut self, from: Id, rows: message::Rows) {
        let (news, _) = self.accept(rows.batches);
        self.push(news, &[from]);
    }

    fn take_repair(&mut self, now: Instant, repair: Repair) {
        self.swim.apply(now, repair.members);
        self.pump(now);
        self.accept(repair.batches);
    }

    /// Whoever says who it is must be who its connection says; and it is alive.
    fn meet(&mut self, now: Instant, from: Id, sender: &Peer) -> Result<(), MessageError> {
        if sender.id != from {
            return Err(MessageError::Impostor { claimed: sender.id, from });
        }
        self.swim.apply(now, vec![foca::Member::alive(sender.clone())]);
        self.pump(now);
        Ok(())
    }

    /// Takes batches that count; returns those that are news, and whether any was here already.
    fn accept(&mut self, batches: Vec<Signed>) -> (Vec<(Topic, Signed)>, bool) {
        let (mut news, mut known) = (Vec::new(), false);
        for signed in batches {
            match self.rows.accept(&signed, &self.members, self.incarnation()) {
                Verdict::Taken(topic, changed) => {
                    self.tell(changed);
                    news.push((topic, signed));
                }
                Verdict::Overtaken(incarnation) => self.raise(incarnation),
                Verdict::Refused(reason) => tracing::debug!(reason, "rows refused"),
                Verdict::Needless => known = true,
            }
        }
        (news, known)
    }

    /// Signs what this node has to say, and sends it on its way.
    fn flush(&mut self) {
        if !self.rows.own.is_dirty() {
            return;
        }
        let mut fresh = Vec::new();
        for (batch, signed) in self.rows.own.flush(self.incarnation()) {
            self.retelling.note_told(self.now, batch.topic.clone(), batch.number);
            fresh.push((batch.topic.clone(), signed.clone()));
            let changed = self.rows.table.put(batch, signed);
            self.tell(changed);
        }
        self.push(fresh, &[]);
        self.check_soon(self.config.sync_period);
    }

    fn push(&mut self, fresh: Vec<(Topic, Signed)>, except: &[Id]) {
        let fan_out = self.config.fan_out;
        let pushes = broadcast::plan(
            self.id,
            fresh,
            &self.members,
            &self.rows.subscribers,
            fan_out,
            except,
            &mut self.rng,
        );
        for (peer, bytes) in pushes {
            self.send(Output::Push { to: peer.id, address: peer.address, bytes: bytes.into() });
        }
    }

    /// Carries out what SWIM wants.
    fn pump(&mut self, now: Instant) {
        while let Some(event) = self.swim.poll_event() {
            match event {
                SwimEvent::Send { to, packet } => {
                    let bytes = message::write_datagram(&packet).into();
                    self.send(Output::Datagram { to: to.id, address: to.address, bytes });
                }
                SwimEvent::Up(peer) => self.put(now, peer, Liveness::Alive),
                SwimEvent::Down(peer) => self.put(now, peer, Liveness::Down),
                SwimEvent::Left(peer) => self.part(now, peer),
                SwimEvent::Forgotten(id) => self.forget(id),
                SwimEvent::Connected => self.rows.own.rewrite(),
                SwimEvent::Overtaken(incarnation) => self.raise(incarnation),
            }
        }
    }

    fn put(&mut self, now: Instant, peer: Peer, liveness: Liveness) {
        let (id, incarnation) = (peer.id, peer.incarnation);
        let (before, event) = self.members.put(now, peer, liveness);
        if before.is_some_and(|before| before.peer.incarnation < incarnation) {
            self.rows.renewed(id, now + self.config.stale_after);
        }
        self.outputs.extend(event.map(Output::Member));
    }

    fn part(&mut self, now: Instant, peer: Peer) {
        let changed = self.rows.left(&peer);
        self.put(now, peer, Liveness::Left);
        self.tell(changed);
    }

    fn forget(&mut self, id: Id) {
        self.members.forget(id);
        let changed = self.rows.forget(id);
        self.tell(changed);
    }

    fn tell(&mut self, changed: Vec<Changed>) {
        let readers = self.rows.note_subscriptions(&changed);
        readers.of_ours.iter().for_each(|topic| self.retelling.note_readers(self.now, topic));
        if !readers.of_ours.is_empty() {
            let within = self.config.sync_period.mul_f64(self.rng.random_range(0.02..1.0));
            self.check_soon(within);
        }
        readers.fellows.into_iter().for_each(|fellow| self.ask(fellow));
        let rows = changed.into_iter().map(|Changed { owner, topic, key }| Output::Row { owner, topic, key });
        self.outputs.extend(rows);
    }

    /// This node must go on in a later life than `over`: once that is on disk.
    fn raise(&mut self, over: u64) {
        let Some(incarnation) = over.max(self.incarnation()).checked_add(1) else { return };
        if self.has_left || self.pending.is_some_and(|pending| pending >= incarnation) {
            return;
        }
        self.pending = Some(incarnation);
        self.outputs.push_back(Output::Persist { incarnation });
    }

    /// Messages may be lost anyway; when nobody polls, they are.
    fn send(&mut self, output: Output) {
        if self.outputs.len() < OUTPUTS_MAX {
            self.outputs.push_back(output);
        }
    }
}
