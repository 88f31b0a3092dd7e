//! `net path`: which way a packet goes from a container, with the counters that it moved.

use std::str::FromStr;

use anyhow::{Result, anyhow};

use crate::{
    client::{Client, Target, model::Hop},
    command::{publish, table::Table, terminal},
};

#[derive(clap::Args)]
pub struct Args {
    /// A container of this host: id or name
    from: String,
    /// NAME:PORT or ADDRESS:PORT as the container would say it, with /udp or /sctp where it is not TCP
    #[arg(value_name = "TO:PORT")]
    to: Destination,
}

/// Where a packet is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Destination {
    host: String,
    port: u16,
    protocol: &'static str,
}

impl FromStr for Destination {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (place, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
        let parts = place.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        let (host, port) = parts.ok_or_else(|| anyhow!("it has to have the form NAME:PORT"))?;
        let port = port.parse().ok().filter(|port| *port != 0);
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok(Self {
            host: bare.to_owned(),
            port: port.ok_or_else(|| anyhow!("a port is a number from 1 to 65535"))?,
            protocol: publish::protocol(protocol)?,
        })
    }
}

pub async fn run(args: &Args, client: &Client) -> Result<()> {
    let target = Target::new(&["covey", "net", "path"])
        .with("from", &args.from)
        .with("to", &args.to.host)
        .with("port", args.to.port)
        .with("protocol", args.to.protocol);
    let hops: Vec<Hop> = client.get(target).await?;
    Ok(terminal::print(&text(&hops))?)
}

fn text(hops: &[Hop]) -> String {
    let mut table = Table::new(["STEP", "DECISION", "PACKETS"]);
    for hop in hops {
        table.row([hop.step.clone(), hop.decision.clone(), packets(hop)]);
    }
    table.text()
}

/// What the probe did to the counter of a step; nothing where nobody counts.
fn packets(hop: &Hop) -> String {
    let Some((before, after)) = hop.packets else { return String::new() };
    match after.saturating_sub(before) {
        0 => format!("{after} (did not move)"),
        more => format!("{before} -> {after} (+{more})"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::command::fake::{Daemon, Reply};

    #[test]
    fn each_step_shows_the_counter_that_moved() {
        let hops = serde_json::from_value::<Vec<Hop>>(json!([
            {"Step": "dns", "Decision": "web is 10.0.1.2"},
            {"Step": "vip", "Decision": "10.0.1.2:80 is service web", "Packets": [41, 42]},
            {"Step": "veth", "Decision": "web.1", "Packets": [7, 7]},
        ]));
        let expected = "\
STEP      DECISION                     PACKETS
dns       web is 10.0.1.2
vip       10.0.1.2:80 is service web   41 -> 42 (+1)
veth      web.1                        7 (did not move)
";
        assert_eq!(text(&hops.unwrap()), expected);
    }

    #[test]
    fn a_destination_is_a_name_or_an_address_with_a_port() {
        let read = |text: &str| text.parse::<Destination>().map(|to| (to.host, to.port, to.protocol)).ok();
        assert_eq!(read("web:80"), Some(("web".into(), 80, "tcp")));
        assert_eq!(read("[fd00::1]:53/udp"), Some(("fd00::1".into(), 53, "udp")));
        for text in ["web", "web:0", "web:65536", ":80", "web:80/icmp"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn the_daemon_is_asked_for_each_part() {
        let daemon = Daemon::start([("GET /covey/net/path", Reply::Json(json!([])))]);
        let args = Args { from: "box".into(), to: "web:53/udp".parse().unwrap() };
        run(&args, &daemon.client()).await.unwrap();
        assert_eq!(daemon.asked()[0].0, "GET /covey/net/path?from=box&to=web&port=53&protocol=udp");
    }
}
