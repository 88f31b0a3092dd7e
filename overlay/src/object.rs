//! Kernel objects of the edge, as data.

use std::{fmt, net::IpAddr};

use crate::{block::Pair, mac::Mac};

/// In front of the name of every link of ours; a link with another name is never touched.
pub const LINK_PREFIX: &str = "cv";
/// Bytes of a link's name, the closing zero not counted (`IFNAMSIZ`, linux/if.h).
pub const LINK_NAME_MAX: usize = 15;

/// The name of a link of ours, on the host.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkName(String);

impl LinkName {
    /// The link of this container: the prefix and the first characters of its id.
    pub fn of_container(id: &str) -> Self {
        Self(format!(
            "{LINK_PREFIX}{}",
            id.chars().take(LINK_NAME_MAX - LINK_PREFIX.len()).collect::<String>()
        ))
    }

    /// The link of this name, if it is one of ours.
    pub fn ours(name: &str) -> Option<Self> {
        name.starts_with(LINK_PREFIX).then(|| Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A container's veth as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// Its host's end.
    pub name: LinkName,
    /// Path of the container's network namespace, where the other end is `eth0`.
    pub namespace: String,
    /// The container's addresses.
    pub addresses: Pair,
    /// Bytes of a packet, at most.
    pub mtu: u32,
}

impl Veth {
    /// Ethernet address of the host's end.
    pub fn host_mac(&self) -> Mac {
        Mac::of_host_end(self.addresses.v4)
    }

    /// Ethernet address of the container's end.
    pub fn container_mac(&self) -> Mac {
        Mac::of_container_end(self.addresses.v4)
    }
}

/// One address of a container as its host reaches it: a route to it and its neighbour entry, both by the veth.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reach {
    /// By this link.
    pub link: LinkName,
    /// To this address.
    pub to: IpAddr,
    /// Which is at this Ethernet address.
    pub mac: Mac,
}

/// One step that brings the kernel closer to what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A link of ours that nobody wants.
    DeleteLink(LinkName),
    /// A container's veth with both its ends: made, addressed, set up.
    CreateVeth(Veth),
    /// The host's end is down, or has another size of packets.
    MendLink {
        /// Which.
        name: LinkName,
        /// Bytes of a packet, at most.
        mtu: u32,
    },
    /// A route, replaced where it differs.
    SetRoute {
        /// By this link.
        link: LinkName,
        /// To this address alone.
        to: IpAddr,
    },
    /// A permanent neighbour entry, replaced where it differs.
    SetNeighbour(Reach),
}
