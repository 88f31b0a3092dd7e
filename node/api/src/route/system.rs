//! `_ping`, `version` and `info`.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use covey_state::{node::Role, time::Stamp};
use tokio::time::timeout;

use crate::{
    app::App,
    control::{LocalState, Membership, View},
    convert,
    engine::ContainerState,
    failure::Failure,
    host::Host,
    version,
    wire::{Time, swarm, system as wire},
};

/// How long `info` waits for the cluster: it must answer while the cluster cannot.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(3);

/// Now, by the clock of this machine.
pub fn now() -> Stamp {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Stamp(i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX))
}

pub fn routes() -> Router<App> {
    Router::new()
        .route("/_ping", get(ping).head(ping_head))
        .route("/version", get(version))
        .route("/info", get(info))
}

async fn ping(State(app): State<App>) -> Response {
    (ping_headers(&app), "OK").into_response()
}

async fn ping_head(State(app): State<App>) -> Response {
    (ping_headers(&app), [(header::CONTENT_LENGTH, "0")]).into_response()
}

fn ping_headers(app: &App) -> impl axum::response::IntoResponseParts + use<> {
    let membership = app.control.membership();
    let swarm = match (membership.state, membership.manager) {
        (LocalState::Active, true) => "active/manager",
        (LocalState::Active, false) => "active/worker",
        (state, _) => state.as_str(),
    };
    [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (header::PRAGMA, "no-cache"),
        (header::HeaderName::from_static("swarm"), swarm),
        // Clients would use BuildKit for `docker build` otherwise.
        (header::HeaderName::from_static("builder-version"), "1"),
    ]
}

async fn version(State(app): State<App>) -> Json<wire::Version> {
    let Host { version: ours, commit, kernel, architecture, built, .. } = &*app.host;
    let details = BTreeMap::from(
        [
            ("ApiVersion", version::MAX.to_string()),
            ("MinAPIVersion", version::MIN.to_string()),
            ("Arch", architecture.clone()),
            ("Os", "linux".to_owned()),
            ("BuildTime", built.clone()),
            ("GitCommit", commit.clone()),
            ("KernelVersion", kernel.clone()),
            ("GoVersion", String::new()),
            ("Experimental", "false".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    Json(wire::Version {
        platform: wire::Name { name: "Covey".to_owned() },
        // The client prints the details of a component of this name.
        components: vec![wire::Component { name: "Engine".to_owned(), version: ours.clone(), details }],
        version: ours.clone(),
        api_version: version::MAX.to_string(),
        min_api_version: version::MIN.to_string(),
        git_commit: commit.clone(),
        go_version: String::new(),
        os: "linux",
        arch: architecture.clone(),
        kernel_version: kernel.clone(),
        build_time: built.clone(),
    })
}

async fn info(State(app): State<App>) -> Result<Json<wire::Info>, Failure> {
    let containers = app.engine.containers().await?;
    let images = app.engine.images().await?;
    let swarm = swarm_info(&app).await;
    let running = containers.iter().filter(|c| c.state == ContainerState::Running).count();
    let host = &*app.host;
    let insecure = host.insecure_registries.iter().map(|name| (name.clone(), index(name, false)));
    let commit = |id: &str| wire::Commit { id: id.to_owned(), expected: id.to_owned() };
    Ok(Json(wire::Info {
        id: host.id.clone(),
        containers: containers.len(),
        containers_running: running,
        containers_paused: 0,
        containers_stopped: containers.len() - running,
        images: images.len(),
        driver: convert::container::STORAGE_DRIVER,
        driver_status: vec![["Backing Filesystem".to_owned(), host.backing_filesystem.clone()]],
        plugins: wire::Plugins {
            volume: vec!["local"],
            network: vec!["bridge", "host", "null", "overlay"],
            authorization: Vec::new(),
            log: vec![wire::LOG_DRIVER],
        },
        memory_limit: true,
        swap_limit: true,
        cpu_cfs_period: true,
        cpu_cfs_quota: true,
        cpu_shares: true,
        cpu_set: true,
        pids_limit: true,
        ipv4_forwarding: true,
        debug: false,
        n_fd: 0,
        oom_kill_disable: false,
        n_goroutines: 0,
        system_time: Time(now()).text(),
        logging_driver: wire::LOG_DRIVER,
        cgroup_driver: "cgroupfs",
        cgroup_version: host.cgroup_version.to_string(),
        n_events_listener: app.events.readers(),
        kernel_version: host.kernel.clone(),
        operating_system: host.operating_system.clone(),
        os_version: host.os_version.clone(),
        os_type: "linux",
        architecture: host.machine.clone(),
        index_server_address: "https://index.docker.io/v1/",
        registry_config: wire::RegistryConfig {
            insecure_registry_cidrs: vec!["127.0.0.0/8", "::1/128"],
            index_configs: insecure.chain([("docker.io".to_owned(), index("docker.io", true))]).collect(),
            mirrors: Vec::new(),
        },
        ncpu: host.cpus,
        mem_total: host.memory,
        docker_root_dir: host.data_root.clone(),
        http_proxy: "",
        https_proxy: "",
        no_proxy: "",
        name: host.name.clone(),
        labels: host.labels.clone(),
        experimental_build: false,
        server_version: host.version.clone(),
        runtimes: BTreeMap::from([(wire::RUNTIME, wire::Runtime { path: wire::RUNTIME })]),
        default_runtime: wire::RUNTIME,
        swarm,
        live_restore_enabled: true,
        isolation: "",
        init_binary: "",
        containerd_commit: commit(""),
        runc_commit: commit(""),
        init_commit: commit(""),
        security_options: vec!["name=seccomp,profile=builtin"],
        warnings: host.warnings.clone(),
    }))
}

fn index(name: &str, secure: bool) -> wire::IndexConfig {
    wire::IndexConfig { name: name.to_owned(), mirrors: Vec::new(), secure, official: secure }
}

/// What `info` says of the cluster. A cluster that does not answer is an error in it, not of it.
async fn swarm_info(app: &App) -> swarm::Info {
    let Membership { state, node, address, manager, managers, error } = app.control.membership();
    let managers: Vec<_> = managers
        .into_iter()
        .map(|(id, address)| swarm::RemoteManager { node_id: id.to_string(), addr: address.to_string() })
        .collect();
    let mut info = swarm::Info {
        node_id: node.map(|id| id.to_string()).unwrap_or_default(),
        node_addr: address.map(|address| address.to_string()).unwrap_or_default(),
        local_node_state: state.as_str(),
        control_available: manager,
        error,
        remote_managers: (!managers.is_empty()).then_some(managers),
        ..swarm::Info::default()
    };
    if manager {
        match timeout(CLUSTER_TIMEOUT, app.control.read()).await {
            Ok(Ok(view)) => describe(&mut info, &view),
            Ok(Err(failure)) => info.error = failure.message,
            Err(_) => info.error = "the managers do not answer: is there a quorum?".to_owned(),
        }
    }
    info
}

fn describe(info: &mut swarm::Info, view: &View) {
    info.nodes = view.store.nodes().count();
    info.managers = view.store.nodes().filter(|node| node.role == Role::Manager).count();
    info.cluster = view.store.cluster().map(|cluster| convert::swarm::cluster_to_wire(cluster, view));
}
