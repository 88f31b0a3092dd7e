//! The cluster itself: its settings, its authority and its join tokens.

use std::{collections::BTreeMap, fmt, time::Duration};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{Id, Version, node::EdgeBlock, time::Stamp};

/// Settings of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Labels of the cluster.
    pub labels: BTreeMap<String, String>,
    /// Ended tasks that are kept for each slot.
    pub task_history_limit: u64,
    /// A host lost by SWIM and by the leader keeps its tasks for this long.
    pub heartbeat_period: Duration,
    /// How long a certificate lasts.
    pub certificate_lifetime: Duration,
    /// Consensus timing.
    pub raft: RaftSpec,
    /// Where the edge blocks of nodes come from; fixed at `swarm init`.
    pub edge: EdgePool,
    /// Where the subnets of networks come from that name none; fixed at `swarm init`.
    pub networks: NetworkPool,
    /// UDP port of the data path (VXLAN); fixed at `swarm init`.
    pub data_path_port: u16,
}

/// UDP port of VXLAN (RFC 7348).
pub const DATA_PATH_PORT: u16 = 4789;
/// What users may choose instead, as in Docker: neither well-known nor ephemeral.
pub const DATA_PATH_PORTS: std::ops::RangeInclusive<u16> = 1024..=49_151;

/// Where the subnets of networks come from that name none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPool {
    /// Cut into subnets, one after the other.
    pub v4: Vec<Ipv4Net>,
    /// Prefix length of a subnet.
    pub v4_subnet: u8,
    /// Cut into one /64 a network.
    pub v6: Ipv6Net,
}

impl Default for NetworkPool {
    fn default() -> Self {
        Self {
            v4: vec![Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 0, 0, 0), 8)],
            v4_subnet: 24,
            v6: Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfd00, 0xc0e8, 0, 0, 0, 0, 0, 0), 40),
        }
    }
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            labels: BTreeMap::new(),
            task_history_limit: 5,
            heartbeat_period: Duration::from_secs(1),
            certificate_lifetime: Duration::from_secs(90 * 24 * 3600),
            raft: RaftSpec::default(),
            edge: EdgePool::default(),
            networks: NetworkPool::default(),
            data_path_port: DATA_PATH_PORT,
        }
    }
}

/// Prefix length of the IPv6 subnet of a network.
pub const NETWORK_V6_SUBNET: u8 = 64;
/// Pools of IPv4 subnets, at most.
pub const NETWORK_POOLS_MAX: usize = 16;
/// Longest prefix of an IPv4 subnet from a pool: a gateway and five more.
const NETWORK_V4_SUBNET_MAX: u8 = 29;

/// Pools from which no subnets can be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkPoolError {
    /// None, or too many.
    #[error("a cluster has 1 to {NETWORK_POOLS_MAX} address pools for networks: not {0}")]
    Count(usize),
    /// Subnets do not fit into the pool, or are too small.
    #[error("subnets of the address pool {pool} must be /{} to /{NETWORK_V4_SUBNET_MAX}: not /{subnet}", pool.prefix_len())]
    Subnet {
        /// The pool.
        pool: Ipv4Net,
        /// Prefix length of a subnet.
        subnet: u8,
    },
    /// Networks get a /64 each.
    #[error("the address pool {0} must not be longer than /{NETWORK_V6_SUBNET}")]
    V6(Ipv6Net),
    /// An address has one meaning only.
    #[error("the address pool {pool} overlaps with {other}, another pool of networks or the one of the edge")]
    Overlap {
        /// One pool.
        pool: IpNet,
        /// The other.
        other: IpNet,
    },
}

impl NetworkPool {
    /// Whether subnets can be taken from the pools, beside those of the edge.
    ///
    /// # Errors
    /// The first rule that they break.
    pub fn check(&self, edge: &EdgePool) -> Result<(), NetworkPoolError> {
        if !(1..=NETWORK_POOLS_MAX).contains(&self.v4.len()) {
            return Err(NetworkPoolError::Count(self.v4.len()));
        }
        for (index, pool) in self.v4.iter().enumerate() {
            if !(pool.prefix_len()..=NETWORK_V4_SUBNET_MAX).contains(&self.v4_subnet) {
                return Err(NetworkPoolError::Subnet { pool: *pool, subnet: self.v4_subnet });
            }
            let meets = |other: &&Ipv4Net| pool.contains(*other) || other.contains(pool);
            if let Some(other) = self.v4[..index].iter().chain([&edge.v4]).find(meets) {
                return Err(NetworkPoolError::Overlap { pool: (*pool).into(), other: (*other).into() });
            }
        }
        if self.v6.prefix_len() > NETWORK_V6_SUBNET {
            return Err(NetworkPoolError::V6(self.v6));
        }
        if self.v6.contains(&edge.v6) || edge.v6.contains(&self.v6) {
            return Err(NetworkPoolError::Overlap { pool: self.v6.into(), other: edge.v6.into() });
        }
        Ok(())
    }
}

/// Consensus timing, in ticks as the Engine API has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftSpec {
    /// Length of a tick.
    pub tick: Duration,
    /// Ticks between heartbeats.
    pub heartbeat_tick: u32,
    /// Ticks without a heartbeat before an election; up to twice as many at random.
    pub election_tick: u32,
    /// Entries between snapshots.
    pub snapshot_interval: u64,
}

impl Default for RaftSpec {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(50),
            heartbeat_tick: 1,
            election_tick: 4,
            snapshot_interval: 10_000,
        }
    }
}

/// Where the edge blocks of nodes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgePool {
    /// Cut into one block a node.
    pub v4: Ipv4Net,
    /// Prefix length of a node's block.
    pub v4_block: u8,
    /// Cut into one /64 a node.
    pub v6: Ipv6Net,
}

impl Default for EdgePool {
    fn default() -> Self {
        Self {
            v4: Ipv4Net::new_assert(std::net::Ipv4Addr::new(100, 64, 0, 0), 10),
            v4_block: 24,
            v6: Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfd00, 0xc0e7, 0, 0, 0, 0, 0, 0), 40),
        }
    }
}

/// An edge pool cannot be cut into blocks, or has no more of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EdgePoolError {
    /// The prefix length of a node's block does not leave it both nodes and addresses.
    #[error("edge blocks must be longer than the edge pool {pool} and at most /{BLOCK_MAX}: not /{block}")]
    Block {
        /// The pool.
        pool: Ipv4Net,
        /// Prefix length of a block.
        block: u8,
    },
    /// Nodes get a /64 each.
    #[error("the edge pool {0} must be shorter than /{V6_BLOCK}")]
    V6(Ipv6Net),
    /// Each block has an owner.
    #[error("the edge pool {pool} has no block left for node number {number}")]
    Exhausted {
        /// The pool.
        pool: IpNet,
        /// The node that gets none.
        number: u32,
    },
}

/// Longest prefix of a node's IPv4 block: 14 containers.
const BLOCK_MAX: u8 = 28;
/// Prefix length of a node's IPv6 block.
const V6_BLOCK: u8 = 64;

impl EdgePool {
    /// Whether the pool can be cut into blocks.
    ///
    /// # Errors
    /// Blocks as large as the pool, or too small for containers.
    pub fn check(&self) -> Result<(), EdgePoolError> {
        if self.v4_block <= self.v4.prefix_len() || self.v4_block > BLOCK_MAX {
            return Err(EdgePoolError::Block { pool: self.v4, block: self.v4_block });
        }
        if self.v6.prefix_len() >= V6_BLOCK {
            return Err(EdgePoolError::V6(self.v6));
        }
        Ok(())
    }

    /// The block of the node with this number: the pool's block of that index, so that block 0 is nobody's.
    ///
    /// # Errors
    /// The pool has no such block, or cannot be cut.
    pub fn block(&self, number: u32) -> Result<EdgeBlock, EdgePoolError> {
        self.check()?;
        let exhausted = |pool| EdgePoolError::Exhausted { pool, number };
        if u64::from(number) >> (self.v4_block - self.v4.prefix_len()) != 0 {
            return Err(exhausted(self.v4.into()));
        }
        if u128::from(number) >> (V6_BLOCK - self.v6.prefix_len()) != 0 {
            return Err(exhausted(self.v6.into()));
        }
        let v4 = self.v4.network().to_bits() | number << (32 - self.v4_block);
        let v6 = self.v6.network().to_bits() | u128::from(number) << (128 - V6_BLOCK);
        Ok(EdgeBlock {
            v4: Ipv4Net::new_assert(v4.into(), self.v4_block),
            v6: Ipv6Net::new_assert(v6.into(), V6_BLOCK),
        })
    }
}

/// The secrets by which nodes join.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinSecrets {
    /// Makes a worker.
    pub worker: String,
    /// Makes a manager.
    pub manager: String,
}

impl fmt::Debug for JoinSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecrets(…)")
    }
}

/// The authority that says who is a member.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Certificate of the CA, PEM.
    pub certificate: String,
    /// Key of the CA, PKCS#8 PEM; at rest it is sealed with the rest of the log.
    pub key: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(…)")
    }
}

/// The cluster as it remembers itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id.
    pub id: Id,
    /// Its last change.
    pub version: Version,
    /// When it was initialised.
    pub created_at: Stamp,
    /// Its last change.
    pub updated_at: Stamp,
    /// Its settings.
    pub spec: ClusterSpec,
    /// Who says who is a member.
    pub authority: Authority,
    /// How nodes join.
    pub join: JoinSecrets,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_pool_suffices_for_ten_thousand_nodes() {
        let pool = EdgePool::default();
        let first = pool.block(1).unwrap();
        assert_eq!(
            (first.v4.to_string(), first.v6.to_string()),
            ("100.64.1.0/24".into(), "fd00:c0e7:0:1::/64".into())
        );
        assert_eq!(pool.block(10_000).unwrap().v4.to_string(), "100.103.16.0/24");
        assert_eq!(pool.block(16_383).unwrap().v4.to_string(), "100.127.255.0/24");
    }

    #[test]
    fn a_pool_without_a_block_left_says_so() {
        let error = EdgePool::default().block(16_384).unwrap_err();
        assert_eq!(error.to_string(), "the edge pool 100.64.0.0/10 has no block left for node number 16384");
        let narrow = EdgePool { v6: "fd00::/62".parse().unwrap(), ..EdgePool::default() };
        assert!(narrow.block(3).is_ok());
        assert!(matches!(narrow.block(4), Err(EdgePoolError::Exhausted { pool: IpNet::V6(_), number: 4 })));
    }

    #[test]
    fn a_pool_that_cannot_be_cut_is_refused() {
        let pool = EdgePool::default();
        for v4_block in [0, 10, 29, 32, 33] {
            assert!(
                matches!(EdgePool { v4_block, ..pool }.check(), Err(EdgePoolError::Block { .. })),
                "{v4_block}"
            );
        }
        let full = EdgePool { v6: "fd00::/64".parse().unwrap(), ..pool };
        assert!(matches!(full.block(1), Err(EdgePoolError::V6(_))));
    }

    #[test]
    fn bits_of_the_host_in_the_pool_do_not_leak_into_blocks() {
        let pool = EdgePool { v4: "10.1.2.3/8".parse().unwrap(), ..EdgePool::default() };
        assert_eq!(pool.block(1).unwrap().v4.to_string(), "10.0.1.0/24");
    }

    #[test]
    fn secrets_are_not_printed() {
        let join = JoinSecrets { worker: "w-secret".into(), manager: "m-secret".into() };
        let authority = Authority { certificate: String::new(), key: "k-secret".into() };
        assert!(!format!("{join:?}{authority:?}").contains("secret"));
    }
}
