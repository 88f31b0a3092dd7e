//! The flow cache of this host: its maps, and its programs at the links of each namespace.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use covey_overlay::{
    edge,
    flow_cache::{
        self, ARRIVAL_LEN, ARRIVALS, COUNTERS_LEN, FLOW_LEN, KEY_LEN, Maps, Place, Uplink, next_generation,
    },
    object::{LinkName, Observed, Underlay, Vxlan},
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::sysinfo::sysinfo,
};

use crate::{
    bpf::{Kind, Map, Program},
    namespace,
    socket::{NetlinkError, Route},
    stack::{LOOPBACK, Stack, StackError, doing},
    tc::{self, Direction},
    underlay,
};

/// Bytes of the machine's memory for each flow that is kept; that takes some 300 of them.
const MEMORY_PER_FLOW: u64 = 128 << 10;
/// Flows that are kept.
const FLOWS_MIN: u64 = 1 << 12;
/// As [`FLOWS_MIN`].
const FLOWS_MAX: u64 = 1 << 16;
/// Bytes of an array's keys, which are numbers.
const NUMBER_LEN: usize = size_of::<u32>();
/// Of the one value that counts.
const FIRST: [u8; NUMBER_LEN] = [0; NUMBER_LEN];
/// One of each kind of place whose programs are loaded later.
const TRIES: [Place; 3] = [
    Place::Underlay { local: IpAddr::V4(Ipv4Addr::LOCALHOST), port: covey_overlay::underlay::PORT },
    Place::Underlay { local: IpAddr::V6(Ipv6Addr::LOCALHOST), port: covey_overlay::underlay::PORT },
    Place::Router(Uplink { vni: covey_overlay::network::VNI_MIN, router: LOOPBACK, host: LOOPBACK }),
];

/// What the kernel has learnt of connections, and the programs that learn it and use it ([`covey_overlay::flow_cache`]).
/// There is one for all namespaces of a host.
pub struct FlowCache {
    tables: Tables,
    /// At containers' links in the host's namespace.
    host: Programs,
    pub(crate) relaying_out: Program,
    pub(crate) relaying_in: Program,
}

impl FlowCache {
    /// A new one, empty. Whatever it takes is tried in a namespace of its own, which is gone when this returns.
    ///
    /// # Errors
    /// This kernel has none. All works as well without, only slower.
    pub fn open() -> Result<Self, StackError> {
        namespace::on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            let cache = Self::load().map_err(StackError::Bpf)?;
            let mut route = Route::open().map_err(doing("rtnetlink"))?;
            for place in &TRIES {
                let programs = Programs::load(cache.tables.maps(), place).map_err(StackError::Bpf)?;
                // Some kernels take programs and have nowhere to put them.
                programs.attach(&mut route, LOOPBACK).map_err(doing("attach BPF programs"))?;
            }
            Ok(cache)
        })
    }

    fn load() -> io::Result<Self> {
        let tables = Tables::create(sysinfo()?.ram_total())?;
        Ok(Self {
            host: Programs::load(tables.maps(), &Place::Host)?,
            relaying_out: Program::load(&flow_cache::relaying_out())?,
            relaying_in: Program::load(&flow_cache::relaying_in())?,
            tables,
        })
    }

    /// All that was learnt counts for nothing from now on: what the kernel does with connections is learnt anew.
    ///
    /// # Errors
    /// Those of the system call; nobody has seen any.
    pub fn forget(&self) -> io::Result<()> {
        let mut counters = self.tables.counters.get(&FIRST)?;
        next_generation(&mut counters);
        self.tables.counters.set(&FIRST, &counters)
    }
}

/// The maps that all programs share.
struct Tables {
    flows: Map<KEY_LEN, FLOW_LEN>,
    arrivals: Map<NUMBER_LEN, ARRIVAL_LEN>,
    counters: Map<NUMBER_LEN, COUNTERS_LEN>,
}

impl Tables {
    /// For a machine with so many bytes of memory.
    fn create(memory: u64) -> io::Result<Self> {
        let flows_max = (memory / MEMORY_PER_FLOW).clamp(FLOWS_MIN, FLOWS_MAX) as u32;
        Ok(Self {
            flows: Map::create(Kind::LastUsed, flows_max)?,
            arrivals: Map::create(Kind::Array, ARRIVALS)?,
            counters: Map::create(Kind::Array, 1)?,
        })
    }

    fn maps(&self) -> Maps {
        Maps {
            flows: self.flows.descriptor(),
            arrivals: self.arrivals.descriptor(),
            counters: self.counters.descriptor(),
        }
    }
}

/// Both programs of a link.
struct Programs {
    entering: Program,
    leaving: Program,
}

impl Programs {
    fn load(maps: Maps, place: &Place) -> io::Result<Self> {
        Ok(Self {
            entering: Program::load(&flow_cache::entering(maps, place))?,
            leaving: Program::load(&flow_cache::leaving(maps, place))?,
        })
    }

    const fn each(&self) -> [(Direction, &Program); 2] {
        [(Direction::In, &self.entering), (Direction::Out, &self.leaving)]
    }

    fn attach(&self, route: &mut Route, link: u32) -> Result<(), NetlinkError> {
        tc::attach(route, link, &self.each())
    }

    fn are_at(&self, route: &mut Route, link: u32) -> Result<bool, NetlinkError> {
        for (direction, program) in self.each() {
            if tc::attached(route, link, direction)? != Some(program.id) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What one namespace has of the host's cache.
pub struct Share {
    pub(crate) cache: Arc<FlowCache>,
    /// Programs that know something of this namespace: of a router its uplink, of the host its link to the others.
    own: Option<(Place, Programs)>,
}

impl Share {
    pub const fn new(cache: Arc<FlowCache>) -> Self {
        Self { cache, own: None }
    }

    fn has(&self, place: &Place) -> Option<&Programs> {
        match (place, &self.own) {
            (Place::Host, _) => Some(&self.cache.host),
            (_, Some((of, programs))) if of == place => Some(programs),
            _ => None,
        }
    }

    /// The programs of a place, which are loaded where this namespace has other ones.
    fn programs(&mut self, place: Place) -> Result<&Programs, StackError> {
        if self.has(&place).is_none() {
            let programs = Programs::load(self.cache.tables.maps(), &place).map_err(StackError::Bpf)?;
            self.own = Some((place, programs));
        }
        self.has(&place).ok_or_else(|| StackError::Bpf(io::ErrorKind::NotFound.into()))
    }
}

impl Stack {
    /// Links that have programs of a daemon before have those of this one instead, or none at all without a cache: they
    /// know maps that nobody else knows, and uplinks that may be no more.
    pub(crate) fn open_cache(&mut self) -> Result<(), StackError> {
        let (links, others) = self.list_links()?;
        let with_filters = self.links_with_filters()?;
        for (name, index) in self.indexes.clone() {
            // One that is gone meanwhile is nobody's. What else fails is found with the next look.
            let _ = match self.share {
                Some(_) if !name.is_vxlan() => self.set_cached(&name),
                _ if with_filters.contains(&index) => self.take_off(index),
                _ => Ok(()),
            };
        }
        let device = links.get(&LinkName::of_vni(edge::VNI)).and_then(|link| link.vxlan);
        if let Some(Vxlan { local, port, .. }) = device
            && self.share.is_some()
            && !self.is_own()
            && !self.strangers(&others)?.is_empty()
        {
            let _ = self.set_underlay(Some(Underlay { local, port }));
        }
        Ok(())
    }

    fn take_off(&mut self, link: u32) -> Result<(), StackError> {
        tc::detach(&mut self.route, link).map_err(doing("take BPF programs off"))
    }

    fn links_with_filters(&mut self) -> Result<BTreeSet<u32>, StackError> {
        Ok(tc::links(&mut self.route).map_err(doing("list queueing disciplines"))?.into_iter().collect())
    }

    /// Gives a link of ours the programs that it is to have.
    pub(crate) fn set_cached(&mut self, name: &LinkName) -> Result<(), StackError> {
        if name.is_uplink() {
            return self.set_relays(name);
        }
        let (index, place) = (self.index(name)?, self.place()?);
        let Some((share, place)) = self.share.as_mut().zip(place) else { return Ok(()) };
        share
            .programs(place)?
            .attach(&mut self.route, index)
            .map_err(doing(format!("attach BPF programs at {name}")))
    }

    /// Where containers' links of this namespace are; none in a router without an uplink.
    fn place(&mut self) -> Result<Option<Place>, StackError> {
        if self.is_own() { Ok(self.uplink()?.map(Place::Router)) } else { Ok(Some(Place::Host)) }
    }

    /// Adds which links have the programs, and what there is of the uplink's other end.
    pub(crate) fn observe_cached(&mut self, observed: &mut Observed) -> Result<(), StackError> {
        for (name, link) in observed.links.iter_mut().filter(|(name, _)| name.is_uplink()) {
            self.look_up(name, link)?;
        }
        let place = self.place()?;
        let Some(programs) = self.share.as_ref().zip(place).and_then(|(share, place)| share.has(&place))
        else {
            return Ok(());
        };
        for (name, index) in self.indexes.iter().filter(|(name, _)| !name.is_vxlan() && !name.is_uplink()) {
            let has = programs.are_at(&mut self.route, *index).map_err(doing("list BPF programs"))?;
            observed.links.entry(name.clone()).and_modify(|link| link.cached = has);
        }
        Ok(())
    }

    /// Of whose link our programs are, if they are where they are to be and at no other link of others. Else that is the
    /// underlay of nobody, which no one wants.
    pub(crate) fn observe_underlay(
        &mut self,
        others: &BTreeSet<u32>,
    ) -> Result<Option<Underlay>, StackError> {
        let links = self.strangers(others)?;
        let nobody = Underlay { local: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port: 0 };
        let Some((Place::Underlay { local, port }, programs)) =
            self.share.as_ref().and_then(|share| share.own.as_ref())
        else {
            return Ok((!links.is_empty()).then_some(nobody));
        };
        let right = link_of(&mut self.route, *local, others)?;
        let mut whole = links == Vec::from_iter(right);
        for link in links {
            whole &= programs.are_at(&mut self.route, link).map_err(doing("list BPF programs"))?;
        }
        Ok(Some(if whole { Underlay { local: *local, port: *port } } else { nobody }))
    }

    /// The links of others that have programs of ours.
    fn strangers(&mut self, others: &BTreeSet<u32>) -> Result<Vec<u32>, StackError> {
        let mut found = Vec::new();
        for link in self.links_with_filters()?.intersection(others) {
            for direction in Direction::ALL {
                let attached = tc::attached(&mut self.route, *link, direction);
                if attached.map_err(doing("list BPF programs"))?.is_some() {
                    found.push(*link);
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Has the link with this address, and no other one that is not ours, have the programs.
    pub(crate) fn set_underlay(&mut self, underlay: Option<Underlay>) -> Result<(), StackError> {
        let (_, others) = self.list_links()?;
        let right = underlay.map_or(Ok(None), |of| link_of(&mut self.route, of.local, &others))?;
        for link in self.strangers(&others)?.into_iter().filter(|link| Some(*link) != right) {
            self.take_off(link)?;
        }
        let Some(share) = &mut self.share else { return Ok(()) };
        let Some(Underlay { local, port }) = underlay else {
            share.own = None;
            return Ok(());
        };
        let programs = share.programs(Place::Underlay { local, port })?;
        right
            .map_or(Ok(()), |link| programs.attach(&mut self.route, link))
            .map_err(doing(format!("attach BPF programs at the link that has {local}")))
    }
}

/// The link that has this address, if it is one of these.
fn link_of(route: &mut Route, local: IpAddr, others: &BTreeSet<u32>) -> Result<Option<u32>, StackError> {
    let found = underlay::index_of(route, local).map_err(doing("list addresses"))?;
    Ok(found.filter(|link| others.contains(link)))
}
