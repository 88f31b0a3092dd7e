//! One netfilter exchange at a time: a batch and its acknowledgement, one request, or a dump.

use std::{fs::File, io, path::Path, thread};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{setsockopt, sockopt::SndBufForce},
};

/// Bytes of a netlink header, and of one with netfilter's own (linux/netfilter/nfnetlink.h).
const HEADER: usize = 16;
const HEADERS: usize = HEADER + 4;
/// Most bytes of one batch: some 500,000 elements.
const PACKET_BYTES_MAX: usize = 64 << 20;
/// Bytes that the kernel sends at once at most, for a reader with as much room (`netlink_dump`).
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Bytes that a socket can send at once without being asked for more, on every kernel.
const PACKET_BYTES: usize = 64 << 10;

/// An exchange with netfilter failed. The kernel did nothing.
#[derive(Debug, thiserror::Error)]
pub enum NetfilterError {
    /// The socket itself, or its namespace.
    #[error("netlink socket")]
    Socket(#[from] io::Error),
    /// The kernel refused, with this error number.
    #[error("refused by netfilter")]
    Refused(#[source] io::Error),
    /// The kernel's answer cannot be read.
    #[error("netlink answer cannot be read")]
    Answer,
    /// A batch of so many bytes is too large.
    #[error("a batch of {0} bytes is too large")]
    TooLarge(usize),
    /// Somebody changes what is read all the time.
    #[error("changes faster than it can be listed")]
    Torn,
}

impl NetfilterError {
    /// Whether the kernel refused with this error number.
    pub fn is(&self, number: i32) -> bool {
        matches!(self, Self::Refused(error) if error.raw_os_error() == Some(number))
    }
}

/// One request.
pub struct Request {
    /// Subsystem and message.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// `NFPROTO_*`.
    pub family: u8,
    /// The subsystem that the border of a batch is for.
    pub resource: u16,
    /// Attributes.
    pub body: Vec<u8>,
}

/// One message of an answer: its attributes.
pub type Found = Vec<u8>;

/// A socket in the network namespace in which it was opened, wherever it is used later.
pub struct Netfilter {
    socket: Socket,
    /// Of the last message sent.
    sequence: u32,
    /// Bytes that may be sent at once.
    room: usize,
    buffer: Vec<u8>,
}

impl Netfilter {
    /// Opens a socket in this thread's network namespace.
    pub fn open() -> Result<Self, NetfilterError> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Refusals need not bring back what was sent.
        socket.set_cap_ack(true)?;
        let buffer = Vec::with_capacity(ANSWER_BYTES_MAX);
        Ok(Self { socket, sequence: 0, room: PACKET_BYTES, buffer })
    }

    /// Opens a socket in the network namespace that this file names.
    pub fn open_in(namespace: &Path) -> Result<Self, NetfilterError> {
        // On a thread of its own, since a thread that has changed its namespace is good for nothing else.
        let open = || {
            setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            Self::open()
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, open)?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("thread panicked").into()))
        })
    }

    /// Asks for one thing, or for one thing to be done.
    pub fn request(&mut self, mut request: Request) -> Result<Vec<Found>, NetfilterError> {
        request.flags |= libc::NLM_F_ACK as u16;
        self.exchange(&[request])?.ok_or(NetfilterError::Torn)
    }

    /// Asks for several things to be done, each for itself. All have been tried when this returns; an error is that of
    /// the first that was refused.
    pub fn requests(&mut self, mut requests: Vec<Request>) -> Result<(), NetfilterError> {
        let Some(last) = requests.last_mut() else { return Ok(()) };
        last.flags |= libc::NLM_F_ACK as u16;
        self.exchange(&requests).map(drop)
    }

    /// Lists things. `None`: somebody changed them meanwhile.
    pub fn dump(&mut self, mut request: Request) -> Result<Option<Vec<Found>>, NetfilterError> {
        request.flags |= libc::NLM_F_DUMP as u16;
        self.exchange(&[request])
    }

    /// Has the kernel take all these steps at once, or none of them; returns when that is done.
    pub fn batch(&mut self, subsystem: u16, mut steps: Vec<Request>) -> Result<(), NetfilterError> {
        // The end of a batch is acknowledged since Linux 6.10 only, its last step always.
        let Some(last) = steps.last_mut() else { return Ok(()) };
        last.flags |= libc::NLM_F_ACK as u16;
        let border = |kind: i32| Request {
            kind: kind as u16,
            flags: 0,
            family: 0,
            resource: subsystem,
            body: Vec::new(),
        };
        steps.insert(0, border(libc::NFNL_MSG_BATCH_BEGIN));
        steps.push(border(libc::NFNL_MSG_BATCH_END));
        self.exchange(&steps).map(drop)
    }

    /// Sends the messages as one packet, since the kernel takes a batch from nothing else, and reads the answer to
    /// its end.
    fn exchange(&mut self, requests: &[Request]) -> Result<Option<Vec<Found>>, NetfilterError> {
        let before = self.sequence;
        let mut packet =
            Vec::with_capacity(requests.iter().map(|request| HEADERS + request.body.len()).sum());
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            write(&mut packet, request, self.sequence);
        }
        let sent = self.sequence.wrapping_sub(before);
        self.make_room(packet.len())?;
        self.socket.send(&packet, 0)?;

        let (mut found, mut torn) = (Vec::new(), false);
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            let mut rest = self.buffer.as_slice();
            while !rest.is_empty() {
                let message = Message::read(rest).ok_or(NetfilterError::Answer)?;
                rest = rest.get(message.length.next_multiple_of(4)..).unwrap_or_default();
                // What a failed exchange left behind is passed over.
                if !(1..=sent).contains(&message.sequence.wrapping_sub(before)) {
                    continue;
                }
                torn |= message.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                match i32::from(message.kind) {
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                        message.outcome()?;
                        return Ok((!torn).then_some(found));
                    }
                    libc::NLMSG_NOOP => {}
                    _ => found.push(message.body.get(HEADERS - HEADER..).unwrap_or_default().to_vec()),
                }
            }
        }
    }

    fn make_room(&mut self, bytes: usize) -> Result<(), NetfilterError> {
        if bytes > PACKET_BYTES_MAX {
            return Err(NetfilterError::TooLarge(bytes));
        }
        if bytes > self.room {
            setsockopt(&self.socket, SndBufForce, &bytes).map_err(io::Error::from)?;
            self.room = bytes;
        }
        Ok(())
    }
}

fn write(packet: &mut Vec<u8>, request: &Request, sequence: u32) {
    let length = HEADERS + request.body.len();
    packet.extend((length as u32).to_ne_bytes());
    packet.extend(request.kind.to_ne_bytes());
    packet.extend((request.flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
    packet.extend(sequence.to_ne_bytes());
    // To whom it is: the kernel.
    packet.extend(0u32.to_ne_bytes());
    packet.extend([request.family, libc::NFNETLINK_V0 as u8]);
    packet.extend(request.resource.to_be_bytes());
    packet.extend(&request.body);
    packet.resize(packet.len().next_multiple_of(4), 0);
}

/// One message of the kernel.
struct Message<'a> {
    length: usize,
    kind: u16,
    flags: u16,
    sequence: u32,
    /// What is behind the netlink header.
    body: &'a [u8],
}

impl<'a> Message<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let [length, kind_and_flags, sequence] =
            [0, 4, 8].map(|at| bytes.get(at..at + 4).and_then(|part| <[u8; 4]>::try_from(part).ok()));
        let length = u32::from_ne_bytes(length?) as usize;
        let [a, b, c, d] = kind_and_flags?;
        Some(Self {
            length,
            kind: u16::from_ne_bytes([a, b]),
            flags: u16::from_ne_bytes([c, d]),
            sequence: u32::from_ne_bytes(sequence?),
            body: bytes.get(HEADER..length)?,
        })
    }

    /// Of an acknowledgement or of the end of a dump.
    fn outcome(&self) -> Result<(), NetfilterError> {
        let code = self.body.get(..4).and_then(|part| <[u8; 4]>::try_from(part).ok());
        match code.map_or(0, i32::from_ne_bytes) {
            0.. => Ok(()),
            code => Err(NetfilterError::Refused(io::Error::from_raw_os_error(code.saturating_neg()))),
        }
    }
}
