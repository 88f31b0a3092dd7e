//! Services.

use axum::{
    Json as Reply, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use covey_state::{
    command::Command,
    service::{Platform, Service, ServiceSpec},
};

use super::{network::attachments, task, text};
use crate::{
    app::App,
    control::LogsOf,
    convert::{self, reference::Reference, service::Places},
    failure::Failure,
    filters::Filters,
    params::{Json, Params, registry_auth},
    version,
    wire::service as wire,
};

const FILTERS: &[&str] = &["id", "name", "label", "mode", "runtime"];

pub fn routes() -> Router<App> {
    Router::new()
        .route("/services", get(list))
        .route("/services/create", post(create))
        .route("/services/{id}", get(inspect).delete(remove))
        .route("/services/{id}/update", post(update))
        .route("/services/{id}/logs", get(service_logs))
}

async fn list(State(app): State<App>, params: Params) -> Result<Reply<Vec<wire::Service>>, Failure> {
    let (filters, status) = (params.filters(FILTERS)?, params.strict_flag("status")?);
    let view = app.view().await?;
    let services = view.store.services().filter(|service| matches(service, &filters));
    let to_wire = |service| convert::service::service_to_wire(service, &view, status);
    Ok(Reply(services.map(to_wire).collect()))
}

fn matches(service: &Service, filters: &Filters) -> bool {
    filters.prefix("id", &text(service.id))
        && filters.prefix("name", &service.spec.name)
        && filters.labels("label", &service.spec.labels)
        && filters.exact("mode", "replicated")
        && filters.exact("runtime", "container")
}

async fn create(
    State(app): State<App>,
    params: Params,
    headers: HeaderMap,
    Json(mut spec): Json<wire::ServiceSpec>,
) -> Result<Response, Failure> {
    app.check_manager()?;
    let id = app.control.new_id();
    if spec.name.is_empty() {
        // Docker invents a name, too.
        spec.name = format!("service-{}", &text(app.control.new_id())[15..]);
    }
    let places = match convert::exposure::networks_of(&mut spec)? {
        none if none.is_empty() => Places::default(),
        wanted => attachments(&app, &app.view().await?.store, wanted).await?,
    };
    let mut spec = convert::service::from_wire(spec, places)?;
    let warnings = pin(&app, &params, &headers, &mut spec).await?;
    app.control.propose(Command::CreateService { id, spec }).await?;
    Ok((StatusCode::CREATED, Reply(wire::Created { id: text(id), warnings })).into_response())
}

async fn update(
    State(app): State<App>,
    Path(reference): Path<String>,
    params: Params,
    headers: HeaderMap,
    Json(mut spec): Json<wire::ServiceSpec>,
) -> Result<Reply<wire::Updated>, Failure> {
    let version = params.object_version()?;
    if !params.text("rollback").is_empty() {
        return Err(Failure::not_yet("docker service rollback"));
    }
    let store = app.view().await?.store;
    let service = store.find_service(&reference)?;
    let id = service.id;
    convert::exposure::keep_addresses(&mut spec.endpoint_spec, &service.spec.endpoint);
    let places = attachments(&app, &store, convert::exposure::networks_of(&mut spec)?).await?;
    let mut spec = convert::service::from_wire(spec, places)?;
    let warnings = pin(&app, &params, &headers, &mut spec).await?;
    app.control.propose(Command::UpdateService { id, version, spec }).await?;
    Ok(Reply(wire::Updated { warnings }))
}

/// Pins the image to what its registry says that it is now (SVC-06). Newer clients have done so already, or do not
/// want it. A registry that does not answer is a warning (SVC-07).
async fn pin(
    app: &App,
    params: &Params,
    headers: &HeaderMap,
    spec: &mut ServiceSpec,
) -> Result<Vec<String>, Failure> {
    let auth = registry_auth(headers)?;
    let mut warnings = Vec::new();
    if auth.is_some() {
        warnings.push(
            "not yet: registry credentials are not handed to the nodes; each uses its own to pull the image"
                .to_owned(),
        );
    }
    let image = &mut spec.task.container.image;
    let reference = Reference::parse(image)?;
    if params.api() >= version::CLIENT_RESOLVES_IMAGES || reference.is_pinned() {
        return Ok(warnings);
    }
    match app.engine.resolve(image, auth).await {
        Ok(resolved) => {
            *image = reference.pinned(&resolved.digest).to_string();
            let platforms: Vec<Platform> = resolved.platforms;
            spec.task.placement.platforms = platforms;
        }
        Err(failure) => {
            tracing::info!(image, %failure, "a service is created without a digest");
            warnings.push(format!(
                "image {image} could not be accessed on a registry to record\nits digest. Each node will access \
                 {image} independently,\npossibly leading to different nodes running different\nversions of the \
                 image.\n"
            ));
        }
    }
    Ok(warnings)
}

async fn inspect(
    State(app): State<App>,
    Path(reference): Path<String>,
    params: Params,
) -> Result<Reply<wire::Service>, Failure> {
    // Defaults are written into the spec when it comes in: there is nothing to insert.
    params.strict_flag("insertDefaults")?;
    let view = app.view().await?;
    let service = view.store.find_service(&reference)?;
    Ok(Reply(convert::service::service_to_wire(service, &view, false)))
}

async fn remove(State(app): State<App>, Path(reference): Path<String>) -> Result<StatusCode, Failure> {
    let id = app.view().await?.store.find_service(&reference)?.id;
    app.control.propose(Command::RemoveService { id }).await?;
    Ok(StatusCode::OK)
}

async fn service_logs(
    State(app): State<App>,
    Path(reference): Path<String>,
    params: Params,
) -> Result<Response, Failure> {
    let id = app.view().await?.store.find_service(&reference)?.id;
    task::lines(&app, LogsOf::Service(id), params).await
}
