//! The timers of the machine, as presets to start from, and the bounds of everything that it keeps or sends.

use std::time::Duration;

/// Bytes of a datagram: what every QUIC path carries in one packet.
pub const DATAGRAM_BYTES_MAX: usize = 1150;
/// Bytes of a message on a stream (push, request or reply).
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one row's payload.
pub const ROW_BYTES_MAX: usize = 8 * 1024;
/// Bytes of one row's key.
pub const KEY_BYTES_MAX: usize = 128;
/// Bytes of a topic's name.
pub const TOPIC_BYTES_MAX: usize = 64;
/// Rows that one signature covers.
pub const ROWS_PER_BATCH_MAX: usize = 16;
/// Bytes of keys and payloads that one signature covers.
pub const BATCH_BYTES_MAX: usize = 16 * 1024;
/// Batches that one owner may have in one topic.
pub const BATCHES_PER_OWNER_MAX: u16 = 256;
/// Topics that one node may subscribe to: a host of many networks has one for each. Where their names are all long,
/// there may be room for fewer.
pub const SUBSCRIPTIONS_MAX: usize = 512;
/// Members, dead ones included, that the machine remembers.
pub const MEMBERS_MAX: usize = 32 * 1024;
/// Peers that are remembered from `join` for the day when nobody else is left.
pub const SEEDS_MAX: usize = 16;
/// Peers to whom a node keeps connections of its own accord.
pub const PARTNERS_MAX: usize = 8;

/// Bytes of a batch as it travels: [`BATCH_BYTES_MAX`] and its names, numbers and lengths.
pub(crate) const SIGNED_BYTES_MAX: usize = BATCH_BYTES_MAX + 1024;
/// Topics whose sums one digest carries; the next digest goes on with others.
pub(crate) const TOPICS_PER_DIGEST_MAX: usize = 64;
/// The same for topics that are only written, of which a digest names every batch.
pub(crate) const WRITTEN_PER_DIGEST_MAX: usize = 16;
/// Rows over which a node's subscriptions are spread, so that each has its bounds and a change is small.
pub(crate) const SUBSCRIPTION_ROWS: u64 = 8;
/// Rows (batches) that one digest names.
pub(crate) const ROWS_PER_DIGEST_MAX: usize = 2048;
/// Batches that one message asks for.
pub(crate) const WANTS_MAX: usize = 1024;
/// Members that one message tells of.
pub(crate) const MEMBERS_PER_MESSAGE_MAX: usize = 1024;
/// Outputs that wait to be polled; beyond it, messages (which may be lost anyway) are dropped.
pub(crate) const OUTPUTS_MAX: usize = 64 * 1024;

/// How patient the machine is. The presets are advice; every node of a cluster should use the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Each period one member is probed, in random order; a probe that stays unanswered makes a suspect.
    pub probe_period: Duration,
    /// How long a probe waits for its direct answer before it asks three others to try. Above the round-trip
    /// time of nearly all pairs, and at most half of `probe_period`.
    pub probe_rtt: Duration,
    /// How long a suspect that failed a probe has to defend itself before it is declared down.
    pub suspect_after: Duration,
    /// The same for a suspect whose kept connection was lost: better evidence, less patience.
    pub lost_after: Duration,
    /// How often the accuser asks its suspect directly meanwhile. `lost_after` should be several of these, so
    /// that an alive suspect survives the loss of some packets.
    pub confirm_period: Duration,
    /// How often news about members goes to three random ones, while there is news.
    pub gossip_period: Duration,
    /// How often members that are down are tried again, which heals partitions.
    pub revive_period: Duration,
    /// How long a member that is down is remembered, with its rows.
    pub remove_down_after: Duration,
    /// How often what this node knows is compared with what a random member knows.
    pub sync_period: Duration,
    /// To how many subscribers a fresh row is pushed by its owner and by everyone who sees it for the first time.
    pub fan_out: usize,
    /// How long rows that a member wrote before its last restart stay visible.
    pub stale_after: Duration,
    /// A timeout that is served this much too late shows that this node itself stalls: the lost time does
    /// not count against others.
    pub late_after: Duration,
}

impl Config {
    /// For nodes in one building: round trips up to some 50 ms. A killed host is declared down less than a second
    /// after its connections are lost, some 3 to 5 s after its death otherwise.
    pub const fn lan() -> Self {
        Self {
            probe_period: Duration::from_secs(1),
            probe_rtt: Duration::from_millis(300),
            suspect_after: Duration::from_secs(2),
            lost_after: Duration::from_millis(600),
            confirm_period: Duration::from_millis(150),
            gossip_period: Duration::from_millis(150),
            revive_period: Duration::from_secs(1),
            remove_down_after: Duration::from_secs(3600),
            sync_period: Duration::from_secs(2),
            fan_out: 4,
            stale_after: Duration::from_secs(6),
            late_after: Duration::from_millis(250),
        }
    }

    /// For nodes across the world: round trips up to some 500 ms, and more loss. A killed host is declared down
    /// about 5 s after its connections are lost, some 20 s after its death otherwise.
    pub const fn wan() -> Self {
        Self {
            probe_period: Duration::from_secs(4),
            probe_rtt: Duration::from_millis(1500),
            suspect_after: Duration::from_secs(8),
            lost_after: Duration::from_secs(4),
            confirm_period: Duration::from_millis(600),
            gossip_period: Duration::from_millis(500),
            revive_period: Duration::from_secs(4),
            remove_down_after: Duration::from_secs(3600),
            sync_period: Duration::from_secs(8),
            fan_out: 4,
            stale_after: Duration::from_secs(25),
            late_after: Duration::from_secs(1),
        }
    }
}
