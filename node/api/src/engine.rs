//! What the API asks of this node's containers and images, in its own words.

use std::{collections::BTreeMap, io, net::IpAddr, time::Duration};

use bytes::Bytes;
use covey_state::{
    container::{ContainerSpec, Resources},
    service::Platform,
    time::Stamp,
};
use futures_util::{future::BoxFuture, stream::BoxStream};
use tokio::sync::mpsc;

use crate::{
    failure::Failure,
    log::{LogLine, LogQuery, Output},
};

/// What a client sends as a long body.
pub type Upload = BoxStream<'static, io::Result<Bytes>>;
/// What is told of a long work; a failure is the last item.
pub type ProgressStream = BoxStream<'static, Result<Progress, Failure>>;

/// What a process writes.
pub type OutputStream = BoxStream<'static, Result<(Output, Bytes), Failure>>;

/// The containers and images of this node. Container ids are full ids, as [`Engine::containers`] gives them.
pub trait Engine: Send + Sync + 'static {
    /// All containers, running or not.
    fn containers(&self) -> BoxFuture<'_, Result<Vec<Container>, Failure>>;

    /// The container of this full id, name, or unique prefix of an id (in this order).
    fn container(&self, reference: &str) -> BoxFuture<'_, Result<Container, Failure>>;

    /// Makes a container; returns its full id. An image that is not here is `NotFound` (clients then pull it), a
    /// name in use is `Conflict`.
    fn create(&self, request: CreateContainer) -> BoxFuture<'_, Result<String, Failure>>;

    /// Starts it; `NotModified` where it runs already.
    fn start(&self, id: &str) -> BoxFuture<'_, Result<(), Failure>>;

    /// Stop signal, then after `grace` (`None`: the container's own) `SIGKILL`; returns when it has ended.
    /// `NotModified` where it does not run.
    fn stop(&self, id: &str, grace: Option<Duration>) -> BoxFuture<'_, Result<(), Failure>>;

    /// Sends a signal (`SIGTERM`, `TERM` or `15`); `Conflict` where it does not run.
    fn kill(&self, id: &str, signal: &str) -> BoxFuture<'_, Result<(), Failure>>;

    /// Watches for an end of the container. The outer future resolves once the watch is set, so that no end after
    /// that is missed; the inner one resolves with the exit code.
    fn wait(
        &self,
        id: &str,
        condition: WaitCondition,
    ) -> BoxFuture<'_, Result<BoxFuture<'static, Result<i32, Failure>>, Failure>>;

    /// Removes it; one that runs is refused as `Conflict` unless `force`.
    fn remove(&self, id: &str, force: bool) -> BoxFuture<'_, Result<(), Failure>>;

    /// Its log.
    fn logs(
        &self,
        id: &str,
        query: LogQuery,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<LogLine, Failure>>, Failure>>;

    /// Joins its streams, also before it is started: resolves once no output after it can be missed. The output
    /// ends when the container ends. With `stdin` the container's input comes along, if it is kept open.
    fn attach(&self, id: &str, stdin: bool) -> BoxFuture<'_, Result<Attached, Failure>>;

    /// What it uses now.
    fn stats(&self, id: &str) -> BoxFuture<'_, Result<Stats, Failure>>;

    /// Runs a process in a running container. A program that cannot be run is no failure: its output says why, and
    /// its exit code is 126 or 127.
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<Running, Failure>>;

    /// All images.
    fn images(&self) -> BoxFuture<'_, Result<Vec<Image>, Failure>>;

    /// The image of this reference, id or unique prefix of an id; `NotFound`: `No such image: …`.
    fn image(&self, reference: &str) -> BoxFuture<'_, Result<Image, Failure>>;

    /// Fetches an image.
    fn pull(&self, request: Pull) -> ProgressStream;

    /// Takes the images of an archive (docker-archive or OCI layout).
    fn load(&self, archive: Upload) -> ProgressStream;

    /// Makes an image of one layer out of a file tree; the last progress names its id.
    fn import(&self, request: Import, tree: Upload) -> ProgressStream;

    /// Gives an image one more name.
    fn tag(&self, reference: &str, name: &str) -> BoxFuture<'_, Result<(), Failure>>;

    /// Takes a name from an image, and with the last one the image; `Conflict` where a container uses it.
    fn image_remove(&self, reference: &str, force: bool)
    -> BoxFuture<'_, Result<Vec<ImageRemoved>, Failure>>;

    /// Asks the registry what a reference means at the moment.
    fn resolve(
        &self,
        reference: &str,
        auth: Option<RegistryAuth>,
    ) -> BoxFuture<'_, Result<Resolved, Failure>>;

    /// What happens to containers and images from now on.
    fn events(&self) -> BoxStream<'static, EngineEvent>;
}

/// A container to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateContainer {
    /// Without a leading slash; empty: the engine gives it one.
    pub name: String,
    /// What to run.
    pub spec: ContainerSpec,
    /// Limits (reservations do not apply).
    pub resources: Resources,
    /// Its standard input is kept open for [`Engine::attach`].
    pub open_stdin: bool,
    /// It is removed when it ends.
    pub auto_remove: bool,
    /// Its network.
    pub network: Network,
}

/// The network of a plain container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The edge interface, with outgoing masquerade.
    #[default]
    Bridge,
    /// The host's own.
    Host,
    /// Loopback only.
    None,
}

impl Network {
    /// As the Engine API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "none",
        }
    }
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
    /// Its network.
    pub network: Network,
    /// Addresses of its interface.
    pub addresses: Vec<IpAddr>,
    /// Its standard input is kept open.
    pub open_stdin: bool,
    /// It is removed when it ends.
    pub auto_remove: bool,
    /// File of its log.
    pub log_path: String,
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

/// An image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// `sha256:…` of its configuration.
    pub id: String,
    /// `name:tag`, familiar form.
    pub tags: Vec<String>,
    /// `name@sha256:…`, familiar form.
    pub digests: Vec<String>,
    /// Its creation.
    pub created_at: Stamp,
    /// Bytes of its layers, unpacked.
    pub size: u64,
    /// What it runs on.
    pub platform: Platform,
    /// Author, as it says.
    pub author: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its environment.
    pub env: Vec<String>,
    /// Its entry point.
    pub entrypoint: Vec<String>,
    /// Its arguments.
    pub cmd: Vec<String>,
    /// Its working directory.
    pub workdir: String,
    /// Its user.
    pub user: String,
    /// Its stop signal; empty: `SIGTERM`.
    pub stop_signal: String,
    /// Ports that it says it serves, `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Paths that it wants as volumes.
    pub volumes: Vec<String>,
    /// Diff ids of its layers, `sha256:…`, lowest first.
    pub layers: Vec<String>,
}

/// A step of a long work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Which part, such as a layer's short id; empty: all of it.
    pub id: String,
    /// What is done, such as `Downloading`.
    pub status: String,
    /// How far, and how far in all, in bytes.
    pub amount: Option<(u64, u64)>,
}

/// An image to be fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pull {
    /// `name:tag` or `name@sha256:…`.
    pub reference: String,
    /// `None`: this host's.
    pub platform: Option<Platform>,
    /// Credentials.
    pub auth: Option<RegistryAuth>,
}

/// A file tree to be made an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// `name:tag` of the image; empty: none.
    pub reference: String,
    /// `Dockerfile` instructions applied to its configuration.
    pub changes: Vec<String>,
    /// Comment.
    pub message: String,
}

/// What the removal of an image did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageRemoved {
    /// A name is gone.
    Untagged(String),
    /// An image or a layer is gone.
    Deleted(String),
}

/// Credentials for a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// User.
    pub username: String,
    /// Password.
    pub password: String,
    /// Token in the place of both; empty: none.
    pub identity_token: String,
    /// The registry that they are for; empty: the one that is asked.
    pub server: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RegistryAuth(…)")
    }
}

/// What a reference means at a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// `sha256:…` of the manifest or index.
    pub digest: String,
    /// Media type of that.
    pub media_type: String,
    /// Bytes of that.
    pub size: u64,
    /// What the image runs on.
    pub platforms: Vec<Platform>,
}

/// What kind of object an [`EngineEvent`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A container.
    Container,
    /// An image.
    Image,
}

impl EventKind {
    /// As the Engine API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
        }
    }
}

/// Something happened to a container or an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineEvent {
    /// When.
    pub at: Stamp,
    /// To what kind of object.
    pub kind: EventKind,
    /// What, in Docker's words: `create`, `start`, `die`, `pull`, …
    pub action: String,
    /// Which: a container's full id, an image's name or id.
    pub id: String,
    /// `name`, `image`, `exitCode`, labels, …
    pub attributes: BTreeMap<String, String>,
}
