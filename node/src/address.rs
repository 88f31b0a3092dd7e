//! Addresses as people give them: `10.0.0.5`, `10.0.0.5:2377`, `eth0`, `eth0:2377`, `manager.example:2377`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, bail};
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags, sys::socket::SockaddrStorage};

use crate::origins::{self, Origins};

/// The control port where none is given.
pub const PORT_DEFAULT: u16 = 2377;

/// Where the control socket is bound: `ip|interface[:port]`, empty for all addresses.
///
/// # Errors
/// A sentence that names the option.
pub fn listen(text: &str) -> Result<SocketAddr> {
    if text.is_empty() {
        return Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT_DEFAULT));
    }
    parse(text, "--listen-addr")
}

/// The same where another member, or this one for the others, is at this address: nobody is reached by IPv6 from a socket
/// of IPv4, so one that listens at all addresses does so for both families then.
pub const fn listen_beside(listen: SocketAddr, other: IpAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) if other.is_ipv6() => {
            SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), listen.port())
        }
        _ => listen,
    }
}

/// Where others reach this node, for `swarm init`: without an answer from the user the only address that there is.
///
/// # Errors
/// A sentence that names the option, and the addresses to choose from (CLU-04).
pub fn advertise(text: &str, listen: SocketAddr) -> Result<SocketAddr> {
    if !text.is_empty() {
        return Ok(with_port(parse(text, "--advertise-addr")?, text, listen.port()));
    }
    if !listen.ip().is_unspecified() {
        return Ok(listen);
    }
    let mut found = own_addresses()?;
    // A host with both families is reached by the older one, unless it is bound to the newer.
    if listen.is_ipv4() || found.iter().any(|(_, address)| address.is_ipv4()) {
        found.retain(|(_, address)| address.is_ipv4());
    }
    match (found.pop(), found.is_empty()) {
        (Some((_, address)), true) => Ok(SocketAddr::new(address, listen.port())),
        (None, _) => bail!(
            "could not choose an IP address to advertise since this system has none; specify one with --advertise-addr"
        ),
        (Some(last), false) => {
            found.push(last);
            let list: Vec<String> =
                found.iter().map(|(name, address)| format!("{address} on {name}")).collect();
            bail!(
                "could not choose an IP address to advertise since this system has multiple addresses ({}) - \
                 specify one with --advertise-addr",
                list.join(", ")
            )
        }
    }
}

/// As [`advertise`], for `swarm join`: without an answer from the user the manager sees where we are.
///
/// # Errors
/// A sentence that names the option.
pub fn advertise_or_seen(text: &str, listen: SocketAddr) -> Result<SocketAddr> {
    if text.is_empty() { Ok(listen) } else { advertise(text, listen) }
}

/// Where packets of networks come in: `ip|interface`; without an answer from the user where others reach this node.
///
/// # Errors
/// A sentence that names the option.
pub fn data_path(text: &str) -> Result<Option<IpAddr>> {
    const OPTION: &str = "--data-path-addr";
    if text.is_empty() {
        return Ok(None);
    }
    let ip = parse(text, OPTION)?.ip();
    if !own_addresses()?.iter().any(|(_, own)| *own == ip) {
        bail!("{OPTION} {text}: this machine has no such address");
    }
    Ok(Some(ip))
}

fn with_port(address: SocketAddr, text: &str, port: u16) -> SocketAddr {
    let given =
        text.rsplit_once(':').is_some_and(|(host, port)| !host.contains(':') && port.parse::<u16>().is_ok())
            || text.starts_with('[') && text.contains("]:");
    if given { address } else { SocketAddr::new(address.ip(), port) }
}

fn parse(text: &str, option: &str) -> Result<SocketAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, PORT_DEFAULT));
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (
            name,
            port.parse()
                .with_context(|| format!("{option} {text}: the port must be a number up to 65535"))?,
        ),
        None => (text, PORT_DEFAULT),
    };
    let of_interface: Vec<IpAddr> =
        own_addresses()?.into_iter().filter(|(interface, _)| interface == name).map(|(_, ip)| ip).collect();
    let ip = of_interface.iter().find(|ip| ip.is_ipv4()).or(of_interface.first());
    let ip = ip.with_context(|| {
        format!("{option} {text}: it must be an IP address or a network interface of this machine")
    })?;
    Ok(SocketAddr::new(*ip, port))
}

/// This machine's addresses by interface, those of loopback, of links alone and of containers left out.
fn own_addresses() -> Result<Vec<(String, IpAddr)>> {
    let mut found = Vec::new();
    for interface in getifaddrs().context("cannot list this machine's addresses")? {
        let up = interface.flags.contains(InterfaceFlags::IFF_UP)
            && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let ours = interface.interface_name.starts_with(covey_overlay::object::LINK_PREFIX);
        if let Some(ip) = interface.address.as_ref().and_then(ip_of)
            && up
            && !ours
        {
            found.push((interface.interface_name, ip));
        }
    }
    Ok(found)
}

/// The addresses that this machine is seen under, as far as it can be asked for them.
pub fn origins() -> Origins {
    match own_addresses() {
        Ok(found) => origins::bounded(found.into_iter().map(|(_, address)| address)),
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "nobody is told what addresses this host has");
            Origins::new()
        }
    }
}

/// The address that a socket address has; none where it means something on its own link only.
pub fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(v4.ip()));
    }
    let v6 = address.as_sockaddr_in6()?.ip();
    // fe80::/10 says nothing without a link.
    (v6.segments()[0] & 0xffc0 != 0xfe80).then_some(IpAddr::V6(v6))
}

/// Where a manager is, as the user of `swarm join` says it: a name is looked up.
///
/// # Errors
/// A sentence that repeats what was given.
pub async fn remote(text: &str) -> Result<Vec<SocketAddr>> {
    let bare = text.trim_matches(['[', ']']);
    let text = match bare.parse::<IpAddr>() {
        Ok(ip) => return Ok(vec![SocketAddr::new(ip, PORT_DEFAULT)]),
        Err(_) if text.contains(':') => text.to_owned(),
        Err(_) => format!("{text}:{PORT_DEFAULT}"),
    };
    let found: Vec<SocketAddr> =
        tokio::net::lookup_host(&text).await.with_context(|| format!("cannot find {text}"))?.collect();
    if found.is_empty() {
        bail!("cannot find {text}: it has no address");
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CLU-03, C-01
    #[test]
    fn the_port_is_2377_where_none_is_given() {
        assert_eq!(listen("").unwrap().to_string(), "0.0.0.0:2377");
        assert_eq!(listen("10.0.0.5").unwrap().to_string(), "10.0.0.5:2377");
        assert_eq!(listen("[fd00::5]:99").unwrap().to_string(), "[fd00::5]:99");
        let beside = |text: &str, other: &str| {
            listen_beside(listen(text).unwrap(), other.parse().unwrap()).to_string()
        };
        assert_eq!(beside("0.0.0.0:99", "fd00::5"), "[::]:99");
        assert_eq!(beside("", "10.0.0.5"), "0.0.0.0:2377");
        assert_eq!(beside("10.0.0.5", "fd00::5"), "10.0.0.5:2377", "as the user says");
    }

    #[test]
    fn the_advertised_port_is_that_of_the_socket_unless_given() {
        let bound: SocketAddr = ([0, 0, 0, 0], 5000).into();
        assert_eq!(advertise("10.0.0.5", bound).unwrap().to_string(), "10.0.0.5:5000");
        assert_eq!(advertise("10.0.0.5:2377", bound).unwrap().to_string(), "10.0.0.5:2377");
        assert_eq!(advertise("fd00::5", bound).unwrap().to_string(), "[fd00::5]:5000");
    }

    /// C-36
    #[test]
    fn what_is_neither_address_nor_interface_is_refused() {
        let error = listen("node01:2377").unwrap_err().to_string();
        assert!(error.contains("--listen-addr node01:2377"), "{error}");
    }
}
