//! `service`: as many tasks as wanted, wherever they fit.

mod attach;
mod converge;
mod create;
mod edit;
mod image;
mod logs;
mod ls;
mod names;
mod pretty;
mod scale;
mod settings;
mod update;

use anyhow::Result;
use clap::Subcommand;
use serde_json::Value;

use super::{each, inspect, tasks, terminal::say};
use crate::client::{Client, Target, model::Service};

/// Run services: as many tasks as wanted, wherever they fit
#[derive(Subcommand)]
pub enum Command {
    /// Make a service
    Create(Box<create::Args>),
    /// List services
    Ls(ls::Args),
    /// List the tasks of services
    Ps {
        #[command(flatten)]
        show: tasks::Show,
        /// Names or ids
        #[arg(required = true, value_name = "SERVICE")]
        services: Vec<String>,
    },
    /// Show all that is known of services
    Inspect {
        /// For people
        #[arg(long)]
        pretty: bool,
        /// Names or ids
        #[arg(required = true, value_name = "SERVICE")]
        services: Vec<String>,
    },
    /// Change how many tasks services have
    Scale(scale::Args),
    /// Change a service; its tasks are replaced a few at a time
    Update(Box<update::Args>),
    /// Remove services, with their tasks
    Rm {
        /// Names or ids
        #[arg(required = true, value_name = "SERVICE")]
        services: Vec<String>,
    },
    /// Show what the tasks of a service, or one task, wrote
    Logs(logs::Args),
}

/// `covey service …`
pub async fn run(command: Command, client: &Client) -> Result<()> {
    match command {
        Command::Create(args) => create::run(*args, client).await,
        Command::Ls(args) => ls::run(args, client).await,
        Command::Ps { show, services } => ps(&show, &services, client).await,
        Command::Inspect { pretty, services } if pretty => pretty::run(&services, client).await,
        // SVC-30, SVC-33
        Command::Inspect { services, .. } => {
            inspect::print("service", &services, async |name| client.get(target(name)).await).await
        }
        Command::Scale(args) => scale::run(args, client).await,
        Command::Update(args) => update::run(*args, client).await,
        // SVC-50
        Command::Rm { services } => {
            each(&services, async |name| {
                client.delete::<Value>(target(name)).await?;
                Ok(say(name)?)
            })
            .await
        }
        Command::Logs(args) => logs::run(args, client).await,
    }
}

fn target(name: &str) -> Target {
    Target::new(&["services", name])
}

/// Sends the spec of a service back, changed; gives the warnings of the daemon.
async fn send(service: &Value, client: &Client) -> Result<Vec<String>> {
    let target = Target::new(&["services", service["ID"].as_str().unwrap_or_default(), "update"])
        .with("version", service["Version"]["Index"].as_u64().unwrap_or(0));
    let updated: crate::client::model::Updated = client.post_json(target, &service["Spec"]).await?;
    Ok(updated.warnings)
}

async fn ps(show: &tasks::Show, names: &[String], client: &Client) -> Result<()> {
    let mut found = tasks::Names::new();
    let outcome = each(names, async |name| {
        let service: Service = client.get(target(name)).await?;
        found.insert(service.id, service.spec.name);
        Ok(())
    })
    .await;
    let ids: Vec<_> = found.keys().cloned().collect();
    let ids: Vec<_> = ids.iter().map(|id| ("service", id.as_str())).collect();
    if !ids.is_empty() {
        tasks::print(&ids, found, show, client).await?;
    }
    outcome
}
