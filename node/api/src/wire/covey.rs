//! Shapes that Docker does not have, in the same style.

use serde::Serialize;

/// What a look at one object of a network showed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Finding {
    pub host: String,
    /// Empty: the host as a whole.
    pub network: String,
    pub object: String,
    /// `ok`, `repaired` or `wrong`.
    pub severity: &'static str,
    pub text: String,
}

/// A step on the way of a packet.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Hop {
    pub step: String,
    pub decision: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counter_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counter_after: Option<u64>,
}
