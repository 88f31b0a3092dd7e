//! The table of tasks, of services and of nodes (SVC-21 to SVC-28).

use std::collections::BTreeMap;

use anyhow::Result;
use time::OffsetDateTime;

use super::{
    age, image, moment, node, options, ports,
    table::{Table, short_id, shorten, title_case},
    terminal,
};
use crate::client::{
    Client, Target,
    model::{Node, Task},
};

/// Characters of an error.
const ERROR_MAX: usize = 30;

/// Which tasks are shown, and how.
#[derive(clap::Args, Default)]
pub struct Show {
    /// Only those that match: id=, name=, node= or desired-state= (repeatable)
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
    /// Ids in the place of names
    #[arg(long)]
    no_resolve: bool,
    /// Whole ids, images and errors
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
}

/// Names by id.
pub type Names = BTreeMap<String, String>;

/// Prints the tasks that match one of `of` and the filters of the user.
///
/// # Errors
/// The daemon refused.
pub async fn print(of: &[(&str, &str)], services: Names, show: &Show, client: &Client) -> Result<()> {
    let mut asked = Vec::new();
    for text in &show.filters {
        let (key, value) = options::filter(text)?;
        // Tasks know their node by id only.
        let value = match key {
            "node" => client.get::<Node>(node::target(value, client).await?).await?.id,
            _ => value.to_owned(),
        };
        asked.push((key, value));
    }
    let filters: Vec<_> =
        of.iter().copied().chain(asked.iter().map(|(key, value)| (*key, value.as_str()))).collect();
    let tasks: Vec<Task> = client.get(Target::new(&["tasks"]).with_filters(&filters)).await?;
    let nodes: Vec<Node> = client.get(Target::new(&["nodes"])).await?;
    let nodes = nodes.into_iter().map(|node| (node.id, node.description.hostname)).collect();
    Ok(terminal::print(&text(tasks, &services, &nodes, show, moment::now()))?)
}

fn text(mut tasks: Vec<Task>, services: &Names, nodes: &Names, show: &Show, now: OffsetDateTime) -> String {
    let name = |task: &Task| {
        let service = services.get(&task.service_id).filter(|_| !show.no_resolve).unwrap_or(&task.service_id);
        // A task without a slot is the one of its node (SVC-24).
        let place = if task.slot == 0 { task.node_id.clone() } else { task.slot.to_string() };
        format!("{service}.{place}")
    };
    // SVC-26, SVC-25: by slot; the tasks of one slot in their order, the newest first.
    tasks.sort_by_cached_key(|task| (task.slot, name(task), std::cmp::Reverse(task.created_at)));
    let id = |task: &Task| if show.no_trunc { task.id.clone() } else { short_id(&task.id) };
    if show.quiet {
        return tasks.iter().map(|task| id(task) + "\n").collect();
    }
    let mut table =
        Table::new(["ID", "NAME", "IMAGE", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR", "PORTS"]);
    let mut above = String::new();
    for task in &tasks {
        let name = name(task);
        let image = &task.spec.container_spec.image;
        let state = title_case(&task.status.state);
        table.row([
            id(task),
            if name == above { format!(" \\_ {name}") } else { name.clone() },
            if show.no_trunc { image.clone() } else { image::shown(image) },
            // NOD-25: a node that is gone from the cluster has no name.
            nodes.get(&task.node_id).filter(|_| !show.no_resolve).unwrap_or(&task.node_id).clone(),
            title_case(&task.desired_state),
            format!("{state} {}", age::ago_rfc3339(&task.status.timestamp, now)),
            error(&task.status.err, show.no_trunc),
            ports::of_task(&task.status.port_status.ports),
        ]);
        above = name;
    }
    table.text()
}

/// SVC-23
fn error(text: &str, whole: bool) -> String {
    match text {
        "" => String::new(),
        text if whole => format!("\"{text}\""),
        text => format!("\"{}\"", shorten(text, ERROR_MAX)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tasks() -> Vec<Task> {
        let digest = format!("web:1@sha256:{}", "0".repeat(64));
        let port =
            json!({"Protocol": "udp", "TargetPort": 53, "PublishedPort": 32768, "PublishMode": "host"});
        let task = |id: &str, slot: u64, node: &str, created: &str, state: &str, desired: &str, err: &str| {
            json!({"ID": id, "ServiceID": "s1", "Slot": slot, "NodeID": node, "CreatedAt": created,
                "Spec": {"ContainerSpec": {"Image": digest}}, "DesiredState": desired,
                "Status": {"Timestamp": "1970-01-01T00:00:01Z", "State": state, "Err": err,
                    "PortStatus": {"Ports": if slot == 2 { json!([port]) } else { json!(null) }}}})
        };
        serde_json::from_value(json!([
            task(
                "old00000000000000000000a1",
                1,
                "gone",
                "1970-01-01T00:00:01Z",
                "failed",
                "shutdown",
                "task: non-zero exit (137)"
            ),
            task("two00000000000000000000a2", 2, "n1", "1970-01-01T00:00:01Z", "running", "running", ""),
            task(
                "new00000000000000000000a3",
                1,
                "n1",
                "1970-01-01T00:00:02Z",
                "pending",
                "running",
                "no suitable node (2 not available, 1 lacks memory)"
            ),
        ]))
        .unwrap()
    }

    fn shown(show: &Show) -> String {
        let names = |id: &str, name: &str| Names::from([(id.to_owned(), name.to_owned())]);
        let now = OffsetDateTime::from_unix_timestamp(45).unwrap();
        text(tasks(), &names("s1", "web"), &names("n1", "host1"), show, now)
    }

    /// SVC-21, SVC-22, SVC-23, SVC-25, NOD-25, PRT-08
    #[test]
    fn old_tasks_stand_under_the_current_one_of_their_slot() {
        let expected = r#"
ID             NAME        IMAGE     NODE      DESIRED STATE   CURRENT STATE            ERROR                              PORTS
new000000000   web.1       web:1     host1     Running         Pending 44 seconds ago   "no suitable node (2 not avail…"
old000000000    \_ web.1   web:1     gone      Shutdown        Failed 44 seconds ago    "task: non-zero exit (137)"
two000000000   web.2       web:1     host1     Running         Running 44 seconds ago                                      *:32768->53/udp
"#;
        assert_eq!(format!("\n{}", shown(&Show::default())), expected);
    }

    /// SVC-28
    #[test]
    fn names_ids_and_errors_can_be_whole() {
        let whole = shown(&Show { no_trunc: true, no_resolve: true, ..Show::default() });
        assert!(whole.contains("new00000000000000000000a3   s1.1"), "{whole}");
        assert!(whole.contains("@sha256:000") && whole.contains("1 lacks memory)\""), "{whole}");
        assert!(!whole.contains("host1"));
        let quiet = shown(&Show { quiet: true, ..Show::default() });
        assert_eq!(quiet, "new000000000\nold000000000\ntwo000000000\n");
    }
}
