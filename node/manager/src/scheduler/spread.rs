//! The spread: the node that has least to do, first for this service, then at all.

use std::{cmp::Reverse, collections::BTreeMap};

use covey_state::Id;

use super::load::{Candidate, Share};

/// Parts that a node's CPU and memory are cut into when free shares are compared.
const PARTS: u128 = 1000;

/// The best node (C-16): one where the service does not keep failing, with the fewest active tasks of the service,
/// then the fewest active tasks, then the largest free share of CPU and memory, then chance.
pub(super) fn best<'a>(
    fitting: impl Iterator<Item = &'a Candidate>,
    of_service: &BTreeMap<Id, Share>,
    mut random: impl FnMut() -> u64,
) -> Option<Id> {
    fitting
        .min_by_key(|node| {
            let share = of_service.get(&node.node.id).copied().unwrap_or_default();
            (share.is_failing(), share.active, node.active, Reverse(free_share(node)), random())
        })
        .map(|node| node.node.id)
}

/// Free share of CPU and of memory, added.
fn free_share(node: &Candidate) -> u128 {
    let (has, free) = (node.node.description.resources, node.free());
    let share = |free: u64, has: u64| u128::from(free) * PARTS / u128::from(has).max(1);
    share(free.nano_cpus, has.nano_cpus) + share(free.memory, has.memory)
}
