//! The keeper: owns what this host's networks are to be, and the kernel's sockets to have them so.

mod cluster;
mod containers;
mod mending;
mod parting;
mod refused;
mod rewire;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use covey_overlay_netlink::{FlowCache, namespace, remove_router};
use covey_state::{
    Id,
    network::{NetworkConfig, PublishedPort, Wiring},
    node::EdgeBlock,
};
use tokio::{runtime::Handle, sync::watch};

use super::{
    Carried,
    carrier::{self, Carrier},
    edge::Edge,
    inbox::{Inbox, Mail, Request},
    place::{Neighbour, Place},
    remembered::{Memory, Remembered},
    resolver::{Resolvers, Served, View},
    rows::Key,
};
use crate::{
    clock,
    endpoint::{Endpoint, Scope},
    origins::Origins,
    refused::RefusedPort,
};

/// What was told before this daemon began counts for so long, unless it is told anew, or gossip says that all was told.
const CONFIRM_WITHIN: Duration = Duration::from_secs(30);

/// A container of this host.
struct Wired {
    wiring: Wiring,
    /// Ports of this host that are its own, as they were really bound.
    ports: Vec<PublishedPort>,
    resolver: Option<Served>,
}

/// The owner of this host's networks.
pub struct Keeper {
    /// Where namespaces are named.
    folder: PathBuf,
    /// What is kept over a restart.
    memory: Memory,
    /// What the kernel does with the packets of connections, remembered; not every kernel can.
    cache: Option<Arc<FlowCache>>,
    /// The edge.
    pub edge: Edge,
    /// The networks that this host carries.
    pub carriers: BTreeMap<Id, Carrier>,
    /// How many networks were carried so far.
    times_carried: u64,
    containers: BTreeMap<String, Wired>,
    resolvers: Resolvers,
    /// Where this node is; nowhere while it is in no cluster.
    pub place: Option<Place>,
    /// The other nodes.
    pub neighbours: Vec<Neighbour>,
    /// The addresses that other hosts are seen under.
    origins: BTreeMap<Id, Origins>,
    /// Hosts that are down.
    down: BTreeSet<Id>,
    /// Is told what this host carries.
    carried: watch::Sender<Carried>,
    /// Is told which ports of services this host cannot take.
    pub refused: watch::Sender<Vec<RefusedPort>>,
    /// When those are tried again that somebody else has.
    retry_at: Option<Instant>,
    /// Rows that were told to the daemon before and not yet to this one.
    pub unconfirmed: BTreeMap<(Scope, Key), Endpoint>,
    confirm_until: Instant,
    /// Rows that the roster does not bear out, or not yet: no more than gossip holds.
    aside: BTreeMap<(Scope, Key), Endpoint>,
    /// Kind of object → how many were not as they should be when looked at.
    pub drift: BTreeMap<&'static str, u64>,
    /// How often something was mended.
    pub repairs: u64,
    /// Networks of which not everything has been told yet, and until when that is waited for.
    unheard: BTreeMap<Id, Instant>,
    /// Networks that are carried though nobody here is in them, and until when.
    parting: BTreeMap<Id, Instant>,
    /// When connections to whoever is gone are to be cut.
    cut_at: Option<Instant>,
    /// When what is told is to be written down.
    remember_at: Option<Instant>,
    /// The kernel is compared with what is wanted this often.
    repair_every: Duration,
    repair_at: Instant,
    /// Nothing is changed before all containers of before have been named.
    begun: bool,
}

/// Without it everything works as well, only slower.
fn open_cache() -> Option<Arc<FlowCache>> {
    let opened = FlowCache::open();
    if let Err(error) = &opened {
        tracing::info!(error = error as &dyn std::error::Error, "every packet goes the kernel's own way");
    }
    opened.ok().map(Arc::new)
}

impl Keeper {
    /// With what the daemon before remembered; the kernel is as it was.
    ///
    /// # Errors
    /// The kernel lets this process program neither links nor nf_tables.
    pub fn open(
        exec_root: &Path,
        repair_every: Duration,
        carried: watch::Sender<Carried>,
        runtime: Handle,
    ) -> Result<Self> {
        let folder = exec_root.join("netns");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let memory = Memory::new(exec_root);
        let Remembered { place, neighbours, origins, down, rows } = memory.read();
        let row =
            |(scope, owner, key, row): (Scope, Id, String, Endpoint)| ((scope, (owner, key.into())), row);
        let now = clock::monotonic();
        let cache = open_cache();
        let mut edge = Edge::open(cache.clone())?;
        down.iter().for_each(|host| edge.balancer.suspend(*host, true));
        Ok(Self {
            folder,
            memory,
            cache,
            edge,
            carriers: BTreeMap::new(),
            times_carried: 0,
            containers: BTreeMap::new(),
            resolvers: Resolvers::new(runtime),
            place,
            neighbours,
            origins,
            down,
            carried,
            refused: watch::Sender::new(Vec::new()),
            retry_at: None,
            unconfirmed: rows.into_iter().map(row).collect(),
            confirm_until: now + CONFIRM_WITHIN,
            aside: BTreeMap::new(),
            drift: BTreeMap::new(),
            repairs: 0,
            unheard: BTreeMap::new(),
            parting: BTreeMap::new(),
            cut_at: None,
            remember_at: None,
            repair_every,
            repair_at: now + repair_every,
            begun: false,
        })
    }

    /// Works until it is told to end.
    pub fn run(mut self, inbox: &Inbox) {
        loop {
            let forget_at = (self.begun && !self.unconfirmed.is_empty()).then_some(self.confirm_until);
            let due = self
                .remember_at
                .into_iter()
                .chain(self.cut_at)
                .chain(self.retry_at)
                .chain(forget_at)
                .chain(self.parting.values().chain(self.unheard.values()).copied())
                .fold(self.repair_at, Instant::min);
            let Mail { requests, rows, withdrawn, down, heard } = inbox.take(clock::monotonic, due);
            self.hear(rows, &withdrawn, down);
            self.forget_untold(&heard);
            self.close_names(|id, _| heard.contains(&Scope::Network(id)));
            for request in requests {
                match request {
                    Request::End(done) => {
                        self.end();
                        // Whoever asked may be gone.
                        let _ = done.send(());
                        return;
                    }
                    request => self.handle(request),
                }
            }
            self.look_at_clock();
            self.tell_refused();
        }
    }

    fn handle(&mut self, request: Request) {
        match request {
            Request::Attach { container, hostname, wiring, reply } => {
                let attached = self.attach(&container, &hostname, &wiring);
                // Whoever asked may be gone; the container's end is told all the same.
                let _ = reply.send(attached.map_err(|error| format!("{error:#}")));
            }
            Request::Detach { container, reply } => {
                let _ = reply.send(self.detach(&container).map_err(|error| format!("{error:#}")));
            }
            Request::Rewire { container, hostname, wiring, reply } => {
                let rewired = self.rewire(&container, &hostname, &wiring);
                let _ = reply.send(rewired.map_err(|error| format!("{error:#}")));
            }
            Request::Adopt { container, wiring, addresses, ports, kept } => {
                if let Err(error) = self.adopt(&container, &wiring, &addresses, &ports, kept) {
                    tracing::error!(
                        container,
                        error = format!("{error:#}"),
                        "a container's networks were lost"
                    );
                }
            }
            Request::Open(block) => self.begin(block),
            Request::Settle(place, neighbours) => self.locate(place, neighbours),
            Request::Origins(host, origins) => self.see(host, origins),
            Request::Leave => self.leave(),
            Request::Look(question) => question(self),
            Request::End(_) => {}
        }
    }

    /// All containers of before have been named: from now on the kernel is as is wanted.
    fn begin(&mut self, block: Option<EdgeBlock>) {
        if let Some(block) = block {
            self.edge.use_block(block);
        }
        self.forget_own();
        self.recall(Scope::Ingress);
        self.edge.take_moved();
        self.carriers.values_mut().for_each(Carrier::take_moved);
        self.begun = true;
        if let Err(error) = self.sweep() {
            tracing::warn!(error = format!("{error:#}"), "namespaces of before are left");
        }
        self.join();
        self.repair();
        // What the daemon before left behind is no drift.
        self.drift.clear();
        self.repairs = 0;
    }

    /// The namespace of a container.
    pub fn path(&self, container: &str) -> PathBuf {
        self.folder.join(container)
    }

    /// What a container of this host has of the networks.
    pub fn wiring(&self, container: &str) -> Option<&Wiring> {
        self.containers.get(container).map(|wired| &wired.wiring)
    }

    /// A network is carried from now on.
    fn carry(&mut self, config: &Arc<NetworkConfig>) -> Result<()> {
        if self.carriers.contains_key(&config.id) {
            self.parting.remove(&config.id);
            return Ok(());
        }
        self.make_way_for(config);
        if config.is_overlay() && self.place.is_none() {
            bail!("network {} is the swarm's, and this node is in none", config.name);
        }
        let cache = self.cache.clone();
        let mut carrier = Carrier::open(&self.folder, config.clone(), self.place.as_ref(), cache)?;
        carrier.time = self.times_carried;
        self.times_carried += 1;
        let scope = Scope::Network(config.id);
        self.down.iter().for_each(|host| carrier.suspend(*host, true));
        self.carriers.insert(config.id, carrier);
        if config.is_overlay() {
            let within = if self.begun { told::HEAR_WITHIN } else { told::HEAR_AGAIN_WITHIN };
            self.unheard.insert(config.id, clock::monotonic() + within);
        }
        self.recall(scope);
        self.tell_carried();
        if config.is_overlay() {
            self.join();
        }
        self.mend_one(config.id)
    }

    fn mend_one(&mut self, network: Id) -> Result<()> {
        if self.begun
            && let Some(carrier) = self.carriers.get_mut(&network)
        {
            carrier.repair()?;
            carrier.settle()?;
        }
        Ok(())
    }

    fn tell_carried(&self) {
        let carried = self.carriers.iter().filter(|(_, carrier)| carrier.config.is_overlay());
        let carried = carried
            .map(|(id, carrier)| ((*id, carrier.time), (carrier.config.clone(), carrier.hosts())))
            .collect();
        self.carried.send_if_modified(|told| {
            let changed = *told != carried;
            *told = carried;
            changed
        });
    }

    /// Removes namespaces that nobody has any more: a daemon that was killed while it removed a container left them.
    fn sweep(&self) -> Result<()> {
        let read = fs::read_dir(&self.folder);
        for entry in read.with_context(|| format!("cannot read {}", self.folder.display()))? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let path = self.folder.join(&*name);
            match name.strip_prefix(carrier::PREFIX) {
                Some(id) if id.parse().is_ok_and(|id| self.carriers.contains_key(&id)) => {}
                Some(_) => remove_router(&path)?,
                None if self.containers.contains_key(&*name) => {}
                None => namespace::remove(&path)?,
            }
        }
        Ok(())
    }

    /// The daemon ends. Containers that run on keep what they have; without any, nothing is left in the kernel.
    fn end(&mut self) {
        self.part(|_, _| true);
        self.remember_now();
        if !self.containers.is_empty() {
            return;
        }
        if let Err(error) = self.edge.clear() {
            tracing::warn!(error = format!("{error:#}"), "something is left in the kernel");
        }
    }
}

#[cfg(test)]
mod tests;
