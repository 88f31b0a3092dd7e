//! What a person sees while an image arrives, in Docker's words.

use std::sync::Arc;

/// One line or one step of a bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it is about: a layer's short digest or a tag; empty where it is about the whole.
    pub id: String,
    /// `Pulling fs layer`, `Downloading`, `Status: Downloaded newer image for x:latest`, …
    pub status: String,
    /// Bytes done and bytes in all, where the step is a bar; the second is 0 where nobody knows.
    pub bytes: Option<(u64, u64)>,
}

impl Progress {
    /// A line about the whole.
    pub(super) fn line(status: String) -> Self {
        Self { id: String::new(), status, bytes: None }
    }

    /// A line about a layer or tag.
    pub(super) fn of(id: &str, status: &str) -> Self {
        Self { id: id.to_owned(), status: status.to_owned(), bytes: None }
    }

    /// A bar of a layer.
    pub(super) fn bar(id: &str, status: &str, done: u64, all: u64) -> Self {
        Self { bytes: Some((done, all)), ..Self::of(id, status) }
    }
}

/// Where progress goes. Called from several threads; it must not block.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;
