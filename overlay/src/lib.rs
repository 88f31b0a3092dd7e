//! One flat network per tenant over any underlay; first of all the edge: every container's own way to its host.
//!
//! Each host owns an address block. A container has one routed veth with an address of that block: no bridge, no
//! ARP, no neighbour discovery, so that state is per container on its own host and nowhere else. Planning is pure:
//! [`edge::plan`] compares what is wanted with what the kernel has.

pub mod block;
pub mod edge;
pub mod mac;
pub mod object;
