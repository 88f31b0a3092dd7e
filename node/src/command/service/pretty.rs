//! `service inspect --pretty` (SVC-31).

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use crate::{
    client::{Client, Target, model::Network},
    command::{
        age, health, image, inspect, moment,
        quantity::{duration_text, memory_text},
        table::title_case,
        terminal,
    },
};
use time::OffsetDateTime;

pub async fn run(services: &[String], client: &Client) -> Result<()> {
    for (at, service) in services.iter().enumerate() {
        let found: Value = match client.get(super::target(service)).await {
            Err(error) if error.is_not_found() => return inspect::missing("service", service),
            found => found?,
        };
        let gap = if at == 0 { "" } else { "\n" };
        let networks = networks(&found, client).await?;
        terminal::print(&format!("{gap}{}", text(&found, &networks, moment::now())))?;
    }
    Ok(())
}

/// The names of the networks that it is on; the id of one that is gone.
async fn networks(service: &Value, client: &Client) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for attached in service["Spec"]["TaskTemplate"]["Networks"].as_array().into_iter().flatten() {
        let id = attached["Target"].as_str().unwrap_or_default();
        names.push(match client.get::<Network>(Target::new(&["networks", id])).await {
            Err(error) if error.is_not_found() => id.to_owned(),
            found => found?.name,
        });
    }
    Ok(names)
}

struct Lines(String);

impl Lines {
    fn add(&mut self, key: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{}", format!("{:<15} {value}", format!("{key}:")).trim_end());
    }

    /// A line for each value; none where there are none.
    fn list(&mut self, key: &str, values: &Value) {
        let texts: Vec<_> = values.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !texts.is_empty() {
            self.add(key, texts.join(" "));
        }
    }

    fn some(&mut self, key: &str, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.add(key, text);
        }
    }

    fn number(&mut self, key: &str, value: &Value, show: impl Fn(i64) -> String) {
        if let Some(number) = value.as_i64().filter(|number| *number != 0) {
            self.add(key, show(number));
        }
    }
}

fn text(service: &Value, networks: &[String], now: OffsetDateTime) -> String {
    let spec = &service["Spec"];
    let task = &spec["TaskTemplate"];
    let mut out = Lines(String::new());
    out.some("ID", &service["ID"]);
    out.some("Name", &spec["Name"]);
    labels(&mut out, "Labels", &spec["Labels"]);
    let mode = &spec["Mode"]["Replicated"];
    out.add("Service Mode", if mode.is_object() { "Replicated" } else { "Global" });
    if let Some(replicas) = mode["Replicas"].as_u64() {
        out.add(" Replicas", replicas);
    }
    update_status(&mut out, &service["UpdateStatus"], now);
    out.add("Placement", "");
    out.list(" Constraints", &task["Placement"]["Constraints"]);
    update_config(&mut out, &spec["UpdateConfig"]);
    container(&mut out, &task["ContainerSpec"]);
    resources(&mut out, &task["Resources"]);
    if !networks.is_empty() {
        out.add("Networks", networks.join(" "));
    }
    out.some("Endpoint Mode", &service["Endpoint"]["Spec"]["Mode"]);
    ports(&mut out, &service["Endpoint"]["Ports"]);
    errors(&mut out, &service["Endpoint"]["Errors"]);
    out.0
}

fn update_status(out: &mut Lines, status: &Value, now: OffsetDateTime) {
    let Some(state) = status["State"].as_str() else { return };
    out.add("UpdateStatus", "");
    out.add(" State", state);
    for (key, field) in [(" Started", "StartedAt"), (" Completed", "CompletedAt")] {
        if let Some(at) = status[field].as_str() {
            out.add(key, age::ago_rfc3339(at, now));
        }
    }
    out.some(" Message", &status["Message"]);
}

fn update_config(out: &mut Lines, config: &Value) {
    if !config.is_object() {
        return;
    }
    out.add("UpdateConfig", "");
    out.add(" Parallelism", config["Parallelism"].as_u64().unwrap_or(0));
    out.number(" Delay", &config["Delay"], duration_text);
    out.some(" On failure", &config["FailureAction"]);
    out.number(" Monitoring Period", &config["Monitor"], duration_text);
    out.add(" Max failure ratio", config["MaxFailureRatio"].as_f64().unwrap_or(0.0));
    out.some(" Update order", &config["Order"]);
}

fn container(out: &mut Lines, container: &Value) {
    out.add("ContainerSpec", "");
    out.add(" Image", image::shown(container["Image"].as_str().unwrap_or_default()));
    out.list(" Command", &container["Command"]);
    out.list(" Args", &container["Args"]);
    out.list(" Env", &container["Env"]);
    out.some(" Dir", &container["Dir"]);
    out.some(" User", &container["User"]);
    out.some(" Hostname", &container["Hostname"]);
    labels(out, " Labels", &container["Labels"]);
    let check = health::lines(&container["Healthcheck"]);
    if !check.is_empty() {
        out.add(" Healthcheck", "");
    }
    for (title, text) in check {
        out.add(&format!("  {title}"), text);
    }
    let mounts = container["Mounts"].as_array().map_or(&[][..], Vec::as_slice);
    if !mounts.is_empty() {
        out.add(" Mounts", "");
    }
    for mount in mounts {
        let text = |key: &str| mount[key].as_str().unwrap_or_default().to_owned();
        let read_only = if mount["ReadOnly"].as_bool() == Some(true) { ", read-only" } else { "" };
        let source =
            if text("Source").is_empty() { String::new() } else { format!("{} on ", text("Source")) };
        out.add("  Target", format!("{source}{} ({}{read_only})", text("Target"), title_case(&text("Type"))));
    }
}

fn ports(out: &mut Lines, ports: &Value) {
    let ports = ports.as_array().map_or(&[][..], Vec::as_slice);
    if !ports.is_empty() {
        out.add("Ports", "");
    }
    for port in ports {
        let number = |key: &str| port[key].as_u64().unwrap_or(0);
        let text = |key: &str| port[key].as_str().unwrap_or_default();
        let _ = writeln!(out.0, " PublishedPort = {}", number("PublishedPort"));
        let _ = writeln!(out.0, "  Protocol = {}", text("Protocol"));
        let _ = writeln!(out.0, "  TargetPort = {}", number("TargetPort"));
        let _ = writeln!(out.0, "  PublishMode = {}", text("PublishMode"));
        if !text("HostIP").is_empty() {
            let _ = writeln!(out.0, "  HostIP = {}", text("HostIP"));
        }
    }
}

/// What keeps it from being reached on some hosts.
fn errors(out: &mut Lines, errors: &Value) {
    let errors = errors.as_array().map_or(&[][..], Vec::as_slice);
    if !errors.is_empty() {
        out.add("Errors", "");
    }
    for error in errors.iter().filter_map(Value::as_str) {
        let _ = writeln!(out.0, " {error}");
    }
}

fn labels(out: &mut Lines, key: &str, labels: &Value) {
    let Some(labels) = labels.as_object().filter(|labels| !labels.is_empty()) else { return };
    out.add(key, "");
    let indent = if key.starts_with(' ') { "  " } else { " " };
    for (name, value) in labels {
        let _ = writeln!(out.0, "{indent}{name}={}", value.as_str().unwrap_or_default());
    }
}

fn resources(out: &mut Lines, resources: &Value) {
    let memory = |bytes: i64| memory_text(bytes.unsigned_abs());
    out.add("Resources", "");
    for (title, field) in [(" Reservations", "Reservations"), (" Limits", "Limits")] {
        let group = &resources[field];
        if group
            .as_object()
            .is_some_and(|fields| fields.values().any(|value| value.as_i64().unwrap_or(0) != 0))
        {
            out.add(title, "");
            out.number("  CPU", &group["NanoCPUs"], cpus);
            out.number("  Memory", &group["MemoryBytes"], memory);
            out.number("  Pids", &group["Pids"], |number| number.to_string());
        }
    }
}

/// Billionths of a CPU as a number with as many decimals as it needs.
fn cpus(nanos: i64) -> String {
    let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// SVC-31, PRT-14, TSK-14
    #[test]
    fn a_service_is_readable() {
        let service = json!({"ID": "s1", "Endpoint": {"Spec": {"Mode": "vip"}, "Ports": [
                {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}],
                "Errors": ["port 8080/tcp is held on w2 by another process"]},
            "UpdateStatus": {"State": "updating", "StartedAt": "1970-01-01T00:00:01Z", "Message": "update in progress"},
            "Spec": {"Name": "web", "Labels": {"a": "1"}, "Mode": {"Replicated": {"Replicas": 3}},
                "UpdateConfig": {"Parallelism": 2, "Delay": 10_000_000_000_i64, "FailureAction": "pause"},
                "TaskTemplate": {"Placement": {"Constraints": ["node.role==worker"]},
                    "ContainerSpec": {"Image": "web:1", "Args": ["ping", "-c", "3"],
                        "Healthcheck": {"Test": ["CMD-SHELL", "wget -q localhost"], "Interval": 10_000_000_000_i64},
                        "Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true}]},
                    "Resources": {"Limits": {"NanoCPUs": 250_000_000, "MemoryBytes": 134_217_728}, "Reservations": {}}}}});
        let expected = "\
ID:             s1
Name:           web
Labels:
 a=1
Service Mode:   Replicated
 Replicas:      3
UpdateStatus:
 State:         updating
 Started:       44 seconds ago
 Message:       update in progress
Placement:
 Constraints:   node.role==worker
UpdateConfig:
 Parallelism:   2
 Delay:         10s
 On failure:    pause
 Max failure ratio: 0
ContainerSpec:
 Image:         web:1
 Args:          ping -c 3
 Healthcheck:
  Test:         wget -q localhost
  Interval:     10s
 Mounts:
  Target:       /a on /b (Bind, read-only)
Resources:
 Limits:
  CPU:          0.25
  Memory:       128MiB
Networks:       front back
Endpoint Mode:  vip
Ports:
 PublishedPort = 8080
  Protocol = tcp
  TargetPort = 80
  PublishMode = ingress
Errors:
 port 8080/tcp is held on w2 by another process
";
        assert_eq!(
            text(
                &service,
                &["front".into(), "back".into()],
                OffsetDateTime::from_unix_timestamp(45).unwrap()
            ),
            expected
        );
    }
}
