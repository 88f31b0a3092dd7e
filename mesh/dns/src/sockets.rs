//! The two sockets of a container's resolver, made in its network namespace.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    path::Path,
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{SockType, getsockopt, sockopt},
};

use crate::redirect::{self, RedirectError};

/// Where containers look for their resolver.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The sockets of a container could not be made, or are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    /// A system call failed.
    #[error("sockets of a container's resolver")]
    System(#[from] io::Error),
    /// Nothing leads to them.
    #[error("rule that leads to a container's resolver")]
    Redirect(#[from] RedirectError),
    /// Descriptors were given back in which this program does not see its own.
    #[error("not the sockets of a container's resolver")]
    Foreign,
}

/// A UDP socket and a TCP listener at 127.0.0.11, on ports that the kernel chose. As long as they or their duplicates
/// are open, the network namespace is there, and what is asked waits in them (to the limits of their buffers).
#[derive(Debug)]
pub struct Sockets {
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
}

impl Sockets {
    /// Makes both in that network namespace (its loopback must be up), and leads port 53 there. Blocks for some
    /// system calls.
    ///
    /// # Errors
    /// Nothing was changed.
    pub fn open(namespace: &Path) -> Result<Self, SocketsError> {
        inside(namespace, || {
            let sockets = Self { udp: UdpSocket::bind((ADDRESS, 0))?, tcp: TcpListener::bind((ADDRESS, 0))? };
            sockets.lead_here()?;
            sockets.checked()
        })
    }

    /// The same after the daemon's restart, of descriptors that were kept open elsewhere; the rule is still there.
    ///
    /// # Errors
    /// They are not bound as [`Sockets::open`] did, and are closed.
    pub fn from_fds(udp: OwnedFd, tcp: OwnedFd) -> Result<Self, SocketsError> {
        Self { udp: udp.into(), tcp: tcp.into() }.checked()
    }

    /// Duplicates to be kept open elsewhere: first UDP, then TCP. Both are closed on `exec` unless told otherwise.
    ///
    /// # Errors
    /// Too many descriptors are open.
    pub fn duplicate(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        Ok((self.udp.try_clone()?.into(), self.tcp.try_clone()?.into()))
    }

    /// Makes the rule anew, for a container that may change its own rules and has. Blocks for some system calls.
    ///
    /// # Errors
    /// What rules there were are as they were.
    pub fn repair(&self, namespace: &Path) -> Result<(), SocketsError> {
        inside(namespace, || self.lead_here())
    }

    fn lead_here(&self) -> Result<(), SocketsError> {
        Ok(redirect::program(self.udp.local_addr()?.port(), self.tcp.local_addr()?.port())?)
    }

    fn checked(self) -> Result<Self, SocketsError> {
        let kinds = [SockType::Datagram, SockType::Stream];
        let found = [getsockopt(&self.udp, sockopt::SockType), getsockopt(&self.tcp, sockopt::SockType)];
        let listens = getsockopt(&self.tcp, sockopt::AcceptConn).map_err(io::Error::from)?;
        let bound = [self.udp.local_addr()?, self.tcp.local_addr()?];
        if found != kinds.map(Ok) || !listens || bound.iter().any(|address| address.ip() != ADDRESS) {
            return Err(SocketsError::Foreign);
        }
        // Of the open socket, not of the descriptor: duplicates see it too.
        self.udp.set_nonblocking(true)?;
        self.tcp.set_nonblocking(true)?;
        Ok(self)
    }
}

/// Runs `work` inside a network namespace, on a thread that is never used for anything else.
fn inside<T: Send>(
    namespace: &Path,
    work: impl FnOnce() -> Result<T, SocketsError> + Send,
) -> Result<T, SocketsError> {
    let enter = || {
        setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
        work()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("dns".into()).spawn_scoped(scope, enter)?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("thread in a network namespace panicked").into()))
    })
}
