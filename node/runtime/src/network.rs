//! What the runtime asks of whoever makes networks. It knows a network as the path of a namespace and nothing else.

use std::{future::Future, net::IpAddr, path::PathBuf, pin::Pin};

/// A boxed future: the network is plugged in at run time.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A container's place in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// The network namespace, such as `/run/netns/x`: the container joins it.
    pub namespace: PathBuf,
    /// The container's addresses: the first becomes its own line in `/etc/hosts`.
    pub addresses: Vec<IpAddr>,
    /// For `/etc/resolv.conf`; empty: those of the host that are not loopback.
    pub nameservers: Vec<IpAddr>,
}

/// Gives containers of [`crate::NetworkMode::Edge`] their network.
pub trait Network: Send + Sync + 'static {
    /// Makes the namespace of `container` (an id), or finds the one it made before. The error is for the user.
    fn attach<'a>(
        &'a self,
        container: &'a str,
        hostname: &'a str,
    ) -> BoxFuture<'a, Result<Attachment, String>>;

    /// Removes it; not an error where there is none. Called after the container's last process has ended.
    fn detach<'a>(&'a self, container: &'a str) -> BoxFuture<'a, Result<(), String>>;
}
