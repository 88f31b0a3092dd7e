//! What one container is made of: shared by the tasks of services and by plain containers.

mod health;
mod naming;
mod sysctl;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::{
    health::{Checked, HEALTH_LOG_MAX, Health, HealthCheck, HealthCheckError, HealthStatus, TEST_WORDS_MAX},
    naming::{HostEntry, NAMING_MAX, Naming, NamingError},
    sysctl::{SYSCTLS_MAX, SysctlError, check_sysctls, is_of_network},
};

/// What to run. Empty texts and lists mean "as the image says".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Image reference, for services pinned: `name:tag@sha256:…`.
    pub image: String,
    /// Replaces the image's entry point.
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    pub args: Vec<String>,
    /// `KEY=VALUE`, added to the image's; `KEY` alone removes the image's.
    pub env: Vec<String>,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
    /// `name|uid[:group|gid]`.
    pub user: String,
    /// Additional groups, names or ids.
    pub groups: Vec<String>,
    /// Working directory.
    pub workdir: String,
    /// Host name; empty: the short container id.
    pub hostname: String,
    /// File systems to mount.
    pub mounts: Vec<Mount>,
    /// The root file system is mounted read-only.
    pub read_only: bool,
    /// Signal that asks the process to stop; empty: the image's, else `SIGTERM`.
    pub stop_signal: String,
    /// Time between that signal and `SIGKILL`; `None`: 10 s.
    pub stop_grace: Option<Duration>,
    /// How it finds names.
    #[serde(default)]
    pub naming: Naming,
    /// Settings of the kernel that are its own, by name; see [`check_sysctls`].
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// How it is found out whether it is well; `None`: as the image says.
    #[serde(default)]
    pub health: Option<HealthCheck>,
}

impl ContainerSpec {
    /// Time between the stop signal and `SIGKILL` where the spec does not say.
    pub const STOP_GRACE_DEFAULT: Duration = Duration::from_secs(10);

    /// Time between the stop signal and `SIGKILL`.
    pub fn stop_grace(&self) -> Duration {
        self.stop_grace.unwrap_or(Self::STOP_GRACE_DEFAULT)
    }
}

/// One mounted file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the container.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// What is mounted.
    pub kind: MountKind,
}

/// What a [`Mount`] mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A path of the host.
    Bind {
        /// Absolute path on the host.
        source: String,
    },
    /// Memory.
    Tmpfs {
        /// Bytes; 0: half of the memory.
        size: u64,
        /// Permission bits; 0: 1777.
        mode: u32,
    },
}

/// An amount of what a node has; zero means none reserved, or no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Billionths of a CPU.
    pub nano_cpus: u64,
    /// Bytes of memory.
    pub memory: u64,
}

/// Limits, enforced on the container, and reservations, looked at by the scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// The most that the container gets.
    pub limits: Amount,
    /// What the node must have left.
    pub reservations: Amount,
    /// The most processes; 0: no limit.
    pub pids_limit: u64,
}
