//! What the leader decides.
//!
//! A pure planner: [`plan()`] compares what the store wants with what is [`Observed`] and answers with one
//! proposal and the time to look again. Nothing here knows Raft, sockets or clocks.

pub mod dispatcher;
pub mod leave;
pub mod membership;
pub mod observed;
pub mod plan;
pub mod scope;

mod allocator;
mod check;
mod draft;
mod health;
mod orchestrator;
mod reaper;
mod scheduler;
mod slot;

pub use check::Violation;
pub use dispatcher::Dispatcher;
pub use health::MassLoss;
pub use observed::Observed;
pub use plan::{Notice, Plan, plan};
pub use scope::Scope;
