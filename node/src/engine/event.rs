//! What happened to containers and to their places in networks, as the runtime tells it, and to images and networks
//! themselves, as this engine does.

use std::{collections::BTreeMap, fmt::Debug};

use covey_api::engine::{EngineEvent, EventKind};
use covey_runtime::{Action, Container, ContainerId, ContainerState, Event, NetworkMode, Runtime};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream, Stream},
};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::{clock, network::local};

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
    let events = heard(runtime.events());
    let running = runtime.list().into_iter().filter(|container| container.state == ContainerState::Running);
    let mut known: Known = running.map(|container| (container.id.clone(), places(&container))).collect();
    let runtime = runtime.clone();
    let now = move |id: &ContainerId| runtime.inspect(id.as_str()).ok().map(|container| places(&container));
    let containers = events.flat_map(move |event| stream::iter(told(&mut known, event, &now)));
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

/// A container's place in a network, as events name it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    network: String,
    name: String,
    driver: &'static str,
}

/// The places of the containers that run.
type Known = BTreeMap<ContainerId, Vec<Place>>;

fn places(container: &Container) -> Vec<Place> {
    let given = |name: &str, driver| Place { network: name.to_owned(), name: name.to_owned(), driver };
    let networks = container.wiring.networks.iter().map(|attached| {
        let (id, name) = (attached.network.id, attached.network.name.clone());
        match attached.network.is_overlay() {
            true => Place { network: id.to_string(), name, driver: "overlay" },
            false => Place { network: local::to_text(id), name, driver: "bridge" },
        }
    });
    match container.network {
        NetworkMode::Edge => {
            container.wiring.bridge.then(|| given("bridge", "bridge")).into_iter().chain(networks).collect()
        }
        NetworkMode::Host => vec![given("host", "host")],
        NetworkMode::None => vec![given("none", "null")],
        // They are the other's.
        NetworkMode::Container(_) => Vec::new(),
    }
}

/// What an event of the runtime means for the container and for its networks: it comes into them before it runs, and
/// leaves them after its end. `now` knows the places that a container has.
fn told(
    known: &mut Known,
    event: Event,
    now: impl Fn(&ContainerId) -> Option<Vec<Place>>,
) -> Vec<EngineEvent> {
    let place = |action, place: &Place| of_place(&event, action, place);
    let mut told: Vec<EngineEvent> = Vec::new();
    match event.action {
        Action::Start => {
            let places = now(&event.container).unwrap_or_default();
            told.extend(places.iter().map(|one| place("connect", one)));
            known.insert(event.container.clone(), places);
        }
        Action::Rewire => {
            // Of one that does not run nothing is in any network.
            if let (Some(before), Some(after)) = (known.get_mut(&event.container), now(&event.container)) {
                told.extend(
                    before.iter().filter(|one| !after.contains(one)).map(|one| place("disconnect", one)),
                );
                told.extend(
                    after.iter().filter(|one| !before.contains(one)).map(|one| place("connect", one)),
                );
                *before = after;
            }
        }
        _ => {}
    }
    let left = match event.action {
        Action::Die(_) => known.remove(&event.container).unwrap_or_default(),
        _ => Vec::new(),
    };
    let left: Vec<EngineEvent> = left.iter().map(|one| place("disconnect", one)).collect();
    told.extend(of_container(event));
    told.extend(left);
    told
}

fn of_place(event: &Event, action: &str, place: &Place) -> EngineEvent {
    let attributes = [("container", event.container.as_str()), ("name", &place.name), ("type", place.driver)];
    EngineEvent {
        at: event.at,
        kind: EventKind::Network,
        action: action.to_owned(),
        id: place.network.clone(),
        attributes: attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    }
}

fn of_container(event: Event) -> Option<EngineEvent> {
    let mut attributes = event.labels;
    attributes.insert("image".to_owned(), event.image);
    attributes.insert("name".to_owned(), event.name);
    let health;
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
        Action::Health(status) => {
            health = format!("health_status: {}", status.as_str());
            &health
        }
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

#[cfg(test)]
mod tests {
    use covey_state::{container::HealthStatus, time::Stamp};

    use super::*;

    fn place(name: &str) -> Place {
        Place { network: format!("{name}-id"), name: name.to_owned(), driver: "bridge" }
    }

    /// NET-20, TSK-14
    #[test]
    fn containers_come_into_their_networks_and_leave_them() {
        let container: ContainerId = serde_json::from_str("\"c1\"").unwrap();
        let mut known = Known::new();
        let mut actions = |action, places: &[&str]| {
            let event = Event {
                at: Stamp(1),
                container: container.clone(),
                action,
                name: "web".to_owned(),
                image: "alpine".to_owned(),
                labels: BTreeMap::new(),
            };
            // Of a container that has removed itself nobody knows anything.
            let now = |_: &ContainerId| {
                (!places.is_empty()).then(|| places.iter().map(|name| place(name)).collect())
            };
            let shown = |event: EngineEvent| match event.kind {
                EventKind::Network => format!("{} {}", event.action, event.attributes["name"]),
                _ => event.action,
            };
            told(&mut known, event, now).into_iter().map(shown).collect::<Vec<_>>()
        };
        assert_eq!(actions(Action::Create, &["a"]), ["create"]);
        assert!(actions(Action::Rewire, &["a", "b"]).is_empty(), "it does not run");
        assert_eq!(actions(Action::Start, &["a", "b"]), ["connect a", "connect b", "start"]);
        assert_eq!(actions(Action::Rewire, &["b", "c"]), ["disconnect a", "connect c"]);
        assert_eq!(actions(Action::Health(HealthStatus::Healthy), &["b", "c"]), ["health_status: healthy"]);
        assert_eq!(actions(Action::Die(0), &[]), ["die", "disconnect b", "disconnect c"]);
        assert_eq!(actions(Action::Destroy, &[]), ["destroy"]);
    }
}
