//! How balancing lies in maps and chains: two maps with all services, and one chain for each way to balance, which
//! all services of that way share. So neither a packet nor a change pays for the number of services.
//!
//! A key is `address . protocol . port`; for a frontend of an address protocol and port are zero, for a port of any
//! own address the address is. `service` says of a key in which way it is balanced and among how many, `balance`
//! leads from there to the chain, which picks a slot and finds it in `backend` by `key . slot`. That `service` holds
//! a number instead of a verdict saves the kernel to follow ten thousand verdicts at every change.

use std::net::IpAddr;

use crate::{
    expression::{self as e, Base, Meta, Register, Rule},
    object::{Form, Type, Value},
    service::{Backend, Balance, Frontend, Protocol, Virtual},
};

/// A version of IP, and where its addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ip {
    V4,
    V6,
}

impl Ip {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// `NFPROTO_IPV4`, `NFPROTO_IPV6` of linux/netfilter.h.
    pub const fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// The type of an address.
    pub const fn address(self) -> Type {
        match self {
            Self::V4 => Type::IPV4,
            Self::V6 => Type::IPV6,
        }
    }

    /// Bytes of an address.
    pub const fn octets(self) -> u32 {
        self.address().length
    }

    /// Of this version, and no other.
    pub fn only(self) -> [e::Expression; 2] {
        [e::meta(Meta::Family, VALUE), e::is(VALUE, &[self.number()])]
    }

    /// Where the source address is in the header (RFC 791, RFC 8200), in bytes.
    const fn source_offset(self) -> u32 {
        match self {
            Self::V4 => 12,
            Self::V6 => 8,
        }
    }

    pub fn source(self, to: Register) -> e::Expression {
        e::payload(Base::Network, self.source_offset(), self.octets(), to)
    }

    pub fn destination(self, to: Register) -> e::Expression {
        e::payload(Base::Network, self.source_offset() + self.octets(), self.octets(), to)
    }

    /// A name with the version.
    pub fn name(self, of: &str) -> String {
        match self {
            Self::V4 => format!("{of}4"),
            Self::V6 => format!("{of}6"),
        }
    }

    /// The register behind an address that is in the first.
    pub const fn behind(self) -> u8 {
        (self.octets() / FIELD) as u8
    }
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Bytes of a register, to which each field of a key is padded.
const FIELD: u32 = 4;
/// Where keys begin.
pub(crate) const KEY: Register = Register(0);
/// Where everything else is: behind the longest key.
pub(crate) const VALUE: Register = Register(8);

pub(crate) const SERVICE: &str = "service";
pub(crate) const BACKEND: &str = "backend";
pub(crate) const BALANCE: &str = "balance";

/// The three maps of one version.
pub(crate) fn maps(ip: Ip) -> [(String, Form); 3] {
    let key = ip.address().and(Type::PROTOCOL).and(Type::PORT);
    [
        (ip.name(SERVICE), Form::map(key, Type::MARK)),
        (ip.name(BACKEND), Form::map(key.and(Type::MARK), ip.address().and(Type::PORT))),
        (ip.name(BALANCE), Form::verdicts(Type::MARK)),
    ]
}

/// Which fields of a key say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// The address alone.
    Address,
    /// Address, protocol and port.
    Port,
    /// Protocol and port.
    AnyPort,
}

impl Shape {
    const ALL: [Self; 3] = [Self::Address, Self::Port, Self::AnyPort];

    const fn of(frontend: &Frontend) -> Self {
        match frontend {
            Frontend::Address(_) => Self::Address,
            Frontend::Port { address, .. } if address.is_unspecified() => Self::AnyPort,
            Frontend::Port { .. } => Self::Port,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Port => "port",
            Self::AnyPort => "anyport",
        }
    }

    /// Reads a packet's key.
    fn key(self, ip: Ip) -> Rule {
        let (protocol, port) = (Register(ip.behind()), Register(ip.behind() + 1));
        let address = match self {
            Self::AnyPort => e::immediate(KEY, &vec![0; ip.octets() as usize]),
            Self::Address | Self::Port => ip.destination(KEY),
        };
        match self {
            Self::Address => vec![address, e::immediate(protocol, &[0; 2 * FIELD as usize])],
            Self::Port | Self::AnyPort => vec![
                address,
                e::meta(Meta::Protocol, protocol),
                // The destination's port is at the same place in TCP, UDP and SCTP.
                e::payload(Base::Transport, 2, 2, port),
            ],
        }
    }

    /// `… map @service vmap @balance`.
    pub fn rule(self, ip: Ip) -> Rule {
        let mut rule = ip.only().to_vec();
        rule.extend(self.key(ip));
        rule.push(e::look_up(&ip.name(SERVICE), KEY, VALUE));
        rule.push(e::go_to(&ip.name(BALANCE), VALUE));
        rule
    }
}

/// Frontends take turns with those of the same lane only, so that two services that call each other do not keep
/// the same step.
const LANES: u8 = 32;

/// One way to balance: what a chain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub ip: Ip,
    shape: Shape,
    balance: Balance,
    /// Which of several chains of the same kind.
    lane: u8,
    /// Backends to choose from. Without any, clients are refused.
    count: u16,
}

impl Way {
    fn of(frontend: &Frontend, service: &Virtual) -> Self {
        let count = service.backends.len() as u16;
        // Without a choice every way is the same.
        let balance = if count > 1 { service.balance } else { Balance::default() };
        let lane = match balance {
            Balance::RoundRobin => {
                key(frontend).iter().fold(0u8, |lane, byte| lane.wrapping_mul(31).wrapping_add(*byte)) % LANES
            }
            _ => 0,
        };
        Self { ip: Ip::of(frontend.address()), shape: Shape::of(frontend), balance, lane, count }
    }

    /// As the value of `service`.
    pub fn number(self) -> Vec<u8> {
        let [high, low] = self.count.to_be_bytes();
        vec![(self.shape as u8) << 4 | self.balance as u8, self.lane, high, low]
    }

    /// From a value of `service`.
    fn read(ip: Ip, number: &[u8]) -> Option<Self> {
        let &[kind, lane, high, low] = number else { return None };
        let shape = Shape::ALL.into_iter().find(|shape| *shape as u8 == kind >> 4)?;
        let balance = Balance::ALL.into_iter().find(|balance| *balance as u8 == kind & 0xf)?;
        Some(Self { ip, shape, balance, lane, count: u16::from_be_bytes([high, low]) })
    }

    /// The name of its chain.
    pub fn chain(self) -> String {
        let (place, count) = (self.ip.name(self.shape.name()), self.count);
        match self.balance {
            _ if count == 0 => format!("{place}-refuse"),
            Balance::Random => format!("{place}-random-{count}"),
            Balance::RoundRobin => format!("{place}-round-robin-{count}-{}", self.lane),
            Balance::SourceHash => format!("{place}-source-hash-{count}"),
        }
    }

    /// The rules of its chain.
    pub fn rules(self) -> Vec<Rule> {
        let count = self.count.into();
        let slot = Register(self.ip.behind() + 2);
        let first = self.translate(vec![e::immediate(slot, &[0; FIELD as usize])]);
        let pick = match self.balance {
            _ if count == 0 => return refuse(),
            _ if count == 1 => return vec![first],
            Balance::Random => vec![e::by_chance(count, slot)],
            Balance::RoundRobin => vec![e::in_turn(count, slot)],
            Balance::SourceHash => {
                vec![self.ip.source(VALUE), e::hash(VALUE, self.ip.octets(), count, slot)]
            }
        };
        // A slot that somebody removed by hand, or that goes in this very moment: the first one is always there.
        vec![self.translate(pick), first]
    }

    fn translate(self, pick: Rule) -> Rule {
        let port = match self.shape {
            Shape::Address => None,
            Shape::Port | Shape::AnyPort => Some(Register(VALUE.0 + self.ip.behind())),
        };
        let mut rule = self.shape.key(self.ip);
        rule.extend(pick);
        rule.push(e::look_up(&self.ip.name(BACKEND), KEY, VALUE));
        rule.push(e::translate_destination(self.ip.number(), VALUE, port));
        rule
    }
}

/// Tells clients at once that nobody answers.
fn refuse() -> Vec<Rule> {
    let tcp = [e::meta(Meta::Protocol, VALUE), e::is(VALUE, &[Protocol::Tcp.number()]), e::reset()];
    vec![tcp.into(), vec![e::refuse()]]
}

/// One element: the map, the key and the value.
pub(crate) type Element = (String, Vec<u8>, Value);

/// A frontend's key.
fn key(frontend: &Frontend) -> Vec<u8> {
    let mut key = octets(frontend.address());
    match frontend {
        Frontend::Address(_) => key.extend([0; 2 * FIELD as usize]),
        Frontend::Port { protocol, port, .. } => {
            let [high, low] = port.to_be_bytes();
            key.extend([protocol.number(), 0, 0, 0, high, low, 0, 0]);
        }
    }
    key
}

fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

/// The map and the key in which a frontend is found, and how to read on from its value: a map and the keys of its
/// backends, slot by slot.
pub fn question(of: &Frontend) -> (String, Vec<u8>) {
    (Ip::of(of.address()).name(SERVICE), key(of))
}

/// See [`question`]: where the backends are, and how they are balanced.
pub fn backends_of(of: &Frontend, answer: &[u8]) -> Option<(String, Vec<Vec<u8>>, Balance)> {
    let way = Way::read(Ip::of(of.address()), answer)?;
    let keys = (0..way.count).map(|slot| slot_key(of, slot.into())).collect();
    Some((way.ip.name(BACKEND), keys, way.balance))
}

/// A backend out of its value in the map.
pub fn read_backend(of: &Frontend, value: &[u8]) -> Option<Backend> {
    let (address, port) = value.split_at_checked(Ip::of(of.address()).octets() as usize)?;
    let &[high, low, 0, 0] = port else { return None };
    let port = match of {
        Frontend::Address(_) => None,
        Frontend::Port { .. } => Some(u16::from_be_bytes([high, low])),
    };
    Some(Backend { address: read_address(address)?, port })
}

fn slot_key(of: &Frontend, slot: u32) -> Vec<u8> {
    let mut key = key(of);
    // What numbers are chosen by is in host order.
    key.extend(slot.to_ne_bytes());
    key
}

fn write_backend(backend: &Backend) -> Vec<u8> {
    let [high, low] = backend.port.unwrap_or(0).to_be_bytes();
    [octets(backend.address), vec![high, low, 0, 0]].concat()
}

/// How a service is balanced and all its elements; `None` for a port without backends, which has none.
pub(crate) fn write(of: &Frontend, service: &Virtual) -> Option<(Way, Vec<Element>)> {
    if service.backends.is_empty() && matches!(of, Frontend::Port { .. }) {
        return None;
    }
    let way = Way::of(of, service);
    let mut elements = vec![(way.ip.name(SERVICE), key(of), Value::Bytes(way.number()))];
    elements.extend(service.backends.iter().zip(0..).map(|(backend, slot)| {
        (way.ip.name(BACKEND), slot_key(of, slot), Value::Bytes(write_backend(backend)))
    }));
    Some((way, elements))
}
