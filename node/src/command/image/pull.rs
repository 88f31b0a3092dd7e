//! `pull`: an image from its registry (CTR-08).

use anyhow::{Context, Result};
use covey_runtime::image::Reference;

use crate::{
    client::{Client, Target},
    command::{
        progress::{self, Sink},
        terminal,
    },
};

#[derive(clap::Args)]
pub struct Args {
    /// Do not show the progress
    #[arg(short, long)]
    quiet: bool,
    /// Another kind of machine than this one, such as linux/arm64
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<String>,
    /// NAME[:TAG] or NAME@DIGEST
    #[arg(value_name = "IMAGE")]
    image: String,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    let name: Reference = args.image.parse().with_context(|| args.image.clone())?;
    if !args.image.contains('@') && !args.quiet && name.to_string() != args.image && !has_tag(&args.image) {
        terminal::say(format!("Using default tag: {}", name.tag().unwrap_or_default()))?;
    }
    let sink = if args.quiet { Sink::Quiet } else { Sink::Output };
    fetch(&args.image, args.platform.as_deref(), sink, client).await?;
    Ok(terminal::say(name.canonical())?)
}

/// Fetches an image and shows the progress.
pub async fn fetch(name: &str, platform: Option<&str>, sink: Sink, client: &Client) -> Result<()> {
    let reference: Reference = name.parse().with_context(|| name.to_owned())?;
    let version = reference.digest().map(|digest| digest.to_string());
    let target = Target::new(&["images", "create"])
        .with("fromImage", reference.familiar_name())
        .with("tag", version.as_deref().or(reference.tag()).unwrap_or_default())
        .with_some("platform", platform);
    progress::show(client.post_stream(target).await?, sink).await.map(drop)
}

/// True if the name itself says a tag: a colon behind the last slash.
fn has_tag(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|last| last.contains(':'))
}
