//! Exchanges with nf_tables in this thread's network namespace.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily, nftables::NfTablesMessage, none::ControlMessage,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::RedirectError;

/// Bytes of a netlink header, and of one with netfilter's own (linux/netfilter/nfnetlink.h).
const HEADER: usize = 16;
const HEADERS: usize = HEADER + 4;

/// Has the kernel take all these steps at once, or none of them; returns when that is done. Each has its flags.
pub fn batch(steps: Vec<(NfTablesMessage, u16)>) -> Result<(), RedirectError> {
    let last = steps.len();
    let mut packet = border(ControlMessage::BatchBegin);
    for (place, (step, flags)) in (1..).zip(steps) {
        // The end of a batch is acknowledged since Linux 6.10 only, its last step always.
        let acknowledge = if place == last { NLM_F_ACK } else { 0 };
        packet.extend(request(step, flags | acknowledge));
    }
    packet.extend(border(ControlMessage::BatchEnd));
    let socket = open()?;
    socket.send(&packet, 0)?;
    // The first answer is the acknowledgement, or says which step was refused.
    let (answer, _) = socket.recv_from_full()?;
    Answers(&answer).next().ok_or(RedirectError::Answer)?.map(drop)
}

/// The attributes of each of the first `most` messages that answer this one. As many must come, unless what is asked
/// for is a dump.
pub fn ask(message: NfTablesMessage, flags: u16, most: usize) -> Result<Vec<Vec<u8>>, RedirectError> {
    let socket = open()?;
    socket.send(&request(message, flags), 0)?;
    let mut found = Vec::new();
    while found.len() < most {
        let (answer, _) = socket.recv_from_full()?;
        if answer.is_empty() {
            return Err(RedirectError::Answer);
        }
        for answer in Answers(&answer) {
            match answer? {
                Answer::Message(attributes) => found.push(attributes.to_vec()),
                Answer::Done => return Ok(found),
            }
        }
    }
    Ok(found)
}

/// What follows the headers of a message.
pub fn attributes_of(message: &NfTablesMessage) -> Vec<u8> {
    request(message.clone(), 0).split_off(HEADERS)
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn request(message: NfTablesMessage, flags: u16) -> Vec<u8> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
    written(NetfilterMessage::new(header, message), flags)
}

/// The borders of a batch name the subsystem that it is for.
fn border(message: ControlMessage) -> Vec<u8> {
    let subsystem = libc::NFNL_SUBSYS_NFTABLES as u16;
    written(
        NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, subsystem), message),
        0,
    )
}

fn written(message: NetfilterMessage, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// One message of an answer.
enum Answer<'a> {
    /// Its attributes.
    Message(&'a [u8]),
    /// All is said, or done.
    Done,
}

/// The messages of a packet.
struct Answers<'a>(&'a [u8]);

impl<'a> Iterator for Answers<'a> {
    type Item = Result<Answer<'a>, RedirectError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let answer = self.read();
        if answer.is_none() {
            self.0 = &[];
        }
        Some(answer.unwrap_or(Err(RedirectError::Answer)))
    }
}

impl<'a> Answers<'a> {
    /// The next message; none where the bytes are of no message.
    fn read(&mut self) -> Option<Result<Answer<'a>, RedirectError>> {
        let length = u32::from_ne_bytes(*self.0.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*self.0.get(4..)?.first_chunk()?);
        let message = self.0.get(..length).filter(|message| message.len() >= HEADER)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(match i32::from(kind) {
            libc::NLMSG_ERROR => match i32::from_ne_bytes(*message.get(HEADER..)?.first_chunk()?) {
                0 => Ok(Answer::Done),
                number => Err(RedirectError::Refused(io::Error::from_raw_os_error(number.saturating_neg()))),
            },
            libc::NLMSG_DONE => Ok(Answer::Done),
            _ => Ok(Answer::Message(message.get(HEADERS..)?)),
        })
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_netfilter::nftables::RuleMessage;

    use super::*;

    #[test]
    fn an_answer_that_is_cut_is_no_answer() {
        let message = request(NfTablesMessage::GetRule(RuleMessage { attributes: Vec::new() }), 0);
        assert!(matches!(Answers(&message).next(), Some(Ok(Answer::Message([])))));
        for length in 1..message.len() {
            let mut answers = Answers(&message[..length]);
            assert!(matches!(answers.next(), Some(Err(RedirectError::Answer))), "{length} bytes");
            assert!(answers.next().is_none());
        }
    }
}
