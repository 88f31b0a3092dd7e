//! What is balanced: an address or a port in front, backends behind it.

use std::{collections::BTreeMap, net::IpAddr};

/// Most backends of one frontend; more are left out, the first ones kept.
pub const BACKENDS_MAX: usize = 256;

/// A transport protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its name, as people and records of type SRV have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Its number in an IP header (IANA).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// Where clients come to. Its address says which clients, and so which backends: those of the same family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Frontend {
    /// An address that nobody has: all of its ports, of every protocol, and echo requests as well.
    Address(IpAddr),
    /// A port of this host.
    Port {
        /// The own address to which clients must have come; the unspecified one (`0.0.0.0` or `::`) stands for every
        /// own address of its family, except where another frontend of the same port says the very address.
        address: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
}

impl Frontend {
    /// The address that clients come to.
    pub const fn address(&self) -> IpAddr {
        match self {
            Self::Address(address) | Self::Port { address, .. } => *address,
        }
    }
}

/// How a new connection finds its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Balance {
    /// By chance, each as likely.
    #[default]
    Random,
    /// In turn. Frontends with the same number of backends may share a turn.
    RoundRobin,
    /// One client address, one backend, as long as the backends stay; the same on every host with the same slots.
    SourceHash,
}

impl Balance {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Random, Self::RoundRobin, Self::SourceHash];
}

/// One place that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// Of the family of the frontend; others are left out.
    pub address: IpAddr,
    /// Behind a port only: the port there, `None` for the same as in front.
    pub port: Option<u16>,
}

/// What is behind a frontend. A backend may be given several times, for a larger share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Virtual {
    /// How backends are chosen.
    pub balance: Balance,
    /// The backends; the place of each is its slot. Without any, an address refuses its clients at once, and a port
    /// is the host's own again.
    pub backends: Vec<Backend>,
}

impl Virtual {
    /// As the kernel can have it behind `frontend`: of one family, said in one way, not too many.
    pub(crate) fn normal(mut self, frontend: &Frontend) -> Self {
        self.backends.retain(|backend| backend.address.is_ipv4() == frontend.address().is_ipv4());
        self.backends.truncate(BACKENDS_MAX);
        for backend in &mut self.backends {
            backend.port = match frontend {
                Frontend::Address(_) => None,
                Frontend::Port { port, .. } => Some(backend.port.unwrap_or(*port)),
            };
        }
        self
    }

    /// The same backends, in the slots that they had `before`. New ones come into the slots of those that are gone,
    /// and the last ones into the holes that are left.
    pub(crate) fn in_slots_of(self, before: impl IntoIterator<Item = Option<Backend>>) -> Self {
        let mut left: BTreeMap<Backend, usize> = BTreeMap::new();
        for backend in &self.backends {
            *left.entry(*backend).or_default() += 1;
        }
        let mut take = |backend: &Backend| match left.get_mut(backend) {
            Some(count @ 1..) => {
                *count -= 1;
                true
            }
            _ => false,
        };
        let mut slots: Vec<_> = before.into_iter().map(|slot| slot.filter(&mut take)).collect();
        for backend in self.backends {
            if take(&backend) {
                match slots.iter_mut().find(|slot| slot.is_none()) {
                    Some(hole) => *hole = Some(backend),
                    None => slots.push(Some(backend)),
                }
            }
        }
        let mut place = 0;
        while let Some(slot) = slots.get(place) {
            match slot {
                Some(_) => place += 1,
                None => _ = slots.swap_remove(place),
            }
        }
        let backends = slots.into_iter().flatten().collect();
        Self { backends, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(last: &[u8]) -> Vec<Backend> {
        last.iter().map(|n| Backend { address: [10, 0, 0, *n].into(), port: None }).collect()
    }

    fn kept(before: &[u8], after: &[u8]) -> Vec<Backend> {
        let after = Virtual { balance: Balance::Random, backends: backends(after) };
        after.in_slots_of(backends(before).into_iter().map(Some)).backends
    }

    #[test]
    fn a_backend_keeps_its_slot_and_the_last_one_fills_the_hole() {
        assert_eq!(kept(&[], &[3, 1, 2]), backends(&[3, 1, 2]), "new ones in the order given");
        assert_eq!(kept(&[1, 2, 3], &[3, 2, 1]), backends(&[1, 2, 3]), "another order is no change");
        assert_eq!(kept(&[1, 2, 3, 4], &[2, 3, 4]), backends(&[4, 2, 3]));
        assert_eq!(kept(&[1, 2, 3], &[1, 2]), backends(&[1, 2]));
        assert_eq!(kept(&[1, 2, 3, 4], &[4]), backends(&[4]));
        assert_eq!(kept(&[1, 2, 3], &[5, 2, 3, 6]), backends(&[5, 2, 3, 6]), "one for another, and one more");
        assert_eq!(kept(&[1, 2, 3, 4, 5], &[2, 4]), backends(&[4, 2]));
        assert_eq!(kept(&[1, 1, 2], &[1, 2, 2]), backends(&[1, 2, 2]), "shares are counted");
        assert_eq!(kept(&[1, 2], &[]), backends(&[]));
    }

    #[test]
    fn backends_are_of_the_frontends_family_and_not_more_than_the_bound() {
        let port = Frontend::Port { address: [0, 0, 0, 0].into(), protocol: Protocol::Tcp, port: 80 };
        let mixed = Virtual {
            balance: Balance::Random,
            backends: vec![
                Backend { address: "fd00::1".parse().unwrap(), port: Some(8080) },
                Backend { address: [10, 0, 0, 1].into(), port: Some(8080) },
                Backend { address: [10, 0, 0, 2].into(), port: None },
            ],
        };
        let ports = |v: Virtual| v.backends.iter().map(|b| b.port).collect::<Vec<_>>();
        assert_eq!(ports(mixed.clone().normal(&port)), [Some(8080), Some(80)]);
        assert_eq!(ports(mixed.clone().normal(&Frontend::Address([10, 9, 0, 1].into()))), [None, None]);
        assert_eq!(ports(mixed.normal(&Frontend::Address("fd00:9::1".parse().unwrap()))), [None]);
        let many = Virtual { balance: Balance::Random, backends: backends(&[1; BACKENDS_MAX + 1]) };
        assert_eq!(many.normal(&port).backends.len(), BACKENDS_MAX);
    }
}
