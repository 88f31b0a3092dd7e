//! Endpoints as their hosts tell them, of one network or of all published ports; and what follows from them: which
//! backends are behind which frontends.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use covey_mesh::{Backend, Frontend, Virtual};
use covey_state::{
    Id,
    network::{EndpointMode, Exposure, NetworkConfig, PublishMode},
};

use crate::{
    endpoint::{Endpoint, Host, Scope},
    translate,
};

/// Who told a row, and its key.
pub type Key = (Id, Arc<str>);
/// What a frontend had behind it, and has now.
pub type Moved = (Frontend, Option<Virtual>, Option<Virtual>);

/// What is made of a row, by what the roster says of whoever told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It counts.
    True,
    /// The roster does not say so, or not yet.
    Early,
    /// It never counts: it names an address that its host, or its network, does not have.
    False,
}

/// Weighs a row: a member tells of its own host only, and of addresses that are its to give. `host` is its owner's, as
/// the roster has it; `network` the one that it is told in, none for published ports.
pub fn weigh(row: &Endpoint, host: Option<Host>, network: Option<&NetworkConfig>) -> Standing {
    if host != Some(row.host) {
        return Standing::Early;
    }
    let edge = row.host.edge;
    let vips = row.service.iter().flat_map(|service| &service.exposure.vips);
    let has = match network {
        None => row.addresses.iter().all(|address| match address {
            IpAddr::V4(address) => edge.v4.contains(address),
            IpAddr::V6(address) => edge.v6.contains(address),
        }),
        Some(network) => {
            let vips = vips.filter(|vip| vip.network == network.id).flat_map(|vip| &vip.addresses);
            row.addresses.iter().chain(vips).all(|address| {
                network
                    .subnets
                    .iter()
                    .any(|subnet| subnet.net.contains(address) && subnet.gateway != *address)
            })
        }
    };
    if has { Standing::True } else { Standing::False }
}

/// The endpoints of one scope.
#[derive(Debug)]
pub struct Rows {
    scope: Scope,
    rows: BTreeMap<Key, Endpoint>,
    of_service: BTreeMap<Id, BTreeSet<Key>>,
    /// Hosts that are down: what they told is suspended.
    down: BTreeSet<Id>,
    /// What services claim. Two may claim the same for a moment, as when a port goes from one to the other: the later
    /// version has it.
    claims: BTreeMap<Frontend, BTreeMap<(u64, Id), Virtual>>,
    claimed: BTreeMap<Id, (u64, BTreeSet<Frontend>)>,
}

impl Rows {
    /// Nobody has told anything.
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            rows: BTreeMap::new(),
            of_service: BTreeMap::new(),
            down: BTreeSet::new(),
            claims: BTreeMap::new(),
            claimed: BTreeMap::new(),
        }
    }

    /// Takes what a host tells, or no longer tells; gives back what it told before.
    pub fn put(&mut self, key: &Key, row: Option<Endpoint>) -> Option<Endpoint> {
        let before = match row {
            Some(row) => {
                if let Some(service) = &row.service {
                    self.of_service.entry(service.id).or_default().insert(key.clone());
                }
                self.rows.insert(key.clone(), row)
            }
            None => self.rows.remove(key),
        };
        let service = |row: &Endpoint| row.service.as_ref().map(|service| service.id);
        let left = before.as_ref().and_then(service);
        if let Some(left) = left.filter(|left| self.rows.get(key).and_then(service) != Some(*left))
            && let Some(keys) = self.of_service.get_mut(&left)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.of_service.remove(&left);
            }
        }
        before
    }

    /// A host is down, or back. True if that is news.
    pub fn suspend(&mut self, owner: Id, down: bool) -> bool {
        if down { self.down.insert(owner) } else { self.down.remove(&owner) }
    }

    /// All rows.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Endpoint)> {
        self.rows.iter()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// The rows of one host.
    pub fn of_owner(&self, owner: Id) -> impl Iterator<Item = (&Key, &Endpoint)> {
        self.rows.range((owner, Arc::from(""))..).take_while(move |((id, _), _)| *id == owner)
    }

    /// One row.
    pub fn get(&self, key: &Key) -> Option<&Endpoint> {
        self.rows.get(key)
    }

    /// New connections may go there.
    pub fn is_active(&self, key: &Key) -> bool {
        !self.down.contains(&key.0) && self.rows.get(key).is_some_and(|row| !row.draining)
    }

    /// Settles anew what is behind the frontends of a service.
    pub fn settle(&mut self, service: Id) -> Vec<Moved> {
        let (version, wanted) = self.frontends(service);
        let (old_version, old) = self.claimed.remove(&service).unwrap_or_default();
        let touched: BTreeSet<Frontend> = old.iter().chain(wanted.keys()).copied().collect();
        let before: Vec<Option<Virtual>> = touched.iter().map(|frontend| self.behind(frontend)).collect();
        for frontend in &old {
            if let Some(claims) = self.claims.get_mut(frontend) {
                claims.remove(&(old_version, service));
            }
        }
        if !wanted.is_empty() {
            self.claimed.insert(service, (version, wanted.keys().copied().collect()));
        }
        for (frontend, backends) in wanted {
            self.claims.entry(frontend).or_default().insert((version, service), backends);
        }
        let moved = touched.into_iter().zip(before).map(|(frontend, before)| {
            let after = self.behind(&frontend);
            if after.is_none() {
                self.claims.remove(&frontend);
            }
            (frontend, before, after)
        });
        moved.filter(|(_, before, after)| before != after).collect()
    }

    /// What is behind a frontend.
    pub fn behind(&self, frontend: &Frontend) -> Option<Virtual> {
        self.claims.get(frontend)?.values().next_back().cloned()
    }

    /// How a service is reached: where its hosts differ, the highest version is true.
    pub fn exposure(&self, service: Id) -> Option<&Exposure> {
        let keys = self.of_service.get(&service)?;
        let exposures = keys.iter().filter_map(|key| Some(&self.rows.get(key)?.service.as_ref()?.exposure));
        exposures.max_by_key(|exposure| exposure.version)
    }

    fn frontends(&self, service: Id) -> (u64, BTreeMap<Frontend, Virtual>) {
        let Some(exposure) = self.exposure(service) else { return Default::default() };
        let active: Vec<IpAddr> = self
            .of_service
            .get(&service)
            .into_iter()
            .flatten()
            .filter(|key| self.is_active(key))
            .filter_map(|key| self.rows.get(key))
            .flat_map(|row| row.addresses.iter().copied())
            .collect();
        let behind = |frontend: &Frontend, port: Option<u16>| {
            let alike = |address: &&IpAddr| address.is_ipv4() == frontend.address().is_ipv4();
            let backends = active.iter().filter(alike).map(|address| Backend { address: *address, port });
            Virtual { balance: translate::balance(exposure.balance), backends: backends.collect() }
        };
        let mut frontends = BTreeMap::new();
        match self.scope {
            Scope::Network(network) if exposure.mode == EndpointMode::Vip => {
                let vips = exposure.vips.iter().filter(|vip| vip.network == network);
                for address in vips.flat_map(|vip| &vip.addresses) {
                    let frontend = Frontend::Address(*address);
                    frontends.insert(frontend, behind(&frontend, None));
                }
            }
            Scope::Network(_) => {}
            Scope::Ingress => {
                for port in exposure.ports.iter().filter(|port| port.mode == PublishMode::Ingress) {
                    for address in addresses_of(port.host_ip) {
                        let protocol = translate::protocol(port.protocol);
                        let frontend = Frontend::Port { address, protocol, port: port.published };
                        frontends.insert(frontend, behind(&frontend, Some(port.target)));
                    }
                }
            }
        }
        (exposure.version, frontends)
    }
}

/// Where a published port answers: at the address that is asked for, else at all of both families.
pub fn addresses_of(host_ip: Option<IpAddr>) -> Vec<IpAddr> {
    match host_ip {
        Some(address) => vec![address],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    }
}

#[cfg(test)]
mod tests {
    use covey_state::{
        network::{Protocol, PublishedPort, Vip},
        node::EdgeBlock,
    };

    use super::*;
    use crate::endpoint::Service;

    const NET: Id = Id::new(9);

    fn key(owner: u128, task: &str) -> Key {
        (Id::new(owner), task.into())
    }

    fn endpoint(service: u128, version: u64, last: u8, vip: u8) -> Endpoint {
        let ports = vec![PublishedPort { target: 80, published: 8080, ..PublishedPort::default() }];
        let vips = vec![Vip { network: NET, addresses: vec![[10, 0, 1, vip].into()] }];
        let exposure = Exposure { version, ports, vips, ..Exposure::default() };
        let edge = EdgeBlock { v4: "100.64.1.0/24".parse().unwrap(), v6: "fd00::/64".parse().unwrap() };
        Endpoint {
            service: Some(Service { id: Id::new(service), name: "web".into(), exposure }),
            names: Vec::new(),
            container: "c".into(),
            aliases: Vec::new(),
            addresses: vec![[10, 0, 1, last].into()],
            host: Host { number: 1, vtep: [10, 9, 0, 1].into(), edge },
            draining: false,
        }
    }

    fn backends(rows: &Rows, frontend: Frontend) -> Option<Vec<u8>> {
        let last = |backend: &Backend| match backend.address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(_) => 0,
        };
        rows.behind(&frontend).map(|behind| behind.backends.iter().map(last).collect())
    }

    fn vip(last: u8) -> Frontend {
        Frontend::Address([10, 0, 1, last].into())
    }

    /// LB-03, LB-07
    #[test]
    fn a_vip_has_the_tasks_that_are_neither_draining_nor_on_a_host_that_is_down() {
        let mut rows = Rows::new(Scope::Network(NET));
        for (owner, task, last) in [(1, "a", 3), (2, "b", 4), (2, "c", 5)] {
            rows.put(&key(owner, task), Some(endpoint(7, 1, last, 2)));
        }
        let moved = rows.settle(Id::new(7));
        assert_eq!(moved.len(), 1);
        assert_eq!(backends(&rows, vip(2)), Some(vec![3, 4, 5]));
        assert!(rows.settle(Id::new(7)).is_empty(), "nothing has changed");

        rows.put(&key(1, "a"), Some(Endpoint { draining: true, ..endpoint(7, 1, 3, 2) }));
        rows.settle(Id::new(7));
        assert_eq!(backends(&rows, vip(2)), Some(vec![4, 5]));
        assert!(rows.suspend(Id::new(2), true) && !rows.suspend(Id::new(2), true));
        rows.settle(Id::new(7));
        assert_eq!(backends(&rows, vip(2)), Some(vec![]));
        rows.suspend(Id::new(2), false);
        rows.settle(Id::new(7));
        assert_eq!(backends(&rows, vip(2)), Some(vec![4, 5]));
    }

    /// LB-03
    #[test]
    fn where_hosts_differ_the_highest_version_defines_the_service() {
        let mut rows = Rows::new(Scope::Network(NET));
        rows.put(&key(1, "a"), Some(endpoint(7, 5, 3, 9)));
        rows.put(&key(2, "b"), Some(endpoint(7, 4, 4, 2)));
        rows.settle(Id::new(7));
        assert_eq!(backends(&rows, vip(9)), Some(vec![3, 4]));
        assert_eq!(backends(&rows, vip(2)), None);
        rows.put(&key(1, "a"), None);
        let moved = rows.settle(Id::new(7));
        assert_eq!(moved.iter().map(|(frontend, ..)| *frontend).collect::<Vec<_>>(), [vip(2), vip(9)]);
        assert_eq!((backends(&rows, vip(9)), backends(&rows, vip(2))), (None, Some(vec![4])));
        rows.put(&key(2, "b"), None);
        rows.settle(Id::new(7));
        assert!(rows.claims.is_empty());
    }

    /// PRT-05, PRT-11
    #[test]
    fn a_port_that_goes_to_another_service_is_the_later_ones() {
        let port = |protocol| Frontend::Port {
            address: Ipv4Addr::UNSPECIFIED.into(),
            protocol: translate::protocol(protocol),
            port: 8080,
        };
        let mut rows = Rows::new(Scope::Ingress);
        rows.put(&key(1, "a"), Some(endpoint(7, 1, 3, 2)));
        rows.settle(Id::new(7));
        rows.put(&key(1, "b"), Some(endpoint(8, 2, 4, 2)));
        rows.settle(Id::new(8));
        assert_eq!(backends(&rows, port(Protocol::Tcp)), Some(vec![4]));
        assert_eq!(backends(&rows, port(Protocol::Udp)), None);
        rows.put(&key(1, "a"), None);
        assert!(rows.settle(Id::new(7)).is_empty());
        assert_eq!(backends(&rows, port(Protocol::Tcp)), Some(vec![4]));
    }

    #[test]
    fn a_member_tells_of_its_own_host_and_of_addresses_that_are_its_to_give() {
        let subnet = covey_state::network::Subnet {
            net: "10.0.1.0/24".parse().unwrap(),
            gateway: [10, 0, 1, 1].into(),
            range: None,
            vni: Some(4097),
        };
        let network = NetworkConfig {
            id: NET,
            name: "front".into(),
            internal: false,
            mtu: None,
            subnets: vec![subnet],
        };
        let row = endpoint(7, 1, 3, 2);
        let host = Some(row.host);
        assert_eq!(weigh(&row, host, Some(&network)), Standing::True);
        assert_eq!(weigh(&row, None, Some(&network)), Standing::Early);
        let other = Host { vtep: [10, 9, 0, 2].into(), ..row.host };
        assert_eq!(weigh(&row, Some(other), Some(&network)), Standing::Early);
        assert_eq!(weigh(&endpoint(7, 1, 1, 2), host, Some(&network)), Standing::False, "the gateway");
        let away = |address: [u8; 4]| Endpoint { addresses: vec![address.into()], ..row.clone() };
        assert_eq!(weigh(&away([10, 0, 2, 3]), host, Some(&network)), Standing::False);
        let mut vip = row.clone();
        vip.service.as_mut().unwrap().exposure.vips[0].addresses = vec![[192, 0, 2, 1].into()];
        assert_eq!(weigh(&vip, host, Some(&network)), Standing::False);
        assert_eq!(weigh(&row, host, None), Standing::False, "not of its host's block");
        assert_eq!(weigh(&away([100, 64, 1, 9]), host, None), Standing::True);
    }

    #[test]
    fn the_rows_of_one_host_are_found() {
        let mut rows = Rows::new(Scope::Ingress);
        for (owner, task) in [(1, "a"), (2, ""), (2, "b"), (3, "a")] {
            rows.put(&key(owner, task), Some(endpoint(7, 1, 3, 2)));
        }
        let found: Vec<&Key> = rows.of_owner(Id::new(2)).map(|(key, _)| key).collect();
        assert_eq!(found, [&key(2, ""), &key(2, "b")]);
    }
}
