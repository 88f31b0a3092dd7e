//! Packets on a link, as they pass (`packet(7)`), and packets that are made by hand.

use std::{
    ffi::CString,
    io, mem,
    net::Ipv4Addr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// The port of VXLAN, and the bytes of its header (RFC 7348).
const VXLAN_PORT: u16 = 4789;
const VXLAN_BYTES: usize = 8;
const ETHERNET_BYTES: usize = 14;
const UDP: u8 = 17;
const TCP: u8 = 6;
/// Bytes of a packet that are looked at.
const PACKET_BYTES_MAX: usize = 65_536;

/// Hears all packets of one link, in both directions.
#[derive(Debug)]
pub struct Capture(OwnedFd);

/// One IPv4 packet of TCP or UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// From.
    pub source: (Ipv4Addr, u16),
    /// To.
    pub target: (Ipv4Addr, u16),
    /// What is in it: after the headers for UDP.
    pub payload: Vec<u8>,
    /// The VXLAN network and the packet in it, where it is one of VXLAN.
    pub inner: Option<(u32, Box<Packet>)>,
}

/// A socket for all frames of a link of the namespace that this thread is in.
///
/// # Panics
/// When there is no such link, or the kernel refuses.
pub(crate) fn packet_socket(link: &str) -> OwnedFd {
    let name = CString::new(link).expect("a plain name");
    let all = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: plain calls; the structure is zeroed and lives for the call that reads it.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(all));
        assert!(fd >= 0, "a packet socket: {}", io::Error::last_os_error());
        let socket = OwnedFd::from_raw_fd(fd);
        let mut address: libc::sockaddr_ll = mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = all;
        address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
        let length = mem::size_of::<libc::sockaddr_ll>() as u32;
        let bound = libc::bind(fd, (&raw const address).cast(), length);
        assert_eq!(bound, 0, "{link}: {}", io::Error::last_os_error());
        socket
    }
}

impl Capture {
    /// Begins to hear a link of the namespace that this thread is in.
    ///
    /// # Panics
    /// When there is no such link, or the kernel refuses.
    pub fn open(link: &str) -> Self {
        Self(packet_socket(link))
    }

    /// What has passed since it was asked last.
    pub fn packets(&self) -> Vec<Packet> {
        let mut found = Vec::new();
        let mut frame = vec![0_u8; PACKET_BYTES_MAX];
        loop {
            // SAFETY: the buffer is as long as is said.
            let length = unsafe {
                libc::recv(self.0.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), libc::MSG_DONTWAIT)
            };
            let Ok(length) = usize::try_from(length) else { return found };
            found.extend(parse(&frame[..length]));
        }
    }
}

fn parse(frame: &[u8]) -> Option<Packet> {
    let ip = frame.get(ETHERNET_BYTES..)?;
    if frame.get(12..14)? != [8, 0] {
        return None;
    }
    let segment = ip.get(usize::from(ip.first()? & 0xf) * 4..)?;
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
    let port = |at: usize| Some(u16::from_be_bytes([*segment.get(at)?, *segment.get(at + 1)?]));
    let protocol = *ip.get(9)?;
    if protocol != UDP && protocol != TCP {
        return None;
    }
    let payload = segment.get(8..).unwrap_or_default().to_vec();
    let target = (address(16)?, port(2)?);
    let inner = (protocol == UDP && target.1 == VXLAN_PORT && payload.len() > VXLAN_BYTES)
        .then(|| {
            let vni = u32::from_be_bytes([0, payload[4], payload[5], payload[6]]);
            Some((vni, Box::new(parse(&payload[VXLAN_BYTES..])?)))
        })
        .flatten();
    Some(Packet { source: (address(12)?, port(0)?), target, payload, inner })
}

/// A frame of UDP over IPv4, wrapped for VXLAN: what is sent to the port of VXLAN.
pub fn vxlan(
    vni: u32,
    mac: ([u8; 6], [u8; 6]),
    source: (Ipv4Addr, u16),
    target: (Ipv4Addr, u16),
    text: &[u8],
) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend((28 + text.len() as u16).to_be_bytes());
    header.extend([0, 1, 0, 0, 64, UDP, 0, 0]);
    header.extend(source.0.octets());
    header.extend(target.0.octets());
    let words = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum = words.sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![8, 0, 0, 0];
    frame.extend((vni << 8).to_be_bytes());
    frame.extend(mac.1);
    frame.extend(mac.0);
    frame.extend([8, 0]);
    frame.extend(header);
    frame.extend([source.1.to_be_bytes(), target.1.to_be_bytes()].concat());
    frame.extend((8 + text.len() as u16).to_be_bytes());
    // No checksum, which UDP over IPv4 allows.
    frame.extend([0, 0]);
    frame.extend(text);
    frame
}
