//! Why a request failed, in words that say what to do next.

use std::{error::Error, io};

/// Why a request gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens at the socket.
    #[error(
        "cannot reach the daemon at unix://{socket} ({reason}): start it with 'covey daemon', or name another socket with -H or COVEY_HOST"
    )]
    NoDaemon {
        /// Path of the socket.
        socket: String,
        /// What the system said.
        reason: io::ErrorKind,
    },
    /// The socket may not be opened.
    #[error("permission denied at unix://{socket}: run as root, or as a member of the socket's group")]
    Forbidden {
        /// Path of the socket.
        socket: String,
    },
    /// The daemon refused; nothing was changed unless the message says so.
    #[error("Error response from daemon: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// In the daemon's words.
        message: String,
    },
    /// The daemon answered a request for a connection with something else.
    #[error("unable to upgrade to tcp, received {0}")]
    NotUpgraded(u16),
    /// The connection ended early; whether the request was carried out is unknown.
    #[error("the connection to the daemon broke")]
    Broken(#[source] hyper::Error),
    /// The reply ended early or is too long.
    #[error("the daemon's reply cannot be read")]
    Reply(#[source] Box<dyn Error + Send + Sync>),
    /// The reply is not what it should be.
    #[error("the daemon's reply cannot be understood")]
    Shape(#[source] serde_json::Error),
    /// A name that cannot be part of a request.
    #[error("the request cannot be written")]
    Request(#[source] hyper::http::Error),
}

impl ClientError {
    /// The daemon does not know what was asked for.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}
