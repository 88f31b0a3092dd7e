//! The streams of a process: its output as it comes, its input through a channel.

use bytes::Bytes;
use covey_api::{
    Failure,
    engine::{Attached, OutputStream},
    log::Output,
};
use covey_runtime::{self as runtime, ContainerState, Event, Runtime, StdinWriter};
use futures_util::StreamExt as _;
use tokio::{
    io::AsyncWriteExt as _,
    sync::{broadcast, mpsc},
};
use tokio_util::task::AbortOnDropHandle;

use super::failure;

/// Pieces of input that wait for a process to read; then the client waits.
const INPUT_PIECES_MAX: usize = 16;

/// Joins a container's streams. What it writes after this call comes out, also if it is started later.
pub fn join(runtime: &Runtime, id: &str, stdin: bool) -> Result<Attached, Failure> {
    // Before the look at its state, so that no start lies in between.
    let events = runtime.events();
    let open = runtime.inspect(id).map_err(failure::lookup)?.open_stdin;
    let output = runtime.attach(id).map_err(failure::operation)?.output;
    if !(stdin && open) {
        return Ok(joined(output, None::<std::future::Ready<_>>));
    }
    let (runtime, id) = (runtime.clone(), id.to_owned());
    Ok(joined(output, Some(async move { container_stdin(&runtime, &id, events).await })))
}

/// The streams of a process whose input, where it has one, is what `stdin` resolves to. What is written before waits.
/// The input is let go of with the output.
pub fn joined<F>(output: runtime::OutputStream, stdin: Option<F>) -> Attached
where
    F: Future<Output = Option<StdinWriter>> + Send + 'static,
{
    let Some(stdin) = stdin else {
        return Attached { input: None, output: pieces(output, None) };
    };
    let (input, from) = mpsc::channel(INPUT_PIECES_MAX);
    let pump = tokio::spawn(async move {
        if let Some(stdin) = stdin.await {
            pump(from, stdin).await;
        }
    });
    Attached { input: Some(input), output: pieces(output, Some(AbortOnDropHandle::new(pump))) }
}

fn pieces(output: runtime::OutputStream, pump: Option<AbortOnDropHandle<()>>) -> OutputStream {
    output
        .map(move |piece| {
            let _held = &pump;
            Ok(match piece {
                runtime::Output::Stdout(bytes) => (Output::Stdout, bytes),
                runtime::Output::Stderr(bytes) => (Output::Stderr, bytes),
            })
        })
        .boxed()
}

/// Writes what the client sends until it ends its input or the process reads no more.
async fn pump(mut from: mpsc::Receiver<Bytes>, mut stdin: StdinWriter) {
    while let Some(piece) = from.recv().await {
        if let Err(error) = stdin.write_all(&piece).await {
            tracing::debug!(%error, "a process reads no more input");
            return;
        }
    }
    if let Err(error) = stdin.shutdown().await {
        tracing::debug!(%error, "the input of a process cannot be ended");
    }
}

/// The input of a container once it runs; `None` where it is removed first or cannot be reached.
async fn container_stdin(
    runtime: &Runtime,
    id: &str,
    mut events: broadcast::Receiver<Event>,
) -> Option<StdinWriter> {
    while runtime.inspect(id).ok()?.state != ContainerState::Running {
        // Whatever happened, or how much was missed: look again.
        if let Err(broadcast::error::RecvError::Closed) = events.recv().await {
            return None;
        }
    }
    runtime
        .stdin(id)
        .inspect_err(|error| tracing::warn!(%error, container = id, "cannot reach a container's input"))
        .ok()
}
