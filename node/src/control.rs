//! What the API asks of the cluster, answered by this node.

mod told;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use covey_api::{
    Control, Failure,
    control::{
        Carried, CarriedNetwork, DataPlane, Finding, Hop, InitRequest, Issuer, JoinRequest, JoinTokens,
        Liveness, LogsOf, Membership, NetworkPeer, NodeState, PathRequest, Rotate, StoreChange, TaskLine,
        ToldService, View,
    },
    log::LogQuery,
};
use covey_gossip::Liveness as Heard;
use covey_manager::{MassLoss, Observed};
use covey_raft::{ProposeError, ReadError};
use covey_state::{
    Id, Store,
    cluster::JoinSecrets,
    command::{Command, Proposal},
    network::Network,
    node::{Node, Role},
};
use futures_util::{
    future::BoxFuture,
    stream::{self, BoxStream},
};
use tokio::sync::broadcast::error::RecvError;

use crate::{
    clock,
    daemon::Daemon,
    engine, logs,
    manager_loop::REACHABLE_WITHIN,
    member::{Log, Member},
    network::{doctor, metrics, path},
    protocol::Peer,
    refused, translate,
};

/// The cluster as this node's API asks it.
pub struct ClusterControl(pub Arc<Daemon>);

impl ClusterControl {
    fn manager(&self) -> Result<(Arc<Member>, Log), Failure> {
        let member = self.0.member().ok_or_else(Failure::not_in_swarm)?;
        let log = member.log().ok_or_else(Failure::not_a_manager)?;
        Ok((member, log))
    }
}

impl Control for ClusterControl {
    fn membership(&self) -> Membership {
        let (state, error) = self.0.state();
        let Some(member) = self.0.member() else {
            return Membership { state, error, ..Membership::default() };
        };
        let (me, notes) = (member.id(), member.notes());
        let mut managers = member.managers();
        let manager = member.log().is_some();
        if manager {
            managers.push((me, notes.advertise));
            managers.sort();
        }
        Membership { state, node: Some(me), address: Some(notes.advertise.ip()), manager, managers, error }
    }

    fn read(&self) -> BoxFuture<'_, Result<View, Failure>> {
        Box::pin(async {
            let (member, log) = self.manager()?;
            let store = log.read().await.map_err(unreadable)?;
            let ca = member.identity().ca;
            let token = |role| {
                let token = store.cluster().and_then(|cluster| translate::token(cluster, ca.digest(), role));
                token.map(|token| token.to_string()).unwrap_or_default()
            };
            let nodes = liveness(&member, &log, &store);
            Ok(View {
                observed: Arc::new(member.sight.tasks(&store)),
                service_errors: Arc::new(service_errors(&member, &nodes, &store)),
                nodes: Arc::new(nodes),
                tokens: JoinTokens { worker: token(Role::Worker), manager: token(Role::Manager) },
                issuer: issuer(ca.der()),
                store,
            })
        })
    }

    fn propose(&self, command: Command) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async {
            let (_, log) = self.manager()?;
            log.propose(&Proposal { planned_at: None, commands: vec![command] }).await.map_err(refusal)?;
            Ok(())
        })
    }

    fn new_id(&self) -> Id {
        clock::new_id()
    }

    fn init(&self, request: InitRequest) -> BoxFuture<'_, Result<Id, Failure>> {
        Box::pin(self.0.init(request))
    }

    fn join(&self, request: JoinRequest) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.0.join(request))
    }

    fn leave(&self, force: bool) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.0.leave(force))
    }

    fn rotate_tokens(&self, roles: Rotate) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let (_, log) = self.manager()?;
            let store = log.read().await.map_err(unreadable)?;
            let cluster = store.cluster().ok_or_else(Failure::not_in_swarm)?;
            let old = &cluster.join;
            let secret =
                |rotate: bool, old: &str| if rotate { clock::new_id().to_string() } else { old.to_owned() };
            let join = JoinSecrets {
                worker: secret(roles.worker, &old.worker),
                manager: secret(roles.manager, &old.manager),
            };
            self.propose(Command::SetJoinSecrets { version: cluster.version, join }).await
        })
    }

    fn logs(
        &self,
        of: LogsOf,
        query: LogQuery,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<TaskLine, Failure>>, Failure>> {
        Box::pin(async move {
            let (member, log) = self.manager()?;
            let store = log.read().await.map_err(unreadable)?;
            Ok(logs::gather(member, store, self.0.changes(), of, query))
        })
    }

    fn carried(&self) -> Carried {
        let Some(member) = self.0.member() else { return Carried::default() };
        let nodes = member.nodes();
        let peer = |peer: &Peer| NetworkPeer {
            node: peer.id,
            hostname: peer.hostname.clone(),
            address: peer.data_path,
        };
        let networks = self.0.network.carried().into_values().map(|(network, hosts)| CarriedNetwork {
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

    fn told_services(&self, network: Option<Id>) -> BoxFuture<'_, Vec<ToldService>> {
        Box::pin(told::services(&self.0.network, network))
    }

    fn find_network(&self, reference: &str) -> BoxFuture<'_, Result<Option<Arc<Network>>, Failure>> {
        let reference = reference.to_owned();
        Box::pin(async move { self.0.places.find(&reference).await })
    }

    fn doctor(&self) -> BoxFuture<'_, Result<Vec<Finding>, Failure>> {
        Box::pin(async {
            let daemon = &self.0;
            let findings = doctor::examine(&daemon.network, daemon.member(), &daemon.host.name).await;
            findings.map_err(|error| Failure::internal(format!("{error:#}")))
        })
    }

    fn path(&self, request: PathRequest) -> BoxFuture<'_, Result<Vec<Hop>, Failure>> {
        Box::pin(async move {
            let daemon = &self.0;
            let from = daemon.runtime.inspect(&request.from).map_err(engine::lookup)?;
            let hops = path::follow(&daemon.network, daemon.member(), from.id.as_str(), &request).await;
            hops.map_err(|error| Failure::internal(format!("{error:#}")))
        })
    }

    fn data_plane(&self) -> BoxFuture<'_, DataPlane> {
        Box::pin(metrics::count(&self.0.network))
    }

    fn changes(&self) -> BoxStream<'static, StoreChange> {
        let changes = self.0.changes();
        Box::pin(stream::unfold(changes, async |mut changes| {
            loop {
                match changes.recv().await {
                    Ok(change) => return Some((change, changes)),
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "events were lost: too many at once")
                    }
                    Err(RecvError::Closed) => return None,
                }
            }
        }))
    }
}

fn unreadable(error: ReadError) -> Failure {
    Failure::unavailable(error.to_string())
}

fn refusal(error: ProposeError) -> Failure {
    match error {
        ProposeError::Refused(refusal) => refusal.into(),
        ProposeError::TooLarge { .. } => Failure::invalid(error.to_string()),
        _ => Failure::unavailable(error.to_string()),
    }
}

/// What hosts say of services. What one said that is down counts no longer.
fn service_errors(
    member: &Member,
    nodes: &BTreeMap<Id, Liveness>,
    store: &Store,
) -> BTreeMap<Id, Vec<String>> {
    let told = member.sight.refused();
    let is_ready = |host: &Id| nodes.get(host).is_some_and(|node| node.state == NodeState::Ready);
    let live = told.iter().filter(|(host, _)| is_ready(host));
    refused::sentences(store, live.map(|(host, ports)| (*host, ports.as_slice())))
}

fn liveness(member: &Member, log: &Log, store: &Store) -> BTreeMap<Id, Liveness> {
    let leader = log.leadership();
    let contacts = log.contacts();
    let members = log.members();
    let loss = mass_loss(member, store);
    let me = member.id();
    let of = |node: &Node| {
        let alive = node.id == me || member.sight.node(node.id).is_some_and(|(heard, _)| heard.is_live());
        let (state, message) = match member.sight.node(node.id) {
            _ if node.left => (NodeState::Down, "it left the swarm".to_owned()),
            _ if alive => (NodeState::Ready, String::new()),
            Some((Heard::Left, _)) => (NodeState::Down, "it left the swarm".to_owned()),
            Some(_) => match &loss {
                Some(loss) => (NodeState::Down, format!("heartbeat failure; {loss}")),
                None => (NodeState::Down, "heartbeat failure".to_owned()),
            },
            None => (NodeState::Unknown, String::new()),
        };
        let answers = match (leader.am_leader, contacts.get(&node.id)) {
            // One that never answered has only just come.
            (true, Some(ago)) if *ago < Duration::MAX => *ago < REACHABLE_WITHIN,
            _ => alive,
        };
        Liveness {
            state,
            message,
            leader: leader.leader == Some(node.id),
            reachable: members.contains(node.id) && (node.id == me || answers),
        }
    };
    store.nodes().map(|node| (node.id, of(node))).collect()
}

/// Whether so many hosts vanished at once that nothing is moved for a while.
fn mass_loss(member: &Member, store: &Store) -> Option<MassLoss> {
    let now = clock::now();
    let mut observed = Observed::new(now);
    for (node, heard) in member.sight.nodes() {
        observed.handle_liveness(node, translate::liveness(heard));
    }
    covey_manager::mass_loss(store, &observed, now)
}

/// Subject and public key out of the CA's certificate.
fn issuer(der: &[u8]) -> Issuer {
    match x509_parser::parse_x509_certificate(der) {
        Ok((_, certificate)) => Issuer {
            subject: certificate.subject().as_raw().to_vec(),
            public_key: certificate.public_key().raw.to_vec(),
        },
        // It was verified when it was taken into use.
        Err(_) => Issuer::default(),
    }
}
