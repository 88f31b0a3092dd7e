//! The API as clients meet it: a real server on a socket, the cluster and the engine behind it played by fakes.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "door: tests serve on sockets and start clients"
)]
#![allow(clippy::unwrap_used, reason = "tests")]

mod cli;
mod client;
mod cluster;
mod containers;
mod control;
mod engine;
mod health;
mod joining;
mod networks;
mod options;
mod publish;
mod rules;

use std::{path::PathBuf, sync::Arc, time::Duration};

use covey_api::{Host, Limits, Server};
use tempfile::TempDir;
use tokio::{net::UnixListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{client::Client, control::FakeControl, engine::FakeEngine};

/// A daemon in a box: its socket goes with it.
struct Daemon {
    control: Arc<FakeControl>,
    engine: Arc<FakeEngine>,
    socket: PathBuf,
    directory: TempDir,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Daemon {
    /// Outside of any cluster.
    async fn start() -> Self {
        Self::with_limits(Limits::default()).await
    }

    /// A manager of a cluster of two nodes.
    async fn manager() -> Self {
        let daemon = Self::start().await;
        daemon.control.form_cluster();
        daemon
    }

    async fn with_limits(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("covey.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (control, engine) = (Arc::new(FakeControl::default()), Arc::new(FakeEngine::default()));
        let host = Host {
            id: "box-id".into(),
            name: "box".into(),
            version: "0.1.0".into(),
            architecture: "amd64".into(),
            machine: "x86_64".into(),
            cgroup_version: 2,
            cpus: 2,
            ..Host::default()
        };
        let server = Server::with_limits(control.clone(), engine.clone(), host, limits);
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let serving = tokio::spawn(async move { server.serve(listener, stopping).await });
        Self { control, engine, socket, directory, stop, serving }
    }

    fn client(&self) -> Client {
        Client::new(&self.socket)
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.serving).await.unwrap().unwrap();
        drop(self.directory);
    }
}

#[tokio::test]
async fn the_server_stops_when_it_is_told_to() {
    let daemon = Daemon::start().await;
    daemon.client().get("/_ping").await;
    daemon.stop().await;
}
