//! Volumes: there are none yet.

use axum::{Json, Router, extract::Path, routing::get};
use serde::Serialize;

use crate::{app::App, failure::Failure, params::Params, wire::Empty};

const FILTERS: &[&str] = &["dangling", "name", "driver", "label"];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Volumes {
    volumes: [Empty; 0],
    warnings: [String; 0],
}

pub fn routes() -> Router<App> {
    Router::new().route("/volumes", get(list)).route("/volumes/{name}", get(missing).delete(missing))
}

async fn list(params: Params) -> Result<Json<Volumes>, Failure> {
    params.filters(FILTERS)?;
    Ok(Json(Volumes { volumes: [], warnings: [] }))
}

async fn missing(Path(name): Path<String>) -> Failure {
    Failure::not_found(format!("get {name}: no such volume"))
}
