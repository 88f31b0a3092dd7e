//! Who answers a connection: what this host's tables have, and what they have done with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::Result;
use covey_mesh::{Balance, Frontend, Protocol, Virtual};

use super::{Step, list};
use crate::{
    endpoint::Scope,
    network::{balancer::Balancer, keeper::Keeper},
};

/// Who answers the connection; `None` where the way ends.
pub fn balance(
    keeper: &mut Keeper,
    scope: Scope,
    protocol: Protocol,
    from: SocketAddr,
    to: SocketAddr,
    steps: &mut Vec<Step>,
) -> Result<Option<SocketAddr>> {
    let Some(balancer) = balancer(keeper, scope) else { return Ok(None) };
    let (what, behind) = match scope {
        Scope::Network(_) => match balancer.lookup(&Frontend::Address(to.ip()))? {
            Some(behind) => (format!("{} is virtual", to.ip()), behind),
            None => return Ok(Some(to)),
        },
        Scope::Ingress if !is_local(to.ip()) => return Ok(Some(to)),
        Scope::Ingress => {
            let port = format!("{}/{}", to.port(), protocol.as_str());
            let Some(behind) = published(balancer, protocol, to)? else {
                let text = format!(
                    "{} is this host, which publishes no port {port}: a process of its own answers, or nobody",
                    to.ip()
                );
                steps.push(Step::new("host", text));
                return Ok(None);
            };
            (format!("port {port} of this host is published"), behind)
        }
    };
    steps.push(Step::new("vip", format!("{what}: {}", choice(&behind))));
    let Some(first) = behind.backends.first() else { return Ok(None) };
    let chosen = balancer.answered_by(protocol, from, to)?.filter(|backend| *backend != to);
    let backend = chosen.unwrap_or(SocketAddr::new(first.address, first.port.unwrap_or(to.port())));
    let name = name_of(balancer, backend.ip());
    let text = match chosen {
        Some(_) => format!("{backend}{name} has the connection from {from}"),
        None => format!("the kernel keeps no trace of a refused connection: {backend}{name} is tried alone"),
    };
    steps.push(Step::new("backend", text));
    Ok(Some(backend))
}

fn balancer(keeper: &mut Keeper, scope: Scope) -> Option<&mut Balancer> {
    match scope {
        Scope::Ingress => Some(&mut keeper.edge.balancer),
        Scope::Network(id) => keeper.carriers.get_mut(&id).map(|carrier| &mut carrier.balancer),
    }
}

/// What is behind a port of this host, at this address of it or at all.
fn published(balancer: &mut Balancer, protocol: Protocol, to: SocketAddr) -> Result<Option<Virtual>> {
    let any = match to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    for address in [to.ip(), any] {
        let found = balancer.lookup(&Frontend::Port { address, protocol, port: to.port() })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// What a backend is called, to be said after its address.
fn name_of(balancer: &Balancer, backend: IpAddr) -> String {
    let row = balancer.rows.iter().find(|(_, row)| row.addresses.contains(&backend));
    row.and_then(|(_, row)| row.names.first()).map_or_else(String::new, |name| format!(", {name},"))
}

fn choice(behind: &Virtual) -> String {
    let how = match behind.balance {
        Balance::Random => "by chance",
        Balance::RoundRobin => "in turn",
        Balance::SourceHash => "by the client's address",
    };
    let addresses: Vec<IpAddr> = behind.backends.iter().map(|backend| backend.address).collect();
    match addresses.len() {
        0 => "nobody is behind it, and connections are refused".to_owned(),
        1 => format!("it leads to {}", list(&addresses)),
        count => format!("it leads to one of {count}, {how}: {}", list(&addresses)),
    }
}

/// Whether this host has this address: what it has can be bound.
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use covey_mesh::Backend;

    use super::*;

    #[test]
    fn what_is_behind_an_address_is_told_in_words() {
        let behind = |count: u8, balance| {
            let backends = (0..count).map(|last| Backend { address: [10, 0, 1, last].into(), port: None });
            choice(&Virtual { balance, backends: backends.collect() })
        };
        assert_eq!(behind(0, Balance::Random), "nobody is behind it, and connections are refused");
        assert_eq!(behind(1, Balance::Random), "it leads to 10.0.1.0");
        assert_eq!(behind(2, Balance::RoundRobin), "it leads to one of 2, in turn: 10.0.1.0, 10.0.1.1");
        assert!(behind(12, Balance::SourceHash).ends_with("10.0.1.7, and 4 more"));
    }

    #[test]
    fn only_an_address_of_this_host_is_local() {
        assert!(is_local(Ipv4Addr::LOCALHOST.into()));
        assert!(!is_local([192, 0, 2, 1].into()));
    }
}
