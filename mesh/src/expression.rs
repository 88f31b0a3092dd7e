//! The words of nf_tables rules: small instructions on registers, each a name and attributes.
//!
//! Names, attributes and constants are those of linux/netfilter/nf_tables.h. An expression is kept as the kernel
//! reads and shows it, so that observed rules are compared without being understood.

/// One rule: expressions in order; the first that does not match ends it.
pub type Rule = Vec<Expression>;

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// Its kind.
    pub name: String,
    /// Attribute number and value, by number.
    pub attributes: Vec<(u16, Vec<u8>)>,
}

impl Expression {
    fn new(name: &str, attributes: impl IntoIterator<Item = (u16, Vec<u8>)>) -> Self {
        Self { name: name.to_owned(), attributes: attributes.into_iter().collect() }
    }

    /// Whether the kernel shows `self` where `wanted` was written: newer kernels show more attributes, which are zero.
    pub fn says(&self, wanted: &Self) -> bool {
        let other = |(number, value): &(u16, Vec<u8>)| {
            wanted.attributes.iter().all(|(known, _)| known != number) && value.iter().all(|byte| *byte == 0)
        };
        self.name == wanted.name
            && wanted.attributes.iter().all(|attribute| self.attributes.contains(attribute))
            && self.attributes.iter().all(|shown| wanted.attributes.contains(shown) || other(shown))
    }
}

/// Whether the kernel shows `observed` where `wanted` was written.
pub fn same(observed: &[Rule], wanted: &[Rule]) -> bool {
    let same = |(one, other): (&Rule, &Rule)| {
        one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.says(other))
    };
    observed.len() == wanted.len() && observed.iter().zip(wanted).all(same)
}

/// A register of four bytes, of sixteen in all; longer values take several in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u8);

impl Register {
    /// As the kernel shows it: `NFT_REG_1` … for every fourth, else `NFT_REG32_00` ….
    fn number(self) -> Vec<u8> {
        let number = if self.0.is_multiple_of(4) { 1 + self.0 / 4 } else { 8 + self.0 };
        be(number.into())
    }
}

/// `NFT_REG_VERDICT`.
const VERDICT: u32 = 0;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`.
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
/// `NFTA_VERDICT_CODE`, `NFTA_VERDICT_CHAIN`.
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

fn be(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// An attribute inside another: length and number in host order, padded to four (linux/netlink.h).
fn nested(number: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = (length as u16).to_ne_bytes().to_vec();
    bytes.extend(number.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// The value of an attribute that holds constant data.
fn constant(bytes: &[u8]) -> Vec<u8> {
    nested(DATA_VALUE, bytes)
}

/// What [`meta`] reads and [`set_meta`] writes (`enum nft_meta_keys`).
#[derive(Clone, Copy)]
pub enum Meta {
    /// The packet's mark.
    Mark = 3,
    /// Name of the link that it came in by.
    InputName = 6,
    /// Name of the link that it leaves by.
    OutputName = 7,
    /// `NFPROTO_*`, a byte.
    Family = 15,
    /// Transport protocol, a byte.
    Protocol = 16,
}

/// Reads about the packet.
pub fn meta(key: Meta, to: Register) -> Expression {
    Expression::new("meta", [(1, to.number()), (2, be(key as u32))])
}

/// Writes about the packet.
pub fn set_meta(key: Meta, from: Register) -> Expression {
    Expression::new("meta", [(2, be(key as u32)), (3, from.number())])
}

/// What is known of the packet's connection (`enum nft_ct_keys`).
#[derive(Clone, Copy)]
pub enum Connection {
    /// Bits: see [`STATE_NEW`].
    State = 0,
    /// [`DIRECTION_REPLY`] or not, a byte.
    Direction = 1,
    /// Bits: see [`STATUS_DNAT`].
    Status = 2,
    /// The connection's mark.
    Mark = 3,
    /// Keeps apart connections with the same addresses and ports.
    Zone = 17,
    /// Destination address, IPv4; of a direction.
    DestinationV4 = 20,
    /// Destination address, IPv6; of a direction.
    DestinationV6 = 22,
}

/// `NF_CT_STATE_BIT(IP_CT_NEW)`, in host order.
pub const STATE_NEW: u32 = 1 << 3;
/// `IPS_DST_NAT`, in host order.
pub const STATUS_DNAT: u32 = 1 << 5;
/// `IP_CT_DIR_ORIGINAL`.
const DIRECTION_ORIGINAL: u8 = 0;
/// `IP_CT_DIR_REPLY`.
pub const DIRECTION_REPLY: u8 = 1;

/// Reads about the connection.
pub fn connection(key: Connection, to: Register) -> Expression {
    Expression::new("ct", [(1, to.number()), (2, be(key as u32))])
}

/// Reads about the connection's original direction.
pub fn connection_original(key: Connection, to: Register) -> Expression {
    Expression::new("ct", [(1, to.number()), (2, be(key as u32)), (3, vec![DIRECTION_ORIGINAL])])
}

/// Writes the connection's mark.
pub fn set_connection_mark(from: Register) -> Expression {
    Expression::new("ct", [(2, be(Connection::Mark as u32)), (4, from.number())])
}

/// Says the zone of the connection's original direction, by two bytes.
pub fn set_connection_zone(from: Register) -> Expression {
    let key = be(Connection::Zone as u32);
    Expression::new("ct", [(2, key), (3, vec![DIRECTION_ORIGINAL]), (4, from.number())])
}

/// From where bytes of a packet are counted (`enum nft_payload_bases`).
#[derive(Clone, Copy)]
pub enum Base {
    /// The link-layer header.
    Link = 0,
    /// The IP header.
    Network = 1,
    /// The transport header.
    Transport = 2,
}

/// Reads bytes of the packet.
pub fn payload(base: Base, offset: u32, length: u32, to: Register) -> Expression {
    let attributes = [(1, to.number()), (2, be(base as u32)), (3, be(offset)), (4, be(length))];
    Expression::new("payload", attributes)
}

/// Writes bytes of the packet's link-layer header, which has no checksum.
pub fn set_link_payload(offset: u32, length: u32, from: Register) -> Expression {
    let place = [(2, be(Base::Link as u32)), (3, be(offset)), (4, be(length))];
    let checksum = [(6, be(0)), (7, be(0)), (8, be(0))];
    Expression::new("payload", place.into_iter().chain([(5, from.number())]).chain(checksum))
}

/// `NFT_CMP_EQ`, `NFT_CMP_NEQ`.
const EQUAL: u32 = 0;
const DIFFERENT: u32 = 1;

fn compare(from: Register, operator: u32, with: &[u8]) -> Expression {
    Expression::new("cmp", [(1, from.number()), (2, be(operator)), (3, constant(with))])
}

/// Goes on if the register begins with these bytes.
pub fn is(from: Register, bytes: &[u8]) -> Expression {
    compare(from, EQUAL, bytes)
}

/// Goes on if the register does not begin with these bytes.
pub fn is_not(from: Register, bytes: &[u8]) -> Expression {
    compare(from, DIFFERENT, bytes)
}

/// Keeps only these bits, in place.
pub fn mask(register: Register, mask: &[u8]) -> Expression {
    let (length, none) = (be(mask.len() as u32), vec![0; mask.len()]);
    let registers = [(1, register.number()), (2, register.number()), (3, length)];
    Expression::new(
        "bitwise",
        registers.into_iter().chain([(4, constant(mask)), (5, constant(&none)), (6, be(0))]),
    )
}

/// Writes constant bytes.
pub fn immediate(to: Register, bytes: &[u8]) -> Expression {
    Expression::new("immediate", [(1, to.number()), (2, constant(bytes))])
}

/// `NF_DROP`, `NF_ACCEPT`, `NFT_JUMP`, `NFT_GOTO` of verdicts.
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;

fn verdict(code: i32, chain: Option<&str>) -> Expression {
    let mut verdict = nested(VERDICT_CODE, &code.to_be_bytes());
    if let Some(chain) = chain {
        verdict.extend(nested(VERDICT_CHAIN, &[chain.as_bytes(), &[0]].concat()));
    }
    Expression::new("immediate", [(1, be(VERDICT)), (2, nested(DATA_VERDICT, &verdict))])
}

/// The packet goes no further.
pub fn drop() -> Expression {
    verdict(DROP, None)
}

/// The packet passes; no more of this hook's chains of ours are asked.
pub fn accept() -> Expression {
    verdict(ACCEPT, None)
}

/// Another chain decides.
pub fn go(chain: &str) -> Expression {
    verdict(GOTO, Some(chain))
}

/// No connection is looked for, nor made, for the packet.
pub fn untracked() -> Expression {
    Expression::new("notrack", [])
}

/// Another chain is asked first.
pub fn jump(chain: &str) -> Expression {
    verdict(JUMP, Some(chain))
}

fn name(of: &str) -> Vec<u8> {
    [of.as_bytes(), &[0]].concat()
}

/// Goes on with the value of a key, if the map has it.
pub fn look_up(map: &str, key: Register, to: Register) -> Expression {
    Expression::new("lookup", [(1, name(map)), (2, key.number()), (3, to.number()), (5, be(0))])
}

/// Goes where the map says for this key.
pub fn go_to(map: &str, key: Register) -> Expression {
    Expression::new("lookup", [(1, name(map)), (2, key.number()), (3, be(VERDICT)), (5, be(0))])
}

/// Goes on if the key is in the set.
pub fn is_in(set: &str, key: Register) -> Expression {
    Expression::new("lookup", [(1, name(set)), (2, key.number()), (5, be(0))])
}

/// `NFT_LOOKUP_F_INV`.
const INVERTED: u32 = 1;

/// Goes on if the key is not in the set.
pub fn is_not_in(set: &str, key: Register) -> Expression {
    Expression::new("lookup", [(1, name(set)), (2, key.number()), (5, be(INVERTED))])
}

/// `NFT_NG_INCREMENTAL`, `NFT_NG_RANDOM`.
const IN_TURN: u32 = 0;
const BY_CHANCE: u32 = 1;

fn number(kind: u32, below: u32, to: Register) -> Expression {
    Expression::new("numgen", [(1, to.number()), (2, be(below)), (3, be(kind)), (4, be(0))])
}

/// Numbers below a bound, in turn.
pub fn in_turn(below: u32, to: Register) -> Expression {
    number(IN_TURN, below, to)
}

/// Numbers below a bound, by chance.
pub fn by_chance(below: u32, to: Register) -> Expression {
    number(BY_CHANCE, below, to)
}

/// Of hashes; any but zero, the same on all hosts.
const SEED: u32 = 0xc0;
/// `NFT_HASH_JENKINS`.
const JENKINS: u32 = 0;

/// A number below a bound out of the hash of so many bytes.
pub fn hash(from: Register, length: u32, below: u32, to: Register) -> Expression {
    let registers = [(1, from.number()), (2, to.number()), (3, be(length))];
    Expression::new("hash", registers.into_iter().chain([(4, be(below)), (5, be(SEED)), (7, be(JENKINS))]))
}

/// `NFT_FIB_RESULT_OIF`, `NFT_FIB_RESULT_ADDRTYPE`; `NFTA_FIB_F_SADDR`, `NFTA_FIB_F_DADDR`, `NFTA_FIB_F_IIF`.
const LINK: u32 = 1;
const ADDRESS_TYPE: u32 = 3;
const OF_SOURCE: u32 = 1;
const OF_DESTINATION: u32 = 2;
const OF_INPUT: u32 = 8;
/// `RTN_LOCAL`, in host order.
pub const LOCAL: u32 = 2;

/// Reads of what type the destination address is: see [`LOCAL`].
pub fn destination_type(to: Register) -> Expression {
    Expression::new("fib", [(1, to.number()), (2, be(ADDRESS_TYPE)), (3, be(OF_DESTINATION))])
}

/// Reads the index of the link that the packet came in by, if its source is reached by that one; else zeros.
pub fn source_link(to: Register) -> Expression {
    Expression::new("fib", [(1, to.number()), (2, be(LINK)), (3, be(OF_SOURCE | OF_INPUT))])
}

/// `NFT_NAT_SNAT`, `NFT_NAT_DNAT`.
const SOURCE: u32 = 0;
const DESTINATION: u32 = 1;
/// `NF_NAT_RANGE_MAP_IPS`, `NF_NAT_RANGE_PROTO_SPECIFIED`.
const RANGE_ADDRESS: u32 = 1;
const RANGE_PORT: u32 = 2;

fn translate(kind: u32, family: u8, address: Register, port: Option<Register>) -> Expression {
    let address = address.number();
    let flags = RANGE_ADDRESS | if port.is_some() { RANGE_PORT } else { 0 };
    let mut attributes = vec![(1, be(kind)), (2, be(family.into())), (3, address.clone()), (4, address)];
    if let Some(port) = port {
        attributes.extend([(5, port.number()), (6, port.number())]);
    }
    attributes.push((7, be(flags)));
    Expression::new("nat", attributes)
}

/// The connection goes to this address, and port.
pub fn translate_destination(family: u8, address: Register, port: Option<Register>) -> Expression {
    translate(DESTINATION, family, address, port)
}

/// The connection comes from this address.
pub fn translate_source(family: u8, address: Register) -> Expression {
    translate(SOURCE, family, address, None)
}

/// The connection comes from the address of the link that it leaves by.
pub fn masquerade() -> Expression {
    Expression::new("masq", [])
}

/// `NFT_REJECT_TCP_RST`, `NFT_REJECT_ICMPX_UNREACH`, `NFT_REJECT_ICMPX_PORT_UNREACH`.
const RESET: u32 = 1;
const UNREACHABLE: u32 = 2;
const PORT_UNREACHABLE: u8 = 1;

/// The client's attempt to connect is answered by a reset (TCP only).
pub fn reset() -> Expression {
    Expression::new("reject", [(1, be(RESET))])
}

/// The client is told that nobody listens at this port.
pub fn refuse() -> Expression {
    Expression::new("reject", [(1, be(UNREACHABLE)), (2, vec![PORT_UNREACHABLE])])
}
