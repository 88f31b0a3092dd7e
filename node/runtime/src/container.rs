//! What a container is: its id, what was asked for, and how it fares.

use std::{fmt, net::IpAddr, path::PathBuf};

use covey_state::{
    Id,
    container::{ContainerSpec, Health, HealthCheck, Resources},
    network::{PublishedPort, Wiring},
    time::Stamp,
};
use serde::{Deserialize, Serialize};

use crate::layout::ExitRecord;

/// Characters of an id.
const ID_LENGTH: usize = 64;
/// Characters of an id as tables show it, and of the default host name.
const SHORT_LENGTH: usize = 12;

/// A container's id: 64 hexadecimal characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerId(String);

impl ContainerId {
    /// A new one, from the kernel's randomness.
    pub(crate) fn random() -> std::io::Result<Self> {
        let mut bits = [0_u8; ID_LENGTH / 2];
        // SAFETY: the buffer lives across the call and its length is given. Up to 256 bytes come at once.
        crate::sys::check(unsafe { libc::getrandom(bits.as_mut_ptr().cast(), bits.len(), 0) })?;
        Ok(Self(bits.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// `text` as an id, if it is one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hexadecimal = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (text.len() == ID_LENGTH && hexadecimal).then(|| Self(text.to_owned()))
    }

    /// All 64 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 characters.
    pub fn short(&self) -> &str {
        &self.0[..SHORT_LENGTH]
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The task that a container runs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskRef {
    /// The task.
    pub task: Id,
    /// Which start of it.
    pub attempt: u32,
}

/// Which network a container is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// A namespace of its own with nothing but loopback.
    #[default]
    None,
    /// The host's.
    Host,
    /// A namespace that the node makes and wires, as its [`Wiring`] says.
    Edge,
    /// That of another container, which has to run when this one starts: its addresses, ports and names.
    Container(ContainerId),
}

impl NetworkMode {
    /// Whether the container has a network namespace that is nobody else's.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self, Self::None | Self::Edge)
    }
}

/// The image of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageName {
    /// Its id: `sha256:…`.
    pub id: String,
    /// As the user named it.
    pub name: String,
}

/// What is run, with the image's defaults filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// Program and arguments, never empty.
    pub args: Vec<String>,
    /// `KEY=VALUE`.
    pub env: Vec<String>,
    /// `name|uid[:group|gid]`; empty: root.
    pub user: String,
    /// Absolute.
    pub workdir: String,
    /// Number of the signal that asks it to stop.
    pub stop_signal: i32,
}

/// The part of a record that says how to read the rest.
#[derive(Deserialize)]
pub(crate) struct Versioned {
    pub format: u32,
}

/// What is remembered of a container on disk. Only its wiring changes, and what it is now [`crate::runtime::Life`] has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// [`crate::layout::FORMAT`].
    pub format: u32,
    pub id: ContainerId,
    pub name: String,
    pub created: Stamp,
    pub spec: ContainerSpec,
    pub resources: Resources,
    pub invocation: Invocation,
    pub image: ImageName,
    /// Absolute directories, topmost first.
    pub layers: Vec<String>,
    pub open_stdin: bool,
    pub auto_remove: bool,
    pub task: Option<TaskRef>,
    pub network: NetworkMode,
    pub wiring: Wiring,
    /// `80/tcp`: what the image, or the user, says that it serves.
    #[serde(default)]
    pub exposed_ports: Vec<String>,
    /// With the image's part filled in; none where nobody checks.
    #[serde(default)]
    pub health_check: Option<HealthCheck>,
}

impl Record {
    /// What it leaves is worth keeping through a power cut: nobody would make it again.
    pub(crate) fn durable(&self) -> bool {
        !self.auto_remove && self.task.is_none()
    }

    /// The host name inside.
    pub(crate) fn hostname(&self) -> &str {
        if self.spec.hostname.is_empty() { self.id.short() } else { &self.spec.hostname }
    }
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// Exit code; 128 + signal where a signal ended it; 125 to 128 where it did not start.
    pub code: i32,
    /// The kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// Why it did not start or was lost; empty: it ended by itself or was stopped.
    pub error: String,
    /// When.
    pub at: Stamp,
}

/// The error of a container that ran when the host went down.
pub(crate) const LOST_WITH_HOST: &str = "the container was lost: the host was restarted";

impl ExitStatus {
    /// It ran when the host went down; nothing is known of how it ended.
    pub fn lost_with_host(&self) -> bool {
        self.error == LOST_WITH_HOST
    }
}

impl From<ExitRecord> for ExitStatus {
    fn from(exit: ExitRecord) -> Self {
        Self { code: exit.code, oom_killed: exit.oom, error: exit.error, at: Stamp(exit.at) }
    }
}

/// How far a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Never started.
    Created,
    /// Its init runs.
    Running,
    /// Ended; it can be started again.
    Exited(ExitStatus),
}

/// A container as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Unique; without Docker's leading slash.
    pub name: String,
    /// Its creation.
    pub created: Stamp,
    /// How far it is.
    pub state: ContainerState,
    /// Its last start.
    pub started_at: Option<Stamp>,
    /// Its last end.
    pub finished_at: Option<Stamp>,
    /// Of its init on the host; 0: it does not run.
    pub pid: u32,
    /// The host name inside.
    pub hostname: String,
    /// The newest part of what it wrote, framed as the shim does it; there is none before its first start.
    pub log: PathBuf,
    /// While it runs on the edge network.
    pub addresses: Vec<IpAddr>,
    /// Its published ports as they were really bound, while it runs.
    pub ports: Vec<PublishedPort>,
    /// What was asked for.
    pub spec: ContainerSpec,
    /// Its limits.
    pub resources: Resources,
    /// What is run.
    pub invocation: Invocation,
    /// Its image.
    pub image: ImageName,
    /// The task that it runs for.
    pub task: Option<TaskRef>,
    /// Its network.
    pub network: NetworkMode,
    /// What it has of the networks.
    pub wiring: Wiring,
    /// `80/tcp`: what its image, or its user, says that it serves.
    pub exposed_ports: Vec<String>,
    /// Standard input is kept open for [`crate::Runtime::attach`].
    pub open_stdin: bool,
    /// It is removed once it has ended.
    pub auto_remove: bool,
    /// How it is checked, with the image's part filled in; none where nobody checks.
    pub health_check: Option<HealthCheck>,
    /// What the checks of its last start say.
    pub health: Option<Health>,
}
