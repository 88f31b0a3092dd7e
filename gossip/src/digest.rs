//! Sums that tell in a few bytes where two nodes' knowledge differs.

use covey_wire::Id;
use serde::{Deserialize, Serialize};

use crate::row::Version;

/// Parts into which owners are divided, so that two nodes that differ in a few compare only these.
pub(crate) const BUCKETS: usize = 32;

/// One sum per bucket. Equal sums mean equal knowledge, but for one chance in 2^64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sums([u64; BUCKETS]);

/// A set of buckets, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Buckets(u32);

impl Sums {
    pub const fn new() -> Self {
        Self([0; BUCKETS])
    }

    /// Adds what a node knows about `owner`, or takes it away again.
    pub fn toggle(&mut self, owner: Id, fact: u64) {
        self.0[bucket(owner)] ^= fact;
    }

    /// The buckets in which two nodes differ.
    pub fn differ(&self, other: &Self) -> Buckets {
        let differing = self.0.iter().zip(other.0).enumerate().filter(|(_, (ours, theirs))| *ours != theirs);
        Buckets(differing.fold(0, |set, (bucket, _)| set | 1 << bucket))
    }
}

impl Buckets {
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn holds(self, owner: Id) -> bool {
        self.0 & 1 << bucket(owner) != 0
    }

    /// The buckets of the set, each as a set of its own, beginning with the one numbered `from` and going round.
    pub fn each(self, from: u32) -> impl Iterator<Item = Self> {
        let count = BUCKETS as u32;
        (0..count)
            .map(move |step| Self(1 << ((from % count + step) % count)))
            .filter(move |one| self.0 & one.0 != 0)
    }

    pub fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// The sum of one batch of rows.
pub(crate) fn batch_fact(owner: Id, number: u16, version: Version) -> u64 {
    [u64::from(number) + 1, version.incarnation, version.sequence]
        .into_iter()
        .fold(fold(owner), |sum, x| mix(sum ^ x))
}

/// The sum of one member that is alive.
pub(crate) fn member_fact(id: Id, incarnation: u64) -> u64 {
    mix(fold(id) ^ incarnation)
}

/// A number for a name that looks random, yet is the same everywhere.
pub(crate) fn name_rank(name: &str) -> u64 {
    name.bytes().fold(0, |sum, byte| mix(sum ^ u64::from(byte)))
}

/// A number for a pair of nodes that looks random, yet is the same at every look.
pub(crate) fn pair_rank(a: Id, b: Id) -> u64 {
    mix(fold(a) ^ fold(b).rotate_left(17))
}

fn bucket(owner: Id) -> usize {
    (fold(owner) % BUCKETS as u64) as usize
}

fn fold(id: Id) -> u64 {
    mix((id.bits() >> 64) as u64 ^ mix(id.bits() as u64))
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014): every bit of the input reaches every bit of the output.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn version(sequence: u64) -> Version {
        Version { incarnation: 1, sequence }
    }

    #[test]
    fn sums_differ_exactly_where_knowledge_does() {
        let (mut ours, mut theirs) = (Sums::new(), Sums::new());
        for owner in 0..100 {
            ours.toggle(Id::new(owner), batch_fact(Id::new(owner), 0, version(1)));
            theirs.toggle(Id::new(owner), batch_fact(Id::new(owner), 0, version(1)));
        }
        assert!(ours.differ(&theirs).is_empty());

        let odd = Id::new(42);
        ours.toggle(odd, batch_fact(odd, 0, version(1)));
        ours.toggle(odd, batch_fact(odd, 0, version(2)));
        let differing = ours.differ(&theirs);
        assert!(differing.holds(odd));
        assert_eq!(differing.each(0).count(), 1);
    }

    #[test]
    fn buckets_are_walked_from_any_start_once_round() {
        let mut set = Buckets::default();
        for one in [1, 5, 31] {
            set.add(Buckets(1 << one));
        }
        assert_eq!(set.each(5).map(|one| one.0.trailing_zeros()).collect::<Vec<_>>(), [5, 31, 1]);
    }
}
