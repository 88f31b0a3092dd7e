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

#[cfg(test)]
mod tests {
    use super::*;

    /// One attribute; numbers above `0x8000` hold others.
    fn one(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn what_is_wanted_is_found_among_more_and_lists_in_their_order() {
        let (a, b) = (one(1, b"a"), one(1, b"bc"));
        let wanted = [one(2, b"name"), one(0x8003, &[&a[..], &b].concat())].concat();
        let found = |list: &[&[u8]]| [one(7, b"handle"), one(3, &list.concat()), one(2, b"name")].concat();
        assert!(
            holds(&found(&[&a, &b]), &wanted),
            "not marked as what holds attributes, and in another place"
        );
        assert!(holds(&found(&[&a, &one(9, b"more"), &b]), &wanted));
        assert!(!holds(&found(&[&b, &a]), &wanted), "in another order");
        assert!(!holds(&found(&[&a]), &wanted) && !holds(&found(&[&a, &b, &b]), &wanted));
        assert!(!holds(&one(2, b"name"), &wanted) && !holds(&[], &wanted));
        assert!(!holds(&[one(2, b"game"), one(3, &[&a[..], &b].concat())].concat(), &wanted), "another name");
        assert!(holds(&[], &[]) && holds(&wanted, &[]));
    }
}
