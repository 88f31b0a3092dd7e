//! Questions out of bytes, and answers into as many bytes as there is room for. The codec is hickory's.

use std::net::IpAddr;

use covey_mesh::names::{Answer, Kind, Question, Record as Found};
use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, PTR, SRV},
    },
};

/// Longest query, in bytes. Names, ports and options of one fit in a tenth of it.
pub const QUERY_MAX: usize = 4096;
/// Bytes of an answer over UDP that any client takes (RFC 1035 section 4.2.1).
pub const UDP_MIN: usize = 512;
/// Most bytes of an answer over UDP, whatever the client would take: loopback does not fragment this.
const UDP_MAX: usize = 4096;
/// Most bytes of an answer over TCP: its length has two bytes.
pub const TCP_MAX: usize = u16::MAX as usize;
/// What we take over UDP from others, in bytes: no network fragments this (DNS flag day 2020).
const UPSTREAM_UDP: u16 = 1232;
/// Bytes of a header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// Least bytes of a record of an address: pointer to the name, type, class, lifetime, length, IPv4.
const RECORD_MIN: usize = 16;
/// How long our answers may be kept, in seconds. Asking again costs no way through any network, while each second
/// that a client keeps an answer it talks to a task that may be gone. Not 0: some clients take that for a fault.
const LIFETIME: u32 = 1;

/// A query that can be answered.
#[derive(Clone, Debug)]
pub struct Asked {
    metadata: Metadata,
    query: Query,
    edns: Option<Edns>,
}

/// Bytes that hold no query which can be answered.
#[derive(Debug)]
pub enum Unanswerable {
    /// Not a query at all, or an answer: answering could make two servers talk to each other for ever.
    Silent,
    /// A query; this says what is wrong with it.
    Refused(Box<Message>),
}

impl Asked {
    /// Reads a query.
    pub fn read(bytes: &[u8]) -> Result<Self, Unanswerable> {
        // The header begins with the id; then one bit tells answers from queries, and four the operation.
        let Some(&[id_high, id_low, flags, ..]) = bytes.first_chunk::<HEADER>() else {
            return Err(Unanswerable::Silent);
        };
        if flags & 0x80 != 0 {
            return Err(Unanswerable::Silent);
        }
        let op_code = OpCode::from_u8(flags >> 3 & 0x0f);
        let refused = |code| {
            let id = u16::from_be_bytes([id_high, id_low]);
            Err(Unanswerable::Refused(Box::new(Message::error_msg(id, op_code, code))))
        };
        if op_code != OpCode::Query {
            return refused(ResponseCode::NotImp);
        }
        let Ok(Message { metadata, mut queries, edns, .. }) = Message::from_vec(bytes) else {
            return refused(ResponseCode::FormErr);
        };
        let (Some(query), true) = (queries.pop(), queries.is_empty()) else {
            return refused(ResponseCode::FormErr);
        };
        let asked = Self { metadata, query, edns };
        let refused = |code| Err(Unanswerable::Refused(Box::new(asked.reply(code))));
        if asked.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
            return refused(ResponseCode::BADVERS);
        }
        if asked.query.query_class != DNSClass::IN {
            return refused(ResponseCode::Refused);
        }
        Ok(asked)
    }

    /// The question, unless its name is one that none of ours could be.
    pub fn question(&self) -> Option<Question> {
        let kind = match self.query.query_type {
            RecordType::A => Kind::V4,
            RecordType::AAAA => Kind::V6,
            RecordType::PTR => Kind::Pointer,
            RecordType::SRV => Kind::Service,
            _ => Kind::Other,
        };
        let labels: Option<Vec<&str>> = self.query.name.iter().map(label).collect();
        labels.map(|labels| Question::new(&labels.join("."), kind))
    }

    /// How many bytes of an answer over UDP the client takes.
    pub fn room(&self) -> usize {
        self.edns.as_ref().map_or(UDP_MIN, |edns| usize::from(edns.max_payload()).clamp(UDP_MIN, UDP_MAX))
    }

    /// An answer without records.
    pub fn reply(&self, code: ResponseCode) -> Message {
        let mut message = Message::response(self.metadata.id, OpCode::Query);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.add_query(self.query.clone());
        message.edns = self.edns.as_ref().map(|theirs| {
            let mut ours = Edns::new();
            ours.set_max_payload(QUERY_MAX as u16).set_dnssec_ok(theirs.flags().dnssec_ok);
            ours
        });
        message
    }

    /// What our own networks know; `None` if others may know more, or they themselves in a moment.
    ///
    /// No answer says how long a *lack* of records may be kept (no SOA), so nobody may keep it (RFC 2308 section 5).
    pub fn answered(&self, answer: Answer) -> Option<Message> {
        let code = match answer {
            Answer::Unheard | Answer::Unknown => return None,
            Answer::Unavailable => ResponseCode::ServFail,
            Answer::Records(_) | Answer::NoData => ResponseCode::NoError,
        };
        let mut message = self.reply(code);
        message.metadata.authoritative = code == ResponseCode::NoError;
        if let Answer::Records(records) = answer {
            records.into_iter().for_each(|record| self.add(&mut message, record));
        }
        Some(message)
    }

    fn add(&self, message: &mut Message, found: Found) {
        let owner = &self.query.name;
        let data = match found {
            Found::Address(address) => of_address(address),
            Found::Pointer(name) => match written(&name) {
                Some(name) => RData::PTR(PTR(name)),
                None => return,
            },
            Found::Service { port, target, addresses } => {
                let Some(target) = written(&target) else { return };
                let record = |address| Record::from_rdata(target.clone(), LIFETIME, of_address(address));
                message.additionals.extend(addresses.into_iter().map(record));
                RData::SRV(SRV::new(0, 0, port, target))
            }
        };
        message.add_answer(Record::from_rdata(owner.clone(), LIFETIME, data));
    }

    /// The same question, asked by us under that id.
    pub fn forwarded(&self, id: u16) -> Message {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = self.metadata.recursion_desired;
        message.metadata.checking_disabled = self.metadata.checking_disabled;
        message.metadata.authentic_data = self.metadata.authentic_data;
        message.add_query(self.query.clone());
        let mut edns = Edns::new();
        let dnssec = self.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        edns.set_max_payload(UPSTREAM_UDP).set_dnssec_ok(dnssec);
        message.set_edns(edns);
        message
    }

    /// The message in these bytes, if it answers the question that was forwarded under that id.
    pub fn answer_in(&self, id: u16, bytes: &[u8]) -> Option<Message> {
        let message = Message::from_vec(bytes).ok()?;
        let ours = message.metadata.id == id
            && message.metadata.message_type == MessageType::Response
            && message.metadata.op_code == OpCode::Query
            && message.queries == [self.query.clone()];
        ours.then_some(message)
    }

    /// What another server has answered, in the terms of this query.
    pub fn relayed(&self, theirs: Message) -> Message {
        let mut message = self.reply(theirs.metadata.response_code);
        message.metadata.authentic_data = theirs.metadata.authentic_data;
        message.answers = theirs.answers;
        message.authorities = theirs.authorities;
        message.additionals = theirs.additionals;
        message
    }
}

/// Text without the border of labels in it, which is all that names of ours have.
fn label(bytes: &[u8]) -> Option<&str> {
    let plain = bytes.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
    if plain { std::str::from_utf8(bytes).ok() } else { None }
}

/// The name that is written so, unless it is too long for any.
fn written(name: &str) -> Option<Name> {
    Name::from_labels(name.split('.').map(str::as_bytes)).ok()
}

fn of_address(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// The message in at most `room` bytes: what does not fit is left out and the message says so, so that the client
/// asks again over TCP. As many answers as fit stay, for clients that know no TCP. `None` if it cannot be written.
pub fn fitted(mut message: Message, room: usize) -> Option<Vec<u8>> {
    // No more than this fits anyhow; it bounds the work below.
    let possible = room / RECORD_MIN;
    if message.answers.len() <= possible {
        let whole = message.to_vec().ok()?;
        if whole.len() <= room {
            return Some(whole);
        }
        // Without what is only helpful it may be whole still.
        message.additionals.clear();
        message.authorities.clear();
    }
    let answers = std::mem::take(&mut message.answers);
    let with = |count: usize| {
        let mut part = message.clone();
        part.metadata.truncation = count < answers.len();
        part.answers = answers[..count].to_vec();
        part.to_vec().ok().filter(|bytes| bytes.len() <= room)
    };
    let (mut best, mut fits, mut over) = (with(0)?, 0, answers.len().min(possible) + 1);
    while over - fits > 1 {
        let middle = fits.midpoint(over);
        match with(middle) {
            Some(bytes) => (best, fits) = (bytes, middle),
            None => over = middle,
        }
    }
    Some(best)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    /// Random packets, most of them not far from a query.
    const PACKETS: usize = 100_000;

    fn asked(room: Option<u16>) -> Asked {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii("web.").unwrap(), RecordType::A));
        message.edns = room.map(|room| {
            let mut edns = Edns::new();
            edns.set_max_payload(room);
            edns
        });
        Asked::read(&message.to_vec().unwrap()).unwrap()
    }

    fn addresses(count: u32) -> Answer {
        let address = |number: u32| Found::Address(std::net::Ipv4Addr::from(number).into());
        Answer::Records((0..count).map(address).collect())
    }

    #[test]
    fn no_bytes_bring_it_down_and_every_reply_fits() {
        let mut random = StdRng::seed_from_u64(1);
        let seeds = [asked(None).forwarded(1), asked(Some(512)).answered(addresses(3)).unwrap()];
        let seeds = seeds.map(|seed| seed.to_vec().unwrap());
        let mut read = 0;
        for packet in 0..PACKETS {
            let mut bytes = seeds[packet % seeds.len()].clone();
            bytes[2] &= 0x7f;
            for _ in 0..random.random_range(0..6) {
                let place = random.random_range(0..bytes.len());
                bytes[place] = random.random();
            }
            bytes.truncate(random.random_range(0..bytes.len() * 2));
            let _ = asked(None).answer_in(7, &bytes);
            let (message, room) = match Asked::read(&bytes) {
                Err(Unanswerable::Silent) => continue,
                Err(Unanswerable::Refused(message)) => (*message, UDP_MIN),
                Ok(query) => {
                    read += 1;
                    let _ = query.question();
                    (query.answered(addresses(40)).unwrap(), query.room())
                }
            };
            assert!(fitted(message, room).is_some_and(|bytes| bytes.len() <= room));
        }
        assert!(read > PACKETS / 20, "only {read} were queries");
    }

    #[test]
    fn as_many_answers_stay_as_fit_to_the_byte() {
        let asked = asked(Some(4096));
        let whole = fitted(asked.answered(addresses(20)).unwrap(), TCP_MAX).unwrap().len();
        for (room, stay) in [(whole, 20), (whole - 1, 19), (whole - 16, 19), (whole - 17, 18)] {
            let bytes = fitted(asked.answered(addresses(20)).unwrap(), room).unwrap();
            let message = Message::from_vec(&bytes).unwrap();
            assert_eq!((message.answers.len(), message.metadata.truncation), (stay, stay < 20), "{room}");
            assert!(message.edns.is_some(), "{room}");
        }
        let all = fitted(asked.answered(addresses(2048)).unwrap(), TCP_MAX).unwrap();
        assert_eq!(Message::from_vec(&all).unwrap().answers.len(), 2048);
    }

    #[test]
    fn what_only_helps_goes_first_and_the_answer_is_whole_without_it() {
        let addresses = (0..40).map(|number| std::net::Ipv4Addr::from(number).into()).collect();
        let port = Found::Service { port: 80, target: "web.shop".into(), addresses };
        let message = asked(None).answered(Answer::Records(vec![port])).unwrap();
        assert_eq!(message.additionals.len(), 40);
        let message = Message::from_vec(&fitted(message, UDP_MIN).unwrap()).unwrap();
        assert_eq!((message.answers.len(), message.additionals.len()), (1, 0));
        assert!(!message.metadata.truncation);
    }

    #[test]
    fn a_target_too_long_for_any_name_is_left_out() {
        for name in ["a".repeat(64), vec!["a"; 130].join("."), "a..b".into(), String::new()] {
            let message = asked(None).answered(Answer::Records(vec![Found::Pointer(name.clone())])).unwrap();
            assert!(message.answers.is_empty(), "{name}");
        }
    }
}
