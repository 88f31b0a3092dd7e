//! What crosses the wire: the versioned envelope around every message, and the 25-character id.
//!
//! Everything that Covey's nodes say to each other, and everything that they keep on disk in binary, passes
//! through [`encode`] and [`decode`]. Nothing else in the workspace names the encoding behind them, so that
//! changing it is a change of this crate alone.

mod envelope;
mod id;

pub use envelope::{DecodeError, EncodeError, VERSION, decode, decode_prefix, encode};
pub use id::{Id, ParseIdError};
