//! Networks that clients ask for, and the places that containers want in them.

mod show;

use std::net::{IpAddr, Ipv4Addr};

use covey_state::{
    network::{ENCRYPTED_OPTION, NetworkSpec, SubnetSpec},
    service::ALIASES_MAX,
};
use ipnet::{IpNet, Ipv4Net};

pub use self::show::{Detail, endpoint_id, fingerprint, options, subnet_to_wire, to_wire};
use super::later;
use crate::{
    engine::{Join, NetworkRef},
    failure::Failure,
    wire::{Texts, container::EndpointConfig, network as wire},
};

/// The driver of the cluster's networks.
pub const OVERLAY: &str = "overlay";
/// The driver of a host's own networks.
pub const BRIDGE: &str = "bridge";
/// Bytes of a packet.
const MTU: &str = "com.docker.network.driver.mtu";
/// VXLAN network identifiers, one for each subnet.
pub const VNIS: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// Bytes of a name in DNS (RFC 1035), and of all aliases of a container in one network.
const ALIAS_BYTES_MAX: usize = 253;
const ALIASES_BYTES_MAX: usize = 4 << 10;
/// Where addresses are nobody's own (RFC 1918, RFC 6598).
const PRIVATE: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
];

/// Who makes a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// The managers: it spans all hosts.
    Cluster,
    /// This host: it stays here.
    Host,
}

/// The network of a request, and who makes it.
pub fn from_wire(request: wire::CreateRequest) -> Result<(Maker, NetworkSpec), Failure> {
    let maker = maker(&request)?;
    refuse_later(&request)?;
    let mut spec = NetworkSpec {
        name: request.name,
        labels: request.labels,
        ipv6: request.enable_ipv6,
        internal: request.internal,
        attachable: request.attachable,
        subnets: subnets(request.ipam.config)?,
        ..NetworkSpec::default()
    };
    read_options(&mut spec, request.options, maker)?;
    // Said at once: the store says it too, of the cluster's networks.
    spec.check()?;
    Ok((maker, spec))
}

fn maker(request: &wire::CreateRequest) -> Result<Maker, Failure> {
    match (request.driver.as_str(), request.scope.as_str()) {
        (OVERLAY, "" | "swarm") => Ok(Maker::Cluster),
        (OVERLAY, other) => {
            Err(Failure::invalid(format!("a network of driver overlay has no scope {other:?}")))
        }
        ("" | "default" | BRIDGE, "" | "local") => Ok(Maker::Host),
        ("" | "default" | BRIDGE, other) => {
            Err(Failure::not_yet(format!("--scope {other} with driver bridge")))
        }
        (driver @ ("host" | "null"), _) => {
            Err(Failure::forbidden(format!("only one instance of \"{driver}\" network is allowed")))
        }
        (other, _) => Err(Failure::not_found(format!("plugin \"{other}\" not found"))),
    }
}

fn refuse_later(request: &wire::CreateRequest) -> Result<(), Failure> {
    let refusals = [
        (request.ingress, "--ingress (every cluster has its own from the start)"),
        (request.config_only, "--config-only"),
        (!request.config_from.network.is_empty(), "--config-from"),
        (request.enable_ipv4 == Some(false), "--ipv4=false"),
        (!matches!(request.ipam.driver.as_str(), "" | "default"), "--ipam-driver"),
        (!request.ipam.options.is_empty(), "--ipam-opt"),
        (request.ipam.config.iter().any(|subnet| !subnet.auxiliary_addresses.is_empty()), "--aux-address"),
    ];
    match refusals.into_iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(Failure::not_yet(what)),
        None => Ok(()),
    }
}

fn subnets(config: Vec<wire::Subnet>) -> Result<Vec<SubnetSpec>, Failure> {
    // Clients send an entry in which nothing is set where nothing was asked for.
    config.iter().filter(|subnet| **subnet != wire::Subnet::default()).map(subnet).collect()
}

fn subnet(config: &wire::Subnet) -> Result<SubnetSpec, Failure> {
    if config.subnet.is_empty() {
        return Err(invalid("every gateway and IP range needs the subnet that it lies in"));
    }
    let gateway = |text: &str| text.parse().map_err(|_| invalid(&format!("gateway {text:?} is no address")));
    Ok(SubnetSpec {
        subnet: block("subnet", &config.subnet)?,
        gateway: said(&config.gateway).map(gateway).transpose()?,
        range: said(&config.ip_range).map(|text| block("IP range", text)).transpose()?,
    })
}

/// What a client says; empty is nothing.
fn said(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn block(what: &str, text: &str) -> Result<IpNet, Failure> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let example = if address.is_ipv4() { 24 } else { 64 };
        let text = format!("{what} {text} has no prefix length, such as {address}/{example}");
        return Err(invalid(&text));
    }
    text.parse().map_err(|_| invalid(&format!("{what} {text:?} is no address block")))
}

fn invalid(text: &str) -> Failure {
    Failure::invalid(format!("invalid network config: {text}"))
}

/// Reads what the driver is told; options that mean nothing here are refused by name.
fn read_options(spec: &mut NetworkSpec, mut options: Texts, maker: Maker) -> Result<(), Failure> {
    for (name, value) in &options {
        match (name.as_str(), maker) {
            (MTU, _) => spec.mtu = Some(mtu(value)?),
            (VNIS, Maker::Cluster) => spec.vnis = vnis(value)?,
            // Whether it can be had is not for us to say.
            (ENCRYPTED_OPTION, Maker::Cluster) => {}
            _ if name.starts_with("com.docker.network.") => {
                return Err(Failure::not_yet(format!("--opt {name}")));
            }
            _ => return Err(Failure::invalid(format!("unknown network option {name:?}"))),
        }
    }
    // It asks for what is so anyway.
    if options.get(ENCRYPTED_OPTION).is_some_and(|value| value == "false") {
        options.remove(ENCRYPTED_OPTION);
    }
    spec.options = options;
    Ok(())
}

fn mtu(text: &str) -> Result<u32, Failure> {
    text.parse().map_err(|_| Failure::invalid(format!("invalid {MTU} {text:?}: it is no number of bytes")))
}

fn vnis(list: &str) -> Result<Vec<u32>, Failure> {
    let vni = |text: &str| {
        let wrong = || Failure::invalid(format!("invalid {VNIS} {list:?}: {text:?} is no number"));
        text.trim().parse().map_err(|_| wrong())
    };
    list.split(',').map(vni).collect()
}

/// What the user should know of a network that is fine (C-29); empty: nothing.
pub fn warning(spec: &NetworkSpec) -> String {
    let is_public = |subnet: &&SubnetSpec| match subnet.subnet {
        IpNet::V4(net) => !PRIVATE.iter().any(|private| private.contains(&net)),
        IpNet::V6(_) => false,
    };
    match spec.subnets.iter().find(is_public) {
        Some(subnet) => format!(
            "{} is a public range: hosts of the Internet with these addresses cannot be reached from the network",
            subnet.subnet
        ),
        None => String::new(),
    }
}

/// Hosts tell each other of all of them at once.
fn check_aliases(aliases: &[String]) -> Result<(), Failure> {
    if let Some(alias) = aliases.iter().find(|alias| alias.is_empty() || alias.len() > ALIAS_BYTES_MAX) {
        return Err(Failure::invalid(format!("invalid alias {alias:?}")));
    }
    if aliases.len() > ALIASES_MAX {
        return Err(Failure::invalid(format!(
            "a container has at most {ALIASES_MAX} aliases in a network: not {}",
            aliases.len()
        )));
    }
    let bytes: usize = aliases.iter().map(String::len).sum();
    if bytes > ALIASES_BYTES_MAX {
        return Err(Failure::invalid(format!(
            "the aliases of a container in a network have at most {ALIASES_BYTES_MAX} bytes together: not {bytes}"
        )));
    }
    Ok(())
}

/// What a container wants in a network.
pub fn join(network: NetworkRef, config: EndpointConfig) -> Result<Join, Failure> {
    later::refuse(&config.rest, later::JOIN)?;
    if !config.ipam_config.link_local_ips.is_empty() {
        return Err(Failure::not_yet("--link-local-ip"));
    }
    let mut addresses = Vec::new();
    for (text, v4) in [(config.ipam_config.ipv4_address, true), (config.ipam_config.ipv6_address, false)] {
        if text.is_empty() {
            continue;
        }
        let address = text.parse::<IpAddr>().ok().filter(|address| address.is_ipv4() == v4);
        let family = if v4 { "IPv4" } else { "IPv6" };
        addresses.push(address.ok_or_else(|| Failure::invalid(format!("invalid {family} address: {text}")))?);
    }
    if network == NetworkRef::Bridge && !config.aliases.is_empty() {
        return Err(Failure::invalid("network-scoped aliases are only supported for user-defined networks"));
    }
    if network == NetworkRef::Bridge && !addresses.is_empty() {
        return Err(Failure::invalid("user specified IP address is supported on user defined networks only"));
    }
    check_aliases(&config.aliases)?;
    Ok(Join { network, aliases: config.aliases, addresses })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(mut body: Value) -> Result<(Maker, NetworkSpec), Failure> {
        body["Name"] = json!("n");
        from_wire(serde_json::from_value(body).unwrap())
    }

    fn overlay(config: Value) -> Result<NetworkSpec, String> {
        let body = json!({"Driver": "overlay", "EnableIPv6": true, "IPAM": {"Config": config}});
        read(body).map(|(_, spec)| spec).map_err(|failure| failure.message)
    }

    fn refusal(config: Value) -> String {
        let message = overlay(json!([config])).unwrap_err();
        message.strip_prefix("invalid network config: ").unwrap_or(&message).to_owned()
    }

    /// NET-11, NET-12
    #[test]
    fn subnets_bring_their_gateway_and_range() {
        let spec = overlay(json!([
            {"Subnet": "192.168.0.0/16", "IPRange": "192.168.1.0/24", "Gateway": "192.168.0.100"},
            {"Subnet": "192.170.0.0/16"},
            {"Subnet": "fd00:1::/64"},
            {},
        ]))
        .unwrap();
        assert_eq!(spec.subnets.len(), 3);
        assert_eq!(spec.subnets[0].gateway, Some("192.168.0.100".parse().unwrap()));
        assert_eq!(spec.subnets[0].range, Some("192.168.1.0/24".parse().unwrap()));
        assert_eq!(spec.subnets[1].gateway, None);
        assert!(warning(&spec).starts_with("192.170.0.0/16 is a public range"));
        assert_eq!(warning(&overlay(json!([{"Subnet": "172.20.0.0/16"}])).unwrap()), "");
    }

    /// NET-12, NET-14
    #[test]
    fn a_subnet_that_cannot_be_is_one_clear_error() {
        for (config, message) in [
            (json!({"Subnet": "fd00::"}), "subnet fd00:: has no prefix length, such as fd00::/64"),
            (json!({"Subnet": "10.0.0.0"}), "subnet 10.0.0.0 has no prefix length, such as 10.0.0.0/24"),
            (json!({"Subnet": "ten"}), "subnet \"ten\" is no address block"),
            (json!({"Subnet": "10.0.0.0/33"}), "subnet \"10.0.0.0/33\" is no address block"),
            (json!({"Subnet": "10.0.0.0/24", "Gateway": "gw"}), "gateway \"gw\" is no address"),
            (json!({"Subnet": "10.0.0.0/24", "IPRange": "10"}), "IP range \"10\" is no address block"),
            (json!({"Gateway": "10.0.0.1"}), "every gateway and IP range needs the subnet that it lies in"),
            // What it says can be read, but not be had.
            (json!({"Subnet": "10.0.0.7/24"}), "invalid subnet 10.0.0.7/24: it should be 10.0.0.0/24"),
        ] {
            assert_eq!(refusal(config.clone()), message, "{config}");
        }
        let local = json!({"IPAM": {"Config": [{"Subnet": "127.0.3.0/24"}]}});
        assert!(
            read(local).unwrap_err().message.starts_with("subnet 127.0.3.0/24 overlaps with 127.0.0.0/8")
        );
    }

    /// NET-13, NET-30
    #[test]
    fn options_are_read_or_refused_by_name() {
        let with = |driver: &str, name: &str, value: &str| {
            let spec = read(json!({"Driver": driver, "Options": {name: value}}));
            spec.map(|(_, spec)| spec).map_err(|failure| failure.message)
        };
        assert_eq!(with("overlay", MTU, "1400").unwrap().mtu, Some(1400));
        assert_eq!(with("bridge", MTU, "1400").unwrap().mtu, Some(1400));
        assert_eq!(with("overlay", VNIS, "5000, 5001").unwrap().vnis, [5000, 5001]);
        assert_eq!(
            with("overlay", ENCRYPTED_OPTION, "false").unwrap().options,
            Texts::new(),
            "the store takes none"
        );
        for value in ["", "true", "False", "0"] {
            assert!(
                with("overlay", ENCRYPTED_OPTION, value).unwrap_err().starts_with("not yet: --opt encrypted")
            );
        }
        assert!(with("overlay", VNIS, "4096").unwrap_err().starts_with("VXLAN id 4096 is not valid"));
        for vnis in ["-1", "4294967296", "x", "", "5000,,5001"] {
            assert!(with("overlay", VNIS, vnis).is_err(), "{vnis:?}");
        }
        for mtu in ["67", "65536", "-1", "big"] {
            assert!(with("overlay", MTU, mtu).is_err(), "{mtu:?}");
        }
        assert_eq!(with("overlay", "colour", "red").unwrap_err(), "unknown network option \"colour\"");
        assert!(with("bridge", VNIS, "5000").unwrap_err().starts_with("not yet: --opt"));
    }

    #[test]
    fn drivers_are_two() {
        let message = |driver: &str| read(json!({"Driver": driver})).unwrap_err().message;
        assert_eq!(message("host"), "only one instance of \"host\" network is allowed");
        assert_eq!(message("null"), "only one instance of \"null\" network is allowed");
        assert_eq!(message("weave"), "plugin \"weave\" not found");
        assert!(matches!(read(json!({})), Ok((Maker::Host, _))));
        assert!(matches!(read(json!({"Driver": "overlay"})), Ok((Maker::Cluster, _))));
    }

    #[test]
    fn places_in_networks_are_checked() {
        let wanted = |network: NetworkRef, config: Value| {
            join(network, serde_json::from_value(config).unwrap()).map_err(|failure| failure.message)
        };
        let local = || NetworkRef::Local("x".into());
        let place =
            wanted(local(), json!({"Aliases": ["db"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}})).unwrap();
        assert_eq!(
            (place.aliases, place.addresses),
            (vec!["db".to_owned()], vec!["10.0.0.9".parse().unwrap()])
        );
        for config in [
            json!({"IPAMConfig": {"IPv4Address": "fd00::1"}}),
            json!({"IPAMConfig": {"IPv6Address": "here"}}),
            json!({"IPAMConfig": {"LinkLocalIPs": ["169.254.1.2"]}}),
            json!({"Aliases": [""]}),
            json!({"Aliases": ["a".repeat(254)]}),
            json!({"Aliases": vec!["a"; 33]}),
            json!({"Aliases": vec!["a".repeat(253); 17]}),
            json!({"MacAddress": "02:00:00:00:00:01"}),
        ] {
            assert!(wanted(local(), config.clone()).is_err(), "{config}");
        }
        assert!(wanted(NetworkRef::Bridge, json!({"Aliases": ["db"]})).unwrap_err().contains("user-defined"));
        assert!(wanted(NetworkRef::Bridge, json!({})).is_ok());
    }
}
