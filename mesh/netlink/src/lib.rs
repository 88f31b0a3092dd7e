//! The nf_tables socket: observe and apply in atomic batches.
//!
//! One table, `inet covey`, is ours alone; no other table is ever looked into or changed. Everything here blocks for
//! the time of a few system calls; call it off the async threads.
#![allow(clippy::disallowed_methods, reason = "door: nf_tables")]

mod nft;
mod rule;
mod socket;

pub use nft::{Nft, NftError};
