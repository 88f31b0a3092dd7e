//! This node as a member of a cluster: everything that runs from joining to leaving.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use covey_agent::executor::Executor;
use covey_crypto::identity::Role;
use covey_gossip::Myself;
use covey_gossip_quic::{self as quic, BindError, Endpoint, Event, read_frame, write_frame};
use covey_raft::{Raft, Settings, Timing, Transport, TransportError};
use covey_state::{Id, cluster::RaftSpec, node::NodeDescription, time::Stamp};
use ed25519_dalek::{SigningKey, pkcs8::DecodePrivateKey};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    agent_loop::{AgentHandle, AgentLoop},
    clock,
    gossip_loop::{GossipHandle, GossipLoop, tasks_topic},
    identity::{Folder, Identity, Notes},
    manager_loop,
    network::Networks,
    protocol::{Roster, kind},
    renewal,
    roster::{self, Nodes},
    serve,
    sight::Sight,
    translate,
};

/// Connections that are kept, at most: enough of the endpoint's are left for those that come and go.
const KEPT_MAX: usize = 40;
/// How long what still runs may take to end.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How long an address that is in use is waited for.
const BIND_MAX: Duration = Duration::from_secs(1);
/// Between two looks at it.
const BIND_RETRY: Duration = Duration::from_millis(10);

/// Carries the managers' consensus over QUIC.
#[derive(Clone)]
pub struct RaftTransport(Endpoint);

impl Transport for RaftTransport {
    async fn call(&self, to: Id, address: SocketAddr, request: Vec<u8>) -> Result<Vec<u8>, TransportError> {
        let opened = self.0.open(to, address, kind::RAFT).await;
        let (mut send, mut recv) = opened.map_err(|error| TransportError::Unreachable(error.to_string()))?;
        let unanswered = |error: &dyn std::fmt::Display| TransportError::Unanswered(error.to_string());
        write_frame(&mut send, &request).await.map_err(|error| unanswered(&error))?;
        read_frame(&mut recv, covey_raft::MESSAGE_BYTES_MAX).await.map_err(|error| unanswered(&error))
    }
}

/// The managers' log, as this node uses it.
pub type Log = Raft<RaftTransport>;

/// What a member needs from the daemon around it.
pub struct Surroundings<E> {
    /// Where the identity is kept.
    pub folder: Folder,
    /// Runs the containers of tasks.
    pub executor: Arc<E>,
    /// Is told of every log that is opened, and of its end.
    pub log: watch::Sender<Option<Log>>,
    /// Serves the log lines of this node's tasks.
    pub logs: Arc<dyn serve::TaskLogs>,
    /// What this node says of itself.
    pub description: NodeDescription,
    /// The networks of this node's containers.
    pub network: Networks,
}

/// This node as a member.
pub struct Member {
    folder: Folder,
    identity: watch::Sender<Identity>,
    notes: Arc<Mutex<Notes>>,
    /// The control socket.
    pub endpoint: Endpoint,
    /// The gossip loop.
    pub gossip: GossipHandle,
    /// The agent loop.
    pub agent: AgentHandle,
    /// What gossip says.
    pub sight: Sight,
    log: watch::Sender<Option<Log>>,
    nodes: watch::Sender<Nodes>,
    /// The networks of this node's containers.
    pub network: Networks,
    /// How far the time of the log was ahead of this node's clock when it began to lead, in nanoseconds.
    ahead: Arc<AtomicU64>,
    /// Nodes that the leader works with.
    led: watch::Sender<BTreeMap<Id, SocketAddr>>,
    partners: watch::Receiver<Vec<Id>>,
    /// Serves the log lines of this node's tasks.
    pub logs: Arc<dyn serve::TaskLogs>,
    /// What this node says of itself.
    pub description: NodeDescription,
    /// Told once, when the cluster has removed this node.
    expelled: watch::Sender<bool>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Member {
    /// Binds the control socket. The one of a membership that has just ended may hold the address for a moment.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn bind(
        listen: SocketAddr,
        identity: Option<&Identity>,
    ) -> Result<(Endpoint, mpsc::Receiver<Event>)> {
        let identity = identity.map(Identity::of_quic);
        let bind = || Endpoint::bind(listen, identity.as_ref(), Arc::new(clock::wall));
        let patience = tokio::time::Instant::now() + BIND_MAX;
        loop {
            match bind() {
                Err(BindError::Socket { source, .. })
                    if source.kind() == io::ErrorKind::AddrInUse
                        && tokio::time::Instant::now() < patience =>
                {
                    tokio::time::sleep(BIND_RETRY).await;
                }
                bound => return Ok(bound?),
            }
        }
    }

    /// Takes part from now on. `roster` is what was told when joining.
    ///
    /// # Errors
    /// Something on disk is damaged; nothing runs then.
    pub async fn start<E: Executor>(
        surroundings: Surroundings<E>,
        identity: Identity,
        mut notes: Notes,
        endpoint: Endpoint,
        events: mpsc::Receiver<Event>,
        roster: Option<Roster>,
    ) -> Result<Arc<Self>> {
        let Surroundings { folder, executor, log, logs, description, network } = surroundings;
        // A new life is on disk before anybody hears of it.
        notes.incarnation += 1;
        folder.save_notes(&notes)?;
        let tasks = TaskTracker::new();
        let sight = Sight::default();
        let myself = Myself {
            id: identity.peer.id,
            incarnation: notes.incarnation,
            address: notes.advertise,
            signer: SigningKey::from_pkcs8_der(&identity.key.to_der()?).context("node.key")?,
        };
        let seeds = notes.managers.clone();
        let notes = Arc::new(Mutex::new(notes));
        let persist = {
            let (notes, folder) = (notes.clone(), folder.clone());
            move |incarnation| {
                let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
                notes.incarnation = incarnation;
                folder.save_notes(&notes)
            }
        };
        let config = covey_gossip::Config::lan();
        let (gossip_loop, gossip, partners) = GossipLoop::new(
            myself,
            config,
            seeds,
            endpoint.clone(),
            (sight.clone(), network.clone()),
            Arc::new(persist),
            tasks.clone(),
        );
        let (agent_loop, agent) =
            AgentLoop::new(folder.assignments(), executor, gossip.clone(), network.host(), tasks.clone())
                .await?;
        let manager = identity.peer.role == Role::Manager;
        let member = Arc::new(Self {
            folder,
            identity: watch::Sender::new(identity),
            notes,
            endpoint,
            gossip,
            agent,
            sight,
            log,
            nodes: watch::Sender::new(Nodes::default()),
            network,
            ahead: Arc::default(),
            led: watch::Sender::new(BTreeMap::new()),
            partners,
            logs,
            description,
            expelled: watch::Sender::new(false),
            stop: CancellationToken::new(),
            tasks,
        });
        // The loop takes what opening the log tells it of the nodes.
        member.spawn(gossip_loop.run());
        member.spawn(member.network.clone().hear(member.gossip.clone()));
        if manager && let Err(error) = member.open_log().await {
            // Whoever writes its file ends with it, and is waited for.
            drop(agent_loop);
            member.stop(false).await;
            return Err(error);
        }
        member.spawn(agent_loop.run());
        if let Some(roster) = roster {
            member.take_roster(roster).await;
        }
        member.spawn(serve::events(member.clone(), events));
        member.spawn(keep_connections(member.clone()));
        member.spawn(renewal::run(member.clone()));
        Ok(member)
    }

    /// Runs `work` until it ends or this node is no member any more.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(work).await });
    }

    /// This node's id.
    pub fn id(&self) -> Id {
        self.identity.borrow().peer.id
    }

    /// Who this node is.
    pub fn identity(&self) -> Identity {
        self.identity.borrow().clone()
    }

    /// The notes beside the identity.
    pub fn notes(&self) -> Notes {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The managers' log; `None` on a worker.
    pub fn log(&self) -> Option<Log> {
        self.log.borrow().clone()
    }

    /// All nodes, as far as this one was told. Not to be held across an await.
    pub fn nodes(&self) -> watch::Ref<'_, Nodes> {
        self.nodes.borrow()
    }

    /// Follows the nodes.
    pub fn watch_nodes(&self) -> watch::Receiver<Nodes> {
        self.nodes.subscribe()
    }

    /// The time of the log: this node's clock, or where it was when this node began to lead and its clock was behind.
    pub fn log_time(&self) -> Stamp {
        log_time(&self.ahead)
    }

    /// This node begins to lead: the time of the log goes on from `last`.
    pub fn catch_up(&self, last: Stamp) {
        let ahead = last.since(clock::now()).as_nanos();
        self.ahead.store(u64::try_from(ahead).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How far the time of the log is ahead of this node's clock.
    pub fn ahead(&self) -> Duration {
        Duration::from_nanos(self.ahead.load(Ordering::Relaxed))
    }

    /// True while this node leads, and works with the nodes.
    pub fn leads(&self) -> bool {
        !self.led.borrow().is_empty()
    }

    /// It was a node and is none any more: a leader knows for sure, everybody else what it was told.
    pub fn is_gone(&self, id: Id) -> bool {
        match self.log().filter(|_| self.leads()) {
            Some(log) => log.store().node(id).is_none_or(|node| node.left),
            None => self.nodes().was_removed(id),
        }
    }

    /// Waits until the cluster has removed this node; false if its membership ended otherwise.
    pub async fn expelled(&self) -> bool {
        let mut expelled = self.expelled.subscribe();
        self.stop.run_until_cancelled(expelled.wait_for(|expelled| *expelled)).await.is_some()
    }

    /// The leader says which nodes it works with: connections to them are kept.
    pub fn lead(&self, nodes: BTreeMap<Id, SocketAddr>) {
        self.led.send_replace(nodes);
    }

    /// Takes a new certificate into use, and becomes what it says.
    ///
    /// # Errors
    /// It is not of this cluster or not for this node; nothing has changed then.
    pub async fn take_identity(self: &Arc<Self>, identity: Identity) -> Result<()> {
        self.folder.save(&identity)?;
        self.endpoint.set_identity(&identity.of_quic())?;
        let manager = identity.peer.role == Role::Manager;
        self.identity.send_replace(identity);
        match (manager, self.log()) {
            (true, None) => self.open_log().await,
            (false, Some(log)) => self.close_log(log).await,
            _ => Ok(()),
        }
    }

    async fn open_log(self: &Arc<Self>) -> Result<()> {
        let peer = self.identity().peer;
        let notes = self.notes();
        let mut settings = Settings::new(peer.cluster, peer.id, notes.advertise);
        if let Some(raft) = notes.raft {
            settings.timing = Timing::from(raft);
            settings.snapshot_interval = raft.snapshot_interval;
        }
        let transport = RaftTransport(self.endpoint.clone());
        let ahead = self.ahead.clone();
        let log = Raft::open(&self.folder.raft(), settings, transport, move || log_time(&ahead)).await?;
        // What the log knows already need not wait for a leader.
        if log.store().cluster().is_some() {
            self.take_roster(roster::full(&log.store())).await;
        }
        self.gossip.hear(tasks_topic(), true).await;
        self.log.send_replace(Some(log.clone()));
        self.spawn(manager_loop::run(self.clone(), log));
        Ok(())
    }

    async fn close_log(&self, log: Log) -> Result<()> {
        self.log.send_replace(None);
        self.gossip.hear(tasks_topic(), false).await;
        log.shutdown().await;
        Raft::destroy(&self.folder.raft())?;
        Ok(())
    }

    /// Takes what the leader tells of the nodes.
    pub async fn take_roster(&self, roster: Roster) {
        let mut changed = Default::default();
        self.nodes.send_if_modified(|nodes| {
            changed = nodes.take(roster);
            !changed.known.is_empty() || !changed.gone.is_empty()
        });
        let (me, mut edge) = (self.id(), None);
        let changes = !changed.known.is_empty() || !changed.gone.is_empty();
        for peer in changed.known {
            if peer.id == me {
                edge = Some(peer.edge);
            }
            self.gossip.learn_owner(peer.id, peer.public_key).await;
        }
        for id in changed.gone {
            if id == me {
                self.expelled.send_replace(true);
            } else {
                self.gossip.forget_owner(id).await;
                // The leader still has to tell it.
                if !self.leads() {
                    self.endpoint.disconnect(id).await;
                }
            }
        }
        if changes {
            self.network.handle_nodes(me, &self.nodes.borrow());
        }
        let managers = self.nodes.borrow().managers();
        self.note(move |notes| {
            notes.edge = edge.or(notes.edge);
            if !managers.is_empty() {
                notes.managers = managers;
            }
        });
    }

    /// Writes down what the next start needs to know before it can ask anybody.
    fn note(&self, change: impl FnOnce(&mut Notes) + Send + 'static) {
        let (notes, folder) = (self.notes.clone(), self.folder.clone());
        self.tasks.spawn_blocking(move || {
            let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
            let mut new = notes.clone();
            change(&mut new);
            if new == *notes {
                return;
            }
            match folder.save_notes(&new) {
                Ok(()) => *notes = new,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "what the next start needs is not written")
                }
            }
        });
    }

    /// Consensus timing of the cluster, for the next start: the log that runs is told by the manager loop.
    pub fn note_raft(&self, spec: RaftSpec) {
        self.note(move |notes| notes.raft = Some(spec));
    }

    /// The managers to ask for something, this node left out.
    pub fn managers(&self) -> Vec<(Id, SocketAddr)> {
        let (me, nodes) = (self.id(), self.nodes.borrow().managers());
        let mut managers = if nodes.is_empty() { self.notes().managers } else { nodes };
        managers.retain(|(id, _)| *id != me);
        managers
    }

    /// Ends everything that runs; what is on disk stays. With `goodbye` the others are told that this node leaves.
    pub async fn stop(&self, goodbye: bool) {
        if goodbye {
            self.gossip.leave().await;
        }
        if let Some(log) = self.log.send_replace(None) {
            log.shutdown().await;
        }
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_MAX, self.tasks.wait()).await.is_err() {
            tracing::warn!("some work of this member did not end in time");
        }
        self.endpoint.close().await;
    }

    /// Notes that this node is on its way out: from now on a restart finishes that.
    ///
    /// # Errors
    /// It could not be written; the node is a member as before.
    pub fn note_leaving(&self) -> Result<()> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.leaving = true;
        self.folder.save_notes(&notes)
    }
}

fn log_time(ahead: &AtomicU64) -> Stamp {
    clock::now() + Duration::from_nanos(ahead.load(Ordering::Relaxed))
}

impl Identity {
    /// As the control socket wants it.
    pub fn of_quic(&self) -> quic::Identity {
        quic::Identity { key: self.key.clone(), certificate: self.certificate.clone(), ca: self.ca.clone() }
    }

    /// The role that the certificate says.
    pub fn role(&self) -> covey_state::node::Role {
        translate::role(self.peer.role)
    }
}

/// Keeps connections to those whose silence matters: managers, gossip partners, and for a leader its nodes.
async fn keep_connections(member: Arc<Member>) {
    let mut nodes = member.nodes.subscribe();
    let mut led = member.led.subscribe();
    let mut partners = member.partners.clone();
    loop {
        let me = member.id();
        let mut kept: BTreeMap<Id, SocketAddr> = member.managers().into_iter().collect();
        {
            let nodes = nodes.borrow_and_update();
            let partners = partners.borrow_and_update();
            kept.extend(partners.iter().filter_map(|id| nodes.get(*id)).map(|peer| (peer.id, peer.address)));
        }
        let room = KEPT_MAX.saturating_sub(kept.len());
        kept.extend(led.borrow_and_update().iter().map(|(id, address)| (*id, *address)).take(room));
        kept.remove(&me);
        member.endpoint.keep(kept);
        let changed = tokio::select! {
            changed = nodes.changed() => changed,
            changed = led.changed() => changed,
            changed = partners.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}
