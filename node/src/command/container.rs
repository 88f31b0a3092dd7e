//! Plain containers of the daemon's own host.

pub mod exec;
pub mod inspect;
pub mod lifecycle;
pub mod logs;
pub mod ls;
pub mod port;
pub mod run;

mod network;
mod session;

use anyhow::Result;
use clap::Subcommand;

use crate::client::Client;

/// Containers of this host
#[derive(Subcommand)]
pub enum Command {
    /// Run a command in a new container
    Run(Box<run::Args>),
    /// Run a command in a running container
    Exec(exec::Args),
    /// List containers
    #[command(visible_alias = "ps")]
    Ls(ls::Args),
    /// Show all that is known of containers
    Inspect(inspect::Args),
    /// Show the log of a container
    Logs(logs::Args),
    /// Show where the ports of a container are reached
    Port(port::Args),
    /// Start stopped containers
    Start(lifecycle::StartArgs),
    /// Stop containers
    Stop(lifecycle::StopArgs),
    /// Send a signal to containers
    Kill(lifecycle::KillArgs),
    /// Wait until containers end, then print their exit codes
    Wait(lifecycle::WaitArgs),
    /// Remove containers
    Rm(lifecycle::RemoveArgs),
}

/// `covey container …`
pub async fn run_noun(command: Command, client: &Client) -> Result<()> {
    match command {
        Command::Run(args) => run::run(*args, client).await,
        Command::Exec(args) => exec::run(args, client).await,
        Command::Ls(args) => ls::run(args, client).await,
        Command::Inspect(args) => inspect::run(args, client).await,
        Command::Logs(args) => logs::run(args, client).await,
        Command::Port(args) => port::run(args, client).await,
        Command::Start(args) => lifecycle::start(args, client).await,
        Command::Stop(args) => lifecycle::stop(args, client).await,
        Command::Kill(args) => lifecycle::kill(args, client).await,
        Command::Wait(args) => lifecycle::wait(args, client).await,
        Command::Rm(args) => lifecycle::remove(args, client).await,
    }
}
