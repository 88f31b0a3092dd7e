//! The resolvers of this node's containers: which zones each sees, and who is asked for the rest.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result};
use covey_mesh::names::Zone;
use covey_mesh_dns::{Forwarder, Outside, Resolver, Scope, Sockets};
use tokio::{runtime::Handle, sync::watch};

/// Port of DNS (RFC 1035).
const PORT: u16 = 53;
/// Where this host's own servers are named.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What all resolvers share.
pub struct Resolvers {
    forwarder: Arc<Forwarder>,
    runtime: Handle,
}

/// What one container sees of names.
#[derive(Debug)]
pub struct View {
    /// Its host name.
    pub host: String,
    /// Its addresses in its networks.
    pub addresses: Vec<IpAddr>,
    /// Its networks, in order of precedence.
    pub zones: Vec<watch::Receiver<Zone>>,
    /// Servers of its own in place of the host's: it is asked from where the container is.
    pub servers: Vec<IpAddr>,
    /// It has a way out, and so may ask the host's.
    pub way_out: bool,
}

/// One container's resolver. It ends when dropped.
pub struct Served {
    resolver: Resolver,
    /// What the container sees.
    scope: watch::Sender<Scope>,
}

impl Served {
    /// Sees to it that what the container asks comes here. True if it did not.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn lead_here(&self) -> Result<bool> {
        Ok(self.resolver.lead_here()?)
    }

    /// Whether it does, without changing anything.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn is_led_here(&self) -> Result<bool> {
        Ok(self.resolver.is_led_here()?)
    }

    /// The container sees something else from now on.
    pub fn show(&self, view: View) {
        self.scope.send_replace(scope(view));
    }

    /// The container's resolver asks these servers from now on for what its networks do not know.
    pub fn ask(&self, servers: &[IpAddr]) {
        let outside = Outside::Servers(addresses(servers));
        self.scope.send_if_modified(|scope| {
            let is_news = scope.outside != outside;
            scope.outside = outside;
            is_news
        });
    }
}

impl Resolvers {
    /// None yet.
    pub fn new(runtime: Handle) -> Self {
        Self { forwarder: Arc::default(), runtime }
    }

    /// Serves a container in this namespace, once it is [led here](Served::lead_here); gives also what is to be kept for
    /// the next daemon.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn open(&self, namespace: &Path, view: View) -> Result<(Served, Vec<Arc<OwnedFd>>)> {
        let sockets = Sockets::open(namespace)?;
        let (udp, tcp) = sockets.duplicate().context("sockets of a container's resolver")?;
        Ok((self.serve(sockets, view)?, vec![Arc::new(udp), Arc::new(tcp)]))
    }

    /// Goes on serving a container by the sockets that were kept.
    ///
    /// # Errors
    /// They are not those of a resolver.
    pub fn adopt(&self, namespace: &Path, kept: Vec<OwnedFd>, view: View) -> Result<Served> {
        let [udp, tcp] = <[OwnedFd; 2]>::try_from(kept)
            .map_err(|kept| anyhow::anyhow!("{} sockets were kept for a resolver, not 2", kept.len()))?;
        self.serve(Sockets::from_fds(udp, tcp, namespace)?, view)
    }

    fn serve(&self, sockets: Sockets, view: View) -> Result<Served> {
        let (scope, seen) = watch::channel(scope(view));
        let _inside = self.runtime.enter();
        Ok(Served { resolver: Resolver::spawn(sockets, seen, self.forwarder.clone())?, scope })
    }
}

fn scope(view: View) -> Scope {
    let outside = match (view.servers.is_empty(), view.way_out) {
        // They may be in a network that has no way out.
        (false, _) => Outside::Own(addresses(&view.servers)),
        // A host that names no server has none.
        (true, true) => Outside::Servers(addresses(&hosts_own().unwrap_or_default())),
        (true, false) => Outside::Nothing,
    };
    let View { host, addresses, zones, .. } = view;
    Scope { host, addresses, zones, outside }
}

fn addresses(servers: &[IpAddr]) -> Vec<SocketAddr> {
    servers.iter().map(|server| SocketAddr::new(*server, PORT)).collect()
}

/// This host's own servers; none where the file cannot be read.
pub fn hosts_own() -> Option<Vec<IpAddr>> {
    Some(servers_in(&fs::read_to_string(RESOLV_CONF).ok()?))
}

fn servers_in(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| line.split_whitespace().nth(1)?.parse().ok();
    text.lines().filter(|line| line.starts_with("nameserver")).filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// LB-01
    #[test]
    fn the_hosts_servers_are_read_as_the_c_library_does() {
        let text =
            "# no\nsearch example.org\nnameserver 127.0.0.53\nnameserver\t2001:db8::1 # x\nnameserver x\n";
        let expected: [IpAddr; 2] = ["127.0.0.53".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(servers_in(text), expected);
    }
}
