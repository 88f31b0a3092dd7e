//! The helper: reads the spec, makes the cgroup, and forks the container's init as a child of the shim.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::{Failure, finish::Finish, init, supervise::Stdio};
use crate::{cgroup::Cgroup, layout, seccomp, sys};

/// Builds the container whose spec is in `exec` and returns the pid of its init.
pub(super) fn container(
    exec: &Path,
    cgroup: &Path,
    stdio: &Stdio,
    ready: BorrowedFd<'_>,
) -> Result<i32, Failure> {
    let spec = read_spec(exec)?;
    let finish = Finish::of_spec(&spec)?;
    let group = Cgroup::at(cgroup).map_err(Failure::at("cgroup"))?;
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default();
    group.create(&resources).map_err(Failure::at("cgroup"))?;
    let mut flags = (libc::CLONE_PARENT | libc::CLONE_NEWPID) as u64;
    for namespace in spec.linux().as_ref().and_then(|l| l.namespaces().as_deref()).unwrap_or_default() {
        match (namespace.typ(), namespace.path()) {
            (LinuxNamespaceType::Network, Some(path)) => join_network(path)?,
            (kind, None) => flags |= flag(kind)?,
            (kind, Some(_)) => {
                return Err(Failure::build(format_args!(
                    "joining a namespace of type {kind} is not supported"
                )));
            }
        }
    }
    finish.set_oom_score();
    let descriptor = group.descriptor().map_err(Failure::at("cgroup"))?;
    if descriptor.is_none() {
        // Late, so that little of what the helper did is counted there. Its child is born in the group.
        group.join().map_err(Failure::at("join the cgroup"))?;
    }
    sys::hide();
    // SAFETY: the helper is a fork of the shim and has one thread.
    let pid = unsafe { sys::clone3(flags, 0, descriptor.as_ref().map(AsFd::as_fd)) }
        .map_err(Failure::at("clone"))?;
    if pid == 0 {
        let Err(failure) = init::run(&spec, &finish, &group, stdio, flags & libc::CLONE_NEWNET as u64 != 0);
        // If nobody listens any more there is nobody to tell.
        let _ = failure.report(ready);
        sys::exit(failure.code);
    }
    Ok(pid)
}

/// The spec in a container's exec directory.
pub(super) fn read_spec(exec: &Path) -> Result<Spec, Failure> {
    let text = std::fs::read(exec.join(layout::SPEC)).map_err(Failure::at(layout::SPEC))?;
    serde_json::from_slice(&text).map_err(Failure::at(layout::SPEC))
}

/// The filter that the spec asks for.
pub(super) fn filter(spec: &Spec) -> Result<Option<seccomp::Program>, Failure> {
    let wanted = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    wanted.map(seccomp::compile).transpose().map_err(Failure::build)
}

fn flag(kind: LinuxNamespaceType) -> Result<u64, Failure> {
    Ok(match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS as u64,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS as u64,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC as u64,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID as u64,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET as u64,
        // Unshared by init, which is in its cgroup by then: the new namespace's root is the cgroup of its maker.
        LinuxNamespaceType::Cgroup => 0,
        other => return Err(Failure::build(format_args!("a namespace of type {other} is not supported"))),
    })
}

fn join_network(path: &Path) -> Result<(), Failure> {
    let what = format!("network namespace {}", path.display());
    let namespace = File::open(path).map_err(Failure::at(&what))?;
    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).map_err(Failure::at(&what))
}
