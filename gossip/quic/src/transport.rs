//! The bounds of the endpoint, and how its connections are set up.

use std::{sync::Arc, time::Duration};

use quinn::{Connection, TransportConfig, VarInt};

/// Places: connections with members that this node holds or is making, in either direction.
pub const CONNECTIONS_MAX: usize = 64;
/// Places that either direction leaves to the other, so that two nodes that are full can still talk to each other.
pub const PLACES_RESERVED: usize = 8;
/// Connections that are asked to end at a time, to make room.
pub const ENDING_MAX: usize = 16;
/// Peers that wait for a place or an answer; beyond, callers are told so and datagrams are dropped.
pub const WAITING_PEERS_MAX: usize = 4096;
/// Members that have proven who they are and wait for a place here; beyond, they are told so.
pub const ARRIVALS_MAX: usize = 32;
/// Bytes of the largest datagram. The smallest path that QUIC allows (1,200 byte packets) carries it.
pub const DATAGRAM_MAX: usize = 1150;
/// Events that wait for the node; beyond, datagrams are dropped and streams wait.
pub const EVENTS_MAX: usize = 1024;
/// Commands that wait for the endpoint; beyond, datagrams are dropped and other callers wait.
pub const COMMANDS_MAX: usize = 1024;
/// Datagrams that wait for one connection to be made; beyond, the oldest is dropped.
pub const WAITING_DATAGRAMS_MAX: usize = 32;
/// Callers that wait for one connection to be made; beyond, they are told so.
pub const WAITING_LINKS_MAX: usize = 256;
/// Incoming handshakes at a time; beyond, clients are refused.
pub const HANDSHAKES_MAX: usize = 128;
/// Incoming handshakes from where on clients must first prove their address (QUIC retry), which spoofed
/// floods cannot.
pub const HANDSHAKES_UNPROVEN_MAX: usize = 16;
/// Join and renew requests that are served at a time; beyond, clients are refused.
pub const REQUESTS_MAX: usize = 32;

/// Until a connection is made or given up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Until a connection has its place …
pub const PLACE_TIMEOUT: Duration = Duration::from_secs(10);
/// … and until one that a member has opened has it.
pub const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(1);
/// From when on whoever waits for a place gets that of a connection that is kept or in use.
pub const LAST_RESORT_AFTER: Duration = Duration::from_millis(500);
/// Until a peer that was asked to end a connection has done so; then it is closed all the same.
pub const ENDING_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts at a peer that has no place for us; between nothing and this.
pub const BUSY_RETRY: Duration = Duration::from_millis(200);
/// Between two attempts to be kept by a peer that has no place for us: the first, and the longest.
pub const DENIED_MIN: Duration = Duration::from_secs(1);
pub const DENIED_MAX: Duration = Duration::from_secs(60);
/// Until a stream of an existing connection is granted, or its first byte has come.
pub const STREAM_TIMEOUT: Duration = Duration::from_secs(3);
/// Until a join or renew request has its answer.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two signs of life on a quiet connection.
pub const KEEP_ALIVE: Duration = Duration::from_millis(250);
/// Silence after which a connection is lost.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that was opened here, is not kept and had no use for this long is closed.
pub const UNUSED_AFTER: Duration = Duration::from_secs(10);
/// Between two looks at all connections.
pub const TICK: Duration = Duration::from_secs(1);
/// Between two looks at the places while somebody waits for one.
pub const SETTLE_EVERY: Duration = Duration::from_millis(100);
/// The kind of a stream that asks the peer to end its connection as soon as nothing is under way on it.
pub const END: u8 = u8::MAX;

/// Streams of each direction that an admitted peer may have open.
const STREAMS_MAX: u32 = 256;
/// Bytes that a connection may have in flight before its peer is admitted …
const STRANGER_WINDOW: u32 = 128 << 10;
/// … and after.
const MEMBER_WINDOW: u32 = 16 << 20;
/// Bytes of datagrams that wait in either direction of a connection; beyond, the oldest is dropped.
const DATAGRAM_BUFFER: usize = 256 << 10;
/// Before the first measurement. The protocol's own 333 ms would let the first retransmission come after
/// [`IDLE_TIMEOUT`].
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// The one transport configuration: what a stranger may do.
pub(crate) fn config() -> Arc<TransportConfig> {
    let idle = VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32);
    let mut config = TransportConfig::default();
    config
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(idle.into()))
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_bidi_streams(0_u32.into())
        .max_concurrent_uni_streams(0_u32.into())
        .receive_window(STRANGER_WINDOW.into())
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER);
    Arc::new(config)
}

/// Lets an admitted member open streams.
pub(crate) fn widen(connection: &Connection) {
    connection.set_receive_window(MEMBER_WINDOW.into());
    connection.set_max_concurrent_bi_streams(STREAMS_MAX.into());
    connection.set_max_concurrent_uni_streams(STREAMS_MAX.into());
}

/// Lets a client open the one stream of its request.
pub(crate) fn grant_request(connection: &Connection) {
    connection.set_max_concurrent_bi_streams(1_u32.into());
}

/// Why a connection was closed on purpose. The reason's text goes with it, for the peer's user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Close {
    /// The exchange is over.
    Done = 0,
    /// The peer is not welcome.
    Refused = 1,
    /// Nobody needed it.
    Unused = 2,
    /// This node ends or leaves.
    Gone = 3,
    /// There is no place for it at the moment.
    Full = 4,
}

impl Close {
    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}
