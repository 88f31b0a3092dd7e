//! Containers and the processes in them.

use bytes::Bytes;
use covey_state::{
    container::{ContainerSpec, Health, HealthCheck, Resources},
    network::PublishedPort,
    time::Stamp,
};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::{
    OutputStream,
    network::{Endpoint, ExposedPort, Join, Network},
};
use crate::failure::Failure;

/// A container to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateContainer {
    /// Without a leading slash; empty: the engine gives it one.
    pub name: String,
    /// What to run.
    pub spec: ContainerSpec,
    /// Limits (reservations do not apply).
    pub resources: Resources,
    /// Its standard input is kept open for [`super::Engine::attach`].
    pub open_stdin: bool,
    /// It is removed when it ends.
    pub auto_remove: bool,
    /// What kind of network it has.
    pub network: Network,
    /// The networks that it is in; with [`Network::Bridge`] and [`Network::Named`] only, the named one first. A way out
    /// (the edge interface) is there where one of them has one.
    pub networks: Vec<Join>,
    /// Ports of this host that are its own; `published` 0: any that is free, anew at each start.
    pub ports: Vec<PublishedPort>,
    /// Ports that it serves beside those that its image names.
    pub exposed: Vec<ExposedPort>,
}

/// How far a container is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, never started.
    #[default]
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// Being removed, or its removal failed.
    Dead,
}

impl ContainerState {
    /// As the Engine API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// A container as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// 64 hexadecimal characters.
    pub id: String,
    /// Without a leading slash.
    pub name: String,
    /// As it was asked for, labels included.
    pub spec: ContainerSpec,
    /// Limits.
    pub resources: Resources,
    /// `sha256:…` of its image.
    pub image_id: String,
    /// What it runs in fact: the spec's and the image's words together.
    pub argv: Vec<String>,
    /// Its environment in fact.
    pub env: Vec<String>,
    /// Its creation.
    pub created_at: Stamp,
    /// How far it is.
    pub state: ContainerState,
    /// Process id on this host; 0: none.
    pub pid: u32,
    /// Of its last end.
    pub exit_code: i32,
    /// The kernel killed it for want of memory.
    pub oom_killed: bool,
    /// Why it did not start; empty: nothing went wrong.
    pub error: String,
    /// Its last start.
    pub started_at: Option<Stamp>,
    /// Its last end.
    pub finished_at: Option<Stamp>,
    /// What kind of network it has.
    pub network: Network,
    /// Its places in networks, those of a task too.
    pub endpoints: Vec<Endpoint>,
    /// Ports of this host as it asked for them.
    pub published: Vec<PublishedPort>,
    /// Ports of this host that are its own while it runs, as they were really bound.
    pub ports: Vec<PublishedPort>,
    /// Ports that it serves: its image or its user says so, or its service publishes them on every host.
    pub exposed: Vec<ExposedPort>,
    /// Its service publishes ports on every host: its interface at the edge is its place in the ingress network.
    pub ingress: bool,
    /// Its standard input is kept open.
    pub open_stdin: bool,
    /// It is removed when it ends.
    pub auto_remove: bool,
    /// File of its log.
    pub log_path: String,
    /// How it is checked, with the image's part filled in; `None`: it is not.
    pub health_check: Option<HealthCheck>,
    /// What the checks since its last start say.
    pub health: Option<Health>,
}

/// Which end is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitCondition {
    /// It does not run, now or later.
    NotRunning,
    /// Its next end, also if it does not run yet.
    NextExit,
    /// It is removed.
    Removed,
}

/// The joined streams of a process.
pub struct Attached {
    /// Its input; dropping it is the end of the input. `None`: it has none.
    pub input: Option<mpsc::Sender<Bytes>>,
    /// Its output.
    pub output: OutputStream,
}

/// What a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// When this was read.
    pub at: Stamp,
    /// Nanoseconds of CPU since its start.
    pub cpu: u64,
    /// Of these in the kernel.
    pub cpu_system: u64,
    /// Nanoseconds of CPU that the whole host spent, idle included, since its boot.
    pub host_cpu: u64,
    /// Bytes of memory, page cache that can be dropped excluded.
    pub memory: u64,
    /// Bytes of memory that it may use; the host's memory where it has no limit.
    pub memory_limit: u64,
    /// Processes.
    pub pids: u64,
    /// Bytes that came in.
    pub received: u64,
    /// Bytes that went out.
    pub sent: u64,
    /// Bytes read from disks.
    pub read: u64,
    /// Bytes written to disks.
    pub written: u64,
}

/// A process to be run in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Full id of the container.
    pub container: String,
    /// Program and arguments, at least one.
    pub argv: Vec<String>,
    /// `KEY=VALUE`, added to the container's.
    pub env: Vec<String>,
    /// Empty: the container's.
    pub user: String,
    /// Empty: the container's.
    pub workdir: String,
    /// Its input can be written.
    pub stdin: bool,
}

/// A process that runs in a container.
pub struct Running {
    /// Process id on this host; 0: it did not start.
    pub pid: u32,
    /// Its streams.
    pub attached: Attached,
    /// Resolves with its exit code, whether its streams are read or not.
    pub exit: BoxFuture<'static, Result<i32, Failure>>,
}
