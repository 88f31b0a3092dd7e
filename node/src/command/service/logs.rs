//! `service logs`: what the tasks wrote, each line behind the name of its task (SVC-52).

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use anyhow::{Context, Result};

use crate::{
    client::{
        Client, Target,
        frames::{self, Channel},
        model::{Node, Service, Task},
    },
    command::{container::logs::Window, table::short_id},
};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    window: Window,
    /// Ids in the place of names
    #[arg(long)]
    no_resolve: bool,
    /// Whole ids of tasks
    #[arg(long)]
    no_trunc: bool,
    /// The lines as they were written
    #[arg(long)]
    raw: bool,
    /// Name or id of a service, or id of a task
    service: String,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    let noun = match client.get::<Service>(super::target(&args.service)).await {
        Ok(_) => "services",
        Err(error) if error.is_not_found() => {
            // Where it is no task either, the service is what was meant.
            client.get::<Task>(Target::new(&["tasks", &args.service])).await.map_err(|_| error)?;
            "tasks"
        }
        Err(error) => return Err(error.into()),
    };
    let target = args.window.add_to(Target::new(&[noun, &args.service, "logs"]))?;
    let mut reply = client.stream(target.with_flag("details", !args.raw)).await?;
    let mut names = Names { args: &args, client, tasks: BTreeMap::new() };
    while let Some((channel, piece)) = frames::next(&mut reply).await? {
        let line = if args.raw { piece.clone() } else { names.line(&piece).await? };
        match channel {
            Channel::Output => io::stdout().lock().write_all(&line)?,
            Channel::Error => io::stderr().lock().write_all(&line)?,
            Channel::Failure => return Err(frames::failure(&piece).into()),
        }
    }
    Ok(())
}

/// What stands in front of the lines of each task.
struct Names<'a> {
    args: &'a Args,
    client: &'a Client,
    tasks: BTreeMap<String, String>,
}

impl Names<'_> {
    async fn line(&mut self, piece: &[u8]) -> Result<Vec<u8>> {
        let Line { time, task, node, text } = split(piece, self.args.window.timestamps)
            .context("a line of the log does not say whose it is")?;
        if !self.tasks.contains_key(task) {
            let name = self.name(task, node).await;
            self.tasks.insert(task.to_owned(), name);
        }
        let name = self.tasks.get(task).map(String::as_str).unwrap_or_default();
        let time = time.map(|time| format!("{time} ")).unwrap_or_default();
        Ok([time.as_bytes(), name.as_bytes(), b"    | ", text].concat())
    }

    /// `web.1.9uk4639qpg7n@host1`; what is gone from the cluster is shown by its id.
    async fn name(&self, id: &str, node: &str) -> String {
        let shown = if self.args.no_trunc { id.to_owned() } else { short_id(id) };
        let task: Task = self.client.get(Target::new(&["tasks", id])).await.unwrap_or_default();
        let (mut service, mut host) = (task.service_id.clone(), node.to_owned());
        if !self.args.no_resolve {
            if let Ok(found) = self.client.get::<Service>(super::target(&task.service_id)).await {
                service = found.spec.name;
            }
            if let Ok(found) = self.client.get::<Node>(Target::new(&["nodes", node])).await {
                host = found.description.hostname;
            }
        }
        match service.as_str() {
            "" => format!("{shown}@{host}"),
            service => format!("{service}.{}.{shown}@{host}", task.slot),
        }
    }
}

/// A line as the daemon sends it: `[TIME ]KEY=VALUE,KEY=VALUE TEXT`.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    time: Option<&'a str>,
    task: &'a str,
    node: &'a str,
    text: &'a [u8],
}

fn split(piece: &[u8], timed: bool) -> Option<Line<'_>> {
    let word = |from: &'_ [u8]| -> Option<usize> { from.iter().position(|byte| *byte == b' ') };
    let (mut time, mut rest) = (None, piece);
    if timed {
        let end = word(rest)?;
        time = Some(std::str::from_utf8(&rest[..end]).ok()?);
        rest = &rest[end + 1..];
    }
    let end = word(rest)?;
    let context = std::str::from_utf8(&rest[..end]).ok()?;
    let value = |key: &str| {
        context
            .split(',')
            .find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key).map(|(_, v)| v))
    };
    let (task, node) = (value("com.docker.swarm.task.id")?, value("com.docker.swarm.node.id")?);
    Some(Line { time, task, node, text: &rest[end + 1..] })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::command::fake::{Daemon, Reply};

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        args: Args,
    }

    const CONTEXT: &str =
        "com.docker.swarm.node.id=n1,com.docker.swarm.service.id=s1,com.docker.swarm.task.id=t1";

    /// SVC-52
    #[test]
    fn a_line_says_whose_it_is() {
        let piece = format!("{CONTEXT} hello  world\n");
        let line = Line { time: None, task: "t1", node: "n1", text: b"hello  world\n" };
        assert_eq!(split(piece.as_bytes(), false), Some(line));
        let piece = format!("2026-01-01T00:00:00.000000000Z {CONTEXT} \n");
        let line = split(piece.as_bytes(), true).unwrap();
        assert_eq!((line.time, line.text), (Some("2026-01-01T00:00:00.000000000Z"), &b"\n"[..]));
        assert_eq!(split(b"hello world\n", false), None);
    }

    /// SVC-52, SVC-24
    #[tokio::test]
    async fn a_line_stands_behind_the_name_of_its_task() {
        let daemon = Daemon::start([
            ("GET /tasks/t1", Reply::Json(json!({"ID": "t1", "ServiceID": "s1", "Slot": 2}))),
            ("GET /services/s1", Reply::Json(json!({"Spec": {"Name": "web"}}))),
            ("GET /nodes/n1", Reply::Json(json!({"Description": {"Hostname": "host1"}}))),
        ]);
        let (client, args) = (daemon.client(), Options::parse_from(["logs", "web"]).args);
        let mut names = Names { args: &args, client: &client, tasks: BTreeMap::new() };
        let piece = format!("{CONTEXT} hello\n");
        for _ in 0..2 {
            assert_eq!(names.line(piece.as_bytes()).await.unwrap(), b"web.2.t1@host1    | hello\n");
        }
        assert_eq!(daemon.asked().len(), 3, "names are asked for once");
        let gone = piece.replace("t1", "t9").replace("n1", "n9");
        assert_eq!(names.line(gone.as_bytes()).await.unwrap(), b"t9@n9    | hello\n");
        assert!(names.line(b"no context\n").await.is_err());
    }
}
