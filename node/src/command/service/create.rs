//! `service create` (SVC-01, SVC-02).

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use super::{edit, image, settings::Settings};
use crate::{
    client::{Client, Target, model::Created},
    command::{mount, options, terminal},
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
    /// Attach a network (not yet)
    #[arg(long, value_name = "NETWORK", hide = true)]
    network: Vec<String>,
    #[command(flatten)]
    later: options::Later,
    /// Name of the image
    image: String,
    /// Arguments of the image's program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    options::refuse_networks(&args.network)?;
    args.later.refuse()?;
    let mut spec = spec(&args)?;
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
    edit::environment(&mut spec, &options::environment(&args.env_file, &args.env)?, &[])?;
    edit::labels(
        &mut spec,
        "TaskTemplate/ContainerSpec/Labels",
        options::labels(&args.container_label)?,
        &[],
    );
    edit::constraints(&mut spec, &args.constraint, &[])?;
    edit::mounts(&mut spec, args.mount.iter().map(|text| mount::parse(text)).collect::<Result<_>>()?, &[])?;
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
                    --mount type=tmpfs,target=/tmp --no-resolve-image alpine ping -c 3 docker.com";
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
                        "Env": ["X=y"], "Labels": {"b": "2"}, "Mounts": [{"Type": "tmpfs", "Target": "/tmp"}]},
                    "Placement": {"Constraints": ["node.role==worker"]},
                },
            })
        );
    }

    #[tokio::test]
    async fn what_comes_later_is_refused_before_anything_is_sent() {
        let daemon = Daemon::start([]);
        for line in ["-p 80:80 alpine", "--network net alpine", "-t alpine"] {
            let error = run(read(line), &daemon.client()).await.unwrap_err().to_string();
            assert!(error.starts_with("not yet: "), "{error}");
        }
        assert!(daemon.asked().is_empty());
        assert!(Line::try_parse_from(["create", "--mode", "global", "alpine"]).is_err());
    }
}
