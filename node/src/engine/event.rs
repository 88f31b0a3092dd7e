//! What happened to containers, as the runtime tells it, and to images and networks, as this engine does itself.

use std::{collections::BTreeMap, fmt::Debug};

use covey_api::engine::{EngineEvent, EventKind};
use covey_runtime::{Action, Event, Runtime};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream, Stream},
};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::clock;

/// Events of images and networks that a slow listener may be behind before it loses the oldest.
const BACKLOG: usize = 256;

/// Where the events of images and networks are told.
#[derive(Clone)]
pub struct OwnEvents(broadcast::Sender<EngineEvent>);

impl Default for OwnEvents {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl OwnEvents {
    /// Tells that `action` happened to the image or the network `id`, called `name`.
    pub fn tell(
        &self,
        kind: EventKind,
        action: &str,
        id: String,
        name: String,
        more: BTreeMap<String, String>,
    ) {
        let mut attributes = more;
        attributes.insert("name".to_owned(), name);
        let event = EngineEvent { at: clock::now(), kind, action: action.to_owned(), id, attributes };
        // Nobody listening is no error.
        let _ = self.0.send(event);
    }
}

/// Everything from now on, also before the stream is first polled.
pub fn all(runtime: &Runtime, own: &OwnEvents) -> BoxStream<'static, EngineEvent> {
    let containers = heard(runtime.events()).filter_map(async |event| of_container(event));
    stream::select(containers, heard(own.0.subscribe())).boxed()
}

fn heard<T: Clone + Debug + Send + 'static>(events: broadcast::Receiver<T>) -> impl Stream<Item = T> + Send {
    stream::unfold(events, |mut events| async {
        loop {
            match events.recv().await {
                Ok(event) => return Some((event, events)),
                Err(RecvError::Lagged(lost)) => tracing::warn!(lost, "a listener is too slow for the events"),
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

fn of_container(event: Event) -> Option<EngineEvent> {
    let mut attributes = event.labels;
    attributes.insert("image".to_owned(), event.image);
    attributes.insert("name".to_owned(), event.name);
    let action = match event.action {
        Action::Create => "create",
        Action::Start => "start",
        Action::Die(code) => {
            attributes.insert("exitCode".to_owned(), code.to_string());
            "die"
        }
        Action::Oom => "oom",
        Action::Kill(signal) => {
            attributes.insert("signal".to_owned(), signal.to_string());
            "kill"
        }
        Action::Stop => "stop",
        Action::Destroy => "destroy",
        // That is told of the networks.
        Action::Rewire => return None,
    };
    Some(EngineEvent {
        at: event.at,
        kind: EventKind::Container,
        action: action.to_owned(),
        id: event.container.to_string(),
        attributes,
    })
}
