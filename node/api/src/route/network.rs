//! Networks: those that every node has, to be looked at.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};
use serde::Serialize;

use crate::{
    app::App,
    control::View,
    failure::Failure,
    filters::Filters,
    params::Params,
    wire::{Empty, NEVER},
};

const FILTERS: &[&str] = &["driver", "id", "label", "name", "scope", "type", "dangling"];
/// Name and driver.
const BUILT_IN: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    name: &'static str,
    id: &'static str,
    created: &'static str,
    scope: &'static str,
    driver: &'static str,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_only: bool,
    containers: Empty,
    options: Empty,
    labels: Empty,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    driver: &'static str,
    config: Vec<Subnet>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Subnet {
    subnet: String,
}

pub fn routes() -> Router<App> {
    Router::new().route("/networks", get(list)).route("/networks/{id}", get(inspect).delete(remove))
}

async fn list(State(app): State<App>, params: Params) -> Result<Json<Vec<Network>>, Failure> {
    let filters = params.filters(FILTERS)?;
    let subnets = subnets(&app).await;
    let networks = BUILT_IN.into_iter().filter(|network| matches(*network, &filters));
    Ok(Json(networks.map(|network| to_wire(network, &subnets)).collect()))
}

fn matches((name, driver): (&str, &str), filters: &Filters) -> bool {
    filters.exact("driver", driver)
        && filters.any("name", |value| name.contains(value))
        && filters.prefix("id", name)
        && filters.exact("scope", "local")
        && filters.exact("type", "builtin")
        && filters.get("label").is_none()
        && filters.get("dangling").is_none()
}

async fn inspect(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<Network>, Failure> {
    let found = BUILT_IN.into_iter().find(|(name, _)| *name == id);
    match found.filter(|_| matches!(params.text("scope"), "" | "local")) {
        Some(network) => Ok(Json(to_wire(network, &subnets(&app).await))),
        None => Err(Failure::not_found(format!("network {id} not found"))),
    }
}

async fn remove(Path(id): Path<String>) -> Failure {
    if BUILT_IN.iter().any(|(name, _)| *name == id) {
        return Failure::forbidden(format!("{id} is a pre-defined network and cannot be removed"));
    }
    Failure::not_found(format!("network {id} not found"))
}

fn to_wire((name, driver): (&'static str, &'static str), subnets: &[String]) -> Network {
    let subnets = if name == "bridge" { subnets } else { &[] };
    Network {
        name,
        id: name,
        created: NEVER,
        scope: "local",
        driver,
        enable_ipv6: false,
        ipam: Ipam {
            driver: "default",
            config: subnets.iter().map(|subnet| Subnet { subnet: subnet.clone() }).collect(),
        },
        internal: false,
        attachable: false,
        ingress: false,
        config_only: false,
        containers: Empty {},
        options: Empty {},
        labels: Empty {},
    }
}

/// The edge block of this node, as far as this node can tell.
async fn subnets(app: &App) -> Vec<String> {
    let edge = |view: View| view.store.node(app.control.membership().node?).map(|node| node.edge);
    match app.view().await.ok().and_then(edge) {
        Some(edge) => vec![edge.v4.to_string(), edge.v6.to_string()],
        None => Vec::new(),
    }
}
