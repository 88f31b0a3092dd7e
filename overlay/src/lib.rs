//! One flat network per tenant over any underlay: the edge, which joins all hosts, and networks of their own above it.
//!
//! Each host owns an address block. A container has one routed veth with an address of that block: no bridge, no
//! ARP, no neighbour discovery, so that state is per container on its own host, and per host on the others. An overlay
//! network is a router in a namespace of its own on each host that carries it. Planning is pure: [`edge::Desired`] and
//! [`network::Desired`] say which kernel objects that takes, and [`plan`] compares them with what the kernel has. What
//! that then does with connections is remembered by programs of the [`flow_cache`].

pub mod block;
mod diff;
pub mod edge;
pub mod flow_cache;
pub mod mac;
pub mod network;
pub mod object;
pub mod peer;
pub mod underlay;

pub use diff::plan;
