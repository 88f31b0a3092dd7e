//! The only control-plane UDP socket: one QUIC endpoint with mutual TLS.
//!
//! Three protocols share the socket, told apart by ALPN:
//!
//! * *member*: both sides show a certificate of the cluster's CA that is valid now. Datagrams (best effort)
//!   and streams, each stream with one byte in front that says what kind it is. What they carry is not known
//!   here.
//! * *join*: the client has no certificate yet. It knows the digest of the CA from its token and accepts only
//!   a manager of that CA. One request, one answer.
//! * *renew*: as member, but expired certificates of our CA are let through, for whoever was away too long to
//!   renew in time. One request, one answer; the managers decide.
//!
//! **Life of a connection.** Every connection is kept alive by both sides ([`KEEP_ALIVE`]) and is lost when
//! nothing was heard for [`IDLE_TIMEOUT`], so a dead host is noticed about a second later, whoever had opened
//! the connection. Connections to *kept* peers ([`Endpoint::keep`]) are opened at once, re-opened when they break, and
//! their loss is reported ([`Event::Lost`]). Any other is ended by whoever opened it after [`UNUSED_AFTER`] without a
//! datagram or an open stream. Two nodes may connect to each other at the same time: both connections work, the newest
//! one is sent on, and of kept peers only one stays.
//!
//! **Places.** A node has [`CONNECTIONS_MAX`] places for connections with members, whoever opens them, and never more
//! connections than that. Where all are taken, requests wait in the order in which they came (datagrams go first), and
//! the longest unused connections end, so that a node works with many more peers than it has places. A few places are
//! reserved for either direction: nodes that are full still reach each other. A connection ends by agreement, so that
//! no request is lost with it; it opens again with less work, since both sides remember the session.
//!
//! **Strangers get little.** A fresh connection may open no stream and has a small receive window; both grow
//! when the peer has been admitted. So a stream can only be opened once the other side has checked who we
//! are.
#![allow(clippy::disallowed_methods, reason = "door: the control-plane UDP socket, its clock and its tasks")]

mod admission;
mod credentials;
mod endpoint;
mod event;
mod frame;
mod hub;
mod peer;
mod places;
mod queue;
mod request;
mod serve;
mod stream;
#[cfg(test)]
mod tests;
mod transport;
mod verifier;

pub use admission::ConnectError;
pub use credentials::{Identity, IdentityError};
pub use endpoint::{BindError, Clock, DatagramTooLong, Endpoint, OpenError};
pub use event::{Event, Reply};
pub use frame::{ReadFrameError, WriteFrameError, read_frame, write_frame};
pub use request::{ANSWER_MAX, Joined, REQUEST_MAX, RequestError};
pub use stream::{RecvStream, SendStream};
pub use transport::{
    CONNECT_TIMEOUT, CONNECTIONS_MAX, DATAGRAM_MAX, EVENTS_MAX, IDLE_TIMEOUT, KEEP_ALIVE, REPLY_TIMEOUT,
    UNUSED_AFTER,
};
