//! `service scale` (SVC-36).

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{converge::Wait, edit};
use crate::{
    client::Client,
    command::{each, terminal},
};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    wait: Wait,
    /// SERVICE=TASKS (repeatable)
    #[arg(required = true, value_name = "SERVICE=TASKS")]
    services: Vec<String>,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    // A typing error changes nothing.
    args.services.iter().try_for_each(|text| parse(text).map(drop))?;
    let mut scaled = Vec::new();
    let outcome = each(&args.services, async |text| {
        let (name, replicas) = parse(text)?;
        scaled.push(scale(name, replicas, client).await?);
        Ok(terminal::say(format!("{name} scaled to {replicas}"))?)
    })
    .await;
    for id in &scaled {
        args.wait.until_done(id, client).await?;
    }
    outcome
}

fn parse(text: &str) -> Result<(&str, u64)> {
    match text.split_once('=') {
        Some((name, number)) if !name.is_empty() => {
            Ok((name, number.parse().with_context(|| format!("{text}: {number:?} is no number of tasks"))?))
        }
        _ => bail!("{text}: it has to have the form SERVICE=TASKS"),
    }
}

async fn scale(name: &str, replicas: u64, client: &Client) -> Result<String> {
    let mut service: Value = client.get(super::target(name)).await?;
    if edit::set_replicas(&mut service["Spec"], replicas).is_err() {
        bail!("{name}: scale can only be used with replicated mode"); // MOD-05
    }
    terminal::warn(&super::send(&service, client).await?);
    Ok(service["ID"].as_str().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::command::fake::{Daemon, Reply};

    fn args(services: &[&str]) -> Args {
        Args {
            wait: Wait { detach: true, quiet: true },
            services: services.iter().map(|&text| text.to_owned()).collect(),
        }
    }

    /// SVC-36, SVC-39: the others are scaled although one is not there.
    #[tokio::test]
    async fn several_services_are_scaled_at_once() {
        let service =
            json!({"ID": "s1", "Version": {"Index": 3}, "Spec": {"Mode": {"Replicated": {"Replicas": 2}}}});
        let daemon = Daemon::start([
            ("GET /services/web", Reply::Json(service)),
            ("POST /services/s1/update", Reply::Json(json!({"Warnings": null}))),
        ]);
        assert!(run(args(&["gone=1", "web=0"]), &daemon.client()).await.is_err());
        let (line, body) = daemon.last();
        assert_eq!(line, "POST /services/s1/update?version=3");
        assert_eq!(body["Mode"]["Replicated"]["Replicas"], 0);
    }

    #[tokio::test]
    async fn a_typing_error_changes_nothing() {
        let daemon = Daemon::start([]);
        for text in ["web", "=3", "web=x", "web=-1"] {
            assert!(run(args(&["web=1", text]), &daemon.client()).await.is_err(), "{text}");
        }
        assert!(daemon.asked().is_empty());
    }
}
