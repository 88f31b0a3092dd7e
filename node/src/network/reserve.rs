//! Published ports of this host: each is held by a socket that nobody talks to, so that no other process takes it, and
//! so that it is noticed when one has it already.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use covey_mesh::{Frontend, Protocol};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

use crate::refused::Cause;

/// Bytes that wait in the socket of a UDP port without a backend: the kernel makes the least of it that it can.
const RECEIVE_BUFFER: usize = 1;

/// A port that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// Somebody has it.
    #[error("port {port}/{protocol} of this host is in use by another process or container")]
    Taken {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: &'static str,
    },
    /// It is to answer at an address that this host does not have.
    #[error("this host has no address {0}")]
    NoAddress(IpAddr),
    /// The kernel refused.
    #[error("port {port}/{protocol} cannot be held")]
    Io {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl From<&ReserveError> for Cause {
    fn from(error: &ReserveError) -> Self {
        match error {
            ReserveError::Taken { .. } => Self::Process,
            ReserveError::NoAddress(_) => Self::kernel(error),
            ReserveError::Io { source, .. } => Self::kernel(source),
        }
    }
}

/// Why a published port does not answer on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In short, for managers.
    pub cause: Cause,
    /// For this host's log.
    pub why: String,
}

/// The ports that are held.
#[derive(Debug, Default)]
pub struct Reservations(BTreeMap<Frontend, Option<OwnedFd>>);

impl Reservations {
    /// Holds a port, if it is not held yet. A frontend that is no port needs nothing.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn hold(&mut self, frontend: Frontend) -> Result<(), ReserveError> {
        let Frontend::Port { address, protocol, port } = frontend else { return Ok(()) };
        if self.0.contains_key(&frontend) {
            return Ok(());
        }
        let name = protocol.as_str();
        let socket = match bound(address, protocol, port) {
            Ok(socket) => Some(socket),
            // A kernel without this protocol or this family has nobody who could take it.
            Err(nix::Error::EPROTONOSUPPORT | nix::Error::EAFNOSUPPORT) => None,
            Err(nix::Error::EADDRINUSE) => return Err(ReserveError::Taken { port, protocol: name }),
            Err(nix::Error::EADDRNOTAVAIL) => return Err(ReserveError::NoAddress(address)),
            Err(error) => return Err(ReserveError::Io { port, protocol: name, source: error.into() }),
        };
        self.0.insert(frontend, socket);
        Ok(())
    }

    /// It is held.
    pub fn holds(&self, frontend: &Frontend) -> bool {
        self.0.contains_key(frontend)
    }

    /// Lets a port go.
    pub fn release(&mut self, frontend: &Frontend) {
        self.0.remove(frontend);
    }
}

fn bound(address: IpAddr, protocol: Protocol, port: u16) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SockType::Stream, SockProtocol::Tcp),
        Protocol::Udp => (SockType::Datagram, SockProtocol::Udp),
        Protocol::Sctp => (SockType::Stream, SockProtocol::Sctp),
    };
    let held = socket(family, kind, SockFlag::SOCK_CLOEXEC, number)?;
    if address.is_ipv6() {
        setsockopt(&held, sockopt::Ipv6V6Only, &true)?;
    }
    // Connections of the one before, which wait for their end, do not keep a port from its next owner; a socket that
    // listens does. UDP has nothing of the kind.
    let reuse = protocol != Protocol::Udp;
    setsockopt(&held, sockopt::ReuseAddr, &reuse)?;
    bind(held.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, port)))?;
    if reuse {
        // From now on nobody shares it.
        setsockopt(&held, sockopt::ReuseAddr, &false)?;
    } else {
        setsockopt(&held, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, UdpSocket};

    use super::*;

    fn frontend(protocol: Protocol, port: u16) -> Frontend {
        Frontend::Port { address: Ipv4Addr::LOCALHOST.into(), protocol, port }
    }

    /// PRT-11
    #[test]
    fn a_port_that_another_process_holds_is_told() {
        let mut reservations = Reservations::default();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let error = reservations.hold(frontend(Protocol::Tcp, port)).unwrap_err();
        let told = format!("port {port}/tcp of this host is in use by another process or container");
        assert_eq!(error.to_string(), told);
        drop(tcp);
        reservations.hold(frontend(Protocol::Tcp, port)).unwrap();

        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        let taken = reservations.hold(frontend(Protocol::Udp, port));
        assert!(matches!(taken, Err(ReserveError::Taken { protocol: "udp", .. })));
    }

    /// PRT-11
    #[test]
    fn a_port_that_is_held_is_nobody_elses_until_it_is_released() {
        let mut reservations = Reservations::default();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Somebody may be faster with the same port.
        let held = std::iter::repeat_with(|| frontend(Protocol::Tcp, free()))
            .take(100)
            .find(|frontend| reservations.hold(*frontend).is_ok())
            .unwrap();
        let Frontend::Port { port, .. } = held else { unreachable!() };
        assert!(reservations.holds(&held));
        let taken = TcpListener::bind(("127.0.0.1", port)).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        reservations.release(&held);
        assert!(!reservations.holds(&held));
        TcpListener::bind(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn an_address_of_another_host_is_told() {
        let nowhere = Frontend::Port { address: [192, 0, 2, 1].into(), protocol: Protocol::Tcp, port: 80 };
        let error = Reservations::default().hold(nowhere).unwrap_err();
        assert!(matches!(error, ReserveError::NoAddress(_)), "{error}");
    }
}
