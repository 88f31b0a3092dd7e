//! Containers and images: the embedded container runtime.
//!
//! A container is a directory under the data root, a shim process, and a process tree. The daemon writes an OCI
//! `Spec`, starts its own binary again as the shim, and from then on only reads files and watches a pidfd, so it can
//! die and come back. [`shim`] is the process side, [`Runtime`] the daemon side.
#![allow(clippy::disallowed_methods, reason = "door: containers, their files, processes, cgroups and mounts")]
#![allow(clippy::disallowed_types, reason = "door: the table of containers is shared between callers")]

mod attach;
mod cgroup;
mod container;
mod create;
mod etc;
mod event;
mod exec;
mod executor;
mod health;
pub mod image;
mod layout;
mod log;
mod name;
mod network;
mod rewire;
mod runtime;
mod seccomp;
mod shim;
mod signal;
mod spec;
mod start;
mod stats;
mod sys;

pub use attach::{Attached, Output, OutputStream, StdinWriter};
pub use container::{
    Container, ContainerId, ContainerState, ExitStatus, ImageName, Invocation, NetworkMode, TaskRef,
};
pub use create::{CreateContainer, CreateError};
pub use event::{Action, Event};
pub use exec::{Exec, ExecError, ExecSpec};
pub use executor::TaskExecutor;
pub use log::{LogLine, LogQuery, LogStream};
pub use name::LookupError;
pub use network::{Attachment, BoxFuture, KEPT_MAX, Network};
pub use rewire::RewireError;
pub use runtime::{Config, OpenError, OperationError, Runtime};
pub use shim::reexec;
pub use start::StartError;
pub use stats::Stats;
