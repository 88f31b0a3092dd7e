//! Commands on networks and on the places of plain containers in them.

use std::{net::IpAddr, sync::Arc};

use super::{Entry, not_found};
use crate::{
    Id,
    command::Refusal,
    event::{Change, Event},
    network::{Attachment, Network, NetworkSpec, Subnet},
};

impl Entry {
    pub(super) fn create_network(&mut self, id: Id, spec: &NetworkSpec) -> Result<(), Refusal> {
        if self.store.networks.contains_key(&id) {
            return Err(Refusal::Invalid(format!("network {id} exists already")));
        }
        if self.store.network_names.contains_key(&spec.name) {
            return Err(Refusal::NameInUse { kind: "network".to_owned(), name: spec.name.clone() });
        }
        let first = |net: ipnet::IpNet| net.hosts().next().unwrap_or(net.addr());
        let subnets = (spec.subnets.iter())
            .enumerate()
            .map(|(index, subnet)| Subnet {
                net: subnet.subnet,
                gateway: subnet.gateway.unwrap_or_else(|| first(subnet.subnet)),
                range: subnet.range,
                vni: Some(spec.vnis.get(index).copied().unwrap_or(4097 + index as u32)),
            })
            .collect();
        let network = Network {
            id,
            version: self.index,
            created_at: self.at,
            updated_at: self.at,
            spec: spec.clone(),
            subnets,
        };
        self.store.network_names.insert_mut(spec.name.clone(), id);
        self.store.networks.insert_mut(id, Arc::new(network));
        self.events.push(Event::Network(id, Change::Created));
        Ok(())
    }

    pub(super) fn remove_network(&mut self, id: Id) -> Result<(), Refusal> {
        let network = self.store.network(id).ok_or_else(|| not_found("network", id))?.clone();
        self.store.network_names.remove_mut(&network.spec.name);
        self.store.networks.remove_mut(&id);
        self.events.push(Event::Network(id, Change::Removed));
        Ok(())
    }

    pub(super) fn create_attachment(
        &mut self,
        id: Id,
        network: Id,
        node: Id,
        container: &str,
        address: Option<IpAddr>,
    ) -> Result<(), Refusal> {
        let attachment = Attachment {
            id,
            version: self.index,
            network,
            node,
            container: container.to_owned(),
            addresses: address.into_iter().collect(),
        };
        self.store.attachments.insert_mut(id, Arc::new(attachment));
        self.events.push(Event::Attachment(id, Change::Created));
        Ok(())
    }

    pub(super) fn remove_attachment(&mut self, id: Id) -> Result<(), Refusal> {
        if !self.store.attachments.remove_mut(&id) {
            return Err(not_found("attachment", id));
        }
        self.events.push(Event::Attachment(id, Change::Removed));
        Ok(())
    }
}
