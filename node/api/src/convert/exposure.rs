//! How services and their tasks are reached: networks, published ports, virtual addresses.

use std::net::IpAddr;

use covey_state::{
    Store,
    network::{AttachmentSpec, EndpointMode, EndpointSpec, Network, TaskAttachment},
    service::{Service, TaskSpec},
};
use ipnet::IpNet;

use super::port;
use crate::{
    control::View,
    failure::Failure,
    networks::HOST_ID,
    wire::{Meta, ObjectVersion, Time, network, service as wire, task},
};

/// What the user asks for; where a client does not say, the name means a virtual address (PRT-14).
pub fn endpoint_from_wire(spec: Option<wire::EndpointSpec>) -> Result<EndpointSpec, Failure> {
    let spec = spec.unwrap_or_default();
    let mode = match spec.mode.as_str() {
        "" | "vip" => EndpointMode::Vip,
        "dnsrr" => EndpointMode::Dnsrr,
        other => return Err(Failure::invalid(format!("invalid endpoint mode: {other:?}"))),
    };
    let ports = spec.ports.into_iter().map(port::from_wire);
    Ok(EndpointSpec { mode, ports: ports.collect::<Result<_, _>>()? })
}

/// Docker's client knows of no addresses of published ports, and leaves them out when it sends a spec back with something
/// else changed: a port of which it does not say keeps the one that it has in `now`.
pub fn keep_addresses(spec: &mut Option<wire::EndpointSpec>, now: &EndpointSpec) {
    let Some(spec) = spec else { return };
    // Without its address; one that cannot be read is refused later.
    let place = |port: &wire::PortConfig| {
        let port = port::from_wire(wire::PortConfig { host_ip: None, ..port.clone() }).ok()?;
        Some((port.protocol, port.target, port.published, port.mode))
    };
    let mut left: Vec<_> =
        now.ports.iter().filter(|port| port.host_ip.is_some()).map(port::to_wire).collect();
    left.retain(|old| !spec.ports.iter().any(|new| new.host_ip == old.host_ip && place(new) == place(old)));
    for new in spec.ports.iter_mut().filter(|new| new.host_ip.is_none()) {
        if let Some(at) = left.iter().position(|old| place(old) == place(new)) {
            new.host_ip = left.remove(at).host_ip;
        }
    }
}

/// What the user asked for, and nothing that was decided (PRT-03).
pub fn endpoint_to_wire(spec: &EndpointSpec) -> wire::EndpointSpec {
    wire::EndpointSpec {
        mode: spec.mode.as_str().to_owned(),
        ports: spec.ports.iter().map(port::to_wire).collect(),
    }
}

/// The networks that a service wants. Old clients write them beside the task's template.
pub fn networks_of(spec: &mut wire::ServiceSpec) -> Result<Vec<wire::Attachment>, Failure> {
    let beside = std::mem::take(&mut spec.networks);
    let networks = std::mem::take(&mut spec.task_template.networks);
    let networks = if networks.is_empty() { beside } else { networks };
    if networks.iter().any(|network| !network.driver_opts.is_empty()) {
        return Err(Failure::not_yet("driver-opt of a service in a network"));
    }
    Ok(networks)
}

/// The networks of a task's template.
pub fn networks_to_wire(spec: &TaskSpec) -> Vec<wire::Attachment> {
    if spec.host_network {
        return vec![wire::Attachment { target: HOST_ID.to_owned(), ..wire::Attachment::default() }];
    }
    let attachment = |spec: &AttachmentSpec| wire::Attachment {
        target: spec.network.to_string(),
        aliases: spec.aliases.clone(),
        ..wire::Attachment::default()
    };
    spec.networks.iter().map(attachment).collect()
}

/// How a service is reached in fact.
pub fn exposure_to_wire(service: &Service, view: &View) -> wire::Endpoint {
    let (exposure, store) = (&service.exposure, &view.store);
    let addresses = exposure.vips.iter().flat_map(|vip| vip.addresses.iter().map(|a| (vip.network, *a)));
    let vip = |(network, address)| {
        let addr = with_prefix(address, store.network(network).map(|network| &**network));
        wire::VirtualIp { network_id: network.to_string(), addr }
    };
    wire::Endpoint {
        spec: endpoint_to_wire(&service.spec.endpoint),
        ports: exposure.ports.iter().map(port::to_wire).collect(),
        virtual_ips: addresses.map(vip).collect(),
        errors: view.service_errors.get(&service.id).cloned().unwrap_or_default(),
    }
}

/// An address with the length of its subnet's prefix: `10.0.1.2/24`.
pub fn with_prefix(address: IpAddr, network: Option<&Network>) -> String {
    let subnet =
        network.and_then(|network| network.subnets.iter().find(|subnet| subnet.net.contains(&address)));
    let alone = IpNet::from(address).prefix_len();
    let length = subnet.map_or(alone, |subnet| subnet.net.prefix_len());
    format!("{address}/{length}")
}

/// A task's place in a network; `None` where the network is gone.
pub fn attachment_to_wire(attachment: &TaskAttachment, store: &Store) -> Option<task::NetworkAttachment> {
    let network = store.network(attachment.network)?;
    let addresses = attachment.addresses.iter().map(|address| with_prefix(*address, Some(network)));
    Some(task::NetworkAttachment { addresses: addresses.collect(), network: attached_to_wire(network) })
}

fn attached_to_wire(network: &Network) -> task::AttachedNetwork {
    let spec = &network.spec;
    let driver =
        task::NetworkDriver { name: super::network::OVERLAY, options: super::network::options(network) };
    let ipam = network::Ipam::of(network.subnets.iter().map(super::network::subnet_to_wire).collect());
    task::AttachedNetwork {
        id: network.id.to_string(),
        meta: Meta {
            version: ObjectVersion { index: network.version },
            created_at: Time(network.created_at),
            updated_at: Time(network.updated_at),
        },
        spec: task::NetworkSpec {
            name: spec.name.clone(),
            labels: spec.labels.clone(),
            driver_configuration: task::NetworkDriver {
                name: super::network::OVERLAY,
                options: spec.options.clone(),
            },
            ipv6_enabled: spec.ipv6,
            internal: spec.internal,
            attachable: spec.attachable,
            scope: "swarm",
        },
        driver_state: driver,
        ipam_options: task::IpamOptions {
            driver: task::IpamDriver { name: "default" },
            configs: ipam.config,
        },
    }
}
