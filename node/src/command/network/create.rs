//! `network create` (NET-10, NET-11).

use std::net::IpAddr;

use anyhow::Result;
use serde_json::{Value, json};

use super::address;
use crate::{
    client::{Client, Target, model::CreatedNetwork},
    command::{options, terminal},
};

#[derive(clap::Args)]
pub struct Args {
    /// overlay: across the hosts of the cluster; bridge: on this host only
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// An address block; without one the cluster chooses (repeatable)
    #[arg(long = "subnet", value_name = "BLOCK")]
    subnets: Vec<String>,
    /// The router's address in the subnet that contains it (repeatable)
    #[arg(long = "gateway", value_name = "ADDRESS")]
    gateways: Vec<IpAddr>,
    /// Containers have addresses of this part of a subnet only (repeatable)
    #[arg(long = "ip-range", value_name = "BLOCK")]
    ranges: Vec<String>,
    /// IPv6 addresses, too
    #[arg(long)]
    ipv6: bool,
    /// No way out of the network
    #[arg(long)]
    internal: bool,
    /// Plain containers may join, not only services
    #[arg(long)]
    attachable: bool,
    /// A label: KEY or KEY=VALUE (repeatable)
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// An option of the driver, such as com.docker.network.driver.mtu=1400 (repeatable)
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// Name of the network
    name: String,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    let created: CreatedNetwork =
        client.post_json(Target::new(&["networks", "create"]), &request(&args)?).await?;
    if !created.warning.is_empty() {
        terminal::warn(&[created.warning]);
    }
    Ok(terminal::say(created.id)?)
}

fn request(args: &Args) -> Result<Value> {
    Ok(json!({
        "Name": args.name,
        "Driver": args.driver,
        "EnableIPv6": args.ipv6,
        "Internal": args.internal,
        "Attachable": args.attachable,
        "Labels": options::labels(&args.labels)?,
        "Options": options::labels(&args.options)?,
        "IPAM": {"Driver": "default", "Config": address::config(&args.subnets, &args.ranges, &args.gateways)?},
    }))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::command::fake::{Daemon, Reply};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn read(words: &str) -> Args {
        Line::parse_from(["create"].into_iter().chain(words.split_whitespace())).args
    }

    /// NET-10, NET-11, NET-12, NET-27
    #[tokio::test]
    async fn a_command_line_becomes_a_network() {
        let created = Reply::Json(json!({"Id": "mkileuo6ve329jx5xbd1m6r1o", "Warning": ""}));
        let daemon = Daemon::start([("POST /networks/create", created)]);
        let line = "-d overlay --subnet 192.168.0.0/16 --gateway 192.168.0.100 --ip-range 192.168.1.0/24 \
                    --subnet 192.170.0.0/16 --gateway 192.170.0.100 --ipv6 --internal --attachable --label a \
                    -o com.docker.network.driver.mtu=1400 front";
        run(read(line), &daemon.client()).await.unwrap();
        let expected = json!({
            "Name": "front", "Driver": "overlay", "EnableIPv6": true, "Internal": true, "Attachable": true,
            "Labels": {"a": ""}, "Options": {"com.docker.network.driver.mtu": "1400"},
            "IPAM": {"Driver": "default", "Config": [
                {"Subnet": "192.168.0.0/16", "IPRange": "192.168.1.0/24", "Gateway": "192.168.0.100"},
                {"Subnet": "192.170.0.0/16", "Gateway": "192.170.0.100"},
            ]},
        });
        assert_eq!(daemon.last(), ("POST /networks/create".to_owned(), expected));
    }

    /// NET-12
    #[tokio::test]
    async fn what_cannot_be_is_refused_before_anything_is_sent() {
        let daemon = Daemon::start([]);
        let line = "--subnet 10.0.0.0/24 --gateway 10.0.1.1 net";
        let error = run(read(line), &daemon.client()).await.unwrap_err();
        assert_eq!(error.to_string(), "no matching subnet for gateway 10.0.1.1");
        assert!(daemon.asked().is_empty());
    }
}
