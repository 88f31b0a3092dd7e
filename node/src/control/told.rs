//! The services in a network, as gossip tells of them: for people who look, on hosts that cannot ask a manager.

use std::collections::BTreeMap;

use covey_api::control::{ToldService, ToldTask};
use covey_state::{
    Id,
    network::{EndpointMode, PublishMode},
};

use crate::{
    endpoint::{Endpoint, Scope},
    network::{Networks, keeper::Keeper, rows::Rows},
};

/// The services in a network that this node carries; without one, those that publish ports on every host. None once the
/// networks have ended.
pub async fn services(networks: &Networks, network: Option<Id>) -> Vec<ToldService> {
    networks.look(move |keeper| in_network(keeper, network)).await.unwrap_or_default()
}

fn in_network(keeper: &Keeper, network: Option<Id>) -> Vec<ToldService> {
    let (scope, rows) = match network {
        None => (Scope::Ingress, Some(&keeper.edge.balancer.rows)),
        Some(id) => (Scope::Network(id), keeper.carriers.get(&id).map(|carrier| &carrier.balancer.rows)),
    };
    rows.map(|rows| of_rows(rows, scope)).unwrap_or_default()
}

fn of_rows(rows: &Rows, scope: Scope) -> Vec<ToldService> {
    let mut services: BTreeMap<Id, ToldService> = BTreeMap::new();
    for (key, row) in rows.iter() {
        let Some(service) = &row.service else { continue };
        let told = services
            .entry(service.id)
            .or_insert_with(|| without_tasks(rows, scope, service.id, &service.name));
        if rows.is_active(key) {
            told.tasks.extend(task(row));
        }
    }
    services.into_values().collect()
}

fn without_tasks(rows: &Rows, scope: Scope, id: Id, name: &str) -> ToldService {
    let exposure = rows.exposure(id).cloned().unwrap_or_default();
    let (vip, ports) = match scope {
        // Published ports lead straight to the tasks.
        Scope::Ingress => (None, exposure.ports),
        Scope::Network(_) if exposure.mode == EndpointMode::Dnsrr => (None, Vec::new()),
        Scope::Network(network) => {
            let vip = exposure.vips.into_iter().find(|vip| vip.network == network);
            (vip.and_then(|vip| vip.addresses.first().copied()), Vec::new())
        }
    };
    let ports = ports.into_iter().filter(|port| port.mode == PublishMode::Ingress).collect();
    ToldService { name: name.to_owned(), vip, ports, tasks: Vec::new() }
}

fn task(row: &Endpoint) -> Option<ToldTask> {
    Some(ToldTask {
        name: row.names.first()?.clone(),
        container: row.container.clone(),
        address: *row.addresses.first()?,
        host: row.host.vtep,
    })
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::Arc};

    use covey_state::{
        network::{Exposure, PublishedPort, Vip},
        node::EdgeBlock,
    };

    use super::*;
    use crate::endpoint::{Host, Service};

    const NET: Id = Id::new(5);

    fn row(version: u64, draining: bool) -> Endpoint {
        let edge = EdgeBlock { v4: "100.64.1.0/24".parse().unwrap(), v6: "fd00::/64".parse().unwrap() };
        let vip =
            Vip { network: NET, addresses: vec![IpAddr::from([10, 0, 1, u8::try_from(version).unwrap()])] };
        let port = |mode| PublishedPort { target: 80, published: 8080, mode, ..PublishedPort::default() };
        let ports = vec![port(PublishMode::Ingress), port(PublishMode::Host)];
        let exposure = Exposure { version, ports, vips: vec![vip], ..Exposure::default() };
        Endpoint {
            service: Some(Service { id: Id::new(7), name: "web".into(), exposure }),
            names: vec![format!("web.{version}.x")],
            container: format!("c{version}"),
            aliases: Vec::new(),
            addresses: vec![[10, 0, 1, 100].into()],
            host: Host { number: 1, vtep: [10, 9, 0, 1].into(), edge },
            draining,
        }
    }

    fn told(scope: Scope) -> Vec<ToldService> {
        let mut rows = Rows::new(scope);
        let plain = Endpoint { service: None, ..row(3, false) };
        for (owner, row) in [(1, row(4, false)), (2, row(9, true)), (3, plain)] {
            rows.put(&(Id::new(owner), Arc::from("t")), Some(row));
        }
        of_rows(&rows, scope)
    }

    /// NET-18, LB-03
    #[test]
    fn a_service_is_shown_as_its_latest_version_has_it_with_the_tasks_that_answer() {
        let services = told(Scope::Network(NET));
        let [web] = services.as_slice() else { panic!("{services:?}") };
        assert_eq!((web.name.as_str(), web.vip), ("web", Some([10, 0, 1, 9].into())));
        assert!(web.ports.is_empty());
        let [task] = web.tasks.as_slice() else { panic!("{:?}", web.tasks) };
        assert_eq!((task.name.as_str(), task.container.as_str()), ("web.4.x", "c4"));
        assert_eq!((task.address, task.host), ([10, 0, 1, 100].into(), [10, 9, 0, 1].into()));
    }

    /// NET-22
    #[test]
    fn published_ports_are_shown_where_they_are_published_on_every_host() {
        let services = told(Scope::Ingress);
        assert_eq!((services[0].vip, services[0].ports.len()), (None, 1));
        assert_eq!(services[0].ports[0].mode, PublishMode::Ingress);
    }
}
