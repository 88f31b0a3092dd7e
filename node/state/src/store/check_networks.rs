//! What holds for networks, addresses and ports of every store that `apply` made.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    Store,
    address::{FreeAddresses, families},
    check::{Broken, expect},
};
use crate::{
    Id,
    network::{EDGE_VNI, EndpointMode, Network, PublishedPort, Subnet},
    service::Service,
};

impl Store {
    pub(super) fn check_networks(&self) -> Result<(), Broken> {
        let mut vnis = BTreeSet::from([Some(EDGE_VNI)]);
        let mut subnets: Vec<&Subnet> = Vec::new();
        for network in self.networks() {
            let expect = |holds, what| expect("network", network.id, holds, what);
            expect(self.network_names.get(&network.spec.name) == Some(&network.id), "its name finds it")?;
            expect(
                (1..=self.last_changed).contains(&network.version) && network.updated_at <= self.last_at,
                "it lies in the past",
            )?;
            for subnet in &network.subnets {
                expect(subnet.vni.is_some() && vnis.insert(subnet.vni), "its VXLAN ids are its own")?;
                expect(subnet.net.contains(&subnet.gateway), "its gateways are inside")?;
                let meets =
                    |other: &&Subnet| subnet.net.contains(&other.net) || other.net.contains(&subnet.net);
                expect(!subnets.iter().any(meets), "its subnets are its own")?;
                subnets.push(subnet);
            }
        }
        let names = self.network_names.size();
        expect("store", names, names == self.networks.size(), "each name is some network's")?;
        self.check_addresses()?;
        self.check_exposures()
    }

    /// Each address has one owner, and what nobody owns is free.
    fn check_addresses(&self) -> Result<(), Broken> {
        let mut free = FreeAddresses::default();
        self.networks().for_each(|network| free.open(network));
        for (network, addresses, owner) in self.owners() {
            let expect = |holds, what| expect("owner of addresses", owner, holds, what);
            let found = self.network(network);
            expect(found.is_some(), "its network is there")?;
            let Some(network) = found else { continue };
            expect(has_each_family(network, addresses), "it has one address of each family")?;
            for address in addresses {
                expect(free.take(network, *address), "its addresses are its own, and inside a subnet")?;
            }
        }
        let networks = self.networks.size();
        expect("store", networks, free == self.free, "what nobody has is free")
    }

    /// Each address in use: its network, and whose it is.
    fn owners(&self) -> impl Iterator<Item = (Id, &[IpAddr], Id)> {
        let vips = self.services().flat_map(|service| {
            service.exposure.vips.iter().map(|vip| (vip.network, vip.addresses.as_slice(), service.id))
        });
        let tasks = self.tasks().flat_map(|task| {
            let held = task.held_addresses().iter();
            held.map(|attachment| (attachment.network, attachment.addresses.as_slice(), task.id))
        });
        let containers = self
            .attachments()
            .map(|attachment| (attachment.network, attachment.addresses.as_slice(), attachment.id));
        vips.chain(tasks).chain(containers)
    }

    /// What was decided is what was asked for, and the indexes are what services say.
    fn check_exposures(&self) -> Result<(), Broken> {
        let mut rebuilt = Self::default();
        for service in self.services() {
            let expect = |holds, what| expect("service", service.id, holds, what);
            expect(is_complete(service), "all that it asks for was decided")?;
            expect(service.edge == self.has_edge(&service.spec), "it knows its way out")?;
            expect(service.exposure.version <= service.version, "its exposure is not newer than itself")?;
            for other in self.services().take_while(|other| other.id < service.id) {
                expect(!contend(service, other), "its ports are its own")?;
            }
            rebuilt.index_service(service);
        }
        let services = self.services.size();
        let same = (&rebuilt.names, &rebuilt.ports) == (&self.names, &self.ports);
        expect("store", services, same, "names and ports find their services")?;
        for attachment in self.attachments() {
            let expect = |holds, what| expect("attachment", attachment.id, holds, what);
            expect(self.node(attachment.node).is_some(), "its node is there")?;
        }
        Ok(())
    }
}

fn has_each_family(network: &Network, addresses: &[IpAddr]) -> bool {
    addresses.iter().map(IpAddr::is_ipv4).eq(families(network))
}

fn is_complete(service: &Service) -> bool {
    let (spec, exposure) = (&service.spec, &service.exposure);
    let decided = |(asked, has): (&PublishedPort, &PublishedPort)| {
        let open = asked.is_ingress() && asked.published == 0;
        let asked =
            PublishedPort { published: if open { has.published } else { asked.published }, ..asked.clone() };
        asked == *has && (has.published != 0 || !has.is_ingress())
    };
    let networks = match spec.endpoint.mode {
        EndpointMode::Vip => spec.task.networks.as_slice(),
        EndpointMode::Dnsrr => &[],
    };
    exposure.mode == spec.endpoint.mode
        && spec.balance() == Ok(exposure.balance)
        && exposure.ports.len() == spec.endpoint.ports.len()
        && spec.endpoint.ports.iter().zip(&exposure.ports).all(decided)
        && networks.iter().map(|spec| spec.network).eq(exposure.vips.iter().map(|vip| vip.network))
}

/// Both answer on one port of one host.
fn contend(one: &Service, other: &Service) -> bool {
    let ports = &other.exposure.ports;
    one.exposure
        .ports
        .iter()
        .any(|port| ports.iter().any(|taken| port.meets(taken) && (port.is_ingress() || taken.is_ingress())))
}
