//! The networks of this node's containers: the edge, which joins all hosts, and each overlay that a container is in.
//!
//! One thread, the [keeper](keeper::Keeper), owns what is wanted and the sockets to have it so. All others write to its
//! inbox: the runtime asks for places, gossip tells of endpoints, the roster of hosts.

#[cfg(test)]
mod alone;
pub mod balancer;
pub mod carrier;
pub mod conditions;
pub mod doctor;
pub mod edge;
pub mod fault;
pub mod flow;
pub mod inbox;
pub mod inquiry;
pub mod keeper;
pub mod local;
pub mod metrics;
pub mod path;
pub mod place;
pub mod probe;
pub mod remembered;
pub mod report;
pub mod reserve;
pub mod resolver;
pub mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use covey_gossip::MemberEvent;
use covey_runtime::{Attachment, BoxFuture, Network};
use covey_state::{
    Id,
    network::{NetworkConfig, PublishedPort, Wiring},
    node::EdgeBlock,
};
use tokio::sync::{oneshot, watch};

use self::{
    inbox::{Inbox, Request},
    keeper::Keeper,
};
use crate::{
    address, clock,
    endpoint::{Endpoint, Host, Scope},
    gossip_loop::{GossipHandle, Part},
    origins::Origins,
    refused::RefusedPort,
    roster::Nodes,
};

/// What a request is answered when the keeper has ended.
const ENDED: &str = "this node's networks have ended";

/// The networks that this node carries, and which other hosts have endpoints in them. With each network's id goes how
/// many were carried before it: one that is carried anew has forgotten what it was told.
pub type Carried = BTreeMap<(Id, u64), (Arc<NetworkConfig>, BTreeSet<Id>)>;

/// The way to the networks of this node.
#[derive(Clone)]
pub struct Networks {
    inbox: Inbox,
    carried: watch::Receiver<Carried>,
    /// How this node's endpoints are reached, once it was told.
    host: watch::Sender<Option<Host>>,
    refused: watch::Receiver<Vec<RefusedPort>>,
    /// This host's own addresses are looked at as often as its kernel's objects.
    look_every: Duration,
}

impl Networks {
    /// Begins with what the daemon before left: nothing is changed before [`Networks::begin`]. From then on the kernel is
    /// compared with what is wanted every `repair_every`.
    ///
    /// # Errors
    /// The kernel lets this process program neither links nor nf_tables.
    pub fn open(exec_root: &Path, repair_every: Duration) -> Result<Self> {
        let inbox = Inbox::default();
        let (tell, carried) = watch::channel(Carried::new());
        let keeper = Keeper::open(exec_root, repair_every, tell, tokio::runtime::Handle::current())?;
        let host = watch::Sender::new(keeper.place.map(|place| place.host));
        let refused = keeper.refused.subscribe();
        let mail = inbox.clone();
        std::thread::Builder::new()
            .name("networks".to_owned())
            .spawn(move || keeper.run(&mail))
            .context("no thread for the networks")?;
        Ok(Self { inbox, carried, host, refused, look_every: repair_every })
    }

    /// All containers of before have been named. `block` is where this node's containers have had their addresses.
    pub fn begin(&self, block: Option<EdgeBlock>) {
        self.inbox.ask(Request::Open(block));
    }

    /// What is told of the nodes has changed.
    pub fn handle_nodes(&self, me: Id, nodes: &Nodes) {
        let (place, neighbours) = place::around(me, nodes);
        if let Some(place) = place {
            self.host.send_replace(Some(place.host));
            self.inbox.ask(Request::Settle(place, neighbours));
        }
    }

    /// This node is in no cluster any more.
    pub fn leave(&self) {
        self.host.send_replace(None);
        self.inbox.ask(Request::Leave);
    }

    /// How this node's endpoints are reached, once it was told.
    pub fn host(&self) -> watch::Receiver<Option<Host>> {
        self.host.subscribe()
    }

    /// A member came or went.
    pub fn handle_member(&self, event: MemberEvent) {
        match event {
            MemberEvent::Up { id, .. } => self.inbox.host(id, false),
            MemberEvent::Down { id, .. } | MemberEvent::Left { id, .. } => self.inbox.host(id, true),
        }
    }

    /// A host tells something of an endpoint, or takes it back.
    pub fn handle_row(&self, scope: Scope, owner: Id, key: &str, row: Option<Endpoint>) {
        self.inbox.row(scope, (owner, key.into()), row);
    }

    /// A host says which addresses it is seen under.
    pub fn handle_origins(&self, owner: Id, origins: Origins) {
        self.inbox.ask(Request::Origins(owner, origins));
    }

    /// All rows of these endpoints are here that others have, as far as one of them knew: told after those rows.
    pub fn handle_heard(&self, scope: Scope) {
        self.inbox.heard(scope);
    }

    /// Has gossip bring what this node carries, for as long as it is a member.
    pub async fn hear(mut self, gossip: GossipHandle) {
        // Containers of before have been named, but perhaps not looked at yet.
        self.look(|_| ()).await;
        let mut heard = BTreeSet::new();
        loop {
            let wanted = to_hear(&self.carried.borrow_and_update());
            // Those first: gossip tells only what is news, so that a network which is carried anew is heard anew.
            for (scope, _) in heard.difference(&wanted) {
                gossip.hear(scope.topic(), false).await;
            }
            for (scope, _) in wanted.difference(&heard) {
                gossip.hear(scope.topic(), true).await;
            }
            heard = wanted;
            gossip.told(Part::Networks).await;
            if self.carried.changed().await.is_err() {
                return;
            }
        }
    }

    /// Has gossip tell the managers which published ports this host cannot take, for as long as it is a member.
    pub async fn tell_refused(mut self, gossip: GossipHandle) {
        loop {
            let refused = self.refused.borrow_and_update().clone();
            gossip.refuse(&refused).await;
            if self.refused.changed().await.is_err() {
                return;
            }
        }
    }

    /// Has gossip tell the others which addresses this host is seen under, for as long as it is a member.
    pub async fn tell_origins(self, gossip: GossipHandle) {
        let mut told = None;
        loop {
            let own = address::origins();
            if told.as_ref() != Some(&own) {
                gossip.tell_origins(&own).await;
                told = Some(own);
            }
            clock::until(Some(clock::monotonic() + self.look_every)).await;
        }
    }

    /// The networks that this node carries.
    pub fn carried(&self) -> Carried {
        self.carried.borrow().clone()
    }

    /// Asks the keeper something; `None` once it has ended.
    pub async fn look<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Keeper) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.inbox.ask(Request::Look(Box::new(move |keeper| {
            // Whoever asked may be gone.
            let _ = reply.send(question(keeper));
        })));
        answer.await.ok()
    }

    /// Ends the keeper: what containers need stays, and nothing where there are none.
    pub async fn end(&self) {
        let (reply, ended) = oneshot::channel();
        self.inbox.ask(Request::End(reply));
        // An error says that it has ended already.
        let _ = ended.await;
    }
}

/// What is to be heard, and since which time it is carried.
fn to_hear(carried: &Carried) -> BTreeSet<(Scope, u64)> {
    let networks = carried.keys().map(|(id, time)| (Scope::Network(*id), *time));
    networks.chain([(Scope::Ingress, 0)]).collect()
}

impl Network for Networks {
    fn attach<'a>(
        &'a self,
        container: &'a str,
        hostname: &'a str,
        wiring: &'a Wiring,
    ) -> BoxFuture<'a, Result<Attachment, String>> {
        let (reply, answer) = oneshot::channel();
        self.inbox.ask(Request::Attach {
            container: container.to_owned(),
            hostname: hostname.to_owned(),
            wiring: wiring.clone(),
            reply,
        });
        Box::pin(async { answer.await.unwrap_or_else(|_| Err(ENDED.to_owned())) })
    }

    fn rewire<'a>(
        &'a self,
        container: &'a str,
        hostname: &'a str,
        wiring: &'a Wiring,
    ) -> BoxFuture<'a, Result<Attachment, String>> {
        let (reply, answer) = oneshot::channel();
        self.inbox.ask(Request::Rewire {
            container: container.to_owned(),
            hostname: hostname.to_owned(),
            wiring: wiring.clone(),
            reply,
        });
        Box::pin(async { answer.await.unwrap_or_else(|_| Err(ENDED.to_owned())) })
    }

    fn adopted(
        &self,
        container: &str,
        wiring: &Wiring,
        addresses: &[IpAddr],
        ports: &[PublishedPort],
        kept: Vec<OwnedFd>,
    ) {
        self.inbox.ask(Request::Adopt {
            container: container.to_owned(),
            wiring: wiring.clone(),
            addresses: addresses.to_vec(),
            ports: ports.to_vec(),
            kept,
        });
    }

    fn detach<'a>(&'a self, container: &'a str) -> BoxFuture<'a, Result<(), String>> {
        let (reply, answer) = oneshot::channel();
        self.inbox.ask(Request::Detach { container: container.to_owned(), reply });
        Box::pin(async { answer.await.unwrap_or_else(|_| Err(ENDED.to_owned())) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_was_dropped_and_is_carried_again_is_heard_anew() {
        let config = Arc::new(NetworkConfig {
            id: Id::new(9),
            name: "front".into(),
            internal: false,
            mtu: None,
            subnets: Vec::new(),
        });
        let at = |time| Carried::from([((Id::new(9), time), (config.clone(), BTreeSet::new()))]);
        let (before, after) = (to_hear(&at(0)), to_hear(&at(1)));
        let scope = Scope::Network(Id::new(9));
        assert_eq!(before.difference(&after).collect::<Vec<_>>(), [&(scope, 0)]);
        assert_eq!(after.difference(&before).collect::<Vec<_>>(), [&(scope, 1)]);
    }
}
