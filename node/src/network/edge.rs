//! The edge on this host: its containers' way out, the device that joins all hosts, and published ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use anyhow::Result;
use covey_mesh::{Backend, Balance, Edge as Door, Frontend, Host, Member, Place as Tables, Virtual, mark};
use covey_overlay::{
    block::{Block, Pair},
    edge::{self, Desired, Device, Veth, plan_new},
    object::{Change, LINK_PREFIX, LinkName, Observed},
    plan,
};
use covey_overlay_netlink::Stack;
use covey_state::{
    cluster::EdgePool,
    network::{DYNAMIC_PORTS, PublishMode, PublishedPort},
    node::EdgeBlock,
};
use ipnet::IpNet;

use super::{
    balancer::Balancer,
    fault::{self, Fault},
    place::{Neighbour, Place, measured, mtu, peers},
    reserve::{Refusal, Reservations, ReserveError},
    rows::{Moved, addresses_of},
};
use crate::{endpoint::Scope, refused::Cause, translate};

/// The edge of this host.
pub struct Edge {
    kernel: Stack,
    desired: Desired,
    /// Published ports.
    pub balancer: Balancer,
    block: Block,
    /// What `block` gives addresses of.
    block_of: EdgeBlock,
    /// Blocks that containers have addresses of: the node's, and those that it had before.
    blocks: BTreeSet<IpNet>,
    /// Container → its addresses.
    taken: BTreeMap<String, Pair>,
    /// Containers that are open to each other.
    bridged: BTreeSet<String>,
    /// The other hosts, unless this one stands alone.
    door: Option<Door>,
    reserved: Reservations,
    /// Container → the ports of this host that are its own.
    own_ports: BTreeMap<String, Vec<Frontend>>,
    /// Container of before → the ports of this host that were its own and that it could not be given back yet.
    lost: BTreeMap<String, Vec<PublishedPort>>,
    /// Published ports that do not answer here, and why.
    pub refused: BTreeMap<Frontend, Refusal>,
    /// What of that was said in the log.
    told: BTreeSet<String>,
    mtu: u32,
}

/// Where containers get their addresses while the node is in no cluster: the pool's first block, which no node has.
fn standalone() -> Result<EdgeBlock> {
    Ok(EdgePool::default().block(0)?)
}

impl Edge {
    /// As it was left.
    ///
    /// # Errors
    /// The kernel lets this process program neither links nor nf_tables.
    pub fn open() -> Result<Self> {
        let block_of @ EdgeBlock { v4, v6 } = standalone()?;
        let blocks: BTreeSet<IpNet> = [v4.into(), v6.into()].into();
        Ok(Self {
            kernel: Stack::edge()?,
            desired: Desired::default(),
            balancer: Balancer::open(Scope::Ingress, None, tables(&blocks, BTreeSet::new(), None))?,
            block: Block::new(v4, v6),
            block_of,
            blocks,
            taken: BTreeMap::new(),
            bridged: BTreeSet::new(),
            door: None,
            reserved: Reservations::default(),
            own_ports: BTreeMap::new(),
            lost: BTreeMap::new(),
            refused: BTreeMap::new(),
            told: BTreeSet::new(),
            mtu: mtu(None)?,
        })
    }

    /// A container of before has these addresses, and is open to the others that are.
    pub fn claim(&mut self, container: &str, namespace: &Path, pair: Pair, bridged: bool) {
        self.block.claim(pair);
        if !self.blocks.iter().any(|block| block.contains(&IpAddr::V4(pair.v4))) {
            // Of a block that the node had before: it keeps its way out.
            self.blocks.extend([IpNet::from(IpAddr::V4(pair.v4)), IpNet::from(IpAddr::V6(pair.v6))]);
        }
        self.want(container, namespace, pair);
        if bridged {
            self.bridged.insert(container.to_owned());
        }
    }

    fn want(&mut self, container: &str, namespace: &Path, addresses: Pair) -> Veth {
        let veth = Veth {
            name: LinkName::of_container(container),
            namespace: namespace.to_string_lossy().into_owned(),
            addresses,
            mtu: self.mtu,
        };
        self.taken.insert(container.to_owned(), addresses);
        self.desired.veths.insert(veth.name.clone(), veth.clone());
        veth
    }

    /// Gives a container its addresses and its veth. Others reach nothing of it but its ports: see [`Edge::bridge`].
    ///
    /// # Errors
    /// The block is full, or the kernel refused; the container has nothing then.
    pub fn attach(&mut self, container: &str, namespace: &Path) -> Result<Pair> {
        let pair = self.block.take()?;
        let veth = self.want(container, namespace, pair);
        let wired = self.kernel.apply_all(&plan_new(&veth));
        if let Err(error) = wired {
            self.detach(container)?;
            return Err(error.into());
        }
        Ok(pair)
    }

    /// Opens a container to the others of this host that are open by their addresses here, as Docker's `bridge` has it,
    /// or closes it again.
    ///
    /// # Errors
    /// The kernel refused; it is tried again with the next repair.
    pub fn bridge(&mut self, container: &str, open: bool) -> Result<()> {
        let changed = match open {
            true => self.bridged.insert(container.to_owned()),
            false => self.bridged.remove(container),
        };
        if changed {
            self.balancer.set_place(self.tables());
        }
        self.balancer.commit_tables()
    }

    /// Takes a container's addresses, veth and ports back; not an error where it has none.
    ///
    /// # Errors
    /// The kernel refused; it is tried again with the next repair.
    pub fn detach(&mut self, container: &str) -> Result<()> {
        self.release(container);
        let closed = self.balancer.commit_tables();
        if let Some(pair) = self.taken.remove(container) {
            self.block.free(pair);
        }
        let name = LinkName::of_container(container);
        if self.desired.veths.remove(&name).is_some() {
            self.kernel.apply(&Change::DeleteLink(name))?;
        }
        closed
    }

    /// Takes back what the tables have of a container, with the next [`Edge::settle`]; its veth is still there.
    pub fn release(&mut self, container: &str) {
        let own = self.own_ports.remove(container).unwrap_or_default();
        own.iter().for_each(|frontend| self.reserved.release(frontend));
        let lost = self.lost.remove(container).unwrap_or_default();
        for frontend in own.into_iter().chain(lost.iter().flat_map(frontends)) {
            // A service may have waited for it.
            let behind = self.balancer.rows.behind(&frontend);
            self.open_or_close((frontend, None, behind));
        }
        if self.bridged.remove(container) {
            self.balancer.set_place(self.tables());
        }
    }

    /// The addresses of a container.
    pub fn addresses(&self, container: &str) -> Option<Pair> {
        self.taken.get(container).copied()
    }

    /// Holds the ports of this host that are a container's own, and tells which they are; and sees to it that the
    /// published ones of its service are no other process's.
    ///
    /// # Errors
    /// Somebody has one; none of its own is held then.
    pub fn hold(
        &mut self,
        container: &str,
        ports: &[PublishedPort],
    ) -> Result<Vec<PublishedPort>, ReserveError> {
        let mut held = Vec::new();
        for port in ports {
            match port.mode {
                PublishMode::Host => match self.hold_own(container, port) {
                    Ok(port) => held.push(port),
                    Err(error) => {
                        self.let_go(container);
                        return Err(error);
                    }
                },
                PublishMode::Ingress => self.try_published(port)?,
            }
        }
        Ok(held)
    }

    /// A service's port is held from when the first host tells of it: here it is only seen whether that can be.
    fn try_published(&mut self, port: &PublishedPort) -> Result<(), ReserveError> {
        for frontend in frontends(port) {
            if self.owner(&frontend).is_some() {
                return Err(ReserveError::Taken { port: port.published, protocol: port.protocol.as_str() });
            }
            if self.reserved.holds(&frontend) {
                continue;
            }
            match self.reserved.hold(frontend) {
                // It answers on another host.
                Err(ReserveError::NoAddress(_)) => {}
                Err(error) => return Err(error),
                Ok(()) => self.reserved.release(&frontend),
            }
        }
        Ok(())
    }

    fn hold_own(&mut self, container: &str, port: &PublishedPort) -> Result<PublishedPort, ReserveError> {
        let choices = match port.published {
            0 => DYNAMIC_PORTS,
            published => published..=published,
        };
        let mut last = ReserveError::Taken { port: port.published, protocol: port.protocol.as_str() };
        for published in choices {
            let port = PublishedPort { published, ..port.clone() };
            let wanted = frontends(&port);
            // One that is held already is another container's, or a service's.
            let taken = wanted.iter().any(|frontend| self.reserved.holds(frontend));
            let result = wanted.iter().try_for_each(|frontend| match taken {
                true => Err(ReserveError::Taken { port: published, protocol: port.protocol.as_str() }),
                false => self.reserved.hold(*frontend),
            });
            match result {
                Ok(()) => {
                    self.own_ports.entry(container.to_owned()).or_default().extend(wanted);
                    return Ok(port);
                }
                Err(error) => {
                    if !taken {
                        wanted.iter().for_each(|frontend| self.reserved.release(frontend));
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// The container that this port is the own one of.
    fn owner(&self, frontend: &Frontend) -> Option<&str> {
        let owned = self.own_ports.iter().find(|(_, ports)| ports.contains(frontend));
        owned.map(|(container, _)| container.as_str())
    }

    fn let_go(&mut self, container: &str) {
        for frontend in self.own_ports.remove(container).unwrap_or_default() {
            self.reserved.release(&frontend);
        }
    }

    /// Opens the ports of this host that are a container's own.
    ///
    /// # Errors
    /// The kernel refused; it is tried again with the next repair.
    pub fn publish(&mut self, container: &str, ports: &[PublishedPort]) -> Result<()> {
        self.open_own(container, ports);
        self.balancer.commit()
    }

    /// The same for a container of before, before the kernel is asked for the first time. A port that somebody else has
    /// meanwhile is tried again with every repair.
    pub fn claim_ports(&mut self, container: &str, ports: &[PublishedPort]) {
        for port in ports.iter().filter(|port| port.mode == PublishMode::Host) {
            match self.hold_own(container, port) {
                Ok(port) => self.open_own(container, &[port]),
                Err(error) => {
                    let cause = Cause::from(&error);
                    let error = anyhow::Error::from(error);
                    let why = format!("{error:#}; it was container {container:.12}'s");
                    let refusal = Refusal { cause, why };
                    let all = frontends(port).into_iter().map(|frontend| (frontend, refusal.clone()));
                    self.refused.extend(all);
                    self.lost.entry(container.to_owned()).or_default().push(port.clone());
                }
            }
        }
    }

    fn open_own(&mut self, container: &str, ports: &[PublishedPort]) {
        let Some(pair) = self.addresses(container) else { return };
        for port in ports.iter().filter(|port| port.mode == PublishMode::Host) {
            for frontend in frontends(port) {
                let address = match frontend.address() {
                    IpAddr::V4(_) => IpAddr::V4(pair.v4),
                    IpAddr::V6(_) => IpAddr::V6(pair.v6),
                };
                let backends = vec![Backend { address, port: Some(port.target) }];
                self.balancer.set(frontend, Some(Virtual { balance: Balance::Random, backends }));
            }
        }
    }

    /// Opens and closes published ports as services have them now. Connections to whoever is gone are left to be
    /// [cut](Balancer::cut).
    ///
    /// # Errors
    /// The kernel refused; it is tried again with the next repair.
    pub fn settle(&mut self) -> Result<()> {
        self.take_moved();
        self.balancer.commit_tables()
    }

    /// The same, before the kernel is asked for the first time.
    pub fn take_moved(&mut self) {
        for moved in self.balancer.settle() {
            self.open_or_close(moved);
        }
        self.tell_refused();
    }

    fn open_or_close(&mut self, (frontend, _, behind): Moved) {
        self.refused.remove(&frontend);
        if let Some(container) = self.owner(&frontend) {
            // It answers for the container, whatever services want of it.
            if behind.is_some() {
                let port = name_of(&frontend);
                let why =
                    format!("{port} of this host is container {container:.12}'s: no service is behind it");
                let cause = Cause::Container(format!("{container:.12}"));
                self.refused.insert(frontend, Refusal { cause, why });
            }
            return;
        }
        if behind.is_none() {
            self.reserved.release(&frontend);
        } else if let Err(error) = self.reserved.hold(frontend) {
            if !matches!(error, ReserveError::NoAddress(_)) {
                let cause = Cause::from(&error);
                let why = format!("{:#}", anyhow::Error::from(error));
                self.refused.insert(frontend, Refusal { cause, why });
            }
            return self.balancer.set(frontend, None);
        }
        self.balancer.set(frontend, behind);
    }

    /// Tries ports again that somebody else had; the kernel takes what has changed with the next [`Edge::settle`].
    pub fn retry_refused(&mut self) {
        let refused = std::mem::take(&mut self.refused);
        // Those first that were a container's own.
        let lost = std::mem::take(&mut self.lost);
        lost.iter().for_each(|(container, ports)| self.claim_ports(container, ports));
        for frontend in refused.into_keys() {
            if !self.refused.contains_key(&frontend) {
                let behind = self.balancer.rows.behind(&frontend);
                self.open_or_close((frontend, None, behind));
            }
        }
        self.tell_refused();
    }

    /// Says why published ports do not answer here: once, until it is something else.
    fn tell_refused(&mut self) {
        let all: BTreeSet<String> = self.refused.values().map(|refusal| refusal.why.clone()).collect();
        for why in all.difference(&self.told) {
            tracing::warn!(why, "a published port does not answer on this host");
        }
        self.told = all;
    }

    /// New containers get their addresses from this block; those that run keep theirs.
    pub fn use_block(&mut self, of: EdgeBlock) {
        if self.block_of == of {
            // It knows which address was given last: other hosts may lead a service there for a while yet.
            return;
        }
        let EdgeBlock { v4, v6 } = of;
        let mut block = Block::new(v4, v6);
        for pair in self.taken.values() {
            block.claim(*pair);
        }
        self.block = block;
        self.block_of = of;
        self.blocks.extend([IpNet::V4(v4), IpNet::V6(v6)]);
    }

    /// Joins this host to the others. `networks` are the VNIs that it carries beside the edge's.
    ///
    /// # Errors
    /// The kernel refused; it is tried again with the next repair.
    pub fn join(&mut self, place: &Place, neighbours: &[Neighbour], networks: BTreeSet<u32>) -> Result<()> {
        self.use_block(place.host.edge);
        let is_first = self.desired.device.is_none();
        self.desired.device = Some(Device {
            mac: place.host.mac(),
            local: place.host.vtep,
            port: place.port,
            mtu: self.mtu,
            v4: place.host.edge.v4,
            v6: place.host.edge.v6,
            return_mark: mark::RULE,
        });
        self.desired.peers = peers(neighbours);
        let member = |neighbour: &Neighbour| Member {
            address: neighbour.host.vtep,
            blocks: [neighbour.host.edge.v4.into(), neighbour.host.edge.v6.into()].into(),
        };
        self.door = Some(Door {
            device: LinkName::of_vni(edge::VNI).to_string(),
            local: place.host.vtep,
            port: place.port,
            networks: networks.into_iter().chain([edge::VNI]).collect(),
            members: neighbours.iter().map(member).collect(),
        });
        // From then on repairs measure.
        let measured = if is_first { self.measure() } else { Ok(()) };
        self.balancer.set_place(self.tables());
        // The tables know the device: links come first. Whatever fails of them, the new members are no strangers.
        let joined = self.take_links();
        joined.and(self.balancer.commit()).and(measured)
    }

    /// Packets are as large as the way to the others lets them be now; while nobody knows that, as they were.
    fn measure(&mut self) -> Result<()> {
        if let Some(device) = &mut self.desired.device
            && let Some(mtu) = measured(device.local)?
        {
            device.mtu = mtu;
            self.mtu = mtu;
            self.desired.veths.values_mut().for_each(|veth| veth.mtu = mtu);
        }
        Ok(())
    }

    /// This host stands alone, or does so again.
    ///
    /// # Errors
    /// The kernel refused; it is tried again with the next repair.
    pub fn part(&mut self) -> Result<()> {
        self.desired.device = None;
        self.desired.peers.clear();
        self.door = None;
        self.use_block(standalone()?);
        self.balancer.set_place(self.tables());
        // The tables know the device: links go last.
        let committed = self.balancer.commit();
        self.take_links().and(committed)
    }

    /// What the host's tables hold beside its ports.
    fn tables(&self) -> Tables {
        let open = self.bridged.iter().filter_map(|container| self.addresses(container));
        let open = open.flat_map(|Pair { v4, v6 }| [IpAddr::V4(v4), IpAddr::V6(v6)]);
        tables(&self.blocks, open.collect(), self.door.clone())
    }

    /// Removes everything that is ours from the kernel.
    ///
    /// # Errors
    /// Something is left.
    pub fn clear(&mut self) -> Result<()> {
        self.desired = Desired::default();
        self.balancer.set_place(Tables::Nothing);
        let emptied = self.balancer.commit();
        self.take_links().and(emptied)
    }

    /// Has the kernel take what has changed of links and ways, without a look into containers: nothing has there.
    fn take_links(&mut self) -> Result<()> {
        let changes = plan(&self.desired.objects(), &self.kernel.observe()?);
        Ok(self.kernel.apply_all(&changes)?)
    }

    /// Compares the kernel with what is wanted, and mends it; the kinds of objects that were not as wanted.
    ///
    /// # Errors
    /// Something could not be read or mended.
    pub fn repair(&mut self) -> Result<Vec<&'static str>> {
        self.retry_refused();
        let measured = self.measure();
        // The tables know the edge's device: links come first. What fails of one part keeps no other from being mended.
        let links = self.kernel.mend(&self.desired.objects());
        let committed = self.balancer.commit();
        let tables = self.balancer.repair();
        measured.and(committed)?;
        Ok(links?.iter().map(Change::object).chain(tables?).collect())
    }

    /// What is not as wanted, without mending it.
    ///
    /// # Errors
    /// It could not be read.
    pub fn examine(&mut self) -> Result<Vec<Fault>> {
        let (changes, observed) = self.kernel.compare(&self.desired.objects())?;
        let mut faults = fault::of_links(&changes, &observed);
        faults.extend(self.balancer.examine()?);
        Ok(faults)
    }

    /// The links and ways that the kernel has.
    ///
    /// # Errors
    /// They could not be read.
    pub fn observe(&mut self) -> Result<Observed> {
        Ok(self.kernel.observe()?)
    }

    /// What joins this host to the others.
    pub const fn device(&self) -> Option<&Device> {
        self.desired.device.as_ref()
    }

    /// The veth of the container that has this address.
    pub fn veth_of(&self, address: IpAddr) -> Option<&Veth> {
        let has =
            |veth: &&Veth| [IpAddr::V4(veth.addresses.v4), IpAddr::V6(veth.addresses.v6)].contains(&address);
        self.desired.veths.values().find(has)
    }
}

fn tables(blocks: &BTreeSet<IpNet>, bridged: BTreeSet<IpAddr>, edge: Option<Door>) -> Tables {
    Tables::Host(Host { blocks: blocks.clone(), inside: LINK_PREFIX.to_owned(), bridged, edge })
}

/// What a frontend is called, for people.
pub fn name_of(frontend: &Frontend) -> String {
    match frontend {
        Frontend::Port { protocol, port, .. } => format!("port {port}/{}", protocol.as_str()),
        Frontend::Address(address) => address.to_string(),
    }
}

/// Where a published port answers on a host.
fn frontends(port: &PublishedPort) -> Vec<Frontend> {
    let protocol = translate::protocol(port.protocol);
    let of = |address| Frontend::Port { address, protocol, port: port.published };
    addresses_of(port.host_ip).into_iter().map(of).collect()
}

#[cfg(test)]
mod tests;
