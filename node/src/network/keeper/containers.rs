//! Containers come and go: each gets its namespace, its links, its ports and its resolver, and gives them back.

use std::{collections::BTreeMap, io, net::IpAddr, os::fd::OwnedFd, path::Path};

use anyhow::{Result, bail};
use covey_overlay::block::Pair;
use covey_overlay_netlink::namespace;
use covey_runtime::Attachment;
use covey_state::network::{Attached, PublishedPort, Wiring};
use nix::ifaddrs::getifaddrs;

use super::{Keeper, Served, View, Wired};
use crate::address::ip_of;

impl Keeper {
    /// Gives a new container its networks: all of them, or none.
    pub(super) fn attach(&mut self, container: &str, hostname: &str, wiring: &Wiring) -> Result<Attachment> {
        if self.containers.contains_key(container) {
            bail!("container {container} has its networks already");
        }
        let attached = self.wire(container, hostname, wiring);
        if attached.is_err() {
            self.let_go(container);
        }
        attached
    }

    fn wire(&mut self, container: &str, hostname: &str, wiring: &Wiring) -> Result<Attachment> {
        let ports = self.edge.hold(container, &wiring.ports)?;
        let path = self.path(container);
        match namespace::create(&path) {
            // Left by a start that was cut short: it is empty.
            Err(namespace::NamespaceError::System(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
                namespace::remove(&path)?;
                namespace::create(&path)?;
            }
            made => made?,
        }
        let wired = Wired { wiring: wiring.clone(), ports: ports.clone(), resolver: None };
        self.containers.insert(container.to_owned(), wired);
        let mut attachment = Attachment { namespace: path.clone(), ports, ..Attachment::default() };
        for (place, attached) in wiring.networks.iter().enumerate() {
            self.carry(&attached.network)?;
            if let Some(carrier) = self.carriers.get_mut(&attached.network.id) {
                carrier.attach(container, &path, inside(wiring, place), attached, &wiring.names)?;
            }
            attachment.addresses.extend(&attached.addresses);
        }
        if wiring.edge {
            let Pair { v4, v6 } = self.edge.attach(container, &path)?;
            attachment.addresses.extend([IpAddr::V4(v4), IpAddr::V6(v6)]);
            self.edge.publish(container, &attachment.ports)?;
            self.edge.bridge(container, wiring.is_bridged())?;
        }
        if wiring.edge || !wiring.networks.is_empty() {
            // Of those without networks as well: they may come into one, and only now can their shim be given anything.
            let (served, keep) = self.resolvers.open(&path, self.view(hostname, wiring))?;
            name_servers(&mut attachment, wiring, &served)?;
            if let Some(wired) = self.containers.get_mut(container) {
                wired.resolver = Some(served);
            }
            attachment.keep = keep;
        }
        Ok(attachment)
    }

    pub(super) fn view(&self, hostname: &str, wiring: &Wiring) -> View {
        let carriers = wiring.networks.iter().filter_map(|attached| self.carriers.get(&attached.network.id));
        View {
            host: hostname.to_owned(),
            addresses: wiring
                .networks
                .iter()
                .flat_map(|attached| attached.addresses.iter().copied())
                .collect(),
            zones: carriers.map(|carrier| carrier.zone.subscribe()).collect(),
            servers: wiring.nameservers.clone(),
            way_out: wiring.edge,
        }
    }

    pub(super) fn adopt(
        &mut self,
        container: &str,
        wiring: &Wiring,
        addresses: &[IpAddr],
        ports: &[PublishedPort],
        kept: Vec<OwnedFd>,
    ) -> Result<()> {
        let path = self.path(container);
        if wiring.networks.iter().any(|attached| attached.network.is_overlay()) && self.place.is_none() {
            tracing::warn!(container, "where this node is in its swarm was forgotten");
        }
        let wired = Wired { wiring: wiring.clone(), ports: ports.to_vec(), resolver: None };
        self.containers.insert(container.to_owned(), wired);
        if let Some(pair) = edge_pair(wiring, addresses) {
            self.edge.claim(container, &path, pair, wiring.is_bridged());
            self.edge.claim_ports(container, ports);
        }
        let links = links_in(&path);
        // A network that is lost takes no other with it.
        let mut claimed = Ok(());
        for (place, attached) in wiring.networks.iter().enumerate() {
            claimed = claimed.and(self.carry(&attached.network));
            if let Some(carrier) = self.carriers.get_mut(&attached.network.id) {
                let link = attached.addresses.iter().find_map(|address| links.get(address).cloned());
                let link = link.unwrap_or_else(|| inside(wiring, place));
                carrier.claim(container, &path, link, attached, &wiring.names);
            }
        }
        if !wiring.networks.is_empty() || !kept.is_empty() {
            // Its host name is among the names that its networks know.
            let view = self.view("", wiring);
            // What leads there is looked at with the first repair.
            let served = match kept.is_empty() {
                true => self.resolvers.open(&path, view)?.0,
                false => self.resolvers.adopt(&path, kept, view)?,
            };
            if let Some(wired) = self.containers.get_mut(container) {
                wired.resolver = Some(served);
            }
        }
        claimed
    }

    /// Undoes an attachment that did not succeed.
    pub(super) fn let_go(&mut self, container: &str) {
        if let Err(error) = self.detach(container) {
            tracing::warn!(container, error = format!("{error:#}"), "a container's network is not all gone");
        }
    }

    /// Everything of a container goes, whatever of it fails on the way.
    pub(super) fn detach(&mut self, container: &str) -> Result<()> {
        self.take_back(container);
        let mut results = vec![self.edge.detach(container)];
        if let Some(wired) = self.containers.remove(container) {
            for Attached { network, .. } in wired.wiring.networks {
                if let Some(carrier) = self.carriers.get_mut(&network.id) {
                    results.push(carrier.detach(container));
                }
                results.push(self.part_soon(network.id));
            }
        }
        results.push(namespace::remove(&self.path(container)).map_err(Into::into));
        self.forget_flows();
        results.into_iter().collect()
    }
}

/// Whom the container asks: its resolver for everything, where it has networks with names.
pub(super) fn name_servers(attachment: &mut Attachment, wiring: &Wiring, served: &Served) -> Result<()> {
    if wiring.networks.is_empty() {
        attachment.nameservers.clone_from(&wiring.nameservers);
    } else {
        served.lead_here()?;
        attachment.nameservers = vec![covey_mesh_dns::ADDRESS.into()];
        attachment.options = vec!["ndots:0".to_owned()];
    }
    Ok(())
}

/// The name of a container's link into the network at this place of its list; the edge's is the first of all.
fn inside(wiring: &Wiring, place: usize) -> String {
    format!("eth{}", place + usize::from(wiring.edge))
}

/// The links of a container of before, by their addresses: where networks have come and gone while it ran, their order
/// does not say. None where it has ended.
fn links_in(namespace: &Path) -> BTreeMap<IpAddr, String> {
    let found = namespace::inside(namespace, || Ok::<_, io::Error>(getifaddrs()?.collect::<Vec<_>>()));
    let found = found.unwrap_or_default().into_iter();
    found.filter_map(|link| Some((ip_of(link.address.as_ref()?)?, link.interface_name))).collect()
}

/// Those of a container's addresses that are no network's.
fn edge_pair(wiring: &Wiring, addresses: &[IpAddr]) -> Option<Pair> {
    let of_network =
        |address: &&IpAddr| wiring.networks.iter().any(|attached| attached.addresses.contains(address));
    let own: Vec<&IpAddr> = addresses.iter().filter(|address| !of_network(address)).collect();
    let v4 = own.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })?;
    let v6 = own.iter().find_map(|address| match address {
        IpAddr::V6(address) => Some(*address),
        IpAddr::V4(_) => None,
    })?;
    wiring.edge.then_some(Pair { v4, v6 })
}
