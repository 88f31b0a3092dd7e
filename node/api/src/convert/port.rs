//! Ports, of services and of plain containers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use covey_state::network::{EndpointSpec, PORTS_MAX, Protocol, PublishMode, PublishedPort};

use crate::{
    engine::ExposedPort,
    failure::Failure,
    wire::{container, service as wire},
};

/// A published port of a service.
pub fn from_wire(port: wire::PortConfig) -> Result<PublishedPort, Failure> {
    let mode = match port.publish_mode.as_str() {
        "" | "ingress" => PublishMode::Ingress,
        "host" => PublishMode::Host,
        other => {
            return Err(Failure::invalid(format!("invalid publish mode {other:?}: it is ingress or host")));
        }
    };
    Ok(PublishedPort {
        name: port.name,
        protocol: protocol(&port.protocol)?,
        target: target(port.target_port)?,
        published: published(port.published_port)?,
        last: 0,
        mode,
        host_ip: host_ip(port.host_ip.as_deref().unwrap_or_default())?,
    })
}

/// A port as the Engine API writes it; 0 is left out.
pub fn to_wire(port: &PublishedPort) -> wire::PortConfig {
    wire::PortConfig {
        name: port.name.clone(),
        protocol: port.protocol.as_str().to_owned(),
        target_port: port.target.into(),
        published_port: port.published.into(),
        publish_mode: port.mode.as_str().to_owned(),
        host_ip: port.host_ip.map(|ip| ip.to_string()),
    }
}

/// The ports of a plain container's `PortBindings`; with `publish_all` those of `exposed` too that have none there.
pub fn from_bindings(
    bindings: container::PortMap,
    publish_all: bool,
    exposed: &[ExposedPort],
) -> Result<Vec<PublishedPort>, Failure> {
    let mut ports = Vec::new();
    for (text, mut bindings) in bindings {
        let ExposedPort { port, protocol } = parse(&text)?;
        if bindings.is_empty() {
            bindings.push(container::PortBinding::default());
        }
        for binding in bindings {
            ports.push(bound(port, protocol, &binding)?);
        }
    }
    let named = |ports: &[PublishedPort], one: &ExposedPort| {
        ports.iter().any(|port| (port.target, port.protocol) == (one.port, one.protocol))
    };
    for one in exposed.iter().filter(|_| publish_all) {
        if !named(&ports, one) {
            ports.push(bound(one.port, one.protocol, &container::PortBinding::default())?);
        }
    }
    if ports.len() > PORTS_MAX {
        return Err(Failure::invalid(format!(
            "a container publishes at most {PORTS_MAX} ports: not {}",
            ports.len()
        )));
    }
    merge_families(&mut ports);
    let endpoint = EndpointSpec { ports, ..EndpointSpec::default() };
    endpoint.check().map_err(|error| {
        let text = error.to_string();
        Failure::invalid(text.trim_start_matches("EndpointSpec: "))
    })?;
    Ok(endpoint.ports)
}

/// A port at all addresses of either family, as Docker shows one that is bound to all, is a port at all addresses.
fn merge_families(ports: &mut Vec<PublishedPort>) {
    let all_v6 = |port: &PublishedPort| port.host_ip == Some(Ipv6Addr::UNSPECIFIED.into());
    let mut six: Vec<_> = ports.extract_if(.., |port| all_v6(port) && port.published != 0).collect();
    for port in ports.iter_mut().filter(|port| port.host_ip == Some(Ipv4Addr::UNSPECIFIED.into())) {
        let same =
            six.iter().position(|other| PublishedPort { host_ip: port.host_ip, ..other.clone() } == *port);
        if let Some(at) = same {
            six.remove(at);
            port.host_ip = None;
        }
    }
    ports.append(&mut six);
}

fn bound(
    target: u16,
    protocol: Protocol,
    binding: &container::PortBinding,
) -> Result<PublishedPort, Failure> {
    let (first, last) = choice(&binding.host_port)?;
    Ok(PublishedPort {
        name: String::new(),
        protocol,
        target,
        published: first,
        last,
        mode: PublishMode::Host,
        host_ip: host_ip(&binding.host_ip)?,
    })
}

/// Nothing or `0` for any, `8080`, or `8000-8010` for one of those; the last is 0 where there is no range.
fn choice(text: &str) -> Result<(u16, u16), Failure> {
    let wrong = || Failure::invalid(format!("invalid port {text:?}: it is no number"));
    let number = |text: &str| published(text.parse().map_err(|_| wrong())?);
    match text.split_once('-') {
        None if text.is_empty() => Ok((0, 0)),
        None => Ok((number(text)?, 0)),
        Some((first, last)) => match (number(first)?, number(last)?) {
            (first, last) if first == 0 || last < first => Err(Failure::invalid(format!(
                "invalid port {text:?}: a range begins above 0, with the smaller number"
            ))),
            (first, last) => Ok((first, if first == last { 0 } else { last })),
        },
    }
}

/// The host's port as it was asked for.
pub fn asked(port: &PublishedPort) -> String {
    match (port.published, port.last) {
        (0, _) => String::new(),
        (published, 0) => published.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

/// `80`, `80/tcp` or `53/udp`.
pub fn parse(text: &str) -> Result<ExposedPort, Failure> {
    let (number, name) = text.split_once('/').unwrap_or((text, ""));
    let wrong = || {
        Failure::invalid(format!("invalid port {text:?}: it is no number with a protocol, such as 80/tcp"))
    };
    Ok(ExposedPort { port: target(number.parse().map_err(|_| wrong())?)?, protocol: protocol(name)? })
}

/// `80/tcp`
pub fn text(port: u16, protocol: Protocol) -> String {
    format!("{port}/{protocol}")
}

fn protocol(text: &str) -> Result<Protocol, Failure> {
    if text.is_empty() {
        return Ok(Protocol::default());
    }
    text.to_ascii_lowercase().parse().map_err(|error| Failure::invalid(format!("invalid port: {error}")))
}

fn target(number: i64) -> Result<u16, Failure> {
    let within = u16::try_from(number).ok().filter(|port| *port != 0);
    within
        .ok_or_else(|| Failure::invalid(format!("invalid target port {number}: it lies between 1 and 65535")))
}

/// 0: any.
fn published(number: i64) -> Result<u16, Failure> {
    u16::try_from(number).map_err(|_| {
        Failure::invalid(format!("invalid published port {number}: it lies between 0 (any) and 65535"))
    })
}

fn host_ip(text: &str) -> Result<Option<IpAddr>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || Failure::invalid(format!("invalid host address {text:?} of a published port"));
    let address: IpAddr = text.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| wrong())?;
    match address.to_canonical() {
        // The kernel routes nothing from there to anywhere else.
        IpAddr::V6(Ipv6Addr::LOCALHOST) => {
            Err(Failure::not_yet("publishing a port at ::1 (127.0.0.1 can be had)"))
        }
        address if address.is_multicast() => Err(wrong()),
        address => Ok(Some(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(target_port: i64, published_port: i64) -> wire::PortConfig {
        wire::PortConfig { target_port, published_port, ..wire::PortConfig::default() }
    }

    fn refusal(port: wire::PortConfig) -> String {
        from_wire(port).unwrap_err().message
    }

    /// PRT-06, PRT-07
    #[test]
    fn what_a_client_leaves_out_is_tcp_and_ingress() {
        let port = from_wire(config(80, 8080)).unwrap();
        assert_eq!((port.protocol, port.mode, port.host_ip), (Protocol::Tcp, PublishMode::Ingress, None));
        assert_eq!((port.target, port.published), (80, 8080));
        assert_eq!(from_wire(to_wire(&port)), Ok(port));
    }

    /// PRT-06
    #[test]
    fn a_port_that_cannot_be_is_one_clear_error() {
        assert_eq!(refusal(config(0, 80)), "invalid target port 0: it lies between 1 and 65535");
        assert_eq!(refusal(config(65536, 80)), "invalid target port 65536: it lies between 1 and 65535");
        assert_eq!(
            refusal(config(80, 65536)),
            "invalid published port 65536: it lies between 0 (any) and 65535"
        );
        assert!(refusal(config(80, -1)).starts_with("invalid published port -1"));
        let wrong = wire::PortConfig { publish_mode: "both".into(), ..config(80, 80) };
        assert!(refusal(wrong).starts_with("invalid publish mode"));
        let wrong = wire::PortConfig { protocol: "icmp".into(), ..config(80, 80) };
        assert!(refusal(wrong).contains("none of tcp, udp and sctp"));
        for address in ["here", "224.0.0.1", "ff02::1", "10.0.0.0/8"] {
            let wrong = wire::PortConfig { host_ip: Some(address.into()), ..config(80, 80) };
            assert!(refusal(wrong).starts_with("invalid host address"), "{address}");
        }
        let mapped = wire::PortConfig { host_ip: Some("::ffff:10.0.0.9".into()), ..config(80, 80) };
        assert_eq!(from_wire(mapped).unwrap().host_ip, Some([10, 0, 0, 9].into()));
        let wrong = wire::PortConfig { host_ip: Some("[::1]".into()), ..config(80, 80) };
        assert!(refusal(wrong).starts_with("not yet: publishing a port at ::1"));
    }

    /// CTR-03
    #[test]
    fn bindings_of_a_plain_container_are_read() {
        let binding =
            |ip: &str, port: &str| container::PortBinding { host_ip: ip.into(), host_port: port.into() };
        let read = |text: &str, bindings: Vec<_>, all| {
            let exposed = [parse("80/tcp").unwrap(), parse("53/udp").unwrap()];
            let ports = from_bindings([(text.to_owned(), bindings)].into(), all, &exposed)?;
            Ok::<_, Failure>(ports.iter().map(|p| (p.target, p.protocol, p.published)).collect::<Vec<_>>())
        };
        assert_eq!(read("80", vec![binding("0.0.0.0", "8080")], false), Ok(vec![(80, Protocol::Tcp, 8080)]));
        assert_eq!(
            read("80/tcp", Vec::new(), true),
            Ok(vec![(80, Protocol::Tcp, 0), (53, Protocol::Udp, 0)])
        );
        let places = |bindings: Vec<container::PortBinding>| {
            let ports = from_bindings([("80".to_owned(), bindings)].into(), false, &[])?;
            Ok::<_, Failure>(ports.iter().map(|port| port.host_ip).collect::<Vec<_>>())
        };
        let (four, six) = (binding("0.0.0.0", "8080"), binding("::", "8080"));
        assert_eq!(places(vec![four.clone()]), Ok(vec![Some([0; 4].into())]), "IPv4 only");
        assert_eq!(places(vec![six.clone()]), Ok(vec![Some([0_u16; 8].into())]), "IPv6 only");
        assert_eq!(places(vec![six, four]), Ok(vec![None]));
        for (text, bindings) in [
            ("0/tcp", Vec::new()),
            ("80/icmp", Vec::new()),
            ("http", Vec::new()),
            ("80", vec![binding("", "65536")]),
            ("80", vec![binding("", "8010-8000")]),
            ("80", vec![binding("", "0-8000")]),
            ("80", vec![binding("", "8000-65536")]),
            ("80", vec![binding("here", "80")]),
            ("80", vec![binding("", "80"), binding("127.0.0.1", "80")]),
        ] {
            assert!(read(text, bindings.clone(), false).is_err(), "{text} {bindings:?}");
        }
        let ranges = [binding("", "8000-8003"), binding("", "8000-8000"), binding("", "8001-8003")];
        let ports = from_bindings([("80".to_owned(), ranges.into())].into(), false, &[]).unwrap();
        let choices: Vec<_> = ports.iter().map(|port| (port.choices(), asked(port))).collect();
        assert_eq!(
            choices,
            [
                (8000..=8003, "8000-8003".into()),
                (8000..=8000, "8000".into()),
                (8001..=8003, "8001-8003".into())
            ]
        );
        let many = |count: usize| read("80", vec![binding("", ""); count], false);
        assert_eq!(many(PORTS_MAX).map(|ports| ports.len()), Ok(PORTS_MAX));
        assert_eq!(
            many(PORTS_MAX + 1).unwrap_err().message,
            "a container publishes at most 256 ports: not 257"
        );
        assert!(read("80", vec![binding("127.0.0.1", "80"), binding("127.0.0.2", "80")], false).is_ok());
    }
}
