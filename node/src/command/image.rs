//! Images of this host.

pub mod inspect;
pub mod load;
pub mod ls;
pub mod names;
pub mod pull;

use anyhow::Result;
use clap::Subcommand;
use covey_runtime::image::Reference;

use crate::client::Client;

/// Images of this host
#[derive(Subcommand)]
pub enum Command {
    /// Fetch an image from a registry
    Pull(pull::Args),
    /// Take the images of an archive
    Load(load::LoadArgs),
    /// Make an image out of an archive of files
    Import(load::ImportArgs),
    /// List images
    Ls(ls::Args),
    /// Show all that is known of images
    Inspect(inspect::Args),
    /// Give an image one more name
    Tag(names::TagArgs),
    /// Remove images
    Rm(names::RemoveArgs),
}

/// `covey image …`
pub async fn run(command: Command, client: &Client) -> Result<()> {
    match command {
        Command::Pull(args) => pull::run(args, client).await,
        Command::Load(args) => load::load(args, client).await,
        Command::Import(args) => load::import(args, client).await,
        Command::Ls(args) => ls::run(args, client).await,
        Command::Inspect(args) => inspect::run(args, client).await,
        Command::Tag(args) => names::tag(args, client).await,
        Command::Rm(args) => names::remove(args, client).await,
    }
}

/// The name as people write it, with its tag: `alpine:latest`. What is no name is left as it is.
pub fn with_tag(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.to_string())
}

/// The name as tables show it: without its digest where it has a tag (SVC-06).
pub fn shown(name: &str) -> String {
    name.parse::<Reference>()
        .map_or_else(|_| name.to_owned(), |reference| reference.without_digest().to_string())
}
