//! The networks and ports of a plain container: what is asked for, and what is shown.

use std::collections::BTreeMap;

use covey_state::network::PublishedPort;
use ipnet::IpNet;

use crate::{
    convert::{
        network::endpoint_id,
        port::{self, parse},
    },
    engine::{Container, ContainerState, Endpoint, ExposedPort, Network, NetworkRef},
    failure::Failure,
    networks::{Given, shown_places},
    wire::container as wire,
};

/// Ports that a container is said to serve: they are all told with it, in lists too.
const EXPOSED_MAX: usize = 1024;

/// Whoever is in the network of another container has its names and ports too.
pub fn check_shared(config: &wire::Config, host: &wire::HostConfig) -> Result<(), Failure> {
    let conflicts = [
        (!config.hostname.is_empty(), "hostname and the network mode"),
        (
            !host.dns.is_empty() || !host.dns_options.is_empty() || !host.dns_search.is_empty(),
            "dns and the network mode",
        ),
        (!host.extra_hosts.is_empty(), "custom host-to-IP mapping and the network mode"),
        (
            !host.port_bindings.is_empty() || host.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (!config.exposed_ports.is_empty(), "port exposing and the container type network mode"),
    ];
    match conflicts.into_iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(Failure::invalid(format!("conflicting options: {what}"))),
        None => Ok(()),
    }
}

/// What a container wants of the networks, by the names that the user gives them.
pub struct Wanted {
    /// The mode, where it is one of those that need no network of a user.
    pub mode: Option<Network>,
    /// The networks, the one of the mode first.
    pub networks: Vec<(String, wire::EndpointConfig)>,
}

/// Takes the networks out of a request.
pub fn wanted(request: &mut wire::CreateRequest) -> Result<Wanted, Failure> {
    let text = std::mem::take(&mut request.host_config.network_mode);
    let asked = std::mem::take(&mut request.networking_config.endpoints_config);
    let mut by_name: BTreeMap<String, wire::EndpointConfig> = BTreeMap::new();
    for (name, config) in asked {
        by_name.insert(canonical(&name).to_owned(), config);
    }
    let name = canonical(&text);
    let mode = match name {
        "bridge" => Some(Network::Bridge),
        "host" => Some(Network::Host),
        "none" => Some(Network::None),
        other => other.strip_prefix("container:").map(|other| Network::Container(other.to_owned())),
    };
    let first = by_name.remove(name).unwrap_or_default();
    if matches!(mode, Some(Network::Host | Network::None | Network::Container(_))) {
        return match by_name.keys().next() {
            None => Ok(Wanted { mode, networks: Vec::new() }),
            Some(_) => Err(Failure::invalid(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            )),
        };
    }
    let first = (name.to_owned(), first);
    Ok(Wanted { mode, networks: std::iter::once(first).chain(by_name).collect() })
}

/// One name for what has several.
fn canonical(name: &str) -> &str {
    match name {
        "" | "default" => "bridge",
        other => other,
    }
}

/// Ports of a configuration's `ExposedPorts`.
pub fn exposed<'a>(texts: impl IntoIterator<Item = &'a String>) -> Result<Vec<ExposedPort>, Failure> {
    let ports: Vec<_> = texts.into_iter().map(|text| parse(text)).collect::<Result<_, _>>()?;
    if ports.len() > EXPOSED_MAX {
        return Err(Failure::invalid(format!(
            "a container exposes at most {EXPOSED_MAX} ports: not {}",
            ports.len()
        )));
    }
    Ok(ports)
}

/// What is said of a container's networks; `host` is the id of this host's daemon.
pub fn settings(container: &Container, host: &str) -> wire::NetworkSettings {
    let mut networks: BTreeMap<_, _> = shown_places(container)
        .map(|(name, endpoint)| (name.to_owned(), endpoint_to_wire(container, name, endpoint, host)))
        .collect();
    let alone = match container.network {
        Network::Host => Some(Given::Host),
        Network::None if container.endpoints.is_empty() => Some(Given::None),
        _ => None,
    };
    if let Some(given) = alone {
        let settings =
            wire::EndpointSettings { network_id: given.id(host), ..wire::EndpointSettings::default() };
        networks.insert(container.network.to_string(), settings);
    }
    let first = networks.get(Given::Bridge.name()).cloned().unwrap_or_default();
    wire::NetworkSettings {
        networks,
        ports: port_map(container),
        ip_address: first.ip_address,
        ip_prefix_len: first.ip_prefix_len,
        gateway: first.gateway,
        mac_address: first.mac_address,
    }
}

fn endpoint_to_wire(
    container: &Container,
    network: &str,
    endpoint: &Endpoint,
    host: &str,
) -> wire::EndpointSettings {
    let net = |v4: bool| endpoint.addresses.iter().find(|net| net.addr().is_ipv4() == v4);
    let text = |net: Option<&IpNet>| net.map(|net| net.addr().to_string()).unwrap_or_default();
    let length = |net: Option<&IpNet>| net.map_or(0, |net| net.prefix_len());
    let runs = !endpoint.addresses.is_empty();
    let gateway = |v4: bool| {
        let found = endpoint.gateways.iter().find(|gateway| runs && gateway.is_ipv4() == v4);
        found.map(ToString::to_string).unwrap_or_default()
    };
    let of_user = endpoint.network != NetworkRef::Bridge;
    wire::EndpointSettings {
        ipam_config: ipam(endpoint),
        aliases: (!endpoint.aliases.is_empty()).then(|| endpoint.aliases.clone()),
        mac_address: endpoint.mac.clone(),
        network_id: match &endpoint.network {
            NetworkRef::Bridge => Given::edge_of(container).id(host),
            NetworkRef::Local(id) => id.clone(),
            NetworkRef::Cluster(id) => id.to_string(),
        },
        endpoint_id: if runs { endpoint_id(&container.id, network) } else { String::new() },
        gateway: gateway(true),
        ip_address: text(net(true)),
        ip_prefix_len: length(net(true)),
        ipv6_gateway: gateway(false),
        ipv6_address: text(net(false)),
        ipv6_prefix_len: length(net(false)),
        dns_names: of_user.then(|| dns_names(container, endpoint)),
    }
}

/// The addresses that were asked for.
fn ipam(endpoint: &Endpoint) -> Option<wire::EndpointIpam> {
    let text = |v4: bool| {
        let found = endpoint.chosen.iter().find(|address| address.is_ipv4() == v4);
        found.map(ToString::to_string).unwrap_or_default()
    };
    let config =
        wire::EndpointIpam { ipv4_address: text(true), ipv6_address: text(false), ..Default::default() };
    (!endpoint.chosen.is_empty()).then_some(config)
}

/// The names of a container inside a network of a user.
fn dns_names(container: &Container, endpoint: &Endpoint) -> Vec<String> {
    let short = container.id[..container.id.len().min(12)].to_owned();
    let mut names = vec![container.name.clone()];
    for name in endpoint.aliases.iter().chain([&short, &container.spec.hostname]) {
        if !name.is_empty() && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Where each served port is published on this host: of a container that runs, and has addresses of its own.
fn port_map(container: &Container) -> BTreeMap<String, Option<Vec<wire::PortBinding>>> {
    let mut map: BTreeMap<_, Option<Vec<_>>> = BTreeMap::new();
    let is_reached = matches!(container.network, Network::Bridge | Network::Named(_));
    if container.state != ContainerState::Running || !is_reached {
        return map;
    }
    for ExposedPort { port, protocol } in &container.exposed {
        map.entry(port::text(*port, *protocol)).or_default();
    }
    for port in &container.ports {
        let bindings =
            host_ips(port).map(|ip| wire::PortBinding { host_ip: ip, host_port: port.published.to_string() });
        map.entry(port::text(port.target, port.protocol))
            .or_default()
            .get_or_insert_default()
            .extend(bindings);
    }
    map
}

/// A port without an address of its own answers on all of both families.
fn host_ips(port: &PublishedPort) -> impl Iterator<Item = String> {
    let all = ["0.0.0.0", "::"].map(str::to_owned).into();
    let ips: Vec<_> = port.host_ip.map_or(all, |ip| vec![ip.to_string()]);
    ips.into_iter()
}

/// The ports of a container in a list: one that is published on every host is served here, and no more (PRT-12).
pub fn ports(container: &Container) -> Vec<wire::Port> {
    let mut ports = Vec::new();
    for (text, bindings) in port_map(container) {
        let Ok(ExposedPort { port: private_port, protocol }) = parse(&text) else { continue };
        let kind = protocol.as_str();
        match bindings {
            None => ports.push(wire::Port { ip: String::new(), private_port, public_port: 0, kind }),
            Some(bindings) => ports.extend(bindings.into_iter().map(|binding| wire::Port {
                ip: binding.host_ip,
                private_port,
                public_port: binding.host_port.parse().unwrap_or_default(),
                kind,
            })),
        }
    }
    ports.sort();
    ports
}

/// The ports as they were asked for.
pub fn bindings(container: &Container) -> wire::PortMap {
    let mut map = wire::PortMap::new();
    for port in &container.published {
        let binding = wire::PortBinding {
            host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            host_port: port::asked(port),
        };
        map.entry(port::text(port.target, port.protocol)).or_default().push(binding);
    }
    map
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(mode: &str, endpoints: Value) -> Result<(Option<Network>, Vec<String>), String> {
        let request = json!({
            "HostConfig": {"NetworkMode": mode}, "NetworkingConfig": {"EndpointsConfig": endpoints},
        });
        let wanted =
            wanted(&mut serde_json::from_value(request).unwrap()).map_err(|failure| failure.message)?;
        Ok((wanted.mode, wanted.networks.into_iter().map(|(name, _)| name).collect()))
    }

    /// CTR-03
    #[test]
    fn the_network_of_the_mode_comes_first() {
        let bridge = Ok((Some(Network::Bridge), vec!["bridge".to_owned()]));
        for mode in ["", "default", "bridge"] {
            assert_eq!(read(mode, json!({})), bridge, "{mode}");
            assert_eq!(read(mode, json!({"default": {}})), bridge, "{mode}");
        }
        let several = read("front", json!({"back": {}, "front": {}}));
        assert_eq!(several, Ok((None, vec!["front".to_owned(), "back".to_owned()])));
    }

    #[test]
    fn exposed_ports_are_bounded() {
        let texts = |last: usize| (1..=last).map(|port| port.to_string()).collect::<Vec<_>>();
        assert_eq!(exposed(&texts(EXPOSED_MAX)).map(|ports| ports.len()), Ok(EXPOSED_MAX));
        let refusal = exposed(&texts(EXPOSED_MAX + 1)).unwrap_err();
        assert_eq!(refusal.message, "a container exposes at most 1024 ports: not 1025");
    }

    /// NET-33
    #[test]
    fn the_hosts_network_and_none_stand_alone() {
        assert_eq!(read("host", json!({"host": {}})), Ok((Some(Network::Host), Vec::new())));
        assert_eq!(read("none", json!({})), Ok((Some(Network::None), Vec::new())));
        assert!(read("host", json!({"front": {}})).unwrap_err().starts_with("conflicting options"));
        let other = Some(Network::Container("web".to_owned()));
        assert_eq!(read("container:web", json!({"container:web": {}})), Ok((other, Vec::new())));
    }
}
