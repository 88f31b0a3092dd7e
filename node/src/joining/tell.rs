//! This node's plain containers in networks of the cluster, as gossip tells of them: while they run, others find them.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use covey_runtime::{Container, ContainerState};
use covey_state::network::Attached;
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    time::sleep,
};

use super::{Places, held};
use crate::{
    endpoint::{Endpoint, Host, Scope},
    gossip_loop::{GossipHandle, Part},
    member::Member,
};

/// Between two looks at the places of this node while one may be nobody's.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What others know of one container: where it was told of, under which key.
type Told = BTreeMap<(Scope, String), Endpoint>;

struct Teller {
    places: Arc<Places>,
    gossip: GossipHandle,
    host: watch::Receiver<Option<Host>>,
    told: BTreeMap<String, Told>,
}

impl Places {
    /// Tells of the containers that run, and gives the places back of those that are gone, for as long as this node is
    /// the member `member`.
    pub async fn tell(self: Arc<Self>, member: Arc<Member>, mut host: watch::Receiver<Option<Host>>) {
        let mut events = self.runtime.events();
        let (gossip, told) = (member.gossip.clone(), BTreeMap::new());
        let mut teller = Teller { places: self.clone(), gossip, host: host.clone(), told };
        teller.show_all().await;
        member.gossip.told(Part::Containers).await;
        let telling = async {
            loop {
                tokio::select! {
                    event = events.recv() => match event {
                        Ok(event) => {
                            if teller.look_at(event.container.as_str()).await {
                                self.doubt.notify_one();
                            }
                        }
                        Err(RecvError::Lagged(_)) => {
                            teller.show_all().await;
                            self.doubt.notify_one();
                        }
                        Err(RecvError::Closed) => return,
                    },
                    // The sender lives as long as the daemon.
                    _ = host.changed() => teller.show_all().await,
                }
            }
        };
        // Names come and go in time, whether or not a manager answers.
        tokio::select! {
            () = telling => {}
            never = self.look_over_often(&member) => match never {},
        }
    }

    /// Gives back what is nobody's: now, and whenever some place may be.
    async fn look_over_often(&self, member: &Member) -> Infallible {
        loop {
            while let Err(failure) = self.look_over(member).await {
                tracing::debug!(%failure, "places of this node's containers are looked over later");
                // What is in doubt meanwhile is looked at then too.
                sleep(LOOK_AGAIN).await;
            }
            self.doubt.notified().await;
        }
    }
}

impl Teller {
    async fn show_all(&mut self) {
        let all = self.places.runtime.list();
        let here = all.iter().map(|container| container.id.to_string());
        let mut ids: Vec<String> = here.chain(self.told.keys().cloned()).collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            self.look_at(&id).await;
        }
    }

    /// Tells what has changed of a container; true where it had places and is gone.
    async fn look_at(&mut self, id: &str) -> bool {
        let container = self.places.runtime.inspect(id).ok();
        let known = self.told.contains_key(id);
        let member = container.as_ref().is_some_and(|container| held(&container.wiring).next().is_some());
        if !known && !member {
            return false;
        }
        let host = *self.host.borrow();
        let wanted =
            container.as_ref().zip(host).map(|(container, host)| rows(container, host)).unwrap_or_default();
        let told = self.told.entry(id.to_owned()).or_default();
        for (scope, key) in told.keys().filter(|key| !wanted.contains_key(key)) {
            self.gossip.conceal(*scope, key).await;
        }
        for ((scope, key), row) in wanted.iter().filter(|(key, row)| told.get(key) != Some(row)) {
            self.gossip.expose(*scope, key, row).await;
        }
        *told = wanted;
        if container.is_none() {
            self.told.remove(id);
        }
        known && container.is_none()
    }
}

/// What is to be told of a container.
fn rows(container: &Container, host: Host) -> Told {
    if container.state != ContainerState::Running {
        return Told::new();
    }
    let row = |attached: &Attached| {
        let place = attached.attachment?;
        let told = Endpoint {
            service: None,
            names: container.wiring.names.clone(),
            container: container.id.to_string(),
            aliases: attached.aliases.clone(),
            addresses: attached.addresses.clone(),
            host,
            draining: false,
        };
        Some(((Scope::Network(attached.network.id), format!("a/{place}")), told))
    };
    container.wiring.networks.iter().filter_map(row).collect()
}
