//! One network namespace's objects of ours: what is not as wanted, and the steps of a plan.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use covey_overlay::{
    edge, network,
    object::{CACHED_SWITCHES, Change, Inside, Link, LinkKind, LinkName, Observed, Wanted},
    plan,
};
use netlink_packet_route::RouteNetlinkMessage;

use crate::{
    flow_cache::{FlowCache, Share},
    inside, message, namespace,
    socket::{BATCH_MAX, CREATE, NetlinkError, REPLACE, Route},
    switch,
};

/// Index of the loopback link in every namespace.
pub const LOOPBACK: u32 = 1;

/// Objects of ours could not be listed or changed.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A VXLAN device or an uplink has this VNI already, on this host: one of another namespace, or one that is not ours.
    #[error("VNI {vni} is taken by another VXLAN device of this host")]
    VniTaken {
        /// Which.
        vni: u32,
    },
    /// A network namespace cannot be entered.
    #[error("network namespace {}", path.display())]
    Namespace {
        /// Its name.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A switch cannot be read or set.
    #[error("switch {path}")]
    Switch {
        /// Path below `/proc/sys/net`.
        path: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel does not take the programs or maps of the flow cache.
    #[error("BPF")]
    Bpf(#[source] io::Error),
    /// A step was not taken, or a list not read.
    #[error("{what}")]
    Step {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: NetlinkError,
    },
}

impl From<io::Error> for StackError {
    fn from(source: io::Error) -> Self {
        Self::Step { what: "network namespace".to_owned(), source: source.into() }
    }
}

pub fn doing(what: impl Into<String>) -> impl FnOnce(NetlinkError) -> StackError {
    let what = what.into();
    move |source| StackError::Step { what, source }
}

/// A namespace that is not the daemon's.
pub struct Elsewhere {
    path: PathBuf,
    pub(crate) file: File,
    /// In the daemon's namespace, where the UDP sockets of VXLAN devices and other ends of uplinks are to be.
    pub(crate) host: Route,
}

/// The objects of one namespace: of this host's edge, or of the router of a network that it carries.
pub struct Stack {
    pub(crate) route: Route,
    pub(crate) elsewhere: Option<Elsewhere>,
    /// Switches that are looked at, with their usual values.
    switches: Vec<(&'static str, u32)>,
    /// Links of ours as they were last seen, by name.
    pub(crate) indexes: BTreeMap<LinkName, u32>,
    /// Of the flow cache.
    pub(crate) share: Option<Share>,
}

/// A change that takes one message.
struct Request<'a> {
    change: &'a Change,
    message: RouteNetlinkMessage,
    flags: u16,
}

impl Stack {
    /// The edge of this thread's namespace. Links of ours that are there have the programs of this cache from now on,
    /// or none.
    ///
    /// # Errors
    /// The kernel has no netlink, or a list could not be read.
    pub fn edge(cache: Option<Arc<FlowCache>>) -> Result<Self, StackError> {
        let route = Route::open().map_err(doing("rtnetlink"))?;
        Self::open(route, None, edge::SWITCHES.iter().chain(edge::JOINED_SWITCHES), cache)
    }

    /// The router in the namespace that [`namespace::create`] made at `path`. To be called in the host's namespace: the
    /// UDP sockets of its VXLAN devices will be there. Links that are there as [`Stack::edge`] has it.
    ///
    /// # Errors
    /// [`StackError::Namespace`], the kernel has no netlink, or a list could not be read.
    pub fn router(path: &Path, cache: Option<Arc<FlowCache>>) -> Result<Self, StackError> {
        let missing = |source: io::Error| StackError::Namespace { path: path.to_owned(), source };
        let file = File::open(path).map_err(missing)?;
        let route =
            namespace::inside(path, || Ok(Route::open())).map_err(missing)?.map_err(doing("rtnetlink"))?;
        let host = Route::open().map_err(doing("rtnetlink"))?;
        let elsewhere = Some(Elsewhere { path: path.to_owned(), file, host });
        Self::open(route, elsewhere, network::SWITCHES.iter(), cache)
    }

    fn open<'a>(
        route: Route,
        elsewhere: Option<Elsewhere>,
        switches: impl Iterator<Item = &'a (&'static str, u32)>,
        cache: Option<Arc<FlowCache>>,
    ) -> Result<Self, StackError> {
        let switches = switches.chain(CACHED_SWITCHES).copied().collect();
        let share = cache.map(Share::new);
        let mut stack = Self { route, elsewhere, switches, indexes: BTreeMap::new(), share };
        stack.open_cache()?;
        Ok(stack)
    }

    /// The steps to what is wanted, both ends of the containers' links looked at, and what there is.
    ///
    /// # Errors
    /// A list could not be read.
    pub fn compare(&mut self, wanted: &Wanted) -> Result<(Vec<Change>, Observed), StackError> {
        let mut observed = self.observe()?;
        self.look_inside(wanted, &mut observed)?;
        Ok((plan(wanted, &observed), observed))
    }

    /// Takes the steps to what is wanted, and tells which they were.
    ///
    /// # Errors
    /// As [`Stack::compare`] and [`Stack::apply_all`].
    pub fn mend(&mut self, wanted: &Wanted) -> Result<Vec<Change>, StackError> {
        let (changes, _) = self.compare(wanted)?;
        self.apply_all(&changes)?;
        Ok(changes)
    }

    /// All of this namespace is ours: it is a router's.
    pub(crate) const fn is_own(&self) -> bool {
        self.elsewhere.is_some()
    }

    pub(crate) fn read_switches(&self) -> Result<BTreeMap<&'static str, u32>, StackError> {
        self.within(|| self.switches.iter().map(|switch| Ok((switch.0, switch::read(*switch)?))).collect())
    }

    /// Runs `work` where switches are those of this namespace.
    fn within<T: Send>(&self, work: impl FnOnce() -> Result<T, StackError> + Send) -> Result<T, StackError> {
        match &self.elsewhere {
            Some(elsewhere) => namespace::inside(&elsewhere.path, work),
            None => work(),
        }
    }

    /// Takes one step. [`StackError::VniTaken`] where another VXLAN device has the VNI, as when the namespace of a router
    /// of before is still there.
    ///
    /// # Errors
    /// Nothing of the step is left but what a later plan finds and mends.
    pub fn apply(&mut self, change: &Change) -> Result<(), StackError> {
        self.apply_all(std::slice::from_ref(change))
    }

    /// Takes steps in order, many at once. One that fails keeps none of the others back.
    ///
    /// # Errors
    /// That of the first step that failed; as [`Stack::apply`].
    pub fn apply_all(&mut self, changes: &[Change]) -> Result<(), StackError> {
        let mut failed = Ok(());
        let mut requests = Vec::new();
        for change in changes {
            let taken = match self.request_for(change) {
                Ok(Some(request)) => {
                    requests.push(request);
                    if requests.len() < BATCH_MAX { Ok(()) } else { self.send(&mut requests) }
                }
                // What takes more than a message comes after what was asked for before it.
                Ok(None) => self.send(&mut requests).and(self.take(change)),
                Err(error) => Err(error),
            };
            failed = failed.and(taken);
        }
        failed.and(self.send(&mut requests))
    }

    fn send(&mut self, requests: &mut Vec<Request<'_>>) -> Result<(), StackError> {
        let (changes, messages): (Vec<_>, Vec<_>) =
            requests.drain(..).map(|request| (request.change, (request.message, request.flags))).unzip();
        let results = self.route.batch(messages).map_err(doing("rtnetlink"))?;
        changes.into_iter().zip(results).try_for_each(|(change, result)| match result {
            Err(error) if is_gone(change, &error) => Ok(()),
            result => result.map_err(doing(change.to_string())),
        })
    }

    fn take(&mut self, change: &Change) -> Result<(), StackError> {
        match change {
            Change::SetSwitch(path, value) => self.within(|| switch::write(path, *value)),
            Change::DeleteLink(name) => self.delete_link(name),
            Change::CreateLink(name, link) => {
                self.indexes.remove(name);
                match &link.kind {
                    LinkKind::Vxlan(vxlan) => self.create_vxlan(name, link, vxlan.vni),
                    LinkKind::Veth(inside) => self.create_veth(name, link, inside),
                    LinkKind::Uplink => self.create_uplink(name, link),
                }
            }
            Change::SetInside { inside, part, .. } => {
                inside::set(inside, &[*part].into()).map_err(doing(change.to_string()))
            }
            Change::MendLink { name, mtu } => self.mend_uplink(name, *mtu),
            Change::SetCached(name) => self.set_cached(name),
            Change::SetUnderlay(underlay) => self.set_underlay(*underlay),
            _ => Ok(()),
        }
    }

    fn delete_link(&mut self, name: &LinkName) -> Result<(), StackError> {
        self.indexes.remove(name);
        match self.route.request(RouteNetlinkMessage::DelLink(message::named(name.as_str())), 0) {
            // It went with its namespace meanwhile.
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
            result => result.map_err(doing(format!("delete link {name}"))),
        }
    }

    fn create_vxlan(&mut self, name: &LinkName, link: &Link, vni: u32) -> Result<(), StackError> {
        let made = match &mut self.elsewhere {
            None => {
                self.route.request(RouteNetlinkMessage::NewLink(message::new_link(name, link, None)), CREATE)
            }
            Some(Elsewhere { file, host, .. }) => {
                let message = message::new_link(name, link, Some(file.as_fd()));
                host.request(RouteNetlinkMessage::NewLink(message), CREATE)
            }
        };
        match made {
            Err(error) if error.errno() == Some(libc::EEXIST) => Err(StackError::VniTaken { vni }),
            made => made.map_err(doing(format!("make link {name}"))),
        }
    }

    fn create_veth(&mut self, name: &LinkName, link: &Link, inside: &Inside) -> Result<(), StackError> {
        let path = Path::new(&inside.namespace);
        let namespace =
            File::open(path).map_err(|source| StackError::Namespace { path: path.to_owned(), source })?;
        let message = message::new_link(name, link, Some(namespace.as_fd()));
        self.route
            .request(RouteNetlinkMessage::NewLink(message), CREATE)
            .map_err(doing(format!("make link {name}")))?;
        // Before the container can send anything.
        self.begin_cached(name, link);
        inside::set(inside, &link.parts()).map_err(|error| {
            // Half a link looks whole from here. What keeps it from going away is not what matters to the caller.
            let _ = self.delete_link(name);
            doing(format!("container's end of {name}"))(error)
        })
    }

    /// A new link's. It works without as well: whoever compares next finds that it is missing.
    pub(crate) fn begin_cached(&mut self, name: &LinkName, link: &Link) {
        if link.cached {
            let _ = self.set_cached(name);
        }
    }

    /// The message that a change takes; none where it takes more than one.
    fn request_for<'a>(&mut self, change: &'a Change) -> Result<Option<Request<'a>>, StackError> {
        use RouteNetlinkMessage as M;
        let (message, flags) = match change {
            Change::SetSwitch(..)
            | Change::DeleteLink(_)
            | Change::CreateLink(..)
            | Change::SetInside { .. }
            | Change::SetCached(_)
            | Change::SetUnderlay(_) => return Ok(None),
            Change::MendLink { name, .. } if name.is_uplink() => return Ok(None),
            Change::MendLink { name, mtu } => (M::SetLink(message::restored(self.index(name)?, *mtu)), 0),
            Change::SetConf(name, conf) => (M::SetLink(message::conf(self.index(name)?, *conf)), 0),
            Change::SetAddress(link, address) => {
                (M::NewAddress(message::address(self.index(link)?, *address)), REPLACE)
            }
            Change::DeleteAddress(link, address) => {
                (M::DelAddress(message::address(self.index(link)?, *address)), 0)
            }
            Change::SetNeighbour { link, to, mac } => {
                (M::NewNeighbour(message::neighbour(self.index(link)?, *to, Some(*mac))), REPLACE)
            }
            Change::DeleteNeighbour { link, to } => {
                (M::DelNeighbour(message::neighbour(self.index(link)?, *to, None)), 0)
            }
            Change::SetFdb { link, mac, underlay } => {
                (M::NewNeighbour(message::fdb(self.index(link)?, *mac, *underlay)), REPLACE)
            }
            Change::DeleteFdb { link, mac, underlay } => {
                (M::DelNeighbour(message::fdb(self.index(link)?, *mac, *underlay)), 0)
            }
            Change::SetRoute(to, hop) => {
                let index = hop.link().map_or(Ok(0), |link| self.index(link))?;
                (M::NewRoute(message::route(*to, Some((hop, index)))), REPLACE)
            }
            Change::DeleteRoute(to) => (M::DelRoute(message::route(*to, None)), 0),
            Change::SetRule(rule) => (M::NewRule(message::rule(*rule)), CREATE),
            Change::DeleteRule(rule) => (M::DelRule(message::rule(*rule)), 0),
        };
        Ok(Some(Request { change, message, flags }))
    }

    pub(crate) fn index(&mut self, name: &LinkName) -> Result<u32, StackError> {
        if *name == LinkName::loopback() {
            return Ok(LOOPBACK);
        }
        if let Some(index) = self.indexes.get(name) {
            return Ok(*index);
        }
        let found = self.route.ask(RouteNetlinkMessage::GetLink(message::named(name.as_str())));
        match found.map_err(doing(format!("link {name}")))? {
            Some(RouteNetlinkMessage::NewLink(link)) => {
                self.indexes.insert(name.clone(), link.header.index);
                Ok(link.header.index)
            }
            _ => Err(doing(format!("link {name}"))(io::Error::from_raw_os_error(libc::ENODEV).into())),
        }
    }
}

/// What was to be deleted is not there, or what was to be made is.
fn is_gone(change: &Change, error: &NetlinkError) -> bool {
    let codes: &[i32] = match change {
        Change::DeleteAddress(..) => &[libc::EADDRNOTAVAIL],
        Change::DeleteNeighbour { .. } | Change::DeleteFdb { .. } | Change::DeleteRule(_) => &[libc::ENOENT],
        Change::DeleteRoute(_) => &[libc::ESRCH],
        Change::SetRule(_) => &[libc::EEXIST],
        _ => &[],
    };
    error.errno().is_some_and(|code| codes.contains(&code))
}
