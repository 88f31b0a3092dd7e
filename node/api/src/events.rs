//! What happened lately, and what happens: swarm changes and this node's containers and images in one stream.

mod cluster;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use covey_state::time::Stamp;
use futures_util::{Stream, StreamExt, stream, stream::BoxStream};
use tokio::{sync::broadcast, task::AbortHandle};

use crate::{
    control::StoreChange,
    engine::EngineEvent,
    wire::event::{Event, Scope},
};

/// Events that are remembered for `since`.
const HISTORY_MAX: usize = 256;
/// Events that a slow reader may lag behind before it misses some.
const LAG_MAX: usize = 1024;

/// Collects events and hands them to readers.
pub struct Hub {
    shared: Arc<Shared>,
    collector: AbortHandle,
}

struct Shared {
    history: Mutex<VecDeque<Arc<Event>>>,
    live: broadcast::Sender<Arc<Event>>,
}

impl Hub {
    /// Collects from both sources until it is dropped.
    pub fn collect(
        changes: BoxStream<'static, StoreChange>,
        engine: BoxStream<'static, EngineEvent>,
    ) -> Self {
        let shared = Arc::new(Shared {
            history: Mutex::new(VecDeque::with_capacity(HISTORY_MAX)),
            live: broadcast::Sender::new(LAG_MAX),
        });
        let swarm = changes.flat_map(|change| stream::iter(cluster::events_of(&change)));
        let local = engine.map(Event::local);
        let mut all = stream::select(swarm, local);
        let collecting = shared.clone();
        let collector = tokio::spawn(async move {
            while let Some(event) = all.next().await {
                collecting.publish(event);
            }
        });
        Self { shared, collector: collector.abort_handle() }
    }

    /// How many readers there are.
    pub fn readers(&self) -> usize {
        self.shared.live.receiver_count()
    }

    /// The remembered events since `since` (none of them without it), then those that happen.
    pub fn read(&self, since: Option<Stamp>) -> impl Stream<Item = Arc<Event>> + Send + 'static {
        let history = self.shared.history.lock().unwrap_or_else(PoisonError::into_inner);
        // Subscribed under the lock: between the history and the live events nothing is lost or doubled.
        let live = self.shared.live.subscribe();
        let past: Vec<_> = match since {
            Some(since) => history.iter().filter(|event| event.time_nano >= since.0).cloned().collect(),
            None => Vec::new(),
        };
        drop(history);
        stream::iter(past).chain(stream::unfold(live, |mut live| async move {
            loop {
                match live.recv().await {
                    Ok(event) => return Some((event, live)),
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::debug!(missed, "a reader of events is too slow");
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        }))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.collector.abort();
    }
}

impl Shared {
    fn publish(&self, event: Event) {
        let event = Arc::new(event);
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.len() == HISTORY_MAX {
            history.pop_front();
        }
        history.push_back(event.clone());
        // Nobody listening is no failure.
        let _ = self.live.send(event);
    }
}

impl Event {
    fn local(event: EngineEvent) -> Self {
        let kind = event.kind.as_str();
        Self::new(Scope::Local, kind, event.action, event.id, event.attributes, event.at)
    }
}
