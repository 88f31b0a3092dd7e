//! Waiting for the end of a container, from a moment that the client knows.

use std::{
    future::{poll_fn, ready},
    pin::pin,
    task::Poll,
};

use covey_api::{Failure, engine::WaitCondition};
use covey_runtime::{ContainerState, Runtime};
use futures_util::future::BoxFuture;

use super::failure;

type End = BoxFuture<'static, Result<i32, Failure>>;

/// Resolves once the watch is set; what it resolves to resolves with the exit code.
pub async fn watch(runtime: Runtime, id: String, condition: WaitCondition) -> Result<End, Failure> {
    let state = runtime.inspect(&id).map_err(failure::lookup)?.state;
    let code = match &state {
        ContainerState::Exited(exit) => exit.code,
        _ => 0,
    };
    match (condition, state) {
        (WaitCondition::NotRunning, ContainerState::Created | ContainerState::Exited(_)) => {
            Ok(Box::pin(ready(Ok(code))))
        }
        (WaitCondition::NotRunning, ContainerState::Running) => set(Box::pin(end(runtime, id))).await,
        (WaitCondition::NextExit, _) => set(Box::pin(next_end(runtime, id))).await,
        (WaitCondition::Removed, _) => set(Box::pin(removal(runtime, id, code))).await,
    }
}

/// The runtime's watches are set when they are first polled.
async fn set(mut watch: End) -> Result<End, Failure> {
    match poll_fn(|cx| Poll::Ready(watch.as_mut().poll(cx))).await {
        Poll::Pending => Ok(watch),
        Poll::Ready(end) => end.map(|code| -> End { Box::pin(ready(Ok(code))) }),
    }
}

async fn end(runtime: Runtime, id: String) -> Result<i32, Failure> {
    runtime.wait(&id).await.map(|exit| exit.code).map_err(failure::operation)
}

async fn next_end(runtime: Runtime, id: String) -> Result<i32, Failure> {
    runtime.wait_next(&id).await.map(|exit| exit.code).map_err(failure::operation)
}

/// Waits for the removal; `code` is that of the last end so far.
async fn removal(runtime: Runtime, id: String, mut code: i32) -> Result<i32, Failure> {
    let mut removed = pin!(runtime.wait_removed(&id));
    loop {
        tokio::select! {
            // A container that removes itself has ended before: its code is looked at first.
            biased;
            end = runtime.wait_next(&id) => match end {
                Ok(exit) => code = exit.code,
                Err(_) => {
                    removed.await;
                    return Ok(code);
                }
            },
            () = &mut removed => return Ok(code),
        }
    }
}
