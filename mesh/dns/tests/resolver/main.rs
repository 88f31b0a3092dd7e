//! The resolver as a container finds it: real sockets and rules in network namespaces of its own.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces and sockets, and wait")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in what it is built of as well")]

mod forward;
mod hostile;
mod lab;
mod own;
