//! Networks as the Engine API writes them.

use std::{collections::BTreeMap, net::IpAddr};

use covey_state::{
    network::{Network, NetworkConfig, PublishMode, PublishedPort, Subnet},
    node::EdgeBlock,
    service::Service,
    task::{Task, TaskState},
};
use ipnet::IpNet;

use super::{MTU, VNIS};
use crate::{
    control::{NetworkPeer, ToldService, ToldTask, View},
    convert::task,
    engine::{Container, Endpoint},
    networks::{Given, Known, Networks},
    wire::{NEVER, Texts, Time, network as wire},
};

/// The edge's VXLAN network identifier, as text (NET-13).
const INGRESS_VNI: &str = "4096";
/// Of the ids of nodes that are part of a peer's name (NET-08).
const PEER_ID_CHARS: usize = 12;

/// How much of a network is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// As in a list: without its containers.
    Listed,
    /// By itself.
    Inspected,
    /// With the services of the cluster in it, too: where no manager can say, as gossip tells of them.
    Verbose(Vec<ToldService>),
}

/// A network as far as this node knows it.
pub fn to_wire(known: &Known, networks: &Networks, detail: Detail) -> wire::Network {
    let mut shown = match known {
        Known::Given(given) => given_to_wire(*given, networks),
        Known::Local(network) => wire::Network {
            created: Time(network.created_at).text(),
            enable_ipv6: has_ipv6(&network.subnets),
            ipam: ipam(&network.subnets),
            internal: network.spec.internal,
            attachable: network.spec.attachable,
            options: network.spec.options.clone(),
            ..blank()
        },
        Known::Cluster(network) => wire::Network {
            created: Time(network.created_at).text(),
            enable_ipv6: has_ipv6(&network.subnets),
            ipam: ipam(&network.subnets),
            internal: network.spec.internal,
            attachable: network.spec.attachable,
            options: options(network),
            ..blank()
        },
        Known::Carried(network) => carried_to_wire(network),
    };
    shown.id = known.id(&networks.host);
    shown.name = known.name().to_owned();
    shown.scope = known.scope();
    shown.driver = known.driver();
    shown.labels = known.labels();
    if detail != Detail::Listed {
        add_members(&mut shown, known, networks);
    }
    if let Detail::Verbose(told) = detail
        && known.scope() == "swarm"
    {
        shown.services = Some(match &networks.view {
            Some(view) => services(known, view),
            None => told.into_iter().map(|service| told_to_wire(service, known.name())).collect(),
        });
    }
    shown
}

fn blank() -> wire::Network {
    wire::Network {
        name: String::new(),
        id: String::new(),
        created: NEVER.to_owned(),
        scope: "local",
        driver: "",
        enable_ipv4: true,
        enable_ipv6: false,
        ipam: wire::Ipam::of(Vec::new()),
        internal: false,
        attachable: false,
        ingress: false,
        config_from: wire::ConfigReference::default(),
        config_only: false,
        containers: Some(BTreeMap::new()),
        options: Texts::new(),
        labels: Texts::new(),
        peers: Vec::new(),
        services: None,
    }
}

fn given_to_wire(given: Given, networks: &Networks) -> wire::Network {
    let block = networks.carried.block;
    match given {
        Given::Host | Given::None => blank(),
        Given::Bridge | Given::Gateway => {
            let nets = block.map(|block| [IpNet::V4(block.v4), IpNet::V6(block.v6)]);
            // What is first in its block is the host itself.
            let subnet = |net: IpNet| wire::Subnet {
                subnet: net.to_string(),
                gateway: net.network().to_string(),
                ..wire::Subnet::default()
            };
            let config = nets.into_iter().flatten().map(subnet).collect();
            wire::Network { enable_ipv6: block.is_some(), ipam: wire::Ipam::of(config), ..blank() }
        }
        Given::Ingress => {
            // The shape of NET-08, which knows IPv4 only.
            let view = networks.view.as_ref();
            let cluster = view.and_then(|view| view.store.cluster());
            let pool = cluster.map(|cluster| cluster.spec.edge);
            let net = pool.or(networks.carried.pool).map(|pool| pool.v4).or(block.map(|block| block.v4));
            let subnet = |net: ipnet::Ipv4Net| wire::Subnet {
                subnet: net.trunc().to_string(),
                gateway: net.hosts().next().map(|first| first.to_string()).unwrap_or_default(),
                ..wire::Subnet::default()
            };
            wire::Network {
                created: Time::text_or_never(cluster.map(|cluster| cluster.created_at)),
                ingress: true,
                ipam: wire::Ipam::of(net.into_iter().map(subnet).collect()),
                options: Texts::from([(VNIS.to_owned(), INGRESS_VNI.to_owned())]),
                ..blank()
            }
        }
    }
}

/// A worker was told no more than what it needs.
fn carried_to_wire(network: &NetworkConfig) -> wire::Network {
    let mut options = Texts::from([(VNIS.to_owned(), vnis(&network.subnets))]);
    if let Some(mtu) = network.mtu {
        options.insert(MTU.to_owned(), mtu.to_string());
    }
    wire::Network {
        enable_ipv6: has_ipv6(&network.subnets),
        ipam: ipam(&network.subnets),
        internal: network.internal,
        options,
        ..blank()
    }
}

/// Containers and peers. A network of the cluster that is not active on this node has none (NET-28).
fn add_members(shown: &mut wire::Network, known: &Known, networks: &Networks) {
    let member = |(container, endpoint): (&Container, &Endpoint)| {
        (container.id.clone(), member(container, endpoint, known.name()))
    };
    match known {
        Known::Given(Given::Ingress) => {
            shown.peers = networks.carried.nodes.iter().map(peer).collect();
            let sbox = networks.carried.block.map(|block| sandbox(block, networks));
            let sbox = sbox.into_iter().map(|sbox| ("ingress-sbox".to_owned(), sbox));
            shown.containers = Some(networks.members(known).map(member).chain(sbox).collect());
        }
        Known::Given(_) | Known::Local(_) => {
            shown.containers = Some(networks.members(known).map(member).collect());
        }
        Known::Cluster(_) | Known::Carried(_) => match networks.carried(known) {
            Some(carried) => {
                shown.peers = carried.peers.iter().map(peer).collect();
                shown.containers = Some(networks.members(known).map(member).collect());
            }
            None => {
                shown.created = NEVER.to_owned();
                shown.containers = None;
            }
        },
    }
}

fn member(container: &Container, endpoint: &Endpoint, network: &str) -> wire::Member {
    let address = |v4: bool| {
        let found = endpoint.addresses.iter().find(|net| net.addr().is_ipv4() == v4);
        found.map(ToString::to_string).unwrap_or_default()
    };
    wire::Member {
        name: container.name.clone(),
        endpoint_id: endpoint_id(&container.id, network),
        mac_address: endpoint.mac.clone(),
        ipv4_address: address(true),
        ipv6_address: address(false),
    }
}

/// The node's own place at the edge: what is first in its block.
fn sandbox(block: EdgeBlock, networks: &Networks) -> wire::Member {
    let address = block.v4.network();
    let length = networks.carried.pool.map_or(block.v4, |pool| pool.v4).prefix_len();
    let [a, b, c, d] = address.octets();
    wire::Member {
        name: "ingress-endpoint".to_owned(),
        endpoint_id: fingerprint(&[&networks.host, "ingress-endpoint"]),
        mac_address: format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}"),
        ipv4_address: format!("{address}/{length}"),
        ipv6_address: String::new(),
    }
}

fn peer(peer: &NetworkPeer) -> wire::Peer {
    let id = format!("{:032x}", peer.node.bits());
    wire::Peer { name: format!("{}-{}", peer.hostname, &id[..PEER_ID_CHARS]), ip: peer.address.to_string() }
}

/// The id of a container's place in a network, by the names of both.
pub fn endpoint_id(container: &str, network: &str) -> String {
    fingerprint(&[container, network])
}

/// The services of the cluster that are in a network, by name.
fn services(known: &Known, view: &View) -> BTreeMap<String, wire::Service> {
    let services = view.store.services().filter_map(|service| {
        let shown = match known {
            Known::Given(Given::Ingress) => in_ingress(service, view)?,
            Known::Cluster(network) => in_network(service, network, view)?,
            Known::Given(_) | Known::Local(_) | Known::Carried(_) => return None,
        };
        Some((service.spec.name.clone(), shown))
    });
    services.collect()
}

fn in_network(service: &Service, network: &Network, view: &View) -> Option<wire::Service> {
    let networks = &service.spec.task.networks;
    networks.iter().find(|attachment| attachment.network == network.id)?;
    let vip = service.exposure.vips.iter().find(|vip| vip.network == network.id);
    let address_of = |task: &Task| {
        let attachment = task.attachments.iter().find(|attachment| attachment.network == network.id)?;
        attachment.addresses.first().copied()
    };
    Some(wire::Service {
        vip: vip.and_then(|vip| vip.addresses.first()).map(ToString::to_string).unwrap_or_default(),
        tasks: tasks(service, view, &network.spec.name, address_of),
        ..wire::Service::default()
    })
}

/// Published ports lead straight to the tasks: there is no virtual address.
fn in_ingress(service: &Service, view: &View) -> Option<wire::Service> {
    let ports: Vec<_> = ingress_ports(&service.exposure.ports).collect();
    if ports.is_empty() {
        return None;
    }
    // Of its addresses the one that is in no network: ports lead to its edge.
    let address_of = |task: &Task| {
        let container = task::status(task, view).container.as_ref()?;
        let of_network =
            |address| task.attachments.iter().any(|attachment| attachment.addresses.contains(address));
        container.addresses.iter().find(|address| !of_network(address)).copied()
    };
    Some(wire::Service {
        ports: ports.into_iter().map(port_in_words).collect(),
        tasks: tasks(service, view, Given::Ingress.name(), address_of),
        ..wire::Service::default()
    })
}

fn port_in_words(port: &PublishedPort) -> String {
    format!("Target: {}, Publish: {}", port.target, port.published)
}

/// A service of this network, by its name, as gossip tells of it.
fn told_to_wire(service: ToldService, network: &str) -> (String, wire::Service) {
    let task = |task: ToldTask| {
        let id = endpoint_id(&task.container, network);
        task_to_wire(task.name, id, task.address, Some(task.host))
    };
    let shown = wire::Service {
        vip: service.vip.map(|vip| vip.to_string()).unwrap_or_default(),
        ports: service.ports.iter().map(port_in_words).collect(),
        tasks: service.tasks.into_iter().map(task).collect(),
        ..wire::Service::default()
    };
    (service.name, shown)
}

fn task_to_wire(name: String, endpoint_id: String, address: IpAddr, host: Option<IpAddr>) -> wire::Task {
    let host = host.map(|host| host.to_string()).unwrap_or_default();
    let info = Texts::from([("Host IP".to_owned(), host)]);
    wire::Task { name, endpoint_id, endpoint_ip: address.to_string(), info }
}

fn ingress_ports(ports: &[PublishedPort]) -> impl Iterator<Item = &PublishedPort> {
    ports.iter().filter(|port| port.mode == PublishMode::Ingress)
}

/// The running tasks of a service that have an address in a network.
fn tasks(
    service: &Service,
    view: &View,
    network: &str,
    address_of: impl Fn(&Task) -> Option<IpAddr>,
) -> Vec<wire::Task> {
    let shown = |task: &std::sync::Arc<Task>| {
        let status = task::status(task, view);
        if status.state != TaskState::Running {
            return None;
        }
        let host = task.node.and_then(|node| view.store.node(node)).map(|node| node.data_path());
        let id = endpoint_id(&status.container.as_ref()?.id, network);
        Some(task_to_wire(task.container_name(), id, address_of(task)?, host))
    };
    view.store.tasks_of_service(service.id).filter_map(shown).collect()
}

/// What was given, and what was decided on top of it.
pub fn options(network: &Network) -> Texts {
    let mut options = network.spec.options.clone();
    options.insert(VNIS.to_owned(), vnis(&network.subnets));
    options
}

/// `4097,4098`
fn vnis(subnets: &[Subnet]) -> String {
    subnets.iter().filter_map(|subnet| subnet.vni).map(|vni| vni.to_string()).collect::<Vec<_>>().join(",")
}

fn has_ipv6(subnets: &[Subnet]) -> bool {
    subnets.iter().any(|subnet| subnet.net.addr().is_ipv6())
}

fn ipam(subnets: &[Subnet]) -> wire::Ipam {
    wire::Ipam::of(subnets.iter().map(subnet_to_wire).collect())
}

/// A subnet, its range only where it has one (NET-12).
pub fn subnet_to_wire(subnet: &Subnet) -> wire::Subnet {
    wire::Subnet {
        subnet: subnet.net.to_string(),
        ip_range: subnet.range.map(|range| range.to_string()).unwrap_or_default(),
        gateway: subnet.gateway.to_string(),
        ..wire::Subnet::default()
    }
}

/// 64 hexadecimal characters that are the same for the same parts (FNV-1a, four times): ids of what has none of its own.
pub fn fingerprint(parts: &[&str]) -> String {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    let quarter = |seed: u8| {
        let hash = step(BASIS, seed);
        parts.iter().fold(hash, |hash, part| part.bytes().chain([0]).fold(hash, step))
    };
    (0..4).map(|seed| format!("{:016x}", quarter(seed))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_ids() {
        let one = fingerprint(&["host", "bridge"]);
        assert_eq!(one.len(), 64);
        assert_eq!(one, fingerprint(&["host", "bridge"]));
        assert_ne!(one, fingerprint(&["hostb", "ridge"]));
        assert_ne!(one, fingerprint(&["other", "bridge"]));
        assert_ne!(one[..16], one[16..32]);
    }
}
