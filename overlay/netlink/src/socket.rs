//! One rtnetlink exchange at a time: a request and its acknowledgement, or a dump.

use std::io;

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE,
    NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Make something that must not be there yet.
pub const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;
/// Make it, or replace what is there: an entry of before must never win (moby#53663).
pub const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;
/// Requests sent at once: the kernel's answers to all of them fit into the socket's receive buffer.
pub const BATCH_MAX: usize = 64;

/// A list that changes while it is read is read again, this often at most.
const DUMP_TRIES: usize = 4;
/// Bytes that every message begins at a multiple of (`NLMSG_ALIGNTO`).
const ALIGNMENT: usize = 4;

/// A netlink exchange failed. The kernel did nothing.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket itself.
    #[error("netlink socket")]
    Socket(#[from] io::Error),
    /// The kernel refused, with this error number.
    #[error("{0}")]
    Refused(io::Error),
    /// The kernel's answer cannot be read.
    #[error("netlink answer cannot be read")]
    Answer(#[from] netlink_packet_core::DecodeError),
}

impl NetlinkError {
    /// The kernel's error number, where it refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(error) => error.raw_os_error(),
            _ => None,
        }
    }
}

/// A socket in the network namespace in which it was opened, wherever it is used later.
pub struct Route {
    socket: Socket,
    sequence: u32,
}

impl Route {
    /// Opens a socket in this thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Has the kernel do something; returns when it is done.
    pub fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
        self.exchange::<RouteNetlinkMessage>(message, NLM_F_REQUEST | NLM_F_ACK | flags).map(drop)
    }

    /// Asks for one thing that the kernel has.
    pub fn ask(&mut self, message: RouteNetlinkMessage) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        Ok(self.exchange(message, NLM_F_REQUEST | NLM_F_ACK)?.0.pop())
    }

    /// Has the kernel do several things in order; none waits for the one before, and none fails with it. Answers how
    /// each went. At most [`BATCH_MAX`] are sent at once.
    pub fn batch(
        &mut self,
        messages: Vec<(RouteNetlinkMessage, u16)>,
    ) -> Result<Vec<Result<(), NetlinkError>>, NetlinkError> {
        let mut results = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            let first = self.sequence.wrapping_add(1);
            let mut bytes = Vec::new();
            let mut sent = 0;
            for (message, flags) in messages.by_ref().take(BATCH_MAX) {
                self.write(message, NLM_F_REQUEST | NLM_F_ACK | flags, &mut bytes);
                sent += 1;
            }
            self.socket.send(&bytes, 0)?;
            let mut done: Vec<Option<Result<(), NetlinkError>>> = (0..sent).map(|_| None).collect();
            while done.iter().any(Option::is_none) {
                for answer in self.receive::<RouteNetlinkMessage>()? {
                    let place = answer.header.sequence_number.wrapping_sub(first) as usize;
                    if let (Some(place), NetlinkPayload::Error(error)) = (done.get_mut(place), answer.payload)
                    {
                        *place = Some(outcome(&error));
                    }
                }
            }
            results.extend(done.into_iter().flatten());
        }
        Ok(results)
    }

    /// Lists what the kernel has.
    pub fn dump(&mut self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.dump_as(message)
    }

    /// As [`Route::dump`], for what is read in another way.
    pub fn dump_as<T: NetlinkDeserializable>(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 1..DUMP_TRIES {
            let (found, whole) = self.exchange(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            if whole {
                return Ok(found);
            }
        }
        // Somebody changes it faster than it is read: what is missed is looked at again next time.
        Ok(self.exchange(message, NLM_F_REQUEST | NLM_F_DUMP)?.0)
    }

    /// Sends a request and reads all answers, to the end: the kernel runs one dump per socket. False where what it
    /// lists changed meanwhile.
    fn exchange<T: NetlinkDeserializable>(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(Vec<T>, bool), NetlinkError> {
        let mut bytes = Vec::new();
        self.write(message, flags, &mut bytes);
        self.socket.send(&bytes, 0)?;
        let (mut found, mut whole) = (Vec::new(), true);
        loop {
            for answer in self.receive()? {
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => found.push(message),
                    NetlinkPayload::Done(_) => return Ok((found, whole)),
                    NetlinkPayload::Error(error) => return outcome(&error).map(|()| (found, whole)),
                    _ => {}
                }
            }
        }
    }

    /// Appends a request with the next sequence number.
    fn write(&mut self, message: RouteNetlinkMessage, flags: u16, bytes: &mut Vec<u8>) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let start = bytes.len();
        bytes.resize(start + packet.buffer_len().next_multiple_of(ALIGNMENT), 0);
        packet.serialize(&mut bytes[start..]);
    }

    /// One datagram of answers.
    fn receive<T: NetlinkDeserializable>(&mut self) -> Result<Vec<NetlinkMessage<T>>, NetlinkError> {
        let (bytes, _) = self.socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        let mut answers = Vec::new();
        while !rest.is_empty() {
            let answer = NetlinkMessage::<T>::deserialize(rest)?;
            let length = (answer.header.length as usize).next_multiple_of(ALIGNMENT).min(rest.len());
            if length == 0 {
                break;
            }
            rest = &rest[length..];
            answers.push(answer);
        }
        Ok(answers)
    }
}

fn outcome(error: &ErrorMessage) -> Result<(), NetlinkError> {
    match error.code {
        None => Ok(()),
        Some(_) => Err(NetlinkError::Refused(error.to_io())),
    }
}
