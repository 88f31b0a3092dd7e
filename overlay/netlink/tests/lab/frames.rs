//! Packets made by hand, and read so: whatever a socket would not say or not let out.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use covey_overlay::mac::Mac;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto, setsockopt,
    socket, sockopt::ReceiveTimeout,
};

use super::Lab;

/// Longest frame that is read.
const FRAME_MAX: usize = 1 << 16;
const ETHERNET_LEN: usize = 14;
const UDP: u8 = 17;
const TCP: u8 = 6;
const ICMP_V4: u8 = 1;
const ICMP_V6: u8 = 58;

/// What a packet has in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whether it has a checksum.
    Udp { sum: bool },
    /// Its flags.
    Tcp(u8),
    /// Only read: its type.
    Icmp(u8),
}

pub const DATAGRAM: Kind = Kind::Udp { sum: true };

/// An IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub kind: Kind,
    /// Class of service and marks of congestion.
    pub class: u8,
    pub hops: u8,
    /// Of IPv4, whole words.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Packet {
    pub fn new(kind: Kind, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Self {
        Self { from, to, kind, class: 0, hops: 64, options: vec![], payload: payload.to_owned() }
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        let (protocol, at) = match &self.kind {
            Kind::Udp { .. } => {
                bytes.extend((8 + self.payload.len() as u16).to_be_bytes());
                bytes.extend([0; 2]);
                (UDP, 6)
            }
            Kind::Tcp(flags) => {
                bytes.extend(7_u64.to_be_bytes());
                bytes.extend([5 << 4, *flags, 1, 0, 0, 0, 0, 0]);
                (TCP, 16)
            }
            Kind::Icmp(_) => panic!("it is only read"),
        };
        bytes.extend(&self.payload);
        if self.kind != (Kind::Udp { sum: false }) {
            let sum =
                !add(&[pseudo(self.from.ip(), self.to.ip(), protocol, bytes.len()), bytes.clone()].concat());
            let sum = if sum == 0 { u16::MAX } else { sum };
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// From its IP header on.
    pub fn bytes(&self) -> Vec<u8> {
        let inside = self.transport();
        let protocol = if matches!(self.kind, Kind::Tcp(_)) { TCP } else { UDP };
        let mut head = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let words = 5 + self.options.len() / 4;
                let mut head = vec![4 << 4 | words as u8, self.class];
                head.extend(((words * 4 + inside.len()) as u16).to_be_bytes());
                head.extend([0, 1, 0x40, 0, self.hops, protocol, 0, 0]);
                head.extend([from.octets(), to.octets()].concat());
                head.extend(&self.options);
                let sum = !add(&head);
                head[10..12].copy_from_slice(&sum.to_be_bytes());
                head
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut head = (6 << 28 | u32::from(self.class) << 20 | 0x12345).to_be_bytes().to_vec();
                head.extend((inside.len() as u16).to_be_bytes());
                head.extend([protocol, self.hops]);
                head.extend([from.octets(), to.octets()].concat());
                head
            }
            _ => panic!("a packet is of one family"),
        };
        head.extend(inside);
        head
    }

    /// The packet that begins with this IP header; checksums must be right.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (len, total, protocol, hops, class, from, to): (_, _, _, _, _, IpAddr, IpAddr) =
            match bytes.first()? >> 4 {
                4 => {
                    let len = usize::from(bytes[0] & 0xf) * 4;
                    assert_eq!(add(&bytes[..len]), u16::MAX, "checksum of IPv4");
                    let total = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
                    let address = |at: usize| <[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap().into();
                    (len, total, bytes[9], bytes[8], bytes[1], address(12), address(16))
                }
                6 => {
                    let total = 40 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
                    let class = u16::from_be_bytes([bytes[0], bytes[1]]) >> 4;
                    let address = |at: usize| <[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap().into();
                    (40, total, bytes[6], bytes[7], class as u8, address(8), address(24))
                }
                _ => return None,
            };
        let inside = bytes.get(len..total)?;
        let port = |at: usize| u16::from_be_bytes([inside[at], inside[at + 1]]);
        let whole = [pseudo(from, to, protocol, inside.len()), inside.to_vec()].concat();
        let is_right = add(&whole) == u16::MAX;
        let (kind, payload, ports) = match protocol {
            UDP => {
                let sum = port(6) != 0;
                assert!(!sum || is_right, "checksum of UDP");
                (Kind::Udp { sum }, &inside[8..], (port(0), port(2)))
            }
            TCP => {
                assert!(is_right, "checksum of TCP");
                (Kind::Tcp(inside[13]), &inside[usize::from(inside[12] >> 4) * 4..], (port(0), port(2)))
            }
            ICMP_V4 | ICMP_V6 => (Kind::Icmp(inside[0]), &inside[8..], (0, 0)),
            _ => return None,
        };
        Some(Self {
            from: (from, ports.0).into(),
            to: (to, ports.1).into(),
            kind,
            class,
            hops,
            options: bytes[if len > 40 || from.is_ipv4() { 20 } else { 40 }..len].to_vec(),
            payload: payload.to_vec(),
        })
    }
}

/// What a checksum of TCP or UDP covers beside them.
fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut bytes = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
        _ => panic!("a packet is of one family"),
    };
    bytes.extend([0, protocol]);
    bytes.extend((len as u16).to_be_bytes());
    bytes
}

/// One's complement sum (RFC 1071).
fn add(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).copied().map_or(0, u32::from));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub fn in_ethernet(to: Mac, from: Mac, packet: &[u8]) -> Vec<u8> {
    let ethertype: u16 = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    [&to.0[..], &from.0, &ethertype.to_be_bytes(), packet].concat()
}

/// What is in the UDP packet of a VXLAN one.
pub fn in_vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    [&0x0800_0000_u32.to_be_bytes()[..], &(vni << 8).to_be_bytes(), frame].concat()
}

/// A link, seen by frames.
pub struct Tap {
    socket: OwnedFd,
    index: i32,
}

impl Tap {
    pub fn open(lab: &Lab, name: &str, link: &str) -> Self {
        let index = lab.index(name, link).cast_signed();
        let open = || socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthAll);
        let socket = lab.within(name, open).unwrap();
        setsockopt(&socket, ReceiveTimeout, &nix::sys::time::TimeVal::new(0, 20_000)).unwrap();
        let tap = Self { socket, index };
        let (address, len) = tap.address();
        // SAFETY: the address is as long as that.
        let result = unsafe { libc::bind(tap.socket.as_raw_fd(), (&raw const address).cast(), len) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        while tap.receive().is_some() {}
        tap
    }

    fn address(&self) -> (libc::sockaddr_ll, libc::socklen_t) {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: self.index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        (address, size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    }

    /// The next packet in either direction.
    fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; FRAME_MAX];
        let length = recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()).ok()?;
        frame.truncate(length);
        Some(frame)
    }

    /// The packet that is so; none if none comes within a while.
    pub fn find(&self, patience: Duration, is: impl Fn(&Packet) -> bool) -> Option<Packet> {
        let start = Instant::now();
        while start.elapsed() < patience {
            let frame = self.receive();
            let found = frame.and_then(|frame| Packet::read(frame.get(ETHERNET_LEN..)?)).filter(&is);
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

/// Sends packets with whatever header from a namespace.
pub struct Raw([OwnedFd; 2]);

impl Raw {
    pub fn open(lab: &Lab, name: &str) -> Self {
        let open = |family| socket(family, SockType::Raw, SockFlag::empty(), SockProtocol::Raw).unwrap();
        Self(lab.within(name, || [AddressFamily::Inet, AddressFamily::Inet6].map(open)))
    }

    pub fn send(&self, packet: &Packet) {
        let bytes = packet.bytes();
        let none = MsgFlags::empty();
        let to = SockaddrStorage::from(SocketAddr::new(packet.to.ip(), 0));
        let socket = &self.0[usize::from(packet.to.is_ipv6())];
        assert_eq!(sendto(socket.as_raw_fd(), &bytes, &to, none).unwrap(), bytes.len());
    }
}

/// Sends VXLAN packets as a host does, from its namespace or a stranger's.
pub fn send_vxlan(from: &UdpSocket, to: SocketAddr, vni: u32, frame: &[u8]) {
    from.send_to(&in_vxlan(vni, frame), to).unwrap();
}
