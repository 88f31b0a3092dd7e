//! `network prune`.

use std::io::{self, BufRead};

use anyhow::{Context, Result};

use crate::{
    client::{Client, Target, model::PrunedNetworks},
    command::{options, terminal},
};

/// Bytes of an answer at the terminal.
const ANSWER_BYTES_MAX: u64 = 64;

#[derive(clap::Args)]
pub struct Args {
    /// Do not ask first
    #[arg(short, long)]
    force: bool,
    /// Only those that match, such as label=tier=front or until=24h (repeatable)
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
}

pub async fn run(args: &Args, client: &Client) -> Result<()> {
    if args.force || agreed(io::stdin().lock())? { prune(args, client).await } else { Ok(()) }
}

async fn prune(args: &Args, client: &Client) -> Result<()> {
    let filters = args.filters.iter().map(|text| options::filter(text)).collect::<Result<Vec<_>>>()?;
    let target = Target::new(&["networks", "prune"]).with_filters(&filters);
    let pruned: PrunedNetworks = client.post_json(target, &serde_json::json!({})).await?;
    Ok(terminal::print(&text(&pruned.networks_deleted))?)
}

fn text(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("Deleted Networks:\n{}\n\n", names.join("\n")) }
}

/// Asks whether it is really meant.
fn agreed(answer: impl BufRead) -> Result<bool> {
    terminal::print(
        "WARNING! This will remove all custom networks not used by at least one container.\n\
         Are you sure you want to continue? [y/N] ",
    )?;
    let mut line = String::new();
    answer.take(ANSWER_BYTES_MAX).read_line(&mut line).context("cannot read the answer")?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::command::fake::{Daemon, Reply};

    #[test]
    fn only_a_yes_is_a_yes() {
        assert!(agreed(&b"y\n"[..]).unwrap() && agreed(&b"Y\n"[..]).unwrap());
        assert!(!agreed(&b"\n"[..]).unwrap() && !agreed(&b""[..]).unwrap() && !agreed(&b"no\n"[..]).unwrap());
    }

    #[tokio::test]
    async fn what_went_is_named() {
        let reply = Reply::Json(json!({"NetworksDeleted": ["front", "back"]}));
        let daemon = Daemon::start([("POST /networks/prune", reply)]);
        let args = Args { force: true, filters: vec!["until=24h".into()] };
        run(&args, &daemon.client()).await.unwrap();
        assert!(daemon.last().0.starts_with("POST /networks/prune?filters=%7B%22until%22"));
        assert_eq!(text(&["a".into(), "b".into()]), "Deleted Networks:\na\nb\n\n");
        let none = Daemon::start([("POST /networks/prune", Reply::Json(json!({"NetworksDeleted": null})))]);
        run(&args, &none.client()).await.unwrap();
    }
}
