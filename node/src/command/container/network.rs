//! Options of `run` that say how a container is reached, and what it reaches.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::command::{network::endpoint, options, publish};

/// Where a container is that nobody says anything of.
const DEFAULT: &str = "bridge";
/// Networks that a container has by itself: it has no further names and no chosen address there.
const BUILT_IN: [&str; 4] = ["bridge", "default", "host", "none"];

/// In front of the container whose network is meant.
const CONTAINER: &str = "container:";
/// This host, in the place of an address.
const HOST_GATEWAY: &str = "host-gateway";

#[derive(clap::Args, Default)]
pub struct Options {
    /// [[IP:]PORT:]PORT-OF-THE-CONTAINER[/tcp|udp|sctp], or ranges of both (repeatable)
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    /// Publish every port that the image exposes, each at a free one of this host
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// A port that the container serves, for --publish-all: PORT[/tcp|udp|sctp], or a range (repeatable)
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,
    /// A network's name, bridge (the edge network), host, none, or container:NAME to be in the network of another one;
    /// or name=NAME,alias=…,ip=…,ip6=… (repeatable)
    #[arg(long = "network", visible_alias = "net", value_name = "NETWORK", default_value = DEFAULT)]
    networks: Vec<String>,
    /// One more name of the container in its network (repeatable)
    #[arg(long = "network-alias", visible_alias = "net-alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// Its IPv4 address in its network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// Its IPv6 address in its network
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// A name server in the place of the host's (repeatable)
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// A domain in which names are looked up, in the place of the host's; . for none (repeatable)
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// An option of the container's resolver, such as ndots:2 (repeatable)
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// A name that the container knows by itself: NAME:ADDRESS, or NAME:host-gateway for this host (repeatable)
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    hosts: Vec<String>,
    /// A setting of the kernel that the container has for itself, such as net.ipv4.ip_forward=1 (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    sysctl: Vec<String>,
}

/// A container's place in a network, as the user asks for it.
#[derive(Default)]
struct Place<'a> {
    network: &'a str,
    aliases: Vec<String>,
    ip: Option<Ipv4Addr>,
    ip6: Option<Ipv6Addr>,
}

impl<'a> Place<'a> {
    /// `NAME`, or `name=NAME,alias=…,ip=…,ip6=…`.
    fn parse(text: &'a str) -> Result<Self> {
        let mut place = Self::default();
        if !text.contains('=') {
            place.network = text;
            return Ok(place);
        }
        for field in text.split(',') {
            let Some((key, value)) = field.split_once('=').filter(|(_, value)| !value.is_empty()) else {
                bail!("--network {text}: '{field}' has to have the form KEY=VALUE");
            };
            let wrong = || format!("--network {text}: {value} is no address for {key}=");
            match key.trim() {
                "name" => place.network = value,
                "alias" => place.aliases.push(value.to_owned()),
                "ip" => place.ip = Some(value.parse().with_context(wrong)?),
                "ip6" => place.ip6 = Some(value.parse().with_context(wrong)?),
                key => bail!("--network {text}: invalid field key: {key}; known are name, alias, ip and ip6"),
            }
        }
        if place.network.is_empty() {
            bail!("--network {text}: missing mandatory field \"name\", the network");
        }
        Ok(place)
    }

    fn is_plain(&self) -> bool {
        self.aliases.is_empty() && self.ip.is_none() && self.ip6.is_none()
    }

    fn is_of_user(&self) -> bool {
        !BUILT_IN.contains(&self.network) && !self.network.starts_with(CONTAINER)
    }
}

impl Options {
    /// Writes them into the body of a creation.
    ///
    /// # Errors
    /// One makes no sense, by itself or with the network.
    pub fn apply(&self, request: &mut Value) -> Result<()> {
        let (mut exposed, bindings) = publish::of_container(&self.publish)?;
        for port in publish::exposed(&self.expose)? {
            exposed[port] = json!({});
        }
        request["ExposedPorts"] = exposed;
        let places = self.places()?;
        let host = &mut request["HostConfig"];
        host["NetworkMode"] = json!(places.first().map_or(DEFAULT, |place| place.network));
        host["PortBindings"] = bindings;
        host["PublishAllPorts"] = json!(self.publish_all);
        host["Dns"] = json!(self.dns);
        host["DnsSearch"] = json!(self.dns_search);
        host["DnsOptions"] = json!(self.dns_option);
        host["ExtraHosts"] =
            json!(self.hosts.iter().map(|text| extra_host(text)).collect::<Result<Vec<_>>>()?);
        host["Sysctls"] = json!(options::labels(&self.sysctl)?);
        for (at, place) in places.iter().enumerate() {
            // One that every host has needs to be named a second time only beside others.
            if at > 0 || place.is_of_user() {
                request["NetworkingConfig"]["EndpointsConfig"][place.network] =
                    endpoint(&place.aliases, place.ip, place.ip6);
            }
        }
        Ok(())
    }

    /// The networks; what is said beside them is about the first.
    fn places(&self) -> Result<Vec<Place<'_>>> {
        let mut places = self.networks.iter().map(|text| Place::parse(text)).collect::<Result<Vec<_>>>()?;
        let beside = !self.aliases.is_empty() || self.ip.is_some() || self.ip6.is_some();
        if let Some(first) = places.first_mut().filter(|_| beside) {
            if !first.is_plain() {
                bail!(
                    "--network-alias, --ip and --ip6 are said of network {} twice; say it once",
                    first.network
                );
            }
            first.aliases.clone_from(&self.aliases);
            (first.ip, first.ip6) = (self.ip, self.ip6);
        }
        if places.iter().any(|place| !place.is_of_user() && !place.is_plain()) {
            bail!(
                "--network-alias, --ip and --ip6 belong to networks that a user made: name one with --network, after 'covey network create'"
            );
        }
        for (at, place) in places.iter().enumerate() {
            if places[..at].iter().any(|other| other.network == place.network) {
                bail!("--network {}: the network is named twice; name it once", place.network);
            }
        }
        Ok(places)
    }
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`, as the API has it.
fn extra_host(text: &str) -> Result<String> {
    let parts = text.split_once('=').or_else(|| text.split_once(':'));
    let Some((name, address)) = parts.filter(|(name, _)| !name.is_empty()) else {
        bail!("--add-host {text}: it has to have the form NAME:ADDRESS");
    };
    if address == HOST_GATEWAY {
        return Ok(format!("{name}:{address}"));
    }
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    match bare.parse::<IpAddr>() {
        Ok(address) => Ok(format!("{name}:{address}")),
        Err(_) => bail!("--add-host {text}: invalid IP address: {address}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn request(words: &str) -> Result<Value> {
        let line = Line::parse_from(["run"].into_iter().chain(words.split_whitespace()));
        let mut request = json!({"HostConfig": {}});
        line.options.apply(&mut request)?;
        Ok(request)
    }

    #[test]
    fn each_option_has_its_place() {
        let line = "-p 127.0.0.1:8080:80 -P --network front --network-alias db --ip 10.0.0.9 --dns 1.1.1.1 \
                    --dns fd00::53 --dns-search lan --dns-option ndots:2 --add-host a:10.0.0.1 --add-host b=fd00::1 \
                    --add-host c:host-gateway";
        let expected = json!({
            "ExposedPorts": {"80/tcp": {}},
            "HostConfig": {"NetworkMode": "front", "PublishAllPorts": true, "Dns": ["1.1.1.1", "fd00::53"],
                "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
                "DnsSearch": ["lan"], "DnsOptions": ["ndots:2"],
                "ExtraHosts": ["a:10.0.0.1", "b:fd00::1", "c:host-gateway"], "Sysctls": {}},
            "NetworkingConfig": {"EndpointsConfig": {"front": {"Aliases": ["db"],
                "IPAMConfig": {"IPv4Address": "10.0.0.9"}}}},
        });
        assert_eq!(request(line).unwrap(), expected);
    }

    /// CTR-03
    #[test]
    fn settings_and_exposed_ports_are_in_the_body() {
        let request = request("--sysctl net.x=1 --expose 80-81 -p 80 --expose 53/udp").unwrap();
        assert_eq!(request["HostConfig"]["Sysctls"], json!({"net.x": "1"}));
        assert_eq!(request["ExposedPorts"], json!({"80/tcp": {}, "81/tcp": {}, "53/udp": {}}));
    }

    /// NET-20
    #[test]
    fn a_container_may_be_in_several_networks_from_the_start() {
        let line = "--network name=front,alias=db,ip=10.0.0.9 --network back --network bridge --network name=in,ip6=fd00::9";
        let request = request(line).unwrap();
        assert_eq!(request["HostConfig"]["NetworkMode"], "front");
        let expected = json!({
            "front": {"Aliases": ["db"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}},
            "back": {"Aliases": []}, "bridge": {"Aliases": []},
            "in": {"Aliases": [], "IPAMConfig": {"IPv6Address": "fd00::9"}},
        });
        assert_eq!(request["NetworkingConfig"]["EndpointsConfig"], expected);
    }

    /// NET-33
    #[test]
    fn what_every_host_has_needs_no_endpoint() {
        for network in ["host", "none", "bridge"] {
            let request = request(&format!("--network {network}")).unwrap();
            assert_eq!(request["HostConfig"]["NetworkMode"], network);
            assert_eq!(request.get("NetworkingConfig"), None);
        }
        assert_eq!(request("").unwrap()["HostConfig"]["NetworkMode"], "bridge");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |words: &str| format!("{:#}", request(words).unwrap_err());
        assert!(error("--ip 10.0.0.9").contains("belong to networks that a user made"));
        assert!(error("--network host --network-alias db").contains("covey network create"));
        assert!(error("--network name=n,alias=a --ip 10.0.0.9").contains("twice"));
        assert!(
            error("--network n --network name=bridge,alias=a")
                .contains("belong to networks that a user made")
        );
        assert!(error("--network n --network name=n,alias=a").ends_with("named twice; name it once"));
        assert!(error("--network name=n,ip=fd00::1").contains("fd00::1 is no address for ip="));
        assert!(error("--network name=n,colour=red").contains("invalid field key: colour"));
        assert!(error("--network alias=a").contains("missing mandatory field"));
        assert!(error("-p 80:65536").starts_with("--publish 80:65536: invalid port '65536'"));
        assert!(error("--add-host a").ends_with("it has to have the form NAME:ADDRESS"));
        assert!(error("--add-host a:b").ends_with("invalid IP address: b"));
    }
}
