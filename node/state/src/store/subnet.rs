//! What the subnets of a new network may be, and what the cluster chooses where the user leaves it open.

use std::collections::BTreeSet;

use ipnet::{IpNet, Ipv4Net};

use super::Store;
use crate::{
    cluster::{ClusterSpec, NETWORK_V6_SUBNET},
    network::{EDGE_VNI, NetworkSpec, Subnet, SubnetSpec, VNI_MAX},
    range::{address, bits, first, overlap},
};

/// A subnet, or what belongs to it, that cannot be had beside all others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SubnetError {
    #[error("subnet {net} overlaps with subnet {other} of network {name}: choose another one")]
    Overlaps { net: IpNet, other: IpNet, name: String },
    #[error(
        "subnet {net} overlaps with {pool}, the pool of the edge, from which every task has its way out: choose another subnet"
    )]
    OverlapsEdge { net: IpNet, pool: IpNet },
    #[error(
        "the address pools of the cluster ({pools}) have no free subnet of /{length}: name one with --subnet"
    )]
    Exhausted { pools: String, length: u8 },
    #[error("each subnet has a VXLAN id of its own: name {subnets} of them, not {vnis}")]
    VniCount { subnets: usize, vnis: usize },
    #[error("VXLAN id {vni} is already in use by network {name}: choose another one, or none")]
    VniInUse { vni: u32, name: String },
    #[error("no VXLAN id is free: remove networks that nobody uses")]
    NoVni,
}

impl Store {
    /// The subnets that a new network gets, those of IPv4 first, and the VXLAN id that was chosen last.
    pub(super) fn decide_subnets(
        &self,
        spec: &NetworkSpec,
        cluster: &ClusterSpec,
    ) -> Result<(Vec<Subnet>, u32), SubnetError> {
        let mut nets: Vec<SubnetSpec> = spec.subnets.clone();
        self.check_overlap(&nets, cluster)?;
        let whole = |net| SubnetSpec { subnet: net, gateway: None, range: None };
        let has = |nets: &[SubnetSpec], v4| nets.iter().any(|net| net.subnet.addr().is_ipv4() == v4);
        if !has(&nets, true) {
            nets.push(whole(self.free_v4(&nets, cluster)?));
        }
        if spec.ipv6 && !has(&nets, false) {
            nets.push(whole(self.free_v6(&nets, cluster)?));
        }
        // Each subnet has the VXLAN id that was named in its place.
        let (vnis, last) = self.decide_vnis(&spec.vnis, nets.len())?;
        let decided = nets.iter().zip(vnis).map(|(net, vni)| Subnet {
            net: net.subnet,
            gateway: net.gateway.unwrap_or_else(|| first(net.subnet)),
            range: net.range,
            vni: Some(vni),
        });
        let mut decided: Vec<Subnet> = decided.collect();
        decided.sort_by_key(|subnet| !subnet.net.addr().is_ipv4());
        Ok((decided, last))
    }

    /// C-29: addresses of one network mean nothing else in another. The networks of the hosts themselves are not
    /// looked at: each network has its own routes.
    fn check_overlap(&self, nets: &[SubnetSpec], cluster: &ClusterSpec) -> Result<(), SubnetError> {
        for SubnetSpec { subnet: net, .. } in nets {
            let net = *net;
            let edge: [IpNet; 2] = [cluster.edge.v4.into(), cluster.edge.v6.into()];
            if let Some(pool) = edge.into_iter().find(|pool| overlap(net, *pool)) {
                return Err(SubnetError::OverlapsEdge { net, pool });
            }
            for network in self.networks() {
                if let Some(other) = network.subnets.iter().find(|other| overlap(net, other.net)) {
                    let name = network.spec.name.clone();
                    return Err(SubnetError::Overlaps { net, other: other.net, name });
                }
            }
        }
        Ok(())
    }

    fn free_v4(&self, own: &[SubnetSpec], cluster: &ClusterSpec) -> Result<IpNet, SubnetError> {
        let length = cluster.networks.v4_subnet;
        let taken = self.taken(own, cluster.edge.v4.into());
        let pools = &cluster.networks.v4;
        let free = pools.iter().find_map(|pool| first_free((*pool).into(), length, &taken));
        free.ok_or_else(|| SubnetError::Exhausted { pools: list(pools), length })
    }

    fn free_v6(&self, own: &[SubnetSpec], cluster: &ClusterSpec) -> Result<IpNet, SubnetError> {
        let (pool, length) = (cluster.networks.v6, NETWORK_V6_SUBNET);
        let taken = self.taken(own, cluster.edge.v6.into());
        first_free(pool.into(), length, &taken)
            .ok_or_else(|| SubnetError::Exhausted { pools: pool.to_string(), length })
    }

    /// What is taken of the family of `edge`: first and last address of each, in order.
    fn taken(&self, own: &[SubnetSpec], edge: IpNet) -> Vec<(u128, u128)> {
        let others = self.networks().flat_map(|network| network.subnets.iter().map(|subnet| subnet.net));
        let mut taken: Vec<(u128, u128)> = (others.chain(own.iter().map(|own| own.subnet)).chain([edge]))
            .filter(|net| net.addr().is_ipv4() == edge.addr().is_ipv4())
            .map(|net| (bits(net.network()), bits(net.broadcast())))
            .collect();
        taken.sort_unstable();
        taken
    }

    /// The VXLAN ids of a new network. Chosen ones go round: a host that has not heard yet that a network is gone
    /// must not take the next one for it.
    fn decide_vnis(&self, asked: &[u32], subnets: usize) -> Result<(Vec<u32>, u32), SubnetError> {
        let taken: BTreeSet<u32> = self
            .networks()
            .flat_map(|network| network.subnets.iter().filter_map(|subnet| subnet.vni))
            .collect();
        if !asked.is_empty() {
            self.check_vnis(asked, subnets, &taken)?;
            return Ok((asked.to_vec(), self.last_vni));
        }
        let after = self.last_vni.max(EDGE_VNI) + 1;
        let circle = (after..=VNI_MAX).chain(EDGE_VNI + 1..after);
        let chosen: Vec<u32> = circle.filter(|vni| !taken.contains(vni)).take(subnets).collect();
        match chosen.last() {
            Some(last) if chosen.len() == subnets => Ok((chosen.clone(), *last)),
            _ => Err(SubnetError::NoVni),
        }
    }

    fn check_vnis(&self, asked: &[u32], subnets: usize, taken: &BTreeSet<u32>) -> Result<(), SubnetError> {
        if asked.len() != subnets {
            return Err(SubnetError::VniCount { subnets, vnis: asked.len() });
        }
        for vni in asked.iter().copied() {
            if taken.contains(&vni) {
                let has = |subnet: &Subnet| subnet.vni == Some(vni);
                let owner = self.networks().find(|network| network.subnets.iter().any(has));
                let name = owner.map(|network| network.spec.name.clone()).unwrap_or_default();
                return Err(SubnetError::VniInUse { vni, name });
            }
        }
        Ok(())
    }
}

/// The first part of `pool` of this prefix length that does not meet any of the `taken`, which are in order.
fn first_free(pool: IpNet, length: u8, taken: &[(u128, u128)]) -> Option<IpNet> {
    let size = 1_u128.checked_shl(u32::from(pool.max_prefix_len().checked_sub(length)?))?;
    let (mut from, end) = (bits(pool.network()), bits(pool.broadcast()));
    for (first, last) in taken {
        if *last >= from && *first <= from + (size - 1) {
            // Parts begin at multiples of their size.
            from = (last / size + 1).checked_mul(size)?;
        }
    }
    let last = from.checked_add(size - 1).filter(|last| *last <= end);
    last.and_then(|_| IpNet::new(address(from, pool.addr().is_ipv4()), length).ok())
}

fn list(pools: &[Ipv4Net]) -> String {
    pools.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
