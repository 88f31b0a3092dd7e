//! Programs of ours at links, as filters of what comes in and of what goes out. Others may have theirs beside them.

use netlink_packet_core::{
    DecodeError, NLM_F_CREATE, NetlinkDeserializable, NetlinkHeader, NlaBuffer, NlasIterator,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption},
};

use crate::{
    bpf::Program,
    socket::{NetlinkError, REPLACE, Route},
};

/// Of our filters among those of a link: others may come before them or after.
const PRIORITY: u32 = 0xc0;
/// Of our filters, by which they are told from those of others.
const NAME: &str = "covey";
/// `ETH_P_ALL`
const ALL_PROTOCOLS: u16 = 0x0003;
/// Where filters of both directions hang.
const CLSACT: TcHandle = TcHandle { major: u16::MAX, minor: 0 };
const CLSACT_KIND: &str = "clsact";
/// Of a filter: we have one for each link and direction.
const FILTER: TcHandle = TcHandle { major: 0, minor: 1 };

// Attributes (linux/rtnetlink.h, linux/pkt_cls.h).
const HEADER_LEN: usize = 20;
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const BPF_NAME: u16 = 7;
const BPF_ID: u16 = 11;

/// Which packets of a link a program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those that the link receives.
    In,
    /// Those that it sends.
    Out,
}

impl Direction {
    pub const ALL: [Self; 2] = [Self::In, Self::Out];

    const fn handle(self) -> TcHandle {
        let minor = match self {
            Self::In => TcHandle::MIN_INGRESS,
            Self::Out => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: u16::MAX, minor }
    }
}

/// A queueing discipline or a filter, of whomever: not more of it is read than is needed.
#[derive(Clone, Debug, Default)]
struct Seen {
    link: u32,
    priority: u32,
    kind: String,
    name: String,
    /// Of the program of a filter.
    id: Option<u32>,
}

impl Seen {
    fn is_ours(&self) -> bool {
        self.priority == PRIORITY && self.name == NAME
    }
}

impl NetlinkDeserializable for Seen {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let header = TcHeader::parse(payload)?;
        let mut seen =
            Self { link: header.index.cast_unsigned(), priority: header.info >> 16, ..Self::default() };
        let attributes = attributes(payload.get(HEADER_LEN..).unwrap_or_default());
        if let Some(kind) = attributes.iter().find(|attribute| attribute.kind() == KIND) {
            seen.kind = text(kind.value());
        }
        let options = attributes.iter().find(|attribute| attribute.kind() == OPTIONS);
        if let Some(options) = options.filter(|_| seen.kind == TcFilterBpf::KIND) {
            for option in self::attributes(options.value()) {
                match option.kind() {
                    BPF_NAME => seen.name = text(option.value()),
                    BPF_ID => seen.id = option.value().try_into().ok().map(u32::from_ne_bytes),
                    _ => {}
                }
            }
        }
        Ok(seen)
    }
}

fn attributes(bytes: &[u8]) -> Vec<NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).flatten().collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

/// Puts programs to a link, each in the place of the one of ours that is there.
///
/// # Errors
/// EINVAL: the link has another queueing discipline at its ingress.
pub fn attach(route: &mut Route, link: u32, programs: &[(Direction, &Program)]) -> Result<(), NetlinkError> {
    let mut queue = queue(link);
    queue.attributes = vec![TcAttribute::Kind(CLSACT_KIND.to_owned())];
    // One that is there stays as it is.
    let mut requests = vec![(RouteNetlinkMessage::NewQueueDiscipline(queue), NLM_F_CREATE)];
    for (direction, program) in programs {
        let mut filter = filter(link, *direction);
        let options = [
            TcFilterBpfOption::ProgFd(program.descriptor()),
            TcFilterBpfOption::ProgName(NAME.to_owned()),
            TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
        ];
        filter.attributes.push(TcAttribute::Options(options.map(TcOption::Bpf).into()));
        requests.push((RouteNetlinkMessage::NewTrafficFilter(filter), REPLACE));
    }
    route.batch(requests)?.into_iter().collect()
}

/// The program of ours at a link.
pub fn attached(route: &mut Route, link: u32, direction: Direction) -> Result<Option<u32>, NetlinkError> {
    Ok(filters(route, link, direction)?.into_iter().filter(Seen::is_ours).find_map(|filter| filter.id))
}

/// Takes our programs from a link, and with them what they hang on, if nobody else has filters there.
pub fn detach(route: &mut Route, link: u32) -> Result<(), NetlinkError> {
    let mut is_empty = true;
    for direction in Direction::ALL {
        if filters(route, link, direction)?.iter().any(Seen::is_ours) {
            route.request(RouteNetlinkMessage::DelTrafficFilter(filter(link, direction)), 0)?;
        }
        is_empty &= filters(route, link, direction)?.is_empty();
    }
    if is_empty {
        route.request(RouteNetlinkMessage::DelQueueDiscipline(queue(link)), 0)?;
    }
    Ok(())
}

/// The links of this namespace at which filters may hang.
pub fn links(route: &mut Route) -> Result<Vec<u32>, NetlinkError> {
    let all = message(0, TcHandle::UNSPEC, TcHandle::UNSPEC);
    let found = match route.dump_as::<Seen>(RouteNetlinkMessage::GetQueueDiscipline(all)) {
        // A kernel without any.
        Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => Vec::new(),
        found => found?,
    };
    Ok(found.into_iter().filter(|queue| queue.kind == CLSACT_KIND).map(|queue| queue.link).collect())
}

fn filters(route: &mut Route, link: u32, direction: Direction) -> Result<Vec<Seen>, NetlinkError> {
    route.dump_as(RouteNetlinkMessage::GetTrafficFilter(message(link, TcHandle::UNSPEC, direction.handle())))
}

fn filter(link: u32, direction: Direction) -> TcMessage {
    let mut message = message(link, FILTER, direction.handle());
    message.header.info = PRIORITY << 16 | u32::from(ALL_PROTOCOLS.to_be());
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    message
}

fn queue(link: u32) -> TcMessage {
    message(link, CLSACT, TcHandle::CLSACT)
}

fn message(link: u32, handle: TcHandle, parent: TcHandle) -> TcMessage {
    // The kernel's own indexes fit.
    let mut message = TcMessage::with_index(link.cast_signed());
    message.header.handle = handle;
    message.header.parent = parent;
    message
}
