//! Where this node is among the others, as its networks need to know it.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Result;
use covey_mesh::mark;
use covey_overlay::{
    mac::Mac,
    peer::Peer,
    underlay::{OVERHEAD_V4, overhead},
};
use covey_overlay_netlink::underlay;
use covey_state::{Id, node::EdgeBlock};
use serde::{Deserialize, Serialize};

use crate::{endpoint::Host, roster::Nodes};

/// Bytes of a packet where the underlay does not say: what Ethernet has.
const MTU_UNKNOWN: u32 = 1500;

/// This node in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its id.
    pub id: Id,
    /// How others reach its endpoints.
    pub host: Host,
    /// UDP port of the data path, the same on all nodes.
    pub port: u16,
}

/// Another node of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its id.
    pub id: Id,
    /// Where its people reach it: the address that it advertises.
    pub address: IpAddr,
    /// How its endpoints are reached.
    pub host: Host,
}

impl Host {
    /// The host of a node with this number, address of the data path and block.
    pub fn new(number: u32, vtep: IpAddr, edge: EdgeBlock) -> Self {
        Self { number, vtep, edge }
    }

    /// Ethernet address of its VXLAN devices: the mark of the node is in it.
    pub fn mac(&self) -> Mac {
        Mac::of_node(mark::of_node(self.number))
    }

    /// As the overlay wants it.
    pub fn peer(&self) -> Peer {
        Peer { mac: self.mac(), underlay: self.vtep, v4: self.edge.v4, v6: self.edge.v6 }
    }
}

/// What a roster says of this node and of the others; none of this node while the leader has not told of it.
pub fn around(me: Id, nodes: &Nodes) -> (Option<Place>, Vec<Neighbour>) {
    let ground = nodes.ground();
    let of = |peer: &crate::protocol::Peer| Host::new(peer.number, peer.data_path, peer.edge);
    let place = nodes.get(me).zip(ground);
    let place = place.map(|(peer, ground)| Place { id: me, host: of(peer), port: ground.data_path_port });
    let others = nodes.all().filter(|peer| peer.id != me);
    let others = others.map(|peer| Neighbour { id: peer.id, address: peer.address.ip(), host: of(peer) });
    (place, others.collect())
}

/// The others by number, as the overlay wants them.
pub fn peers(neighbours: &[Neighbour]) -> BTreeMap<u32, Peer> {
    neighbours.iter().map(|neighbour| (neighbour.host.number, neighbour.host.peer())).collect()
}

/// Bytes of a packet of a network whose packets leave by this address.
///
/// # Errors
/// As [`measured`].
pub fn mtu(local: Option<IpAddr>) -> Result<u32> {
    let Some(local) = local else { return Ok(MTU_UNKNOWN - OVERHEAD_V4) };
    Ok(measured(local)?.unwrap_or(MTU_UNKNOWN.saturating_sub(overhead(local))))
}

/// The same as the underlay has it now; none while the address is on no link.
///
/// # Errors
/// The kernel does not tell.
pub fn measured(local: IpAddr) -> Result<Option<u32>> {
    Ok(underlay::mtu_of(local)?.map(|mtu| mtu.saturating_sub(overhead(local))))
}
