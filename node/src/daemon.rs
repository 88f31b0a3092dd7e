//! The daemon: this machine in or out of a cluster. The ways from one to the other are a file each.

mod changes;
mod found;
mod join;
mod leave;
mod resume;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use covey_agent::template::NodeNames;
use covey_api::{
    Failure, Host,
    control::{LocalState, StoreChange},
};
use covey_overlay_netlink::local_networks;
use covey_runtime::{NetworkMode, Runtime, TaskExecutor};
use covey_state::{
    Id,
    node::{EdgeBlock, NodeDescription},
};
use tokio::{
    sync::{Mutex, broadcast, watch},
    task::spawn_blocking,
};

use crate::{
    identity::Folder,
    joining::Places,
    logs::LocalLogs,
    machine,
    member::{Log, Member, Surroundings},
    network::Networks,
};

/// Changes of the store that a slow watcher may be behind.
const CHANGES_MAX: usize = 1024;
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
        tokio::spawn(changes::tell(daemon.log.subscribe(), daemon.changes.clone()));
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

    /// Where this node's containers have had their addresses, if it is a member: known before anybody is asked.
    ///
    /// # Errors
    /// What is on disk is damaged or newer than this version.
    pub fn recall_edge(&self) -> Result<Option<EdgeBlock>> {
        Ok(self.folder.load()?.and_then(|(_, notes)| notes.edge))
    }

    /// Ends the daemon: containers and membership stay for the next one.
    pub async fn stop(&self) {
        if let Some(member) = self.member() {
            member.stop(false).await;
        }
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

    /// This machine is on its way into a cluster.
    fn set_out(&self) {
        self.state.send_replace((LocalState::Pending, String::new()));
    }

    /// It is in, until it leaves or is removed.
    fn enter(self: &Arc<Self>, member: Arc<Member>) {
        self.member.send_replace(Some(member.clone()));
        self.state.send_replace((LocalState::Active, String::new()));
        member.spawn(self.places.clone().tell(member.clone(), self.network.host()));
        tokio::spawn(self.clone().follow_expulsion(member));
    }
}

fn invalid(error: anyhow::Error) -> Failure {
    Failure::invalid(format!("{error:#}"))
}

fn internal(error: anyhow::Error) -> Failure {
    Failure::internal(format!("{error:#}"))
}

/// Networks that this machine reaches without our help.
async fn own_networks() -> Result<Vec<ipnet::IpNet>> {
    Ok(spawn_blocking(local_networks).await??)
}
