//! The daemon: this machine in or out of a cluster, and the way from one to the other.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use covey_agent::{executor::Executor, template::NodeNames};
use covey_api::{
    Failure, Host,
    control::{Carried, CarriedNetwork, InitRequest, JoinRequest, LocalState, NetworkPeer, StoreChange},
};
use covey_crypto::{
    authority::Authority, identity::NodeKey, identity::Role as CertifiedRole, token::JoinToken,
};
use covey_gossip_quic::{Endpoint, Event, RequestError, read_frame, write_frame};
use covey_overlay_netlink::local_networks;
use covey_raft::{Change, Raft};
use covey_runtime::{NetworkMode, Runtime, TaskExecutor};
use covey_state::{
    Id,
    cluster::{Authority as StoredAuthority, JoinSecrets},
    command::{Command, Proposal},
    node::{EdgeBlock, NodeDescription, NodeSpec, Role},
};
use rustls::pki_types::CertificateDer;
use tokio::{
    sync::{Mutex, broadcast, mpsc, watch},
    task::spawn_blocking,
    time::{sleep, timeout},
};

use crate::{
    address, admission, clock,
    identity::{Folder, Identity, Notes},
    joining::Places,
    logs::LocalLogs,
    machine,
    member::{Log, Member, Surroundings},
    network::Networks,
    protocol::{self, Answer, JOIN_MAX, Joined, RenewRequest, kind},
    renewal,
};

/// Changes of the store that a slow watcher may be behind.
const CHANGES_MAX: usize = 1024;
/// How long a new cluster may take until it has its first entry, and a new manager until it has the log.
const READY_MAX: Duration = Duration::from_secs(15);
/// How long the others may take to let a manager go that leaves.
const LET_GO_MAX: Duration = Duration::from_secs(5);
/// How long a manager may take to hear that a worker leaves.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// Between two looks at something that is about to happen.
const LOOK: Duration = Duration::from_millis(5);

/// Where a node is to be found.
#[derive(Clone, Copy)]
struct Addresses {
    /// Where its control socket is bound.
    listen: SocketAddr,
    /// Where others reach it.
    advertise: SocketAddr,
    /// Where packets of networks come in, if not there.
    data_path: Option<IpAddr>,
}

/// This machine's daemon.
pub struct Daemon {
    /// What is said of the machine.
    pub host: Host,
    /// The containers of this node.
    pub runtime: Runtime,
    folder: Folder,
    description: NodeDescription,
    /// The networks of this node's containers.
    pub network: Networks,
    /// Its plain containers' places in networks of the cluster.
    pub places: Arc<Places>,
    log: watch::Sender<Option<Log>>,
    member: watch::Sender<Option<Arc<Member>>>,
    state: watch::Sender<(LocalState, String)>,
    /// One at a time is on its way in or out.
    moving: Mutex<()>,
    changes: broadcast::Sender<StoreChange>,
}

impl Daemon {
    /// A daemon that is in no cluster yet.
    pub fn new(
        host: Host,
        labels: &BTreeMap<String, String>,
        folder: Folder,
        runtime: Runtime,
        network: Networks,
    ) -> Arc<Self> {
        let member = watch::Sender::new(None);
        let daemon = Arc::new(Self {
            places: Places::new(runtime.clone(), member.subscribe()),
            description: machine::description(&host, labels),
            host,
            runtime,
            folder,
            network,
            log: watch::Sender::new(None),
            member,
            state: watch::Sender::new((LocalState::Inactive, String::new())),
            moving: Mutex::new(()),
            changes: broadcast::Sender::new(CHANGES_MAX),
        });
        tokio::spawn(tell_changes(daemon.log.subscribe(), daemon.changes.clone()));
        daemon
    }

    /// This node as a member, while it is one.
    pub fn member(&self) -> Option<Arc<Member>> {
        self.member.borrow().clone()
    }

    /// In a cluster or not, and what is wrong.
    pub fn state(&self) -> (LocalState, String) {
        self.state.borrow().clone()
    }

    /// Follows what changes in the store.
    pub fn changes(&self) -> broadcast::Receiver<StoreChange> {
        self.changes.subscribe()
    }

    fn executor(&self, id: Id) -> TaskExecutor {
        let node = NodeNames { id, hostname: self.host.name.clone() };
        TaskExecutor::new(self.runtime.clone(), node, NetworkMode::Edge)
    }

    /// What this node says of itself, with where packets of networks come in.
    fn description(&self, data_path: Option<IpAddr>) -> NodeDescription {
        NodeDescription { data_path, ..self.description.clone() }
    }

    fn surroundings(&self, id: Id, data_path: Option<IpAddr>) -> Surroundings<TaskExecutor> {
        Surroundings {
            folder: self.folder.clone(),
            executor: Arc::new(self.executor(id)),
            log: self.log.clone(),
            logs: Arc::new(LocalLogs(self.runtime.clone())),
            description: self.description(data_path),
            network: self.network.clone(),
        }
    }

    fn enter(self: &Arc<Self>, member: Arc<Member>) {
        self.member.send_replace(Some(member.clone()));
        self.state.send_replace((LocalState::Active, String::new()));
        member.spawn(self.places.clone().tell(member.clone(), self.network.host()));
        let daemon = self.clone();
        let id = member.id();
        tokio::spawn(async move {
            if !member.expelled().await {
                return;
            }
            tracing::warn!("this node was removed from the swarm");
            let _moving = daemon.moving.lock().await;
            if daemon.member().is_some_and(|member| member.id() == id)
                && let Err(error) = daemon.go_out(false).await
            {
                tracing::error!(error = format!("{error:#}"), "the swarm could not be forgotten");
            }
        });
    }

    /// Where this node's containers have had their addresses, if it is a member: known before anybody is asked.
    ///
    /// # Errors
    /// What is on disk is damaged or newer than this version.
    pub fn recall_edge(&self) -> Result<Option<EdgeBlock>> {
        Ok(self.folder.load()?.and_then(|(_, notes)| notes.edge))
    }

    /// What this node carries of the cluster's networks.
    pub fn carried(&self) -> Carried {
        let Some(member) = self.member() else { return Carried::default() };
        let nodes = member.nodes();
        let peer = |peer: &protocol::Peer| NetworkPeer {
            node: peer.id,
            hostname: peer.hostname.clone(),
            address: peer.data_path,
        };
        let networks = self.network.carried().into_values().map(|(network, hosts)| CarriedNetwork {
            network,
            peers: nodes
                .all()
                .filter(|node| node.id == member.id() || hosts.contains(&node.id))
                .map(peer)
                .collect(),
        });
        Carried {
            block: nodes.get(member.id()).map(|me| me.edge),
            pool: nodes.ground().map(|ground| ground.edge),
            nodes: nodes.all().map(peer).collect(),
            networks: networks.collect(),
        }
    }

    /// Goes on as the member that this machine was before the daemon started, if it was one.
    ///
    /// # Errors
    /// Something on disk is damaged or newer than this version, or the control address cannot be had.
    pub async fn resume(self: &Arc<Self>) -> Result<()> {
        let _moving = self.moving.lock().await;
        let Some((mut identity, notes)) = self.folder.load()? else { return Ok(()) };
        if notes.leaving {
            return self.forget(identity.peer.id).await;
        }
        let (endpoint, events) = Member::bind(notes.listen, Some(&identity)).await?;
        if identity.peer.check_time(clock::wall()).is_err() {
            tracing::warn!("the certificate is not valid at this time: asking for a new one");
            match renewed(&endpoint, &identity, &notes).await {
                Ok(new) => {
                    self.folder.save(&new)?;
                    endpoint.set_identity(&new.of_quic())?;
                    identity = new;
                }
                // What runs here goes on; a new certificate is asked for again and again.
                Err(error) => tracing::warn!(error = format!("{error:#}"), "no new certificate yet"),
            }
        }
        let surroundings = self.surroundings(identity.peer.id, notes.data_path);
        self.enter(Member::start(surroundings, identity, notes, endpoint, events, None).await?);
        Ok(())
    }

    /// Makes a new cluster with this node as its only manager.
    ///
    /// # Errors
    /// For the user; the machine is in no cluster then.
    pub async fn init(self: &Arc<Self>, request: InitRequest) -> Result<Id, Failure> {
        let _moving = self.moving.lock().await;
        if request.force_new_cluster {
            return Err(Failure::not_yet("--force-new-cluster"));
        }
        if self.member().is_some() {
            return Err(Failure::already_in_swarm());
        }
        let listen = address::listen(&request.listen).map_err(invalid)?;
        let advertise = address::advertise(&request.advertise, listen).map_err(invalid)?;
        let data_path = address::data_path(&request.data_path).map_err(invalid)?;
        request.spec.edge.check().map_err(|error| Failure::invalid(error.to_string()))?;
        let networks = local().await.map_err(internal)?;
        admission::check_pool(&request.spec.edge, &networks).map_err(invalid)?;
        self.state.send_replace((LocalState::Pending, String::new()));
        let made = self.found(&request, Addresses { listen, advertise, data_path }).await;
        if made.is_err() {
            self.retreat().await;
        }
        made.map_err(internal)
    }

    async fn found(self: &Arc<Self>, request: &InitRequest, at: Addresses) -> Result<Id> {
        let Addresses { listen, advertise, data_path } = at;
        let (cluster, id) = (clock::new_id(), clock::new_id());
        let authority = Authority::create(&clock::random(), cluster, clock::wall())?;
        let key = NodeKey::from_seed(&clock::random());
        let lifetime = request.spec.certificate_lifetime;
        let certificate =
            authority.issue(&key.request()?, id, CertifiedRole::Manager, clock::wall(), lifetime)?;
        let public_key = key.public();
        let identity = Identity::new(key, certificate, authority.certificate().clone())?;
        let (endpoint, events) = Member::bind(listen, Some(&identity)).await?;
        self.folder.save(&identity)?;
        let notes = Notes::new(listen, advertise, data_path, vec![(id, advertise)]);
        let surroundings = self.surroundings(id, data_path);
        let member = Member::start(surroundings, identity, notes, endpoint, events, None).await?;
        self.member.send_replace(Some(member.clone()));
        let log = member.log().context("the managers' log did not start")?;
        log.initialize().await?;
        let spec = NodeSpec {
            name: String::new(),
            labels: BTreeMap::new(),
            role: Role::Manager,
            availability: request.availability,
        };
        let commands = vec![
            Command::CreateCluster {
                id: cluster,
                spec: request.spec.clone(),
                authority: StoredAuthority {
                    certificate: authority.certificate().to_pem(),
                    key: authority.key_pem()?.to_string(),
                },
                join: JoinSecrets {
                    worker: clock::new_id().to_string(),
                    manager: clock::new_id().to_string(),
                },
            },
            Command::CreateNode {
                id,
                spec,
                description: self.description(data_path),
                address: advertise,
                public_key,
            },
            Command::SetNodeRole { id, role: Role::Manager },
        ];
        log.propose(&Proposal { planned_at: None, commands }).await?;
        self.enter(member);
        Ok(id)
    }

    /// Joins a cluster.
    ///
    /// # Errors
    /// For the user; the machine is in no cluster then.
    pub async fn join(self: &Arc<Self>, request: JoinRequest) -> Result<(), Failure> {
        let _moving = self.moving.lock().await;
        if self.member().is_some() {
            return Err(Failure::already_in_swarm());
        }
        let token: JoinToken = request.token.parse().map_err(|error| Failure::invalid(format!("{error}")))?;
        let listen = address::listen(&request.listen).map_err(invalid)?;
        let advertise = address::advertise_or_seen(&request.advertise, listen).map_err(invalid)?;
        let data_path = address::data_path(&request.data_path).map_err(invalid)?;
        self.state.send_replace((LocalState::Pending, String::new()));
        let joined = self.come_in(&request, &token, Addresses { listen, advertise, data_path }).await;
        if joined.is_err() {
            self.retreat().await;
        }
        joined.map_err(|error| Failure::unavailable(format!("{error:#}")))
    }

    async fn come_in(
        self: &Arc<Self>,
        request: &JoinRequest,
        token: &JoinToken,
        at: Addresses,
    ) -> Result<()> {
        let (endpoint, events) = Member::bind(at.listen, None).await?;
        let joined = self.come_in_by(endpoint.clone(), events, request, token, at).await;
        if joined.is_err() {
            // The next attempt wants the same address.
            endpoint.close().await;
        }
        joined
    }

    async fn come_in_by(
        self: &Arc<Self>,
        endpoint: Endpoint,
        events: mpsc::Receiver<Event>,
        request: &JoinRequest,
        token: &JoinToken,
        at: Addresses,
    ) -> Result<()> {
        let Addresses { listen, advertise, data_path } = at;
        let key = NodeKey::from_seed(&clock::random());
        let asked = covey_wire::encode(&protocol::JoinRequest {
            token: request.token.clone(),
            request: key.request()?,
            description: self.description(data_path),
            advertise,
            availability: request.availability,
            clock: clock::now(),
            networks: local().await?,
        })?;
        let mut remotes = Vec::new();
        for remote in &request.remotes {
            remotes.extend(address::remote(remote).await?);
        }
        let mut last = None;
        for remote in remotes {
            match endpoint.join(remote, token.ca_digest(), &asked).await {
                Ok(found) => {
                    let joined: Joined = covey_wire::decode::<_, JOIN_ANSWER_MAX>(&found.answer)?;
                    let identity = Identity::new(key, CertificateDer::from(joined.certificate), found.ca)?;
                    self.folder.save(&identity)?;
                    endpoint.set_identity(&identity.of_quic())?;
                    let notes = Notes::new(listen, joined.advertise, data_path, joined.managers);
                    let surroundings = self.surroundings(identity.peer.id, data_path);
                    let roster = Some(joined.roster);
                    let member =
                        Member::start(surroundings, identity, notes, endpoint, events, roster).await?;
                    self.member.send_replace(Some(member.clone()));
                    if let Some(log) = member.log() {
                        timeout(READY_MAX, has_vote(&log, member.id()))
                            .await
                            .context("the managers' log did not come")?;
                    }
                    self.enter(member);
                    return Ok(());
                }
                // A word of the manager is final, also one that was lost on the way; whoever cannot be reached may have a neighbour.
                Err(
                    error
                    @ (RequestError::Refused(_) | RequestError::WrongCa | RequestError::NoAnswer { .. }),
                ) => return Err(error.into()),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) => Err(error.into()),
            None => bail!("no manager was named: give the address of one, HOST:PORT"),
        }
    }

    /// Leaves the cluster.
    ///
    /// # Errors
    /// For the user; nothing has changed then.
    pub async fn leave(self: &Arc<Self>, force: bool) -> Result<(), Failure> {
        let _moving = self.moving.lock().await;
        let member = self.member().ok_or_else(|| Failure::unavailable("This node is not part of a swarm"))?;
        if let Some(log) = member.log() {
            if !force && let Some(refusal) = may_not_leave(&member, &log) {
                return Err(Failure::unavailable(refusal));
            }
            match be_let_go(&member, &log).await {
                Err(error) if !force => {
                    let what =
                        "the other managers did not let this one go (use --force to leave all the same)";
                    return Err(Failure::unavailable(format!("{what}: {error:#}")));
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "the other managers did not let this one go")
                }
                Ok(()) => {}
            }
        }
        if let Err(error) = say_goodbye(&member).await {
            tracing::warn!(error = format!("{error:#}"), "no manager heard that this node leaves");
        }
        self.go_out(true).await.map_err(internal)
    }

    /// Ends this node's membership and what it runs for it.
    async fn go_out(&self, goodbye: bool) -> Result<()> {
        let Some(member) = self.member() else { return Ok(()) };
        member.note_leaving()?;
        self.member.send_replace(None);
        member.stop(goodbye).await;
        self.forget(member.id()).await
    }

    /// Removes what is left of a membership: the containers of its tasks, then what made this machine a member.
    async fn forget(&self, node: Id) -> Result<()> {
        let executor = self.executor(node);
        for held in executor.held().await? {
            if let Err(error) = executor.remove(held.task).await {
                tracing::error!(task = %held.task, %error, "its container cannot be removed; remove it by hand");
            }
        }
        self.network.leave();
        Raft::destroy(&self.folder.raft())?;
        self.folder.wipe()?;
        self.state.send_replace((LocalState::Inactive, String::new()));
        Ok(())
    }

    /// After a failed init or join: as before.
    async fn retreat(&self) {
        let undone = async {
            if let Some(member) = self.member.send_replace(None) {
                // The cluster may have taken this node in already.
                if let Err(error) = say_goodbye(&member).await {
                    tracing::debug!(
                        error = format!("{error:#}"),
                        "no manager heard that the attempt has failed"
                    );
                }
                member.stop(true).await;
            }
            Raft::destroy(&self.folder.raft())?;
            self.folder.wipe()
        };
        if let Err(error) = undone.await {
            tracing::error!(
                error = format!("{error:#}"),
                "what is left of a failed attempt could not be removed"
            );
        }
        self.network.leave();
        self.state.send_replace((LocalState::Inactive, String::new()));
    }

    /// Ends the daemon: containers and membership stay for the next one.
    pub async fn stop(&self) {
        if let Some(member) = self.member() {
            member.stop(false).await;
        }
    }
}

/// Bytes of the answer to a request to join: it names all nodes.
const JOIN_ANSWER_MAX: usize = covey_gossip_quic::ANSWER_MAX + JOIN_MAX;

fn invalid(error: anyhow::Error) -> Failure {
    Failure::invalid(format!("{error:#}"))
}

fn internal(error: anyhow::Error) -> Failure {
    Failure::internal(format!("{error:#}"))
}

async fn local() -> Result<Vec<ipnet::IpNet>> {
    Ok(spawn_blocking(local_networks).await??)
}

/// A new manager counts once it votes: before, the loss of another one could cost the quorum.
async fn has_vote(log: &Log, me: Id) {
    while log.store().cluster().is_none() || !log.members().voters.contains_key(&me) {
        sleep(LOOK).await;
    }
}

fn may_not_leave(member: &Member, log: &Log) -> Option<String> {
    let voters = log.members().voters;
    let me = member.id();
    let alive = |id: &Id| *id == me || member.sight.node(*id).is_some_and(|(liveness, _)| liveness.is_live());
    covey_manager::leave::refusal(voters.len(), voters.keys().filter(|id| alive(id)).count())
}

/// Has the others take this manager out of their number.
async fn be_let_go(member: &Member, log: &Log) -> Result<()> {
    let id = member.id();
    if log.members().voters.len() <= 1 {
        return Ok(());
    }
    let gone = async {
        let store = log.read().await?;
        let node = store.node(id).context("this node is no member any more")?;
        let spec = NodeSpec { role: Role::Worker, ..node.spec.clone() };
        let commands = vec![Command::UpdateNode { id, version: node.version, spec }];
        log.propose(&Proposal { planned_at: None, commands }).await?;
        // The log closes when this node has become a worker.
        while member.log().is_some() && log.members().voters.contains_key(&id) {
            sleep(LOOK).await;
        }
        Ok(())
    };
    timeout(LET_GO_MAX, gone).await?
}

/// A new certificate for a node whose own is not valid at this time.
async fn renewed(endpoint: &Endpoint, identity: &Identity, notes: &Notes) -> Result<Identity> {
    let request = RenewRequest { request: identity.key.request()?, advertise: notes.advertise };
    let renewed = renewal::ask(endpoint, &notes.managers, &request).await?;
    Identity::new(identity.key.clone(), CertificateDer::from(renewed.certificate), identity.ca.clone())
}

async fn say_goodbye(member: &Member) -> Result<()> {
    let mut last = anyhow::anyhow!("no manager is known");
    for (id, address) in member.managers() {
        let said = async {
            let (mut send, mut recv) = member.endpoint.open(id, address, kind::LEAVE).await?;
            write_frame(&mut send, &[]).await?;
            send.finish()?;
            let answer: Answer<()> =
                covey_wire::decode::<_, JOIN_MAX>(&read_frame(&mut recv, JOIN_MAX).await?)?;
            answer.map_err(anyhow::Error::msg)
        };
        match timeout(GOODBYE_MAX, said).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => last = error,
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// Tells what changes in whichever log there is.
async fn tell_changes(mut log: watch::Receiver<Option<Log>>, changes: broadcast::Sender<StoreChange>) {
    loop {
        let current = log.borrow_and_update().clone();
        let told = async {
            let Some(log) = current else { return std::future::pending().await };
            let mut feed = log.changes();
            let mut before = log.store();
            while let Some(change) = feed.next().await {
                let after = log.store();
                if let Change::Applied(applied) = change {
                    let events = applied.events.to_vec();
                    let change = StoreChange { at: after.last_at(), events, before, after: after.clone() };
                    // Nobody may be watching.
                    let _ = changes.send(change);
                }
                before = after;
            }
            std::future::pending().await
        };
        tokio::select! {
            () = told => {}
            changed = log.changed() => if changed.is_err() { return },
        }
    }
}
