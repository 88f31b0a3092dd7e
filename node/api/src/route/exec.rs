//! Processes in running containers.

use std::{future, sync::Arc};

use axum::{
    Json as Reply, Router,
    extract::{FromRequest, Path, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};

use crate::{
    app::App,
    convert::later,
    engine::{Attached, ContainerState, ExecRequest},
    execs::{Exec, ExecState, Execs},
    failure::Failure,
    params::{Json, Params},
    stream::hijack,
    wire::exec as wire,
};

/// Exit code of a process of which no better one is known.
const CANNOT_RUN: i32 = 126;

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
    let container = app.engine.container(reference.trim_start_matches('/')).await?;
    if container.state != ContainerState::Running {
        return Err(Failure::conflict(format!("container {} is not running", container.id)));
    }
    let exec = Exec {
        request: ExecRequest {
            container: container.id,
            argv: request.cmd,
            env: request.env,
            user: request.user,
            workdir: request.working_dir,
            stdin: request.attach_stdin,
        },
        stdout: request.attach_stdout,
        stderr: request.attach_stderr,
        state: ExecState::Created,
    };
    // Docker's ids of processes have 256 bits.
    let (low, high) = (app.control.new_id().bits(), app.control.new_id().bits());
    let id = format!("{high:032x}{low:032x}");
    app.execs.add(id.clone(), exec)?;
    Ok((StatusCode::CREATED, Reply(wire::Created { id })).into_response())
}

async fn start(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
    mut request: Request,
) -> Result<Response, Failure> {
    // The body is read before the connection changes hands.
    let body = std::mem::take(request.body_mut());
    let mut whole = Request::new(body);
    *whole.headers_mut() = request.headers().clone();
    let Json(start) = Json::<wire::StartRequest>::from_request(whole, &app).await?;
    if start.tty {
        return Err(Failure::not_yet("--tty"));
    }
    let exec = app.execs.claim(&id)?;
    let running = match app.engine.exec(exec.request).await {
        Ok(running) => running,
        Err(failure) => {
            app.execs.ended(&id, CANNOT_RUN);
            return Err(failure);
        }
    };
    app.execs.started(&id, running.pid);
    let ended = watch(app.execs.clone(), id, running.exit);
    let Attached { input, output } = running.attached;
    if start.detach {
        tokio::spawn(output.for_each(|_| future::ready(())));
        return Ok(StatusCode::OK.into_response());
    }
    // The client asks for the exit code once the stream has ended: it must be there by then.
    let output = hijack::select(output, exec.stdout, exec.stderr)
        .chain(stream::once(ended).filter_map(|_| future::ready(None)))
        .boxed();
    Ok(hijack::reply(request, params.api(), Attached { input, output }))
}

/// Notes the end of a process, whether its client waits for it or not. Resolves when that is done.
fn watch(
    execs: Arc<Execs>,
    id: String,
    exit: BoxFuture<'static, Result<i32, Failure>>,
) -> impl Future<Output = ()> + Send + 'static {
    let watching = tokio::spawn(async move {
        let code = exit.await.unwrap_or_else(|failure| {
            tracing::warn!(exec = id, %failure, "the exit code of a process is not known");
            CANNOT_RUN
        });
        execs.ended(&id, code);
    });
    watching.map(|_| ())
}

/// Without a terminal there is nothing to resize; clients ask all the same.
async fn resize(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    app.execs.get(&id)?;
    Ok(StatusCode::CREATED)
}

async fn inspect(State(app): State<App>, Path(id): Path<String>) -> Result<Reply<wire::Inspect>, Failure> {
    let Exec { request, stdout, stderr, state } = app.execs.get(&id)?;
    let (running, exit_code, pid) = match state {
        ExecState::Created => (false, None, 0),
        ExecState::Running { pid } => (true, None, pid),
        ExecState::Ended { code } => (false, Some(code), 0),
    };
    let mut argv = request.argv.into_iter();
    Ok(Reply(wire::Inspect {
        id,
        running,
        exit_code,
        process_config: wire::ProcessConfig {
            tty: false,
            entrypoint: argv.next().unwrap_or_default(),
            arguments: argv.collect(),
            privileged: false,
            user: request.user,
        },
        open_stdin: request.stdin,
        open_stderr: stderr,
        open_stdout: stdout,
        can_remove: !running,
        container_id: request.container,
        detach_keys: "",
        pid,
    }))
}
