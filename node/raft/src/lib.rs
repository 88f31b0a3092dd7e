//! The replicated, encrypted log on disk: what managers agree on, in one order, kept by each of them.
//!
//! [`Raft`] is one manager's log. [`Raft::propose`] works on every manager; [`Raft::store`] is what was applied so
//! far, [`Raft::read`] is at least as new as the call. Requests of other managers come in through [`Raft::handle`]
//! and go out through the node's [`Transport`].
#![allow(
    clippy::disallowed_methods,
    reason = "door: log files, their writer thread, timers and random nonces"
)]

mod database;
mod directory;
mod error;
mod feed;
mod leadership;
mod log;
mod machine;
mod members;
mod message;
mod network;
mod propose;
mod raft;
mod read;
mod serve;
mod settings;
mod snapshot;
#[cfg(test)]
mod tests;
mod types;
mod vault;
mod writer;

pub use crate::{
    directory::Identity,
    error::{InitializeError, MembershipError, OpenError, ProposeError, ReadError, TransportError},
    feed::{Applied, Change, Changes},
    leadership::Leadership,
    members::Members,
    network::Transport,
    raft::Raft,
    settings::{Settings, Timing},
};

/// Bytes of an encoded proposal.
pub const PROPOSAL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a request or an answer between managers: entries up to a megabyte beside one of the largest proposals.
pub const MESSAGE_BYTES_MAX: usize = PROPOSAL_BYTES_MAX + 2 * 1024 * 1024;
/// Bytes of an encoded store in a snapshot.
pub const SNAPSHOT_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Managers that vote.
pub const VOTERS_MAX: usize = 7;
