//! Echo requests to other hosts through the edge's device: what answers those of full size, which may not be cut up,
//! proves the way, the VXLAN port and the size of packets at once.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, recv, sendto,
        setsockopt, socket, sockopt,
    },
};
use serde::{Deserialize, Serialize};

use crate::clock;

/// Hosts that one host probes at a time; the others are probed by those before them.
pub const PROBED_MAX: usize = 256;
/// Requests of either size to each host, and how long is waited after each round.
const ROUNDS: u8 = 3;
const ROUND: Duration = Duration::from_millis(300);
/// Bytes of a small packet's payload.
const SMALL: usize = 8;
/// Bytes of an IPv4 header without options, and of the header of an echo (RFC 791, RFC 792).
const IP_HEADER: usize = 20;
const ECHO_HEADER: usize = 8;
/// Types of an echo (RFC 792).
const REPLY: u8 = 0;
const REQUEST: u8 = 8;
/// Bytes of the largest IPv4 packet.
const PACKET_MAX: usize = 65_535;

/// How another host is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reach {
    /// Nothing comes back.
    Nothing,
    /// Small packets come back, those of full size do not.
    OnlySmall,
    /// Packets of full size come back.
    Full,
}

/// Probes these hosts at once, by their first edge addresses, and waits until all have answered or had their time: less
/// than a second. Blocks.
///
/// # Errors
/// There is no such device, or the kernel refused the socket.
pub fn reach(from: Ipv4Addr, device: &str, mtu: u32, hosts: &[Ipv4Addr]) -> io::Result<Vec<Reach>> {
    let socket = open(from, device)?;
    // Several may probe at a time, and each hears all replies.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let number = (std::process::id() as u16).rotate_left(8) ^ NEXT.fetch_add(1, Ordering::Relaxed);
    let full = (mtu as usize).min(PACKET_MAX).saturating_sub(IP_HEADER + ECHO_HEADER);
    let mut reached = vec![Reach::Nothing; hosts.len()];
    for round in 0..ROUNDS {
        for (host, _) in hosts.iter().zip(&reached).filter(|(_, reach)| **reach != Reach::Full) {
            for (is_full, size) in [(true, full), (false, SMALL)] {
                let packet = echo(number, sequence(round, is_full), size);
                // One that cannot be sent is one that does not come back.
                let to = SockaddrIn::from(SocketAddrV4::new(*host, 0));
                let _ = sendto(socket.as_raw_fd(), &packet, &to, MsgFlags::MSG_DONTWAIT);
            }
        }
        listen(&socket, number, hosts, &mut reached, clock::monotonic() + ROUND)?;
        if reached.iter().all(|reach| *reach == Reach::Full) {
            break;
        }
    }
    Ok(reached)
}

fn open(from: Ipv4Addr, device: &str) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp)?;
    setsockopt(&socket, sockopt::BindToDevice, &device.into())?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
    // As large as the device lets pass, whatever was learnt of the way before, and never cut up.
    let probe = libc::IP_PMTUDISC_PROBE;
    // SAFETY: the option's value is an int, which lives across the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const probe).cast(),
            size_of_val(&probe) as libc::socklen_t,
        )
    };
    if set == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// Takes replies until `end`, or until all have answered in full.
fn listen(
    socket: &OwnedFd,
    number: u16,
    hosts: &[Ipv4Addr],
    reached: &mut [Reach],
    end: Instant,
) -> io::Result<()> {
    let mut buffer = vec![0; PACKET_MAX];
    while reached.iter().any(|reach| *reach != Reach::Full) {
        let left = end.saturating_duration_since(clock::monotonic());
        if left.is_zero() {
            return Ok(());
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let size = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(size) => size,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => continue,
            // Of a packet before: a host that is not reached.
            Err(_) => continue,
        };
        let Some((host, is_full)) = buffer.get(..size).and_then(|packet| reply(packet, number)) else {
            continue;
        };
        for (_, reach) in hosts.iter().zip(reached.iter_mut()).filter(|(other, _)| **other == host) {
            *reach = (*reach).max(if is_full { Reach::Full } else { Reach::OnlySmall });
        }
    }
    Ok(())
}

/// Which request of its host: of which round, and of which size.
const fn sequence(round: u8, is_full: bool) -> u16 {
    (round as u16) << 1 | is_full as u16
}

/// An echo request with so many bytes of payload.
fn echo(number: u16, sequence: u16, payload: usize) -> Vec<u8> {
    let mut packet = vec![0; ECHO_HEADER + payload];
    packet[0] = REQUEST;
    packet[4..6].copy_from_slice(&number.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Who sent this packet, and whether the request was one of full size; none where it is no reply to a request of ours.
fn reply(packet: &[u8], number: u16) -> Option<(Ipv4Addr, bool)> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let source = <[u8; 4]>::try_from(packet.get(12..16)?).ok()?;
    let [kind, _, _, _, a, b, c, d] = *packet.get(header..header + ECHO_HEADER)? else { return None };
    if kind != REPLY || u16::from_be_bytes([a, b]) != number {
        return None;
    }
    Some((source.into(), u16::from_be_bytes([c, d]) & 1 == 1))
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| match word {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high, ..] => u32::from(*high) << 8,
        [] => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_well_formed_and_its_reply_is_known() {
        for payload in [0, 7, SMALL, 1422] {
            let mut packet = echo(0x1234, sequence(2, true), payload);
            assert_eq!((packet.len(), checksum(&packet)), (ECHO_HEADER + payload, 0));
            packet[0] = REPLY;
            let mut whole = vec![0; IP_HEADER];
            whole[0] = 0x45;
            whole[12..16].copy_from_slice(&[100, 64, 2, 0]);
            whole.extend(packet);
            assert_eq!(reply(&whole, 0x1234), Some(([100, 64, 2, 0].into(), true)));
            assert_eq!(reply(&whole, 0x1235), None, "somebody else's");
            whole[IP_HEADER] = REQUEST;
            assert_eq!(reply(&whole, 0x1234), None, "no reply");
        }
        for cut in 0..IP_HEADER + ECHO_HEADER {
            assert_eq!(reply(&vec![0x45; cut], 0x4545), None);
        }
    }

    #[test]
    fn this_host_answers_itself_in_full() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("SKIPPED: raw sockets need root");
        }
        let hosts = [Ipv4Addr::LOCALHOST, [127, 0, 0, 2].into()];
        match reach(Ipv4Addr::LOCALHOST, "lo", 1500, &hosts) {
            Ok(reached) => assert_eq!(reached, [Reach::Full; 2]),
            Err(error) => eprintln!("SKIPPED: raw sockets: {error}"),
        }
    }
}
