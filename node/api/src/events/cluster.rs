//! Swarm events: what the store's changes look like to those who watch.

use std::collections::{BTreeMap, BTreeSet};

use covey_state::{
    Id, Store,
    event::{Change, Event as StoreEvent},
    node::Node,
    service::{Mode, Service},
};

use crate::{
    control::StoreChange,
    convert::{network::OVERLAY, service::update_state},
    wire::{
        Texts,
        event::{Event, Scope},
    },
};

/// The events of one log entry. Tasks have none, as in Docker.
pub fn events_of(change: &StoreChange) -> Vec<Event> {
    let touched: BTreeSet<_> = change.events.iter().copied().collect();
    touched.into_iter().filter_map(|event| event_of(event, change)).collect()
}

fn event_of(event: StoreEvent, change: &StoreChange) -> Option<Event> {
    let (kind, id, what, attributes) = match event {
        StoreEvent::Service(id, what) => ("service", id, what, service_attributes(id, change)?),
        StoreEvent::Node(id, what) => ("node", id, what, node_attributes(id, change)?),
        StoreEvent::Network(id, what) => ("network", id, what, network_attributes(id, change)?),
        StoreEvent::Cluster(_) | StoreEvent::Attachment(..) | StoreEvent::Task { .. } => return None,
    };
    let action = match what {
        Change::Created => "create",
        Change::Updated => "update",
        Change::Removed => "remove",
    };
    Some(Event::new(Scope::Swarm, kind, action.to_owned(), id.to_string(), attributes, change.at))
}

fn service_attributes(id: Id, change: &StoreChange) -> Option<Texts> {
    let service = |store: &Store| store.service(id).cloned();
    let (before, after) = (service(&change.before), service(&change.after));
    let last = after.as_ref().or(before.as_ref())?;
    let mut attributes = BTreeMap::from([("name".to_owned(), last.spec.name.clone())]);
    if let (Some(before), Some(after)) = (&before, &after) {
        note(&mut attributes, "replicas", replicas(before), replicas(after));
        let image = |service: &Service| service.spec.task.container.image.clone();
        note(&mut attributes, "image", image(before), image(after));
        note(&mut attributes, "updatestate", state_of(before), state_of(after));
    }
    Some(attributes)
}

fn node_attributes(id: Id, change: &StoreChange) -> Option<Texts> {
    let node = |store: &Store| store.node(id).cloned();
    let (before, after) = (node(&change.before), node(&change.after));
    let last = after.as_ref().or(before.as_ref())?;
    let mut attributes = BTreeMap::from([("name".to_owned(), name_of(last).to_owned())]);
    if let (Some(before), Some(after)) = (&before, &after) {
        let availability = |node: &Node| node.spec.availability.as_str().to_owned();
        note(&mut attributes, "availability", availability(before), availability(after));
        let role = |node: &Node| node.spec.role.as_str().to_owned();
        note(&mut attributes, "role", role(before), role(after));
        let state = |node: &Node| if node.left { "down" } else { "ready" }.to_owned();
        note(&mut attributes, "state", state(before), state(after));
    }
    Some(attributes)
}

fn network_attributes(id: Id, change: &StoreChange) -> Option<Texts> {
    let network = change.after.network(id).or_else(|| change.before.network(id))?;
    let texts = [("name", network.spec.name.as_str()), ("type", OVERLAY)];
    Some(texts.map(|(key, value)| (key.to_owned(), value.to_owned())).into())
}

/// `key.old` and `key.new`, where they differ.
fn note(attributes: &mut Texts, key: &str, before: String, after: String) {
    if before == after {
        return;
    }
    for (suffix, value) in [("old", before), ("new", after)] {
        if !value.is_empty() {
            attributes.insert(format!("{key}.{suffix}"), value);
        }
    }
}

fn name_of(node: &Node) -> &str {
    if node.spec.name.is_empty() { &node.description.hostname } else { &node.spec.name }
}

fn replicas(service: &Service) -> String {
    let Mode::Replicated { replicas } = service.spec.mode;
    replicas.to_string()
}

fn state_of(service: &Service) -> String {
    service.update_status.as_ref().map_or("", |status| update_state(status.state)).to_owned()
}
