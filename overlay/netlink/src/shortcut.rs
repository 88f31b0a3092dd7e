//! The shortcut's programs at the links of a router, and its map of containers.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use covey_overlay::{
    object::{Inside, LinkName},
    shortcut::{self, KEY_LEN, PLACE_LEN, PLACES_MAX},
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};

use crate::{
    bpf::{Map, Program},
    socket::{CREATE, NetlinkError, REPLACE, Route},
    stack::LOOPBACK,
};

/// Of our filter among those of a link: others may come before it or after.
const PRIORITY: u32 = 0xc0;
/// `ETH_P_ALL`
const ALL_PROTOCOLS: u16 = 0x0003;
/// Where filters of both directions hang.
const CLSACT: TcHandle = TcHandle { major: u16::MAX, minor: 0 };
/// Those of what comes in.
const INGRESS: TcHandle = TcHandle { major: u16::MAX, minor: TcHandle::MIN_INGRESS };
/// Those of what goes out.
const EGRESS: TcHandle = TcHandle { major: u16::MAX, minor: TcHandle::MIN_EGRESS };

/// What a router has of the shortcut.
pub struct Shortcut {
    places: Map<KEY_LEN>,
    leaving: Program,
    forwarded: Program,
    arriving: Program,
}

impl Shortcut {
    /// With the map that links of this router use already, if what they have is what this version makes; else a new one.
    ///
    /// # Errors
    /// The kernel takes no such programs.
    pub fn open(route: &mut Route, links: impl IntoIterator<Item = u32>) -> Result<Self, NetlinkError> {
        let new = Self::load(Map::create(PLACE_LEN, PLACES_MAX)?)?;
        // Some kernels take programs and have nowhere to put them.
        attach(route, LOOPBACK, INGRESS, &new.arriving)?;
        route.request(RouteNetlinkMessage::DelQueueDiscipline(queue(LOOPBACK)), 0)?;
        for index in links {
            // What cannot be read is replaced.
            if let Ok(Some(found)) = attached(route, index, INGRESS)
                && [new.leaving.tag, new.arriving.tag].contains(&found.tag)
                && let Ok(places) = Program::find(found.id).and_then(|program| program.map(PLACE_LEN))
            {
                return Ok(Self::load(places)?);
            }
        }
        Ok(new)
    }

    fn load(places: Map<KEY_LEN>) -> io::Result<Self> {
        let leaving = Program::load(&shortcut::leaving(places.descriptor()))?;
        let forwarded = Program::load(&shortcut::forwarded(places.descriptor()))?;
        let arriving = Program::load(&shortcut::arriving(places.descriptor()))?;
        Ok(Self { places, leaving, forwarded, arriving })
    }

    /// What each of these links has of it: none, or the addresses of the container that it leads to. A VXLAN device leads
    /// to none. Places of links that are no more are given up.
    pub fn observe(
        &self,
        route: &mut Route,
        links: &BTreeMap<LinkName, u32>,
    ) -> Result<BTreeMap<LinkName, BTreeSet<IpAddr>>, NetlinkError> {
        let mut places: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        self.each_place(|key, place| {
            if let Some(index) = shortcut::index(&place) {
                places.entry(index).or_default().insert(shortcut::address(key));
            }
            Ok(())
        })?;
        let mut found = BTreeMap::new();
        for (name, index) in links {
            let addresses = places.remove(index).unwrap_or_default();
            let mut has = |parent, program: &Program| {
                attached(route, *index, parent)
                    .map(|found| found.is_some_and(|found| found.tag == program.tag))
            };
            let whole = if name.is_vxlan() {
                has(INGRESS, &self.arriving)? && has(EGRESS, &self.forwarded)?
            } else {
                has(INGRESS, &self.leaving)?
            };
            if whole {
                found.insert(name.clone(), addresses);
            }
        }
        for address in places.into_values().flatten() {
            self.places.delete(&shortcut::key(address))?;
        }
        Ok(found)
    }

    /// Gives it to a VXLAN device. By one that is not `new` containers may have called virtual addresses, which nobody noted.
    pub fn arrive(&self, route: &mut Route, index: u32, new: bool) -> Result<(), NetlinkError> {
        attach(route, index, EGRESS, &self.forwarded)?;
        if !new {
            self.each_place(|key, mut place| {
                shortcut::age(&mut place);
                self.places.set(&key, &place)
            })?;
        }
        // Only now: without notes of what containers call, the answers would go astray.
        attach(route, index, INGRESS, &self.arriving)
    }

    /// Gives it to a container: one that is not `new` may have called virtual addresses, which nobody noted.
    pub fn leave(
        &self,
        route: &mut Route,
        index: u32,
        inside: &Inside,
        new: bool,
    ) -> Result<(), NetlinkError> {
        attach(route, index, INGRESS, &self.leaving)?;
        let place = shortcut::place(index, inside.mac, new);
        for address in &inside.addresses {
            self.places.set(&shortcut::key(*address), &place)?;
        }
        Ok(())
    }

    /// Takes it from a container.
    pub fn forget(&self, index: u32) -> io::Result<()> {
        self.each_place(|key, place| match shortcut::index(&place) == Some(index) {
            true => self.places.delete(&key),
            false => Ok(()),
        })
    }

    /// One at a time: they are large.
    fn each_place(&self, mut work: impl FnMut([u8; KEY_LEN], Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        for key in self.places.keys()? {
            if let Some(place) = self.places.get(&key)? {
                work(key, place)?;
            }
        }
        Ok(())
    }
}

/// Our filter at a link.
struct Attached {
    id: u32,
    tag: [u8; TcFilterBpf::BPF_TAG_SIZE],
}

fn attached(route: &mut Route, index: u32, parent: TcHandle) -> Result<Option<Attached>, NetlinkError> {
    let all = RouteNetlinkMessage::GetTrafficFilter(message(index, TcHandle::UNSPEC, parent));
    Ok(route.dump(all)?.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewTrafficFilter(filter) if filter.header.info >> 16 == PRIORITY => {
            program(&filter)
        }
        _ => None,
    }))
}

fn program(filter: &TcMessage) -> Option<Attached> {
    let (mut id, mut tag) = (None, None);
    let options = filter.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    for option in options.flatten() {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(found)) => id = Some(*found),
            TcOption::Bpf(TcFilterBpfOption::ProgTag(found)) => tag = Some(*found),
            _ => {}
        }
    }
    Some(Attached { id: id?, tag: tag? })
}

fn attach(route: &mut Route, index: u32, parent: TcHandle, program: &Program) -> Result<(), NetlinkError> {
    match route.request(RouteNetlinkMessage::NewQueueDiscipline(queue(index)), CREATE) {
        Err(error) if error.errno() != Some(libc::EEXIST) => return Err(error),
        _ => {}
    }
    let mut filter = message(index, TcHandle { major: 0, minor: 1 }, parent);
    filter.header.info = PRIORITY << 16 | u32::from(ALL_PROTOCOLS.to_be());
    let options = [
        TcFilterBpfOption::ProgFd(program.descriptor()),
        TcFilterBpfOption::ProgName("covey".to_owned()),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    filter.attributes = vec![
        TcAttribute::Kind(TcFilterBpf::KIND.to_owned()),
        TcAttribute::Options(options.map(TcOption::Bpf).into()),
    ];
    route.request(RouteNetlinkMessage::NewTrafficFilter(filter), REPLACE)
}

/// Where filters hang; they go with it.
fn queue(index: u32) -> TcMessage {
    let mut message = message(index, CLSACT, TcHandle::CLSACT);
    message.attributes = vec![TcAttribute::Kind("clsact".to_owned())];
    message
}

fn message(index: u32, handle: TcHandle, parent: TcHandle) -> TcMessage {
    // The kernel's own indexes fit.
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.handle = handle;
    message.header.parent = parent;
    message
}
