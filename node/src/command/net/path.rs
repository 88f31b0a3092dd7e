//! `net path`: which way a packet goes from a container, with the counters that it moved.

use anyhow::Result;

use crate::{
    client::{Client, Target, model::Hop},
    command::{table::Table, terminal},
};

#[derive(clap::Args)]
pub struct Args {
    /// A container of this host: id or name
    from: String,
    /// NAME:PORT or ADDRESS:PORT as the container would say it, with /udp or /sctp where it is not TCP
    #[arg(value_name = "TO:PORT")]
    to: String,
}

pub async fn run(args: &Args, client: &Client) -> Result<()> {
    let target = Target::new(&["covey", "net", "path"]).with("from", &args.from).with("to", &args.to);
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
    let (Some(before), Some(after)) = (hop.counter_before, hop.counter_after) else { return String::new() };
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
            {"Step": "vip", "Decision": "10.0.1.2:80 is service web", "CounterBefore": 41, "CounterAfter": 42},
            {"Step": "veth", "Decision": "web.1", "CounterBefore": 7, "CounterAfter": 7},
        ]));
        let expected = "\
STEP      DECISION                     PACKETS
dns       web is 10.0.1.2
vip       10.0.1.2:80 is service web   41 -> 42 (+1)
veth      web.1                        7 (did not move)
";
        assert_eq!(text(&hops.unwrap()), expected);
    }

    #[tokio::test]
    async fn the_daemon_is_asked_in_the_words_of_the_user() {
        let daemon = Daemon::start([("GET /covey/net/path", Reply::Json(json!([])))]);
        let args = Args { from: "box".into(), to: "web:53/udp".into() };
        run(&args, &daemon.client()).await.unwrap();
        assert_eq!(daemon.asked()[0].0, "GET /covey/net/path?from=box&to=web%3A53%2Fudp");
    }
}
