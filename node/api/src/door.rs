//! The door: what happens to every request before and after its route.

use std::{convert::Infallible, panic::AssertUnwindSafe};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, Response, Uri, header},
    response::IntoResponse,
};
use futures_util::FutureExt;
use hyper::body::Incoming;
use tower_service::Service;

use crate::{app::App, failure::Failure, route, version};

/// Turns any request into a reply.
#[derive(Clone)]
pub struct Door {
    router: Router,
    server: HeaderValue,
    api_version: HeaderValue,
}

impl Door {
    pub fn new(app: App) -> Self {
        let server = format!("Docker/{} (linux)", app.host.version);
        Self {
            router: route::all(app),
            server: HeaderValue::try_from(server).unwrap_or(HeaderValue::from_static("Docker (linux)")),
            api_version: HeaderValue::try_from(version::MAX.to_string())
                .unwrap_or(HeaderValue::from_static("1.51")),
        }
    }

    /// Never fails: whatever goes wrong is a reply.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let mut response = match unversioned(request) {
            Ok(request) => self.route(request).await,
            Err(failure) => failure.into_response(),
        };
        let status = response.status().as_u16();
        if response.status().is_server_error() {
            tracing::info!(%method, path, status, "request failed");
        } else {
            tracing::debug!(%method, path, status, "request");
        }
        let headers = response.headers_mut();
        headers.insert(header::SERVER, self.server.clone());
        headers.insert("Api-Version", self.api_version.clone());
        headers.insert("Ostype", HeaderValue::from_static("linux"));
        headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
        response
    }

    async fn route(&self, request: Request<Body>) -> Response<Body> {
        let mut router = self.router.clone();
        let only_looks = request.method().is_safe();
        // A bug in one route must not take the daemon down.
        let answer = AssertUnwindSafe(router.call(request)).catch_unwind();
        let answered = if only_looks {
            answer.await
        } else {
            // What changes something is finished, though its client may leave: half a `swarm init` helps nobody.
            tokio::spawn(answer).await.unwrap_or_else(|stopped| Err(Box::new(stopped)))
        };
        match answered {
            Ok(Ok::<_, Infallible>(response)) => response,
            Err(_) => {
                tracing::error!("a route panicked");
                Failure::internal("internal error: see the log of the daemon").into_response()
            }
        }
    }
}

/// The request with its path cut free of `/v1.N`, which becomes an extension.
fn unversioned(request: Request<Incoming>) -> Result<Request<Body>, Failure> {
    let (mut parts, body) = request.into_parts();
    let (version, path) = version::split(parts.uri.path())?;
    if path.len() != parts.uri.path().len() {
        let cut = match parts.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        parts.uri = Uri::try_from(cut).map_err(|error| Failure::invalid(format!("invalid path: {error}")))?;
    }
    parts.extensions.insert(version);
    Ok(Request::from_parts(parts, Body::new(body)))
}
