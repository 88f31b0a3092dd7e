//! What a container uses.

use std::time::Duration;

use crate::{Runtime, container::ContainerState, runtime::OperationError};

/// What a container uses at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of memory, without file pages that can be dropped at once.
    pub memory: u64,
    /// Bytes that it may use; a huge number where there is no limit.
    pub memory_limit: u64,
    /// CPU time since its start.
    pub cpu: Duration,
    /// Processes and threads.
    pub pids: u64,
}

impl Runtime {
    /// What a running container uses.
    pub fn stats(&self, container: &str) -> Result<Stats, OperationError> {
        let slot = self.inner.find(container)?;
        if slot.life.borrow().state != ContainerState::Running {
            return Err(OperationError::NotRunning(slot.record.id.clone()));
        }
        let usage = self.inner.cgroup(&slot.record.id).usage();
        Ok(Stats { memory: usage.memory, memory_limit: usage.memory_limit, cpu: usage.cpu, pids: usage.pids })
    }
}
