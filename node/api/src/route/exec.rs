//! Processes in running containers.

use axum::{
    Json as Reply, Router,
    extract::{FromRequest, Path, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};

use crate::{
    app::App,
    convert::later,
    engine::ExecRequest,
    failure::Failure,
    params::{Json, Params},
    stream::hijack,
    wire::exec as wire,
};

pub fn routes() -> Router<App> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

async fn create(
    State(app): State<App>,
    Path(reference): Path<String>,
    Json(request): Json<wire::CreateRequest>,
) -> Result<Response, Failure> {
    later::refuse(&request.rest, later::EXEC)?;
    if request.cmd.is_empty() {
        return Err(Failure::invalid("No exec command specified"));
    }
    let id = app
        .engine
        .exec_create(ExecRequest {
            container: app.container_id(&reference).await?,
            argv: request.cmd,
            env: request.env,
            user: request.user,
            workdir: request.working_dir,
            stdin: request.attach_stdin,
            stdout: request.attach_stdout,
            stderr: request.attach_stderr,
        })
        .await?;
    Ok((StatusCode::CREATED, Reply(wire::Created { id })).into_response())
}

/// The body is read before the connection changes hands.
async fn start(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let mut head = Request::new(axum::body::Body::empty());
    *head.headers_mut() = parts.headers.clone();
    if let Some(upgrade) = parts.extensions.get::<hyper::upgrade::OnUpgrade>() {
        head.extensions_mut().insert(upgrade.clone());
    }
    let Json(start) =
        Json::<wire::StartRequest>::from_request(Request::from_parts(parts, body), &app).await?;
    if start.tty {
        return Err(Failure::not_yet("--tty"));
    }
    let attached = app.engine.exec_start(&id).await?;
    if start.detach {
        return Ok(StatusCode::OK.into_response());
    }
    Ok(hijack::reply(head, params.api(), attached))
}

/// Without a terminal there is nothing to resize; clients ask all the same.
async fn resize(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    app.engine.exec(&id).await?;
    Ok(StatusCode::CREATED)
}

async fn inspect(State(app): State<App>, Path(id): Path<String>) -> Result<Reply<wire::Inspect>, Failure> {
    let exec = app.engine.exec(&id).await?;
    let request = exec.request;
    let (program, arguments) =
        request.argv.split_first().map(|(first, rest)| (first.clone(), rest.to_vec())).unwrap_or_default();
    Ok(Reply(wire::Inspect {
        id: exec.id,
        running: exec.running,
        exit_code: exec.exit_code,
        process_config: wire::ProcessConfig {
            tty: false,
            entrypoint: program,
            arguments,
            privileged: false,
            user: request.user,
        },
        open_stdin: request.stdin,
        open_stderr: request.stderr,
        open_stdout: request.stdout,
        can_remove: !exec.running,
        container_id: request.container,
        detach_keys: "",
        pid: exec.pid,
    }))
}
