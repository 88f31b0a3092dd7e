//! The daemon's life: from its settings to its end by signal.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use covey_api::Server;
use covey_runtime::{Runtime, image::ImageStore};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::Group,
};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{
    Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{
    config::Config,
    control::ClusterControl,
    daemon::Daemon,
    engine::LocalEngine,
    identity::Folder,
    machine, names,
    network::{Networks, local::LocalNetworks},
};

/// Who may use the API: root, and this group where there is one.
const GROUP: &str = "covey";
/// Owner and group may read and write.
const SOCKET_MODE: u32 = 0o660;

/// Threads for blocking work; what is beyond waits. Each keeps some 60 KiB of stack for a while.
const BLOCKING_THREADS_MAX: usize = 48;
/// Heaps of the allocator: with one a thread, as it likes it, freed memory stays in many half-empty ones.
const ARENAS_MAX: libc::c_int = 2;
/// Between two times that unused memory is given back to the system: a busy moment would keep it for ever otherwise.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(15);

/// Runs the daemon until it is told to end.
///
/// # Errors
/// It does not start, with the reason; nothing was changed then.
pub fn daemon(config: Config) -> Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("the TLS provider was set twice"))?;
    // Consensus tells at INFO what only its authors can read.
    let filter = Targets::new()
        .with_default(config.log_level)
        .with_target("openraft", tracing::Level::ERROR)
        // It warns of what any container may send to its resolver.
        .with_target("hickory_proto", tracing::Level::ERROR);
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    names::use_built_in();
    // SAFETY: changes a setting of the allocator, which no other thread uses yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX) };
    allow_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()?;
    runtime.block_on(serve(config))
}

/// Each container's resolver has two sockets, each published port has one: as many as the system allows.
fn allow_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "this daemon may open few files");
    }
}

async fn serve(config: Config) -> Result<()> {
    for folder in [&config.data_root, &config.exec_root] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let _only = [only_daemon(&config.data_root)?, only_daemon(&config.exec_root)?];
    let listener = listen(&config.socket)?;
    let pidfile = config.pidfile.as_deref().map(write_pid).transpose()?;

    let images = ImageStore::open(&config.data_root, config.insecure_registries.iter().cloned().collect())?;
    let network = Networks::open(&config.exec_root, config.repair_interval)?;
    let runtime = Runtime::open(covey_runtime::Config {
        data_root: config.data_root.clone(),
        exec_root: config.exec_root.clone(),
        cgroup_parent: config.cgroup_parent.clone(),
        program: PathBuf::from("/proc/self/exe"),
        images: images.clone(),
        network: Some(Arc::new(network.clone())),
    })
    .await?;

    let locals = LocalNetworks::open(&config.data_root)?;
    let daemon = Daemon::new(
        machine::host(&config),
        &config.labels,
        Folder::below(&config.data_root),
        runtime,
        network.clone(),
    );
    network.begin(daemon.recall_edge()?);
    daemon.resume().await.context("this node cannot go on as a member of its swarm")?;

    let control = Arc::new(ClusterControl(daemon.clone()));
    let engine = Arc::new(LocalEngine::new(daemon.clone(), images, locals));
    let server = Server::new(control, engine, daemon.host.clone());
    let stop = CancellationToken::new();
    let served = tokio::spawn({
        let stop = stop.clone();
        async move { server.serve(listener, stop).await }
    });
    tracing::info!(socket = %config.socket.display(), version = env!("CARGO_PKG_VERSION"), "ready");

    tokio::select! {
        ended = ended() => ended?,
        () = give_back_memory() => {}
    }
    tracing::info!("ending; containers run on");
    stop.cancel();
    served.await?;
    daemon.stop().await;
    network.end().await;
    for path in pidfile.iter().map(PathBuf::as_path).chain([config.socket.as_path()]) {
        // The next daemon does not mind.
        let _ = fs::remove_file(path);
    }
    Ok(())
}

/// For as long as it is waited for.
async fn give_back_memory() {
    loop {
        tokio::time::sleep(GIVE_BACK_EVERY).await;
        // SAFETY: only what nobody uses is given back. Whether there was any does not matter.
        let _ = tokio::task::spawn_blocking(|| unsafe { libc::malloc_trim(0) }).await;
    }
}

/// Two daemons on one root would tear each other's containers apart.
fn only_daemon(root: &Path) -> Result<Flock<fs::File>> {
    let path = root.join("lock");
    let file = fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| anyhow::anyhow!("another daemon uses {}", root.display()))
}

fn listen(socket: &Path) -> Result<UnixListener> {
    let shown = socket.display();
    if let Some(folder) = socket.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_) => bail!("another daemon listens on {shown}"),
        // A socket that nobody listens on was left by a daemon that was killed.
        Err(_) => _ = fs::remove_file(socket),
    }
    let listener = UnixListener::bind(socket).with_context(|| format!("cannot listen on {shown}"))?;
    fs::set_permissions(socket, fs::Permissions::from_mode(SOCKET_MODE))?;
    if let Ok(Some(group)) = Group::from_name(GROUP) {
        chown(socket, None, Some(group.gid.as_raw()))
            .with_context(|| format!("cannot give {shown} to {GROUP}"))?;
    }
    Ok(listener)
}

fn write_pid(path: &Path) -> Result<PathBuf> {
    fs::write(path, std::process::id().to_string())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.to_owned())
}

async fn ended() -> Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}
