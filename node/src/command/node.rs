//! `node`: the cluster's nodes.

mod pretty;
mod update;

use std::collections::BTreeSet;

use anyhow::Result;
use clap::Subcommand;
use serde_json::Value;

use super::{
    each, inspect, options,
    table::{Table, title_case},
    tasks,
    terminal::{self, print, say},
};
use crate::client::{
    Client, ClientError, Target,
    model::{self, Node},
};

/// See and change the cluster's nodes
#[derive(Subcommand)]
pub enum Command {
    /// List nodes
    Ls {
        /// Only those that match, such as role=manager (repeatable)
        #[arg(short, long = "filter", value_name = "KEY=VALUE")]
        filters: Vec<String>,
        /// Only ids
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show all that is known of nodes
    Inspect {
        /// For people
        #[arg(long)]
        pretty: bool,
        /// Ids or host names; self is the node that answers
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// List the tasks of nodes
    Ps {
        #[command(flatten)]
        show: tasks::Show,
        /// Ids or host names; self is the node that answers
        #[arg(value_name = "NODE", default_value = "self")]
        nodes: Vec<String>,
    },
    /// Change a node: its labels, its role, whether it takes tasks
    Update(update::Args),
    /// Make workers managers
    Promote {
        /// Ids or host names
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Make managers workers
    Demote {
        /// Ids or host names
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Remove nodes that have left
    Rm {
        /// Also where the node is not down
        #[arg(short, long)]
        force: bool,
        /// Ids or host names
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
}

/// `covey node …`
pub async fn run(command: Command, client: &Client) -> Result<()> {
    match command {
        Command::Ls { filters, quiet } => ls(&filters, quiet, client).await,
        Command::Inspect { pretty, nodes } if pretty => pretty::run(&nodes, client).await,
        Command::Inspect { nodes, .. } => {
            inspect::print("node", &nodes, async |name| client.get(target(name, client).await?).await).await
        }
        Command::Ps { show, nodes } => ps(&show, &nodes, client).await,
        Command::Update(args) => update::run(args, client).await,
        Command::Promote { nodes } => update::set_role(&nodes, "manager", client).await,
        Command::Demote { nodes } => update::set_role(&nodes, "worker", client).await,
        Command::Rm { force, nodes } => {
            each(&nodes, async |name| {
                client.delete::<Value>(Target::new(&["nodes", name]).with_flag("force", force)).await?;
                Ok(say(name)?)
            })
            .await
        }
    }
}

/// Where a node is asked for; `self` is the one that answers (NOD-09).
pub async fn target(name: &str, client: &Client) -> Result<Target, ClientError> {
    Ok(Target::new(&["nodes", &id_or_name(name, client).await?]))
}

/// The name as it is, the id of the node that answers for `self`.
pub async fn id_or_name(name: &str, client: &Client) -> Result<String, ClientError> {
    if name != "self" {
        return Ok(name.to_owned());
    }
    own_id(client).await
}

async fn own_id(client: &Client) -> Result<String, ClientError> {
    let info: Value = client.get(Target::new(&["info"])).await?;
    Ok(info["Swarm"]["NodeID"].as_str().unwrap_or_default().to_owned())
}

async fn ls(filters: &[String], quiet: bool, client: &Client) -> Result<()> {
    let filters = filters.iter().map(|text| options::filter(text)).collect::<Result<Vec<_>>>()?;
    let mut nodes: Vec<Node> = client.get(Target::new(&["nodes"]).with_filters(&filters)).await?;
    nodes.sort_by(|a, b| (&a.description.hostname, &a.id).cmp(&(&b.description.hostname, &b.id)));
    if quiet {
        return Ok(print(&nodes.iter().map(|node| format!("{}\n", node.id)).collect::<String>())?);
    }
    let own = own_id(client).await?;
    print(&text(&nodes, &own))?;
    terminal::warn(&notices(&nodes));
    Ok(())
}

/// What is said of hosts that are down beside that, such as that too many vanished at once: each sentence once.
fn notices(nodes: &[Node]) -> Vec<String> {
    let said = nodes.iter().filter_map(|node| node.status.message.split_once("; "));
    said.map(|(_, notice)| notice.to_owned()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// NOD-01
fn text(nodes: &[Node], own: &str) -> String {
    let mut table =
        Table::new(["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "ENGINE VERSION"]);
    for node in nodes {
        let manager = node.manager_status.as_ref();
        table.row([
            if node.id == own { format!("{} *", node.id) } else { node.id.clone() },
            node.description.hostname.clone(),
            title_case(&node.status.state),
            title_case(&node.spec.availability),
            manager
                .map(|m| if m.leader { "Leader".to_owned() } else { title_case(&m.reachability) })
                .unwrap_or_default(),
            node.description.engine.engine_version.clone(),
        ]);
    }
    table.text()
}

async fn ps(show: &tasks::Show, nodes: &[String], client: &Client) -> Result<()> {
    let mut found = Vec::new();
    let outcome = each(nodes, async |name| {
        let node: Node = client.get(target(name, client).await?).await?;
        found.push(node);
        Ok(())
    })
    .await;
    let ids: Vec<_> = found.iter().map(|node| ("node", node.id.as_str())).collect();
    if !ids.is_empty() {
        let services: Vec<model::Service> = client.get(Target::new(&["services"])).await?;
        tasks::print(
            &ids,
            services.into_iter().map(|service| (service.id, service.spec.name)).collect(),
            show,
            client,
        )
        .await?;
    }
    outcome
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// NOD-01, NOD-02, NOD-04
    #[test]
    fn what_is_said_of_many_hosts_is_said_once() {
        let down = |message: &str| -> Node {
            serde_json::from_value(json!({"Status": {"State": "down", "Message": message}})).unwrap()
        };
        let lost = "heartbeat failure; 3 of 4 hosts vanished";
        assert_eq!(notices(&[down(lost), down("heartbeat failure"), down(lost)]), ["3 of 4 hosts vanished"]);
    }

    #[test]
    fn the_table_marks_the_node_that_answered() {
        let nodes: Vec<Node> = serde_json::from_value(json!([
            {"ID": "bgzqx2cfsf05qdradxytmdcp3", "Spec": {"Availability": "active"}, "Status": {"State": "ready"},
             "Description": {"Hostname": "m1", "Engine": {"EngineVersion": "0.1.0"}},
             "ManagerStatus": {"Leader": true, "Reachability": "reachable", "Addr": "10.0.0.1:2377"}},
            {"ID": "cgzqx2cfsf05qdradxytmdcp3", "Spec": {"Availability": "drain"}, "Status": {"State": "unknown"},
             "Description": {"Hostname": "m2"}, "ManagerStatus": {"Reachability": "unreachable"}},
            {"ID": "dgzqx2cfsf05qdradxytmdcp3", "Spec": {"Availability": "pause"}, "Status": {"State": "down"},
             "Description": {"Hostname": "worker-1"}}
        ]))
        .unwrap();
        let expected = "\
ID                            HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION
bgzqx2cfsf05qdradxytmdcp3 *   m1         Ready     Active         Leader           0.1.0
cgzqx2cfsf05qdradxytmdcp3     m2         Unknown   Drain          Unreachable
dgzqx2cfsf05qdradxytmdcp3     worker-1   Down      Pause
";
        assert_eq!(text(&nodes, "bgzqx2cfsf05qdradxytmdcp3"), expected);
    }
}
