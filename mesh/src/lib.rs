//! A name or a published port, from anywhere, reaches a healthy backend; first of all the way out: what leaves the
//! containers' address blocks goes out under the host's own address.

pub mod masquerade;
