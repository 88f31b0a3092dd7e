//! Networks that users made on this host: kept in a file of this daemon, unknown to the cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use covey_state::{
    Id,
    network::{NetworkConfig, NetworkSpec, Subnet, SubnetSpec},
    range,
    time::Stamp,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::disk;

/// The format of the file that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;
/// Bytes of the file, at most.
const BYTES_MAX: u64 = 16 << 20;
/// Networks of one host.
const NETWORKS_MAX: usize = 1024;
/// Where subnets come from that nobody asks for, each with the length of theirs: as Docker has them. The first of
/// 172.16.0.0/12 belong to what others like to take without asking.
const POOLS: [(Ipv4Net, u8); 4] = [
    (Ipv4Net::new_assert(std::net::Ipv4Addr::new(172, 18, 0, 0), 15), 16),
    (Ipv4Net::new_assert(std::net::Ipv4Addr::new(172, 20, 0, 0), 14), 16),
    (Ipv4Net::new_assert(std::net::Ipv4Addr::new(172, 24, 0, 0), 13), 16),
    (Ipv4Net::new_assert(std::net::Ipv4Addr::new(192, 168, 0, 0), 16), 20),
];
/// Prefix length of an IPv6 subnet that nobody asks for.
const V6_SUBNET: u8 = 64;
/// First byte of addresses that everybody makes for himself (RFC 4193): 40 random bits follow.
const ULA: u128 = 0xfd << 120;

/// A network of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalNetwork {
    /// Its id.
    pub id: Id,
    /// What was asked for.
    pub spec: NetworkSpec,
    /// What was decided; none has a VNI.
    pub subnets: Vec<Subnet>,
    /// Its creation.
    pub created_at: Stamp,
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    format: u32,
    networks: Vec<LocalNetwork>,
}

/// A network of this host, or a place in one, cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// There is none with this id.
    #[error("network {0} not found")]
    NotFound(String),
    /// Another network has the name.
    #[error("network with name {0} already exists")]
    NameTaken(String),
    /// There are as many as there may be.
    #[error("this host has {NETWORKS_MAX} networks: remove one first")]
    TooMany,
    /// An address would mean two things.
    #[error("Pool overlaps with other one on this address space: {net} with {other}, {whose}")]
    Overlap {
        /// What was asked for.
        net: IpNet,
        /// What is there.
        other: IpNet,
        /// Whose it is.
        whose: String,
    },
    /// Nothing is left to choose from.
    #[error("all predefined address pools have been fully subnetted: name a subnet")]
    NoSubnet,
    /// Every address is some container's.
    #[error("no available {family} addresses on this network's address pools: {name}")]
    NoAddress {
        /// The network's name.
        name: String,
        /// `IPv4`, `IPv6`.
        family: &'static str,
    },
    /// The address that is asked for is somebody's.
    #[error("Address already in use: {address} in network {name}")]
    AddressTaken {
        /// The network's name.
        name: String,
        /// Which.
        address: IpAddr,
    },
    /// The address that is asked for is no container's.
    #[error("no configured subnet of network {name} contains {address} for a container")]
    Outside {
        /// The network's name.
        name: String,
        /// Which.
        address: IpAddr,
    },
    /// The file was not written: all is as it was.
    #[error("{0:#}")]
    File(anyhow::Error),
}

/// The networks of this host.
#[derive(Debug)]
pub struct LocalNetworks {
    file: PathBuf,
    networks: BTreeMap<Id, LocalNetwork>,
    /// The address given last, of each subnet: one that comes free stays unused for as long as can be.
    turns: BTreeMap<IpNet, u128>,
}

impl LocalNetworks {
    /// Those that are kept below this folder.
    ///
    /// # Errors
    /// The file is damaged, or newer than this version.
    pub fn open(data_root: &Path) -> anyhow::Result<Self> {
        let file = data_root.join("networks.json");
        let shown = file.display();
        let kept = match disk::read(&file, BYTES_MAX)? {
            None => Kept { format: FORMAT, networks: Vec::new() },
            Some(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{shown} is damaged"))?,
        };
        if kept.format > FORMAT {
            anyhow::bail!("{shown} has format {}, which is newer than this program's {FORMAT}", kept.format);
        }
        let networks = kept.networks.into_iter().map(|network| (network.id, network)).collect();
        Ok(Self { file, networks, turns: BTreeMap::new() })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &LocalNetwork> {
        self.networks.values()
    }

    /// The network of this id.
    ///
    /// # Errors
    /// [`LocalError::NotFound`].
    pub fn get(&self, id: Id) -> Result<&LocalNetwork, LocalError> {
        self.networks.get(&id).ok_or_else(|| LocalError::NotFound(to_text(id)))
    }

    /// Makes a network. Its subnets are none of `taken`, each with the words for whose it is.
    ///
    /// # Errors
    /// Nothing has changed.
    pub fn create(
        &mut self,
        id: Id,
        spec: NetworkSpec,
        at: Stamp,
        mut taken: Vec<(IpNet, String)>,
    ) -> Result<(), LocalError> {
        if self.iter().any(|network| network.spec.name == spec.name) {
            return Err(LocalError::NameTaken(spec.name));
        }
        if self.networks.len() >= NETWORKS_MAX {
            return Err(LocalError::TooMany);
        }
        for network in self.networks.values() {
            let whose = || format!("of network {}", network.spec.name);
            taken.extend(network.subnets.iter().map(|subnet| (subnet.net, whose())));
        }
        let subnets = decide(id, &spec, taken)?;
        self.change(|networks| _ = networks.insert(id, LocalNetwork { id, spec, subnets, created_at: at }))
    }

    /// Forgets a network.
    ///
    /// # Errors
    /// It is still there, or was never.
    pub fn remove(&mut self, id: Id) -> Result<LocalNetwork, LocalError> {
        let gone = self.get(id)?.clone();
        self.change(|networks| _ = networks.remove(&id))?;
        gone.subnets.iter().for_each(|subnet| _ = self.turns.remove(&subnet.net));
        Ok(gone)
    }

    fn change(&mut self, change: impl FnOnce(&mut BTreeMap<Id, LocalNetwork>)) -> Result<(), LocalError> {
        let mut networks = self.networks.clone();
        change(&mut networks);
        let kept = Kept { format: FORMAT, networks: networks.values().cloned().collect() };
        let bytes = serde_json::to_vec_pretty(&kept).map_err(anyhow::Error::from);
        bytes.and_then(|bytes| disk::write(&self.file, &bytes)).map_err(LocalError::File)?;
        self.networks = networks;
        Ok(())
    }

    /// Addresses for a container, one of each family that the network has, IPv4 first: those that are `asked` for, else
    /// the next that are not `used`.
    ///
    /// # Errors
    /// There are none.
    pub fn choose(
        &mut self,
        id: Id,
        asked: &[IpAddr],
        used: &BTreeSet<IpAddr>,
    ) -> Result<Vec<IpAddr>, LocalError> {
        let LocalNetwork { spec, subnets, .. } = self.get(id)?.clone();
        let name = || spec.name.clone();
        if let Some(address) =
            asked.iter().find(|address| !subnets.iter().any(|subnet| fits(subnet, **address)))
        {
            return Err(LocalError::Outside { name: name(), address: *address });
        }
        if let Some(address) = asked.iter().find(|address| used.contains(address)) {
            return Err(LocalError::AddressTaken { name: name(), address: *address });
        }
        let mut addresses = Vec::new();
        for (v4, family) in [(true, "IPv4"), (false, "IPv6")] {
            let asked = asked.iter().find(|address| address.is_ipv4() == v4).copied();
            let mut of_family = subnets.iter().filter(|subnet| subnet.gateway.is_ipv4() == v4).peekable();
            if of_family.peek().is_none() {
                continue;
            }
            let chosen = asked.or_else(|| of_family.find_map(|subnet| self.next(subnet, used)));
            addresses.push(chosen.ok_or_else(|| LocalError::NoAddress { name: name(), family })?);
        }
        Ok(addresses)
    }

    fn next(&mut self, subnet: &Subnet, used: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let (first, last) = subnet.given();
        let v4 = subnet.gateway.is_ipv4();
        let from = self.turns.get(&subnet.net).map_or(first, |turn| turn.saturating_add(1).max(first));
        let free = |bits: &u128| {
            let address = range::address(*bits, v4);
            address != subnet.gateway && !used.contains(&address)
        };
        let found = (from..=last).find(free).or_else(|| (first..from.min(last)).find(free))?;
        self.turns.insert(subnet.net, found);
        Some(range::address(found, v4))
    }
}

impl LocalNetwork {
    /// What the keeper has to know of it.
    pub fn config(&self) -> Arc<NetworkConfig> {
        Arc::new(NetworkConfig {
            id: self.id,
            name: self.spec.name.clone(),
            internal: self.spec.internal,
            mtu: self.spec.mtu,
            subnets: self.subnets.clone(),
        })
    }
}

/// The id as the Engine API has it for networks of a host: 64 hexadecimal characters, the second half the opposite of the
/// first.
pub fn to_text(id: Id) -> String {
    format!("{:032x}{:032x}", id.bits(), !id.bits())
}

/// The id that is written so.
pub fn from_text(text: &str) -> Option<Id> {
    let id = Id::new(u128::from_str_radix(text.get(..32)?, 16).ok()?);
    (to_text(id) == text).then_some(id)
}

/// The subnets of a network: those that are asked for, and of each family that has none one that is free.
fn decide(id: Id, spec: &NetworkSpec, mut taken: Vec<(IpNet, String)>) -> Result<Vec<Subnet>, LocalError> {
    let mut subnets = Vec::new();
    for asked in &spec.subnets {
        let net = asked.subnet;
        if let Some((other, whose)) = taken.iter().find(|(other, _)| range::overlap(net, *other)) {
            return Err(LocalError::Overlap { net, other: *other, whose: whose.clone() });
        }
        taken.push((net, "another subnet of the same network".to_owned()));
        subnets.push(subnet(asked));
    }
    let free = |net: &IpNet| !taken.iter().any(|(other, _)| range::overlap(*net, *other));
    let has = |v4: bool| spec.subnets.iter().any(|subnet| subnet.subnet.addr().is_ipv4() == v4);
    let plain = |net| subnet(&SubnetSpec { subnet: net, gateway: None, range: None });
    if !has(true) {
        let all = POOLS.iter().flat_map(|(pool, length)| pool.subnets(*length).into_iter().flatten());
        subnets.insert(0, plain(all.map(IpNet::V4).find(free).ok_or(LocalError::NoSubnet)?));
    }
    if spec.ipv6 && !has(false) {
        subnets.push(plain(own_v6(id).map(IpNet::V6).find(free).ok_or(LocalError::NoSubnet)?));
    }
    Ok(subnets)
}

/// IPv6 subnets that nobody else has, since their 40 bits are of an id.
fn own_v6(id: Id) -> impl Iterator<Item = Ipv6Net> {
    let prefix = ULA | (id.bits() >> 88 << 80);
    (0..=u128::from(u8::MAX))
        .map(move |number| Ipv6Net::new_assert((prefix | (number << 64)).into(), V6_SUBNET))
}

fn subnet(asked: &SubnetSpec) -> Subnet {
    let net = asked.subnet.trunc();
    let gateway = asked.gateway.unwrap_or_else(|| range::first(net));
    Subnet { net, gateway, range: asked.range, vni: None }
}

/// Somebody may have this address.
fn fits(subnet: &Subnet, address: IpAddr) -> bool {
    subnet.net.contains(&address) && range::is_usable(subnet.net, address) && address != subnet.gateway
}

#[cfg(test)]
mod tests;
