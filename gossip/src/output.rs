//! What comes out of the machine: messages to send, an incarnation to keep, and news.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use covey_wire::Id;

use crate::{member::MemberEvent, topic::Topic};

/// What the machine wants done, or tells. To be polled until there is none after every call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram of at most [`DATAGRAM_BYTES_MAX`](crate::DATAGRAM_BYTES_MAX); it may be lost.
    Datagram {
        /// The receiver, to be authenticated.
        to: Id,
        /// Where it listens.
        address: SocketAddr,
        /// What to send.
        bytes: Bytes,
    },
    /// Send a message of at most [`MESSAGE_BYTES_MAX`](crate::MESSAGE_BYTES_MAX) on a stream of its own, for
    /// `handle_push`; it may be lost.
    Push {
        /// The receiver, to be authenticated.
        to: Id,
        /// Where it listens.
        address: SocketAddr,
        /// What to send.
        bytes: Bytes,
    },
    /// Send a message of at most [`MESSAGE_BYTES_MAX`](crate::MESSAGE_BYTES_MAX) on a stream, for `handle_request`,
    /// and bring the answer, of at most as much, to `handle_reply`. If it fails, nothing is to be done.
    Request {
        /// The receiver, to be authenticated.
        to: Id,
        /// Where it listens.
        address: SocketAddr,
        /// What to send.
        bytes: Bytes,
    },
    /// Write this incarnation to disk, then call `handle_persisted`.
    Persist {
        /// The incarnation in which this node will go on.
        incarnation: u64,
    },
    /// A member's state changed.
    Member(MemberEvent),
    /// A row was added, changed or went away; read it with [`Gossip::row`](crate::Gossip::row). That rows are suspended, or count again,
    /// is told by their owner's [`MemberEvent`] alone.
    Row {
        /// The node that wrote it.
        owner: Id,
        /// What it is about.
        topic: Topic,
        /// Its name.
        key: Arc<str>,
    },
    /// Everything is here, and was told before this, that others know of a topic to which this node subscribed: one of
    /// them that had heard all of it said so, or all of them told what they know, or there is none; or in fifteen periods
    /// of anti-entropy nobody could say so. Comes once for each time that a topic is subscribed to, and first of all for
    /// [`NODES`](crate::NODES).
    Heard {
        /// The topic.
        topic: Topic,
    },
}
