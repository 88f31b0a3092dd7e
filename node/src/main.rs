//! The covey binary: command line and daemon in one, and the shim of each container.
#![allow(clippy::disallowed_methods, reason = "door: the product itself, its clock, its dice, its tasks")]
#![allow(clippy::disallowed_types, reason = "door: what is shared between the loops of one daemon")]

mod address;
mod admission;
mod agent_loop;
mod client;
mod clock;
mod command;
mod config;
mod control;
mod daemon;
mod disk;
mod endpoint;
mod engine;
mod exchange;
mod gossip_loop;
mod identity;
mod joining;
mod logs;
mod machine;
mod manager_loop;
mod member;
mod names;
mod network;
mod origins;
mod protocol;
mod refused;
mod renewal;
mod roster;
mod run;
mod serve;
mod session;
mod sight;
mod translate;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A shim lives as long as its container: it takes its own way before anything else is set up.
    covey_runtime::reexec();
    command::main()
}
