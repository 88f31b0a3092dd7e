//! Finding by what users type: the full id, else the name, else the beginning of an id that fits only one.

use std::{ops::RangeInclusive, sync::Arc};

use rpds::RedBlackTreeMapSync;

use crate::{Id, Store, network::Network, node::Node, service::Service, task::Task};

/// Characters of an id.
const ID_LENGTH: usize = 25;

/// What the user typed names no object, or several.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// None.
    #[error("{kind} {text} not found")]
    NotFound {
        /// `service`, `node`, `network`, `task`.
        kind: &'static str,
        /// What the user typed.
        text: String,
    },
    /// Several.
    #[error("{kind} {text} is ambiguous ({matches} matches found)")]
    Ambiguous {
        /// `service`, `node`, `network`, `task`.
        kind: &'static str,
        /// What the user typed.
        text: String,
        /// How many.
        matches: usize,
    },
}

impl Store {
    /// The service that a user means: by id, name or beginning of its id.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find_service(&self, text: &str) -> Result<&Arc<Service>, LookupError> {
        let named = self.service_by_name(text).into_iter().collect();
        find("service", text, &self.services, named)
    }

    /// The node that a user means: by id, host name or beginning of its id. Host names need not be unique.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find_node(&self, text: &str) -> Result<&Arc<Node>, LookupError> {
        let named = self.nodes().filter(|node| node.description.hostname == text).collect();
        find("node", text, &self.nodes, named)
    }

    /// The network that a user means: by id, name or beginning of its id.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find_network(&self, text: &str) -> Result<&Arc<Network>, LookupError> {
        let named = self.network_by_name(text).into_iter().collect();
        find("network", text, &self.networks, named)
    }

    /// The task that a user means: by id, by `service.slot.id` or beginning of its id.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find_task(&self, text: &str) -> Result<&Arc<Task>, LookupError> {
        let named = (text.rsplit('.').next())
            .and_then(|id| self.task(id.parse().ok()?))
            .filter(|task| task.container_name() == text);
        find("task", text, &self.tasks, named.into_iter().collect())
    }
}

/// `named` are the objects whose name is exactly `text`.
fn find<'a, T>(
    kind: &'static str,
    text: &str,
    objects: &'a RedBlackTreeMapSync<Id, Arc<T>>,
    named: Vec<&'a Arc<T>>,
) -> Result<&'a Arc<T>, LookupError> {
    if let Some(found) = text.parse().ok().and_then(|id| objects.get(&id)) {
        return Ok(found);
    }
    let found = match beginning(text) {
        Some(ids) if named.is_empty() => objects.range(ids).map(|(_, object)| object).collect(),
        _ => named,
    };
    match found.as_slice() {
        [] => Err(LookupError::NotFound { kind, text: text.to_owned() }),
        [one] => Ok(one),
        several => Err(LookupError::Ambiguous { kind, text: text.to_owned(), matches: several.len() }),
    }
}

/// The ids that begin with `text`: ids sort as their texts do. `None` where no id can begin so.
fn beginning(text: &str) -> Option<RangeInclusive<Id>> {
    if text.is_empty() || text.len() > ID_LENGTH {
        return None;
    }
    let first = format!("{text:0<ID_LENGTH$}").parse().ok()?;
    let last = format!("{text:z<ID_LENGTH$}").parse().unwrap_or(Id::new(u128::MAX));
    Some(first..=last)
}
