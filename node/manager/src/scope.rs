//! What a plan looks at: all, or what events have touched.

use std::collections::BTreeSet;

use covey_state::{
    Id, Store,
    event::{Change, Event},
};

/// What a plan looks at. A larger one costs more and is never wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything: at the beginning of leadership, and on a slow timer.
    All,
    /// Only what was touched.
    Touched(Touched),
}

/// What was touched. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// These services.
    pub services: BTreeSet<Id>,
    /// The services with tasks on these nodes.
    pub nodes: BTreeSet<Id>,
    /// The services of these tasks.
    pub tasks: BTreeSet<Id>,
    /// Addresses are free again: nothing by itself, but those who wait are planned whenever anything is.
    pub addresses: bool,
}

impl Default for Scope {
    fn default() -> Self {
        Self::Touched(Touched::default())
    }
}

impl Scope {
    /// What these events of the store touch.
    pub fn from_events(events: &[Event]) -> Self {
        let mut scope = Self::default();
        for event in events {
            match *event {
                // A new history limit or grace concerns every task there is.
                Event::Cluster(_) => scope = Self::All,
                Event::Node(id, _) => scope.add_node(id),
                Event::Service(id, _) => scope.add_service(id),
                Event::Attachment(_, Change::Removed) => scope.add_addresses(),
                // Whoever uses a network says so himself.
                Event::Network(..) | Event::Attachment(..) => {}
                // Named by its service: a removed task can no longer be looked up.
                Event::Task { service, .. } => scope.add_service(service),
            }
        }
        scope
    }

    /// A service changed.
    pub fn add_service(&mut self, id: Id) {
        if let Self::Touched(touched) = self {
            touched.services.insert(id);
        }
    }

    /// A node changed, or was seen differently.
    pub fn add_node(&mut self, id: Id) {
        if let Self::Touched(touched) = self {
            touched.nodes.insert(id);
        }
    }

    /// A task was seen differently.
    pub fn add_task(&mut self, id: Id) {
        if let Self::Touched(touched) = self {
            touched.tasks.insert(id);
        }
    }

    /// Addresses are free again.
    fn add_addresses(&mut self) {
        if let Self::Touched(touched) = self {
            touched.addresses = true;
        }
    }

    /// Looks at what `other` looks at, too.
    pub fn merge(&mut self, other: Self) {
        match (self, other) {
            (Self::All, _) => {}
            (all, Self::All) => *all = Self::All,
            (Self::Touched(to), Self::Touched(from)) => {
                to.services.extend(from.services);
                to.nodes.extend(from.nodes);
                to.tasks.extend(from.tasks);
                to.addresses |= from.addresses;
            }
        }
    }

    /// True if there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The services to plan, removed ones with tasks left too.
    pub(crate) fn services(&self, store: &Store) -> BTreeSet<Id> {
        match self {
            Self::All => store
                .services()
                .map(|service| service.id)
                .chain(store.tasks().map(|task| task.service))
                .collect(),
            Self::Touched(touched) => {
                let of_tasks = touched.tasks.iter().filter_map(|id| store.task(*id));
                let on_nodes = touched.nodes.iter().flat_map(|id| store.tasks_on_node(*id));
                let derived = of_tasks.chain(on_nodes).map(|task| task.service);
                touched.services.iter().copied().chain(derived).collect()
            }
        }
    }
}
