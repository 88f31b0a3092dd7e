//! `ps`: the containers of this host (CTR-04).

use anyhow::Result;
use time::OffsetDateTime;

use crate::{
    client::{Client, Target, model::Container},
    command::{
        age, moment, options, ports,
        table::{Table, shorten},
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
    #[command(flatten)]
    listing: options::Listing,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    let filters = args.listing.filters()?;
    let target = Target::new(&["containers", "json"]).with_flag("all", args.all).with_filters(&filters);
    let containers: Vec<Container> = client.get(target).await?;
    Ok(terminal::print(&text(&containers, &args.listing, moment::now()))?)
}

fn text(containers: &[Container], listing: &options::Listing, now: OffsetDateTime) -> String {
    if listing.quiet {
        return containers.iter().map(|container| listing.id(&container.id) + "\n").collect();
    }
    let mut table = Table::new(["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    for container in containers {
        let command = if listing.no_trunc {
            container.command.clone()
        } else {
            shorten(&container.command, COMMAND_MAX)
        };
        let created = OffsetDateTime::from_unix_timestamp(container.created);
        let names: Vec<_> = container.names.iter().map(|name| name.trim_start_matches('/')).collect();
        table.row([
            listing.id(&container.id),
            container.image.clone(),
            format!("\"{command}\""),
            created.map(|created| age::ago(created, now)).unwrap_or_default(),
            container.status.clone(),
            ports::of_container(&container.ports),
            names.join(","),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::model::ContainerPort;

    fn containers() -> Vec<Container> {
        vec![Container {
            id: "0123456789abcdef".repeat(4),
            names: vec!["/web".into()],
            image: "alpine:3".into(),
            command: "sleep 1000000000000000000".into(),
            created: 940,
            status: "Up 59 seconds".into(),
            ports: vec![ContainerPort { private_port: 80, kind: "tcp".into(), ..ContainerPort::default() }],
        }]
    }

    /// CTR-04, PRT-12
    #[test]
    fn the_table_has_dockers_columns() {
        let now = OffsetDateTime::from_unix_timestamp(1000).unwrap();
        let expected = "\
CONTAINER ID   IMAGE      COMMAND                  CREATED              STATUS          PORTS     NAMES
0123456789ab   alpine:3   \"sleep 1000000000000…\"   About a minute ago   Up 59 seconds   80/tcp    web
";
        assert_eq!(text(&containers(), &options::Listing::default(), now), expected);
    }

    /// CTR-04
    #[test]
    fn quiet_means_ids_only() {
        let now = OffsetDateTime::from_unix_timestamp(1000).unwrap();
        let quiet = options::Listing { quiet: true, ..options::Listing::default() };
        assert_eq!(text(&containers(), &quiet, now), "0123456789ab\n");
        let whole = options::Listing { no_trunc: true, ..quiet };
        assert_eq!(text(&containers(), &whole, now).len(), 65);
    }
}
