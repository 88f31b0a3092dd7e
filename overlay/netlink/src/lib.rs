//! The rtnetlink socket: observe and apply what `covey-overlay` plans, make network namespaces, and load the flow cache.
//!
//! Everything here blocks for the time of a few system calls; call it off the async threads.
#![allow(
    clippy::disallowed_methods,
    reason = "door: rtnetlink, network namespaces, switches in /proc, and a thread to enter a namespace"
)]

mod bpf;
mod flow_cache;
mod inside;
mod local;
mod message;
pub mod namespace;
mod observe;
mod read;
mod router;
mod socket;
mod stack;
mod switch;
mod tc;
pub mod underlay;
mod uplink;

pub use flow_cache::FlowCache;
pub use local::local_networks;
pub use router::{RemoveError, remove_router};
pub use socket::NetlinkError;
pub use stack::{Stack, StackError};
