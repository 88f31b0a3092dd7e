//! `load` and `import`: images out of archives.

use std::pin::Pin;

use anyhow::{Context, Result};
use tokio::io::AsyncRead;

use crate::{
    client::{Client, Target},
    command::{
        progress::{self, Sink},
        terminal,
    },
};

#[derive(clap::Args)]
pub struct LoadArgs {
    /// The archive, as docker save or an OCI layout; standard input where it is left out
    #[arg(short, long, value_name = "FILE")]
    input: Option<String>,
    /// Do not show the progress
    #[arg(short, long)]
    quiet: bool,
}

#[derive(clap::Args)]
pub struct ImportArgs {
    /// A line of a Dockerfile that is applied to the image (repeatable)
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// A comment in the image's history
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// The archive; - is standard input
    file: String,
    /// NAME[:TAG] of the image
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

pub async fn load(args: LoadArgs, client: &Client) -> Result<()> {
    let archive = open(args.input.as_deref().unwrap_or("-")).await?;
    let target = Target::new(&["images", "load"]).with_flag("quiet", args.quiet);
    let sink = if args.quiet { Sink::Quiet } else { Sink::Output };
    let last = progress::show(client.upload(target, archive).await?, sink).await?;
    if args.quiet { Ok(terminal::say(last)?) } else { Ok(()) }
}

pub async fn import(args: ImportArgs, client: &Client) -> Result<()> {
    let tree = open(&args.file).await?;
    let mut target = Target::new(&["images", "create"])
        .with("fromSrc", "-")
        .with("repo", args.name.unwrap_or_default())
        .with("message", args.message);
    for change in args.changes {
        target = target.with("changes", change);
    }
    progress::show(client.upload(target, tree).await?, Sink::Output).await.map(drop)
}

/// The file, or standard input for `-`.
async fn open(file: &str) -> Result<Pin<Box<dyn AsyncRead + Send>>> {
    if file == "-" {
        return Ok(Box::pin(terminal::input()?));
    }
    let opened = tokio::fs::File::open(file).await.with_context(|| format!("cannot read {file}"))?;
    Ok(Box::pin(opened))
}
