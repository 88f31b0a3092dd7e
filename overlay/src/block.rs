//! The address block of a host, and which of its addresses are free.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// The block is full. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no free address in {block} ({used} used)")]
pub struct Full {
    /// The block.
    pub block: Ipv4Net,
    /// Addresses in use.
    pub used: usize,
}

/// The two addresses of a container: the same place in both blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pair {
    /// In the host's IPv4 block.
    pub v4: Ipv4Addr,
    /// In the host's IPv6 block.
    pub v6: Ipv6Addr,
}

/// The address block of a host.
#[derive(Clone, Debug)]
pub struct Block {
    v4: Ipv4Net,
    v6: Ipv6Net,
    used: BTreeSet<u32>,
    /// The place after the last one given: an address is reused as late as can be.
    next: u32,
}

impl Block {
    /// A block of which nothing is in use.
    pub fn new(v4: Ipv4Net, v6: Ipv6Net) -> Self {
        Self { v4, v6, used: BTreeSet::new(), next: 1 }
    }

    /// Places that can be given: the first is the network's name and the last its broadcast address, as people expect.
    fn places(&self) -> u32 {
        (1_u32 << (32 - u32::from(self.v4.prefix_len())).min(31)).saturating_sub(2)
    }

    fn pair(&self, place: u32) -> Pair {
        Pair {
            v4: Ipv4Addr::from(u32::from(self.v4.network()).wrapping_add(place)),
            v6: Ipv6Addr::from(u128::from(self.v6.network()).wrapping_add(u128::from(place))),
        }
    }

    /// Takes a free pair of addresses.
    ///
    /// # Errors
    /// [`Full`].
    pub fn take(&mut self) -> Result<Pair, Full> {
        let places = self.places();
        let free = (0..places)
            .map(|step| (self.next - 1 + step) % places + 1)
            .find(|place| !self.used.contains(place))
            .ok_or(Full { block: self.v4, used: self.used.len() })?;
        self.used.insert(free);
        self.next = free % places + 1;
        Ok(self.pair(free))
    }

    /// Marks a pair as in use that a container had before a restart. False where it is not of this block, or taken.
    pub fn claim(&mut self, pair: Pair) -> bool {
        self.place(pair).is_some_and(|place| self.used.insert(place))
    }

    /// Gives a pair back.
    pub fn free(&mut self, pair: Pair) {
        if let Some(place) = self.place(pair) {
            self.used.remove(&place);
        }
    }

    fn place(&self, pair: Pair) -> Option<u32> {
        let place = u32::from(pair.v4).checked_sub(u32::from(self.v4.network()))?;
        (place >= 1 && place <= self.places() && self.pair(place) == pair).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(v4: &str) -> Block {
        Block::new(v4.parse().unwrap(), "fd00:1:2:3::/64".parse().unwrap())
    }

    #[test]
    fn addresses_come_in_order_and_are_reused_as_late_as_can_be() {
        let mut block = block("100.64.3.0/29");
        let first = block.take().unwrap();
        assert_eq!(first.v4, Ipv4Addr::new(100, 64, 3, 1));
        assert_eq!(first.v6, "fd00:1:2:3::1".parse::<Ipv6Addr>().unwrap());
        block.free(first);
        assert_eq!(block.take().unwrap().v4, Ipv4Addr::new(100, 64, 3, 2));
    }

    #[test]
    fn a_full_block_says_so() {
        let mut block = block("100.64.3.0/30");
        let pairs = [block.take().unwrap(), block.take().unwrap()];
        let full = block.take().unwrap_err();
        assert_eq!(full.to_string(), "no free address in 100.64.3.0/30 (2 used)");
        block.free(pairs[0]);
        assert_eq!(block.take(), Ok(pairs[0]));
    }

    #[test]
    fn only_addresses_of_the_block_can_be_claimed_and_only_once() {
        let mut block = block("100.64.3.0/24");
        let pair = block.pair(7);
        assert!(block.claim(pair));
        assert!(!block.claim(pair));
        assert!(!block.claim(Pair { v4: Ipv4Addr::new(10, 0, 0, 1), ..pair }));
        assert!(!block.claim(block.pair(255)));
    }
}
