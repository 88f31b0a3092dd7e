//! The store through its public face: the rules of each noun, and what holds after any sequence of commands.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod address;
mod apply;
mod exposure;
mod lookup;
mod network;
mod node;
mod random;
mod scene;
mod service;
mod task;
