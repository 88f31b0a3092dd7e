//! Containers without processes: `echo`, `cat`, `false`, `sleep` are played.

mod network;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use covey_api::{
    Engine, Failure,
    engine::{
        Attached, Container, ContainerState, CreateContainer, EngineEvent, EventKind, ExecRequest, Image,
        ImageRemoved, Import, Join, LocalNetwork, NetworkRef, Progress, ProgressStream, Pull, RegistryAuth,
        Resolved, Running, Stats, Upload, WaitCondition,
    },
    log::{LogLine, LogQuery, Output},
};
use covey_state::{
    container::{Health, HealthCheck},
    network::NetworkSpec,
    service::Platform,
    time::Stamp,
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream, stream::BoxStream};
use tokio::sync::{Notify, broadcast, mpsc, watch};

pub const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

type Chunk = Option<(Output, Bytes)>;

#[derive(Clone)]
struct Cell {
    life: watch::Sender<Life>,
    output: broadcast::Sender<Chunk>,
    program_input: Arc<Mutex<Option<mpsc::Receiver<Bytes>>>>,
    attached_input: Arc<Mutex<Option<mpsc::Sender<Bytes>>>>,
    log: Arc<Mutex<Vec<LogLine>>>,
    container: Container,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Created,
    Running,
    Exited(i32),
    Removed,
}

pub struct FakeEngine {
    cells: Arc<Mutex<BTreeMap<String, Cell>>>,
    images: Mutex<Vec<Image>>,
    networks: Mutex<Vec<LocalNetwork>>,
    made: Mutex<Vec<CreateContainer>>,
    events: broadcast::Sender<EngineEvent>,
    /// A stop of the container `slow` has begun.
    pub stopping: Arc<Notify>,
    /// Lets it go on.
    pub go_on: Arc<Notify>,
}

impl Default for FakeEngine {
    fn default() -> Self {
        let busybox = image("busybox:latest");
        Self {
            cells: Arc::default(),
            images: Mutex::new(vec![busybox]),
            networks: Mutex::default(),
            made: Mutex::default(),
            stopping: Arc::default(),
            go_on: Arc::default(),
            events: broadcast::Sender::new(256),
        }
    }
}

fn image(name: &str) -> Image {
    Image {
        id: format!("sha256:{:0>64x}", name.len()),
        tags: vec![name.to_owned()],
        created_at: Stamp(1_600_000_000_000_000_000),
        size: 4_000_000,
        platform: Platform { os: "linux".into(), architecture: "amd64".into() },
        cmd: vec!["sh".into()],
        layers: vec![DIGEST.into()],
        exposed_ports: vec!["80/tcp".into()],
        ..Image::default()
    }
}

/// Now; lists show ages.
fn clock() -> Stamp {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Stamp(since_1970.as_nanos() as i64)
}

fn now<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    std::future::ready(value).boxed()
}

impl FakeEngine {
    fn cells(&self) -> MutexGuard<'_, BTreeMap<String, Cell>> {
        self.cells.lock().unwrap()
    }

    fn cell(&self, id: &str) -> Result<Cell, Failure> {
        self.cells().get(id).cloned().ok_or_else(|| Failure::not_found(format!("No such container: {id}")))
    }

    fn tell(&self, action: &str, container: &Container) {
        let attributes = BTreeMap::from([
            ("name".to_owned(), container.name.clone()),
            ("image".to_owned(), container.spec.image.clone()),
        ]);
        let _ = self.events.send(EngineEvent {
            at: clock(),
            kind: EventKind::Container,
            action: action.to_owned(),
            id: container.id.clone(),
            attributes,
        });
    }

    /// A container of a task, as the node would make it.
    pub fn run_task(&self, container: Container) {
        let cell = Cell::new(container);
        cell.life.send_replace(Life::Running);
        self.cells().insert(cell.container.id.clone(), cell);
    }

    /// The checks of a container say this.
    pub fn find_health(&self, name: &str, health: Health) {
        let mut cells = self.cells();
        let container = &mut cells.values_mut().find(|cell| cell.container.name == name).unwrap().container;
        self.tell(&format!("health_status: {}", health.status.as_str()), container);
        container.health = Some(health);
    }

    /// What a container was made with.
    pub fn made(&self, name: &str) -> CreateContainer {
        self.made.lock().unwrap().iter().rfind(|request| request.name == name).unwrap().clone()
    }

    /// Names of the containers.
    pub fn names(&self) -> Vec<String> {
        self.cells().values().map(|cell| cell.container.name.clone()).collect()
    }
}

impl Cell {
    fn new(container: Container) -> Self {
        let (input, program_input) = mpsc::channel(8);
        Self {
            life: watch::Sender::new(Life::Created),
            output: broadcast::Sender::new(64),
            attached_input: Arc::new(Mutex::new(Some(input))),
            program_input: Arc::new(Mutex::new(Some(program_input))),
            log: Arc::default(),
            container,
        }
    }

    fn emit(&self, output: Output, text: Bytes) {
        self.log.lock().unwrap().push(LogLine { at: clock(), output, text: text.clone() });
        let _ = self.output.send(Some((output, text)));
    }

    fn end(&self, code: i32) {
        self.life.send_if_modified(|life| {
            let runs = *life == Life::Running;
            if runs {
                *life = Life::Exited(code);
            }
            runs
        });
        let _ = self.output.send(None);
    }

    fn shown(&self) -> Container {
        let mut container = self.container.clone();
        match *self.life.borrow() {
            Life::Running => {
                for port in container.ports.iter_mut().filter(|port| port.published == 0) {
                    port.published = 32768;
                }
            }
            _ => {
                container.ports.clear();
                container.endpoints.iter_mut().for_each(|endpoint| endpoint.addresses.clear());
            }
        }
        match *self.life.borrow() {
            Life::Created => {}
            Life::Running => {
                container.state = ContainerState::Running;
                container.started_at = Some(container.created_at);
                container.pid = 4242;
            }
            Life::Exited(code) => {
                container.state = ContainerState::Exited;
                container.exit_code = code;
                container.finished_at = Some(container.created_at);
            }
            Life::Removed => container.state = ContainerState::Dead,
        }
        container
    }

    async fn play(self) {
        let argv = self.container.argv.clone();
        let code = play(&argv, self.program_input.clone(), |output, text| self.emit(output, text)).await;
        self.end(code);
    }
}

async fn play(
    argv: &[String],
    input: Arc<Mutex<Option<mpsc::Receiver<Bytes>>>>,
    emit: impl Fn(Output, Bytes),
) -> i32 {
    match argv.first().map(String::as_str) {
        Some("echo") => {
            emit(Output::Stdout, format!("{}\n", argv[1..].join(" ")).into());
            0
        }
        Some("complain") => {
            emit(Output::Stderr, "oh no\n".into());
            3
        }
        Some("cat") => {
            let Some(mut input) = input.lock().unwrap().take() else { return 1 };
            while let Some(bytes) = input.recv().await {
                emit(Output::Stdout, bytes);
            }
            0
        }
        Some("false") => 1,
        Some("true") => 0,
        _ => std::future::pending().await,
    }
}

fn outputs(receiver: broadcast::Receiver<Chunk>) -> BoxStream<'static, Result<(Output, Bytes), Failure>> {
    stream::unfold(receiver, |mut receiver| async move {
        let chunk = receiver.recv().await.ok()??;
        Some((Ok(chunk), receiver))
    })
    .boxed()
}

impl Engine for FakeEngine {
    fn containers(&self) -> BoxFuture<'_, Result<Vec<Container>, Failure>> {
        now(Ok(self.cells().values().map(Cell::shown).collect()))
    }

    fn container(&self, reference: &str) -> BoxFuture<'_, Result<Container, Failure>> {
        assert_ne!(reference, "panic", "as asked for");
        let cells = self.cells();
        let found = cells
            .values()
            .find(|cell| cell.container.name == reference || cell.container.id.starts_with(reference))
            .map(Cell::shown);
        now(found.ok_or_else(|| Failure::not_found(format!("No such container: {reference}"))))
    }

    fn create(&self, request: CreateContainer) -> BoxFuture<'_, Result<String, Failure>> {
        let mut cells = self.cells();
        if !self.images.lock().unwrap().iter().any(|image| image.tags[0].starts_with(&request.spec.image)) {
            return now(Err(Failure::not_found(format!("No such image: {}", request.spec.image))));
        }
        if cells.values().any(|cell| cell.container.name == request.name) {
            return now(Err(Failure::conflict(format!(
                "The container name \"/{}\" is in use",
                request.name
            ))));
        }
        self.made.lock().unwrap().push(request.clone());
        let id = format!("{:064x}", (cells.len() as u64 + 1) << 56 | 0xabc);
        let container = Container {
            id: id.clone(),
            name: if request.name.is_empty() { id[..12].to_owned() } else { request.name },
            argv: request.spec.args.clone(),
            env: request.spec.env.clone(),
            // The image has none.
            health_check: request.spec.health.as_ref().and_then(|own| own.or(&HealthCheck::default())),
            spec: request.spec,
            resources: request.resources,
            image_id: image("busybox:latest").id,
            created_at: clock(),
            network: request.network,
            endpoints: request.networks.into_iter().map(|join| self.endpoint(join)).collect(),
            exposed: request.exposed,
            published: request.ports.clone(),
            ports: request.ports,
            open_stdin: request.open_stdin,
            auto_remove: request.auto_remove,
            ..Container::default()
        };
        let cell = Cell::new(container);
        self.tell("create", &cell.container);
        cells.insert(id.clone(), cell);
        now(Ok(id))
    }

    fn start(&self, id: &str) -> BoxFuture<'_, Result<(), Failure>> {
        let cell = match self.cell(id) {
            Ok(cell) => cell,
            Err(failure) => return now(Err(failure)),
        };
        if *cell.life.borrow() == Life::Running {
            return now(Err(Failure::not_modified()));
        }
        cell.life.send_replace(Life::Running);
        self.tell("start", &cell.container);
        let cells = self.cells.clone();
        tokio::spawn(async move {
            let (id, life, auto_remove) =
                (cell.container.id.clone(), cell.life.clone(), cell.container.auto_remove);
            cell.play().await;
            if auto_remove {
                cells.lock().unwrap().remove(&id);
                life.send_replace(Life::Removed);
            }
        });
        now(Ok(()))
    }

    fn stop(&self, id: &str, _: Option<Duration>) -> BoxFuture<'_, Result<(), Failure>> {
        let id = id.to_owned();
        if self.cell(&id).is_ok_and(|cell| cell.container.name == "slow") {
            return Box::pin(async move {
                self.stopping.notify_one();
                self.go_on.notified().await;
                self.kill(&id, "SIGTERM").await
            });
        }
        self.kill(&id, "SIGTERM")
    }

    fn kill(&self, id: &str, signal: &str) -> BoxFuture<'_, Result<(), Failure>> {
        let cell = match self.cell(id) {
            Ok(cell) => cell,
            Err(failure) => return now(Err(failure)),
        };
        if *cell.life.borrow() != Life::Running {
            return now(Err(match signal {
                "SIGTERM" => Failure::not_modified(),
                _ => Failure::conflict(format!("container {id} is not running")),
            }));
        }
        cell.end(if signal.contains("KILL") { 137 } else { 143 });
        self.tell("die", &cell.container);
        now(Ok(()))
    }

    fn wait(
        &self,
        id: &str,
        condition: WaitCondition,
    ) -> BoxFuture<'_, Result<BoxFuture<'static, Result<i32, Failure>>, Failure>> {
        let cell = match self.cell(id) {
            Ok(cell) => cell,
            Err(failure) => return now(Err(failure)),
        };
        let mut life = cell.life.subscribe();
        let end = async move {
            let mut code = 0;
            loop {
                match (*life.borrow_and_update(), condition) {
                    (Life::Exited(code), WaitCondition::NotRunning | WaitCondition::NextExit) => {
                        return Ok(code);
                    }
                    (Life::Created, WaitCondition::NotRunning) => return Ok(0),
                    (Life::Exited(last), _) => code = last,
                    (Life::Removed, _) => return Ok(code),
                    _ => {}
                }
                if life.changed().await.is_err() {
                    return Ok(code);
                }
            }
        };
        now(Ok(end.boxed()))
    }

    fn remove(&self, id: &str, force: bool) -> BoxFuture<'_, Result<(), Failure>> {
        let cell = match self.cell(id) {
            Ok(cell) => cell,
            Err(failure) => return now(Err(failure)),
        };
        if *cell.life.borrow() == Life::Running && !force {
            let name = &cell.container.name;
            return now(Err(Failure::conflict(format!(
                "cannot remove container \"{name}\": container is running"
            ))));
        }
        cell.end(137);
        cell.life.send_replace(Life::Removed);
        self.cells().remove(id);
        self.tell("destroy", &cell.container);
        now(Ok(()))
    }

    fn logs(
        &self,
        id: &str,
        query: LogQuery,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<LogLine, Failure>>, Failure>> {
        let wanted = move |line: &LogLine| match line.output {
            Output::Stdout => query.stdout,
            Output::Stderr => query.stderr,
        };
        now(self.cell(id).map(|cell| {
            let lines = cell.log.lock().unwrap().clone();
            stream::iter(lines.into_iter().filter(wanted).map(Ok)).boxed()
        }))
    }

    fn attach(&self, id: &str, stdin: bool) -> BoxFuture<'_, Result<Attached, Failure>> {
        now(self.cell(id).map(|cell| Attached {
            input: cell.attached_input.lock().unwrap().take().filter(|_| stdin),
            output: outputs(cell.output.subscribe()),
        }))
    }

    fn stats(&self, id: &str) -> BoxFuture<'_, Result<Stats, Failure>> {
        now(self.cell(id).map(|_| Stats {
            at: clock(),
            memory: 1 << 20,
            memory_limit: 1 << 30,
            ..Stats::default()
        }))
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<Running, Failure>> {
        let (input, program_input) = mpsc::channel(8);
        let sender = broadcast::Sender::new(64);
        let output = outputs(sender.subscribe());
        let exit = tokio::spawn(async move {
            let input = Arc::new(Mutex::new(Some(program_input)));
            let code = play(&request.argv, input, |output, text| {
                let _ = sender.send(Some((output, text)));
            });
            let code = code.await;
            let _ = sender.send(None);
            code
        });
        let attached = Attached { input: request.stdin.then_some(input), output };
        now(Ok(Running { pid: 4343, attached, exit: exit.map(|code| Ok(code.unwrap())).boxed() }))
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<Image>, Failure>> {
        now(Ok(self.images.lock().unwrap().clone()))
    }

    fn image(&self, reference: &str) -> BoxFuture<'_, Result<Image, Failure>> {
        let images = self.images.lock().unwrap();
        let found = images.iter().find(|image| image.tags.iter().any(|tag| tag.starts_with(reference)));
        now(found.cloned().ok_or_else(|| Failure::not_found(format!("No such image: {reference}"))))
    }

    fn pull(&self, request: Pull) -> ProgressStream {
        if request.reference.contains("missing") {
            let failure = Failure::not_found(format!("manifest for {} not found", request.reference));
            return stream::iter([Err(failure)]).boxed();
        }
        self.images.lock().unwrap().push(image(&request.reference));
        let step = |id: &str, status: &str, amount| {
            Ok(Progress { id: id.to_owned(), status: status.to_owned(), amount })
        };
        stream::iter([
            step("latest", "Pulling from somewhere", None),
            step("0123456789ab", "Downloading", Some((1, 2))),
            step("0123456789ab", "Pull complete", None),
            step("", &format!("Status: Downloaded newer image for {}", request.reference), None),
        ])
        .boxed()
    }

    fn load(&self, archive: Upload) -> ProgressStream {
        stream::once(async move {
            let bytes: usize =
                archive.map(|chunk| chunk.unwrap().len()).fold(0, |a, b| async move { a + b }).await;
            Ok(Progress { status: format!("Loaded image: busybox:{bytes}"), ..Progress::default() })
        })
        .boxed()
    }

    fn import(&self, request: Import, tree: Upload) -> ProgressStream {
        stream::once(async move {
            let bytes: usize =
                tree.map(|chunk| chunk.unwrap().len()).fold(0, |a, b| async move { a + b }).await;
            Ok(Progress { status: format!("{DIGEST} {} {bytes}", request.reference), ..Progress::default() })
        })
        .boxed()
    }

    fn tag(&self, reference: &str, name: &str) -> BoxFuture<'_, Result<(), Failure>> {
        let mut images = self.images.lock().unwrap();
        let found = images.iter_mut().find(|image| image.tags[0].starts_with(reference));
        now(match found {
            Some(image) => {
                image.tags.push(name.to_owned());
                Ok(())
            }
            None => Err(Failure::not_found(format!("No such image: {reference}"))),
        })
    }

    fn image_remove(&self, reference: &str, _: bool) -> BoxFuture<'_, Result<Vec<ImageRemoved>, Failure>> {
        let mut images = self.images.lock().unwrap();
        let Some(at) = images.iter().position(|image| image.tags[0].starts_with(reference)) else {
            return now(Err(Failure::not_found(format!("No such image: {reference}"))));
        };
        let image = images.remove(at);
        now(Ok(vec![ImageRemoved::Untagged(image.tags[0].clone()), ImageRemoved::Deleted(image.id)]))
    }

    fn resolve(&self, reference: &str, _: Option<RegistryAuth>) -> BoxFuture<'_, Result<Resolved, Failure>> {
        if reference.contains("missing") {
            return now(Err(Failure::not_found("manifest unknown")));
        }
        now(Ok(Resolved {
            digest: DIGEST.into(),
            media_type: "application/vnd.oci.image.index.v1+json".into(),
            size: 7,
            platforms: vec![Platform { os: "linux".into(), architecture: "amd64".into() }],
        }))
    }

    fn networks(&self) -> BoxFuture<'_, Result<Vec<LocalNetwork>, Failure>> {
        now(Ok(self.networks.lock().unwrap().clone()))
    }

    fn network_create(&self, spec: NetworkSpec) -> BoxFuture<'_, Result<String, Failure>> {
        now(Ok(self.make_network(spec)))
    }

    fn network_remove(&self, id: &str) -> BoxFuture<'_, Result<(), Failure>> {
        self.forget_network(id);
        now(Ok(()))
    }

    fn network_connect(&self, container: &str, join: Join) -> BoxFuture<'_, Result<(), Failure>> {
        let endpoint = self.endpoint(join);
        self.cells().get_mut(container).unwrap().container.endpoints.push(endpoint);
        now(Ok(()))
    }

    fn network_disconnect(
        &self,
        container: &str,
        network: &NetworkRef,
    ) -> BoxFuture<'_, Result<(), Failure>> {
        let mut cells = self.cells();
        cells.get_mut(container).unwrap().container.endpoints.retain(|endpoint| endpoint.network != *network);
        now(Ok(()))
    }

    fn events(&self) -> BoxStream<'static, EngineEvent> {
        stream::unfold(self.events.subscribe(), |mut events| async {
            Some((events.recv().await.ok()?, events))
        })
        .boxed()
    }
}
