//! A container that runs gets other networks.

use std::{collections::BTreeSet, io, net::IpAddr, path::Path};

use anyhow::{Context, Result, bail};
use covey_overlay::block::Pair;
use covey_overlay_netlink::namespace;
use covey_runtime::Attachment;
use covey_state::{Id, network::Wiring};
use nix::net::if_::if_nameindex;

use super::{Keeper, containers::name_servers};

/// The container's end of its link to the edge.
const EDGE_LINK: &str = "eth0";

impl Keeper {
    /// Wires a container that runs anew; where that fails, as it was.
    pub(super) fn rewire(&mut self, container: &str, hostname: &str, wiring: &Wiring) -> Result<Attachment> {
        let wired = self.containers.get(container).context("its networks are not known here")?;
        let before = wired.wiring.clone();
        let changed = self.change(container, hostname, wiring);
        if changed.is_err()
            && let Err(error) = self.undo(container, hostname, wiring, &before)
        {
            tracing::warn!(
                container,
                error = format!("{error:#}"),
                "a change of its networks is not all undone"
            );
        }
        self.forget_flows();
        changed
    }

    /// Wires a container as it was before; networks that were carried for what was refused go.
    fn undo(&mut self, container: &str, hostname: &str, refused: &Wiring, before: &Wiring) -> Result<()> {
        let undone = self.change(container, hostname, before).map(drop);
        let parted = refused.networks.iter().map(|attached| self.part_soon(attached.network.id));
        // Each of them, whatever fails.
        let results: Vec<Result<()>> = parted.chain([undone]).collect();
        results.into_iter().collect()
    }

    /// Brings a container that runs from what it has to what it is to have.
    fn change(&mut self, container: &str, hostname: &str, wiring: &Wiring) -> Result<Attachment> {
        let path = self.path(container);
        let wanted = |id: &Id| wiring.networks.iter().any(|attached| attached.network.id == *id);
        let held = self.carriers.iter().filter(|(_, carrier)| carrier.holds(container)).map(|(id, _)| *id);
        for left in held.filter(|id| !wanted(id)).collect::<Vec<_>>() {
            if let Some(carrier) = self.carriers.get_mut(&left) {
                carrier.detach(container)?;
            }
            self.part_soon(left)?;
        }
        self.change_edge(container, &path, wiring)?;
        self.edge.bridge(container, wiring.is_bridged())?;
        let mut attachment = Attachment { namespace: path.clone(), ..Attachment::default() };
        for attached in &wiring.networks {
            self.carry(&attached.network)?;
            if let Some(carrier) = self.carriers.get_mut(&attached.network.id)
                && !carrier.holds(container)
            {
                carrier.attach(container, &path, free_link(&path)?, attached, &wiring.names)?;
            }
            attachment.addresses.extend(&attached.addresses);
        }
        if let Some(Pair { v4, v6 }) = self.edge.addresses(container) {
            attachment.addresses.extend([IpAddr::V4(v4), IpAddr::V6(v6)]);
        }
        let view = self.view(hostname, wiring);
        let wired = self.containers.get_mut(container).context("its networks are not known here")?;
        let served = match wired.resolver.take() {
            Some(served) => {
                served.show(view);
                served
            }
            // Its shim holds no sockets for it: the next daemon opens new ones.
            None => self.resolvers.open(&path, view)?.0,
        };
        let named = name_servers(&mut attachment, wiring, &served);
        wired.resolver = Some(served);
        named?;
        attachment.ports.clone_from(&wired.ports);
        wired.wiring = wiring.clone();
        Ok(attachment)
    }

    /// Gives a container that runs its way out with its ports, or takes both.
    fn change_edge(&mut self, container: &str, path: &Path, wiring: &Wiring) -> Result<()> {
        let has = self.edge.addresses(container).is_some();
        if wiring.edge == has {
            return Ok(());
        }
        let mut ports = Vec::new();
        if wiring.edge {
            if free_link(path)? != EDGE_LINK {
                bail!("it runs on networks without a way out: stop it before it joins one that has one");
            }
            ports = self.edge.hold(container, &wiring.ports)?;
            let opened = self.edge.attach(container, path).and_then(|_| self.edge.publish(container, &ports));
            if opened.is_err() {
                self.edge.detach(container)?;
            }
            opened?;
        } else {
            self.edge.detach(container)?;
        }
        if let Some(wired) = self.containers.get_mut(container) {
            wired.ports = ports;
        }
        Ok(())
    }
}

/// A name that no link of the container has.
fn free_link(namespace: &Path) -> Result<String> {
    let taken: BTreeSet<String> = namespace::inside(namespace, || {
        let links = if_nameindex().map_err(io::Error::from)?;
        Ok::<_, io::Error>(links.iter().map(|link| link.name().to_string_lossy().into_owned()).collect())
    })
    .with_context(|| format!("links in {}", namespace.display()))?;
    let mut names = (0_u32..).map(|number| format!("eth{number}"));
    names.find(|name| !taken.contains(name)).context("there is no name left for a link")
}
