//! The rules that lead what goes to port 53 of 127.0.0.11 to the ports of the resolver's sockets, and give its answers
//! the port that was asked.
//!
//! `table inet covey-dns`, in the container's network namespace, is ours alone. Ports are written into packets of the
//! loopback, without a translation of addresses: that would have the kernel track all connections of the container, at
//! the price of a tenth of its round trips.

mod attribute;
mod exchange;

use std::io;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, ChecksumType, Cmp, DataAttribute, Expressions, Hook, HookNumber, Immediate,
    InetHookNumber, ListAttribute, Meta, MetaKey, NfTablesMessage, Operator, Payload, Register,
    RuleAttribute, RuleMessage, TableAttribute, TableMessage, Verdict, VerdictAttribute,
};

use self::exchange::{ask, attributes_of, batch};
use crate::sockets::ADDRESS;

/// Our table, of the family `inet`.
const TABLE: &str = "covey-dns";
/// Its only chain.
const CHAIN: &str = "output";
/// Before anybody else looks (`NF_IP_PRI_RAW` of linux/netfilter_ipv4.h).
const PRIORITY: i32 = -300;
/// Where containers ask (RFC 1035 section 4.2).
const PORT: u16 = 53;
/// The loopback's number in every namespace (`LOOPBACK_IFINDEX` of net/flow.h in the kernel).
const LOOPBACK: u32 = 1;
/// Where source and destination are in a header of IPv4 (RFC 791), and their ports in one of UDP or TCP, in bytes.
const SOURCE: [u32; 2] = [12, 0];
const DESTINATION: [u32; 2] = [16, 2];
/// Where the checksum is in a header of UDP (RFC 768) and of TCP (RFC 9293), in bytes.
const UDP_CHECKSUM: u32 = 6;
const TCP_CHECKSUM: u32 = 16;

/// The rule could not be read or made. What rules there were are as they were.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// The socket, or the namespace that it was to be in.
    #[error("netlink socket")]
    Socket(#[from] io::Error),
    /// The kernel refused, with this error number.
    #[error("refused by nf_tables")]
    Refused(#[source] io::Error),
    /// The kernel's answer cannot be read.
    #[error("netlink answer cannot be read")]
    Answer,
}

impl RedirectError {
    fn is(&self, number: i32) -> bool {
        matches!(self, Self::Refused(error) if error.raw_os_error() == Some(number))
    }
}

/// Where the rule leads.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub udp: u16,
    pub tcp: u16,
}

/// Sees to it that our table, in this thread's network namespace, is as it is to be. True if it had to be made.
pub fn mend(ports: Ports) -> Result<bool, RedirectError> {
    let is_there = is_there(ports)?;
    if !is_there {
        program(ports)?;
    }
    Ok(!is_there)
}

/// Whether our chain, in this thread's network namespace, has our hook and our rules, and no others.
pub fn is_there(ports: Ports) -> Result<bool, RedirectError> {
    let wanted = NfTablesMessage::NewChain(chain());
    let named = [ChainAttribute::Table(TABLE.to_owned()), ChainAttribute::Name(CHAIN.to_owned())];
    let asked = NfTablesMessage::GetChain(ChainMessage { attributes: named.into() });
    let found = match ask(asked, 0, 1) {
        Err(error) if error.is(libc::ENOENT) => return Ok(false),
        found => found?,
    };
    if !found.iter().all(|found| attribute::holds(found, &attributes_of(&wanted))) {
        return Ok(false);
    }
    let wanted = rules(ports).map(NfTablesMessage::NewRule);
    let named = [RuleAttribute::Table(TABLE.to_owned()), RuleAttribute::Chain(CHAIN.to_owned())];
    let asked = NfTablesMessage::GetRule(RuleMessage { attributes: named.into() });
    let found = ask(asked, NLM_F_DUMP, wanted.len() + 1)?;
    let alike = |(found, wanted): (&Vec<u8>, _)| attribute::holds(found, &attributes_of(wanted));
    Ok(found.len() == wanted.len() && found.iter().zip(&wanted).all(alike))
}

/// Makes our table, or makes it anew, as one atomic batch.
fn program(ports: Ports) -> Result<(), RedirectError> {
    let table = || TableMessage { attributes: vec![TableAttribute::Name(TABLE.to_owned())] };
    let made = |flags| {
        let mut made = vec![
            (NfTablesMessage::NewTable(table()), NLM_F_CREATE | flags),
            (NfTablesMessage::NewChain(chain()), NLM_F_CREATE),
        ];
        made.extend(rules(ports).map(|rule| (NfTablesMessage::NewRule(rule), NLM_F_CREATE | NLM_F_APPEND)));
        made
    };
    match batch(made(NLM_F_EXCL)) {
        // Only then, for a batch that deletes anything takes the kernel ten times as long.
        Err(error) if error.is(libc::EEXIST) => {
            let deleted = vec![(NfTablesMessage::DeleteTable(table()), 0)];
            batch([deleted, made(0)].concat())
        }
        done => done,
    }
}

fn chain() -> ChainMessage {
    ChainMessage {
        attributes: vec![
            ChainAttribute::Table(TABLE.to_owned()),
            ChainAttribute::Name(CHAIN.to_owned()),
            ChainAttribute::Hook(vec![
                Hook::Number(HookNumber::Inet(InetHookNumber::LocalOut)),
                Hook::Priority(PRIORITY.cast_unsigned()),
            ]),
            ChainAttribute::Policy(libc::NF_ACCEPT as u32),
            ChainAttribute::Type("filter".to_owned()),
        ],
    }
}

fn rules(ports: Ports) -> [RuleMessage; 5] {
    let (udp, tcp) = ((libc::IPPROTO_UDP, UDP_CHECKSUM), (libc::IPPROTO_TCP, TCP_CHECKSUM));
    [
        elsewhere(),
        rule(DESTINATION, udp, PORT, ports.udp),
        rule(SOURCE, udp, ports.udp, PORT),
        rule(DESTINATION, tcp, PORT, ports.tcp),
        rule(SOURCE, tcp, ports.tcp, PORT),
    ]
}

/// `oif != lo return`: the container's packets to others pay for one comparison.
fn elsewhere() -> RuleMessage {
    let end = vec![VerdictAttribute::Code(Verdict::Return)];
    rule_of(vec![
        meta(MetaKey::Oif),
        compare(Operator::NotEqual, LOOPBACK.to_ne_bytes().to_vec()),
        Expressions::Immediate(vec![
            Immediate::DestinationRegister(Register::Verdict),
            Immediate::Data(DataAttribute::Verdict(end)),
        ]),
    ])
}

/// `ip daddr 127.0.0.11 PROTOCOL dport FROM PROTOCOL dport set TO`, or `saddr` and `sport`.
fn rule([address, port]: [u32; 2], (protocol, checksum): (i32, u32), from: u16, to: u16) -> RuleMessage {
    rule_of(vec![
        meta(MetaKey::Nfproto),
        equals(vec![libc::NFPROTO_IPV4 as u8]),
        payload(libc::NFT_PAYLOAD_NETWORK_HEADER, address, 4),
        equals(ADDRESS.octets().to_vec()),
        meta(MetaKey::L4Proto),
        equals(vec![protocol as u8]),
        payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, port, 2),
        equals(from.to_be_bytes().to_vec()),
        Expressions::Immediate(vec![
            Immediate::DestinationRegister(Register::Reg1),
            Immediate::Data(DataAttribute::Value(to.to_be_bytes().to_vec())),
        ]),
        Expressions::Payload(vec![
            Payload::SourceRegister(Register::Reg1),
            Payload::Base(libc::NFT_PAYLOAD_TRANSPORT_HEADER as u32),
            Payload::Offset(port),
            Payload::Len(2),
            Payload::CsumType(ChecksumType::Inet),
            Payload::CsumOffset(checksum),
        ]),
    ])
}

fn rule_of(expressions: Vec<Expressions>) -> RuleMessage {
    RuleMessage {
        attributes: vec![
            RuleAttribute::Table(TABLE.to_owned()),
            RuleAttribute::Chain(CHAIN.to_owned()),
            RuleAttribute::Expressions(expressions.into_iter().map(ListAttribute::from).collect()),
        ],
    }
}

fn meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(Register::Reg1)])
}

fn payload(header: i32, offset: u32, length: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(header as u32),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

fn equals(with: Vec<u8>) -> Expressions {
    compare(Operator::Equal, with)
}

fn compare(operator: Operator, with: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(with)),
    ])
}
