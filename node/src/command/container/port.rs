//! `port`: where the ports of a container are reached.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde::Deserialize;

use crate::{
    client::{Client, Target},
    command::{ports::bracketed, publish, terminal},
};

#[derive(clap::Args)]
pub struct Args {
    /// Id or name
    container: String,
    /// Only this port of the container: PORT[/tcp|udp|sctp]
    port: Option<String>,
}

/// What is looked at in the description of a container.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Container {
    network_settings: Settings,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Settings {
    /// By port and protocol; `None`: no port of the host leads there.
    ports: BTreeMap<String, Option<Vec<Bound>>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Bound {
    host_ip: String,
    host_port: String,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    let container: Container = client.get(Target::new(&["containers", &args.container, "json"])).await?;
    Ok(terminal::print(&text(&container, &args)?)?)
}

fn text(container: &Container, args: &Args) -> Result<String> {
    let ports = &container.network_settings.ports;
    let shown = |bound: &Bound| format!("{}:{}", bracketed(&bound.host_ip), bound.host_port);
    let Some(wanted) = &args.port else {
        let mut all: Vec<_> = ports.iter().collect();
        all.sort_by_key(|(port, _)| (number(port), port.as_str()));
        let lines = all.into_iter().flat_map(|(port, bounds)| {
            bounds.iter().flatten().map(move |bound| format!("{port} -> {}\n", shown(bound)))
        });
        return Ok(lines.collect());
    };
    let (port, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let key = format!("{port}/{}", publish::protocol(protocol)?);
    match ports.get(&key).and_then(Option::as_deref) {
        Some(bounds) if !bounds.is_empty() => Ok(bounds.iter().map(|bound| shown(bound) + "\n").collect()),
        _ => bail!("no public port '{key}' published for {}: see 'covey port {0}'", args.container),
    }
}

/// Ports stand in the order of their numbers.
fn number(port: &str) -> u16 {
    port.split_once('/').and_then(|(number, _)| number.parse().ok()).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(port: Option<&str>) -> Result<String> {
        let container = json!({"NetworkSettings": {"Ports": {
            "443/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8443"}, {"HostIp": "::", "HostPort": "8443"}],
            "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
            "90/tcp": null,
        }}});
        let args = Args { container: "web".into(), port: port.map(str::to_owned) };
        text(&serde_json::from_value(container).unwrap(), &args)
    }

    #[test]
    fn bound_ports_are_shown_in_their_order() {
        let all = "80/tcp -> 127.0.0.1:8080\n443/tcp -> 0.0.0.0:8443\n443/tcp -> [::]:8443\n";
        assert_eq!(shown(None).unwrap(), all);
        assert_eq!(shown(Some("80")).unwrap(), "127.0.0.1:8080\n");
        assert_eq!(shown(Some("443/TCP")).unwrap(), "0.0.0.0:8443\n[::]:8443\n");
        let error = shown(Some("90")).unwrap_err().to_string();
        assert_eq!(error, "no public port '90/tcp' published for web: see 'covey port web'");
        assert!(shown(Some("80/icmp")).is_err());
    }
}
