//! Which ports a service may publish, whatever others publish.

use std::collections::BTreeMap;

use super::check::{NAME_MAX, is_name};
use crate::network::{EndpointMode, EndpointSpec, PORTS_MAX, Protocol, PublishMode, PublishedPort};

/// A service cannot be reached as its endpoint spec says. The words are Docker's where Docker has some.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Too many ports.
    #[error("EndpointSpec: a service publishes at most {PORTS_MAX} ports: not {0}")]
    Ports(usize),
    /// Nobody can listen there.
    #[error("EndpointSpec: target port 0/{0} is not valid: it must be 1 to 65535")]
    Target(Protocol),
    /// Not a DNS label: SRV records name ports.
    #[error(
        "EndpointSpec: port name {0:?} is not valid: it has 1 to {NAME_MAX} letters, digits, '-' and '_'"
    )]
    Name(String),
    /// One port of a host would mean two things.
    #[error("EndpointSpec: duplicate published ports provided: {port}/{protocol}")]
    Duplicate {
        /// The published port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
    /// Docker has it so: there is no virtual address behind the port.
    #[error("EndpointSpec: port published with ingress mode can't be used with dnsrr mode")]
    IngressWithDnsrr,
}

impl EndpointSpec {
    /// Whether a service may be reached like that.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self) -> Result<(), EndpointError> {
        if self.ports.len() > PORTS_MAX {
            return Err(EndpointError::Ports(self.ports.len()));
        }
        if self.mode == EndpointMode::Dnsrr && self.ports.iter().any(PublishedPort::is_ingress) {
            return Err(EndpointError::IngressWithDnsrr);
        }
        let mut published: BTreeMap<(Protocol, u16), Vec<&PublishedPort>> = BTreeMap::new();
        for port in &self.ports {
            if port.target == 0 {
                return Err(EndpointError::Target(port.protocol));
            }
            if !port.name.is_empty() && !is_name(&port.name) {
                return Err(EndpointError::Name(port.name.clone()));
            }
            let same = published.entry((port.protocol, port.published)).or_default();
            if same.iter().any(|other| port.meets(other)) {
                return Err(EndpointError::Duplicate { port: port.published, protocol: port.protocol });
            }
            same.push(port);
        }
        Ok(())
    }

    /// The ports of hosts that each task has for itself.
    pub fn host_ports(&self) -> impl Iterator<Item = &PublishedPort> {
        self.ports.iter().filter(|port| !port.is_ingress())
    }
}

impl PublishedPort {
    /// It answers on every host.
    pub fn is_ingress(&self) -> bool {
        self.mode == PublishMode::Ingress
    }

    /// The ports of a host that it may be, where the user named any.
    pub fn choices(&self) -> std::ops::RangeInclusive<u16> {
        self.published..=self.last.max(self.published)
    }

    /// Both would answer on one port of one address of a host, whatever it chooses.
    pub fn meets(&self, other: &Self) -> bool {
        self.published != 0
            && [self.last, other.last] == [0; 2]
            && (self.protocol, self.published) == (other.protocol, other.published)
            && match (self.own_address(), other.own_address()) {
                (Some(one), Some(other)) => one == other,
                _ => true,
            }
    }

    /// The one address of the host that it is about; `None`: all.
    fn own_address(&self) -> Option<std::net::IpAddr> {
        self.host_ip.filter(|address| !address.is_unspecified())
    }
}
