//! What the leader decides.
//!
//! A pure planner: [`plan()`] compares what the store wants with what is [`Observed`] and answers with one
//! proposal and the time to look again. Nothing here knows Raft, sockets or clocks. Whoever leads goes round and
//! round:
//!
//! 1. Begin with an empty [`Observed`], a [`Dispatcher`] of the new term, and [`Scope::All`].
//! 2. Plan when the scope is not empty or [`Plan::look_again_at`] has come.
//! 3. Propose. If the proposal is refused, plan the same scope again; if it is applied, the next scope is what its
//!    events touch and what is left waiting ([`Plan::waiting`]).
//! 4. Give the events of every log entry, one's own or another's, to the scope and to the dispatcher.
//! 5. Give each row, each word of SWIM and each session that opens or breaks to [`Observed`], and what is news to
//!    the scope. The leader's own node is a node like any other: alive, and connected.

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
pub use health::{MassLoss, mass_loss};
pub use observed::Observed;
pub use plan::{Notice, Plan, plan};
pub use scope::Scope;
