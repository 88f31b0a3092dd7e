//! The network of this node's containers: an address out of the node's block, a veth at the edge, and the way out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use covey_mesh::masquerade::{self, Masquerade};
use covey_mesh_netlink::Nft;
use covey_overlay::{
    block::{Block, Pair},
    edge::{Desired, plan, plan_new},
    object::{LINK_PREFIX, LinkName, Veth},
};
use covey_overlay_netlink::{Edge, namespace};
use covey_runtime::{Attachment, BoxFuture, Network};
use covey_state::{cluster::EdgePool, node::EdgeBlock};
use tokio::{sync::watch, task::spawn_blocking, time::MissedTickBehavior};

/// The kernel is compared with what is wanted this often.
const REPAIR_EVERY: Duration = Duration::from_secs(10);
/// Bytes of a packet between containers: room for VXLAN over IPv4 in an underlay of 1500.
const MTU: u32 = 1450;

/// What is wanted, and the sockets to have it so.
struct State {
    edge: Edge,
    nft: Nft,
    block: Block,
    /// Blocks that containers have addresses of: the node's, and those that it had before.
    blocks: BTreeSet<(ipnet::Ipv4Net, ipnet::Ipv6Net)>,
    desired: Desired,
    /// Container → its addresses.
    taken: BTreeMap<String, Pair>,
}

/// The network of this node's containers.
#[derive(Clone)]
pub struct EdgeNetwork {
    /// Where namespaces are named.
    folder: PathBuf,
    state: Arc<Mutex<State>>,
}

/// Where containers get their addresses while the node is in no cluster: the pool's first block, which no node has.
fn standalone() -> Result<EdgeBlock> {
    Ok(EdgePool::default().block(0)?)
}

impl EdgeNetwork {
    /// The network as the kernel has it: what the daemon before left is looked over by [`EdgeNetwork::repair`] once
    /// its containers have been claimed.
    ///
    /// # Errors
    /// The kernel lets this process program neither links nor nf_tables.
    pub fn open(exec_root: &std::path::Path) -> Result<Self> {
        let folder = exec_root.join("netns");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let EdgeBlock { v4, v6 } = standalone()?;
        let state = State {
            edge: Edge::open()?,
            nft: Nft::open()?,
            block: Block::new(v4, v6),
            blocks: [(v4, v6)].into(),
            desired: Desired::new(),
            taken: BTreeMap::new(),
        };
        Ok(Self { folder, state: Arc::new(Mutex::new(state)) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while a plan is applied leaves what the next plan mends.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, container: &str) -> PathBuf {
        self.folder.join(container)
    }

    /// A container of before has these addresses.
    pub fn claim(&self, container: &str, addresses: &[IpAddr]) {
        let (mut v4, mut v6) = (None, None);
        for address in addresses {
            match address {
                IpAddr::V4(address) => v4 = Some(*address),
                IpAddr::V6(address) => v6 = Some(*address),
            }
        }
        let (Some(v4), Some(v6)) = (v4, v6) else { return };
        let mut state = self.state();
        let pair = Pair { v4, v6 };
        state.block.claim(pair);
        if !state.blocks.iter().any(|(block, _)| block.contains(&v4)) {
            // Of a block that the node had before: it keeps its way out.
            state.blocks.insert((v4.into(), v6.into()));
        }
        self.want(&mut state, container, pair);
    }

    /// Removes the namespaces of containers that are no more: a daemon that was killed while it removed one left its
    /// namespace. To be called once all containers of before have been claimed.
    ///
    /// # Errors
    /// They cannot be listed or removed.
    pub fn sweep(&self) -> Result<()> {
        let state = self.state();
        let entries = fs::read_dir(&self.folder);
        for entry in entries.with_context(|| format!("cannot read {}", self.folder.display()))? {
            let name = entry?.file_name();
            if name.to_str().is_none_or(|container| !state.taken.contains_key(container)) {
                namespace::remove(&self.folder.join(name))?;
            }
        }
        Ok(())
    }

    fn want(&self, state: &mut State, container: &str, addresses: Pair) -> Veth {
        let veth = Veth {
            name: LinkName::of_container(container),
            namespace: self.path(container).to_string_lossy().into_owned(),
            addresses,
            mtu: MTU,
        };
        state.taken.insert(container.to_owned(), addresses);
        state.desired.insert(veth.name.clone(), veth.clone());
        veth
    }

    /// New containers get their addresses from this block; those that run keep theirs.
    pub fn use_block(&self, EdgeBlock { v4, v6 }: EdgeBlock) {
        let mut state = self.state();
        let mut block = Block::new(v4, v6);
        for pair in state.taken.values() {
            block.claim(*pair);
        }
        state.block = block;
        state.blocks.insert((v4, v6));
    }

    /// Brings the kernel to what is wanted.
    ///
    /// # Errors
    /// What could not be done; it is tried again next time.
    pub fn repair(&self) -> Result<()> {
        let mut state = self.state();
        let state = &mut *state;
        for change in plan(&state.desired, &state.edge.observe()?) {
            tracing::info!(?change, "edge mended");
            state.edge.apply(&change)?;
        }
        let inside = LINK_PREFIX.to_owned();
        let wanted: BTreeSet<Masquerade> = state
            .blocks
            .iter()
            .flat_map(|(v4, v6)| [ipnet::IpNet::V4(*v4), ipnet::IpNet::V6(*v6)])
            .map(|source| Masquerade { source, inside: inside.clone() })
            .collect();
        if let Some(change) = masquerade::plan(&wanted, &state.nft.observe()?) {
            state.nft.apply(&change)?;
        }
        Ok(())
    }

    /// Follows the node's block, and mends what somebody meddled with.
    pub async fn run(self, mut block: watch::Receiver<Option<EdgeBlock>>) {
        let mut timer = tokio::time::interval(REPAIR_EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = *block.borrow_and_update();
            match now.map_or_else(standalone, Ok) {
                Ok(now) => self.use_block(now),
                Err(error) => tracing::error!(%error, "no block for containers"),
            }
            let network = self.clone();
            match spawn_blocking(move || network.repair()).await {
                Ok(Err(error)) => {
                    tracing::warn!(error = format!("{error:#}"), "the edge could not be mended")
                }
                Err(error) => tracing::error!(%error, "the edge could not be mended"),
                Ok(Ok(())) => {}
            }
            tokio::select! {
                changed = block.changed() => if changed.is_err() { return },
                _ = timer.tick() => {}
            }
        }
    }

    fn make(&self, container: &str) -> Result<Attachment> {
        let path = self.path(container);
        let known = self.state().taken.get(container).copied();
        let pair = match known {
            Some(pair) => pair,
            None => {
                match namespace::create(&path) {
                    // Left by a start that was cut short: it is empty.
                    Err(namespace::NamespaceError::System(error))
                        if error.kind() == io::ErrorKind::AlreadyExists =>
                    {
                        namespace::remove(&path)?;
                        namespace::create(&path)?;
                    }
                    made => made?,
                }
                self.wire(container).inspect_err(|_| _ = namespace::remove(&path))?
            }
        };
        Ok(Attachment {
            namespace: path,
            addresses: vec![IpAddr::V4(pair.v4), IpAddr::V6(pair.v6)],
            nameservers: Vec::new(),
        })
    }

    fn wire(&self, container: &str) -> Result<Pair> {
        let mut state = self.state();
        let pair = state.block.take()?;
        let veth = self.want(&mut state, container, pair);
        let wired = plan_new(&veth).iter().try_for_each(|change| state.edge.apply(change));
        if let Err(error) = wired {
            self.unwant(&mut state, container);
            return Err(error.into());
        }
        Ok(pair)
    }

    fn unwant(&self, state: &mut State, container: &str) {
        if let Some(pair) = state.taken.remove(container) {
            state.block.free(pair);
        }
        state.desired.remove(&LinkName::of_container(container));
    }

    fn unmake(&self, container: &str) -> Result<()> {
        let name = LinkName::of_container(container);
        let mut state = self.state();
        if state.desired.contains_key(&name) {
            state.edge.apply(&covey_overlay::object::Change::DeleteLink(name))?;
        }
        self.unwant(&mut state, container);
        drop(state);
        Ok(namespace::remove(&self.path(container))?)
    }
}

impl Network for EdgeNetwork {
    fn attach<'a>(
        &'a self,
        container: &'a str,
        _hostname: &'a str,
    ) -> BoxFuture<'a, Result<Attachment, String>> {
        let (network, container) = (self.clone(), container.to_owned());
        aside(move || network.make(&container))
    }

    fn detach<'a>(&'a self, container: &'a str) -> BoxFuture<'a, Result<(), String>> {
        let (network, container) = (self.clone(), container.to_owned());
        aside(move || network.unmake(&container))
    }
}

fn aside<'a, T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> BoxFuture<'a, Result<T, String>> {
    Box::pin(async move {
        match spawn_blocking(work).await {
            Ok(result) => result.map_err(|error| format!("{error:#}")),
            Err(error) => Err(error.to_string()),
        }
    })
}
