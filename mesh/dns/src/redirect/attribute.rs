//! Attributes as the kernel shows them, beside those that it was given.

use std::collections::BTreeSet;

use netlink_packet_core::{NlaBuffer, NlasIterator};

/// Whether all that is `wanted` has been `found`. The kernel shows more than it was given, as numbers of its own; what
/// stands several times, as the members of a list, must be as many and in the same order.
pub fn holds(found: &[u8], wanted: &[u8]) -> bool {
    let (found, wanted) = (all(found), all(wanted));
    let kinds: BTreeSet<u16> = wanted.iter().map(NlaBuffer::kind).collect();
    let of = |attributes: &[NlaBuffer<_>], kind| -> Vec<_> {
        attributes.iter().filter(|one| one.kind() == kind).copied().collect()
    };
    kinds.into_iter().all(|kind| {
        let (found, wanted) = (of(&found, kind), of(&wanted, kind));
        found.len() == wanted.len() && found.iter().zip(&wanted).all(|(found, wanted)| is(found, wanted))
    })
}

/// The kernel does not always mark what holds attributes.
fn is(found: &NlaBuffer<&[u8]>, wanted: &NlaBuffer<&[u8]>) -> bool {
    if wanted.nested_flag() { holds(found.value(), wanted.value()) } else { found.value() == wanted.value() }
}

fn all(bytes: &[u8]) -> Vec<NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok).collect()
}
