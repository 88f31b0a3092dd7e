//! The two sockets of a container's resolver, made in its network namespace.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{SockType, getsockopt, sockopt},
};

use crate::redirect::{self, Ports, RedirectError};

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
    pub(crate) place: Place,
}

/// Where they are, and what is to lead to them.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub namespace: PathBuf,
    ports: Ports,
}

impl Sockets {
    /// Makes both in that network namespace (its loopback must be up). Nothing leads there yet. Blocks for some system
    /// calls.
    ///
    /// # Errors
    /// Nothing was changed.
    pub fn open(namespace: &Path) -> Result<Self, SocketsError> {
        let (udp, tcp) = inside(namespace, || {
            Ok::<_, io::Error>((UdpSocket::bind((ADDRESS, 0))?, TcpListener::bind((ADDRESS, 0))?))
        })?;
        Self::checked(udp, tcp, namespace)
    }

    /// The same after the daemon's restart, of descriptors that were kept open elsewhere.
    ///
    /// # Errors
    /// They are not bound as [`Sockets::open`] did, and are closed.
    pub fn from_fds(udp: OwnedFd, tcp: OwnedFd, namespace: &Path) -> Result<Self, SocketsError> {
        Self::checked(udp.into(), tcp.into(), namespace)
    }

    /// Duplicates to be kept open elsewhere: first UDP, then TCP. Both are closed on `exec` unless told otherwise.
    ///
    /// # Errors
    /// Too many descriptors are open.
    pub fn duplicate(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        Ok((self.udp.try_clone()?.into(), self.tcp.try_clone()?.into()))
    }

    fn checked(udp: UdpSocket, tcp: TcpListener, namespace: &Path) -> Result<Self, SocketsError> {
        let kinds = [SockType::Datagram, SockType::Stream];
        let found = [getsockopt(&udp, sockopt::SockType), getsockopt(&tcp, sockopt::SockType)];
        let listens = getsockopt(&tcp, sockopt::AcceptConn).map_err(io::Error::from)?;
        let bound = [udp.local_addr()?, tcp.local_addr()?];
        if found != kinds.map(Ok) || !listens || bound.iter().any(|address| address.ip() != ADDRESS) {
            return Err(SocketsError::Foreign);
        }
        // Of the open socket, not of the descriptor: duplicates see it too.
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let ports = Ports { udp: bound[0].port(), tcp: bound[1].port() };
        Ok(Self { udp, tcp, place: Place { namespace: namespace.to_owned(), ports } })
    }
}

impl Place {
    /// Whether port 53 leads there.
    pub fn is_led_here(&self) -> Result<bool, SocketsError> {
        Ok(inside(&self.namespace, || redirect::is_there(self.ports))?)
    }

    /// Leads port 53 there, where nothing does or something else. True if the rule had to be made.
    pub fn lead_here(&self) -> Result<bool, SocketsError> {
        Ok(inside(&self.namespace, || redirect::mend(self.ports))?)
    }
}

/// Runs `work` inside a network namespace, on a thread that is never used for anything else.
pub(crate) fn inside<T: Send, E: From<io::Error> + Send>(
    namespace: &Path,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
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
