//! `info`: the daemon, its machine and its cluster (CLU-18).

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::{
    quantity::{duration_text, memory_text},
    terminal,
};
use crate::client::{Client, Target};

pub async fn run(client: &Client) -> Result<()> {
    let info: Value = client.get(Target::new(&["info"])).await?;
    Ok(terminal::print(&text(&info))?)
}

fn text(info: &Value) -> String {
    let mut out = Lines(String::new());
    for (title, key) in
        [("Containers", "Containers"), (" Running", "ContainersRunning"), (" Paused", "ContainersPaused")]
    {
        out.add(title, &info[key]);
    }
    out.add(" Stopped", &info["ContainersStopped"]);
    out.add("Images", &info["Images"]);
    out.add("Server Version", &info["ServerVersion"]);
    out.add("Storage Driver", &info["Driver"]);
    for pair in list(&info["DriverStatus"]) {
        out.add(&format!(" {}", plain(&pair[0])), &pair[1]);
    }
    out.add("Logging Driver", &info["LoggingDriver"]);
    out.add("Cgroup Driver", &info["CgroupDriver"]);
    out.add("Cgroup Version", &info["CgroupVersion"]);
    out.title("Plugins");
    for kind in ["Volume", "Network", "Log"] {
        let names: Vec<_> = list(&info["Plugins"][kind]).iter().map(plain).collect();
        out.add(&format!(" {kind}"), &names.join(" ").into());
    }
    swarm(&mut out, &info["Swarm"]);
    for (title, key) in MACHINE {
        out.add(title, &info[key]);
    }
    out.add("Total Memory", &memory_text(info["MemTotal"].as_u64().unwrap_or(0)).into());
    out.add("Name", &info["Name"]);
    out.add("ID", &info["ID"]);
    out.add("Docker Root Dir", &info["DockerRootDir"]);
    labels(&mut out, &info["Labels"]);
    for warning in list(&info["Warnings"]) {
        let _ = writeln!(out.0, "{}", plain(warning));
    }
    out.0
}

/// Lines about the machine, with the fields that they show.
const MACHINE: [(&str, &str); 6] = [
    ("Default Runtime", "DefaultRuntime"),
    ("Kernel Version", "KernelVersion"),
    ("Operating System", "OperatingSystem"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
];

fn swarm(out: &mut Lines, swarm: &Value) {
    out.add("Swarm", &swarm["LocalNodeState"]);
    if plain(&swarm["LocalNodeState"]) == "inactive" {
        return;
    }
    out.add(" NodeID", &swarm["NodeID"]);
    if !plain(&swarm["Error"]).is_empty() {
        out.add(" Error", &swarm["Error"]);
    }
    out.add(" Is Manager", &swarm["ControlAvailable"]);
    if swarm["ControlAvailable"].as_bool() == Some(true) {
        cluster(out, swarm);
    }
    out.add(" Node Address", &swarm["NodeAddr"]);
    let managers = list(&swarm["RemoteManagers"]);
    if !managers.is_empty() {
        out.title(" Manager Addresses");
        let mut addresses: Vec<_> = managers.iter().map(|manager| plain(&manager["Addr"])).collect();
        addresses.sort_unstable();
        addresses.iter().for_each(|address| out.title_only(&format!("  {address}")));
    }
}

fn cluster(out: &mut Lines, swarm: &Value) {
    let (cluster, spec) = (&swarm["Cluster"], &swarm["Cluster"]["Spec"]);
    out.add(" ClusterID", &cluster["ID"]);
    out.add(" Managers", &swarm["Managers"]);
    out.add(" Nodes", &swarm["Nodes"]);
    let pools: Vec<_> = list(&cluster["DefaultAddrPool"]).iter().map(plain).collect();
    out.add(" Default Address Pool", &pools.join(" ").into());
    out.add(" SubnetSize", &cluster["SubnetSize"]);
    let edge: Vec<_> = list(&cluster["EdgeAddrPool"]).iter().map(plain).collect();
    if !edge.is_empty() {
        out.add(" Edge Address Pool", &edge.join(" ").into());
        out.add(" Edge Block Size", &cluster["EdgeBlockSize"]);
    }
    out.add(" Data Path Port", &cluster["DataPathPort"]);
    out.title(" Orchestration");
    out.add("  Task History Retention Limit", &spec["Orchestration"]["TaskHistoryRetentionLimit"]);
    out.title(" Raft");
    out.add("  Snapshot Interval", &spec["Raft"]["SnapshotInterval"]);
    out.add("  Heartbeat Tick", &spec["Raft"]["HeartbeatTick"]);
    out.add("  Election Tick", &spec["Raft"]["ElectionTick"]);
    out.title(" Dispatcher");
    out.add("  Heartbeat Period", &nanos(&spec["Dispatcher"]["HeartbeatPeriod"]));
    out.title(" CA Configuration");
    out.add("  Expiry Duration", &nanos(&spec["CAConfig"]["NodeCertExpiry"]));
}

fn labels(out: &mut Lines, labels: &Value) {
    if !list(labels).is_empty() {
        out.title("Labels");
        list(labels).iter().for_each(|label| out.title_only(&format!(" {}", plain(label))));
    }
}

fn nanos(value: &Value) -> Value {
    duration_text(value.as_i64().unwrap_or(0)).into()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A value as a person reads it: texts without quotes, nothing for what is not there.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

struct Lines(String);

impl Lines {
    fn add(&mut self, title: &str, value: &Value) {
        let _ = writeln!(self.0, "{title}: {}", plain(value));
    }

    fn title(&mut self, title: &str) {
        let _ = writeln!(self.0, "{title}:");
    }

    fn title_only(&mut self, text: &str) {
        let _ = writeln!(self.0, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// CLU-18
    #[test]
    fn a_manager_shows_its_cluster() {
        let info = json!({"Containers": 3, "ContainersRunning": 2, "ServerVersion": "0.1.0", "NCPU": 2,
            "MemTotal": 8_336_000_000_u64, "Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"]],
            "Plugins": {"Volume": ["local"], "Network": ["bridge", "host"]},
            "Swarm": {"LocalNodeState": "active", "NodeID": "n1", "ControlAvailable": true, "Managers": 1, "Nodes": 2,
                "NodeAddr": "10.0.0.1", "RemoteManagers": [{"Addr": "10.0.0.1:2377"}],
                "Cluster": {"ID": "c1", "DefaultAddrPool": ["10.0.0.0/8"], "SubnetSize": 24, "DataPathPort": 4789,
                    "EdgeAddrPool": ["100.64.0.0/10"], "EdgeBlockSize": 24, "Spec": {"Dispatcher": {"HeartbeatPeriod": 1_000_000_000}}}}});
        let text = text(&info);
        for line in [
            "Containers: 3",
            " Running: 2",
            " Backing Filesystem: extfs",
            " Network: bridge host",
            "Swarm: active",
            " NodeID: n1",
            " Is Manager: true",
            " ClusterID: c1",
            " Default Address Pool: 10.0.0.0/8",
            " Edge Address Pool: 100.64.0.0/10",
            " Data Path Port: 4789",
            " Managers: 1",
            " Nodes: 2",
            "  Heartbeat Period: 1s",
            "  10.0.0.1:2377",
            "CPUs: 2",
            "Total Memory: 7.764GiB",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    /// CLU-01
    #[test]
    fn a_host_without_a_cluster_says_so() {
        let text = text(&json!({"Swarm": {"LocalNodeState": "inactive"}}));
        assert!(text.contains("Swarm: inactive\n") && !text.contains("NodeID"));
    }
}
