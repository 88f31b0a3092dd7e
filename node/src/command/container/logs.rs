//! `logs`: what a container wrote, standard output and standard error apart.

use anyhow::Result;

use crate::{
    client::{Client, Target, frames},
    command::{moment, terminal},
};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub window: Window,
    /// Id or name
    container: String,
}

/// Which lines, and how.
#[derive(clap::Args)]
pub struct Window {
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// Only lines since then: RFC 3339, seconds since 1970, or how long ago (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only so many lines from the end
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all")]
    tail: String,
    /// The time of each line in front of it
    #[arg(short, long)]
    pub timestamps: bool,
}

impl Window {
    /// As parameters of a request.
    ///
    /// # Errors
    /// `--since` names no moment.
    pub fn add_to(&self, target: Target) -> Result<Target> {
        let since = self.since.as_deref().map(|text| moment::parse(text, moment::now())).transpose()?;
        Ok(target
            .with("stdout", 1)
            .with("stderr", 1)
            .with_flag("follow", self.follow)
            .with_flag("timestamps", self.timestamps)
            .with("tail", &self.tail)
            .with_some("since", since))
    }
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    let target = args.window.add_to(Target::new(&["containers", &args.container, "logs"]))?;
    let mut reply = client.stream(target).await?;
    Ok(frames::copy(&mut reply, &mut terminal::output()?, &mut terminal::errors()?).await?)
}
