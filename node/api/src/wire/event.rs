//! An event.

use covey_state::time::Stamp;
use serde::Serialize;

use super::Texts;

/// Who sees it: this node, or the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    Local,
    Swarm,
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Swarm => "swarm",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// The first form of `Action`, for containers and images only.
    #[serde(skip_serializing_if = "String::is_empty")]
    status: String,
    /// The first form of `Actor.ID`.
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
    /// The image of a container.
    #[serde(skip_serializing_if = "String::is_empty")]
    from: String,
    #[serde(rename = "Type")]
    pub kind: &'static str,
    #[serde(rename = "Action")]
    pub action: String,
    #[serde(rename = "Actor")]
    pub actor: Actor,
    pub scope: Scope,
    time: i64,
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Actor {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Attributes")]
    pub attributes: Texts,
}

impl Event {
    pub fn new(
        scope: Scope,
        kind: &'static str,
        action: String,
        id: String,
        attributes: Texts,
        at: Stamp,
    ) -> Self {
        let old_form = matches!(kind, "container" | "image");
        Self {
            status: if old_form { action.clone() } else { String::new() },
            id: if old_form { id.clone() } else { String::new() },
            from: attributes.get("image").filter(|_| old_form).cloned().unwrap_or_default(),
            kind,
            action,
            actor: Actor { id, attributes },
            scope,
            time: at.0.div_euclid(1_000_000_000),
            time_nano: at.0,
        }
    }
}
