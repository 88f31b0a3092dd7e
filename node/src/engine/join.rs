//! Containers in networks: their places are taken, changed and given back; and the networks of this host themselves.

use std::{collections::BTreeSet, net::IpAddr};

use covey_api::{
    Failure,
    engine::{CreateContainer, EventKind, Join, LocalNetwork, Network, NetworkRef},
};
use covey_overlay_netlink::local_networks;
use covey_runtime::{Container, ContainerState, NetworkMode};
use covey_state::{
    Id,
    cluster::EdgePool,
    network::{ATTACHMENTS_MAX, Attached, NetworkConfig, NetworkSpec, Wiring},
};
use ipnet::IpNet;
use tokio::{sync::RwLockWriteGuard, task::spawn_blocking};

use super::{LocalEngine, failure};
use crate::{
    clock,
    joining::{Taken, held},
    network::local::{self, LocalNetworks},
};

/// Places that were taken for a container which does not have them yet.
#[derive(Default)]
pub struct Entered<'a> {
    /// Nobody else takes an address of this host's networks meanwhile.
    locals: Option<RwLockWriteGuard<'a, LocalNetworks>>,
    taken: Vec<Taken>,
}

impl Entered<'_> {
    /// The container has them.
    pub fn keep(self) {
        self.taken.into_iter().for_each(Taken::keep);
    }
}

impl LocalEngine {
    /// What a new container has of the networks.
    pub(super) async fn wire(&self, request: &CreateContainer) -> Result<(Wiring, Entered<'_>), Failure> {
        let named = |name: &String| (!name.is_empty()).then(|| name.clone());
        let mut wiring = Wiring {
            ports: request.ports.clone(),
            nameservers: request.spec.naming.servers.clone(),
            names: [&request.name, &request.spec.hostname].into_iter().filter_map(named).collect(),
            bridge: request.network == Network::Bridge,
            ..Wiring::default()
        };
        let shown = named(&request.name).unwrap_or_else(|| format!("of image {}", request.spec.image));
        let mut entered = Entered::default();
        for join in &request.networks {
            match join.network {
                NetworkRef::Bridge => wiring.bridge = true,
                _ => self.enter(&mut wiring, join, &shown, &mut entered).await?,
            }
        }
        settle(&mut wiring);
        Ok((wiring, entered))
    }

    /// Takes a place in a network of a user.
    async fn enter<'a>(
        &'a self,
        wiring: &mut Wiring,
        join: &Join,
        container: &str,
        entered: &mut Entered<'a>,
    ) -> Result<(), Failure> {
        if wiring.networks.len() >= ATTACHMENTS_MAX {
            return Err(Failure::forbidden(format!("a container is in at most {ATTACHMENTS_MAX} networks")));
        }
        let attached = match &join.network {
            NetworkRef::Bridge => return Ok(()),
            NetworkRef::Local(text) => {
                if entered.locals.is_none() {
                    entered.locals = Some(self.locals.write().await);
                }
                let (Some(id), Some(locals)) = (local::from_text(text), &mut entered.locals) else {
                    return Err(missing(text));
                };
                let addresses = locals.choose(id, &join.addresses, &self.used(id)).map_err(failure::local)?;
                let network = locals.get(id).map_err(failure::local)?.config();
                Attached { network, addresses, aliases: join.aliases.clone(), attachment: None }
            }
            NetworkRef::Cluster(id) => {
                let taken = self.daemon.places.take(*id, container, join.addresses.clone()).await?;
                let attached =
                    taken.attached(join.aliases.clone()).ok_or_else(|| missing(&id.to_string()))?;
                entered.taken.push(taken);
                attached
            }
        };
        check_apart(&wiring.networks, &attached.network)?;
        wiring.chosen.extend(&join.addresses);
        wiring.networks.push(attached);
        Ok(())
    }

    /// The addresses of containers in a network of this host.
    fn used(&self, network: Id) -> BTreeSet<IpAddr> {
        let of = |container: Container| {
            let attached = container.wiring.networks.into_iter().filter(move |one| one.network.id == network);
            attached.flat_map(|one| one.addresses)
        };
        self.runtime.list().into_iter().flat_map(of).collect()
    }

    /// Whether the networks of this host that a container is in are still there.
    pub(super) async fn check_networks(&self, id: &str) -> Result<(), Failure> {
        let container = self.runtime.inspect(id).map_err(failure::lookup)?;
        let locals = self.locals.read().await;
        let mut of_host = container.wiring.networks.iter().filter(|attached| !attached.network.is_overlay());
        match of_host.find(|attached| locals.get(attached.network.id).is_err()) {
            Some(gone) => Err(Failure::not_found(format!(
                "failed to set up container networking: network {} not found",
                gone.network.name
            ))),
            None => Ok(()),
        }
    }

    pub(super) async fn connect(&self, id: String, join: Join) -> Result<(), Failure> {
        let container = self.movable(&id)?;
        let mut wiring = container.wiring.clone();
        let mut entered = Entered::default();
        let name = container.name.clone();
        let there =
            move |network: &str| format!("endpoint with name {name} already exists in network {network}");
        if is_in(&wiring, &join.network) {
            return Err(Failure::forbidden(there(&self.name_of(&join.network, &container).await)));
        }
        self.enter(&mut wiring, &join, &container.name, &mut entered).await?;
        let attached = wiring.networks.pop().filter(|_| join.network != NetworkRef::Bridge);
        // Somebody may have been faster.
        let added = move |old: &Wiring| {
            if is_in(old, &join.network) {
                return Err(there(attached.as_ref().map_or("bridge", |attached| &attached.network.name)));
            }
            let mut wiring = old.clone();
            match attached {
                Some(attached) => {
                    check_apart(&wiring.networks, &attached.network).map_err(|failure| failure.message)?;
                    wiring.networks.push(attached);
                    wiring.chosen.extend(join.addresses);
                }
                None => wiring.bridge = true,
            }
            settle(&mut wiring);
            Ok(wiring)
        };
        self.runtime.rewire(&id, added).await.map_err(failure::rewire)?;
        entered.keep();
        Ok(())
    }

    pub(super) async fn disconnect(&self, id: String, network: NetworkRef) -> Result<(), Failure> {
        let container = self.movable(&id)?;
        let name = self.name_of(&network, &container).await;
        let elsewhere = format!("container {id} is not connected to network {name}");
        if !is_in(&container.wiring, &network) {
            return Err(Failure::forbidden(elsewhere));
        }
        let of_network = {
            let network = network.clone();
            move |attached: &Attached| is_one(attached, &network)
        };
        let left = container.wiring.networks.iter().find(|attached| of_network(attached));
        let place = left.and_then(|attached| attached.attachment);
        let bridge = network == NetworkRef::Bridge;
        let removed = move |old: &Wiring| {
            let mut wiring = old.clone();
            let gone = wiring.networks.extract_if(.., |attached| of_network(attached));
            let given_back: Vec<_> = gone.flat_map(|attached| attached.addresses).collect();
            wiring.chosen.retain(|address| !given_back.contains(address));
            wiring.bridge &= !bridge;
            settle(&mut wiring);
            Ok(wiring)
        };
        self.runtime.rewire(&id, removed).await.map_err(failure::rewire)?;
        self.daemon.places.give_back(place.into_iter().collect()).await;
        Ok(())
    }

    /// A container whose networks its user chooses.
    fn movable(&self, id: &str) -> Result<Container, Failure> {
        let container = self.runtime.inspect(id).map_err(failure::lookup)?;
        match (container.task, &container.network) {
            (Some(task), _) => Err(Failure::forbidden(format!(
                "container {} belongs to task {}: change the networks of its service",
                container.name, task.task
            ))),
            (None, NetworkMode::Edge) => Ok(container),
            (None, NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_)) => {
                Err(Failure::forbidden("container has no network namespace that can be connected"))
            }
        }
    }

    /// The places that a container holds in networks of the cluster.
    pub(super) fn places_of(&self, id: &str) -> Vec<Id> {
        self.runtime.inspect(id).map(|container| held(&container.wiring).collect()).unwrap_or_default()
    }

    async fn name_of(&self, network: &NetworkRef, container: &Container) -> String {
        if let Some(attached) = container.wiring.networks.iter().find(|attached| is_one(attached, network)) {
            return attached.network.name.clone();
        }
        match network {
            NetworkRef::Bridge => "bridge".to_owned(),
            NetworkRef::Local(text) => {
                let locals = self.locals.read().await;
                let found = local::from_text(text).and_then(|id| locals.get(id).ok());
                found.map_or_else(|| text.clone(), |network| network.spec.name.clone())
            }
            NetworkRef::Cluster(id) => id.to_string(),
        }
    }

    pub(super) async fn list_networks(&self) -> Vec<LocalNetwork> {
        let to_api = |network: &local::LocalNetwork| LocalNetwork {
            id: local::to_text(network.id),
            spec: network.spec.clone(),
            subnets: network.subnets.clone(),
            created_at: network.created_at,
        };
        self.locals.read().await.iter().map(to_api).collect()
    }

    pub(super) async fn create_network(&self, spec: NetworkSpec) -> Result<String, Failure> {
        let routes = spawn_blocking(local_networks).await;
        let routes =
            routes.map_err(|error| failure::internal(&error))?.map_err(|error| failure::internal(&error))?;
        let mut taken: Vec<(IpNet, String)> =
            routes.into_iter().map(|net| (net, "a network of this host".to_owned())).collect();
        let ground = self.daemon.member().and_then(|member| member.nodes().ground());
        for pool in [Some(EdgePool::default()), ground.map(|ground| ground.edge)].into_iter().flatten() {
            let whose = || "where all containers have addresses of their own".to_owned();
            taken.extend([(pool.v4.into(), whose()), (pool.v6.into(), whose())]);
        }
        let (id, name) = (clock::new_id(), spec.name.clone());
        self.locals.write().await.create(id, spec, clock::now(), taken).map_err(failure::local)?;
        self.tell_network("create", id, name);
        Ok(local::to_text(id))
    }

    pub(super) async fn remove_network(&self, text: String) -> Result<(), Failure> {
        let id = local::from_text(&text).ok_or_else(|| missing(&text))?;
        let mut locals = self.locals.write().await;
        let name = locals.get(id).map_err(failure::local)?.spec.name.clone();
        let uses = |container: &Container| {
            container.state == ContainerState::Running
                && container.wiring.networks.iter().any(|attached| attached.network.id == id)
        };
        if let Some(container) = self.runtime.list().into_iter().find(uses) {
            return Err(Failure::forbidden(format!(
                "error while removing network: network {name} has active endpoints (name:\"{}\" id:\"{}\")",
                container.name,
                container.id.short()
            )));
        }
        locals.remove(id).map_err(failure::local)?;
        self.tell_network("destroy", id, name);
        Ok(())
    }

    fn tell_network(&self, action: &str, id: Id, name: String) {
        let more = [("type".to_owned(), "bridge".to_owned())].into();
        self.events.tell(EventKind::Network, action, local::to_text(id), name, more);
    }
}

fn missing(network: &str) -> Failure {
    Failure::not_found(format!("network {network} not found"))
}

/// A way out is there where the container asked for one, or one of its networks has one.
fn settle(wiring: &mut Wiring) {
    wiring.edge = wiring.bridge || wiring.networks.iter().any(|attached| !attached.network.internal);
}

fn is_one(attached: &Attached, network: &NetworkRef) -> bool {
    match network {
        NetworkRef::Bridge => false,
        NetworkRef::Local(text) => Some(attached.network.id) == local::from_text(text),
        NetworkRef::Cluster(id) => attached.network.id == *id,
    }
}

fn is_in(wiring: &Wiring, network: &NetworkRef) -> bool {
    match network {
        NetworkRef::Bridge => wiring.bridge,
        other => wiring.networks.iter().any(|attached| is_one(attached, other)),
    }
}

/// One address must not mean two things inside a container.
fn check_apart(networks: &[Attached], network: &NetworkConfig) -> Result<(), Failure> {
    let meet = |one: &IpNet, other: &IpNet| one.contains(other) || other.contains(one);
    let meets = |other: &&Attached| {
        let subnets = other.network.subnets.iter();
        subnets
            .flat_map(|one| network.subnets.iter().map(move |two| (one.net, two.net)))
            .any(|(a, b)| meet(&a, &b))
    };
    match networks.iter().find(meets) {
        Some(other) => Err(Failure::forbidden(format!(
            "networks {} and {} have addresses in common: a container can be in one of them only",
            other.network.name, network.name
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use covey_state::network::Subnet;

    use super::*;

    fn attached(id: u128, net: &str, internal: bool) -> Attached {
        let net: IpNet = net.parse().unwrap();
        let subnets = vec![Subnet { net, gateway: net.network(), range: None, vni: None }];
        let name = format!("n{id}");
        let network = NetworkConfig { id: Id::new(id), name, internal, mtu: None, subnets };
        Attached { network: Arc::new(network), addresses: Vec::new(), aliases: Vec::new(), attachment: None }
    }

    /// NET-24
    #[test]
    fn a_way_out_is_there_where_something_asks_for_one() {
        for (bridge, internal, edge) in [
            (false, vec![], false),
            (true, vec![true], true),
            (false, vec![true, false], true),
            (false, vec![true], false),
        ] {
            let networks = internal.iter().map(|internal| attached(1, "10.0.0.0/24", *internal)).collect();
            let mut wiring = Wiring { bridge, networks, ..Wiring::default() };
            settle(&mut wiring);
            assert_eq!(wiring.edge, edge, "{bridge} {internal:?}");
        }
    }

    #[test]
    fn a_container_is_in_the_networks_that_it_has_a_place_in() {
        let wiring = Wiring { networks: vec![attached(7, "10.0.0.0/24", false)], ..Wiring::default() };
        assert!(is_in(&wiring, &NetworkRef::Local(local::to_text(Id::new(7)))));
        assert!(is_in(&wiring, &NetworkRef::Cluster(Id::new(7))));
        assert!(!is_in(&wiring, &NetworkRef::Local(Id::new(7).to_string())));
        assert!(!is_in(&wiring, &NetworkRef::Bridge));
    }

    /// NET-14
    #[test]
    fn networks_with_addresses_in_common_do_not_meet_in_a_container() {
        let has = [attached(1, "10.0.0.0/24", false), attached(2, "10.1.0.0/16", false)];
        assert_eq!(check_apart(&has, &attached(3, "10.0.1.0/24", false).network), Ok(()));
        let failure = check_apart(&has, &attached(3, "10.1.9.0/24", false).network).unwrap_err();
        let said = "networks n2 and n3 have addresses in common: a container can be in one of them only";
        assert_eq!(failure, Failure::forbidden(said));
    }
}
