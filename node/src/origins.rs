//! Addresses that a host is seen under: what it tells all others, since none of these can come back to it as a source.

use std::{collections::BTreeSet, net::IpAddr};

use covey_gossip::Topic;

use crate::endpoint::Scope;

/// Addresses that a host tells of: of more it is not seen.
pub const ORIGINS_MAX: usize = 64;
/// Bytes of the row, with all of them.
pub const ORIGINS_BYTES_MAX: usize = covey_gossip::ROW_BYTES_MAX;

/// The key of a host's row.
pub const KEY: &str = "origins";

/// The addresses of one host.
pub type Origins = BTreeSet<IpAddr>;

/// The topic of such rows: that of published ports, since it is of these that hosts ask one another.
pub fn topic() -> Topic {
    Scope::Ingress.topic()
}

/// As many of these as are told.
pub fn bounded(addresses: impl IntoIterator<Item = IpAddr>) -> Origins {
    addresses.into_iter().take(ORIGINS_MAX).collect()
}
