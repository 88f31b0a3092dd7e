//! What happened to containers, for whoever listens.

use std::collections::BTreeMap;

use covey_state::{container::HealthStatus, time::Stamp};

use crate::container::{ContainerId, Record};

/// Events that a slow listener may be behind before it loses the oldest.
pub(crate) const BACKLOG: usize = 1024;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It was made.
    Create,
    /// It runs.
    Start,
    /// It ended with this exit code.
    Die(i32),
    /// The kernel killed a process of it for want of memory.
    Oom,
    /// This signal was sent to it.
    Kill(i32),
    /// It ended because it was asked to.
    Stop,
    /// It has other networks than before.
    Rewire,
    /// Its checks say something else than before.
    Health(HealthStatus),
    /// It was removed.
    Destroy,
}

/// Something happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Stamp,
    /// The container.
    pub container: ContainerId,
    /// What.
    pub action: Action,
    /// Its name.
    pub name: String,
    /// Its image, as the user named it.
    pub image: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Event {
    pub(crate) fn of(record: &Record, action: Action) -> Self {
        Self {
            at: Stamp(crate::sys::now()),
            container: record.id.clone(),
            action,
            name: record.name.clone(),
            image: record.image.name.clone(),
            labels: record.spec.labels.clone(),
        }
    }
}
