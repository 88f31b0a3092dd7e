//! The Engine API over HTTP.
