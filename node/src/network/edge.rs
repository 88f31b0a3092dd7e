//! The edge on this host: its containers' way out, the device that joins all hosts, and published ports.

mod ports;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use anyhow::Result;
use covey_mesh::{self as mesh, Frontend, Host, Member, mark};
use covey_overlay::{
    block::{Block, Pair},
    edge::{self, Desired, Device, Veth, plan_new},
    object::{Change, LINK_PREFIX, LinkName, Observed},
    plan,
};
use covey_overlay_netlink::{FlowCache, Stack};
use covey_state::{Id, cluster::EdgePool, network::PublishedPort, node::EdgeBlock};
use ipnet::IpNet;

use super::{
    balancer::Balancer,
    fault::{self, Fault},
    place::{Neighbour, Place, measured, mtu, peers},
    reserve::{Refusal, Reservations},
};
use crate::{endpoint::Scope, origins::Origins};

pub use ports::name_of;

/// The edge of this host.
pub struct Edge {
    kernel: Stack,
    desired: Desired,
    /// The tables of this host, and what services have behind published ports.
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
    door: Option<mesh::Edge>,
    mtu: u32,
    /// Ports that are held: of containers, and of services.
    reserved: Reservations,
    /// Container → the ports of this host that are its own.
    own_ports: BTreeMap<String, Vec<Frontend>>,
    /// Container of before → the ports of this host that were its own and that it could not be given back yet.
    lost: BTreeMap<String, Vec<PublishedPort>>,
    /// Published ports that do not answer here, and why.
    pub refused: BTreeMap<Frontend, Refusal>,
    /// What of that was said in the log.
    told: BTreeSet<String>,
}

/// Where containers get their addresses while the node is in no cluster: the pool's first block, which no node has.
fn standalone() -> Result<EdgeBlock> {
    Ok(EdgePool::default().block(0)?)
}

impl Edge {
    /// As it was left; its links have the flow cache, where this kernel has one.
    ///
    /// # Errors
    /// The kernel lets this process program neither links nor nf_tables.
    pub fn open(cache: Option<Arc<FlowCache>>) -> Result<Self> {
        let block_of @ EdgeBlock { v4, v6 } = standalone()?;
        let blocks: BTreeSet<IpNet> = [v4.into(), v6.into()].into();
        Ok(Self {
            desired: Desired { cached: cache.is_some(), ..Desired::default() },
            kernel: Stack::edge(cache)?,
            balancer: Balancer::open(Scope::Ingress, None, tables(&blocks, BTreeSet::new(), None))?,
            block: Block::new(v4, v6),
            block_of,
            blocks,
            taken: BTreeMap::new(),
            bridged: BTreeSet::new(),
            door: None,
            mtu: mtu(None)?,
            reserved: Reservations::default(),
            own_ports: BTreeMap::new(),
            lost: BTreeMap::new(),
            refused: BTreeMap::new(),
            told: BTreeSet::new(),
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

    fn want(&mut self, container: &str, namespace: &Path, addresses: Pair) -> LinkName {
        let veth = Veth {
            name: LinkName::of_container(container),
            namespace: namespace.to_string_lossy().into_owned(),
            addresses,
            mtu: self.mtu,
        };
        self.taken.insert(container.to_owned(), addresses);
        let name = veth.name.clone();
        self.desired.veths.insert(name.clone(), veth);
        name
    }

    /// Gives a container its addresses and its veth. Others reach nothing of it but its ports: see [`Edge::bridge`].
    ///
    /// # Errors
    /// The block is full, or the kernel refused; the container has nothing then.
    pub fn attach(&mut self, container: &str, namespace: &Path) -> Result<Pair> {
        let pair = self.block.take()?;
        let name = self.want(container, namespace, pair);
        let wired = self.kernel.apply_all(&plan_new(&self.desired, &name));
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
        self.release_ports(container);
        if self.bridged.remove(container) {
            self.balancer.set_place(self.tables());
        }
    }

    /// The addresses of a container.
    pub fn addresses(&self, container: &str) -> Option<Pair> {
        self.taken.get(container).copied()
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

    /// Joins this host to the others, which are seen under `origins` as well. `networks` are the VNIs that it carries beside the edge's.
    ///
    /// # Errors
    /// The kernel refused; it is tried again with the next repair.
    pub fn join(
        &mut self,
        place: &Place,
        neighbours: &[Neighbour],
        origins: &BTreeMap<Id, Origins>,
        networks: BTreeSet<u32>,
    ) -> Result<()> {
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
        self.door = Some(mesh::Edge {
            device: LinkName::of_vni(edge::VNI).to_string(),
            local: place.host.vtep,
            port: place.port,
            networks: networks.into_iter().chain([edge::VNI]).collect(),
            members: members(neighbours, origins),
        });
        // From then on repairs measure.
        let measured = if is_first { self.measure() } else { Ok(()) };
        self.balancer.set_place(self.tables());
        // The tables know the device: links come first. Whatever fails of them, the new members are no strangers.
        let joined = self.take_links();
        joined.and(self.balancer.commit()).and(measured)
    }

    /// The others are seen under these addresses as well: only the tables know that.
    ///
    /// # Errors
    /// The kernel refused; it is tried again with the next repair.
    pub fn recognize(&mut self, neighbours: &[Neighbour], origins: &BTreeMap<Id, Origins>) -> Result<()> {
        let Some(door) = &mut self.door else { return Ok(()) };
        door.members = members(neighbours, origins);
        self.balancer.set_place(self.tables());
        self.balancer.commit()
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
    fn tables(&self) -> mesh::Place {
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
        self.balancer.set_place(mesh::Place::Nothing);
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

fn members(neighbours: &[Neighbour], origins: &BTreeMap<Id, Origins>) -> BTreeSet<Member> {
    let member = |neighbour: &Neighbour| Member {
        address: neighbour.host.vtep,
        others: origins
            .get(&neighbour.id)
            .into_iter()
            .flatten()
            .copied()
            .chain([neighbour.address])
            .collect(),
        blocks: [neighbour.host.edge.v4.into(), neighbour.host.edge.v6.into()].into(),
    };
    neighbours.iter().map(member).collect()
}

fn tables(blocks: &BTreeSet<IpNet>, bridged: BTreeSet<IpAddr>, edge: Option<mesh::Edge>) -> mesh::Place {
    mesh::Place::Host(Host { blocks: blocks.clone(), inside: LINK_PREFIX.to_owned(), bridged, edge })
}

#[cfg(test)]
mod tests;
