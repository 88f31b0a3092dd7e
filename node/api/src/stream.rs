//! Replies that do not end at once: framed output, lines of JSON, and connections that change hands.

pub mod frame;
pub mod hijack;
pub mod lines;

use crate::version::{self, ApiVersion};

/// Content type of framed output.
pub fn framed_type(api: ApiVersion) -> &'static str {
    if api >= version::STREAM_TYPES {
        "application/vnd.docker.multiplexed-stream"
    } else {
        "application/vnd.docker.raw-stream"
    }
}
