//! What the runtime asks of whoever makes networks. It knows a network as the path of a namespace, and keeps what is
//! given to it for the daemon after this one; what either means is not its business.

use std::{
    future::Future,
    net::IpAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use covey_state::network::{PublishedPort, Wiring};
use serde::{Deserialize, Serialize};

use crate::layout;

/// Sockets that an [`Attachment`] may have kept.
pub const KEPT_MAX: usize = 4;
/// The file in a running container's exec directory with what [`Remembered`] has.
const FILE: &str = "attachment";

/// A boxed future: the network is plugged in at run time.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A container's place in a network.
#[derive(Clone, Debug, Default)]
pub struct Attachment {
    /// The network namespace, such as `/run/netns/x`: the container joins it.
    pub namespace: PathBuf,
    /// The container's addresses: the first becomes its own line in `/etc/hosts`.
    pub addresses: Vec<IpAddr>,
    /// Published ports as they were really bound.
    pub ports: Vec<PublishedPort>,
    /// More lines of `/etc/hosts`: an address and its names.
    pub hosts: Vec<(IpAddr, String)>,
    /// For `/etc/resolv.conf`; empty: those of the host that are not loopback.
    pub nameservers: Vec<IpAddr>,
    /// Domains of its `search` line; empty: those of the host where the name servers are the host's, else none.
    pub search: Vec<String>,
    /// Words of its `options` line, such as `ndots:0`; empty: as with `search`.
    pub options: Vec<String>,
    /// Sockets, at most [`KEPT_MAX`], that must outlive this daemon: the container's shim holds them until the container
    /// has ended, and the next daemon hands them to [`Network::adopted`].
    pub keep: Vec<Arc<OwnedFd>>,
}

/// Gives containers of [`crate::NetworkMode::Edge`] their network.
pub trait Network: Send + Sync + 'static {
    /// Makes the namespace of `container` (an id), or finds the one it made before, and wires it as the container was
    /// made with. The error is for the user; [`Network::detach`] follows it too.
    fn attach<'a>(
        &'a self,
        container: &'a str,
        hostname: &'a str,
        wiring: &'a Wiring,
    ) -> BoxFuture<'a, Result<Attachment, String>>;

    /// Wires a container that runs anew, as `wiring` says from now on; where this fails it has what it had. The shim goes
    /// on holding what it was given at the start: [`Attachment::keep`] counts for nothing here.
    fn rewire<'a>(
        &'a self,
        container: &'a str,
        hostname: &'a str,
        wiring: &'a Wiring,
    ) -> BoxFuture<'a, Result<Attachment, String>>;

    /// A container that runs since a daemon before this one: told for each while the runtime opens, before anything else
    /// is asked. `addresses` and `ports` are those of its attachment, and `kept` its sockets in their order; none of them
    /// where they could not be had back. Must not block.
    fn adopted(
        &self,
        container: &str,
        wiring: &Wiring,
        addresses: &[IpAddr],
        ports: &[PublishedPort],
        kept: Vec<OwnedFd>,
    );

    /// Removes it; not an error where there is none. Called once for each [`Network::attach`], failed ones as well, after
    /// the container's last process has ended.
    fn detach<'a>(&'a self, container: &'a str) -> BoxFuture<'a, Result<(), String>>;
}

/// What is remembered of an attachment while its container runs, for the daemon after this one.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<PublishedPort>,
    /// Sockets that the shim holds.
    pub kept: usize,
}

impl Remembered {
    /// Writes down `attachment` in the container's directory `exec`.
    pub(crate) fn write(attachment: &Attachment, exec: &Path) -> std::io::Result<()> {
        Self::write_kept(attachment, attachment.keep.len(), exec)
    }

    /// The container is wired anew; the shim holds what it held.
    pub(crate) fn rewrite(attachment: &Attachment, exec: &Path) -> std::io::Result<()> {
        Self::write_kept(attachment, Self::read(exec).kept, exec)
    }

    fn write_kept(attachment: &Attachment, kept: usize, exec: &Path) -> std::io::Result<()> {
        let Attachment { addresses, ports, .. } = attachment;
        let remembered = Self { addresses: addresses.clone(), ports: ports.clone(), kept };
        layout::replace(exec, FILE, &serde_json::to_vec(&remembered)?, false)
    }

    /// Reads what was written; nothing where it is missing.
    pub(crate) fn read(exec: &Path) -> Self {
        let text = std::fs::read(exec.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}
