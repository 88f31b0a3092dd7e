//! `node inspect --pretty` (NOD-08).

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use crate::{
    client::Client,
    command::{each, quantity::memory_text, table::title_case, terminal},
};

pub async fn run(nodes: &[String], client: &Client) -> Result<()> {
    each(nodes, async |name| {
        let node: Value = client.get(super::target(name, client).await?).await?;
        Ok(terminal::print(&text(&node))?)
    })
    .await
}

fn text(node: &Value) -> String {
    let at = |path: &str| node.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let mut out = String::new();
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(out, "{:<24}{value}", format!("{key}:"));
    };
    line("ID", at("/ID"));
    line("Hostname", at("/Description/Hostname"));
    line("Joined at", at("/CreatedAt"));
    for (key, value) in node["Spec"]["Labels"].as_object().into_iter().flatten() {
        line("Label", &format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    line("Status", "");
    line(" State", &title_case(at("/Status/State")));
    if !at("/Status/Message").is_empty() {
        line(" Message", at("/Status/Message"));
    }
    line(" Availability", &title_case(at("/Spec/Availability")));
    line(" Address", at("/Status/Addr"));
    if let Some(manager) = node.get("ManagerStatus").filter(|status| status.is_object()) {
        line("Manager Status", "");
        line(" Address", at("/ManagerStatus/Addr"));
        line(" Raft Status", &title_case(at("/ManagerStatus/Reachability")));
        line(" Leader", if manager["Leader"].as_bool() == Some(true) { "Yes" } else { "No" });
    }
    line("Platform", "");
    line(" Operating System", at("/Description/Platform/OS"));
    line(" Architecture", at("/Description/Platform/Architecture"));
    let resources = &node["Description"]["Resources"];
    line("Resources", "");
    line(" CPUs", &(resources["NanoCPUs"].as_u64().unwrap_or(0) / 1_000_000_000).to_string());
    line(" Memory", &memory_text(resources["MemoryBytes"].as_u64().unwrap_or(0)));
    line("Engine Version", at("/Description/Engine/EngineVersion"));
    out.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// NOD-08
    #[test]
    fn a_node_is_readable() {
        let node = json!({"ID": "n1", "Spec": {"Availability": "drain", "Labels": {"disk": "ssd"}},
            "Status": {"State": "ready", "Addr": "10.0.0.1"}, "Description": {"Hostname": "host1",
            "Platform": {"OS": "linux", "Architecture": "amd64"},
            "Resources": {"NanoCPUs": 2_000_000_000_u64, "MemoryBytes": 1_073_741_824}}});
        let text = text(&node);
        let shown: Vec<_> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for line in [
            "ID: n1",
            "Hostname: host1",
            "Label: disk=ssd",
            "Status:",
            "State: Ready",
            "Availability: Drain",
            "CPUs: 2",
            "Memory: 1GiB",
        ] {
            assert!(shown.iter().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("Manager Status"));
    }
}
