//! How names are written: case and final dot do not count; addresses and ports have names of their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::names::Port;

/// The spelling in which names are compared.
pub fn compared(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The address that a name of the reverse tree stands for (RFC 1035 section 3.5, RFC 3596 section 2.5).
pub fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(bytes) = name.strip_suffix(".in-addr.arpa") {
        return address::<4>(bytes, 10).map(|octets| Ipv4Addr::from(octets).into());
    }
    let nibbles = address::<32>(name.strip_suffix(".ip6.arpa")?, 16)?;
    let value = nibbles
        .iter()
        .try_fold(0u128, |value, &nibble| (nibble < 16).then_some(value << 4 | u128::from(nibble)))?;
    Some(Ipv6Addr::from(value).into())
}

/// Exactly `N` numbers, the last one first.
fn address<const N: usize>(labels: &str, radix: u32) -> Option<[u8; N]> {
    let mut numbers = [0; N];
    let mut labels = labels.rsplit('.');
    for number in &mut numbers {
        *number =
            labels.next().filter(|label| is_number(label)).and_then(|l| u8::from_str_radix(l, radix).ok())?;
    }
    labels.next().is_none().then_some(numbers)
}

/// Without sign, and without zeros in front: another spelling of the same address is another name.
fn is_number(label: &str) -> bool {
    !label.starts_with('+') && (label == "0" || !label.starts_with('0'))
}

/// A port's name and protocol, and the name that they are asked of, in `_<port>._<protocol>.<name>` (RFC 2782).
pub fn port(name: &str) -> Option<(&str, &str, &str)> {
    let (port, rest) = name.strip_prefix('_')?.split_once('.')?;
    let (protocol, rest) = rest.strip_prefix('_')?.split_once('.')?;
    Some((port, protocol, rest))
}

/// Whether this is the port of that name.
pub fn is_called(port: &Port, name: &str, protocol: &str) -> bool {
    !name.is_empty() && port.protocol.as_str() == protocol && port.name.eq_ignore_ascii_case(name)
}
