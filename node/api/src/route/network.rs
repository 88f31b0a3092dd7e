//! Networks: those of this host, and those of the cluster.

mod join;

use std::{sync::Arc, time::Duration};

use axum::{
    Json as Reply, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use covey_state::{
    Id, Store,
    command::Command,
    network::AttachmentSpec,
    task::{DesiredState, Task},
    time::Stamp,
};
use futures_util::{StreamExt, future::join_all};
use tokio::time::timeout;

pub use self::join::{attachments, joins};
use super::{system::now, text};
use crate::{
    app::App,
    control::ToldService,
    convert::network::{self as convert, Detail, Maker},
    engine::{self, Container, Endpoint, NetworkRef},
    failure::Failure,
    filters::{Filters, has_label},
    networks::{Given, Known, Networks, TASK_LABEL, is_task},
    params::{Json, Params, parse_moment},
    wire::network as wire,
};

const FILTERS: &[&str] = &["driver", "id", "label", "name", "scope", "type", "dangling"];
/// How long the removal of a network waits for tasks that are leaving it.
const LEAVING_MAX: Duration = Duration::from_secs(30);
const PRUNE_FILTERS: &[&str] = &["label", "label!", "until"];

pub fn routes() -> Router<App> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(inspect).delete(remove))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
}

async fn list(State(app): State<App>, params: Params) -> Result<Reply<Vec<wire::Network>>, Failure> {
    let filters = params.filters(FILTERS)?;
    let dangling = filters.switch("dangling")?;
    if let Some(kind) = filters
        .get("type")
        .unwrap_or_default()
        .iter()
        .find(|kind| !matches!(kind.as_str(), "builtin" | "custom"))
    {
        return Err(Failure::invalid(format!("invalid filter: 'type'='{kind}'")));
    }
    let mut networks = app.networks().await?;
    if filters.get("label").is_some() {
        networks.all = join_all(networks.all.iter().map(|known| app.whole(known))).await;
    }
    let wanted = networks.all.iter().filter(|known| {
        let unused = || !known.is_given() && networks.is_unused(known);
        matches(known, &filters, &networks.host) && dangling.is_none_or(|wanted| wanted == unused())
    });
    Ok(Reply(wanted.map(|known| convert::to_wire(known, &networks, Detail::Listed)).collect()))
}

fn matches(known: &Known, filters: &Filters, host: &str) -> bool {
    let builtin = is_built_in(known);
    filters.exact("driver", known.driver())
        && filters.part("name", known.name())
        && filters.any("id", |value| known.id(host).starts_with(value))
        && filters.exact("scope", known.scope())
        && filters.exact("type", if builtin { "builtin" } else { "custom" })
        && filters.labels("label", &known.labels())
}

/// Docker takes these three for built in, though nobody made the other two either.
fn is_built_in(known: &Known) -> bool {
    matches!(known, Known::Given(Given::Bridge | Given::Host | Given::None))
}

async fn inspect(
    State(app): State<App>,
    Path(reference): Path<String>,
    params: Params,
) -> Result<Reply<wire::Network>, Failure> {
    let mut networks = app.networks().await?;
    let scope = params.text("scope");
    // Clients look for the networks of services so; of those that every host has they are told why they cannot be had.
    networks.all.retain(|known| {
        scope.is_empty() || known.scope() == scope || (scope == "swarm" && is_built_in(known))
    });
    let known = app.whole(networks.get(&reference)?).await;
    let detail = match params.flag("verbose") {
        true => Detail::Verbose(told(&app, &networks, &known).await),
        false => Detail::Inspected,
    };
    Ok(Reply(convert::to_wire(&known, &networks, detail)))
}

/// The services in a network as gossip tells of them, where no manager can say.
async fn told(app: &App, networks: &Networks, known: &Known) -> Vec<ToldService> {
    let network = match known {
        _ if networks.view.is_some() => return Vec::new(),
        Known::Given(Given::Ingress) => None,
        Known::Cluster(network) => Some(network.id),
        Known::Carried(network) => Some(network.id),
        Known::Given(_) | Known::Local(_) => return Vec::new(),
    };
    app.control.told_services(network).await
}

async fn create(
    State(app): State<App>,
    Json(request): Json<wire::CreateRequest>,
) -> Result<Response, Failure> {
    let (maker, spec) = convert::from_wire(request)?;
    if maker == Maker::Cluster {
        app.check_manager()?;
    }
    let networks = app.networks().await?;
    if networks.all.iter().any(|known| known.name() == spec.name) {
        return Err(Failure::conflict(format!("network with name {} already exists", spec.name)));
    }
    let warning = convert::warning(&spec);
    let id = match maker {
        Maker::Host => app.engine.network_create(spec).await?,
        Maker::Cluster => {
            let id = app.control.new_id();
            app.control.propose(Command::CreateNetwork { id, spec }).await?;
            text(id)
        }
    };
    Ok((StatusCode::CREATED, Reply(wire::Created { id, warning })).into_response())
}

async fn remove(State(app): State<App>, Path(reference): Path<String>) -> Result<StatusCode, Failure> {
    let networks = app.networks().await?;
    let known = networks.get(&reference)?;
    if let (Known::Cluster(network), Some(view)) = (known, &networks.view) {
        until_left(&app, &view.store, network.id).await;
    }
    remove_known(&app, &networks, known).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Waits for the tasks that are about to leave a network, as those of a service that was removed just now: until they
/// have ended their addresses there are theirs. Who stays longer is named by the store.
async fn until_left(app: &App, store: &Store, network: Id) {
    // Where nobody is leaving nothing is waited for; else the store is looked at again once changes are listened for.
    if !is_being_left(store, network) {
        return;
    }
    let mut changes = app.control.changes();
    let left = async {
        let mut store = app.control.read().await.ok()?.store;
        while is_being_left(&store, network) {
            store = changes.next().await?.after;
        }
        Some(())
    };
    // Too late is for the store to say.
    let _ = timeout(LEAVING_MAX, left).await;
}

/// Whether nothing but tasks that are to end uses a network.
fn is_being_left(store: &Store, network: Id) -> bool {
    let is_in = |networks: &[AttachmentSpec]| networks.iter().any(|attachment| attachment.network == network);
    let stays =
        |task: &Arc<Task>| task.desired <= DesiredState::Running && store.service(task.service).is_some();
    let mut tasks = (store.tasks())
        .filter(|task| !task.status.state.is_terminal() && is_in(&task.spec.networks))
        .peekable();
    tasks.peek().is_some()
        && !tasks.any(stays)
        && !store.services().any(|service| is_in(&service.spec.task.networks))
        && !store.attachments().any(|attachment| attachment.network == network)
}

async fn remove_known(app: &App, networks: &Networks, known: &Known) -> Result<(), Failure> {
    match known {
        Known::Given(_) => {
            let name = known.name();
            Err(Failure::forbidden(format!("{name} is a pre-defined network and cannot be removed")))
        }
        Known::Local(network) => {
            if let Some((container, _)) = networks.members(known).next() {
                return Err(Failure::forbidden(format!(
                    "error while removing network: network {} has active endpoints (name:\"{}\" id:\"{}\")",
                    network.spec.name,
                    container.name,
                    &container.id[..container.id.len().min(12)]
                )));
            }
            app.engine.network_remove(&network.id).await
        }
        Known::Cluster(network) => app.control.propose(Command::RemoveNetwork { id: network.id }).await,
        Known::Carried(_) => Err(app.check_manager().err().unwrap_or_else(Failure::not_a_manager)),
    }
}

async fn connect(
    State(app): State<App>,
    Path(reference): Path<String>,
    Json(request): Json<wire::ConnectRequest>,
) -> Result<StatusCode, Failure> {
    let container = app.engine.container(request.container.trim_start_matches('/')).await?;
    check_movable(&container)?;
    let (name, network) = join::joinable(&app, &app.networks().await?, &reference).await?;
    let is_there = |endpoint: &Endpoint| match endpoint.network {
        // At the edge it may be for the sake of its other networks only.
        NetworkRef::Bridge => network == NetworkRef::Bridge && Given::edge_of(&container) == Given::Bridge,
        _ => endpoint.network == network,
    };
    if container.endpoints.iter().any(is_there) {
        return Err(Failure::forbidden(format!(
            "endpoint with name {} already exists in network {name}",
            container.name
        )));
    }
    let join = convert::join(network, request.endpoint_config)?;
    app.engine.network_connect(&container.id, join).await?;
    Ok(StatusCode::OK)
}

async fn disconnect(
    State(app): State<App>,
    Path(reference): Path<String>,
    Json(request): Json<wire::DisconnectRequest>,
) -> Result<StatusCode, Failure> {
    let container = app.engine.container(request.container.trim_start_matches('/')).await?;
    check_movable(&container)?;
    let networks = app.networks().await?;
    let known = networks.get(&reference)?;
    let place = container.endpoints.iter().find(|endpoint| known.has(&container, endpoint));
    let place = place.ok_or_else(|| {
        let id = &container.id;
        Failure::forbidden(format!("container {id} is not connected to network {}", known.name()))
    })?;
    if matches!(known, Known::Given(Given::Gateway)) {
        return Err(Failure::forbidden(format!(
            "{} is the way out of the other networks of container {}: it goes with the last of them",
            known.name(),
            container.name
        )));
    }
    app.engine.network_disconnect(&container.id, &place.network).await?;
    Ok(StatusCode::OK)
}

/// Whether a container can come and go. A task's networks are those of its service.
fn check_movable(container: &Container) -> Result<(), Failure> {
    if is_task(container) {
        let task = container.spec.labels.get(TASK_LABEL).map_or("", String::as_str);
        return Err(Failure::forbidden(format!(
            "container {} belongs to task {task}: change the networks of its service with docker service update",
            container.name
        )));
    }
    match container.network {
        engine::Network::Host | engine::Network::Container(_) => Err(Failure::forbidden(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        )),
        engine::Network::None => Err(Failure::forbidden(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        )),
        engine::Network::Bridge | engine::Network::Named(_) => Ok(()),
    }
}

/// Removes what nothing uses; one that comes into use meanwhile stays.
async fn prune(State(app): State<App>, params: Params) -> Result<Reply<wire::Pruned>, Failure> {
    let filters = params.filters(PRUNE_FILTERS)?;
    let until = until(&filters)?;
    let networks = app.networks().await?;
    let mut networks_deleted = Vec::new();
    for known in &networks.all {
        let created_at = match known {
            Known::Local(network) => network.created_at,
            Known::Cluster(network) => network.created_at,
            Known::Given(_) | Known::Carried(_) => continue,
        };
        let labels = known.labels();
        let wanted = filters.labels("label", &labels)
            && !filters.get("label!").unwrap_or_default().iter().any(|label| has_label(&labels, label))
            && until.is_none_or(|until| created_at < until);
        if !wanted || !networks.is_unused(known) {
            continue;
        }
        match remove_known(&app, &networks, known).await {
            Ok(()) => networks_deleted.push(known.name().to_owned()),
            Err(failure) => tracing::debug!(network = known.name(), %failure, "a network is not pruned"),
        }
    }
    Ok(Reply(wire::Pruned { networks_deleted }))
}

/// The moment before which networks must have been made: a time, or an age such as `24h`.
fn until(filters: &Filters) -> Result<Option<Stamp>, Failure> {
    let text = match filters.get("until") {
        None => return Ok(None),
        Some([one]) => one,
        Some(_) => return Err(Failure::invalid("more than one until filter specified")),
    };
    let moment = age(text).map(|age| Stamp(now().0.saturating_sub(age))).or_else(|| parse_moment(text));
    moment.map(Some).ok_or_else(|| Failure::invalid(format!("invalid filter 'until={text}'")))
}

/// Nanoseconds of an age such as `1h30m`.
fn age(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: i64 = rest[..digits].parse().ok()?;
        let (unit, length) = match &rest[digits..] {
            unit if unit.starts_with("ms") => (1_000_000, 2),
            unit if unit.starts_with('h') => (3_600_000_000_000, 1),
            unit if unit.starts_with('m') => (60_000_000_000, 1),
            unit if unit.starts_with('s') => (1_000_000_000, 1),
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[digits + length..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_as_go_writes_them() {
        assert_eq!(age("1h30m"), Some(5_400_000_000_000));
        assert_eq!(age("250ms"), Some(250_000_000));
        for wrong in ["", "h", "10", "1d", "1700000000", "99999999999999999h", "1h ", "é"] {
            assert_eq!(age(wrong), None, "{wrong}");
        }
    }
}
