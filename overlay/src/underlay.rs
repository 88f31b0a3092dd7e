//! What VXLAN takes of the network below it.

use std::net::IpAddr;

/// Bytes in front of a packet over IPv4: Ethernet 14, IPv4 20, UDP 8, VXLAN 8 (RFC 7348).
pub const OVERHEAD_V4: u32 = 50;
/// The same over IPv6, whose header has 40 bytes.
pub const OVERHEAD_V6: u32 = 70;
/// UDP port of VXLAN (RFC 7348).
pub const PORT: u16 = 4789;

/// Bytes in front of a packet where hosts reach each other by such an address.
pub const fn overhead(local: IpAddr) -> u32 {
    match local {
        IpAddr::V4(_) => OVERHEAD_V4,
        IpAddr::V6(_) => OVERHEAD_V6,
    }
}
