//! What the endpoint tells the node.

use std::net::SocketAddr;

use bytes::Bytes;
use covey_crypto::identity::PeerIdentity;
use covey_wire::Id;
use tokio::sync::oneshot;

use crate::stream::{RecvStream, SendStream};

/// Something came in. `from` is verified: the peer showed a certificate of our CA that says so, and holds its
/// key.
#[derive(Debug)]
pub enum Event {
    /// A datagram of a member.
    Datagram {
        /// Its sender.
        from: Id,
        /// Where it came from.
        address: SocketAddr,
        /// What it carries.
        bytes: Bytes,
    },
    /// A member has opened a stream.
    Stream {
        /// Who opened it.
        from: PeerIdentity,
        /// Where it came from.
        address: SocketAddr,
        /// What the opener says it is for.
        kind: u8,
        /// The way back.
        send: SendStream,
        /// What follows the kind.
        recv: RecvStream,
    },
    /// A member has opened a stream without a way back.
    Uni {
        /// Who opened it.
        from: PeerIdentity,
        /// Where it came from.
        address: SocketAddr,
        /// What the opener says it is for.
        kind: u8,
        /// What follows the kind.
        recv: RecvStream,
    },
    /// Somebody without a certificate asks to join. Nothing about them is verified.
    Join {
        /// Where it came from; the address is proven.
        address: SocketAddr,
        /// What they say, at most [`REQUEST_MAX`](crate::REQUEST_MAX) bytes.
        request: Vec<u8>,
        /// The answer.
        reply: Reply,
    },
    /// A node asks for a new certificate. The one it showed is of our CA, but may have expired, and the node
    /// may have been removed since.
    Renew {
        /// Who asks.
        from: PeerIdentity,
        /// Where it came from.
        address: SocketAddr,
        /// What they say, at most [`REQUEST_MAX`](crate::REQUEST_MAX) bytes.
        request: Vec<u8>,
        /// The answer.
        reply: Reply,
    },
    /// The last connection to a kept peer fell silent or was reset; nobody closed it. It is being re-opened.
    Lost {
        /// The peer.
        peer: Id,
    },
}

/// The way to answer a request, once. Dropping it refuses the request.
#[derive(Debug)]
pub struct Reply(oneshot::Sender<Result<Vec<u8>, String>>);

impl Reply {
    pub(crate) fn new() -> (Self, oneshot::Receiver<Result<Vec<u8>, String>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Answers; at most [`ANSWER_MAX`](crate::ANSWER_MAX) bytes. An asker that went away meanwhile does not
    /// notice.
    pub fn answer(self, bytes: Vec<u8>) {
        let _ = self.0.send(Ok(bytes));
    }

    /// Refuses, with a text for the asker's user (cut at a few hundred bytes).
    pub fn refuse(self, reason: impl Into<String>) {
        let _ = self.0.send(Err(reason.into()));
    }
}
