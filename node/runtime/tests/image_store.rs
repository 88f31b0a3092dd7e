//! The image store as the product uses it: real archives, a real registry, and archives that mean harm.
#![allow(clippy::disallowed_methods, reason = "door: the registries of the tests, their deadlines and tasks")]
#![allow(clippy::disallowed_types, reason = "progress is recorded from several threads")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "image_store/archives.rs"]
mod archives;
#[path = "image_store/fixture.rs"]
mod fixture;
#[path = "image_store/hostile.rs"]
mod hostile;
#[path = "image_store/layers.rs"]
mod layers;
#[path = "image_store/registry.rs"]
mod registry;
#[path = "image_store/removal.rs"]
mod removal;
#[path = "image_store/stacked.rs"]
mod stacked;
