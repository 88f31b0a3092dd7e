//! `image inspect`: all that is known, as JSON.

use anyhow::Result;

use crate::{
    client::{Client, Target},
    command::inspect,
};

#[derive(clap::Args)]
pub struct Args {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    let get = async |name: &str| client.get(Target::new(&["images", name, "json"])).await;
    inspect::print("image", &args.images, get).await
}
