//! `service create` (SVC-01, SVC-02).

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use super::{attach, edit, image, names, settings::Settings};
use crate::{
    client::{Client, Target, model::Created},
    command::{mount, options, publish, terminal},
};

#[derive(clap::Args)]
pub struct Args {
    /// Name of the service
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    settings: Settings,
    /// KEY=VALUE, or KEY to take this shell's value (repeatable)
    #[arg(short, long, value_name = "VARIABLE", help_heading = "Container")]
    env: Vec<String>,
    /// A file of variables, one a line (repeatable)
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    env_file: Vec<PathBuf>,
    /// A label of the containers: KEY or KEY=VALUE (repeatable)
    #[arg(long, value_name = "LABEL", help_heading = "Container")]
    container_label: Vec<String>,
    /// type=bind,source=…,target=…[,readonly] or type=tmpfs,target=… (repeatable)
    #[arg(long, value_name = "MOUNT", help_heading = "Container")]
    mount: Vec<String>,
    /// A label of the service: KEY or KEY=VALUE (repeatable)
    #[arg(short, long, value_name = "LABEL")]
    label: Vec<String>,
    /// Only on nodes with node.id, node.hostname, node.role or node.labels.KEY == or != VALUE (repeatable)
    #[arg(long, value_name = "CONSTRAINT")]
    constraint: Vec<String>,
    /// [[IP:]PORT:]PORT-OF-THE-CONTAINER[/tcp|udp|sctp], or target=…[,published=…,protocol=…,mode=ingress|host]
    /// (repeatable)
    #[arg(short, long, value_name = "PORT", help_heading = "Network")]
    publish: Vec<String>,
    /// NAME, or name=NAME,alias=… to have more names there (repeatable)
    #[arg(long, value_name = "NETWORK", help_heading = "Network")]
    network: Vec<String>,
    #[command(flatten)]
    names: names::Wanted,
    /// A setting of the kernel that the tasks have for themselves, such as net.core.somaxconn=1024 (repeatable)
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Network")]
    sysctl: Vec<String>,
    #[command(flatten)]
    terminal: options::Terminal,
    /// Name of the image
    image: String,
    /// Arguments of the image's program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    args.terminal.refuse()?;
    let mut spec = spec(&args)?;
    attach::change(&mut spec, &args.network, &[], client).await?;
    image::set(&mut spec, &args.image, !args.settings.no_resolve_image, client).await?;
    let created: Created = client.post_json(Target::new(&["services", "create"]), &spec).await?;
    terminal::warn(&created.warnings);
    terminal::say(&created.id)?;
    args.settings.wait.until_done(&created.id, client).await
}

/// The spec, without its image.
fn spec(args: &Args) -> Result<Value> {
    let mut spec = json!({
        "Name": args.name.as_deref().unwrap_or_default(),
        "Labels": options::labels(&args.label)?,
        "TaskTemplate": {"ContainerSpec": {}},
        "Mode": {"Replicated": {"Replicas": 1}},
    });
    args.settings.apply(&mut spec)?;
    if !args.args.is_empty() {
        spec["TaskTemplate"]["ContainerSpec"]["Args"] = json!(args.args);
    }
    args.names.apply(&mut spec)?;
    edit::labels(&mut spec, "TaskTemplate/ContainerSpec/Sysctls", options::labels(&args.sysctl)?, &[]);
    edit::environment(&mut spec, &options::environment(&args.env_file, &args.env)?, &[])?;
    edit::labels(
        &mut spec,
        "TaskTemplate/ContainerSpec/Labels",
        options::labels(&args.container_label)?,
        &[],
    );
    edit::constraints(&mut spec, &args.constraint, &[])?;
    edit::mounts(&mut spec, args.mount.iter().map(|text| mount::parse(text)).collect::<Result<_>>()?, &[])?;
    edit::ports(&mut spec, publish::of_service(&args.publish)?, |_| false)?;
    Ok(spec)
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

    fn read(words: &str) -> Args {
        Line::parse_from(["create"].into_iter().chain(words.split_whitespace())).args
    }

    /// SVC-01, SVC-03, SVC-10, SVC-11
    #[tokio::test]
    async fn a_command_line_becomes_a_spec() {
        let daemon = Daemon::start([(
            "POST /services/create",
            Reply::Json(json!({"ID": "9uk4639qpg7npwf3fn2aasksr"})),
        )]);
        let line = "-d --name hello --label a=1 --container-label b=2 -e X=y --constraint node.role==worker \
                    --mount type=tmpfs,target=/tmp --host db:10.0.0.9 --dns-search lan --sysctl net.x=1 --no-resolve-image alpine ping -c 3 docker.com";
        run(read(line), &daemon.client()).await.unwrap();
        let (line, body) = daemon.last();
        assert_eq!(line, "POST /services/create");
        assert_eq!(
            body,
            json!({
                "Name": "hello",
                "Labels": {"a": "1"},
                "Mode": {"Replicated": {"Replicas": 1}},
                "TaskTemplate": {
                    "ContainerSpec": {"Image": "alpine:latest", "Args": ["ping", "-c", "3", "docker.com"],
                        "Hosts": ["10.0.0.9 db"], "DNSConfig": {"Search": ["lan"]}, "Sysctls": {"net.x": "1"}, "Env": ["X=y"], "Labels": {"b": "2"}, "Mounts": [{"Type": "tmpfs", "Target": "/tmp"}]},
                    "Placement": {"Constraints": ["node.role==worker"]},
                },
            })
        );
    }

    /// PRT-01, PRT-06, NET-18, PRT-14
    #[tokio::test]
    async fn ports_and_networks_are_in_the_spec() {
        let daemon = Daemon::start([
            ("GET /networks/front", Reply::Json(json!({"Id": "n1"}))),
            ("POST /services/create", Reply::Json(json!({"ID": "s1"}))),
        ]);
        let line = "-d --name dns -p 53:53 --publish target=53,published=5353,protocol=udp,mode=host \
                    --network name=front,alias=ns --endpoint-mode vip --no-resolve-image dns-cache";
        run(read(line), &daemon.client()).await.unwrap();
        let (_, body) = daemon.last();
        let ports = json!([
            {"Protocol": "tcp", "TargetPort": 53, "PublishedPort": 53, "PublishMode": "ingress"},
            {"Protocol": "udp", "TargetPort": 53, "PublishedPort": 5353, "PublishMode": "host"},
        ]);
        assert_eq!(body["EndpointSpec"], json!({"Mode": "vip", "Ports": ports}));
        assert_eq!(body["TaskTemplate"]["Networks"], json!([{"Target": "n1", "Aliases": ["ns"]}]));
    }

    #[tokio::test]
    async fn what_comes_later_is_refused_before_anything_is_sent() {
        let daemon = Daemon::start([]);
        let error = run(read("-t alpine"), &daemon.client()).await.unwrap_err().to_string();
        assert!(error.starts_with("not yet: "), "{error}");
        let error = run(read("-p 80:0 alpine"), &daemon.client()).await.unwrap_err();
        assert!(format!("{error:#}").starts_with("--publish 80:0: invalid container port '0'"), "{error:#}");
        assert!(daemon.asked().is_empty());
        assert!(Line::try_parse_from(["create", "--mode", "global", "alpine"]).is_err());
    }
}
