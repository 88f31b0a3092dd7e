//! The rtnetlink socket: observe and apply what `covey-overlay` plans, and make network namespaces.
//!
//! Everything here blocks for the time of a few system calls; call it off the async threads.
#![allow(
    clippy::disallowed_methods,
    reason = "door: rtnetlink, network namespaces, and a thread to enter one"
)]

mod edge;
mod local;
pub mod namespace;
mod socket;

pub use edge::{Edge, EdgeError};
pub use local::local_networks;
pub use socket::NetlinkError;
