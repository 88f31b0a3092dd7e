//! The list of containers.

use axum::{Json as Reply, extract::State};
use covey_state::{
    container::HealthStatus,
    network::{Protocol, PublishedPort},
    time::Stamp,
};

use crate::{
    app::App,
    convert,
    engine::{Container, ContainerState, Endpoint, Network, NetworkRef},
    failure::Failure,
    filters::Filters,
    networks::{is_task, shown_places},
    params::Params,
    route::system::now,
    wire::container as wire,
};

const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

/// Newest first; without `all` only those that run.
pub async fn list(State(app): State<App>, params: Params) -> Result<Reply<Vec<wire::Summary>>, Failure> {
    let filters = params.filters(FILTERS)?;
    check_health(&filters)?;
    let limit =
        params.number::<i64>("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|n| *n > 0);
    let mut containers = app.engine.containers().await?;
    containers.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
    let wanted = Wanted {
        ended_too: params.flag("all")
            || limit.is_some()
            || ["status", "exited"].iter().any(|key| filters.get(key).is_some()),
        is_task: filters.switch("is-task")?,
        after: moment_of(&containers, &filters, "since")?,
        before: moment_of(&containers, &filters, "before")?,
        filters,
    };
    let now = now();
    let listed = containers.iter().filter(|container| wanted.matches(container));
    let to_wire = |container| convert::container::summary(container, &app.host.id, now);
    Ok(Reply(listed.take(limit.unwrap_or(usize::MAX)).map(to_wire).collect()))
}

/// When the container was made that the filter `key` names.
fn moment_of(containers: &[Container], filters: &Filters, key: &str) -> Result<Option<Stamp>, Failure> {
    let Some([reference, ..]) = filters.get(key) else { return Ok(None) };
    let name = reference.trim_start_matches('/');
    let found = containers.iter().find(|c| c.name == name || c.id.starts_with(name));
    let container = found.ok_or_else(|| Failure::not_found(format!("No such container: {reference}")))?;
    Ok(Some(container.created_at))
}

fn health(container: &Container) -> &'static str {
    container.health.as_ref().map_or(HealthStatus::NONE, |health| health.status.as_str())
}

/// What no container can be.
fn check_health(filters: &Filters) -> Result<(), Failure> {
    let known = HealthStatus::ALL.map(HealthStatus::as_str);
    let is_known = |value: &str| value == HealthStatus::NONE || known.contains(&value);
    match filters.get("health").and_then(|values| values.iter().find(|value| !is_known(value))) {
        Some(other) => Err(Failure::invalid(format!("Unrecognised filter value for health: {other}"))),
        None => Ok(()),
    }
}

struct Wanted {
    filters: Filters,
    ended_too: bool,
    is_task: Option<bool>,
    after: Option<Stamp>,
    before: Option<Stamp>,
}

impl Wanted {
    fn matches(&self, container: &Container) -> bool {
        let filters = &self.filters;
        let is_task = is_task(container);
        let has_ended = container.state == ContainerState::Exited;
        (self.ended_too || container.state == ContainerState::Running)
            && self.is_task.is_none_or(|wanted| wanted == is_task)
            && self.after.is_none_or(|after| container.created_at > after)
            && self.before.is_none_or(|before| container.created_at < before)
            && filters.prefix("id", &container.id)
            && name_matches(filters, &container.name)
            && filters.labels("label", &container.spec.labels)
            && filters.exact("status", container.state.as_str())
            && filters.any("exited", |code| has_ended && code.parse() == Ok(container.exit_code))
            && filters.any("ancestor", |image| is_of(container, image))
            && filters.any("network", |network| is_on(container, network))
            && filters.exact("health", health(container))
            && filters.any("volume", |path| container.spec.mounts.iter().any(|mount| mount.target == path))
            && filters.any("publish", |text| {
                host_ports(container).any(|port| meets(text, port.published, port.protocol))
            })
            && filters.any("expose", |text| {
                container.exposed.iter().any(|port| meets(text, port.port, port.protocol))
                    || host_ports(container).any(|port| meets(text, port.target, port.protocol))
            })
    }
}

/// The slash of old may come first.
fn name_matches(filters: &Filters, name: &str) -> bool {
    filters.part("name", name) || filters.part("name", &format!("/{name}"))
}

fn is_on(container: &Container, network: &str) -> bool {
    let is_it = |(name, endpoint): (&str, &Endpoint)| {
        name == network
            || match &endpoint.network {
                NetworkRef::Bridge => false,
                NetworkRef::Local(id) => id == network,
                NetworkRef::Cluster(id) => id.to_string() == network,
            }
    };
    let alone = matches!(container.network, Network::Host | Network::None | Network::Container(_));
    (alone && container.network.to_string() == network) || shown_places(container).any(is_it)
}

/// As they were bound, and as they were asked for.
fn host_ports(container: &Container) -> impl Iterator<Item = &PublishedPort> {
    container.ports.iter().chain(&container.published)
}

/// `text` is a port or a range of ports, `80`, `53/udp` or `8000-8010/tcp`.
fn meets(text: &str, port: u16, protocol: Protocol) -> bool {
    let (ports, name) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let within = |first: u16, last: u16| (first..=last).contains(&port);
    name == protocol.as_str() && first.parse().ok().zip(last.parse().ok()).is_some_and(|(a, b)| within(a, b))
}

fn is_of(container: &Container, image: &str) -> bool {
    let id = container.image_id.strip_prefix("sha256:").unwrap_or(&container.image_id);
    let asked = container.spec.image.as_str();
    asked == image
        || asked == format!("{image}:latest")
        || format!("{asked}:latest") == image
        || container.image_id == image
        || (image.len() >= 4 && id.starts_with(image))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CTR-04
    #[test]
    fn the_slash_of_old_may_be_in_front_of_a_name() {
        let matches = |pattern: &str, name: &str| {
            let text = serde_json::json!({"name": [pattern]}).to_string();
            name_matches(&Filters::parse(&text, FILTERS).unwrap(), name)
        };
        assert!(matches("web", "web") && matches("/web", "web.1") && !matches("/eb", "web"));
        assert!(matches("^/web$", "web") && !matches("^/web$", "aweb"));
    }
}
