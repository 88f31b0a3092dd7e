//! What Docker has and what is not built yet: said so, instead of `page not found`.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{any, get, post},
};

use crate::{app::App, failure::Failure, params::Params, wire::Empty};

pub fn routes() -> Router<App> {
    let mut routes = Router::new();
    for (path, what) in [
        ("/build", "docker build"),
        ("/commit", "docker commit"),
        ("/session", "BuildKit"),
        ("/grpc", "BuildKit"),
        ("/system/df", "docker system df"),
        ("/swarm/unlock", "autolock"),
        ("/swarm/unlockkey", "autolock"),
        ("/images/search", "docker search"),
        ("/images/get", "docker save"),
        ("/secrets/create", "docker secret"),
        ("/configs/create", "docker config"),
        ("/plugins", "docker plugin"),
        ("/plugins/pull", "docker plugin"),
        ("/containers/{id}/top", "docker top"),
        ("/containers/{id}/changes", "docker diff"),
        ("/containers/{id}/export", "docker export"),
        ("/containers/{id}/archive", "docker cp"),
        ("/containers/{id}/pause", "docker pause"),
        ("/containers/{id}/unpause", "docker unpause"),
        ("/containers/{id}/rename", "docker rename"),
        ("/containers/{id}/update", "docker update"),
        ("/containers/{id}/attach/ws", "attaching by websocket"),
    ] {
        routes = routes.route(path, any(move || async move { Failure::not_yet(what) }));
    }
    for (path, what) in [
        ("/volumes/create", "docker volume create"),
        ("/volumes/prune", "docker volume prune"),
        ("/containers/prune", "docker container prune"),
        ("/images/prune", "docker image prune"),
    ] {
        routes = routes.route(path, post(move || async move { Failure::not_yet(what) }));
    }
    // There are none: `docker stack rm` has none to remove, and `docker inspect`, which looks everywhere, looks on.
    for (list, kind) in [("/secrets", "secret"), ("/configs", "config")] {
        let missing =
            async move |Path(name): Path<String>| Failure::not_found(format!("{kind} {name} not found"));
        routes = routes.route(list, get(none)).route(&format!("{list}/{{id}}"), any(missing));
    }
    routes
}

async fn none(State(app): State<App>, params: Params) -> Result<Json<[Empty; 0]>, Failure> {
    app.check_manager()?;
    params.filters(&["id", "label", "name", "names"])?;
    Ok(Json([]))
}
