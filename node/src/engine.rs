//! This node's containers and images in the words of the API: pure translation, a file for each noun.

mod arrival;
mod attach;
mod container;
mod event;
mod exec;
mod failure;
mod image;
mod join;
mod network;
mod stats;
mod wait;

use std::{sync::Arc, time::Duration};

use covey_api::{
    Engine, Failure,
    engine::{
        Attached, Container, CreateContainer, EngineEvent, ExecRequest, Image, ImageRemoved, Import, Join,
        LocalNetwork, NetworkRef, ProgressStream, Pull, RegistryAuth, Resolved, Running, Stats, Upload,
        WaitCondition,
    },
    log::{LogLine, LogQuery},
};
use covey_runtime::{Runtime, image::ImageStore};
use covey_state::network::NetworkSpec;
use futures_util::{future::BoxFuture, stream::BoxStream};

use tokio::sync::RwLock;

use self::event::OwnEvents;
pub use self::failure::lookup;
use crate::{daemon::Daemon, network::local::LocalNetworks};

/// The engine of this node. Cheap to clone.
#[derive(Clone)]
pub struct LocalEngine {
    runtime: Runtime,
    images: ImageStore,
    events: OwnEvents,
    daemon: Arc<Daemon>,
    /// The networks of this host. Held for writing while an address is chosen, until the container has it.
    locals: Arc<RwLock<LocalNetworks>>,
}

impl LocalEngine {
    /// Serves the containers of the daemon's runtime, the images of `images`, which must be the runtime's own, and the
    /// networks of this host.
    pub fn new(daemon: Arc<Daemon>, images: ImageStore, locals: LocalNetworks) -> Self {
        let runtime = daemon.runtime.clone();
        Self { runtime, images, events: OwnEvents::default(), daemon, locals: Arc::new(RwLock::new(locals)) }
    }
}

impl Engine for LocalEngine {
    fn containers(&self) -> BoxFuture<'_, Result<Vec<Container>, Failure>> {
        Box::pin(async { Ok(self.runtime.list().into_iter().map(container::to_api).collect()) })
    }

    fn container(&self, reference: &str) -> BoxFuture<'_, Result<Container, Failure>> {
        let found = self.runtime.inspect(reference).map(container::to_api).map_err(failure::lookup);
        Box::pin(async { found })
    }

    fn create(&self, request: CreateContainer) -> BoxFuture<'_, Result<String, Failure>> {
        Box::pin(self.create_container(request))
    }

    fn start(&self, id: &str) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.start_container(id.to_owned()))
    }

    fn stop(&self, id: &str, grace: Option<Duration>) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.stop_container(id.to_owned(), grace))
    }

    fn kill(&self, id: &str, signal: &str) -> BoxFuture<'_, Result<(), Failure>> {
        let killed = self.runtime.kill(id, signal).map_err(failure::operation);
        Box::pin(async { killed })
    }

    fn wait(
        &self,
        id: &str,
        condition: WaitCondition,
    ) -> BoxFuture<'_, Result<BoxFuture<'static, Result<i32, Failure>>, Failure>> {
        Box::pin(wait::watch(self.runtime.clone(), id.to_owned(), condition))
    }

    fn remove(&self, id: &str, force: bool) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.remove_container(id.to_owned(), force))
    }

    fn logs(
        &self,
        id: &str,
        query: LogQuery,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<LogLine, Failure>>, Failure>> {
        let id = id.to_owned();
        Box::pin(async move { self.container_logs(&id, query) })
    }

    fn attach(&self, id: &str, stdin: bool) -> BoxFuture<'_, Result<Attached, Failure>> {
        let id = id.to_owned();
        Box::pin(async move { attach::join(&self.runtime, &id, stdin) })
    }

    fn stats(&self, id: &str) -> BoxFuture<'_, Result<Stats, Failure>> {
        let stats = stats::read(&self.runtime, id);
        Box::pin(async { stats })
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<Running, Failure>> {
        Box::pin(exec::run(&self.runtime, request))
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<Image>, Failure>> {
        Box::pin(self.list_images())
    }

    fn image(&self, reference: &str) -> BoxFuture<'_, Result<Image, Failure>> {
        let reference = reference.to_owned();
        Box::pin(async move {
            self.images.inspect(&reference).await.map(image::to_api).map_err(failure::image_lookup)
        })
    }

    fn pull(&self, request: Pull) -> ProgressStream {
        let engine = self.clone();
        arrival::stream(|sink| engine.pull_image(request, sink))
    }

    fn load(&self, archive: Upload) -> ProgressStream {
        let engine = self.clone();
        arrival::stream(|sink| engine.load_images(archive, sink))
    }

    fn import(&self, request: Import, tree: Upload) -> ProgressStream {
        let engine = self.clone();
        arrival::stream(|sink| engine.import_image(request, tree, sink))
    }

    fn tag(&self, reference: &str, name: &str) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.tag_image(reference.to_owned(), name.to_owned()))
    }

    fn image_remove(
        &self,
        reference: &str,
        force: bool,
    ) -> BoxFuture<'_, Result<Vec<ImageRemoved>, Failure>> {
        Box::pin(self.remove_image(reference.to_owned(), force))
    }

    fn resolve(
        &self,
        reference: &str,
        auth: Option<RegistryAuth>,
    ) -> BoxFuture<'_, Result<Resolved, Failure>> {
        Box::pin(self.resolve_image(reference.to_owned(), auth))
    }

    fn networks(&self) -> BoxFuture<'_, Result<Vec<LocalNetwork>, Failure>> {
        Box::pin(async { Ok(self.list_networks().await) })
    }

    fn network_create(&self, spec: NetworkSpec) -> BoxFuture<'_, Result<String, Failure>> {
        Box::pin(self.create_network(spec))
    }

    fn network_remove(&self, id: &str) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.remove_network(id.to_owned()))
    }

    fn network_connect(&self, container: &str, join: Join) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.connect(container.to_owned(), join))
    }

    fn network_disconnect(
        &self,
        container: &str,
        network: &NetworkRef,
    ) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.disconnect(container.to_owned(), network.clone()))
    }

    fn events(&self) -> BoxStream<'static, EngineEvent> {
        event::all(&self.runtime, &self.events)
    }
}
