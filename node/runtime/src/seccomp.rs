//! System call filters: the default policy, and a compiler from the OCI description to a BPF program.

mod compile;
mod numbers;
mod policy;

pub(crate) use compile::{Program, compile};
pub(crate) use policy::default_policy;
