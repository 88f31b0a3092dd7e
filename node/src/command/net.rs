//! `net`: what is wrong with the networks, and which way a packet goes.

mod doctor;
mod path;

use anyhow::Result;
use clap::Subcommand;

use crate::client::Client;

/// Examine the networks: what is wrong, and which way a packet goes
#[derive(Subcommand)]
pub enum Command {
    /// Compare what is wanted, what the kernels have and what the hosts say of each other
    Doctor(doctor::Args),
    /// Follow a packet from a container of this host, step by step
    Path(path::Args),
}

/// `covey net …`
pub async fn run(command: Command, client: &Client) -> Result<()> {
    match command {
        Command::Doctor(args) => doctor::run(&args, client).await,
        Command::Path(args) => path::run(&args, client).await,
    }
}
