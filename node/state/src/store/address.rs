//! Addresses of networks: which are free, and whose turn is next.

use std::net::IpAddr;

use rpds::RedBlackTreeMapSync;

use super::{Entry, Store, not_found};
use crate::{
    Id,
    command::Refusal,
    network::{AttachmentSpec, Network, Subnet},
    range::{address, bits, usable},
};

/// The free addresses of all networks, as runs: (network, place of the subnet in it, first) → last, addresses as
/// numbers. Runs do not touch, so that the same addresses are always the same runs; and to find, take or give back
/// one takes steps as the logarithm of their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FreeAddresses(RedBlackTreeMapSync<(Id, u8, u128), u128>);

impl FreeAddresses {
    /// All addresses of a new network are free, but for its gateways.
    pub fn open(&mut self, network: &Network) {
        for (place, subnet) in places(network) {
            let (first, last) = usable(subnet.net);
            self.0.insert_mut((network.id, place, first), last);
            self.take(network, subnet.gateway);
        }
    }

    /// The network is gone.
    pub fn close(&mut self, network: &Network) {
        let runs: Vec<_> = (self.0.range((network.id, 0, 0)..=(network.id, u8::MAX, u128::MAX)))
            .map(|(run, _)| *run)
            .collect();
        for run in runs {
            self.0.remove_mut(&run);
        }
    }

    /// Takes an address; false where it is not free.
    pub fn take(&mut self, network: &Network, address: IpAddr) -> bool {
        let Some(place) = place_of(network, address) else { return false };
        let (id, address) = (network.id, bits(address));
        let Some((first, last)) = self.run(id, place, address) else { return false };
        self.0.remove_mut(&(id, place, first));
        if first < address {
            self.0.insert_mut((id, place, first), address - 1);
        }
        if address < last {
            self.0.insert_mut((id, place, address + 1), last);
        }
        true
    }

    /// An address that was taken is free again.
    pub fn give_back(&mut self, network: &Network, address: IpAddr) {
        let Some(place) = place_of(network, address) else { return };
        let (id, address) = (network.id, bits(address));
        if self.run(id, place, address).is_some() {
            return;
        }
        let below = address.checked_sub(1).and_then(|below| self.run(id, place, below));
        let first = below.map_or(address, |(first, _)| first);
        let above = address.checked_add(1).map(|above| (id, place, above));
        let last = above.and_then(|above| self.0.get(&above).copied());
        if let (Some(above), Some(_)) = (above, last) {
            self.0.remove_mut(&above);
        }
        self.0.insert_mut((id, place, first), last.unwrap_or(address));
    }

    /// The run that holds an address.
    fn run(&self, network: Id, place: u8, address: u128) -> Option<(u128, u128)> {
        let (&(_, _, first), &last) =
            self.0.range((network, place, 0)..=(network, place, address)).next_back()?;
        (address <= last).then_some((first, last))
    }

    /// The first free address of these.
    fn first(&self, network: Id, place: u8, from: u128, to: u128) -> Option<u128> {
        if from > to {
            return None;
        }
        if self.run(network, place, from).is_some() {
            return Some(from);
        }
        self.0.range((network, place, from)..=(network, place, to)).next().map(|((_, _, first), _)| *first)
    }
}

/// A network has no address left for another task, service or container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("network {name} has no free address ({used} used)")]
pub struct NoAddress {
    /// Its name.
    name: String,
    /// Addresses that it has, its gateway included.
    used: u128,
}

impl Store {
    /// Whether each of these networks has an address left.
    ///
    /// # Errors
    /// The first that has none.
    pub fn check_room(&self, networks: &[AttachmentSpec]) -> Result<(), NoAddress> {
        let networks = networks.iter().filter_map(|spec| self.network(spec.network));
        for network in networks {
            for v4 in families(network) {
                self.next_address(network, v4)?;
            }
        }
        Ok(())
    }

    /// The address of a family that is next: of the first subnet with a free one. In each subnet addresses are given
    /// in a circle, so that one that was given back stays unused for as long as can be.
    fn next_address(&self, network: &Network, v4: bool) -> Result<(u8, IpAddr), NoAddress> {
        let subnets = || places(network).filter(|(_, subnet)| subnet.gateway.is_ipv4() == v4);
        for (place, subnet) in subnets() {
            let (first, last) = subnet.given();
            let from = match self.turns.get(&(network.id, place)) {
                Some(turn) => turn.saturating_add(1).max(first),
                None => first,
            };
            let free = |from, to| self.free.first(network.id, place, from, to);
            if let Some(found) = free(from, last).or_else(|| free(first, last)) {
                return Ok((place, address(found, v4)));
            }
        }
        let used =
            subnets().map(|(_, subnet)| subnet.given()).map(|(first, last)| (last + 1).saturating_sub(first));
        Err(NoAddress { name: network.spec.name.clone(), used: used.sum() })
    }
}

impl Entry {
    /// Takes one address of each family that a network has, IPv4 first; those that are asked for are among them.
    pub(super) fn take_addresses(&mut self, network: Id, asked: &[IpAddr]) -> Result<Vec<IpAddr>, Refusal> {
        let network = self.network(network)?;
        for (index, one) in asked.iter().enumerate() {
            if asked[..index].iter().any(|other| other.is_ipv4() == one.is_ipv4()) {
                return Err(Refusal::Invalid(format!(
                    "{one} is one more address of its family: ask for one"
                )));
            }
            self.take_asked(&network, *one)?;
        }
        let mut addresses = Vec::new();
        for v4 in families(&network) {
            addresses.push(match asked.iter().find(|asked| asked.is_ipv4() == v4) {
                Some(asked) => *asked,
                None => self.take_next(&network, v4)?,
            });
        }
        Ok(addresses)
    }

    fn take_next(&mut self, network: &Network, v4: bool) -> Result<IpAddr, Refusal> {
        let next = self.store.next_address(network, v4);
        let (place, address) = next.map_err(|error| Refusal::Invalid(error.to_string()))?;
        self.store.free.take(network, address);
        self.store.turns.insert_mut((network.id, place), bits(address));
        Ok(address)
    }

    fn take_asked(&mut self, network: &Network, asked: IpAddr) -> Result<(), Refusal> {
        let name = &network.spec.name;
        if place_of(network, asked).is_none() {
            return Err(Refusal::Invalid(format!(
                "address {asked} is in no subnet of network {name}: ask for one that is, or for none"
            )));
        }
        if !self.store.free.take(network, asked) {
            return Err(Refusal::Invalid(format!(
                "address {asked} of network {name} is already in use: ask for another one, or for none"
            )));
        }
        Ok(())
    }

    /// Gives addresses back.
    pub(super) fn free_addresses(&mut self, network: Id, addresses: &[IpAddr]) {
        // Where the network is gone, so are they.
        if let Some(network) = self.store.network(network).cloned() {
            for address in addresses {
                self.store.free.give_back(&network, *address);
            }
        }
    }

    fn network(&self, id: Id) -> Result<std::sync::Arc<Network>, Refusal> {
        self.store.network(id).cloned().ok_or_else(|| not_found("network", id))
    }
}

/// The families that a network has: true for IPv4, which comes first.
pub(super) fn families(network: &Network) -> impl Iterator<Item = bool> {
    [true, false]
        .into_iter()
        .filter(|v4| network.subnets.iter().any(|subnet| subnet.gateway.is_ipv4() == *v4))
}

fn places(network: &Network) -> impl Iterator<Item = (u8, &Subnet)> {
    (0..).zip(&network.subnets)
}

fn place_of(network: &Network, address: IpAddr) -> Option<u8> {
    places(network).find(|(_, subnet)| subnet.net.contains(&address)).map(|(place, _)| place)
}
