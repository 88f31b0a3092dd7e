//! Published ports of this host: who has which.
//!
//! A port that answers here is held by a socket, so that no other process takes it, and led to backends by the tables. One
//! that is a container's own is held before that starts and until it is gone; one of a service from when the first host
//! tells of a task behind it, and while there is one. What somebody else has does not answer here: that is noted with
//! its reason, and tried again.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Result;
use covey_mesh::{Backend, Balance, Frontend, Virtual};
use covey_state::network::{PublishMode, PublishedPort};

use super::Edge;
use crate::{
    network::{
        reserve::{Refusal, ReserveError},
        rows::{Moved, addresses_of},
    },
    refused::Cause,
    translate,
};

/// Ports of containers whose user names none: not those that services are given ([`covey_state::network::DYNAMIC_PORTS`]),
/// or one of the two would not answer here. The kernel gives them away for connections as well, as it does with Docker's.
const OWN_PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// Ports that are a container's own.
impl Edge {
    /// Holds the ports of this host that are a container's own, and tells which they are; and sees to it that the
    /// published ones of its service are no other process's.
    ///
    /// # Errors
    /// Somebody has one; none of its own is held then.
    pub fn hold(
        &mut self,
        container: &str,
        ports: &[PublishedPort],
    ) -> Result<Vec<PublishedPort>, ReserveError> {
        let mut held = Vec::new();
        // What nobody chooses comes first, or a choice could take it.
        let (fixed, chosen): (Vec<_>, Vec<_>) = ports.iter().partition(|port| port.last == 0);
        for port in fixed.into_iter().chain(chosen) {
            match port.mode {
                PublishMode::Host => match self.hold_own(container, port) {
                    Ok(port) => held.push(port),
                    Err(error) => {
                        self.let_go(container);
                        return Err(error);
                    }
                },
                PublishMode::Ingress => self.try_published(port)?,
            }
        }
        Ok(held)
    }

    fn hold_own(&mut self, container: &str, port: &PublishedPort) -> Result<PublishedPort, ReserveError> {
        let choices = match port.published {
            0 => OWN_PORTS,
            _ => port.choices(),
        };
        let mut last = ReserveError::Taken { port: port.published, protocol: port.protocol.as_str() };
        for published in choices {
            let port = PublishedPort { published, last: 0, ..port.clone() };
            let wanted = frontends(&port);
            // One that is held already is another container's, or a service's.
            let taken = wanted.iter().any(|frontend| self.reserved.holds(frontend));
            let result = wanted.iter().try_for_each(|frontend| match taken {
                true => Err(ReserveError::Taken { port: published, protocol: port.protocol.as_str() }),
                false => self.reserved.hold(*frontend),
            });
            match result {
                Ok(()) => {
                    self.own_ports.entry(container.to_owned()).or_default().extend(wanted);
                    return Ok(port);
                }
                Err(error) => {
                    if !taken {
                        wanted.iter().for_each(|frontend| self.reserved.release(frontend));
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// Holds none of a container's own any more. They were not open.
    fn let_go(&mut self, container: &str) {
        for frontend in self.own_ports.remove(container).unwrap_or_default() {
            self.reserved.release(&frontend);
        }
    }

    /// Opens the ports of this host that are a container's own.
    ///
    /// # Errors
    /// The kernel refused; it is tried again with the next repair.
    pub fn publish(&mut self, container: &str, ports: &[PublishedPort]) -> Result<()> {
        self.open_own(container, ports);
        self.balancer.commit()
    }

    /// The same for a container of before, before the kernel is asked for the first time. A port that somebody else has
    /// meanwhile is tried again with every repair.
    pub fn claim_ports(&mut self, container: &str, ports: &[PublishedPort]) {
        for port in ports.iter().filter(|port| port.mode == PublishMode::Host) {
            match self.hold_own(container, port) {
                Ok(port) => self.open_own(container, &[port]),
                Err(error) => {
                    let cause = Cause::from(&error);
                    let error = anyhow::Error::from(error);
                    let why = format!("{error:#}; it was container {container:.12}'s");
                    let refusal = Refusal { cause, why };
                    let all = frontends(port).into_iter().map(|frontend| (frontend, refusal.clone()));
                    self.refused.extend(all);
                    self.lost.entry(container.to_owned()).or_default().push(port.clone());
                }
            }
        }
    }

    fn open_own(&mut self, container: &str, ports: &[PublishedPort]) {
        let Some(pair) = self.addresses(container) else { return };
        for port in ports.iter().filter(|port| port.mode == PublishMode::Host) {
            for frontend in frontends(port) {
                let address = match frontend.address() {
                    IpAddr::V4(_) => IpAddr::V4(pair.v4),
                    IpAddr::V6(_) => IpAddr::V6(pair.v6),
                };
                let backends = vec![Backend { address, port: Some(port.target) }];
                self.balancer.set(frontend, Some(Virtual { balance: Balance::Random, backends }));
            }
        }
    }

    /// The container that this port is the own one of.
    fn owner(&self, frontend: &Frontend) -> Option<&str> {
        let owned = self.own_ports.iter().find(|(_, ports)| ports.contains(frontend));
        owned.map(|(container, _)| container.as_str())
    }

    /// Takes back the ports of this host that were a container's own.
    pub(super) fn release_ports(&mut self, container: &str) {
        let own = self.own_ports.remove(container).unwrap_or_default();
        own.iter().for_each(|frontend| self.reserved.release(frontend));
        let lost = self.lost.remove(container).unwrap_or_default();
        for frontend in own.into_iter().chain(lost.iter().flat_map(frontends)) {
            // A service may have waited for it.
            let behind = self.balancer.rows.behind(&frontend);
            self.open_or_close((frontend, None, behind));
        }
    }
}

/// Ports that services publish.
impl Edge {
    /// Opens and closes published ports as services have them now. Connections to whoever is gone are left to be
    /// [cut](crate::network::balancer::Balancer::cut).
    ///
    /// # Errors
    /// The kernel refused; it is tried again with the next repair.
    pub fn settle(&mut self) -> Result<()> {
        self.take_moved();
        self.balancer.commit_tables()
    }

    /// The same, before the kernel is asked for the first time.
    pub fn take_moved(&mut self) {
        for moved in self.balancer.settle() {
            self.open_or_close(moved);
        }
        self.tell_refused();
    }

    /// A service's port is held from when the first host tells of it: here it is only seen whether that can be.
    fn try_published(&mut self, port: &PublishedPort) -> Result<(), ReserveError> {
        for frontend in frontends(port) {
            if self.owner(&frontend).is_some() {
                return Err(ReserveError::Taken { port: port.published, protocol: port.protocol.as_str() });
            }
            if self.reserved.holds(&frontend) {
                continue;
            }
            match self.reserved.hold(frontend) {
                // It answers on another host.
                Err(ReserveError::NoAddress(_)) => {}
                Err(error) => return Err(error),
                Ok(()) => self.reserved.release(&frontend),
            }
        }
        Ok(())
    }

    fn open_or_close(&mut self, (frontend, _, behind): Moved) {
        self.refused.remove(&frontend);
        if let Some(container) = self.owner(&frontend) {
            // It answers for the container, whatever services want of it.
            if behind.is_some() {
                let port = name_of(&frontend);
                let why =
                    format!("{port} of this host is container {container:.12}'s: no service is behind it");
                let cause = Cause::Container(format!("{container:.12}"));
                self.refused.insert(frontend, Refusal { cause, why });
            }
            return;
        }
        if behind.is_none() {
            self.reserved.release(&frontend);
        } else if let Err(error) = self.reserved.hold(frontend) {
            if !matches!(error, ReserveError::NoAddress(_)) {
                let cause = Cause::from(&error);
                let why = format!("{:#}", anyhow::Error::from(error));
                self.refused.insert(frontend, Refusal { cause, why });
            }
            return self.balancer.set(frontend, None);
        }
        self.balancer.set(frontend, behind);
    }
}

/// Ports that this host cannot take.
impl Edge {
    /// Tries ports again that somebody else had; the kernel takes what has changed with the next [`Edge::settle`].
    pub fn retry_refused(&mut self) {
        let refused = std::mem::take(&mut self.refused);
        // Those first that were a container's own.
        let lost = std::mem::take(&mut self.lost);
        lost.iter().for_each(|(container, ports)| self.claim_ports(container, ports));
        for frontend in refused.into_keys() {
            if !self.refused.contains_key(&frontend) {
                let behind = self.balancer.rows.behind(&frontend);
                self.open_or_close((frontend, None, behind));
            }
        }
        self.tell_refused();
    }

    /// Says why published ports do not answer here: once, until it is something else.
    fn tell_refused(&mut self) {
        let all: BTreeSet<String> = self.refused.values().map(|refusal| refusal.why.clone()).collect();
        for why in all.difference(&self.told) {
            tracing::warn!(why, "a published port does not answer on this host");
        }
        self.told = all;
    }
}

/// What a frontend is called, for people.
pub fn name_of(frontend: &Frontend) -> String {
    match frontend {
        Frontend::Port { protocol, port, .. } => format!("port {port}/{}", protocol.as_str()),
        Frontend::Address(address) => address.to_string(),
    }
}

/// Where a published port answers on a host.
pub(super) fn frontends(port: &PublishedPort) -> Vec<Frontend> {
    let protocol = translate::protocol(port.protocol);
    let of = |address| Frontend::Port { address, protocol, port: port.published };
    addresses_of(port.host_ip).into_iter().map(of).collect()
}
