//! The gossip loop: owns the gossip machine, carries what it wants sent, and passes on what it hears.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use covey_gossip::{Gossip, MESSAGE_BYTES_MAX, Myself, Output, Rights, Topic};
use covey_gossip_quic::{Endpoint, read_frame, write_frame};
use covey_state::{Id, task::TaskStatus};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::{
    clock,
    endpoint::{ENDPOINT_BYTES_MAX, Endpoint as Told, Scope},
    network::Networks,
    origins::{self, ORIGINS_BYTES_MAX, Origins},
    protocol::kind,
    refused::{self, REFUSED_BYTES_MAX, RefusedPort},
    sight::Sight,
};

/// Inputs that wait for the loop.
const INPUTS_MAX: usize = 4096;
/// Wait after a write of the incarnation that failed.
const PERSIST_AGAIN: Duration = Duration::from_secs(1);
/// Others hear nothing for so long, at most, of a daemon that begins anew and has not gathered all that it has to tell.
/// Meanwhile they go by what the daemon before told: no longer than this is far below the time that gossip keeps that.
const GATHER_WITHIN: Duration = Duration::from_secs(2);
/// Bytes of a task's error or message that are told; the rest stays in the log of its node.
const TEXT_BYTES_MAX: usize = 1024;
/// Bytes of a task's status in a row.
const STATUS_BYTES_MAX: usize = 8 * 1024;

/// The topic of observed task states: written by the tasks' nodes, read by managers.
pub fn tasks_topic() -> Topic {
    // The text is short enough, always.
    "tasks".parse().unwrap_or_else(|_| Topic::nodes())
}

/// What the loop takes.
enum Input {
    Datagram { from: Id, bytes: Bytes },
    Push { from: Id, bytes: Vec<u8> },
    Request { from: Id, bytes: Vec<u8>, reply: oneshot::Sender<Vec<u8>> },
    Reply { from: Id, bytes: Vec<u8> },
    Lost { peer: Id },
    Persisted { incarnation: u64 },
    SetRow { topic: Topic, key: String, payload: Bytes },
    WithdrawRow { topic: Topic, key: String },
    LearnOwner { id: Id, key: [u8; 32] },
    ForgetOwner { id: Id },
    Subscribe { topic: Topic },
    Unsubscribe { topic: Topic },
    Told { part: Part },
    Join { seeds: Vec<(Id, SocketAddr)> },
    Leave { done: oneshot::Sender<()> },
}

/// What a daemon that begins anew has to tell before others may take it that it has told everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Which topics it wants to hear.
    Networks,
    /// How its tasks are, and which others may be sent to.
    Tasks,
    /// Its plain containers in networks of the cluster.
    Containers,
}

/// The way to the loop. It ends when the last one is dropped.
#[derive(Clone)]
pub struct GossipHandle(mpsc::Sender<Input>);

impl GossipHandle {
    async fn send(&self, input: Input) {
        // Fails only when the loop has ended, as after leaving: then nobody is to be told anything.
        let _ = self.0.send(input).await;
    }

    /// A datagram came in; where the loop is far behind it is lost, as datagrams are.
    pub fn datagram(&self, from: Id, bytes: Bytes) {
        let _ = self.0.try_send(Input::Datagram { from, bytes });
    }

    /// Rows came in.
    pub async fn push(&self, from: Id, bytes: Vec<u8>) {
        self.send(Input::Push { from, bytes }).await;
    }

    /// A request came in; `None`: it deserves no answer.
    pub async fn request(&self, from: Id, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Request { from, bytes, reply }).await;
        answer.await.ok()
    }

    /// A kept connection was lost.
    pub async fn lost(&self, peer: Id) {
        self.send(Input::Lost { peer }).await;
    }

    /// Says how a task of this node is.
    pub async fn report(&self, task: Id, status: &TaskStatus) {
        let mut status = status.clone();
        for text in [&mut status.error, &mut status.message] {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        }
        match covey_wire::encode(&status) {
            Ok(bytes) => {
                let payload = bytes.into();
                self.send(Input::SetRow { topic: tasks_topic(), key: task.to_string(), payload }).await;
            }
            Err(error) => tracing::error!(%task, %error, "a task's status cannot be told"),
        }
    }

    /// Takes back what was said of a task.
    pub async fn withdraw(&self, task: Id) {
        self.send(Input::WithdrawRow { topic: tasks_topic(), key: task.to_string() }).await;
    }

    /// Learns a node's key.
    pub async fn learn_owner(&self, id: Id, key: [u8; 32]) {
        self.send(Input::LearnOwner { id, key }).await;
    }

    /// Forgets a node that is no member any more.
    pub async fn forget_owner(&self, id: Id) {
        self.send(Input::ForgetOwner { id }).await;
    }

    /// Tells of an endpoint of this node.
    pub async fn expose(&self, scope: Scope, key: &str, told: &Told) {
        match covey_wire::encode(told) {
            Ok(bytes) => {
                let payload = bytes.into();
                self.send(Input::SetRow { topic: scope.topic(), key: key.to_owned(), payload }).await;
            }
            Err(error) => tracing::error!(key, %error, "an endpoint cannot be told"),
        }
    }

    /// Takes back what was told of an endpoint.
    pub async fn conceal(&self, scope: Scope, key: &str) {
        self.send(Input::WithdrawRow { topic: scope.topic(), key: key.to_owned() }).await;
    }

    /// Says which published ports this host cannot take.
    pub async fn refuse(&self, ports: &[RefusedPort]) {
        let (topic, key) = (refused::topic(), refused::KEY.to_owned());
        if ports.is_empty() {
            return self.send(Input::WithdrawRow { topic, key }).await;
        }
        match covey_wire::encode(&ports) {
            Ok(bytes) => self.send(Input::SetRow { topic, key, payload: bytes.into() }).await,
            Err(error) => tracing::error!(%error, "refused ports cannot be told"),
        }
    }

    /// Says which addresses this host is seen under.
    pub async fn tell_origins(&self, own: &Origins) {
        match covey_wire::encode(own) {
            Ok(bytes) => {
                let (topic, key, payload) = (origins::topic(), origins::KEY.to_owned(), bytes.into());
                self.send(Input::SetRow { topic, key, payload }).await;
            }
            Err(error) => tracing::error!(%error, "this host's addresses cannot be told"),
        }
    }

    /// Wants to hear a topic, or no longer.
    pub async fn hear(&self, topic: Topic, wanted: bool) {
        self.send(if wanted { Input::Subscribe { topic } } else { Input::Unsubscribe { topic } }).await;
    }

    /// Asks some of these for all that they know.
    pub async fn join(&self, seeds: Vec<(Id, SocketAddr)>) {
        self.send(Input::Join { seeds }).await;
    }

    /// All that was there of this when the daemon began has been told.
    pub async fn told(&self, part: Part) {
        self.send(Input::Told { part }).await;
    }

    /// Says goodbye to all.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        self.send(Input::Leave { done }).await;
        let _ = left.await;
    }
}

/// Writes an incarnation to disk; the loop speaks under it only afterwards.
pub type Persist = Arc<dyn Fn(u64) -> anyhow::Result<()> + Send + Sync>;

/// Everything that the loop works with.
pub struct GossipLoop {
    machine: Gossip,
    endpoint: Endpoint,
    sight: Sight,
    network: Networks,
    persist: Persist,
    /// Told whenever connections should be looked over: members came or went.
    partners: tokio::sync::watch::Sender<Vec<Id>>,
    tasks: TaskTracker,
    /// What is still to be gathered before anything is told, and until when that is waited for.
    untold: Option<(BTreeSet<Part>, Instant)>,
    inputs: mpsc::Receiver<Input>,
    back: mpsc::WeakSender<Input>,
}

impl GossipLoop {
    /// A loop for this node; it asks `seeds` for everything they know, and tells what it hears to those two.
    pub fn new(
        myself: Myself,
        config: covey_gossip::Config,
        seeds: Vec<(Id, SocketAddr)>,
        endpoint: Endpoint,
        (sight, network): (Sight, Networks),
        persist: Persist,
        tasks: TaskTracker,
    ) -> (Self, GossipHandle, tokio::sync::watch::Receiver<Vec<Id>>) {
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let (partners, watched) = tokio::sync::watch::channel(Vec::new());
        let now = clock::monotonic();
        let is_first_life = myself.incarnation <= 1;
        let mut machine = Gossip::new(now, config, myself, u64::from_ne_bytes(clock::random()));
        let mut untold = None;
        if !is_first_life {
            machine.hold();
            let parts = [Part::Networks, Part::Tasks, Part::Containers];
            untold = Some((parts.into(), now + GATHER_WITHIN));
        }
        machine.join(now, seeds);
        let back = sender.downgrade();
        (
            Self { machine, endpoint, sight, network, persist, partners, tasks, untold, inputs, back },
            GossipHandle(sender),
            watched,
        )
    }

    /// Runs until nobody holds a handle any more.
    pub async fn run(mut self) {
        loop {
            self.carry_out();
            let gather_until = self.untold.as_ref().map(|(_, until)| *until);
            let due = self.machine.poll_timeout().into_iter().chain(gather_until).min();
            tokio::select! {
                input = self.inputs.recv() => match input {
                    Some(input) => self.handle_together(input),
                    None => return,
                },
                () = clock::until(due) => {
                    let now = clock::monotonic();
                    if gather_until.is_some_and(|until| until <= now) {
                        tracing::warn!(missing = ?self.untold, "what this node has to tell is not all there yet");
                        self.tell_all();
                    }
                    self.machine.handle_timeout(now);
                }
            }
        }
    }

    /// Rows that are taken back one after the other, as those of one task are, go out together: one message to each.
    fn handle_together(&mut self, input: Input) {
        let mut is_withdrawal = matches!(input, Input::WithdrawRow { .. });
        self.handle(input);
        while is_withdrawal && let Ok(next) = self.inputs.try_recv() {
            is_withdrawal = matches!(next, Input::WithdrawRow { .. });
            if !is_withdrawal {
                // A row that is written again is news, though it says the same as before.
                self.carry_out();
            }
            self.handle(next);
        }
    }

    fn handle(&mut self, input: Input) {
        let now = clock::monotonic();
        let heard = match input {
            Input::Datagram { from, bytes } => self.machine.handle_datagram(now, from, &bytes),
            Input::Push { from, bytes } => self.machine.handle_push(now, from, &bytes),
            Input::Reply { from, bytes } => self.machine.handle_reply(now, from, &bytes),
            Input::Request { from, bytes, reply } => {
                self.machine.handle_request(now, from, &bytes).map(|answer| {
                    // Whoever asked may be gone.
                    let _ = reply.send(answer);
                })
            }
            Input::Lost { peer } => return self.machine.handle_lost(now, peer),
            Input::Persisted { incarnation } => return self.machine.handle_persisted(now, incarnation),
            Input::SetRow { topic, key, payload } => {
                if let Err(error) = self.machine.set_row(&topic, &key, payload) {
                    tracing::error!(topic = topic.as_str(), key, %error, "a row cannot be told");
                }
                return;
            }
            Input::WithdrawRow { topic, key } => return self.machine.withdraw_row(&topic, &key),
            Input::LearnOwner { id, key } => {
                if !self.machine.learn_owner(now, id, &key, Rights::All) {
                    tracing::warn!(node = %id, "its key is none, or there are too many nodes");
                }
                return;
            }
            Input::ForgetOwner { id } => return self.machine.forget_owner(id),
            Input::Subscribe { topic } => {
                tracing::debug!(topic = topic.as_str(), "to be heard");
                if let Err(error) = self.machine.subscribe(now, &topic) {
                    tracing::error!(topic = topic.as_str(), %error, "cannot subscribe");
                }
                return;
            }
            Input::Unsubscribe { topic } => {
                if let Err(error) = self.machine.unsubscribe(&topic) {
                    tracing::error!(topic = topic.as_str(), %error, "cannot unsubscribe");
                }
                return;
            }
            Input::Join { seeds } => return self.machine.join(now, seeds),
            Input::Told { part } => {
                if let Some((untold, _)) = &mut self.untold {
                    untold.remove(&part);
                    if untold.is_empty() {
                        self.tell_all();
                    }
                }
                return;
            }
            Input::Leave { done } => {
                self.machine.leave(now);
                self.carry_out();
                let _ = done.send(());
                return;
            }
        };
        if let Err(error) = heard {
            tracing::debug!(%error, "a gossip message was dropped");
        }
    }

    /// What was gathered goes out together.
    fn tell_all(&mut self) {
        self.untold = None;
        self.machine.release();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Datagram { to, address, bytes } => {
                    if let Err(error) = self.endpoint.send_datagram(to, address, bytes) {
                        tracing::error!(%error, "gossip made a datagram that cannot be sent");
                    }
                }
                Output::Push { to, address, bytes } => self.push(to, address, bytes),
                Output::Request { to, address, bytes } => self.request(to, address, bytes),
                Output::Persist { incarnation } => self.persist(incarnation),
                Output::Member(event) => {
                    self.network.handle_member(event);
                    self.sight.handle_member(clock::now(), event);
                    self.partners.send_replace(self.machine.partners());
                }
                Output::Row { owner, topic, key } => self.pass_on(owner, &topic, &key),
                Output::Heard { topic } => {
                    tracing::debug!(topic = topic.as_str(), "heard whole");
                    if let Some(scope) = Scope::of(&topic) {
                        self.network.handle_heard(scope);
                    }
                }
            }
        }
    }

    fn push(&self, to: Id, address: SocketAddr, bytes: Bytes) {
        let endpoint = self.endpoint.clone();
        self.tasks.spawn(async move {
            // What is lost here anti-entropy brings later.
            let sent = async {
                let mut send = endpoint.open_uni(to, address, kind::ROWS).await?;
                write_frame(&mut send, &bytes).await?;
                send.finish()?;
                anyhow::Ok(())
            };
            if let Err(error) = sent.await {
                tracing::debug!(node = %to, %error, "rows were not sent");
            }
        });
    }

    fn request(&self, to: Id, address: SocketAddr, bytes: Bytes) {
        let (endpoint, back) = (self.endpoint.clone(), self.back.clone());
        self.tasks.spawn(async move {
            let asked = async {
                let (mut send, mut recv) = endpoint.open(to, address, kind::GOSSIP).await?;
                write_frame(&mut send, &bytes).await?;
                send.finish()?;
                anyhow::Ok(read_frame(&mut recv, MESSAGE_BYTES_MAX).await?)
            };
            match (asked.await, back.upgrade()) {
                (Ok(bytes), Some(back)) => _ = back.send(Input::Reply { from: to, bytes }).await,
                (Err(error), _) => tracing::debug!(node = %to, %error, "gossip request was not answered"),
                (Ok(_), None) => {}
            }
        });
    }

    fn persist(&self, incarnation: u64) {
        let (persist, back) = (self.persist.clone(), self.back.clone());
        self.tasks.spawn_blocking(move || {
            // Without it this node cannot say that it is alive: a disk that was full is asked again.
            while let Err(error) = persist(incarnation) {
                tracing::error!(error = format!("{error:#}"), "the incarnation cannot be written");
                if back.upgrade().is_none() {
                    return;
                }
                std::thread::sleep(PERSIST_AGAIN);
            }
            if let Some(back) = back.upgrade() {
                // Fails only when the loop has ended.
                let _ = back.blocking_send(Input::Persisted { incarnation });
            }
        });
    }

    fn pass_on(&self, owner: Id, topic: &Topic, key: &str) {
        if *topic == origins::topic() && key == origins::KEY {
            return self.pass_on_origins(owner, topic);
        }
        if let Some(scope) = Scope::of(topic) {
            return self.pass_on_endpoint(owner, scope, topic, key);
        }
        if *topic == refused::topic() && key == refused::KEY {
            return self.pass_on_refused(owner, topic);
        }
        if *topic != tasks_topic() {
            return;
        }
        let Ok(task) = key.parse() else { return tracing::debug!(%owner, key, "a row of no task") };
        let status = self
            .machine
            .row(topic.as_str(), owner, key)
            .map(|row| covey_wire::decode::<TaskStatus, STATUS_BYTES_MAX>(row.payload));
        match status {
            Some(Err(error)) => tracing::warn!(%owner, %task, %error, "a task's row cannot be read"),
            Some(Ok(status)) => self.sight.handle_task(owner, task, Some(status)),
            None => self.sight.handle_task(owner, task, None),
        }
    }

    fn pass_on_refused(&self, owner: Id, topic: &Topic) {
        let row = self.machine.row(topic.as_str(), owner, refused::KEY);
        let ports = row.map(|row| covey_wire::decode::<Vec<RefusedPort>, REFUSED_BYTES_MAX>(row.payload));
        let ports = ports.transpose().unwrap_or_else(|error| {
            tracing::warn!(%owner, %error, "a row of refused ports cannot be read");
            None
        });
        self.sight.handle_refused(owner, ports.unwrap_or_default());
    }

    fn pass_on_origins(&self, owner: Id, topic: &Topic) {
        let row = self.machine.row(topic.as_str(), owner, origins::KEY);
        let told = row.map(|row| covey_wire::decode::<Origins, ORIGINS_BYTES_MAX>(row.payload));
        let told = told.transpose().unwrap_or_else(|error| {
            tracing::warn!(%owner, %error, "a row of a host's addresses cannot be read");
            None
        });
        self.network.handle_origins(owner, origins::bounded(told.unwrap_or_default()));
    }

    fn pass_on_endpoint(&self, owner: Id, scope: Scope, topic: &Topic, key: &str) {
        let row = self.machine.row(topic.as_str(), owner, key);
        let told = row.map(|row| covey_wire::decode::<Told, ENDPOINT_BYTES_MAX>(row.payload));
        match told.transpose() {
            Ok(told) => self.network.handle_row(scope, owner, key, told),
            // Written by a newer version: better none than a wrong one.
            Err(error) => {
                tracing::warn!(%owner, key, %error, "an endpoint's row cannot be read");
                self.network.handle_row(scope, owner, key, None);
            }
        }
    }
}
