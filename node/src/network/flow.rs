//! One connection out of a container's namespace, to see which way it goes.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use covey_mesh::Protocol;
use covey_overlay_netlink::namespace;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, Shutdown, SockFlag, SockProtocol, SockType, SockaddrStorage, connect,
        getsockname, getsockopt, send, setsockopt, shutdown, socket, sockopt,
    },
};

/// How long an answer may take.
pub const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How long what was sent last may take to arrive, and an error to come back.
const PASSES_WITHIN: Duration = Duration::from_millis(200);
/// A class of service for what need not hurry (LE, RFC 8622), as the header has it.
const CLASS: i32 = 1 << 2;

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// The other end took the connection, or answered.
    Answered,
    /// It was sent, and nothing came back: as it is to be with UDP.
    Sent,
    /// Somebody refused it.
    Refused,
    /// Nothing came back.
    Silent,
    /// The kernel, of this host or of one on the way, has no way there.
    NoWay(io::Error),
}

/// A connection, until it is dropped.
#[derive(Debug)]
pub struct Flow {
    socket: OwnedFd,
    protocol: Protocol,
    /// This end of it.
    pub from: SocketAddr,
    /// What came of it.
    pub outcome: Outcome,
}

impl Flow {
    /// Connects, and waits for what comes of it. Blocks for [`ANSWER_MAX`] at most.
    ///
    /// # Errors
    /// There is no such namespace, or the kernel knows no such protocol.
    pub fn open(inside: &Path, protocol: Protocol, to: SocketAddr) -> io::Result<Self> {
        // It belongs to the namespace in which it was made, wherever it is used.
        let socket: OwnedFd =
            namespace::inside(inside, || unconnected(to.ip(), protocol).map_err(io::Error::from))?;
        let connected = connect(socket.as_raw_fd(), &SockaddrStorage::from(to));
        let from = getsockname::<SockaddrStorage>(socket.as_raw_fd())?;
        let from = address(&from).unwrap_or_else(|| SocketAddr::new(unspecified(to.ip()), 0));
        let mut flow = Self { socket, protocol, from, outcome: Outcome::Silent };
        flow.outcome = match connected {
            Ok(()) if protocol == Protocol::Udp => {
                flow.send_nothing();
                flow.wait(PASSES_WITHIN)
            }
            Ok(()) | Err(nix::Error::EINPROGRESS) => flow.wait(ANSWER_MAX),
            Err(error) => failure(error.into()),
        };
        Ok(flow)
    }

    /// Sends something more on it that the other end does not mind. A connection is ended thereby. False where it was
    /// never answered, so that there is nothing to send on.
    pub fn send_more(&self) -> bool {
        let sent = match (self.protocol, &self.outcome) {
            (Protocol::Udp, _) => {
                self.change_class();
                self.send_nothing();
                true
            }
            (_, Outcome::Answered) => shutdown(self.socket.as_raw_fd(), Shutdown::Write).is_ok(),
            _ => false,
        };
        if sent {
            self.wait(PASSES_WITHIN);
        }
        sent
    }

    /// The flow cache may have learnt by now what becomes of this flow, and leads it past whoever counts. What is of
    /// another class of service than before goes the kernel's own way, and so does the end of a connection.
    fn change_class(&self) {
        // What goes past them is seen by the counters, which do not move.
        let _ = match self.from {
            SocketAddr::V4(_) => setsockopt(&self.socket, sockopt::Ipv4Tos, &CLASS),
            SocketAddr::V6(_) => setsockopt(&self.socket, sockopt::Ipv6TClass, &CLASS),
        };
    }

    /// A datagram without content: a server of any protocol passes it over.
    fn send_nothing(&self) {
        // What cannot be sent is seen by the counters, which do not move.
        let _ = send(self.socket.as_raw_fd(), &[], MsgFlags::MSG_DONTWAIT);
    }

    fn wait(&self, time: Duration) -> Outcome {
        let wanted = match (self.protocol, &self.outcome) {
            (Protocol::Udp, _) => PollFlags::POLLIN,
            // Until the other end has said all it had to say.
            (_, Outcome::Answered) => PollFlags::POLLHUP,
            _ => PollFlags::POLLOUT,
        };
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        let ready = poll(&mut [PollFd::new(self.socket.as_fd(), wanted)], timeout);
        let error = getsockopt(&self.socket, sockopt::SocketError).unwrap_or_default();
        match ready {
            _ if error != 0 => failure(io::Error::from_raw_os_error(error)),
            Ok(1..) => Outcome::Answered,
            _ if self.protocol == Protocol::Udp => Outcome::Sent,
            _ => Outcome::Silent,
        }
    }
}

fn unconnected(to: IpAddr, protocol: Protocol) -> nix::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SockType::Stream, SockProtocol::Tcp),
        Protocol::Udp => (SockType::Datagram, SockProtocol::Udp),
        Protocol::Sctp => (SockType::Stream, SockProtocol::Sctp),
    };
    socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, number)
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| SocketAddr::new(address.ip().into(), address.port()));
    v4.or_else(|| {
        storage.as_sockaddr_in6().map(|address| SocketAddr::new(address.ip().into(), address.port()))
    })
}

const fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

fn failure(error: io::Error) -> Outcome {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Outcome::Refused,
        _ => Outcome::NoWay(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    const HERE: &str = "/proc/self/ns/net";

    fn open(protocol: Protocol, to: SocketAddr) -> Option<Flow> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: entering a namespace needs root");
            return None;
        }
        Some(Flow::open(Path::new(HERE), protocol, to).unwrap())
    }

    #[test]
    fn what_becomes_of_a_connection_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let Some(flow) = open(Protocol::Tcp, to) else { return };
        assert!(matches!(flow.outcome, Outcome::Answered), "{flow:?}");
        assert_eq!(listener.accept().unwrap().1, flow.from);
        assert!(flow.send_more());
        drop(listener);
        let refused = open(Protocol::Tcp, to).unwrap();
        assert!(matches!(refused.outcome, Outcome::Refused), "{refused:?}");
        assert!(!refused.send_more());
    }

    #[test]
    fn a_datagram_that_nobody_answers_was_sent() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        let Some(flow) = open(Protocol::Udp, to) else { return };
        assert!(matches!(flow.outcome, Outcome::Sent) && flow.send_more(), "{flow:?}");
        drop(socket);
        let refused = open(Protocol::Udp, to).unwrap();
        assert!(matches!(refused.outcome, Outcome::Refused), "{refused:?}");
    }
}
