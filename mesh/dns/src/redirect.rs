//! The rule that leads what goes to port 53 of 127.0.0.11 to the ports of the resolver's sockets.
//!
//! `table inet covey-dns`, in the container's network namespace, is ours alone. Only the destination is translated;
//! connection tracking gives answers the source that was asked.

use std::io;

use netlink_packet_core::{
    DecodeError, DefaultNla, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, Cmp, DataAttribute, Expressions, Hook, HookNumber, Immediate,
        InetHookNumber, ListAttribute, Meta, MetaKey, NfTablesMessage, Operator, Payload, Register,
        RuleAttribute, RuleMessage, TableAttribute, TableMessage,
    },
    none::ControlMessage,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::sockets::ADDRESS;

/// Our table, of the family `inet`.
const TABLE: &str = "covey-dns";
/// Its only chain.
const CHAIN: &str = "output";
/// Where destinations are translated (`NF_IP_PRI_NAT_DST` of linux/netfilter_ipv4.h).
const PRIORITY: i32 = -100;
/// Where containers ask (RFC 1035 section 4.2).
const PORT: u16 = 53;
/// Where the destination is in a header of IPv4 (RFC 791), and the destination port in one of UDP or TCP, in bytes.
const DESTINATION_OFFSET: u32 = 16;
const PORT_OFFSET: u32 = 2;
/// Attributes of the expression `nat`, and the kind that translates destinations (linux/netfilter/nf_tables.h).
const NAT_TYPE: u16 = 1;
const NAT_FAMILY: u16 = 2;
const NAT_PORT_REGISTER: u16 = 5;
const NAT_DESTINATION: u32 = 1;

/// The rule could not be made. What rules there were are as they were.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// The socket itself.
    #[error("netlink socket")]
    Socket(#[from] io::Error),
    /// The kernel refused, with this error number.
    #[error("refused by nf_tables")]
    Refused(#[source] io::Error),
    /// The kernel's answer cannot be read.
    #[error("netlink answer cannot be read")]
    Answer(#[from] DecodeError),
}

/// Makes our table, or makes it anew, in this thread's network namespace, as one atomic batch.
pub fn program(udp: u16, tcp: u16) -> Result<(), RedirectError> {
    let table = || TableMessage { attributes: vec![TableAttribute::Name(TABLE.to_owned())] };
    let made = |flags| {
        vec![
            (NfTablesMessage::NewTable(table()), NLM_F_CREATE | flags),
            (NfTablesMessage::NewChain(chain()), NLM_F_CREATE),
            (NfTablesMessage::NewRule(rule(libc::IPPROTO_UDP, udp)), NLM_F_CREATE | NLM_F_APPEND),
            (NfTablesMessage::NewRule(rule(libc::IPPROTO_TCP, tcp)), NLM_F_CREATE | NLM_F_APPEND),
        ]
    };
    match batch(made(NLM_F_EXCL)) {
        // Only then, for a batch that deletes anything takes the kernel ten times as long.
        Err(RedirectError::Refused(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
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
            ChainAttribute::Type("nat".to_owned()),
        ],
    }
}

/// `ip daddr 127.0.0.11 PROTOCOL dport 53 dnat ip to :PORT`
fn rule(protocol: i32, port: u16) -> RuleMessage {
    let nat = |kind, value: u32| DefaultNla::new(kind, value.to_be_bytes().to_vec());
    let expressions = [
        meta(MetaKey::Nfproto),
        equals(vec![libc::NFPROTO_IPV4 as u8]),
        payload(libc::NFT_PAYLOAD_NETWORK_HEADER, DESTINATION_OFFSET, 4),
        equals(ADDRESS.octets().to_vec()),
        meta(MetaKey::L4Proto),
        equals(vec![protocol as u8]),
        payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, PORT_OFFSET, 2),
        equals(PORT.to_be_bytes().to_vec()),
        Expressions::Immediate(vec![
            Immediate::DestinationRegister(Register::Reg1),
            Immediate::Data(DataAttribute::Value(port.to_be_bytes().to_vec())),
        ]),
        Expressions::Other {
            expression_type: "nat".to_owned(),
            attributes: vec![
                nat(NAT_TYPE, NAT_DESTINATION),
                nat(NAT_FAMILY, libc::NFPROTO_IPV4 as u32),
                nat(NAT_PORT_REGISTER, libc::NFT_REG_1 as u32),
            ],
        },
    ];
    RuleMessage {
        attributes: vec![
            RuleAttribute::Table(TABLE.to_owned()),
            RuleAttribute::Chain(CHAIN.to_owned()),
            RuleAttribute::Expressions(expressions.map(ListAttribute::from).into()),
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
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(Operator::Equal),
        Cmp::Data(DataAttribute::Value(with)),
    ])
}

/// Has the kernel take all these steps at once, or none of them; returns when that is done. Each has its flags.
fn batch(steps: Vec<(NfTablesMessage, u16)>) -> Result<(), RedirectError> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;

    let last = steps.len();
    let mut messages = vec![control(ControlMessage::BatchBegin)];
    for (place, (step, flags)) in (1..).zip(steps) {
        // The end of a batch is acknowledged since Linux 6.10 only, its last step always.
        let acknowledge = if place == last { NLM_F_ACK } else { 0 };
        let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
        messages.push(request(NetfilterMessage::new(header, step), flags | acknowledge));
    }
    messages.push(control(ControlMessage::BatchEnd));

    let mut packet = Vec::new();
    for mut message in messages {
        message.finalize();
        let start = packet.len();
        packet.resize(start + message.buffer_len(), 0);
        message.serialize(&mut packet[start..]);
    }
    socket.send(&packet, 0)?;
    // The first answer is the acknowledgement, or says which step was refused.
    let (answer, _) = socket.recv_from_full()?;
    match NetlinkMessage::<NetfilterMessage>::deserialize(&answer)?.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(RedirectError::Refused(error.to_io())),
        _ => Ok(()),
    }
}

/// The borders of a batch name the subsystem that it is for.
fn control(message: ControlMessage) -> NetlinkMessage<NetfilterMessage> {
    let subsystem = libc::NFNL_SUBSYS_NFTABLES as u16;
    request(
        NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, subsystem), message),
        0,
    )
}

fn request(message: NetfilterMessage, flags: u16) -> NetlinkMessage<NetfilterMessage> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    NetlinkMessage::new(header, NetlinkPayload::from(message))
}
