//! What a worker does: keeps the tasks that the leader assigned to its node running, and reports.
//!
//! [`worker::Worker`] is a machine: assignment sets and results of steps go in, steps for the
//! [`executor::Executor`] and reports come out. Each task has a [`controller::Controller`] of its own, which
//! knows one thing: the next step from a state towards a desired state.

pub mod controller;
pub mod executor;
#[cfg(test)]
mod fixture;
pub mod template;
pub mod worker;

mod remembered;
