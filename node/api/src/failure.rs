//! Why a request was not served: a kind, which becomes the HTTP status, and a sentence for the user.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use covey_state::{
    command::Refusal, container::HealthCheckError, network::NetworkSpecError, service::SpecError,
};
use serde::Serialize;

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// 304: it already is as asked; no body.
    NotModified,
    /// 400: the request itself is wrong.
    Invalid,
    /// 403: it is not allowed.
    Forbidden,
    /// 404: there is no such object.
    NotFound,
    /// 408: the client did not finish its request.
    Timeout,
    /// 409: it collides with what is there.
    Conflict,
    /// 413: the body is too large.
    TooLarge,
    /// 500: something went wrong here.
    Internal,
    /// 501: this is not built yet.
    NotImplemented,
    /// 503: not now, or not on this node.
    Unavailable,
}

impl FailureKind {
    /// The status of the reply.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotModified => StatusCode::NOT_MODIFIED,
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A request that was not served. Nothing of it was done unless the message says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Becomes the status.
    pub kind: FailureKind,
    /// Becomes the message: what is wrong and, where it helps, what to do next.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// 304: it already is as asked.
    pub fn not_modified() -> Self {
        Self::new(FailureKind::NotModified, "not modified")
    }

    /// 400: the request itself is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Invalid, message)
    }

    /// 403: it is not allowed.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Forbidden, message)
    }

    /// 404: there is no such object.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(FailureKind::NotFound, message)
    }

    /// 409: it collides with what is there.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Conflict, message)
    }

    /// 500: something went wrong here.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Internal, message)
    }

    /// 501: `what` is not built yet.
    pub fn not_yet(what: impl std::fmt::Display) -> Self {
        Self::new(FailureKind::NotImplemented, format!("not yet: {what} is not available yet"))
    }

    /// 503: not now, or not on this node.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Unavailable, message)
    }

    /// 503: the cluster is to be asked of a manager, and this node is a worker (QRM-12).
    pub fn not_a_manager() -> Self {
        Self::unavailable(
            "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. \
             Please run this command on a manager node or promote the current node to a manager.",
        )
    }

    /// 503: this node is in no cluster.
    pub fn not_in_swarm() -> Self {
        Self::unavailable(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect \
             this node to swarm and try again.",
        )
    }

    /// 503: this node already is in a cluster (CLU-15).
    pub fn already_in_swarm() -> Self {
        Self::unavailable(
            "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join \
             another one.",
        )
    }
}

impl From<NetworkSpecError> for Failure {
    fn from(error: NetworkSpecError) -> Self {
        match error {
            NetworkSpecError::Predefined(_) => Self::forbidden(error.to_string()),
            // The containers would think their traffic safe.
            NetworkSpecError::Encrypted(_) => Self::not_yet("--opt encrypted"),
            other => Self::invalid(other.to_string()),
        }
    }
}

impl From<HealthCheckError> for Failure {
    fn from(error: HealthCheckError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let kind = match &refusal {
            // Clients look for the text and expect 500: that is what Docker answers.
            Refusal::OutOfSequence => FailureKind::Internal,
            Refusal::Stale => FailureKind::Unavailable,
            Refusal::NotFound { .. } => FailureKind::NotFound,
            Refusal::NameInUse { .. } => FailureKind::Conflict,
            Refusal::InUse { .. } | Refusal::Invalid(_) => FailureKind::Invalid,
            Refusal::Denied(_) => FailureKind::Forbidden,
        };
        let message = match &refusal {
            Refusal::OutOfSequence => format!("rpc error: code = Unknown desc = {refusal}"),
            Refusal::NameInUse { .. } => format!("rpc error: code = AlreadyExists desc = {refusal}"),
            Refusal::InUse { .. } => format!("rpc error: code = FailedPrecondition desc = {refusal}"),
            Refusal::Denied(_) => format!("rpc error: code = PermissionDenied desc = {refusal}"),
            _ => refusal.to_string(),
        };
        Self { kind, message }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        if self.kind == FailureKind::NotModified {
            return status.into_response();
        }
        (status, Json(Body { message: &self.message })).into_response()
    }
}
