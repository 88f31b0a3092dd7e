//! A node has an address left in its edge block: each task takes one.

use covey_state::task::Task;

use crate::scheduler::load::Candidate;

/// Of each block, the network, the host and the broadcast address are not for tasks.
const RESERVED_ADDRESSES: u64 = 3;

pub(super) fn check(_task: &Task, node: &Candidate) -> bool {
    let block = node.node.edge.v4;
    let addresses = 1_u64 << (block.max_prefix_len() - block.prefix_len());
    node.present < addresses.saturating_sub(RESERVED_ADDRESSES)
}

pub(super) fn explain(count: usize) -> String {
    format!("{count} {} addresses", super::lacks(count))
}
