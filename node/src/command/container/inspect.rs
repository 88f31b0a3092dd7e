//! `container inspect`: all that is known, as JSON.

use anyhow::Result;

use crate::{
    client::{Client, Target},
    command::inspect,
};

#[derive(clap::Args)]
pub struct Args {
    /// Ids or names
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    let get = async |name: &str| client.get(Target::new(&["containers", name, "json"])).await;
    inspect::print("container", &args.containers, get).await
}
