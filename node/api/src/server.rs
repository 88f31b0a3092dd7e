//! The server: accepts connections on a listener and hands their requests to the door.

use std::{io, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{app::App, control::Control, door::Door, engine::Engine, events::Hub, host::Host};

/// How long a connection may take to finish what it does when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// Pause after a failed accept: mostly the process has no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds on what clients may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the first byte of a connection, or the end of its last request, to the end of the next request's head.
    pub head: Duration,
    /// From there to the end of a JSON body.
    pub body: Duration,
    /// Bytes of a JSON body.
    pub body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head: Duration::from_secs(300), body: Duration::from_secs(30), body_bytes: 16 << 20 }
    }
}

/// The Engine API, ready to be served on any number of listeners.
#[derive(Clone)]
pub struct Server {
    app: App,
    door: Door,
}

impl Server {
    /// The API of this daemon. Begins to collect events at once, so it is made inside a tokio runtime.
    pub fn new(control: Arc<dyn Control>, engine: Arc<dyn Engine>, host: Host) -> Self {
        Self::with_limits(control, engine, host, Limits::default())
    }

    /// As [`Self::new`], with bounds of the caller's choice.
    pub fn with_limits(
        control: Arc<dyn Control>,
        engine: Arc<dyn Engine>,
        host: Host,
        limits: Limits,
    ) -> Self {
        let events = Arc::new(Hub::collect(control.changes(), engine.events()));
        let app = App { control, engine, host: Arc::new(host), events, execs: Arc::default(), limits };
        Self { door: Door::new(app.clone()), app }
    }

    /// Serves `listener` until `stop`; connections then get a second to finish.
    pub async fn serve(&self, listener: UnixListener, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(self.clone().connection(stream, stop.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a client could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(listener);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_GRACE, all).await.is_err() {
            tracing::debug!("some clients were cut off");
        }
    }

    async fn connection(self, stream: UnixStream, stop: CancellationToken) {
        let door = self.door;
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let door = door.clone();
            async move { Ok::<_, io::Error>(door.answer(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.app.limits.head)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a client's connection broke");
        }
    }
}
