//! `ps`: the containers of this host (CTR-04).

use anyhow::Result;
use time::OffsetDateTime;

use crate::{
    client::{Client, Target, model::Container},
    command::{
        age, moment, options,
        table::{Table, short_id, shorten},
        terminal,
    },
};

/// Characters of a command.
const COMMAND_MAX: usize = 20;

#[derive(clap::Args)]
pub struct Args {
    /// Those that have ended, too
    #[arg(short, long)]
    all: bool,
    /// Only those that match, such as name=web or status=exited (repeatable)
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    let filters = args.filters.iter().map(|text| options::filter(text)).collect::<Result<Vec<_>>>()?;
    let target = Target::new(&["containers", "json"]).with_flag("all", args.all).with_filters(&filters);
    let containers: Vec<Container> = client.get(target).await?;
    Ok(terminal::print(&text(&containers, &args, moment::now()))?)
}

fn text(containers: &[Container], args: &Args, now: OffsetDateTime) -> String {
    let id =
        |container: &Container| if args.no_trunc { container.id.clone() } else { short_id(&container.id) };
    if args.quiet {
        return containers.iter().map(|container| id(container) + "\n").collect();
    }
    let mut table = Table::new(["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    for container in containers {
        let command =
            if args.no_trunc { container.command.clone() } else { shorten(&container.command, COMMAND_MAX) };
        let created = OffsetDateTime::from_unix_timestamp(container.created);
        let names: Vec<_> = container.names.iter().map(|name| name.trim_start_matches('/')).collect();
        table.row([
            id(container),
            container.image.clone(),
            format!("\"{command}\""),
            created.map(|created| age::ago(created, now)).unwrap_or_default(),
            container.status.clone(),
            String::new(),
            names.join(","),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> Args {
        Args { all: false, filters: Vec::new(), no_trunc: false, quiet: false }
    }

    fn containers() -> Vec<Container> {
        vec![Container {
            id: "0123456789abcdef".repeat(4),
            names: vec!["/web".into()],
            image: "alpine:3".into(),
            command: "sleep 1000000000000000000".into(),
            created: 940,
            status: "Up 59 seconds".into(),
        }]
    }

    /// CTR-04
    #[test]
    fn the_table_has_dockers_columns() {
        let now = OffsetDateTime::from_unix_timestamp(1000).unwrap();
        let expected = "\
CONTAINER ID   IMAGE      COMMAND                  CREATED              STATUS          PORTS     NAMES
0123456789ab   alpine:3   \"sleep 1000000000000…\"   About a minute ago   Up 59 seconds             web
";
        assert_eq!(text(&containers(), &args(), now), expected);
    }

    /// CTR-04
    #[test]
    fn quiet_means_ids_only() {
        let now = OffsetDateTime::from_unix_timestamp(1000).unwrap();
        let quiet = Args { quiet: true, ..args() };
        assert_eq!(text(&containers(), &quiet, now), "0123456789ab\n");
        let whole = Args { no_trunc: true, ..quiet };
        assert_eq!(text(&containers(), &whole, now).len(), 65);
    }
}
