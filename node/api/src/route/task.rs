//! Tasks.

use std::collections::BTreeSet;

use axum::{
    Json, Router,
    extract::{Path, State},
    response::Response,
    routing::get,
};
use bytes::Bytes;
use covey_state::{Id, task::Task};
use futures_util::StreamExt;

use super::{logs, text};
use crate::{
    app::App,
    control::{LogsOf, TaskLine, View},
    convert,
    failure::Failure,
    filters::Filters,
    params::Params,
    wire::task as wire,
};

const FILTERS: &[&str] =
    &["id", "name", "label", "service", "node", "desired-state", "runtime", "_up-to-date"];
const STATES: &[&str] = &[
    "new",
    "allocated",
    "pending",
    "assigned",
    "accepted",
    "preparing",
    "ready",
    "starting",
    "running",
    "complete",
    "shutdown",
    "failed",
    "rejected",
    "remove",
    "orphaned",
];

pub fn routes() -> Router<App> {
    Router::new()
        .route("/tasks", get(list))
        .route("/tasks/{id}", get(inspect))
        .route("/tasks/{id}/logs", get(task_logs))
}

async fn list(State(app): State<App>, params: Params) -> Result<Json<Vec<wire::Task>>, Failure> {
    let filters = params.filters(FILTERS)?;
    let view = app.view().await?;
    let wanted = Wanted::new(&filters, &view)?;
    let to_wire = |task: &std::sync::Arc<Task>| convert::task::to_wire(task, &view);
    // A service's tasks are found without a look at all others: clients poll them.
    let tasks = match &wanted.services {
        Some(services) => services
            .iter()
            .flat_map(|id| view.store.tasks_of_service(*id))
            .filter(|task| wanted.matches(task, &view))
            .map(to_wire)
            .collect(),
        None => view.store.tasks().filter(|task| wanted.matches(task, &view)).map(to_wire).collect(),
    };
    Ok(Json(tasks))
}

/// Filters, with the objects that they name looked up.
struct Wanted<'a> {
    filters: &'a Filters,
    services: Option<BTreeSet<Id>>,
    nodes: Option<BTreeSet<Id>>,
    up_to_date: Option<bool>,
}

impl<'a> Wanted<'a> {
    fn new(filters: &'a Filters, view: &View) -> Result<Self, Failure> {
        for state in filters.get("desired-state").unwrap_or_default() {
            if !STATES.contains(&state.to_ascii_lowercase().as_str()) {
                return Err(Failure::invalid(format!("invalid filter 'desired-state={state}'")));
            }
        }
        // A full id is taken as it is: the tasks of a removed service outlive it for a while.
        let look_up = |key, find: &dyn Fn(&str) -> Result<Id, Failure>| -> Result<_, Failure> {
            let Some(values) = filters.get(key) else { return Ok(None) };
            let ids = values.iter().map(|value| value.parse().or_else(|_| find(value)));
            ids.collect::<Result<BTreeSet<Id>, _>>().map(Some)
        };
        Ok(Self {
            services: look_up("service", &|value| Ok(view.store.find_service(value)?.id))?,
            nodes: look_up("node", &|value| Ok(view.store.find_node(value)?.id))?,
            up_to_date: filters.switch("_up-to-date")?,
            filters,
        })
    }

    fn matches(&self, task: &Task, view: &View) -> bool {
        let up_to_date =
            || view.store.service(task.service).is_some_and(|s| s.spec_version == task.spec_version);
        self.services.as_ref().is_none_or(|services| services.contains(&task.service))
            && self.nodes.as_ref().is_none_or(|nodes| task.node.is_some_and(|node| nodes.contains(&node)))
            && self.up_to_date.is_none_or(|wanted| wanted == up_to_date())
            && self.filters.prefix("id", &text(task.id))
            && self.filters.prefix("name", &task.container_name())
            && self.filters.labels("label", &self.labels(task, view))
            && self.filters.any("desired-state", |state| state.eq_ignore_ascii_case(task.desired.as_str()))
            && self.filters.exact("runtime", "container")
    }

    /// A task has the labels of its service.
    fn labels(&self, task: &Task, view: &View) -> crate::wire::Texts {
        if self.filters.get("label").is_none() {
            return crate::wire::Texts::new();
        }
        view.store.service(task.service).map(|service| service.spec.labels.clone()).unwrap_or_default()
    }
}

async fn inspect(State(app): State<App>, Path(id): Path<String>) -> Result<Json<wire::Task>, Failure> {
    let view = app.view().await?;
    let task = view.store.find_task(&id)?;
    Ok(Json(convert::task::to_wire(task, &view)))
}

async fn task_logs(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, Failure> {
    let task = app.view().await?.store.find_task(&id)?.id;
    lines(&app, LogsOf::Task(task), params).await
}

/// The log lines of one task, or of all of a service.
pub async fn lines(app: &App, of: LogsOf, params: Params) -> Result<Response, Failure> {
    let lines = app.control.logs(of, logs::query(&params)?).await?;
    let style = logs::Style::of(&params);
    Ok(logs::reply(&params, lines.map(move |line| line.map(|line| framed(style, line)))))
}

fn framed(style: logs::Style, mut line: TaskLine) -> Bytes {
    // Clients take one frame for one line.
    if !line.line.text.ends_with(b"\n") {
        line.line.text = [&line.line.text[..], b"\n"].concat().into();
    }
    let origin = [
        ("com.docker.swarm.node.id", text(line.node)),
        ("com.docker.swarm.service.id", text(line.service)),
        ("com.docker.swarm.task.id", text(line.task)),
    ];
    style.frame(&line.line, &origin)
}
