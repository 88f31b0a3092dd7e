//! Containers' places in networks, as the API shows them.

use std::{collections::BTreeSet, net::IpAddr};

use covey_api::engine::{Endpoint, ExposedPort, Network, NetworkRef};
use covey_overlay::{
    mac::Mac,
    object::{GATEWAY_V4, GATEWAY_V6},
};
use covey_runtime::{Container, ContainerState, NetworkMode};
use covey_state::network::{Attached, PublishMode};
use ipnet::IpNet;

use crate::network::local;

/// What kind of network a container has; a container that is in users' networks alone is named by the first of them.
pub(super) fn kind(container: &Container) -> Network {
    let named = container.wiring.networks.first().filter(|_| !container.wiring.bridge);
    match (&container.network, named) {
        (NetworkMode::Edge, None) => Network::Bridge,
        (NetworkMode::Edge, Some(attached)) => Network::Named(attached.network.name.clone()),
        (NetworkMode::Host, _) => Network::Host,
        (NetworkMode::None, _) => Network::None,
        (NetworkMode::Container(other), _) => Network::Container(other.to_string()),
    }
}

/// A container's places in networks.
pub(super) fn endpoints(container: &Container) -> Vec<Endpoint> {
    if container.network != NetworkMode::Edge {
        return Vec::new();
    }
    let running = container.state == ContainerState::Running;
    let networks = &container.wiring.networks;
    let chosen = &container.wiring.chosen;
    let mut endpoints: Vec<Endpoint> =
        networks.iter().map(|attached| of_network(attached, chosen, running)).collect();
    if container.wiring.edge {
        let taken = |address: &&IpAddr| networks.iter().any(|attached| attached.addresses.contains(address));
        let own = container.addresses.iter().filter(|address| !taken(address));
        endpoints.push(Endpoint {
            network: NetworkRef::Bridge,
            name: "bridge".to_owned(),
            mac: mac(container.addresses.iter().find(|address| !taken(address)).filter(|_| running)),
            // Each is routed by itself: there is no subnet that its neighbours would be in.
            addresses: own.map(|address| IpNet::from(*address)).collect(),
            chosen: Vec::new(),
            gateways: vec![GATEWAY_V4.into(), GATEWAY_V6.into()],
            aliases: Vec::new(),
        });
    }
    endpoints
}

fn of_network(attached: &Attached, chosen: &[IpAddr], running: bool) -> Endpoint {
    let Attached { network, addresses, aliases, .. } = attached;
    let subnet = |address: &IpAddr| network.subnets.iter().find(|subnet| subnet.net.contains(address));
    let overlay = network.is_overlay();
    let with_prefix = |address: &IpAddr| IpNet::new(*address, subnet(address)?.net.prefix_len()).ok();
    Endpoint {
        network: if overlay {
            NetworkRef::Cluster(network.id)
        } else {
            NetworkRef::Local(local::to_text(network.id))
        },
        name: network.name.clone(),
        addresses: addresses.iter().filter(|_| running).filter_map(with_prefix).collect(),
        chosen: addresses.iter().filter(|address| chosen.contains(address)).copied().collect(),
        gateways: addresses.iter().filter_map(subnet).map(|subnet| subnet.gateway).collect(),
        mac: mac(addresses.first().filter(|_| running)),
        aliases: aliases.clone(),
    }
}

fn mac(address: Option<&IpAddr>) -> String {
    let Some(address) = address else { return String::new() };
    let Mac(bytes) = Mac::of_container_end(*address);
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// The ports that its image says it serves, and those that a task's service publishes on every host.
pub(super) fn exposed(container: &Container) -> Vec<ExposedPort> {
    let ingress = container.wiring.ports.iter().filter(|port| port.mode == PublishMode::Ingress);
    let ingress = ingress.map(|port| ExposedPort { port: port.target, protocol: port.protocol });
    let of_image = container.exposed_ports.iter().filter_map(|text| of_text(text));
    ingress.chain(of_image).collect::<BTreeSet<_>>().into_iter().collect()
}

/// A port as images write it: `80/tcp`, `80`.
fn of_text(text: &str) -> Option<ExposedPort> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    Some(ExposedPort { port: port.parse().ok().filter(|port| *port != 0)?, protocol: protocol.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use covey_state::network::Protocol;

    use super::*;

    #[test]
    fn ports_of_images_are_read_as_they_are_written() {
        assert_eq!(of_text("80"), Some(ExposedPort { port: 80, protocol: Protocol::Tcp }));
        assert_eq!(of_text("53/udp"), Some(ExposedPort { port: 53, protocol: Protocol::Udp }));
        for text in ["", "0", "65536", "80/icmp", "80-90/tcp"] {
            assert_eq!(of_text(text), None, "{text}");
        }
    }
}
