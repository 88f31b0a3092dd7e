//! The netfilter sockets: nf_tables observed and changed in atomic batches, and connections cut.
//!
//! The tables `inet covey` and `netdev covey` are ours alone; no other table is ever changed, and of
//! others only the policies of their chains are looked at.
//! Everything here blocks for the time of a few system calls; call it off the async threads.
#![allow(
    clippy::disallowed_methods,
    reason = "door: nf_tables, conntrack, and a thread to enter a network namespace"
)]

mod attribute;
mod conntrack;
mod foreign;
mod nft;
mod read;
mod socket;
mod write;

pub use conntrack::Conntrack;
pub use foreign::{ForeignChain, forward_drops};
pub use nft::Nft;
pub use socket::NetfilterError;
