//! One nf_tables exchange at a time: a batch and its acknowledgement, one object, or a dump.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::NfTablesMessage, none::ControlMessage,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::nft::NftError;

/// How often a dump is begun anew because somebody changed some table meanwhile.
const DUMP_ATTEMPTS_MAX: usize = 16;

/// A socket in the network namespace in which it was opened, wherever it is used later.
pub struct Netfilter {
    socket: Socket,
    /// Of the last message sent.
    sequence: u32,
}

/// What the kernel has answered.
#[derive(Default)]
struct Answer {
    /// `None` is one that cannot be read: somebody else's, with what this program does not know.
    found: Vec<Option<NfTablesMessage>>,
    /// A dump that somebody's change has torn.
    torn: bool,
}

impl Netfilter {
    /// Opens a socket in this thread's network namespace.
    pub fn open() -> Result<Self, NftError> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Has the kernel take all these steps at once, or none of them; returns when that is done. Each has its flags.
    pub fn batch(&mut self, steps: Vec<(NfTablesMessage, u16)>) -> Result<(), NftError> {
        let Some(last) = steps.len().checked_sub(1) else { return Ok(()) };
        let mut messages = vec![control(ControlMessage::BatchBegin)];
        for (place, (step, flags)) in steps.into_iter().enumerate() {
            // The end of a batch is acknowledged since Linux 6.10 only, its last step always.
            let acknowledge = if place == last { NLM_F_ACK } else { 0 };
            messages.push(inet(step, flags | acknowledge));
        }
        messages.push(control(ControlMessage::BatchEnd));
        self.exchange(messages).map(drop)
    }

    /// Asks for one object.
    pub fn get(&mut self, what: NfTablesMessage) -> Result<Vec<Option<NfTablesMessage>>, NftError> {
        Ok(self.exchange(vec![inet(what, NLM_F_ACK)])?.found)
    }

    /// Lists objects of one kind.
    pub fn dump(&mut self, what: NfTablesMessage) -> Result<Vec<Option<NfTablesMessage>>, NftError> {
        for _ in 0..DUMP_ATTEMPTS_MAX {
            let answer = self.exchange(vec![inet(what.clone(), NLM_F_DUMP)])?;
            if !answer.torn {
                return Ok(answer.found);
            }
        }
        Err(NftError::Torn)
    }

    /// Sends the messages as one packet, since the kernel takes a batch from nothing else, and reads the answer to
    /// its end.
    fn exchange(&mut self, messages: Vec<NetlinkMessage<NetfilterMessage>>) -> Result<Answer, NftError> {
        let before = self.sequence;
        let mut packet = Vec::new();
        for mut message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            message.header.sequence_number = self.sequence;
            message.finalize();
            let start = packet.len();
            packet.resize(start + message.buffer_len(), 0);
            message.serialize(&mut packet[start..]);
        }
        let sent = self.sequence.wrapping_sub(before);
        self.socket.send(&packet, 0)?;

        let mut answer = Answer::default();
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let frame = NetlinkBuffer::new_checked(rest)?;
                let length = (frame.length() as usize).next_multiple_of(4).min(rest.len());
                // What a failed exchange left behind is passed over.
                let ours = (1..=sent).contains(&frame.sequence_number().wrapping_sub(before));
                if ours && take(&frame, &rest[..length], &mut answer)? {
                    return Ok(answer);
                }
                rest = &rest[length..];
            }
        }
    }
}

/// Takes in one message of the kernel; says whether it was the last.
fn take(frame: &NetlinkBuffer<&[u8]>, bytes: &[u8], answer: &mut Answer) -> Result<bool, NftError> {
    answer.torn |= frame.flags() & NLM_F_DUMP_INTR != 0;
    let message = match NetlinkMessage::<NetfilterMessage>::deserialize(bytes) {
        Ok(message) => message,
        // Not one of netlink's own, on which the end of the answer depends.
        Err(_) if frame.message_type() >= libc::NLMSG_MIN_TYPE as u16 => {
            answer.found.push(None);
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    match message.payload {
        NetlinkPayload::InnerMessage(NetfilterMessage {
            inner: NetfilterMessageInner::NfTables(message),
            ..
        }) => answer.found.push(Some(message)),
        NetlinkPayload::Done(done) if done.code < 0 => {
            return Err(NftError::Refused(io::Error::from_raw_os_error(done.code.saturating_neg())));
        }
        NetlinkPayload::Error(error) if error.code.is_some() => return Err(NftError::Refused(error.to_io())),
        NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok(true),
        _ => {}
    }
    Ok(false)
}

fn inet(message: NfTablesMessage, flags: u16) -> NetlinkMessage<NetfilterMessage> {
    request(NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0), message), flags)
}

/// The borders of a batch name the subsystem that it is for.
fn control(message: ControlMessage) -> NetlinkMessage<NetfilterMessage> {
    let subsystem = libc::NFNL_SUBSYS_NFTABLES as u16;
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, subsystem);
    request(NetfilterMessage::new(header, message), 0)
}

fn request(message: NetfilterMessage, flags: u16) -> NetlinkMessage<NetfilterMessage> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    NetlinkMessage::new(header, NetlinkPayload::from(message))
}
