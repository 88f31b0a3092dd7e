//! A bad line: what a host of a lab sends passes through here, late, out of order, and not all of it.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{capture::packet_socket, lab::Lab, wait::Raise};

/// Frames that are under way at most: what comes then is lost.
const FRAMES_MAX: usize = 20_000;
/// Bytes of a frame at most.
const FRAME_BYTES_MAX: usize = 65_536;
/// Of linux/ethtool.h: `ETHTOOL_STXCSUM`; and of linux/sockios.h: `SIOCETHTOOL`.
const SET_SENDING_CHECKSUMS: u32 = 0x17;
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// How bad it is.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// The delay of a frame lies between these, evenly.
    pub delay: (Duration, Duration),
    /// Of a thousand frames, so many are lost.
    pub lost: u64,
    /// Chooses delays and losses.
    pub seed: u64,
}

/// Has all that these hosts send to others pass over lines of their own, for as long as `work` lasts.
///
/// # Panics
/// When the kernel refuses, or when `work` panics.
pub fn with_lines<T>(lab: &Lab, line: Line, work: impl FnOnce() -> T) -> T {
    let hub = lab.space("hub");
    let mut lines = Vec::new();
    for host in lab.hosts() {
        // Frames are to be whole, with their checksums, before they are heard.
        lab.space(host).run(|| without_checksum_offload("eth0"));
        let (near, far) = (format!("{host}-n"), format!("{host}-f"));
        for command in [
            format!("link add {near} type veth peer name {far}"),
            format!("link set {host} nomaster"),
            format!("link set {far} master br0 up"),
            format!("link set {near} up"),
        ] {
            let words: Vec<&str> = command.split(' ').collect();
            lab.script(&[&["exec", "hub", "ip"], &words[..]].concat()).ok();
        }
        lines.push(hub.run(|| (Port::open(host), Port::open(&near))));
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let ended = Raise(&over);
        for (number, (host, wire)) in (0_u64..).zip(&lines) {
            let line = Line { seed: line.seed ^ number << 32, ..line };
            let over = &over;
            scope.spawn(move || line.carry(host, wire, over));
            let straight = Line { delay: (Duration::ZERO, Duration::ZERO), lost: 0, seed: 0 };
            scope.spawn(move || straight.carry(wire, host, over));
        }
        let result = work();
        drop(ended);
        result
    })
}

impl Line {
    /// Carries frames until it is over.
    fn carry(self, from: &Port, to: &Port, over: &AtomicBool) {
        let mut under_way: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>> = BinaryHeap::new();
        let mut random = self.seed | 1;
        let mut count = 0;
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        while !over.load(Ordering::Relaxed) {
            let now = Instant::now();
            while under_way.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
                if let Some(Reverse((.., frame))) = under_way.pop() {
                    to.send(&frame);
                }
            }
            let patience = under_way.peek().map_or(50, |Reverse((due, ..))| (*due - now).as_millis().min(50));
            for frame in from.receive(patience as i32, &mut buffer) {
                let (least, most) = self.delay;
                let late = least + (most - least).mul_f64(draw(&mut random) as f64 / 1000.0);
                count += 1;
                if draw(&mut random) >= self.lost && under_way.len() < FRAMES_MAX {
                    under_way.push(Reverse((Instant::now() + late, count, frame)));
                }
            }
        }
    }
}

/// The next of a sequence that looks like chance (xorshift), below a thousand.
fn draw(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % 1000
}

/// A link whose frames are heard and sent here.
struct Port(OwnedFd);

impl Port {
    fn open(link: &str) -> Self {
        let socket = packet_socket(link);
        let (fd, on) = (socket.as_raw_fd(), 1_i32);
        // SAFETY: the values are as long as is said and live for the calls that read them.
        unsafe {
            // What is sent here is not to be heard here.
            let ignore = libc::PACKET_IGNORE_OUTGOING;
            assert_eq!(libc::setsockopt(fd, libc::SOL_PACKET, ignore, (&raw const on).cast(), 4), 0);
            let (room, large) = (libc::SO_RCVBUFFORCE, 1_i32 << 23);
            assert_eq!(libc::setsockopt(fd, libc::SOL_SOCKET, room, (&raw const large).cast(), 4), 0);
        }
        Self(socket)
    }

    /// Frames that are there, or come within so many milliseconds.
    fn receive(&self, patience: i32, buffer: &mut [u8]) -> Vec<Vec<u8>> {
        let mut ready = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut frames = Vec::new();
        // SAFETY: one structure is polled, and the buffer is as long as is said.
        unsafe {
            libc::poll(&raw mut ready, 1, patience.max(1));
            loop {
                let length =
                    libc::recv(ready.fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT);
                let Ok(length) = usize::try_from(length) else { return frames };
                frames.push(buffer[..length].to_vec());
            }
        }
    }

    fn send(&self, frame: &[u8]) {
        // SAFETY: the frame is as long as is said. One that is not taken is one more that the line has lost.
        unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), libc::MSG_DONTWAIT) };
    }
}

/// Has a link of this namespace send whole frames: also no larger ones that somebody else would split.
fn without_checksum_offload(link: &str) {
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let mut value = Value { command: SET_SENDING_CHECKSUMS, data: 0 };
    // SAFETY: the structures are those of the request (linux/ethtool.h, linux/if.h) and live for the call.
    unsafe {
        let mut request: libc::ifreq = mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(link.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        let socket = OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0));
        let done = libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request);
        assert_eq!(done, 0, "{link}: {}", io::Error::last_os_error());
    }
}
