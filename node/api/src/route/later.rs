//! What Docker has and what is not built yet: said so, instead of `page not found`.

use axum::{
    Router,
    routing::{any, post},
};

use crate::{app::App, failure::Failure};

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
        // One of them by name is simply not found: `docker inspect` looks everywhere.
        ("/secrets", "docker secret"),
        ("/secrets/create", "docker secret"),
        ("/configs", "docker config"),
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
    routes
}
