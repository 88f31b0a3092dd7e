//! Nodes.

use axum::{
    Json as Reply, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use covey_state::{
    command::Command,
    node::{Node, Role},
};

use super::text;
use crate::{
    app::App,
    control::{NodeState, View},
    convert,
    failure::Failure,
    filters::Filters,
    params::{Json, Params},
    wire::node as wire,
};

const FILTERS: &[&str] = &["id", "name", "label", "node.label", "role", "membership"];

pub fn routes() -> Router<App> {
    Router::new()
        .route("/nodes", get(list))
        .route("/nodes/{id}", get(inspect).delete(remove))
        .route("/nodes/{id}/update", post(update))
}

async fn list(State(app): State<App>, params: Params) -> Result<Reply<Vec<wire::Node>>, Failure> {
    let filters = params.filters(FILTERS)?;
    let view = app.view().await?;
    let nodes = view.store.nodes().filter(|node| matches(node, &filters));
    Ok(Reply(nodes.map(|node| convert::node::to_wire(node, &view)).collect()))
}

fn matches(node: &Node, filters: &Filters) -> bool {
    filters.prefix("id", &text(node.id))
        && filters.prefix("name", &node.description.hostname)
        // `label` means what the daemon was given, `node.label` what the user gave the node.
        && filters.labels("label", &node.description.engine_labels)
        && filters.labels("node.label", &node.spec.labels)
        && filters.exact("role", node.spec.role.as_str())
        && filters.exact("membership", "accepted")
}

async fn inspect(
    State(app): State<App>,
    Path(reference): Path<String>,
) -> Result<Reply<wire::Node>, Failure> {
    let view = app.view().await?;
    let node = view.store.find_node(&reference)?;
    Ok(Reply(convert::node::to_wire(node, &view)))
}

async fn update(
    State(app): State<App>,
    Path(reference): Path<String>,
    params: Params,
    Json(spec): Json<wire::NodeSpec>,
) -> Result<StatusCode, Failure> {
    let version = params.object_version()?;
    let id = app.view().await?.store.find_node(&reference)?.id;
    let spec = convert::node::from_wire(spec)?;
    app.control.propose(Command::UpdateNode { id, version, spec }).await?;
    Ok(StatusCode::OK)
}

async fn remove(
    State(app): State<App>,
    Path(reference): Path<String>,
    params: Params,
) -> Result<StatusCode, Failure> {
    let view = app.view().await?;
    let node = view.store.find_node(&reference)?;
    check_removable(node, &view, params.flag("force"))?;
    app.control.propose(Command::RemoveNode { id: node.id }).await?;
    Ok(StatusCode::OK)
}

/// Managers are demoted first; a node that is not down goes only by force (NOD-19).
fn check_removable(node: &Node, view: &View, force: bool) -> Result<(), Failure> {
    let refuse =
        |why: &str| Err(Failure::invalid(format!("rpc error: code = FailedPrecondition desc = {why}")));
    let id = node.id;
    if node.role == Role::Manager || node.spec.role == Role::Manager {
        return refuse(&format!(
            "node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker \
             before removal"
        ));
    }
    if !force && convert::node::liveness(node, view).state != NodeState::Down {
        return refuse(&format!("node {id} is not down and can't be removed"));
    }
    Ok(())
}
