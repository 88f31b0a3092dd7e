//! `service ls` (SVC-18, SVC-19).

use anyhow::Result;

use crate::{
    client::{Client, Target, model::Service},
    command::{
        image, options, ports,
        table::{Table, short_id},
        terminal,
    },
};

#[derive(clap::Args)]
pub struct Args {
    /// Only those that match, such as name=web or label=tier=front (repeatable)
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    let filters = args.filters.iter().map(|text| options::filter(text)).collect::<Result<Vec<_>>>()?;
    let target = Target::new(&["services"]).with("status", true).with_filters(&filters);
    let mut services: Vec<Service> = client.get(target).await?;
    services.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    Ok(terminal::print(&text(&services, args.quiet))?)
}

fn text(services: &[Service], quiet: bool) -> String {
    if quiet {
        return services.iter().map(|service| short_id(&service.id) + "\n").collect();
    }
    let mut table = Table::new(["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"]);
    for service in services {
        let status = service.service_status;
        table.row([
            short_id(&service.id),
            service.spec.name.clone(),
            mode(service).to_owned(),
            format!("{}/{}", status.running_tasks, status.desired_tasks),
            image::shown(&service.spec.task_template.container_spec.image),
            ports::of_service(&service.endpoint.ports),
        ]);
    }
    table.text()
}

fn mode(service: &Service) -> &'static str {
    if service.spec.mode.global.is_some() { "global" } else { "replicated" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// SVC-18, SVC-19, SVC-06, PRT-04, C-32
    #[test]
    fn the_table_has_dockers_columns() {
        let image = format!("localhost:5000/web:1@sha256:{}", "0".repeat(64));
        let services: Vec<Service> = serde_json::from_value(json!([{"ID": "9uk4639qpg7npwf3fn2aasksr",
            "Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": 10}},
                "TaskTemplate": {"ContainerSpec": {"Image": image}}},
            "Endpoint": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 30000, "PublishMode": "ingress"}]},
            "ServiceStatus": {"RunningTasks": 8, "DesiredTasks": 10}}]))
        .unwrap();
        let expected = "\
ID             NAME      MODE         REPLICAS   IMAGE                  PORTS
9uk4639qpg7n   web       replicated   8/10       localhost:5000/web:1   *:30000->80/tcp
";
        assert_eq!(text(&services, false), expected);
        assert_eq!(text(&services, true), "9uk4639qpg7n\n");
    }
}
