//! Plain containers, and those of tasks.

mod list;
mod stats;

use std::{convert::Infallible, net::IpAddr};

use axum::{
    Json as Reply, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{image, logs, network::joins};
use crate::{
    app::App,
    convert,
    engine::{Network, WaitCondition},
    failure::{Failure, FailureKind},
    params::{Json, Params},
    stream::hijack,
    wire::container as wire,
};

pub fn routes() -> Router<App> {
    Router::new()
        .route("/containers/json", get(list::list))
        .route("/containers/create", post(create))
        .route("/containers/{id}", delete(remove))
        .route("/containers/{id}/json", get(inspect))
        .route("/containers/{id}/start", post(start))
        .route("/containers/{id}/stop", post(stop))
        .route("/containers/{id}/restart", post(restart))
        .route("/containers/{id}/kill", post(kill))
        .route("/containers/{id}/wait", post(wait))
        .route("/containers/{id}/logs", get(container_logs))
        .route("/containers/{id}/attach", post(attach))
        .route("/containers/{id}/resize", post(resize))
        .route("/containers/{id}/stats", get(stats::stats))
}

impl App {
    /// The full id of the container that the user means.
    pub(super) async fn container_id(&self, reference: &str) -> Result<String, Failure> {
        Ok(self.engine.container(reference.trim_start_matches('/')).await?.id)
    }
}

async fn create(
    State(app): State<App>,
    params: Params,
    Json(mut request): Json<wire::CreateRequest>,
) -> Result<Response, Failure> {
    let name = params.text("name").trim_start_matches('/');
    let convert::container::Wanted { mut mode, networks } = convert::container::wanted(&mut request)?;
    if let Some(Network::Container(other)) = &mut mode {
        *other = app.container_id(other).await.map_err(not_the_image)?;
    }
    let places = joins(&app, networks).await.map_err(not_the_image)?;
    check_platform(&app, &params, &request.config.image).await?;
    let image_ports = match request.host_config.publish_all_ports {
        true => app.engine.image(&request.config.image).await?.exposed_ports,
        false => Vec::new(),
    };
    // What is first in its block is the host itself.
    let gateway = app.control.carried().block.map(|block| IpAddr::V4(block.v4.network()));
    let mut warnings = Vec::new();
    if mode == Some(Network::Host) && !request.host_config.port_bindings.is_empty() {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    let request = convert::container::from_wire(request, name, mode, places, &image_ports, gateway)?;
    let id = app.engine.create(request).await?;
    Ok((StatusCode::CREATED, Reply(wire::Created { id, warnings })).into_response())
}

/// Clients pull an image that is here for another platform than the one they ask for.
async fn check_platform(app: &App, params: &Params, image: &str) -> Result<(), Failure> {
    let Some(wanted) = image::platform(params.text("platform"))? else { return Ok(()) };
    let has = app.engine.image(image).await?.platform;
    let fits = |wanted: &str, has: &str| wanted.is_empty() || has.is_empty() || wanted == has;
    if fits(&wanted.os, &has.os) && fits(&wanted.architecture, &has.architecture) {
        return Ok(());
    }
    Err(Failure::not_found(format!(
        "image {image} is here for platform {}/{} and not for {}/{}",
        has.os, has.architecture, wanted.os, wanted.architecture
    )))
}

/// Clients take a 404 here for a missing image, and pull it.
fn not_the_image(failure: Failure) -> Failure {
    match failure.kind {
        FailureKind::NotFound => Failure::invalid(failure.message),
        _ => failure,
    }
}

async fn inspect(
    State(app): State<App>,
    Path(reference): Path<String>,
) -> Result<Reply<wire::Inspect>, Failure> {
    let container = app.engine.container(reference.trim_start_matches('/')).await?;
    Ok(Reply(convert::container::inspect(&container, &app.host.id)))
}

async fn start(State(app): State<App>, Path(reference): Path<String>) -> Result<StatusCode, Failure> {
    app.engine.start(&app.container_id(&reference).await?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn stop(
    State(app): State<App>,
    Path(reference): Path<String>,
    params: Params,
) -> Result<StatusCode, Failure> {
    refuse_signal(&params)?;
    app.engine.stop(&app.container_id(&reference).await?, params.seconds("t")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn restart(
    State(app): State<App>,
    Path(reference): Path<String>,
    params: Params,
) -> Result<StatusCode, Failure> {
    refuse_signal(&params)?;
    let id = app.container_id(&reference).await?;
    match app.engine.stop(&id, params.seconds("t")?).await {
        Err(failure) if failure.kind != FailureKind::NotModified => return Err(failure),
        _ => {}
    }
    app.engine.start(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn refuse_signal(params: &Params) -> Result<(), Failure> {
    match params.text("signal") {
        "" => Ok(()),
        _ => Err(Failure::not_yet("stop --signal (use docker kill --signal)")),
    }
}

async fn kill(
    State(app): State<App>,
    Path(reference): Path<String>,
    params: Params,
) -> Result<StatusCode, Failure> {
    let signal = match params.text("signal") {
        "" => "SIGKILL",
        signal => signal,
    };
    app.engine.kill(&app.container_id(&reference).await?, signal).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(
    State(app): State<App>,
    Path(reference): Path<String>,
    params: Params,
) -> Result<StatusCode, Failure> {
    if params.flag("link") {
        return Err(Failure::not_yet("rm --link"));
    }
    app.engine.remove(&app.container_id(&reference).await?, params.flag("force")).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The head of the reply goes out once the watch is set: clients start the container only then.
async fn wait(
    State(app): State<App>,
    Path(reference): Path<String>,
    params: Params,
) -> Result<Response, Failure> {
    let condition = match params.text("condition") {
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(Failure::invalid(format!("invalid condition: {other:?}"))),
    };
    let end = app.engine.wait(&app.container_id(&reference).await?, condition).await?;
    let body = stream::once(async move {
        let waited = match end.await {
            Ok(status_code) => wire::Waited { status_code, error: None },
            Err(failure) => {
                wire::Waited { status_code: -1, error: Some(wire::WaitError { message: failure.message }) }
            }
        };
        Ok::<_, Infallible>(Bytes::from(serde_json::to_vec(&waited).unwrap_or_default()))
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response())
}

async fn container_logs(
    State(app): State<App>,
    Path(reference): Path<String>,
    params: Params,
) -> Result<Response, Failure> {
    let query = logs::query(&params)?;
    let lines = app.engine.logs(&app.container_id(&reference).await?, query).await?;
    let style = logs::Style::of(&params);
    Ok(logs::reply(&params, lines.map(move |line| line.map(|line| style.frame(&line, &[])))))
}

async fn attach(
    State(app): State<App>,
    Path(reference): Path<String>,
    params: Params,
    request: Request,
) -> Result<Response, Failure> {
    if params.flag("logs") {
        return Err(Failure::not_yet("attaching with what was written before (use docker logs)"));
    }
    let id = app.container_id(&reference).await?;
    let mut attached = app.engine.attach(&id, params.flag("stdin")).await?;
    attached.output = hijack::select(attached.output, params.flag("stdout"), params.flag("stderr"));
    Ok(hijack::reply(request, params.api(), attached))
}

/// Without a terminal there is nothing to resize; clients ask all the same.
async fn resize(State(app): State<App>, Path(reference): Path<String>) -> Result<StatusCode, Failure> {
    app.container_id(&reference).await?;
    Ok(StatusCode::OK)
}
