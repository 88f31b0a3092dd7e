//! How a service is reached: what the cluster decides where the user leaves it open, and what others have already.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{Entry, IDS, Store, not_found};
use crate::{
    Id,
    command::Refusal,
    network::{
        AttachmentSpec, DYNAMIC_PORTS, EndpointMode, EndpointSpec, Exposure, Protocol, PublishMode,
        PublishedPort, STACK_LABEL, Vip,
    },
    service::{Service, ServiceSpec},
};

/// Bytes of what hosts tell each other of a service with each of its tasks. A row of gossip has 8 KiB; the rest is for
/// what a task adds.
pub const TOLD_BYTES_MAX: usize = 6 << 10;

impl Entry {
    /// The exposure of a service that is to be as `spec` says. `before` is the service as it was; it is out of the
    /// indexes, and what it had and keeps stays as it is.
    ///
    /// The version is the old one where nothing else differs.
    pub(super) fn expose(
        &mut self,
        spec: &ServiceSpec,
        before: Option<&Service>,
    ) -> Result<Arc<Exposure>, Refusal> {
        self.check_names(spec)?;
        let invalid = |error: &dyn std::error::Error| Refusal::Invalid(error.to_string());
        let old = before.map(|service| service.exposure.clone()).unwrap_or_default();
        let exposure = Exposure {
            version: old.version,
            mode: spec.endpoint.mode,
            balance: spec.balance().map_err(|error| invalid(&error))?,
            stack: spec.labels.get(STACK_LABEL).cloned().unwrap_or_default(),
            ports: self.publish(&spec.endpoint, before)?,
            vips: self.take_vips(spec, &old.vips)?,
        };
        check_told(spec, &exposure)?;
        if before.is_some() && exposure == *old {
            return Ok(old);
        }
        Ok(Arc::new(Exposure { version: self.index, ..exposure }))
    }

    /// Networks exist, and nobody's name in them becomes somebody else's.
    fn check_names(&self, spec: &ServiceSpec) -> Result<(), Refusal> {
        for AttachmentSpec { network: id, aliases } in &spec.task.networks {
            let network = self.store.network(*id).ok_or_else(|| not_found("network", *id))?;
            let name = &network.spec.name;
            for alias in aliases.iter().filter(|alias| !alias.eq_ignore_ascii_case(&spec.name)) {
                if let Some(other) = self.store.named_in(*id, alias, Naming::Name) {
                    return Err(Refusal::Invalid(format!(
                        "alias '{alias}' is the name of service '{}' ({}) in network {name}: choose another alias",
                        other.spec.name, other.id
                    )));
                }
            }
            if let Some(other) = self.store.named_in(*id, &spec.name, Naming::Alias) {
                return Err(Refusal::Invalid(format!(
                    "name '{}' is an alias of service '{}' ({}) in network {name}: choose another name",
                    spec.name, other.spec.name, other.id
                )));
            }
        }
        Ok(())
    }

    /// The virtual addresses: those that it had and still needs, and new ones.
    fn take_vips(&mut self, spec: &ServiceSpec, old: &[Vip]) -> Result<Vec<Vip>, Refusal> {
        let wanted = match spec.endpoint.mode {
            EndpointMode::Vip => spec.task.networks.as_slice(),
            EndpointMode::Dnsrr => &[],
        };
        for vip in old.iter().filter(|vip| wanted.iter().all(|spec| spec.network != vip.network)) {
            self.free_addresses(vip.network, &vip.addresses);
        }
        let mut vips = Vec::with_capacity(wanted.len());
        for AttachmentSpec { network, .. } in wanted {
            vips.push(match old.iter().find(|vip| vip.network == *network) {
                Some(vip) => vip.clone(),
                None => Vip { network: *network, addresses: self.take_addresses(*network, &[])? },
            });
        }
        Ok(vips)
    }

    /// The ports, each ingress port with a number. A port that the user asks for as before keeps its number.
    fn publish(&self, spec: &EndpointSpec, before: Option<&Service>) -> Result<Vec<PublishedPort>, Refusal> {
        let mut ports = spec.ports.clone();
        for port in &ports {
            self.check_free(port)?;
        }
        let mut mine: BTreeSet<(Protocol, u16)> =
            ports.iter().map(|port| (port.protocol, port.published)).collect();
        let mut had: Vec<(&PublishedPort, u16)> = before.map(numbers).unwrap_or_default();
        for port in ports.iter_mut().filter(|port| is_open(port)) {
            let same = had.iter().position(|(asked, _)| *asked == port);
            let number = same.map(|same| had.swap_remove(same).1);
            if let Some(number) = number.filter(|number| mine.insert((port.protocol, *number))) {
                port.published = number;
            }
        }
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let mut free = DYNAMIC_PORTS.filter(|number| {
                !mine.contains(&(protocol, *number))
                    && self.store.publishers(protocol, *number).next().is_none()
            });
            for port in ports.iter_mut().filter(|port| is_open(port) && port.protocol == protocol) {
                port.published = free.next().ok_or_else(|| no_port(port))?;
            }
        }
        Ok(ports)
    }

    /// No other service answers there. Ports of hosts are apart from one another by their hosts.
    fn check_free(&self, port: &PublishedPort) -> Result<(), Refusal> {
        for other in self.store.publishers(port.protocol, port.published) {
            let apart = |taken: &PublishedPort| !taken.is_ingress() && !port.is_ingress();
            let taken = other.exposure.ports.iter().find(|taken| port.meets(taken) && !apart(taken));
            if let Some(taken) = taken {
                let how = if taken.is_ingress() { "an ingress port" } else { "a host-published port" };
                return Err(Refusal::Invalid(format!(
                    "port '{}' is already in use by service '{}' ({}) as {how}",
                    port.published, other.spec.name, other.id
                )));
            }
        }
        Ok(())
    }
}

/// What every host is told of a service with each of its tasks, and in each network, fits in one message of gossip.
fn check_told(spec: &ServiceSpec, exposure: &Exposure) -> Result<(), Refusal> {
    // The length of each takes two bytes at most.
    let words = |spec: &AttachmentSpec| spec.aliases.iter().map(|alias| 2 + alias.len()).sum::<usize>();
    let aliases = spec.task.networks.iter().map(words).max().unwrap_or_default();
    let encoded = covey_wire::encode(exposure).map_err(|error| Refusal::Invalid(error.to_string()))?;
    let told = encoded.len() + aliases + spec.task.container.hostname.len();
    if told <= TOLD_BYTES_MAX {
        return Ok(());
    }
    Err(Refusal::Invalid(format!(
        "what hosts tell each other of service '{}' (published ports with names and host addresses, aliases, stack, \
         host name) has at most {TOLD_BYTES_MAX} bytes: not {told}; publish fewer ports or shorten the names",
        spec.name
    )))
}

/// The cluster chooses its number.
fn is_open(port: &PublishedPort) -> bool {
    port.published == 0 && port.mode == PublishMode::Ingress
}

/// The ports whose numbers the cluster chose, as they were asked for.
fn numbers(service: &Service) -> Vec<(&PublishedPort, u16)> {
    let ports = service.spec.endpoint.ports.iter().zip(&service.exposure.ports);
    ports.filter(|(asked, _)| is_open(asked)).map(|(asked, has)| (asked, has.published)).collect()
}

fn no_port(port: &PublishedPort) -> Refusal {
    Refusal::Invalid(format!(
        "no port from {} to {} is free for target port {}/{}: name a published port",
        DYNAMIC_PORTS.start(),
        DYNAMIC_PORTS.end(),
        port.target,
        port.protocol
    ))
}

/// What a word is to the service that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Naming {
    Name,
    Alias,
}

impl Store {
    /// Whether tasks of such a service have an interface at the edge.
    pub(super) fn has_edge(&self, spec: &ServiceSpec) -> bool {
        let networks = &spec.task.networks;
        let leads_out =
            |spec: &AttachmentSpec| self.network(spec.network).is_some_and(|network| !network.spec.internal);
        !spec.task.host_network
            && (networks.is_empty() || !spec.endpoint.ports.is_empty() || networks.iter().any(leads_out))
    }

    /// The services that publish this port.
    fn publishers(&self, protocol: Protocol, number: u16) -> impl Iterator<Item = &Arc<Service>> {
        let range = (protocol, number, IDS.0)..=(protocol, number, IDS.1);
        self.ports.range(range).filter_map(|(_, _, service)| self.service(*service))
    }

    /// A service that has this name in a network; case does not count in DNS.
    fn named_in(&self, network: Id, name: &str, naming: Naming) -> Option<&Arc<Service>> {
        let name = name.to_ascii_lowercase();
        let range = (network, name.clone(), naming, IDS.0)..=(network, name, naming, IDS.1);
        self.names.range(range).find_map(|(_, _, _, service)| self.service(*service))
    }

    /// The services that are in a network.
    pub(super) fn services_in(&self, network: Id) -> impl Iterator<Item = Id> {
        let from = (network, String::new(), Naming::Name, IDS.0);
        (self.names.range(from..))
            .take_while(move |name| name.0 == network)
            .map(|(_, _, _, service)| *service)
    }

    /// Adds a service to what is derived from services, but for its addresses.
    pub(super) fn index_service(&mut self, service: &Service) {
        self.service_names.insert_mut(service.spec.name.clone(), service.id);
        names(service).for_each(|name| self.names.insert_mut(name));
        ports(service).for_each(|port| self.ports.insert_mut(port));
    }

    /// Takes it out again.
    pub(super) fn unindex_service(&mut self, service: &Service) {
        self.service_names.remove_mut(&service.spec.name);
        names(service).for_each(|name| _ = self.names.remove_mut(&name));
        ports(service).for_each(|port| _ = self.ports.remove_mut(&port));
    }

    /// Takes addresses that their owner has, where the network is still there.
    pub(super) fn index_addresses(&mut self, network: Id, addresses: &[IpAddr]) {
        if let Some(network) = self.network(network).cloned() {
            for address in addresses {
                self.free.take(&network, *address);
            }
        }
    }
}

fn names(service: &Service) -> impl Iterator<Item = (Id, String, Naming, Id)> {
    service.spec.task.networks.iter().flat_map(|AttachmentSpec { network, aliases }| {
        let aliases = aliases.iter().map(|alias| (alias, Naming::Alias));
        (aliases.chain([(&service.spec.name, Naming::Name)]))
            .map(|(word, naming)| (*network, word.to_ascii_lowercase(), naming, service.id))
    })
}

fn ports(service: &Service) -> impl Iterator<Item = (Protocol, u16, Id)> {
    let published = service.exposure.ports.iter().filter(|port| port.published != 0);
    published.map(|port| (port.protocol, port.published, service.id))
}
