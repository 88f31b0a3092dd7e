//! The cluster itself.

use axum::{
    Json as Reply, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use covey_state::command::Command;

use super::text;
use crate::{
    app::App,
    control::{LocalState, Rotate},
    convert,
    failure::Failure,
    params::{Json, Params},
    wire::swarm as wire,
};

pub fn routes() -> Router<App> {
    Router::new()
        .route("/swarm", get(inspect))
        .route("/swarm/init", post(init))
        .route("/swarm/join", post(join))
        .route("/swarm/leave", post(leave))
        .route("/swarm/update", post(update))
}

async fn inspect(State(app): State<App>) -> Result<Reply<wire::Swarm>, Failure> {
    let view = app.view().await?;
    let cluster = view.store.cluster().ok_or_else(Failure::not_in_swarm)?;
    Ok(Reply(wire::Swarm {
        cluster: convert::swarm::cluster_to_wire(cluster, &view),
        join_tokens: wire::JoinTokens {
            worker: view.tokens.worker.clone(),
            manager: view.tokens.manager.clone(),
        },
    }))
}

async fn init(
    State(app): State<App>,
    Json(request): Json<wire::InitRequest>,
) -> Result<Reply<String>, Failure> {
    if !request.force_new_cluster {
        check_outside(&app)?;
    }
    let id = app.control.init(convert::swarm::init_from_wire(request)?).await?;
    Ok(Reply(text(id)))
}

async fn join(State(app): State<App>, Json(request): Json<wire::JoinRequest>) -> Result<StatusCode, Failure> {
    check_outside(&app)?;
    app.control.join(convert::swarm::join_from_wire(request)?).await?;
    Ok(StatusCode::OK)
}

/// CLU-15
fn check_outside(app: &App) -> Result<(), Failure> {
    match app.control.membership().state {
        LocalState::Inactive => Ok(()),
        LocalState::Pending | LocalState::Active | LocalState::Error => Err(Failure::already_in_swarm()),
    }
}

async fn leave(State(app): State<App>, params: Params) -> Result<StatusCode, Failure> {
    if app.control.membership().state == LocalState::Inactive {
        return Err(Failure::unavailable("This node is not part of a swarm"));
    }
    app.control.leave(params.flag("force")).await?;
    Ok(StatusCode::OK)
}

async fn update(
    State(app): State<App>,
    params: Params,
    Json(spec): Json<wire::Spec>,
) -> Result<StatusCode, Failure> {
    let version = params.object_version()?;
    let rotate = Rotate {
        worker: params.strict_flag("rotateWorkerToken")?,
        manager: params.strict_flag("rotateManagerToken")?,
    };
    if params.strict_flag("rotateManagerUnlockKey")? {
        return Err(Failure::not_yet("autolock"));
    }
    let view = app.view().await?;
    let cluster = view.store.cluster().ok_or_else(Failure::not_in_swarm)?;
    let spec = convert::swarm::spec_from_wire(spec, cluster.spec.clone())?;
    // Also where nothing changes: the version is checked there.
    app.control.propose(Command::UpdateCluster { version, spec }).await?;
    if rotate != Rotate::default() {
        app.control.rotate_tokens(rotate).await?;
    }
    Ok(StatusCode::OK)
}
