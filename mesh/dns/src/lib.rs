//! The resolver of containers, at 127.0.0.11, UDP and TCP.
//!
//! It binds no port 53, which belongs to the container: its [`Sockets`] are on ports that the kernel chose, and a rule
//! in the container's network namespace leads there. They live in two processes: the daemon's [`Resolver`] reads them,
//! and duplicates in a process that outlives the daemon keep what is asked meanwhile. What is not a name of the
//! container's networks is asked of other servers, by one [`Forwarder`] for all: of the host's from the host's own
//! namespace, and of those that the container has instead from the container's.
#![allow(clippy::disallowed_methods, reason = "door: DNS sockets, and the rule that leads to them")]

mod forward;
mod framed;
mod message;
mod redirect;
mod resolver;
mod sockets;

pub use forward::Forwarder;
pub use redirect::RedirectError;
pub use resolver::{Outside, Resolver, Scope};
pub use sockets::{ADDRESS, Sockets, SocketsError};
