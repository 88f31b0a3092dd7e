//! Join and renew, the asking side: one connection, one request, one answer.

use std::net::SocketAddr;

use covey_crypto::{certificate::CaCertificate, identity::PeerIdentity};
use quinn::{Connection, ConnectionError};
use tokio::time::timeout;

use crate::{
    admission::{self, ConnectError},
    credentials::{self, Credentials, IdentityError},
    endpoint::Clock,
    frame::{read_frame, write_frame},
    transport::{Close, REPLY_TIMEOUT},
    verifier::NotThatManager,
};

/// Bytes of the largest request.
pub const REQUEST_MAX: usize = 64 << 10;
/// Bytes of the largest answer.
pub const ANSWER_MAX: usize = 1 << 20;
/// The name that is asked for where no node in particular is meant.
const ANYONE: &str = "node.covey";

/// A request was not answered. The texts are for the user.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The node that answers is of another CA than the token says.
    #[error("the manager's CA does not match the token")]
    WrongCa,
    /// The node that answers is of that cluster, but a worker.
    #[error("the node at {0} is not a manager")]
    NotManager(SocketAddr),
    /// The request has more than [`REQUEST_MAX`] bytes. Nothing was sent.
    #[error("a request of {0} bytes is too long")]
    TooLong(usize),
    /// The manager says no, and why.
    #[error("the manager refused: {0}")]
    Refused(String),
    /// There was no whole answer. The request may have had its effect.
    #[error("no answer from {address}: {cause}")]
    NoAnswer {
        /// Who was asked.
        address: SocketAddr,
        /// What went wrong.
        cause: String,
    },
    /// TLS could not be set up at all.
    #[error("TLS cannot be set up")]
    Tls(#[from] IdentityError),
}

/// What a joining node learns.
#[derive(Debug)]
pub struct Joined {
    /// The CA that the token names, to be trusted from now on.
    pub ca: CaCertificate,
    /// The manager who answered.
    pub manager: PeerIdentity,
    /// What it said.
    pub answer: Vec<u8>,
}

/// Asks the manager at `address` to let this node join the cluster whose CA has this digest.
pub(crate) async fn join(
    endpoint: &quinn::Endpoint,
    clock: &Clock,
    address: SocketAddr,
    ca_digest: [u8; 32],
    request: &[u8],
) -> Result<Joined, RequestError> {
    let (config, verifier) = credentials::joining(ca_digest, clock)?;
    let dialled = admission::dial(endpoint, config, address, ANYONE).await;
    let (ca, manager) = match verifier.verdict() {
        Some(Ok(found)) => found.clone(),
        Some(Err(reason)) => return Err(not_that_manager(reason, address)),
        // Without a certificate shown there is no connection, so this is always an error.
        None => return Err(dialled.err().unwrap_or(ConnectError::OtherCluster { address }).into()),
    };
    let answer = exchange(dialled?, address, request).await?;
    Ok(Joined { ca, manager, answer })
}

/// Asks the node at `address`, who must be a manager of our cluster, for a new certificate.
pub(crate) async fn renew(
    endpoint: &quinn::Endpoint,
    credentials: &Credentials,
    address: SocketAddr,
    request: &[u8],
) -> Result<Vec<u8>, RequestError> {
    let connection = admission::dial(endpoint, credentials.renew.clone(), address, ANYONE).await?;
    admission::identity(&connection, credentials).ok_or(ConnectError::OtherCluster { address })?;
    exchange(connection, address, request).await
}

fn not_that_manager(reason: &NotThatManager, address: SocketAddr) -> RequestError {
    match reason {
        NotThatManager::WrongCa => RequestError::WrongCa,
        NotThatManager::Certificate(_) => ConnectError::OtherCluster { address }.into(),
        NotThatManager::Worker => RequestError::NotManager(address),
        NotThatManager::Validity(cause) => ConnectError::Clock { address, cause: *cause }.into(),
    }
}

async fn exchange(
    connection: Connection,
    address: SocketAddr,
    request: &[u8],
) -> Result<Vec<u8>, RequestError> {
    if request.len() > REQUEST_MAX {
        return Err(RequestError::TooLong(request.len()));
    }
    let no_answer = |cause| RequestError::NoAnswer { address, cause };
    let result = match timeout(REPLY_TIMEOUT, ask(&connection, request)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(cause)) => match connection.close_reason() {
            Some(ConnectionError::ApplicationClosed(close)) if close.error_code == Close::Refused.code() => {
                Err(RequestError::Refused(String::from_utf8_lossy(&close.reason).into_owned()))
            }
            _ => Err(no_answer(cause)),
        },
        Err(_) => Err(no_answer(format!("nothing within {} s", REPLY_TIMEOUT.as_secs()))),
    };
    connection.close(Close::Done.code(), b"");
    result
}

async fn ask(connection: &Connection, request: &[u8]) -> Result<Vec<u8>, String> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(|error| error.to_string())?;
    write_frame(&mut send, request).await.map_err(|error| error.to_string())?;
    read_frame(&mut recv, ANSWER_MAX).await.map_err(|error| error.to_string())
}
