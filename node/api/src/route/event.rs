//! `events`.

use std::{future, sync::Arc};

use axum::{Router, extract::State, response::Response, routing::get};
use futures_util::StreamExt;

use crate::{
    app::App, failure::Failure, filters::Filters, params::Params, stream::lines, wire::event::Event,
};

const FILTERS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

pub fn routes() -> Router<App> {
    Router::new().route("/events", get(events))
}

async fn events(State(app): State<App>, params: Params) -> Result<Response, Failure> {
    let filters = params.filters(FILTERS)?;
    let (since, until) = (params.moment("since")?, params.moment("until")?);
    let events = app
        .events
        .read(since)
        .take_while(move |event| future::ready(until.is_none_or(|until| event.time_nano <= until.0)))
        .filter(move |event| future::ready(matches(event, &filters)));
    let end = async move {
        match until {
            None => future::pending().await,
            Some(until) => tokio::time::sleep(until.since(super::system::now())).await,
        }
    };
    // What is remembered comes before the end: `until` may lie in the past.
    Ok(lines::reply(biased(events, end)))
}

/// The items of `events` until `end`; those that are there already come first.
fn biased(
    events: impl futures_util::Stream<Item = Arc<Event>> + Send + 'static,
    end: impl Future<Output = ()> + Send + 'static,
) -> impl futures_util::Stream<Item = Arc<Event>> + Send + 'static {
    futures_util::stream::unfold((Box::pin(events), Box::pin(end)), |(mut events, mut end)| async move {
        tokio::select! {
            biased;
            event = events.next() => event.map(|event| (event, (events, end))),
            () = &mut end => None,
        }
    })
}

fn matches(event: &Event, filters: &Filters) -> bool {
    let attributes = &event.actor.attributes;
    let named = |kind: &str| {
        filters.any(kind, |value| {
            let name = attributes.get("name").is_some_and(|name| name == value);
            event.kind == kind && (name || event.actor.id.starts_with(value))
        })
    };
    let image = filters.any("image", |value| match event.kind {
        "image" => event.actor.id == value || attributes.get("name").is_some_and(|name| name == value),
        "container" => attributes.get("image").is_some_and(|image| image == value),
        _ => false,
    });
    let action = event.action.split(':').next().unwrap_or("");
    filters.any("event", |value| event.action == value || action == value)
        && filters.exact("type", event.kind)
        && filters.exact("scope", event.scope.as_str())
        && filters.labels("label", attributes)
        && image
        && ["container", "node", "service", "network", "volume", "plugin", "daemon", "secret", "config"]
            .into_iter()
            .all(named)
}
