//! The way out alone, for hosts that publish nothing: which sources are masqueraded.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::{
    host::Host,
    object::{Change, Tables},
    program::{Place, Program},
};

/// Packets from this block that leave by a link other than a container's are masqueraded.
///
/// Links of containers are known by the prefix of their name, so that containers of one host see each other's own
/// addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Masquerade {
    /// The host's block.
    pub source: IpNet,
    /// In front of the names of containers' links; the same for all.
    pub inside: String,
}

/// The steps from `observed` to `desired`, if any are needed.
pub fn plan(desired: &BTreeSet<Masquerade>, observed: &Tables) -> Option<Vec<Change>> {
    let place = desired.first().map_or(Place::Nothing, |first| {
        let blocks = desired.iter().map(|masquerade| masquerade.source).collect();
        Place::Host(Host { blocks, inside: first.inside.clone(), edge: None })
    });
    let changes = crate::plan(&Program::new(place), observed);
    (!changes.is_empty()).then_some(changes)
}
