//! Another host, as this one reaches it.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    mac::Mac,
    object::{LinkName, Objects},
};

/// Another host of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Ethernet address of its VXLAN devices.
    pub mac: Mac,
    /// Where VXLAN packets for it go.
    pub underlay: IpAddr,
    /// Its edge block; the first address is the next hop to everything on that host.
    pub v4: Ipv4Net,
    /// Its IPv6 edge block, likewise.
    pub v6: Ipv6Net,
}

impl Peer {
    /// The next hop to what it has of this family.
    pub fn hop(&self, v6: bool) -> IpAddr {
        if v6 { IpAddr::V6(self.v6.network()) } else { IpAddr::V4(self.v4.network()) }
    }

    /// Its blocks.
    pub fn blocks(&self) -> [IpNet; 2] {
        [self.v4.trunc().into(), self.v6.trunc().into()]
    }

    /// What a VXLAN device needs to send to it.
    pub(crate) fn reach<L>(&self, device: &LinkName, v6: bool, objects: &mut Objects<L>) {
        objects.neighbours.insert((device.clone(), self.hop(v6)), self.mac);
        objects.fdb.insert((device.clone(), self.mac), [self.underlay].into());
    }
}
