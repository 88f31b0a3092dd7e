//! The planner against a simulated cluster: hosts that run, fail, vanish and come back.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod convergence;
mod dispatching;
mod host;
mod hosts;
mod membership;
mod networks;
mod placement;
mod replicas;
mod restarts;
mod speed;
mod updates;
mod world;
