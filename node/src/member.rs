//! This node as a member of a cluster: everything that runs from joining to leaving.

mod log;
mod notebook;
mod others;

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use covey_agent::executor::Executor;
use covey_crypto::identity::Role;
use covey_gossip::Myself;
use covey_gossip_quic::{BindError, Endpoint, Event};
use covey_state::{Id, node::NodeDescription};
use ed25519_dalek::{SigningKey, pkcs8::DecodePrivateKey};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::log::Log;
use self::{log::LogClock, notebook::Notebook};
use crate::{
    agent_loop::{AgentHandle, AgentLoop},
    clock,
    gossip_loop::{GossipHandle, GossipLoop},
    identity::{Folder, Identity, Notes},
    network::Networks,
    protocol::Roster,
    renewal,
    roster::Nodes,
    serve,
    sight::Sight,
};

/// How long what still runs may take to end.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How long an address that is in use is waited for.
const BIND_MAX: Duration = Duration::from_secs(1);
/// Between two looks at it.
const BIND_RETRY: Duration = Duration::from_millis(10);

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
    notebook: Notebook,
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
    /// The time of the managers' log.
    pub log_clock: LogClock,
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

    /// Takes part from now on. `roster` is what was told when joining, or noted since.
    ///
    /// # Errors
    /// Something on disk is damaged; nothing runs then.
    pub async fn start<E: Executor>(
        surroundings: Surroundings<E>,
        identity: Identity,
        notes: Notes,
        endpoint: Endpoint,
        events: mpsc::Receiver<Event>,
        roster: Option<Roster>,
    ) -> Result<Arc<Self>> {
        let Surroundings { folder, executor, log, logs, description, network } = surroundings;
        let notebook = Notebook::new(folder.clone(), notes);
        // A new life is on disk before anybody hears of it.
        notebook.change(|notes| notes.incarnation += 1)?;
        let notes = notebook.read();
        let tasks = TaskTracker::new();
        let sight = Sight::default();
        let myself = Myself {
            id: identity.peer.id,
            incarnation: notes.incarnation,
            address: notes.advertise,
            signer: SigningKey::from_pkcs8_der(&identity.key.to_der()?).context("node.key")?,
        };
        let persist = {
            let notebook = notebook.clone();
            move |incarnation| notebook.change(|notes| notes.incarnation = incarnation)
        };
        let (gossip_loop, gossip, partners) = GossipLoop::new(
            myself,
            covey_gossip::Config::lan(),
            notes.managers,
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
            notebook,
            endpoint,
            gossip,
            agent,
            sight,
            log,
            nodes: watch::Sender::new(Nodes::default()),
            network,
            log_clock: LogClock::default(),
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
        member.spawn(member.network.clone().tell_refused(member.gossip.clone()));
        member.spawn(member.network.clone().tell_origins(member.gossip.clone()));
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
        member.spawn(others::keep_connections(member.clone()));
        member.spawn(others::find_others(member.clone()));
        member.spawn(others::note_nodes(member.clone()));
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
        self.notebook.read()
    }

    /// Waits until the cluster has removed this node; false if its membership ended otherwise.
    pub async fn expelled(&self) -> bool {
        let mut expelled = self.expelled.subscribe();
        self.stop.run_until_cancelled(expelled.wait_for(|expelled| *expelled)).await.is_some()
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

    /// Writes down what the next start needs to know before it can ask anybody.
    fn note(&self, change: impl FnOnce(&mut Notes) + Send + 'static) {
        let notebook = self.notebook.clone();
        self.tasks.spawn_blocking(move || {
            if let Err(error) = notebook.change(change) {
                tracing::warn!(error = format!("{error:#}"), "what the next start needs is not written");
            }
        });
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
        self.notebook.change(|notes| notes.leaving = true)
    }
}
