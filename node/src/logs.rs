//! Log lines of tasks: this node's own, and those that it gathers from the others.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::Result;
use bytes::Bytes;
use covey_api::{
    Failure,
    control::{LogsOf, StoreChange, TaskLine},
    log::{LogLine, LogQuery, Output},
};
use covey_gossip_quic::{read_frame, write_frame};
use covey_runtime::Runtime;
use covey_state::{Id, Store, task::Task};
use futures_util::{
    StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use tokio::sync::{broadcast, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    member::Member,
    protocol::{Answer, LOG_FRAME_MAX, LogFrame, LogsRequest, kind},
    serve::TaskLogs,
};

/// Lines that wait for a slow reader.
const LINES_MAX: usize = 256;

/// The log lines of this node's tasks.
pub struct LocalLogs(pub Runtime);

impl TaskLogs for LocalLogs {
    fn lines(&self, request: LogsRequest) -> BoxFuture<'_, Result<BoxStream<'static, LogFrame>, String>> {
        Box::pin(async move {
            let of_task =
                |c: &covey_runtime::Container| c.task.as_ref().is_some_and(|t| t.task == request.task);
            let container = self.0.list().into_iter().rev().find(of_task);
            let container =
                container.ok_or_else(|| format!("task {} has no container here", request.task))?;
            let query = covey_runtime::LogQuery {
                follow: request.follow,
                since: request.since,
                until: request.until,
                tail: request.tail.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
                stdout: request.stdout,
                stderr: request.stderr,
            };
            let lines = self.0.logs(container.id.as_str(), query).map_err(|error| error.to_string())?;
            let lines = lines.filter_map(async |line| {
                line.inspect_err(|error| tracing::warn!(%error, "a log cannot be read on")).ok()
            });
            Ok(lines
                .map(|line| LogFrame { at: line.at, stderr: line.stderr, text: line.bytes.to_vec() })
                .boxed())
        })
    }
}

/// The log lines of a service's tasks, or of one task, wherever they run. They come as each node gives them.
pub fn gather(
    member: Arc<Member>,
    store: Store,
    changes: broadcast::Receiver<StoreChange>,
    of: LogsOf,
    query: LogQuery,
) -> BoxStream<'static, Result<TaskLine, Failure>> {
    let (lines, received) = mpsc::channel(LINES_MAX);
    let gathering =
        AbortOnDropHandle::new(tokio::spawn(Gather { member, of, query, lines }.run(store, changes)));
    // The work ends with whoever reads.
    stream::unfold((received, gathering), async |(mut received, gathering)| {
        received.recv().await.map(|line| (line, (received, gathering)))
    })
    .boxed()
}

struct Gather {
    member: Arc<Member>,
    of: LogsOf,
    query: LogQuery,
    lines: mpsc::Sender<Result<TaskLine, Failure>>,
}

impl Gather {
    async fn run(self, store: Store, mut changes: broadcast::Receiver<StoreChange>) {
        let mut known = BTreeSet::new();
        let mut readers = tokio::task::JoinSet::new();
        let mut store = store;
        loop {
            for task in self.tasks(&store) {
                if let Some(node) = task.node
                    && known.insert(task.id)
                {
                    readers.spawn(read(
                        self.member.clone(),
                        task.id,
                        task.service,
                        node,
                        self.query,
                        self.lines.clone(),
                    ));
                }
            }
            if !self.query.follow {
                while readers.join_next().await.is_some() {}
                return;
            }
            tokio::select! {
                change = changes.recv() => match change {
                    Ok(change) => store = change.after,
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                Some(_) = readers.join_next() => {
                    if matches!(self.of, LogsOf::Task(_)) && readers.is_empty() {
                        return;
                    }
                }
            }
        }
    }

    fn tasks<'a>(&self, store: &'a Store) -> Vec<&'a Arc<Task>> {
        match self.of {
            LogsOf::Service(id) => store.tasks_of_service(id).collect(),
            LogsOf::Task(id) => store.task(id).into_iter().collect(),
        }
    }
}

async fn read(
    member: Arc<Member>,
    task: Id,
    service: Id,
    node: Id,
    query: LogQuery,
    lines: mpsc::Sender<Result<TaskLine, Failure>>,
) {
    let request = LogsRequest {
        task,
        stdout: query.stdout,
        stderr: query.stderr,
        follow: query.follow,
        since: query.since,
        until: query.until,
        tail: query.tail,
    };
    let mut frames = match open(&member, node, request).await {
        Ok(frames) => frames,
        // One node that does not answer must not hide the lines of the others.
        Err(error) => {
            return tracing::info!(%task, %node, error = format!("{error:#}"), "no log lines of a task");
        }
    };
    while let Some(frame) = frames.next().await {
        let output = if frame.stderr { Output::Stderr } else { Output::Stdout };
        let line = LogLine { at: frame.at, output, text: Bytes::from(frame.text) };
        if lines.send(Ok(TaskLine { task, service, node, line })).await.is_err() {
            return;
        }
    }
}

async fn open(member: &Member, node: Id, request: LogsRequest) -> Result<BoxStream<'static, LogFrame>> {
    if node == member.id() {
        return member.logs.lines(request).await.map_err(anyhow::Error::msg);
    }
    let peer =
        member.nodes().get(node).cloned().ok_or_else(|| anyhow::anyhow!("node {node} is not known"))?;
    let (mut send, mut recv) = member.endpoint.open(node, peer.address, kind::LOGS).await?;
    write_frame(&mut send, &covey_wire::encode(&request)?).await?;
    send.finish()?;
    let begun: Answer<()> =
        covey_wire::decode::<_, LOG_FRAME_MAX>(&read_frame(&mut recv, LOG_FRAME_MAX).await?)?;
    begun.map_err(anyhow::Error::msg)?;
    // The sending half keeps the connection as much as the receiving one does.
    let frames = stream::unfold((recv, send), async |(mut recv, send)| {
        let bytes = read_frame(&mut recv, LOG_FRAME_MAX).await.ok()?;
        let frame = covey_wire::decode::<LogFrame, LOG_FRAME_MAX>(&bytes).ok()?;
        Some((frame, (recv, send)))
    });
    Ok(frames.boxed())
}
