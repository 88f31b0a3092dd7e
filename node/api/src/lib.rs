//! The Engine API over HTTP.
//!
//! The API chooses nothing: it parses requests into the words of `covey_state`, hands them to its surroundings
//! ([`Control`] for the cluster, [`Engine`] for this node's containers and images) and writes the answers in the
//! shapes that Docker's clients expect. A new noun is a file in `route/`, its shapes are a file in `wire/`, and the
//! translation between both worlds is a file in `convert/`.
#![allow(
    clippy::disallowed_methods,
    reason = "door: serves HTTP on listeners it is given; starts tasks, reads the clock"
)]
#![allow(
    clippy::disallowed_types,
    reason = "door: the history of events and the execs are shared between requests"
)]

pub mod control;
pub mod engine;
pub mod failure;
pub mod host;
pub mod log;

mod app;
mod convert;
mod door;
mod events;
mod execs;
mod filters;
mod networks;
mod params;
mod route;
mod server;
mod stream;
mod version;
mod wire;

pub use control::Control;
pub use engine::Engine;
pub use failure::{Failure, FailureKind};
pub use host::Host;
pub use server::{Limits, Server};
