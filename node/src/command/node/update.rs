//! `node update`, `promote` and `demote`: the whole spec is sent back, changed.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::{
    client::{Client, Target},
    command::{each, options, terminal::say},
};

#[derive(clap::Args)]
pub struct Args {
    /// Whether the node takes tasks: active, pause (no new ones) or drain (none)
    #[arg(long, value_name = "STATE", value_parser = ["active", "pause", "drain"])]
    availability: Option<String>,
    /// A label: KEY or KEY=VALUE (repeatable)
    #[arg(long, value_name = "LABEL")]
    label_add: Vec<String>,
    /// Remove a label (repeatable)
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// worker or manager
    #[arg(long, value_parser = ["worker", "manager"])]
    role: Option<String>,
    /// Id or host name; self is the node that answers
    node: String,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    let mut node: Value = client.get(super::target(&args.node, client).await?).await?;
    let before = node["Spec"].clone();
    edit(&mut node["Spec"], &args)?;
    if node["Spec"] == before && args.availability.is_none() && args.role.is_none() {
        bail!("nothing to update: see 'covey node update --help'");
    }
    send(&node, client).await?;
    Ok(say(args.node)?)
}

fn edit(spec: &mut Value, args: &Args) -> Result<()> {
    if let Some(availability) = &args.availability {
        spec["Availability"] = json!(availability);
    }
    if let Some(role) = &args.role {
        spec["Role"] = json!(role);
    }
    let added = options::labels(&args.label_add)?;
    if !spec["Labels"].is_object() {
        spec["Labels"] = json!({});
    }
    if let Some(labels) = spec["Labels"].as_object_mut() {
        for key in &args.label_rm {
            if labels.remove(key).is_none() {
                bail!("key {key} doesn't exist in node's labels");
            }
        }
        labels.extend(added.into_iter().map(|(key, value)| (key, json!(value))));
    }
    Ok(())
}

/// Gives nodes a role (NOD-16, NOD-17).
pub async fn set_role(names: &[String], role: &str, client: &Client) -> Result<()> {
    each(names, async |name| {
        let mut node: Value = client.get(super::target(name, client).await?).await?;
        if node["Spec"]["Role"] == role {
            return Ok(say(format!("Node {name} is already a {role}."))?);
        }
        node["Spec"]["Role"] = json!(role);
        send(&node, client).await?;
        let done = match role {
            "manager" => format!("Node {name} promoted to a manager in the swarm."),
            _ => format!("Manager {name} demoted in the swarm."),
        };
        Ok(say(done)?)
    })
    .await
}

async fn send(node: &Value, client: &Client) -> Result<()> {
    let target = Target::new(&["nodes", node["ID"].as_str().unwrap_or_default(), "update"])
        .with("version", node["Version"]["Index"].as_u64().unwrap_or(0));
    Ok(client.send_json(target, &node["Spec"]).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::fake::{Daemon, Reply};

    fn node() -> Value {
        json!({"ID": "n1", "Version": {"Index": 9},
            "Spec": {"Name": "x", "Role": "worker", "Availability": "active", "Labels": {"a": "1"}, "New": true}})
    }

    fn args(label_add: &[&str], label_rm: &[&str]) -> Args {
        let texts = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let (label_add, label_rm) = (texts(label_add), texts(label_rm));
        Args { availability: None, label_add, label_rm, role: None, node: "host1".into() }
    }

    /// NOD-11, NOD-21
    #[tokio::test]
    async fn an_update_changes_what_was_asked_and_nothing_else() {
        let daemon = Daemon::start([
            ("GET /nodes/host1", Reply::Json(node())),
            ("POST /nodes/n1/update", Reply::Json(json!({}))),
        ]);
        let args = Args { availability: Some("drain".into()), ..args(&["gpu", "disk=ssd"], &["a"]) };
        run(args, &daemon.client()).await.unwrap();
        let (line, body) = daemon.last();
        assert_eq!(line, "POST /nodes/n1/update?version=9");
        let labels = json!({"gpu": "", "disk": "ssd"});
        assert_eq!(
            body,
            json!({"Name": "x", "Role": "worker", "Availability": "drain", "Labels": labels, "New": true})
        );
    }

    /// NOD-21
    #[test]
    fn a_label_that_is_not_there_cannot_be_removed() {
        let mut spec = node()["Spec"].clone();
        assert!(edit(&mut spec, &args(&[], &["b"])).unwrap_err().to_string().contains("key b"));
    }

    /// NOD-16: the others are promoted although one is not there.
    #[tokio::test]
    async fn promotion_goes_on_after_an_error() {
        let daemon = Daemon::start([
            ("GET /nodes/n1", Reply::Json(node())),
            ("POST /nodes/n1/update", Reply::Json(json!({}))),
        ]);
        let names = ["gone", "n1"].map(str::to_owned);
        assert!(set_role(&names, "manager", &daemon.client()).await.is_err());
        assert_eq!(daemon.last().1["Role"], "manager");
    }
}
