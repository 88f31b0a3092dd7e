//! How balancing lies in maps and chains: one map with all services, one with all backends, and one chain for each
//! way to balance, which all services of that way share. So neither a packet nor a change pays for the number of
//! services.
//!
//! A key is what the frontend says: an address, or protocol and port, or all three. The first map says how it is
//! balanced, as a number that a small map leads from to the chain; that picks a slot and finds it in the second map by
//! key and slot. (If the first map led to chains itself, the kernel would follow every one of its elements whenever
//! one is added: 5 ms for ten thousand services, instead of 0.05 ms.)

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

    /// Registers of an address: the first one behind an address that begins in the first.
    pub const fn behind(self) -> u8 {
        (self.octets() / 4) as u8
    }
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Where keys begin.
pub(crate) const KEY: Register = Register(0);
/// Where everything else is: behind the longest key.
pub(crate) const VALUE: Register = Register(8);

/// What of a frontend is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// The address alone.
    Address,
    /// Address, protocol and port.
    Port,
    /// Protocol and port.
    AnyPort,
}

/// All frontends of one shape and version: they share two maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    shape: Shape,
    ip: Ip,
}

impl Kind {
    pub const fn new(shape: Shape, ip: Ip) -> Self {
        Self { shape, ip }
    }

    fn of(frontend: &Frontend) -> Self {
        let shape = match frontend {
            Frontend::Address(_) => Shape::Address,
            Frontend::Port { address, .. } if address.is_unspecified() => Shape::AnyPort,
            Frontend::Port { .. } => Shape::Port,
        };
        Self { shape, ip: Ip::of(frontend.address()) }
    }

    /// The map from frontends to how they are balanced.
    fn services(self) -> String {
        self.ip.name(match self.shape {
            Shape::Address => "address",
            Shape::Port => "port",
            Shape::AnyPort => "anyport",
        })
    }

    /// The map from slots to backends.
    fn backends(self) -> String {
        format!("{}-backend", self.services())
    }

    /// Both maps, empty.
    pub fn maps(self) -> [(String, Form); 2] {
        let key = match self.shape {
            Shape::Address => self.ip.address(),
            Shape::Port => self.ip.address().and(Type::PROTOCOL).and(Type::PORT),
            Shape::AnyPort => Type::PROTOCOL.and(Type::PORT),
        };
        let value = match self.shape {
            Shape::Address => self.ip.address(),
            Shape::Port | Shape::AnyPort => self.ip.address().and(Type::PORT),
        };
        [
            (self.services(), Form::map(key, Type::MARK)),
            (self.backends(), Form::map(key.and(Type::MARK), value)),
        ]
    }

    /// Reads a packet's key; the register behind it.
    fn key(self) -> (Rule, Register) {
        let (mut rule, mut next) = (Rule::new(), KEY);
        if self.shape != Shape::AnyPort {
            rule.push(self.ip.destination(KEY));
            next = Register(self.ip.behind());
        }
        if self.shape != Shape::Address {
            rule.push(e::meta(Meta::Protocol, next));
            // The destination's port is at the same place in TCP, UDP and SCTP.
            rule.push(e::payload(Base::Transport, 2, 2, Register(next.0 + 1)));
            next = Register(next.0 + 2);
        }
        (rule, next)
    }

    /// `ip daddr . meta l4proto . th dport map @port4 vmap @balance`.
    pub fn rule(self) -> Rule {
        let mut rule = self.ip.only().to_vec();
        rule.extend(self.key().0);
        // The chain's key has a field of zeros in front, because nft up to 1.0.9 ends with a failed assertion when it
        // lists a rule in which what one map yields is the whole key of another.
        rule.push(e::immediate(VALUE, &[0; 8]));
        rule.push(e::look_up(&self.services(), KEY, Register(VALUE.0 + 1)));
        rule.push(e::go_to(BALANCE, VALUE));
        rule
    }
}

/// The map from how services are balanced to chains.
pub(crate) const BALANCE: &str = "balance";
/// Its form.
pub(crate) const BALANCE_FORM: Form = Form::verdicts(Type::MARK.and(Type::MARK));

/// Frontends take turns with those of the same lane only, so that two services that call each other do not keep
/// the same step.
const LANES: u8 = 32;

/// One way to balance: what a chain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    kind: Kind,
    balance: Balance,
    /// Which of several chains that do the same.
    lane: u8,
    /// Backends to choose from. Without any, clients are refused.
    count: u16,
}

impl Way {
    fn of(frontend: &Frontend, service: &Virtual) -> Self {
        let balance = service.balance;
        let fold = |lane: u8, byte: &u8| lane.wrapping_mul(31).wrapping_add(*byte);
        let lane = match balance {
            Balance::RoundRobin => key(frontend).iter().fold(0, fold) % LANES,
            Balance::Random | Balance::SourceHash => 0,
        };
        Self { kind: Kind::of(frontend), balance, lane, count: service.backends.len() as u16 }
    }

    /// The name of its chain: `port4-round-robin-3-17`.
    pub fn chain(self) -> String {
        format!("{}-{}-{}-{}", self.kind.services(), name(self.balance), self.count, self.lane)
    }

    /// As a value of the map of services. The kernel shows it as a number of the host's order.
    fn number(self) -> [u8; 4] {
        let Kind { shape, ip } = self.kind;
        let [high, low] = self.count.to_be_bytes();
        let place = (shape as u8) << 6 | (ip as u8) << 4 | self.balance as u8;
        u32::from_be_bytes([place, self.lane, high, low]).to_ne_bytes()
    }

    /// From a value of the map of services.
    fn read(kind: Kind, number: &[u8]) -> Option<Self> {
        let [place, lane, high, low] = u32::from_ne_bytes(number.try_into().ok()?).to_be_bytes();
        let balance = Balance::ALL.into_iter().find(|balance| *balance as u8 == place & 0xf)?;
        Some(Self { kind, balance, lane, count: u16::from_be_bytes([high, low]) })
    }

    /// The element that leads to its chain.
    pub fn element(self) -> Element {
        let key = [[0; 4], self.number()].concat();
        (BALANCE.to_owned(), key, Value::Goto(self.chain()))
    }

    /// The rules of its chain.
    pub fn rules(self) -> Vec<Rule> {
        let (count, slot) = (self.count.into(), self.kind.key().1);
        let pick = match self.balance {
            _ if count == 0 => return refuse().into(),
            _ if count == 1 => return vec![self.translate(vec![e::by_chance(1, slot)])],
            Balance::Random => vec![e::by_chance(count, slot)],
            Balance::RoundRobin => vec![e::in_turn(count, slot)],
            Balance::SourceHash => {
                let ip = self.kind.ip;
                vec![ip.source(VALUE), e::hash(VALUE, ip.octets(), count, slot)]
            }
        };
        // A slot that somebody removed by hand, or that goes in this very moment: the first one is always there.
        vec![self.translate(pick), self.translate(vec![e::by_chance(1, slot)])]
    }

    /// `dnat to KEY . PICK map @port4-backend`.
    fn translate(self, pick: Rule) -> Rule {
        let Kind { shape, ip } = self.kind;
        let port = (shape != Shape::Address).then_some(Register(VALUE.0 + ip.behind()));
        let mut rule = self.kind.key().0;
        rule.extend(pick);
        rule.push(e::look_up(&self.kind.backends(), KEY, VALUE));
        rule.push(e::translate_destination(ip.number(), VALUE, port));
        rule
    }
}

const fn name(balance: Balance) -> &'static str {
    match balance {
        Balance::Random => "random",
        Balance::RoundRobin => "round-robin",
        Balance::SourceHash => "source-hash",
    }
}

/// Tells clients at once that nobody answers.
pub(crate) fn refuse() -> [Rule; 2] {
    let tcp = [e::meta(Meta::Protocol, VALUE), e::is(VALUE, &[Protocol::Tcp.number()]), e::reset()];
    [tcp.into(), vec![e::refuse()]]
}

/// One element: the map, the key and the value.
pub(crate) type Element = (String, Vec<u8>, Value);

/// A frontend's key.
fn key(frontend: &Frontend) -> Vec<u8> {
    let mut key = Vec::new();
    if Kind::of(frontend).shape != Shape::AnyPort {
        key.extend(octets(frontend.address()));
    }
    if let Frontend::Port { protocol, port, .. } = frontend {
        let [high, low] = port.to_be_bytes();
        key.extend([protocol.number(), 0, 0, 0, high, low, 0, 0]);
    }
    key
}

fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

/// The map and the key in which a frontend is found.
pub fn question(of: &Frontend) -> (String, Vec<u8>) {
    (Kind::of(of).services(), key(of))
}

/// How the answer to [`question`] says that it is balanced, and where the backends are: a map, and a key for each slot.
pub fn backends_of(of: &Frontend, answer: &[u8]) -> Option<(Balance, String, Vec<Vec<u8>>)> {
    let way = Way::read(Kind::of(of), answer)?;
    let keys = (0..way.count).map(|slot| slot_key(of, slot.into())).collect();
    Some((way.balance, way.kind.backends(), keys))
}

/// A backend out of its value in the map.
pub fn read_backend(of: &Frontend, value: &[u8]) -> Option<Backend> {
    let (address, port) = value.split_at_checked(Ip::of(of.address()).octets() as usize)?;
    let port = match *port {
        [high, low, 0, 0] => Some(u16::from_be_bytes([high, low])),
        _ => None,
    };
    Some(Backend { address: read_address(address)?, port })
}

fn slot_key(of: &Frontend, slot: u32) -> Vec<u8> {
    let mut key = key(of);
    // The kernel picks numbers in host order.
    key.extend(slot.to_ne_bytes());
    key
}

fn write_backend(backend: &Backend) -> Vec<u8> {
    let mut value = octets(backend.address);
    if let Some(port) = backend.port {
        let [high, low] = port.to_be_bytes();
        value.extend([high, low, 0, 0]);
    }
    value
}

/// How a service is balanced and all its elements; `None` for a port without backends, which has none.
pub(crate) fn write(of: &Frontend, service: &Virtual) -> Option<(Way, Vec<Element>)> {
    if service.backends.is_empty() && matches!(of, Frontend::Port { .. }) {
        return None;
    }
    let way = Way::of(of, service);
    let mut elements = vec![(way.kind.services(), key(of), Value::Bytes(way.number().to_vec()))];
    elements.extend(service.backends.iter().zip(0..).map(|(backend, slot)| {
        (way.kind.backends(), slot_key(of, slot), Value::Bytes(write_backend(backend)))
    }));
    Some((way, elements))
}
