//! `service update`: the whole spec is sent back, changed (SVC-42 to SVC-48).

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{attach, edit, image, names, settings::Settings};
use crate::{
    client::Client,
    command::{mount, options, publish, terminal, words},
};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Another image, or another version of it
    #[arg(long, help_heading = "Container")]
    image: Option<String>,
    /// Other arguments of the image's program, as one text: they are split as a shell does
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true, help_heading = "Container")]
    args: Option<String>,
    /// Add or replace a variable: KEY=VALUE, or KEY to take this shell's value (repeatable)
    #[arg(long, value_name = "VARIABLE", help_heading = "Container")]
    env_add: Vec<String>,
    /// Remove a variable by name (repeatable)
    #[arg(long, value_name = "KEY", help_heading = "Container")]
    env_rm: Vec<String>,
    /// Add or replace a label of the containers: KEY or KEY=VALUE (repeatable)
    #[arg(long, value_name = "LABEL", help_heading = "Container")]
    container_label_add: Vec<String>,
    /// Remove a label of the containers (repeatable)
    #[arg(long, value_name = "KEY", help_heading = "Container")]
    container_label_rm: Vec<String>,
    /// Add a mount, or replace the one at its target (repeatable)
    #[arg(long, value_name = "MOUNT", help_heading = "Container")]
    mount_add: Vec<String>,
    /// Remove the mount at this target (repeatable)
    #[arg(long, value_name = "TARGET", help_heading = "Container")]
    mount_rm: Vec<String>,
    /// Add or replace a label of the service: KEY or KEY=VALUE (repeatable)
    #[arg(long, value_name = "LABEL")]
    label_add: Vec<String>,
    /// Remove a label of the service (repeatable)
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// Add a constraint (repeatable)
    #[arg(long, value_name = "CONSTRAINT")]
    constraint_add: Vec<String>,
    /// Remove a constraint (repeatable)
    #[arg(long, value_name = "CONSTRAINT")]
    constraint_rm: Vec<String>,
    /// Publish a port, or change where a published one leads (repeatable)
    #[arg(long, value_name = "PORT", help_heading = "Network")]
    publish_add: Vec<String>,
    /// No longer publish this port of the container: PORT[/tcp|udp|sctp] (repeatable)
    #[arg(long, value_name = "TARGET", help_heading = "Network")]
    publish_rm: Vec<String>,
    /// Attach a network: NAME, or name=NAME,alias=… (repeatable)
    #[arg(long, value_name = "NETWORK", help_heading = "Network")]
    network_add: Vec<String>,
    /// Detach a network (repeatable)
    #[arg(long, value_name = "NETWORK", help_heading = "Network")]
    network_rm: Vec<String>,
    #[command(flatten)]
    names: names::Changes,
    /// Add or replace a setting of the kernel that the tasks have for themselves: KEY=VALUE (repeatable)
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Network")]
    sysctl_add: Vec<String>,
    /// Remove such a setting by name (repeatable)
    #[arg(long, value_name = "KEY", help_heading = "Network")]
    sysctl_rm: Vec<String>,
    /// Replace all tasks although nothing changed
    #[arg(long)]
    force: bool,
    /// Name or id
    service: String,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    let mut service: Value = client.get(super::target(&args.service)).await?;
    let spec = &mut service["Spec"];
    edit(spec, &args)?;
    attach::change(spec, &args.network_add, &args.network_rm, client).await?;
    if let Some(name) = &args.image {
        image::set(spec, name, !args.settings.no_resolve_image, client).await?;
    }
    terminal::warn(&super::send(&service, client).await?);
    terminal::say(&args.service)?;
    args.settings.wait.until_done(service["ID"].as_str().unwrap_or_default(), client).await
}

/// All changes but those that others are asked for: the image, and the networks.
fn edit(spec: &mut Value, args: &Args) -> Result<()> {
    args.settings.apply(spec)?;
    if let Some(line) = &args.args {
        *edit::at(spec, "TaskTemplate/ContainerSpec/Args") = json!(words::split(line).context("--args")?);
    }
    edit::environment(spec, &args.env_add, &args.env_rm)?;
    edit::labels(spec, "Labels", options::labels(&args.label_add)?, &args.label_rm);
    let labels = options::labels(&args.container_label_add)?;
    edit::labels(spec, "TaskTemplate/ContainerSpec/Labels", labels, &args.container_label_rm);
    edit::constraints(spec, &args.constraint_add, &args.constraint_rm)?;
    let mounts = args.mount_add.iter().map(|text| mount::parse(text)).collect::<Result<_>>()?;
    edit::mounts(spec, mounts, &args.mount_rm)?;
    args.names.apply(spec)?;
    let sysctls = options::labels(&args.sysctl_add)?;
    edit::labels(spec, "TaskTemplate/ContainerSpec/Sysctls", sysctls, &args.sysctl_rm);
    edit_ports(spec, args)?;
    if args.force {
        let count = edit::at(spec, "TaskTemplate/ForceUpdate");
        *count = json!(count.as_u64().unwrap_or(0) + 1);
    }
    Ok(())
}

/// PRT-10
fn edit_ports(spec: &mut Value, args: &Args) -> Result<()> {
    let mut gone = Vec::new();
    for text in &args.publish_rm {
        gone.extend(publish::parse(text)?);
    }
    let is_gone = |old: &Value| {
        let is = |key: &str, default: &str, value: &str| old[key].as_str().unwrap_or(default) == value;
        gone.iter().any(|port| {
            old["TargetPort"] == port.target
                && is("Protocol", "tcp", port.protocol)
                && port.mode.is_none_or(|mode| is("PublishMode", "ingress", mode.name()))
        })
    };
    edit::ports(spec, publish::of_service(&args.publish_add)?, is_gone)?;
    // Of what is not said the daemon would keep what it has.
    for port in spec.pointer_mut("/EndpointSpec/Ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if port.get("HostIP").is_none() && !(args.publish_add.is_empty() && args.publish_rm.is_empty()) {
            port["HostIP"] = json!("");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::command::fake::{Daemon, Reply};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn read(words: &[&str]) -> Args {
        Line::parse_from([&["update"], words].concat()).args
    }

    /// SVC-43, SVC-44, SVC-47, SVC-48, UPD-14
    #[tokio::test]
    async fn several_changes_go_in_one_update_and_all_else_stays() {
        let service = json!({"ID": "s1", "Version": {"Index": 12}, "Spec": {
            "Name": "web", "Labels": {"a": "1"}, "Mode": {"Replicated": {"Replicas": 2}}, "Later": {"x": [1]},
            "TaskTemplate": {"ForceUpdate": 3, "Networks": [{"Target": "n"}],
                "ContainerSpec": {"Image": "web:1", "Env": ["A=1", "B=2"], "Secrets": [7]}}}});
        let daemon = Daemon::start([
            ("GET /services/web", Reply::Json(service)),
            ("POST /services/s1/update", Reply::Json(json!({"Warnings": []}))),
        ]);
        let words = [
            "-d",
            "--image",
            "web:2",
            "--no-resolve-image",
            "--env-add",
            "A=3",
            "--env-rm",
            "B",
            "--replicas=5",
            "--args",
            "--port '80 81'",
            "--force",
            "--label-rm",
            "a",
            "web",
        ];
        run(read(&words), &daemon.client()).await.unwrap();
        let (line, body) = daemon.last();
        assert_eq!(line, "POST /services/s1/update?version=12");
        assert_eq!(
            body,
            json!({"Name": "web", "Labels": {}, "Mode": {"Replicated": {"Replicas": 5}}, "Later": {"x": [1]},
                "TaskTemplate": {"ForceUpdate": 4, "Networks": [{"Target": "n"}],
                    "ContainerSpec": {"Image": "web:2", "Env": ["A=3"], "Secrets": [7], "Args": ["--port", "80 81"]}}})
        );
    }

    /// PRT-10
    #[test]
    fn ports_are_removed_by_the_port_of_the_container() {
        let port = |protocol: &str, target: u16, published: u16, mode: &str| {
            json!({"Protocol": protocol, "TargetPort": target, "PublishedPort": published, "PublishMode": mode,
                "HostIP": ""})
        };
        let edited = |words: &[&str]| {
            let old = [
                port("tcp", 53, 53, "ingress"),
                port("udp", 53, 53, "ingress"),
                port("tcp", 53, 5353, "host"),
            ];
            let mut spec = json!({"EndpointSpec": {"Ports": old}});
            edit(&mut spec, &read(words)).unwrap();
            spec["EndpointSpec"]["Ports"].clone()
        };
        assert_eq!(edited(&["--publish-rm", "53", "dns"]), json!([port("udp", 53, 53, "ingress")]));
        assert_eq!(edited(&["--publish-rm", "53/udp", "dns"]).as_array().unwrap().len(), 2);
        let host = edited(&["--publish-rm", "target=53,mode=host", "--publish-add", "8080:80", "dns"]);
        assert_eq!(host.as_array().unwrap().len(), 3);
        assert_eq!(host[2], port("tcp", 80, 8080, "ingress"));
        assert!(edit(&mut json!({}), &read(&["--publish-rm", "dns:x", "dns"])).is_err());
    }

    /// SVC-48
    #[test]
    fn names_and_settings_of_the_kernel_are_changed_with_all_else() {
        let mut spec = json!({"TaskTemplate": {"ContainerSpec": {"Sysctls": {"net.x": "1", "net.y": "2"}}}});
        let words = [
            "--sysctl-add",
            "net.x=3",
            "--sysctl-rm",
            "net.y",
            "--host-add",
            "db:10.0.0.9",
            "--dns-add",
            "1.1.1.1",
        ];
        edit(&mut spec, &read(&[&words[..], &["web"]].concat())).unwrap();
        let expected = json!({"Sysctls": {"net.x": "3"}, "Hosts": ["10.0.0.9 db"], "DNSConfig": {"Nameservers": ["1.1.1.1"]}});
        assert_eq!(spec["TaskTemplate"]["ContainerSpec"], expected);
    }

    /// SVC-34
    #[tokio::test]
    async fn a_service_that_is_not_there_is_told() {
        let daemon = Daemon::start([("GET /services/web", Reply::Refuse(404, "service web not found"))]);
        let error = run(read(&["--force", "web"]), &daemon.client()).await.unwrap_err();
        assert_eq!(error.to_string(), "Error response from daemon: service web not found");
    }
}
