//! Ethernet addresses.

use std::{fmt, net::IpAddr};

/// Second byte of the nodes' VXLAN devices.
pub(crate) const NODE: u8 = 0xfd;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The host's end of the veth of the container at `address`: locally administered, `02:fe` in front.
    pub const fn of_host_end(address: IpAddr) -> Self {
        Self::with_prefix(0xfe, last_bytes(address))
    }

    /// The container's end: locally administered, `02:fc` in front.
    pub const fn of_container_end(address: IpAddr) -> Self {
        Self::with_prefix(0xfc, last_bytes(address))
    }

    /// A node's end of every VXLAN device that it has: locally administered, `02:fd` in front. No node has the tail
    /// of four zeros.
    pub const fn of_node(tail: [u8; 4]) -> Self {
        Self::with_prefix(NODE, tail)
    }

    const fn with_prefix(prefix: u8, [a, b, c, d]: [u8; 4]) -> Self {
        Self([0x02, prefix, a, b, c, d])
    }
}

/// What tells addresses of one network apart.
const fn last_bytes(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            [a, b, c, d]
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
