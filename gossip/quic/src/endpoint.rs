//! The endpoint as the node holds it.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use covey_wire::Id;
use quinn::{Connection, ConnectionError, TokioRuntime};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout},
};

use crate::{
    admission::ConnectError,
    credentials::{Credentials, Identity, IdentityError},
    event::Event,
    hub::{Command, Hub},
    peer::Link,
    request::{self, Joined, RequestError},
    stream::{InUse, RecvStream, SendStream},
    transport::{BUSY_RETRY, COMMANDS_MAX, Close, DATAGRAM_MAX, EVENTS_MAX, PLACE_TIMEOUT, STREAM_TIMEOUT},
};

/// Where the endpoint takes the time from. Certificates are judged by it, and nothing else is.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// There is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be had.
    #[error("cannot use UDP {address}")]
    Socket {
        /// What was wanted.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The identity is not usable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// A datagram has more than [`DATAGRAM_MAX`] bytes. It was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a datagram of {0} bytes is over the limit of {DATAGRAM_MAX}")]
pub struct DatagramTooLong(pub usize);

/// There is no stream.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// There is no connection either.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The peer did not let us in, and says why.
    #[error("node {peer} refused the connection: {reason}")]
    Refused {
        /// The peer.
        peer: Id,
        /// In its words.
        reason: String,
    },
    /// The connection broke.
    #[error("the connection to node {peer} broke")]
    Broken {
        /// The peer.
        peer: Id,
        /// Why.
        source: ConnectionError,
    },
    /// The peer grants no more streams at the moment, or has no place for a connection.
    #[error("node {0} takes no more streams at the moment")]
    Busy(Id),
}

/// The node's only control-plane UDP socket. Clones are the same endpoint; when the last is dropped, all
/// ends: connections are closed and the endpoint's tasks with them.
#[derive(Clone)]
pub struct Endpoint {
    pub(crate) socket: quinn::Endpoint,
    commands: mpsc::Sender<Command>,
    identity: watch::Sender<Option<Arc<Credentials>>>,
    kept: watch::Sender<BTreeMap<Id, SocketAddr>>,
    clock: Clock,
}

impl Endpoint {
    /// Takes the UDP address and starts. Without an identity the endpoint can only ask to join. Events come
    /// out of the receiver, at most [`EVENTS_MAX`] wait in it; it must be emptied. Needs a running tokio
    /// runtime.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(
        address: SocketAddr,
        identity: Option<&Identity>,
        clock: Clock,
    ) -> Result<(Self, mpsc::Receiver<Event>), BindError> {
        let credentials = identity.map(|identity| Credentials::new(identity, &clock)).transpose()?;
        let server = credentials.as_ref().map(|credentials| credentials.server.clone());
        let socket = UdpSocket::bind(address)
            .and_then(|udp| quinn::Endpoint::new(Default::default(), server, udp, Arc::new(TokioRuntime)))
            .map_err(|source| BindError::Socket { address, source })?;
        let (commands, incoming_commands) = mpsc::channel(COMMANDS_MAX);
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let identity = watch::Sender::new(credentials.map(Arc::new));
        let kept = watch::Sender::new(BTreeMap::new());
        let hub = Hub::new(
            socket.clone(),
            incoming_commands,
            events,
            identity.subscribe(),
            kept.subscribe(),
            clock.clone(),
        );
        // Ends when the last clone of the endpoint, which holds the other end of its commands, is dropped.
        tokio::spawn(hub.run());
        Ok((Self { socket, commands, identity, kept, clock }, received))
    }

    /// The address that the socket has, its port chosen by the system where 0 was asked for.
    ///
    /// # Errors
    /// As the system call.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Uses this identity from now on: after joining, and after renewing. Existing connections stay, unless
    /// they are of another cluster or show peers another role; those are made anew.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn set_identity(&self, identity: &Identity) -> Result<(), IdentityError> {
        let credentials = Credentials::new(identity, &self.clock)?;
        self.socket.set_server_config(Some(credentials.server.clone()));
        self.identity.send_replace(Some(Arc::new(credentials)));
        Ok(())
    }

    /// Names the peers that are kept, and where each is reached: connections to them are made now, re-made
    /// when they break, and not closed for want of use. Whoever is not named any more becomes like any other
    /// peer.
    pub fn keep(&self, peers: BTreeMap<Id, SocketAddr>) {
        self.kept.send_if_modified(|kept| {
            let modified = *kept != peers;
            *kept = peers;
            modified
        });
    }

    /// Sends a datagram, best effort: over the newest connection to `peer`, or over one that is made to
    /// `address` first. Never waits; what cannot be sent or queued is dropped.
    ///
    /// # Errors
    /// [`DatagramTooLong`].
    pub fn send_datagram(&self, peer: Id, address: SocketAddr, bytes: Bytes) -> Result<(), DatagramTooLong> {
        if bytes.len() > DATAGRAM_MAX {
            return Err(DatagramTooLong(bytes.len()));
        }
        if self.commands.try_send(Command::Datagram { peer, address, bytes }).is_err() {
            tracing::debug!(%peer, "datagram dropped: too many commands wait");
        }
        Ok(())
    }

    /// Opens a stream both ways to `peer`, over the newest connection to it or one that is made to `address`
    /// first, which may have to wait for a place. `kind` tells the peer what it is for; 255 is the endpoint's own.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        &self,
        peer: Id,
        address: SocketAddr,
        kind: u8,
    ) -> Result<(SendStream, RecvStream), OpenError> {
        let ((mut send, recv), in_use) =
            self.opened(peer, address, async |connection: Connection| connection.open_bi().await).await?;
        say(&mut send, kind, peer).await?;
        Ok((SendStream::new(send, in_use.clone()), RecvStream::new(recv, in_use)))
    }

    /// Opens a stream without a way back, otherwise as [`Self::open`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_uni(&self, peer: Id, address: SocketAddr, kind: u8) -> Result<SendStream, OpenError> {
        let (mut send, in_use) =
            self.opened(peer, address, async |connection: Connection| connection.open_uni().await).await?;
        say(&mut send, kind, peer).await?;
        Ok(SendStream::new(send, in_use))
    }

    /// Closes all connections to a peer, for instance one that was removed or whose role has changed. It may
    /// come back with a valid certificate.
    pub async fn disconnect(&self, peer: Id) {
        // Fails only when all connections are closed already.
        let _ = self.commands.send(Command::Disconnect { peer }).await;
    }

    /// Asks the manager at `address` to let this node into the cluster whose CA has the digest `ca_digest`.
    /// The endpoint's identity plays no part and does not change.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn join(
        &self,
        address: SocketAddr,
        ca_digest: &[u8; 32],
        request: &[u8],
    ) -> Result<Joined, RequestError> {
        request::join(&self.socket, &self.clock, address, *ca_digest, request).await
    }

    /// Asks the manager at `address` for a new certificate; the endpoint's identity, expired or not, says for
    /// whom. Does not change the identity.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn renew(&self, address: SocketAddr, request: &[u8]) -> Result<Vec<u8>, RequestError> {
        let credentials = self.identity.borrow().clone().ok_or(ConnectError::NoIdentity)?;
        request::renew(&self.socket, &credentials, address, request).await
    }

    /// Closes all connections, tells the peers so, and ends the endpoint. Returns when that is done, about a
    /// second later at most.
    pub async fn close(&self) {
        let (done, ended) = oneshot::channel();
        if self.commands.send(Command::Close { done }).await.is_ok() {
            // The endpoint's end is what is waited for, however it comes.
            let _ = ended.await;
        }
    }

    /// Opens a stream, over another connection if the first has just ended, and again later if the peer has no place for
    /// a connection.
    async fn opened<T>(
        &self,
        peer: Id,
        address: SocketAddr,
        open: impl AsyncFn(Connection) -> Result<T, ConnectionError>,
    ) -> Result<(T, InUse), OpenError> {
        let patience = Instant::now() + PLACE_TIMEOUT;
        let mut again = true;
        loop {
            let Link { connection, in_use } = self.link(peer, address).await?;
            match timeout(STREAM_TIMEOUT, open(connection)).await {
                Ok(Ok(stream)) => return Ok((stream, in_use)),
                Ok(Err(ConnectionError::ApplicationClosed(close)))
                    if close.error_code == Close::Refused.code() =>
                {
                    return Err(OpenError::Refused {
                        peer,
                        reason: String::from_utf8_lossy(&close.reason).into_owned(),
                    });
                }
                Ok(Err(ConnectionError::ApplicationClosed(close)))
                    if close.error_code == Close::Full.code() =>
                {
                    if Instant::now() >= patience {
                        return Err(OpenError::Busy(peer));
                    }
                    // Not all at the same moment again.
                    sleep(BUSY_RETRY.mul_f64(rand::random())).await;
                }
                // Nothing was said on it yet.
                Ok(Err(
                    ConnectionError::ApplicationClosed(_)
                    | ConnectionError::TimedOut
                    | ConnectionError::Reset,
                )) if again => again = false,
                Ok(Err(source)) => return Err(OpenError::Broken { peer, source }),
                Err(_) => return Err(OpenError::Busy(peer)),
            }
        }
    }

    async fn link(&self, peer: Id, address: SocketAddr) -> Result<Link, ConnectError> {
        let (reply, link) = oneshot::channel();
        let sent = self.commands.send(Command::Link { peer, address, reply }).await;
        sent.map_err(|_| ConnectError::Closed)?;
        link.await.unwrap_or(Err(ConnectError::Closed))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({:?})", self.local_address().ok())
    }
}

/// Says what a stream is for; the peer learns of the stream by this.
async fn say(send: &mut quinn::SendStream, kind: u8, peer: Id) -> Result<(), OpenError> {
    match send.write_all(&[kind]).await {
        Ok(()) => Ok(()),
        Err(quinn::WriteError::ConnectionLost(source)) => Err(OpenError::Broken { peer, source }),
        Err(_) => Err(OpenError::Busy(peer)),
    }
}
