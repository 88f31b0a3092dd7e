//! How a connection comes about, from either side: handshake, then who is it and is it welcome.

use std::{net::SocketAddr, sync::Arc};

use covey_crypto::{
    certificate::ValidityError,
    identity::{PeerIdentity, Role},
};
use covey_wire::Id;
use quinn::{Connection, ConnectionError, Incoming, TransportErrorCode, crypto::rustls::HandshakeData};
use rustls::AlertDescription;
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

use crate::{
    credentials::{Credentials, JOIN, MEMBER, RENEW},
    endpoint::Clock,
    transport::{CONNECT_TIMEOUT, Close},
};

/// No connection to a node. The texts are for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// This node has no identity, so it cannot show one.
    #[error("this node is not part of a swarm")]
    NoIdentity,
    /// Nothing answers there, or nothing that takes connections.
    #[error("cannot reach {address}: {cause}")]
    Unreachable {
        /// What was tried.
        address: SocketAddr,
        /// What went wrong.
        cause: String,
    },
    /// Either side does not know the other's CA.
    #[error("the node at {address} belongs to another cluster")]
    OtherCluster {
        /// Where.
        address: SocketAddr,
    },
    /// The peer's certificate is not valid by this node's clock.
    #[error("the node at {address} cannot be trusted now: {cause}")]
    Clock {
        /// Where.
        address: SocketAddr,
        /// By how much.
        cause: ValidityError,
    },
    /// Another node answers there.
    #[error("the node at {address} is {found}, not {expected}")]
    Mismatch {
        /// Where.
        address: SocketAddr,
        /// Who was looked for.
        expected: Id,
        /// Who is there.
        found: Id,
    },
    /// The peer says no, and why.
    #[error("the node at {address} refused the connection: {reason}")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// In the peer's words.
        reason: String,
    },
    /// All places for connections are in use, and too many wait for one or have waited too long.
    #[error("too many connections are in use at the moment")]
    Busy,
    /// The connection was made with a certificate that says what this node was before.
    #[error("this node's role has changed meanwhile")]
    Outdated,
    /// The endpoint was closed.
    #[error("this node is shutting down")]
    Closed,
}

/// A connection whose other end is known.
pub(crate) struct Admitted {
    pub(crate) connection: Connection,
    pub(crate) identity: PeerIdentity,
    /// What it was told that this node is.
    pub(crate) shown: Role,
}

/// What has come in.
pub(crate) enum Arrival {
    Member(Admitted),
    Join(Connection),
    Renew(Admitted),
}

/// Opens a connection, within [`CONNECT_TIMEOUT`]. Who the peer is, is for the caller to check before
/// anything else.
pub(crate) async fn dial(
    endpoint: &quinn::Endpoint,
    config: quinn::ClientConfig,
    address: SocketAddr,
    name: &str,
) -> Result<Connection, ConnectError> {
    let unreachable = |cause: String| ConnectError::Unreachable { address, cause };
    let attempts = async {
        loop {
            let handshake = endpoint
                .connect_with(config.clone(), address, name)
                .map_err(|error| unreachable(error.to_string()))?;
            match handshake.await {
                // Silence is given up sooner than a host may take that is busy or just starting.
                Err(ConnectionError::TimedOut) => {}
                Err(error) => return Err(refusal(error, address)),
                Ok(connection) => return Ok(connection),
            }
        }
    };
    let silence = || unreachable(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()));
    timeout(CONNECT_TIMEOUT, attempts).await.unwrap_or_else(|_| Err(silence()))
}

/// Opens a connection to a member.
pub(crate) async fn dial_member(
    endpoint: quinn::Endpoint,
    credentials: Arc<Credentials>,
    clock: Clock,
    peer: Id,
    address: SocketAddr,
) -> Result<Admitted, ConnectError> {
    // Sessions are remembered by name, so each peer has its own.
    let connection = dial(&endpoint, credentials.member.clone(), address, &format!("{peer}.covey")).await?;
    let identity = identity(&connection, &credentials).ok_or(ConnectError::OtherCluster { address })?;
    // A resumed session shows what the peer was when the session began, so both are checked here and not in
    // TLS.
    let refused = if identity.id == peer {
        identity.check_time(clock()).err().map(|cause| ConnectError::Clock { address, cause })
    } else {
        Some(ConnectError::Mismatch { address, expected: peer, found: identity.id })
    };
    match refused {
        None => Ok(Admitted { connection, identity, shown: credentials.role }),
        Some(error) => {
            connection.close(Close::Refused.code(), error.to_string().as_bytes());
            Err(error)
        }
    }
}

/// Takes an incoming connection as far as it is known what it is for. Tells whoever is not welcome why.
pub(crate) async fn arrive(
    incoming: Incoming,
    credentials: Arc<Credentials>,
    clock: Clock,
) -> Option<Arrival> {
    let connection = timeout(CONNECT_TIMEOUT, incoming).await.ok()?.ok()?;
    match sort(&connection, &credentials, &clock) {
        Ok(arrival) => Some(arrival),
        Err(reason) => {
            tracing::debug!(address = %connection.remote_address(), reason, "connection refused");
            connection.close(Close::Refused.code(), reason.as_bytes());
            None
        }
    }
}

fn sort(connection: &Connection, credentials: &Credentials, clock: &Clock) -> Result<Arrival, String> {
    let protocol = protocol(connection).unwrap_or_default();
    if protocol == JOIN {
        return Ok(Arrival::Join(connection.clone()));
    }
    let identity = identity(connection, credentials).ok_or("no certificate of this cluster was shown")?;
    let admitted = |identity| Admitted { connection: connection.clone(), identity, shown: credentials.role };
    match &*protocol {
        MEMBER => {
            identity.check_time(clock()).map_err(|error| error.to_string())?;
            Ok(Arrival::Member(admitted(identity)))
        }
        RENEW => Ok(Arrival::Renew(admitted(identity))),
        _ => Err("this protocol is not spoken here".to_owned()),
    }
}

fn protocol(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// Who is at the other end, if our CA says so. Says nothing about time.
pub(crate) fn identity(connection: &Connection, credentials: &Credentials) -> Option<PeerIdentity> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    credentials.ca.verify(chain.first()?).ok()
}

/// A failed handshake, in the user's words.
fn refusal(error: ConnectionError, address: SocketAddr) -> ConnectError {
    let other_cluster = TransportErrorCode::crypto(AlertDescription::UnknownCA.into());
    match error {
        ConnectionError::TransportError(error) if error.code == other_cluster => {
            ConnectError::OtherCluster { address }
        }
        ConnectionError::ConnectionClosed(close) if close.error_code == other_cluster => {
            ConnectError::OtherCluster { address }
        }
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
        {
            let cause = "it takes no more connections at the moment".to_owned();
            ConnectError::Unreachable { address, cause }
        }
        ConnectionError::ApplicationClosed(close) => {
            ConnectError::Refused { address, reason: String::from_utf8_lossy(&close.reason).into_owned() }
        }
        ConnectionError::LocallyClosed => ConnectError::Closed,
        other => ConnectError::Unreachable { address, cause: other.to_string() },
    }
}
