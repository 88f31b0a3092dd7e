//! One network that this host carries: its router's namespace, the ways to all endpoints, virtual addresses and names.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use covey_mesh::{
    Network, Place as Tables,
    names::{Member, Port, Zone},
};
use covey_overlay::{
    network::{Attachment, Desired, Subnet, plan_attachment, plan_endpoint, plan_peer},
    object::{Change, LinkName, Observed, VXLAN_PREFIX},
};
use covey_overlay_netlink::{FlowCache, Stack, namespace, remove_router};
use covey_state::{
    Id,
    network::{Attached, NetworkConfig},
};
use tokio::sync::watch;

use super::{
    balancer::Balancer,
    fault::{self, Fault},
    place::{Place, measured, mtu},
    rows::Key,
};
use crate::{
    endpoint::{Endpoint, Scope},
    translate,
};

/// In front of a network's id in the name of its namespace's file.
pub const PREFIX: &str = "net-";
/// Characters of a container's short id.
const SHORT_ID: usize = 12;

/// A network that this host carries.
pub struct Carrier {
    /// What it is.
    pub config: Arc<NetworkConfig>,
    /// How many networks this daemon had carried before it.
    pub time: u64,
    path: PathBuf,
    router: Stack,
    /// What is wanted of links and ways.
    pub desired: Desired,
    /// Endpoints and virtual addresses.
    pub balancer: Balancer,
    /// What names mean in it.
    pub zone: watch::Sender<Zone>,
    /// Address → whose rows tell it: while a task's place goes to another, two may.
    owners: BTreeMap<IpAddr, BTreeSet<Key>>,
    /// This node, whose endpoints need no way.
    me: Option<Id>,
    /// Ways that the kernel has not taken yet.
    ways: Vec<Change>,
}

/// What a container alone is called in its networks: by its names, and by its id, short and in full (NET-26).
fn own_names(names: &[String], container: &str) -> Vec<String> {
    let short = container.chars().take(SHORT_ID).collect();
    let names = names.iter().filter(|name| !name.is_empty()).cloned();
    names.chain([short, container.to_owned()]).collect()
}

/// Bytes of a packet: as is asked for, else what the underlay leaves.
fn mtu_of(config: &NetworkConfig, vtep: Option<IpAddr>) -> Result<u32> {
    config.mtu.map_or_else(|| mtu(vtep), Ok)
}

/// What the router's tables hold beside virtual addresses.
fn tables(own: BTreeSet<IpAddr>) -> Tables {
    Tables::Network(Network { own, outside: VXLAN_PREFIX.to_owned() })
}

/// Nobody is in it yet. Others may be who have not told, unless it is this host's alone.
fn zone(config: &NetworkConfig) -> Zone {
    let mut zone = Zone::new(&config.name);
    zone.set_whole(!config.is_overlay());
    zone
}

/// The namespace of a network's router.
pub fn path(folder: &Path, network: Id) -> PathBuf {
    folder.join(format!("{PREFIX}{network}"))
}

impl Carrier {
    /// Makes the router, or finds the one of before. Links of a network of several hosts have the flow cache, where this
    /// kernel has one.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn open(
        folder: &Path,
        config: Arc<NetworkConfig>,
        place: Option<&Place>,
        cache: Option<Arc<FlowCache>>,
    ) -> Result<Self> {
        let path = path(folder, config.id);
        match namespace::create(&path) {
            Err(namespace::NamespaceError::System(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
            }
            made => made?,
        }
        let subnet = |subnet: &covey_state::network::Subnet| Subnet {
            net: subnet.net,
            vni: subnet.vni,
            gateway: subnet.gateway,
        };
        let host = place.map(|place| place.host);
        let cache = cache.filter(|_| config.is_overlay());
        let desired = Desired {
            local: host.map_or(IpAddr::from([127, 0, 0, 1]), |host| host.vtep),
            port: place.map_or(covey_state::cluster::DATA_PATH_PORT, |place| place.port),
            mac: host.map_or(covey_overlay::edge::RETURN_MAC, |host| host.mac()),
            mtu: mtu_of(&config, host.map(|host| host.vtep))?,
            cached: cache.is_some(),
            subnets: config.subnets.iter().map(subnet).collect(),
            attachments: BTreeMap::new(),
            peers: BTreeMap::new(),
            endpoints: BTreeMap::new(),
        };
        Ok(Self {
            router: Stack::router(&path, cache)
                .with_context(|| format!("router of network {}", config.name))?,
            balancer: Balancer::open(Scope::Network(config.id), Some(&path), tables(BTreeSet::new()))?,
            zone: watch::Sender::new(zone(&config)),
            desired,
            config,
            time: 0,
            path,
            owners: BTreeMap::new(),
            me: place.map(|place| place.id),
            ways: Vec::new(),
        })
    }

    /// This node is there from now on; the next repair tells the kernel.
    ///
    /// # Errors
    /// What the underlay leaves of a packet is not known: it stays as it was.
    pub fn settle_at(&mut self, place: &Place) -> Result<()> {
        self.me = Some(place.id);
        self.desired.local = place.host.vtep;
        self.desired.port = place.port;
        self.desired.mac = place.host.mac();
        self.desired.mtu = mtu_of(&self.config, Some(place.host.vtep))?;
        Ok(())
    }

    /// The VNIs that it takes.
    pub fn vnis(&self) -> impl Iterator<Item = u32> {
        self.config.subnets.iter().filter_map(|subnet| subnet.vni)
    }

    /// A container of before is in it.
    pub fn claim(
        &mut self,
        container: &str,
        namespace: &Path,
        inside: String,
        attached: &Attached,
        names: &[String],
    ) {
        let attachment = Attachment {
            namespace: namespace.to_string_lossy().into_owned(),
            inside,
            addresses: attached.addresses.clone(),
            default_route: false,
        };
        self.desired.attachments.insert(LinkName::of_container(container), attachment);
        self.balancer.set_place(self.tables(None));
        // Gossip tells nothing of a network that is this host's alone.
        if !self.config.is_overlay() {
            let own = [&own_names(names, container)[..], &attached.aliases].concat();
            let member =
                Member { own, addresses: attached.addresses.clone(), active: true, ..Member::default() };
            self.zone.send_modify(|zone| zone.set(container, Some(member)));
        }
    }

    /// Wires a container.
    ///
    /// # Errors
    /// The kernel refused; the container is not in it then.
    pub fn attach(
        &mut self,
        container: &str,
        namespace: &Path,
        inside: String,
        attached: &Attached,
        names: &[String],
    ) -> Result<()> {
        self.claim(container, namespace, inside, attached, names);
        let wired = self
            .router
            .apply_all(&plan_attachment(&self.desired, &LinkName::of_container(container)))
            .map_err(anyhow::Error::from)
            .and_then(|()| self.balancer.commit());
        if wired.is_err() {
            self.detach(container)?;
        }
        wired
    }

    /// Takes a container out.
    ///
    /// # Errors
    /// The kernel refused; it is tried again with the next repair.
    pub fn detach(&mut self, container: &str) -> Result<()> {
        self.release(container);
        let released = self.balancer.commit_tables();
        let name = LinkName::of_container(container);
        if let Some(attachment) = self.desired.attachments.remove(&name) {
            // The ways first: what is sent to a link while it is taken down vanishes.
            let ways = attachment.addresses.iter().map(|address| plan_endpoint(&self.desired, *address));
            let steps: Vec<_> = ways.chain([Change::DeleteLink(name)]).collect();
            self.router.apply_all(&steps)?;
        }
        released
    }

    /// Nobody is sent to a container any more, with the next [`Carrier::settle`]; its links are still there.
    pub fn release(&mut self, container: &str) {
        if self.holds(container) {
            self.zone.send_modify(|zone| zone.set(container, None));
            self.balancer.set_place(self.tables(Some(&LinkName::of_container(container))));
        }
    }

    /// This container is in it.
    pub fn holds(&self, container: &str) -> bool {
        self.desired.attachments.contains_key(&LinkName::of_container(container))
    }

    /// Nobody of this host is in it.
    pub fn is_empty(&self) -> bool {
        self.desired.attachments.is_empty()
    }

    /// What the tables hold beside virtual addresses, once this container is not in it any more.
    fn tables(&self, released: Option<&LinkName>) -> Tables {
        let stays = self.desired.attachments.iter().filter(|(name, _)| Some(*name) != released);
        tables(stays.flat_map(|(_, attachment)| attachment.addresses.iter().copied()).collect())
    }

    /// Takes what a host tells of an endpoint, with the next [`Carrier::settle`].
    pub fn put(&mut self, key: &Key, row: Option<Endpoint>) {
        let before = self.balancer.put(key, row.clone());
        if Some(key.0) != self.me {
            self.lead(key, before.as_ref(), row.as_ref());
        }
        self.name(key);
    }

    /// A host went down, or came back; with the next [`Carrier::settle`].
    pub fn suspend(&mut self, owner: Id, down: bool) {
        self.balancer.suspend(owner, down);
        let keys: Vec<Key> = self.balancer.rows.of_owner(owner).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.name(key));
    }

    /// What has not been told of it by now is not there.
    pub fn close_names(&self) {
        self.zone.send_if_modified(|zone| {
            let is_news = !zone.is_whole();
            zone.set_whole(true);
            is_news
        });
    }

    /// The ways to what another host has.
    fn lead(&mut self, key: &Key, before: Option<&Endpoint>, row: Option<&Endpoint>) {
        if let Some(row) = row {
            let number = row.host.number;
            let old = self.desired.peers.insert(number, row.host.peer());
            self.ways.extend(plan_peer(&self.desired, number, old.as_ref()));
            for address in &row.addresses {
                self.owners.entry(*address).or_default().insert(key.clone());
                if self.desired.endpoints.insert(*address, number) != Some(number) {
                    self.ways.push(plan_endpoint(&self.desired, *address));
                }
            }
        }
        let Some(before) = before else { return };
        let kept: &[IpAddr] = row.map_or(&[], |row| &row.addresses);
        for address in before.addresses.iter().filter(|address| !kept.contains(address)) {
            self.unlead(key, *address);
        }
        let number = before.host.number;
        let used = self.desired.endpoints.values().any(|other| *other == number);
        if !used && let Some(old) = self.desired.peers.remove(&number) {
            self.ways.extend(plan_peer(&self.desired, number, Some(&old)));
        }
    }

    /// The row of this key tells an address no longer; another may, as when a late row of its old owner is withdrawn.
    fn unlead(&mut self, key: &Key, address: IpAddr) {
        let Some(owners) = self.owners.get_mut(&address) else { return };
        if !owners.remove(key) {
            return;
        }
        let left = owners.iter().find_map(|owner| self.balancer.rows.get(owner));
        let number = left.map(|row| (row.host.number, row.host.peer()));
        if owners.is_empty() {
            self.owners.remove(&address);
        }
        let before = match number {
            Some((number, peer)) => {
                let old = self.desired.peers.insert(number, peer);
                self.ways.extend(plan_peer(&self.desired, number, old.as_ref()));
                self.desired.endpoints.insert(address, number)
            }
            None => self.desired.endpoints.remove(&address),
        };
        if before != number.map(|(number, _)| number) {
            self.ways.push(plan_endpoint(&self.desired, address));
        }
    }

    /// What the endpoint of this key is called.
    fn name(&mut self, key: &Key) {
        let active = self.balancer.rows.is_active(key);
        let member = self.balancer.rows.get(key).map(|row| self.member(row, active));
        let name = format!("{}/{}", key.0, key.1);
        self.zone.send_modify(|zone| zone.set(&name, member));
    }

    fn member(&self, row: &Endpoint, active: bool) -> Member {
        let mut own = own_names(&row.names, &row.container);
        let mut member = Member { addresses: row.addresses.clone(), active, ..Member::default() };
        match &row.service {
            None => own.extend(row.aliases.iter().cloned()),
            Some(service) => {
                let exposure = &service.exposure;
                member.services = vec![service.name.clone()];
                member.services.extend(row.aliases.iter().cloned());
                let stack = &exposure.stack;
                let short = service.name.strip_prefix(stack.as_str()).and_then(|name| name.strip_prefix('_'));
                member.services.extend(short.map(|short| format!("{short}.{stack}")));
                let vips = exposure.vips.iter().filter(|vip| vip.network == self.config.id);
                member.vips = vips.flat_map(|vip| vip.addresses.iter().copied()).collect();
                let port = |port: &covey_state::network::PublishedPort| Port {
                    name: port.name.clone(),
                    protocol: translate::protocol(port.protocol),
                    port: port.target,
                };
                member.ports = exposure.ports.iter().map(port).collect();
                member.version = exposure.version;
            }
        }
        member.own = own;
        member
    }

    /// Has the kernel take what has changed: first the ways, then who is sent along them; where ways only end, the reverse.
    /// Connections to whoever is gone are left to be [cut](Balancer::cut).
    ///
    /// # Errors
    /// The kernel refused something; the next repair mends that.
    pub fn settle(&mut self) -> Result<()> {
        let is_end = |way: &Change| {
            matches!(way, Change::DeleteRoute(..) | Change::DeleteNeighbour { .. } | Change::DeleteFdb { .. })
        };
        let ways = std::mem::take(&mut self.ways);
        let (before, after) =
            if ways.iter().all(is_end) { (&[][..], &ways[..]) } else { (&ways[..], &[][..]) };
        let led = self.router.apply_all(before);
        self.take_moved();
        let committed = self.balancer.commit_tables();
        let left = self.router.apply_all(after);
        committed?;
        Ok(led.and(left)?)
    }

    /// Takes over what has moved, with the next commit or repair.
    pub fn take_moved(&mut self) {
        for (frontend, _, behind) in self.balancer.settle() {
            self.balancer.set(frontend, behind);
        }
    }

    /// Compares the kernel with what is wanted, and mends it; the kinds of objects that were not as wanted.
    ///
    /// # Errors
    /// Something could not be read or mended.
    pub fn repair(&mut self) -> Result<Vec<&'static str>> {
        let measured = self.measure();
        let links = self.router.mend(&self.desired.objects());
        if links.is_ok() {
            self.ways.clear();
        }
        // What fails of one part keeps no other from being mended.
        let tables = self.balancer.repair();
        measured?;
        Ok(links?.iter().map(Change::object).chain(tables?).collect())
    }

    /// Packets are as large as the way to the others lets them be now; while nobody knows that, as they were.
    fn measure(&mut self) -> Result<()> {
        if self.config.mtu.is_none()
            && self.me.is_some()
            && let Some(mtu) = measured(self.desired.local)?
        {
            self.desired.mtu = mtu;
        }
        Ok(())
    }

    /// What is not as wanted, without mending it.
    ///
    /// # Errors
    /// It could not be read.
    pub fn examine(&mut self) -> Result<Vec<Fault>> {
        let (changes, observed) = self.router.compare(&self.desired.objects())?;
        let mut faults = fault::of_links(&changes, &observed);
        faults.extend(self.balancer.examine()?);
        Ok(faults)
    }

    /// The links and ways that its router has.
    ///
    /// # Errors
    /// They could not be read.
    pub fn observe(&mut self) -> Result<Observed> {
        Ok(self.router.observe()?)
    }

    /// The namespace of its router.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the router and all that is in it.
    ///
    /// # Errors
    /// Something is left.
    pub fn remove(self) -> Result<()> {
        let path = self.path.clone();
        // Its sockets keep the namespace alive.
        drop(self);
        Ok(remove_router(&path)?)
    }

    /// Hosts that have endpoints in it, this one left out.
    pub fn hosts(&self) -> BTreeSet<Id> {
        let others = self.balancer.rows.iter().map(|((owner, _), _)| *owner);
        others.filter(|owner| Some(*owner) != self.me).collect()
    }
}

#[cfg(test)]
mod tests {
    use covey_state::{network, node::EdgeBlock};

    use super::*;
    use crate::endpoint::Host;

    fn row(number: u32, last: u8) -> Endpoint {
        let third = u8::try_from(number).unwrap();
        let edge = EdgeBlock {
            v4: format!("100.64.{number}.0/24").parse().unwrap(),
            v6: format!("fd00:{number}::/64").parse().unwrap(),
        };
        Endpoint {
            service: None,
            names: Vec::new(),
            container: "c".into(),
            aliases: Vec::new(),
            addresses: vec![[10, 0, 1, last].into()],
            host: Host { number, vtep: [10, 9, 0, third].into(), edge },
            draining: false,
        }
    }

    #[test]
    fn a_late_row_of_an_addresss_old_owner_takes_no_way_with_it_when_it_goes() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: a router needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let subnet = network::Subnet {
            net: "10.0.1.0/24".parse().unwrap(),
            gateway: [10, 0, 1, 1].into(),
            range: None,
            vni: Some(4097),
        };
        let config = NetworkConfig {
            id: Id::new(9),
            name: "front".into(),
            internal: false,
            mtu: Some(1400),
            subnets: vec![subnet],
        };
        let mut carrier = Carrier::open(folder.path(), Arc::new(config), None, None).unwrap();
        let (old, new): (Key, Key) = ((Id::new(1), "t/a".into()), (Id::new(2), "t/b".into()));
        let address = IpAddr::from([10, 0, 1, 3]);
        carrier.put(&old, Some(row(1, 3)));
        carrier.put(&new, Some(row(2, 3)));
        assert_eq!(carrier.desired.endpoints.get(&address), Some(&2));
        carrier.put(&old, Some(row(1, 3)));
        carrier.put(&old, None);
        assert_eq!(carrier.desired.endpoints.get(&address), Some(&2));
        assert_eq!(carrier.desired.peers.keys().copied().collect::<Vec<_>>(), [2]);
        carrier.put(&new, None);
        assert!(carrier.desired.endpoints.is_empty() && carrier.desired.peers.is_empty());
        assert!(carrier.owners.is_empty());
        carrier.remove().unwrap();
    }
}
