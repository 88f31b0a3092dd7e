#![allow(
    clippy::disallowed_methods,
    reason = "door: serves HTTP on listeners it is given; starts tasks, reads the clock"
)]
//! The Engine API over HTTP.

pub mod control;
pub mod engine;
pub mod failure;
pub mod host;
pub mod log;

pub use control::Control;
pub use engine::Engine;
pub use failure::{Failure, FailureKind};
pub use host::Host;
