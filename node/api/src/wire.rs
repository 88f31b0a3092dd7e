//! Shapes as the Engine API has them: plain fields, Go's names, Go's zero values. No rule lives here.
//!
//! What is read takes absent fields for their zero value and ignores fields that it does not know; what is written
//! leaves out what Docker leaves out, for clients look at what is there.

pub mod container;
pub mod covey;
pub mod event;
pub mod exec;
pub mod health;
pub mod image;
pub mod network;
pub mod node;
pub mod service;
pub mod swarm;
pub mod system;
pub mod task;

use std::{collections::BTreeMap, time::Duration};

use covey_state::{Version, time::Stamp};
use serde::{Deserialize, Serialize, Serializer};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Labels, and other texts by name.
pub type Texts = BTreeMap<String, String>;

/// The fields of an object that its shape does not name.
pub type Rest = serde_json::Map<String, serde_json::Value>;

/// An object that says nothing but that it is there, or one whose fields are not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A moment, written as RFC 3339 with as many decimals as it needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time(pub Stamp);

/// The moment that Go writes where there was none.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

impl Time {
    /// As text.
    pub fn text(self) -> String {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0.0))
            .ok()
            .and_then(|time| time.format(&Rfc3339).ok())
            .unwrap_or_else(|| NEVER.to_owned())
    }

    /// As text, or [`NEVER`].
    pub fn text_or_never(stamp: Option<Stamp>) -> String {
        stamp.map_or_else(|| NEVER.to_owned(), |stamp| Self(stamp).text())
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

/// A moment with all nine decimals, as log lines carry it.
pub fn log_time(stamp: Stamp) -> String {
    let format = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z"
    );
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(stamp.0))
        .ok()
        .and_then(|time| time.format(&format).ok())
        .unwrap_or_else(|| NEVER.to_owned())
}

/// A duration in nanoseconds, Go's way.
pub fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// The version of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ObjectVersion {
    /// Index of its last change.
    pub index: Version,
}

/// What every object of the cluster has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Meta {
    pub version: ObjectVersion,
    pub created_at: Time,
    pub updated_at: Time,
}

/// True for the value that Go leaves out.
pub fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        assert_eq!(Time(Stamp(0)).text(), "1970-01-01T00:00:00Z");
        assert_eq!(Time(Stamp(1_500_000_000)).text(), "1970-01-01T00:00:01.5Z");
        assert_eq!(Time(Stamp(1_000_000_001)).text(), "1970-01-01T00:00:01.000000001Z");
        assert_eq!(log_time(Stamp(1_500_000_000)), "1970-01-01T00:00:01.500000000Z");
        assert_eq!(Time::text_or_never(None), NEVER);
    }
}
