//! Tests of what is on disk: the library's conformance suite, crashes, damage.
#![allow(
    clippy::disallowed_types,
    reason = "door: a disk that is shared with the database that writes to it"
)]

mod conformance;
mod crash;
mod damage;
mod disk;
mod full;
