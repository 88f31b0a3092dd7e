//! `tag` and `rmi`: the names of images.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use covey_runtime::image::Reference;

use crate::{
    client::{Client, Target},
    command::{each, terminal::say},
};

#[derive(clap::Args)]
pub struct TagArgs {
    /// Name or id of an image
    source: String,
    /// One more name: NAME[:TAG]
    target: String,
}

#[derive(clap::Args)]
pub struct RemoveArgs {
    /// Also where it has other names or stopped containers use it
    #[arg(short, long)]
    force: bool,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub async fn tag(args: TagArgs, client: &Client) -> Result<()> {
    let name: Reference = args.target.parse().with_context(|| args.target.clone())?;
    let target = Target::new(&["images", &args.source, "tag"])
        .with("repo", name.familiar_name())
        .with("tag", name.tag().unwrap_or_default());
    Ok(client.post(target).await?)
}

pub async fn remove(args: RemoveArgs, client: &Client) -> Result<()> {
    each(&args.images, async |name| {
        let target = Target::new(&["images", name]).with_flag("force", args.force);
        let removed: Vec<BTreeMap<String, String>> = client.delete(target).await?;
        for (what, name) in removed.iter().flatten() {
            say(format!("{what}: {name}"))?;
        }
        Ok(())
    })
    .await
}
