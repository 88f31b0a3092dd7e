//! Finding a container by what the user wrote: its id, its name, or the beginning of its id.

use std::{collections::BTreeMap, sync::Arc};

use crate::{container::ContainerId, runtime::Slot};

/// No container is meant, or more than one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// None has this id or name.
    #[error("No such container: {0}")]
    NotFound(String),
    /// Several ids begin so.
    #[error("multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
}

/// The containers, by id and by name. A name is taken before its container is there, while that is being made.
#[derive(Default)]
pub(crate) struct Table {
    pub slots: BTreeMap<ContainerId, Arc<Slot>>,
    pub names: BTreeMap<String, ContainerId>,
}

impl Table {
    /// The container that `text` means.
    pub(crate) fn find(&self, text: &str) -> Result<Arc<Slot>, LookupError> {
        let missing = || LookupError::NotFound(text.to_owned());
        let exact = ContainerId::parse(text).and_then(|id| self.slots.get(&id));
        let name = text.strip_prefix('/').unwrap_or(text);
        let named = || self.names.get(name).and_then(|id| self.slots.get(id));
        if let Some(slot) = exact.or_else(named) {
            return Ok(slot.clone());
        }
        let mut beginning = self.slots.values().filter(|slot| slot.record.id.as_str().starts_with(text));
        match (beginning.next(), beginning.next()) {
            _ if text.is_empty() => Err(missing()),
            (Some(slot), None) => Ok(slot.clone()),
            (Some(_), Some(_)) => Err(LookupError::Ambiguous(text.to_owned())),
            (None, _) => Err(missing()),
        }
    }
}

/// A name as Docker allows it: a letter or digit, then also `_`, `.` and `-`; at least two characters.
pub(crate) fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        for name in ["web", "a.b-c_d", "0a", "web.1.abc"] {
            assert!(is_valid(name), "{name}");
        }
        for name in ["", "a", "-a", "a/b", "ä1", "a b"] {
            assert!(!is_valid(name), "{name}");
        }
    }
}
