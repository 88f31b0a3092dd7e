//! What the API asks of this node's containers and images, in its own words.

mod container;
mod image;
mod network;

use std::{collections::BTreeMap, io, time::Duration};

use bytes::Bytes;
use covey_state::{network::NetworkSpec, time::Stamp};
use futures_util::{future::BoxFuture, stream::BoxStream};

pub use self::{
    container::{
        Attached, Container, ContainerState, CreateContainer, ExecRequest, Running, Stats, WaitCondition,
    },
    image::{Image, ImageRemoved, Import, Progress, Pull, RegistryAuth, Resolved},
    network::{Endpoint, ExposedPort, Join, LocalNetwork, Network, NetworkRef},
};
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

    /// The networks that users made on this host.
    fn networks(&self) -> BoxFuture<'_, Result<Vec<LocalNetwork>, Failure>>;

    /// Makes a network of this host; returns its full id. Subnets that the spec leaves open are chosen; one that
    /// overlaps another network's is `Forbidden`, a name that another network of this host has is `Conflict`.
    fn network_create(&self, spec: NetworkSpec) -> BoxFuture<'_, Result<String, Failure>>;

    /// Removes a network of this host; `Forbidden` while a container that runs is in it.
    fn network_remove(&self, id: &str) -> BoxFuture<'_, Result<(), Failure>>;

    /// Puts a container into one more network, now where it runs and at each start; `Forbidden` where it is in it, or
    /// an address is taken.
    fn network_connect(&self, container: &str, join: Join) -> BoxFuture<'_, Result<(), Failure>>;

    /// Takes a container out of a network; `Forbidden` where it is not in it.
    fn network_disconnect(&self, container: &str, network: &NetworkRef)
    -> BoxFuture<'_, Result<(), Failure>>;

    /// What happens to containers, images and this host's networks from now on.
    fn events(&self) -> BoxStream<'static, EngineEvent>;
}

/// What kind of object an [`EngineEvent`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network of this host. Attributes: `name`, `type` (the driver), and `container` where one comes or goes.
    Network,
}

impl EventKind {
    /// As the Engine API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
        }
    }
}

/// Something happened to a container, an image or a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineEvent {
    /// When.
    pub at: Stamp,
    /// To what kind of object.
    pub kind: EventKind,
    /// What, in Docker's words: `create`, `start`, `die`, `pull`, `connect`, `disconnect`, `destroy`, …
    pub action: String,
    /// Which: a container's or network's full id, an image's name or id.
    pub id: String,
    /// `name`, `image`, `exitCode`, labels, …
    pub attributes: BTreeMap<String, String>,
}
