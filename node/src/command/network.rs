//! `network`: networks of the cluster, and of this host.

mod address;
mod connect;
mod create;
mod ls;
mod prune;

use anyhow::Result;
use clap::Subcommand;
use serde_json::Value;

use super::{each, inspect, options, terminal::say};
use crate::client::{Client, Target};

pub use connect::endpoint;

/// Make networks, and see who is on them
#[derive(Subcommand)]
pub enum Command {
    /// Make a network
    Create(Box<create::Args>),
    /// List networks
    Ls(options::Listing),
    /// Show all that is known of networks
    Inspect {
        /// Also the services and tasks of the whole cluster that are on it
        #[arg(short, long)]
        verbose: bool,
        /// Names or ids
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Remove networks that nobody uses
    Rm {
        /// One that is not there is no error
        #[arg(short, long)]
        force: bool,
        /// Names or ids
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Put a container into one more network
    Connect(connect::Args),
    /// Take a container out of a network
    Disconnect {
        /// Also where the container does not run
        #[arg(short, long)]
        force: bool,
        /// Name or id
        network: String,
        /// Name or id
        container: String,
    },
    /// Remove all networks that nobody uses
    Prune(prune::Args),
}

/// `covey network …`
pub async fn run(command: Command, client: &Client) -> Result<()> {
    match command {
        Command::Create(args) => create::run(*args, client).await,
        Command::Ls(listing) => ls::run(&listing, client).await,
        Command::Inspect { verbose, networks } => {
            let get = async |name: &str| client.get(target(name).with_flag("verbose", verbose)).await;
            inspect::print("network", &networks, get).await
        }
        // NET-32, C-48
        Command::Rm { force, networks } => {
            each(&networks, async |name| match client.delete::<Value>(target(name)).await {
                Err(error) if force && error.is_not_found() => Ok(()),
                removed => {
                    removed?;
                    Ok(say(name)?)
                }
            })
            .await
        }
        Command::Connect(args) => connect::run(args, client).await,
        Command::Disconnect { force, network, container } => {
            connect::undo(&network, &container, force, client).await
        }
        Command::Prune(args) => prune::run(&args, client).await,
    }
}

fn target(name: &str) -> Target {
    Target::new(&["networks", name])
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::command::{
        Exit,
        fake::{Daemon, Reply},
    };

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    fn read(words: &str) -> Command {
        Line::parse_from(["network"].into_iter().chain(words.split_whitespace())).command
    }

    /// NET-32, C-48
    #[tokio::test]
    async fn a_network_in_use_stays_and_the_others_are_removed() {
        let daemon = Daemon::start([
            ("DELETE /networks/front", Reply::Refuse(403, "network front is in use by service web")),
            ("DELETE /networks/back", Reply::Bytes(Vec::new())),
        ]);
        let error = run(read("rm front back"), &daemon.client()).await.unwrap_err();
        assert_eq!(error.downcast::<Exit>().unwrap().0, 1);
        assert_eq!(daemon.last().0, "DELETE /networks/back");
    }

    #[tokio::test]
    async fn by_force_a_network_that_is_not_there_is_no_error() {
        let daemon = Daemon::start([("DELETE /networks/used", Reply::Refuse(403, "network used is in use"))]);
        assert!(run(read("rm -f gone"), &daemon.client()).await.is_ok());
        assert!(run(read("rm gone"), &daemon.client()).await.is_err());
        assert!(run(read("rm -f used"), &daemon.client()).await.is_err());
    }

    /// NET-08
    #[tokio::test]
    async fn inspect_asks_for_the_whole_cluster_where_it_is_wanted() {
        let daemon = Daemon::start([("GET /networks/net", Reply::Json(json!({"Name": "net"})))]);
        run(read("inspect net"), &daemon.client()).await.unwrap();
        run(read("inspect -v net"), &daemon.client()).await.unwrap();
        let lines: Vec<_> = daemon.asked().into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, ["GET /networks/net", "GET /networks/net?verbose=1"]);
        assert!(run(read("inspect gone"), &daemon.client()).await.is_err());
    }

    #[tokio::test]
    async fn a_container_comes_and_goes() {
        let daemon = Daemon::start([
            ("POST /networks/net/connect", Reply::Bytes(Vec::new())),
            ("POST /networks/net/disconnect", Reply::Bytes(Vec::new())),
        ]);
        let line = "connect --alias db --alias sql --ip 10.0.0.9 --ip6 fd00::9 net box";
        run(read(line), &daemon.client()).await.unwrap();
        let endpoint = json!({"Aliases": ["db", "sql"],
            "IPAMConfig": {"IPv4Address": "10.0.0.9", "IPv6Address": "fd00::9"}});
        let connected = json!({"Container": "box", "EndpointConfig": endpoint});
        assert_eq!(daemon.last(), ("POST /networks/net/connect".to_owned(), connected));
        run(read("disconnect -f net box"), &daemon.client()).await.unwrap();
        let gone = json!({"Container": "box", "Force": true});
        assert_eq!(daemon.last(), ("POST /networks/net/disconnect".to_owned(), gone));
        assert!(Line::try_parse_from(["network", "connect", "--ip", "fd00::9", "net", "box"]).is_err());
    }
}
