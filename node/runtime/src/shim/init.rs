//! What the container's first process does, from its birth in new namespaces to the program of the image.

use std::{
    convert::Infallible,
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::{Failure, finish::Finish, mounts, supervise::Stdio};
use crate::{cgroup::Cgroup, sys};

/// Becomes the container's program; returns only with the reason why not.
pub(super) fn run(
    spec: &Spec,
    finish: &Finish,
    group: &Cgroup,
    stdio: &Stdio,
    own_network: bool,
) -> Result<Infallible, Failure> {
    let linux = spec.linux().as_ref().ok_or_else(|| Failure::build("the spec is not for Linux"))?;
    // SAFETY: takes no memory; a new process does not lead a session, so this cannot fail.
    unsafe { libc::setsid() };
    connect(stdio).map_err(Failure::at("standard streams"))?;
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let has = |kind| namespaces.iter().any(|n| n.typ() == kind);
    if has(LinuxNamespaceType::Cgroup) {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP)
            .map_err(Failure::at("cgroup namespace"))?;
    }
    mounts::root(spec)?;
    mounts::all(spec, group)?;
    if let Some(name) = spec.hostname().as_deref().filter(|_| has(LinuxNamespaceType::Uts)) {
        nix::unistd::sethostname(name).map_err(Failure::at("host name"))?;
    }
    if own_network {
        loopback_up().map_err(Failure::at("loopback"))?;
    }
    for (name, value) in linux.sysctl().iter().flatten() {
        let file = Path::new("/proc/sys").join(name.replace('.', "/"));
        sys::write_kernel_file(&file, value).map_err(Failure::at(format_args!("sysctl {name}")))?;
    }
    mounts::protect(linux)?;
    if spec.root().as_ref().and_then(|root| root.readonly()) == Some(true) {
        let root = File::open("/").map_err(Failure::at("/"))?;
        sys::mount_set(std::os::fd::AsFd::as_fd(&root), sys::MOUNT_ATTR_RDONLY, false)
            .map_err(Failure::at("read-only root"))?;
    }
    finish.exec(true)
}

fn connect(stdio: &Stdio) -> io::Result<()> {
    let place = |fd: &OwnedFd, number| {
        // SAFETY: replaces our own standard streams.
        sys::check(unsafe { libc::dup2(fd.as_raw_fd(), number) })
    };
    place(&stdio.stdin, 0)?;
    place(&stdio.stdout, 1)?;
    place(&stdio.stderr, 2)?;
    Ok(())
}

/// A new network namespace has a loopback interface that is down.
fn loopback_up() -> io::Result<()> {
    // SAFETY: the request lives across both calls, which read and write its name and flags only.
    unsafe {
        let socket = sys::check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        let socket = <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(socket);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        sys::check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request))?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        sys::check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request))?;
    }
    Ok(())
}
