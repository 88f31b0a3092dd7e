//! A network of machines in virtual time: one heap of events, with seeded loss, delay, partition and death.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::SocketAddr,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use covey_gossip::{
    Config, DATAGRAM_BYTES_MAX, Gossip, Liveness, MESSAGE_BYTES_MAX, MemberEvent, Myself, Output, Rights,
    Topic,
};
use covey_wire::Id;
use ed25519_dalek::SigningKey;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

pub const MS: Duration = Duration::from_millis(1);
pub const SECOND: Duration = Duration::from_secs(1);

/// One way between two nodes of a LAN.
const LAN: Range<Duration> = Duration::from_micros(200)..Duration::from_micros(1500);
/// The same across the world.
pub const WORLD: Range<Duration> = Duration::from_millis(10)..Duration::from_millis(200);
/// What a stream waits for when a packet of it is lost.
const RETRANSMISSION: Duration = Duration::from_millis(60);
const FSYNC: Duration = Duration::from_millis(5);

const PROPER: &str = "machines send only what they understand";

pub fn id(node: usize) -> Id {
    // Spread over the whole range, as real ones are.
    Id::new((node as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

pub fn signer(node: usize) -> SigningKey {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&(node as u64).to_le_bytes());
    SigningKey::from_bytes(&key)
}

pub fn address(node: usize) -> SocketAddr {
    ([10, 0, (node >> 8) as u8, node as u8], 2377).into()
}

enum What {
    Datagram(usize, Bytes),
    Push(usize, Bytes),
    Request(usize, Bytes),
    Reply(usize, Vec<u8>),
    Persisted(u64),
    Lost(usize),
    Wake,
}

struct Event {
    at: Instant,
    order: u64,
    node: usize,
    /// Which life of the node it is for.
    life: u64,
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub struct Node {
    pub gossip: Gossip,
    pub is_running: bool,
    pub stalled_until: Option<Instant>,
    /// Nodes of different sides do not reach each other.
    pub side: usize,
    pub sent_bytes: usize,
    pub events: Vec<(Instant, MemberEvent)>,
    /// Topics that were heard whole, and how many rows they had then.
    pub heard: Vec<(Instant, Topic, usize)>,
    /// Those of whom it was told last that they are up.
    up: BTreeSet<Id>,
    life: u64,
    on_disk: u64,
    wakes_at: Option<Instant>,
}

/// A row that came, changed or went on a node.
pub struct News {
    pub at: Instant,
    pub node: usize,
    pub owner: usize,
    pub key: Arc<str>,
    pub payload: Option<Bytes>,
}

pub struct World {
    pub now: Instant,
    /// Rows of topics that not everybody subscribes to by itself.
    pub news: Vec<News>,
    /// What those may write who are introduced from now on.
    pub rights: Rights,
    pub nodes: Vec<Node>,
    pub loss: f64,
    delay: Range<Duration>,
    config: Config,
    index: BTreeMap<Id, usize>,
    /// The keys of those who were introduced.
    owners: BTreeMap<usize, [u8; 32]>,
    queue: BinaryHeap<Reverse<Event>>,
    order: u64,
    rng: Xoshiro256PlusPlus,
    test: &'static str,
    seed: u64,
}

/// Runs a test once for each seed, or for the one in the environment.
pub fn with_seeds(test: &'static str, seeds: Range<u64>, run: impl Fn(u64, &'static str)) {
    match std::env::var("COVEY_SEED") {
        Ok(seed) => run(seed.parse().expect("COVEY_SEED is a number"), test),
        Err(_) => seeds.for_each(|seed| run(seed, test)),
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { test, seed, .. } = self;
            eprintln!("to repeat: COVEY_SEED={seed} cargo test -p covey-gossip --test sim {test}");
        }
    }
}

impl World {
    #[expect(
        clippy::disallowed_methods,
        reason = "time has no zero, and virtual time needs an instant to count from"
    )]
    fn new(test: &'static str, seed: u64, config: Config) -> Self {
        Self {
            now: Instant::now(),
            news: Vec::new(),
            rights: rights(),
            nodes: Vec::new(),
            loss: 0.0,
            delay: LAN,
            config,
            index: BTreeMap::new(),
            owners: BTreeMap::new(),
            queue: BinaryHeap::new(),
            order: 0,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            test,
            seed,
        }
    }

    /// A world of `count` nodes that all joined by the first three, have met.
    pub fn grown(test: &'static str, seed: u64, count: usize) -> Self {
        Self::grown_with(test, seed, count, Config::lan(), LAN)
    }

    /// The same with other patience and distances.
    pub fn grown_with(
        test: &'static str,
        seed: u64,
        count: usize,
        config: Config,
        delay: Range<Duration>,
    ) -> Self {
        let mut world = Self::new(test, seed, config);
        world.delay = delay;
        for _ in 0..count {
            world.add();
        }
        world.run_until(60 * SECOND, "everybody to meet", Self::all_see_all);
        world
    }

    pub fn add(&mut self) -> usize {
        let node = self.nodes.len();
        self.index.insert(id(node), node);
        let gossip = self.machine(node, 1);
        self.nodes.push(Node {
            gossip,
            is_running: true,
            stalled_until: None,
            side: 0,
            sent_bytes: 0,
            events: Vec::new(),
            heard: Vec::new(),
            up: BTreeSet::new(),
            life: 0,
            on_disk: 1,
            wakes_at: None,
        });
        self.join(node);
        node
    }

    /// Tells everybody whose signature counts for `owner`.
    pub fn introduce(&mut self, owner: usize) {
        self.introduce_with_key_of(owner, owner);
    }

    /// The same, with the key of another.
    pub fn introduce_with_key_of(&mut self, owner: usize, signing: usize) {
        let key = signer(signing).verifying_key().to_bytes();
        self.owners.insert(owner, key);
        (0..self.nodes.len()).for_each(|node| self.learn(node, owner, &key));
    }

    fn learn(&mut self, node: usize, owner: usize, key: &[u8; 32]) {
        let (now, rights) = (self.now, self.rights.clone());
        self.with(node, |gossip| gossip.learn_owner(now, id(owner), key, rights));
    }

    fn machine(&mut self, node: usize, incarnation: u64) -> Gossip {
        let myself = Myself { id: id(node), incarnation, address: address(node), signer: signer(node) };
        Gossip::new(self.now, self.config.clone(), myself, self.rng.random())
    }

    fn join(&mut self, node: usize) {
        let seeds = (0..3).filter(|seed| *seed != node).map(|seed| (id(seed), address(seed))).collect();
        let now = self.now;
        self.with(node, |gossip| gossip.join(now, seeds));
    }

    /// The whole host dies at once.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].is_running = false;
        self.nodes[node].life += 1;
    }

    /// The host dies, and after `idle` those that kept a connection to it notice.
    pub fn kill_with_lost_connections(&mut self, node: usize, idle: Duration) {
        let kept = self.nodes[node].gossip.partners();
        self.kill(node);
        for other in self.running() {
            if kept.contains(&id(other)) || self.nodes[other].gossip.partners().contains(&id(node)) {
                self.queue(self.now + idle, other, What::Lost(node));
            }
        }
    }

    /// All connections that `node` keeps, and that others keep to it, are lost, though everybody lives.
    pub fn lose_connections(&mut self, node: usize) {
        for other in 0..self.nodes.len() {
            let kept = self.nodes[node].gossip.partners().contains(&id(other));
            if kept || self.nodes[other].gossip.partners().contains(&id(node)) {
                self.queue(self.now, node, What::Lost(other));
                self.queue(self.now, other, What::Lost(node));
            }
        }
    }

    /// The node does nothing for a while; what reaches it waits.
    pub fn stall(&mut self, node: usize, time: Duration) {
        self.nodes[node].stalled_until = Some(self.now + time);
    }

    /// The host starts again, in its next incarnation.
    pub fn restart(&mut self, node: usize) {
        let incarnation = self.nodes[node].on_disk + 1;
        let gossip = self.machine(node, incarnation);
        let state = &mut self.nodes[node];
        *state = Node {
            gossip,
            is_running: true,
            stalled_until: None,
            side: state.side,
            sent_bytes: 0,
            events: Vec::new(),
            heard: Vec::new(),
            up: BTreeSet::new(),
            life: state.life + 1,
            on_disk: incarnation,
            wakes_at: None,
        };
        for (owner, key) in self.owners.clone() {
            self.learn(node, owner, &key);
        }
        self.join(node);
    }

    pub fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].is_running).collect()
    }

    /// Does something with a machine, then carries out what it wants.
    pub fn with<T>(&mut self, node: usize, act: impl FnOnce(&mut Gossip) -> T) -> T {
        let result = act(&mut self.nodes[node].gossip);
        while let Some(output) = self.nodes[node].gossip.poll_output() {
            self.carry_out(node, output);
        }
        let due = self.nodes[node].gossip.poll_timeout();
        let sooner = due.filter(|due| self.nodes[node].wakes_at.is_none_or(|wakes_at| *due < wakes_at));
        if let Some(due) = sooner {
            self.nodes[node].wakes_at = Some(due);
            self.queue(due, node, What::Wake);
        }
        result
    }

    pub fn set_row(&mut self, node: usize, topic: &Topic, key: &str, payload: &'static str) {
        self.with(node, |gossip| gossip.set_row(topic, key, Bytes::from_static(payload.as_bytes())))
            .expect("a row within its bounds");
    }

    fn queue(&mut self, at: Instant, node: usize, what: What) {
        let life = self.nodes[node].life;
        self.queue.push(Reverse(Event { at, order: self.order, node, life, what }));
        self.order += 1;
    }

    fn carry_out(&mut self, from: usize, output: Output) {
        match output {
            Output::Datagram { to, bytes, .. } => {
                assert!(bytes.len() <= DATAGRAM_BYTES_MAX, "a datagram of {} bytes", bytes.len());
                if !self.rng.random_bool(self.loss) {
                    self.send(from, to, bytes.len(), What::Datagram(from, bytes));
                }
            }
            Output::Push { to, bytes, .. } => {
                assert!(bytes.len() <= MESSAGE_BYTES_MAX, "a push of {} bytes", bytes.len());
                self.send(from, to, bytes.len(), What::Push(from, bytes));
            }
            Output::Request { to, bytes, .. } => {
                assert!(bytes.len() <= MESSAGE_BYTES_MAX, "a request of {} bytes", bytes.len());
                self.send(from, to, bytes.len(), What::Request(from, bytes));
            }
            Output::Persist { incarnation } => {
                self.queue(self.now + FSYNC, from, What::Persisted(incarnation))
            }
            Output::Heard { topic } => {
                let rows = self.nodes[from].gossip.rows(topic.as_str()).count();
                self.nodes[from].heard.push((self.now, topic, rows));
            }
            Output::Member(event) => {
                let node = &mut self.nodes[from];
                node.events.push((self.now, event));
                match event {
                    MemberEvent::Up { id, .. } => _ = node.up.insert(id),
                    MemberEvent::Down { id, .. } | MemberEvent::Left { id, .. } => _ = node.up.remove(&id),
                }
            }
            Output::Row { owner, topic, key } => {
                let own = owner == id(from);
                let row = self.nodes[from].gossip.row(topic.as_str(), owner, &key);
                assert!(row.is_none_or(|row| row.suspended || own || self.nodes[from].up.contains(&owner)));
                if topic != Topic::nodes() {
                    let payload = row.map(|row| row.payload.clone());
                    let owner = self.index[&owner];
                    self.news.push(News { at: self.now, node: from, owner, key, payload });
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: Id, bytes: usize, what: What) {
        self.nodes[from].sent_bytes += bytes;
        let Some(to) = self.index.get(&to).copied() else { return };
        let mut at = self.now + self.rng.random_range(self.delay.clone());
        if !matches!(what, What::Datagram(..)) {
            while self.rng.random_bool(self.loss) {
                at += RETRANSMISSION;
            }
        }
        self.queue(at, to, what);
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        self.nodes[from].is_running
            && self.nodes[to].is_running
            && self.nodes[from].side == self.nodes[to].side
    }

    fn happen(&mut self, event: Event) {
        let Event { at, node, life, what, .. } = event;
        if life != self.nodes[node].life {
            return;
        }
        if let Some(until) = self.nodes[node].stalled_until.filter(|until| *until > at) {
            return self.queue(until, node, what);
        }
        let now = self.now;
        match what {
            What::Datagram(from, bytes) if self.reaches(from, node) => {
                self.with(node, |gossip| gossip.handle_datagram(now, id(from), &bytes)).expect(PROPER);
            }
            What::Push(from, bytes) if self.reaches(from, node) => {
                self.with(node, |gossip| gossip.handle_push(now, id(from), &bytes)).expect(PROPER);
            }
            What::Request(from, bytes) if self.reaches(from, node) => {
                let reply =
                    self.with(node, |gossip| gossip.handle_request(now, id(from), &bytes)).expect(PROPER);
                assert!(reply.len() <= MESSAGE_BYTES_MAX, "a reply of {} bytes", reply.len());
                self.send(node, id(from), reply.len(), What::Reply(node, reply));
            }
            What::Reply(from, bytes) if self.reaches(from, node) => {
                self.with(node, |gossip| gossip.handle_reply(now, id(from), &bytes)).expect(PROPER);
            }
            What::Persisted(incarnation) => {
                self.nodes[node].on_disk = incarnation;
                self.with(node, |gossip| gossip.handle_persisted(now, incarnation));
            }
            What::Lost(other) => self.with(node, |gossip| gossip.handle_lost(now, id(other))),
            What::Wake => {
                self.nodes[node].wakes_at = None;
                let due = self.nodes[node].gossip.poll_timeout().is_some_and(|due| due <= now);
                self.with(node, |gossip| {
                    if due {
                        gossip.handle_timeout(now)
                    }
                });
            }
            _ => {}
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.queue.peek().is_some_and(|Reverse(event)| event.at <= end) {
            let Some(Reverse(event)) = self.queue.pop() else { break };
            self.now = self.now.max(event.at);
            self.happen(event);
        }
        self.now = end;
    }

    /// Runs until something is true, and tells how long that took.
    pub fn run_until(&mut self, limit: Duration, what: &str, is_true: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now;
        while !is_true(self) {
            assert!(self.now - start < limit, "waited {limit:?} for {what}");
            self.run_for(100 * MS);
        }
        self.now - start
    }

    /// What each running node thinks of `node`.
    pub fn views(&self, node: usize) -> BTreeMap<usize, Option<Liveness>> {
        let view = |other: usize| self.nodes[other].gossip.members().find(|member| member.id == id(node));
        let others = self.running().into_iter().filter(|other| *other != node);
        others.map(|other| (other, view(other).map(|member| member.liveness))).collect()
    }

    pub fn all_see(&self, node: usize, liveness: Liveness) -> bool {
        self.views(node).values().all(|view| *view == Some(liveness))
    }

    pub fn all_see_all(&self) -> bool {
        let running = self.running();
        running.iter().all(|node| {
            let live = self.nodes[*node].gossip.members().filter(|member| member.liveness.is_live());
            live.count() == running.len() - 1
        })
    }

    /// Whether every running node of `readers` shows what `owner` says under `key`.
    pub fn all_read(
        &self,
        readers: &[usize],
        owner: usize,
        topic: &str,
        key: &str,
        payload: Option<&str>,
    ) -> bool {
        readers.iter().filter(|reader| self.nodes[**reader].is_running).all(|reader| {
            let row = self.nodes[*reader].gossip.row(topic, id(owner), key).filter(|row| !row.suspended);
            row.map(|row| &row.payload[..]) == payload.map(str::as_bytes)
        })
    }

    /// Whether all of `readers` hold such a row, or none does, shown or not.
    pub fn all_hold(&self, readers: &[usize], owner: usize, topic: &str, key: &str, held: bool) -> bool {
        readers.iter().all(|reader| self.nodes[*reader].gossip.row(topic, id(owner), key).is_some() == held)
    }

    /// Deaths that were declared of nodes that ran.
    pub fn deaths(&self) -> Vec<(usize, MemberEvent)> {
        let deaths = |node: usize| {
            let events = self.nodes[node].events.iter().map(|(_, event)| *event);
            events.filter(|event| matches!(event, MemberEvent::Down { .. })).map(move |event| (node, event))
        };
        self.running().into_iter().flat_map(deaths).collect()
    }
}

fn rights() -> Rights {
    Rights::Only(["tasks", "network"].map(|topic| topic.parse().expect("a topic")).into())
}
