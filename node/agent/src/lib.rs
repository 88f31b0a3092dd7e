//! What a worker does: keeps the tasks that the leader assigned to its node running, and reports.

pub mod executor;
