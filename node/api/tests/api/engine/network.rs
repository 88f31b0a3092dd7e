//! Networks of the fake host, which carry nothing.

use std::collections::BTreeMap;

use covey_api::engine::{Endpoint, EngineEvent, EventKind, Join, LocalNetwork, NetworkRef};
use covey_state::network::{NetworkSpec, Subnet};

use super::{FakeEngine, clock};

impl FakeEngine {
    pub(super) fn make_network(&self, spec: NetworkSpec) -> String {
        let mut networks = self.networks.lock().unwrap();
        let id = format!("{:064x}", (networks.len() as u128 + 0xa) << 120);
        let chosen = [Subnet {
            net: "172.18.0.0/16".parse().unwrap(),
            gateway: "172.18.0.1".parse().unwrap(),
            range: None,
            vni: None,
        }];
        let subnets = spec.subnets.iter().map(|subnet| Subnet {
            net: subnet.subnet,
            gateway: subnet.gateway.unwrap_or(subnet.subnet.hosts().next().unwrap()),
            range: subnet.range,
            vni: None,
        });
        let mut subnets: Vec<_> = subnets.collect();
        if subnets.is_empty() {
            subnets = chosen.into();
        }
        let network = LocalNetwork { id: id.clone(), spec, subnets, created_at: clock() };
        self.tell_of("create", &network);
        networks.push(network);
        id
    }

    pub(super) fn forget_network(&self, id: &str) {
        let mut networks = self.networks.lock().unwrap();
        let at = networks.iter().position(|network| network.id == id).unwrap();
        self.tell_of("destroy", &networks.remove(at));
    }

    fn tell_of(&self, action: &str, network: &LocalNetwork) {
        let attributes = BTreeMap::from([
            ("name".to_owned(), network.spec.name.clone()),
            ("type".to_owned(), "bridge".to_owned()),
        ]);
        let _ = self.events.send(EngineEvent {
            at: clock(),
            kind: EventKind::Network,
            action: action.to_owned(),
            id: network.id.clone(),
            attributes,
        });
    }

    /// A container in a network of a user gets its place at the edge.
    pub fn give_way_out(&self, name: &str) {
        let endpoint =
            self.endpoint(Join { network: NetworkRef::Bridge, aliases: Vec::new(), addresses: Vec::new() });
        let mut cells = self.cells();
        let cell = cells.values_mut().find(|cell| cell.container.name == name).unwrap();
        cell.container.endpoints.push(endpoint);
    }

    pub(super) fn endpoint(&self, join: Join) -> Endpoint {
        let networks = self.networks.lock().unwrap();
        let name = match &join.network {
            NetworkRef::Bridge => "bridge".to_owned(),
            NetworkRef::Local(id) => networks.iter().find(|n| n.id == *id).unwrap().spec.name.clone(),
            NetworkRef::Cluster(id) => format!("overlay {id}"),
        };
        let asked = join.addresses.first().map(|address| format!("{address}/16"));
        Endpoint {
            network: join.network,
            name,
            addresses: vec![asked.unwrap_or("172.18.0.2/16".into()).parse().unwrap()],
            chosen: join.addresses,
            gateways: vec!["172.18.0.1".parse().unwrap()],
            mac: "02:fc:ac:12:00:02".into(),
            aliases: join.aliases,
        }
    }
}
