//! `start`, `stop`, `kill`, `wait` and `rm`: each container's id or name is printed when it is done.

use anyhow::Result;
use serde_json::Value;

use crate::{
    client::{Client, Target, model::Waited},
    command::{each, terminal::say},
};

#[derive(clap::Args)]
pub struct StartArgs {
    /// Ids or names
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

#[derive(clap::Args)]
pub struct StopArgs {
    /// Seconds between the stop signal and SIGKILL [default: the container's own, or 10]
    #[arg(short, long, alias = "time", value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<i64>,
    /// Ids or names
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

#[derive(clap::Args)]
pub struct KillArgs {
    /// Name or number
    #[arg(short, long, default_value = "SIGKILL")]
    signal: String,
    /// Ids or names
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

#[derive(clap::Args)]
pub struct WaitArgs {
    /// Ids or names
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

#[derive(clap::Args)]
pub struct RemoveArgs {
    /// Kill it first where it runs
    #[arg(short, long)]
    force: bool,
    /// Ids or names
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub async fn start(args: StartArgs, client: &Client) -> Result<()> {
    each(&args.containers, async |name| {
        client.post(Target::new(&["containers", name, "start"])).await?;
        Ok(say(name)?)
    })
    .await
}

pub async fn stop(args: StopArgs, client: &Client) -> Result<()> {
    each(&args.containers, async |name| {
        client.post(Target::new(&["containers", name, "stop"]).with_some("t", args.timeout)).await?;
        Ok(say(name)?)
    })
    .await
}

pub async fn kill(args: KillArgs, client: &Client) -> Result<()> {
    each(&args.containers, async |name| {
        client.post(Target::new(&["containers", name, "kill"]).with("signal", &args.signal)).await?;
        Ok(say(name)?)
    })
    .await
}

pub async fn wait(args: WaitArgs, client: &Client) -> Result<()> {
    each(&args.containers, async |name| {
        let waited: Waited =
            client.post_json(Target::new(&["containers", name, "wait"]), &serde_json::json!({})).await?;
        Ok(say(waited.status_code)?)
    })
    .await
}

pub async fn remove(args: RemoveArgs, client: &Client) -> Result<()> {
    each(&args.containers, async |name| {
        let target = Target::new(&["containers", name]).with_flag("force", args.force);
        client.delete::<Value>(target).await?;
        Ok(say(name)?)
    })
    .await
}
