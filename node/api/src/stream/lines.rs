//! Lines of JSON, each sent as soon as it is there.

use std::convert::Infallible;

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;

use crate::{
    engine::{Progress, ProgressStream},
    failure::Failure,
};

/// A reply of one JSON value a line.
pub fn reply<T: Serialize>(values: impl Stream<Item = T> + Send + 'static) -> Response {
    let lines = values.map(|value| Ok::<_, Infallible>(line(&value)));
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response()
}

fn line<T: Serialize>(value: &T) -> Bytes {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.extend_from_slice(b"\r\n");
    text.into()
}

/// A line of the progress of a pull, load or import.
#[derive(Serialize)]
struct ProgressLine {
    #[serde(skip_serializing_if = "str::is_empty")]
    status: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    stream: String,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    detail: Option<Detail>,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: String,
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    error_detail: Option<ErrorDetail>,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: String,
}

#[derive(Serialize)]
struct Detail {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
}

#[derive(Serialize)]
struct ErrorDetail {
    message: String,
}

impl ProgressLine {
    fn new(step: Result<Progress, Failure>) -> Self {
        match step {
            Ok(step) => Self {
                status: step.status,
                stream: String::new(),
                detail: (!step.id.is_empty()).then(|| Detail {
                    current: step.amount.map(|(done, _)| done),
                    total: step.amount.map(|(_, all)| all),
                }),
                id: step.id,
                error_detail: None,
                error: String::new(),
            },
            Err(failure) => Self {
                status: String::new(),
                stream: String::new(),
                detail: None,
                id: String::new(),
                error_detail: Some(ErrorDetail { message: failure.message.clone() }),
                error: failure.message,
            },
        }
    }

    /// As `load` writes it: plain text for the terminal where it is about no part.
    fn plain(mut self) -> Self {
        if self.id.is_empty() && !self.status.is_empty() {
            self.stream = format!("{}\n", std::mem::take(&mut self.status));
        }
        self
    }
}

/// How the lines that are about no part are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As `status`: pull, import.
    Status,
    /// As `stream`: load.
    Plain,
}

/// The progress of a long work. One that fails before its first step is a failure, with a status of its own.
pub async fn progress(mut steps: ProgressStream, style: Style) -> Result<Response, Failure> {
    let first = match steps.next().await {
        Some(Err(failure)) => return Err(failure),
        first => first,
    };
    let lines = stream::iter(first).chain(steps).map(move |step| match style {
        Style::Status => ProgressLine::new(step),
        Style::Plain => ProgressLine::new(step).plain(),
    });
    Ok(reply(lines))
}
