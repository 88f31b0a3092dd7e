//! The resolver as a container finds it: real sockets and rules in network namespaces of its own.
#![allow(clippy::disallowed_methods, reason = "door: real sockets")]

mod forward;
mod hostile;
mod lab;
mod own;
