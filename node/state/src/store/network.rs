//! Commands on networks, and on the places that plain containers have in them.

use std::{net::IpAddr, sync::Arc};

use super::{Entry, Store, not_found};
use crate::{
    Id,
    command::Refusal,
    event::{Change, Event},
    network::{Attachment, Network, NetworkSpec},
};

/// Bytes of the name of a plain container.
const CONTAINER_BYTES_MAX: usize = 255;

impl Entry {
    pub(super) fn create_network(&mut self, id: Id, spec: &NetworkSpec) -> Result<(), Refusal> {
        // Ended tasks remember networks that are gone; another one must not be taken for theirs.
        if self.store.networks.contains_key(&id) {
            return Err(Refusal::Invalid(format!("network {id} exists already")));
        }
        spec.check()?;
        if self.store.network_names.contains_key(&spec.name) {
            return Err(Refusal::NameInUse { kind: "network".to_owned(), name: spec.name.clone() });
        }
        let cluster = self.cluster()?;
        let decided = self.store.decide_subnets(spec, &cluster.spec);
        let (subnets, last_vni) = decided.map_err(|error| Refusal::Invalid(error.to_string()))?;
        let network = Network {
            id,
            version: self.index,
            created_at: self.at,
            updated_at: self.at,
            spec: spec.clone(),
            subnets,
        };
        self.store.last_vni = last_vni;
        self.store.index_network(&network);
        self.store.networks.insert_mut(id, Arc::new(network));
        self.events.push(Event::Network(id, Change::Created));
        Ok(())
    }

    pub(super) fn remove_network(&mut self, id: Id) -> Result<(), Refusal> {
        let network = self.store.network(id).cloned().ok_or_else(|| not_found("network", id))?;
        if let Some(user) = self.store.user_of_network(id) {
            return Err(Refusal::InUse { kind: "network".to_owned(), id, user });
        }
        self.store.free.close(&network);
        for place in (0..).take(network.subnets.len()) {
            self.store.turns.remove_mut(&(id, place));
        }
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
        asked: &[IpAddr],
    ) -> Result<(), Refusal> {
        if self.store.attachments.contains_key(&id) {
            return Err(Refusal::Invalid(format!("attachment {id} exists already")));
        }
        if container.is_empty() || container.len() > CONTAINER_BYTES_MAX {
            return Err(Refusal::Invalid(format!(
                "the name of a container has 1 to {CONTAINER_BYTES_MAX} bytes: not {}",
                container.len()
            )));
        }
        if self.store.node(node).is_none() {
            return Err(not_found("node", node));
        }
        let to = self.store.network(network).ok_or_else(|| not_found("network", network))?;
        if !to.spec.attachable {
            return Err(Refusal::Denied(format!(
                "Could not attach to network {}: it is not manually attachable: create it with --attachable",
                to.spec.name
            )));
        }
        let addresses = self.take_addresses(network, asked)?;
        let container = container.to_owned();
        let attachment = Attachment { id, version: self.index, network, node, container, addresses };
        self.store.attachments.insert_mut(id, Arc::new(attachment));
        self.events.push(Event::Attachment(id, Change::Created));
        Ok(())
    }

    pub(super) fn remove_attachment(&mut self, id: Id) -> Result<(), Refusal> {
        let gone = self.store.attachment(id).cloned().ok_or_else(|| not_found("attachment", id))?;
        self.free_addresses(gone.network, &gone.addresses);
        self.store.attachments.remove_mut(&id);
        self.events.push(Event::Attachment(id, Change::Removed));
        Ok(())
    }

    /// The containers went with their node.
    pub(super) fn remove_attachments_on(&mut self, node: Id) -> Result<(), Refusal> {
        let gone: Vec<Id> = self.store.attachments_on_node(node).map(|attachment| attachment.id).collect();
        gone.into_iter().try_for_each(|id| self.remove_attachment(id))
    }
}

impl Store {
    /// Adds a network to what is derived from networks.
    pub(super) fn index_network(&mut self, network: &Network) {
        self.network_names.insert_mut(network.spec.name.clone(), network.id);
        self.free.open(network);
    }

    /// Somebody who would miss the network.
    fn user_of_network(&self, id: Id) -> Option<String> {
        if let Some(service) = self.services_in(id).next() {
            return Some(format!("service {service}"));
        }
        let runs_in = |network: Id| {
            move |task: &&Arc<crate::task::Task>| {
                !task.status.state.is_terminal()
                    && task.spec.networks.iter().any(|spec| spec.network == network)
            }
        };
        if let Some(task) = self.tasks().find(runs_in(id)) {
            return Some(format!("task {}", task.id));
        }
        let attachment = self.attachments().find(|attachment| attachment.network == id)?;
        Some(format!("container {} on node {}", attachment.container, attachment.node))
    }
}
