//! Ranges of addresses, counted as numbers.

use std::net::IpAddr;

use ipnet::IpNet;

/// The number of an address.
pub fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of these bits; of IPv4 there are no more than 32.
pub fn address(bits: u128, v4: bool) -> IpAddr {
    match u32::try_from(bits) {
        Ok(bits) if v4 => IpAddr::V4(bits.into()),
        _ => IpAddr::V6(bits.into()),
    }
}

/// The first and the last address that somebody may have: not the subnet's own, and not the one for all of it.
pub fn usable(net: IpNet) -> (u128, u128) {
    let (first, last) = (bits(net.network()), bits(net.broadcast()));
    (first + 1, if net.network().is_ipv4() { last - 1 } else { last })
}

/// Somebody may have this address there.
pub fn is_usable(net: IpNet, address: IpAddr) -> bool {
    let (first, last) = usable(net);
    (first..=last).contains(&bits(address))
}

/// The gateway of a subnet for which nobody named one.
pub fn first(net: IpNet) -> IpAddr {
    address(usable(net).0, net.addr().is_ipv4())
}

/// They have addresses in common.
pub fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}
