//! `network connect` and `network disconnect`.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use serde_json::{Value, json};

use crate::client::{Client, Target};

#[derive(clap::Args)]
pub struct Args {
    /// One more name of the container in this network (repeatable)
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// Its IPv4 address in this network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// Its IPv6 address in this network
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// Name or id
    network: String,
    /// Name or id
    container: String,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    let body =
        json!({"Container": args.container, "EndpointConfig": endpoint(&args.aliases, args.ip, args.ip6)});
    Ok(client.send_json(Target::new(&["networks", &args.network, "connect"]), &body).await?)
}

pub async fn undo(network: &str, container: &str, force: bool, client: &Client) -> Result<()> {
    let body = json!({"Container": container, "Force": force});
    Ok(client.send_json(Target::new(&["networks", network, "disconnect"]), &body).await?)
}

/// A container's place in a network, as the API has it.
pub fn endpoint(aliases: &[String], ip: Option<Ipv4Addr>, ip6: Option<Ipv6Addr>) -> Value {
    let mut endpoint = json!({"Aliases": aliases});
    for (key, address) in
        [("IPv4Address", ip.map(|ip| ip.to_string())), ("IPv6Address", ip6.map(|ip| ip.to_string()))]
    {
        if let Some(address) = address {
            endpoint["IPAMConfig"][key] = json!(address);
        }
    }
    endpoint
}
