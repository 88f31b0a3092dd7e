//! All that the cluster remembers: objects, the commands that change them, and the store that applies commands.
//!
//! Pure and deterministic: every manager that applies the same commands holds the same store. Ids, times and
//! random choices come inside the commands.

pub mod assignment;
pub mod cluster;
pub mod command;
pub mod container;
pub mod event;
pub mod lookup;
pub mod network;
pub mod node;
pub mod range;
pub mod service;
pub mod store;
pub mod task;
pub mod time;
pub mod transition;

pub use covey_wire::Id;
pub use store::Store;

/// The log index of an object's last change: what the Engine API calls `Version.Index`.
pub type Version = u64;
