//! Between the wire and the words of the cluster: what cannot be said there is refused here, once.

pub mod container;
pub mod exposure;
pub mod health;
pub mod image;
pub mod later;
pub mod mount;
pub mod naming;
pub mod network;
pub mod node;
pub mod port;
pub mod reference;
pub mod service;
pub mod swarm;
pub mod task;

use std::time::Duration;

use crate::failure::Failure;

/// Nanoseconds of a request; `what` names them where they are negative.
fn duration(nanos: i64, what: &str) -> Result<Duration, Failure> {
    let nanos =
        u64::try_from(nanos).map_err(|_| Failure::invalid(format!("invalid {what}: it is negative")))?;
    Ok(Duration::from_nanos(nanos))
}

/// An amount of a request; `what` names it where it is negative.
fn amount(value: i64, what: &str) -> Result<u64, Failure> {
    u64::try_from(value).map_err(|_| Failure::invalid(format!("invalid {what}: it is negative")))
}
