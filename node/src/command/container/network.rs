//! Options of `run` that say how a container is reached, and what it reaches.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::command::{network::endpoint, publish};

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
    /// A network's name, or bridge (the edge network), host, none, or container:NAME to be in the network of another one
    #[arg(long, visible_alias = "net", value_name = "NETWORK", default_value = "bridge")]
    network: String,
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
}

impl Options {
    /// Writes them into the body of a creation.
    ///
    /// # Errors
    /// One makes no sense, by itself or with the network.
    pub fn apply(&self, request: &mut Value) -> Result<()> {
        let (exposed, bindings) = publish::of_container(&self.publish)?;
        request["ExposedPorts"] = exposed;
        let host = &mut request["HostConfig"];
        host["NetworkMode"] = json!(self.network);
        host["PortBindings"] = bindings;
        host["PublishAllPorts"] = json!(self.publish_all);
        host["Dns"] = json!(self.dns);
        host["DnsSearch"] = json!(self.dns_search);
        host["DnsOptions"] = json!(self.dns_option);
        host["ExtraHosts"] =
            json!(self.hosts.iter().map(|text| extra_host(text)).collect::<Result<Vec<_>>>()?);
        let place = !self.aliases.is_empty() || self.ip.is_some() || self.ip6.is_some();
        if BUILT_IN.contains(&self.network.as_str()) || self.network.starts_with(CONTAINER) {
            if place {
                bail!(
                    "--network-alias, --ip and --ip6 belong to networks that a user made: name one with --network, after 'covey network create'"
                );
            }
        } else {
            let endpoint = endpoint(&self.aliases, self.ip, self.ip6);
            request["NetworkingConfig"]["EndpointsConfig"][&self.network] = endpoint;
        }
        Ok(())
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
                "ExtraHosts": ["a:10.0.0.1", "b:fd00::1", "c:host-gateway"]},
            "NetworkingConfig": {"EndpointsConfig": {"front": {"Aliases": ["db"],
                "IPAMConfig": {"IPv4Address": "10.0.0.9"}}}},
        });
        assert_eq!(request(line).unwrap(), expected);
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
        assert!(error("-p 80:65536").starts_with("--publish 80:65536: invalid port '65536'"));
        assert!(error("--add-host a").ends_with("it has to have the form NAME:ADDRESS"));
        assert!(error("--add-host a:b").ends_with("invalid IP address: b"));
    }
}
