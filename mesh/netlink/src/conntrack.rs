//! Connections that the kernel tracks: those to a backend that is gone are cut.

mod flow;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use covey_mesh::Protocol;

use crate::{
    attribute::{Attributes, attributes, find},
    socket::{Found, Netfilter, NetfilterError, Request},
};

/// `IPCTNL_MSG_CT_GET`, `IPCTNL_MSG_CT_DELETE` of linux/netfilter/nfnetlink_conntrack.h, as all numbers below.
const GET: i32 = 1;
const DELETE: i32 = 2;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_V4_SOURCE: u16 = 1;
const IP_V6_SOURCE: u16 = 3;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE_PORT: u16 = 2;
const PROTOCOL_DESTINATION_PORT: u16 = 3;
/// `IPS_SRC_NAT | IPS_DST_NAT` of linux/netfilter/nf_conntrack_common.h.
const TRANSLATED: u32 = 1 << 4 | 1 << 5;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
/// What of a tuple counts.
const BY_SOURCE: u32 = 1 << 0;
/// Backends that the kernel looks for itself; of more, all connections are listed instead.
const FILTERED_MAX: usize = 4;
/// How often connections are listed anew because the table was rebuilt meanwhile.
const ATTEMPTS_MAX: usize = 16;
/// Connections that are forgotten with one system call.
const TOGETHER_MAX: usize = 256;

/// The connections of one network namespace.
pub struct Conntrack {
    netfilter: Netfilter,
}

impl Conntrack {
    /// Opens a socket in this thread's network namespace.
    ///
    /// # Errors
    /// The kernel has no netfilter.
    pub fn open() -> Result<Self, NetfilterError> {
        Ok(Self { netfilter: Netfilter::open()? })
    }

    /// Opens a socket in the network namespace that this file names, from wherever it is used.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel has no netfilter.
    pub fn open_in(namespace: &Path) -> Result<Self, NetfilterError> {
        Ok(Self { netfilter: Netfilter::open_in(namespace)? })
    }

    /// Forgets the connections that these backends answer: their next packet is balanced anew, and a TCP client learns
    /// from the other backend's reset that its connection is gone. The kernel looks through all connections of the
    /// machine, some 20 ms where there is room for 262,144 of them.
    ///
    /// # Errors
    /// Some of them may be left.
    pub fn flush(&mut self, gone: &BTreeSet<IpAddr>) -> Result<(), NetfilterError> {
        let (mut v4, v6): (BTreeSet<_>, BTreeSet<_>) = gone.iter().copied().partition(IpAddr::is_ipv4);
        if v4.len() <= FILTERED_MAX {
            while let Some(backend) = v4.first().copied() {
                match self.netfilter.request(request(DELETE, backend, filter(backend))) {
                    // Kernels before 5.8 do not know the filter, and take this for one connection, badly described.
                    Err(error) if error.is(libc::EINVAL) || error.is(libc::ENOENT) => break,
                    done => done?,
                };
                v4.remove(&backend);
            }
        }
        // Linux compares IPv6 addresses of a filter the wrong way round (seen in 6.18): everything but the backend would
        // be forgotten.
        let (v4, v6) = (self.flush_each(&v4), self.flush_each(&v6));
        v4.and(v6)
    }

    /// The long way: lists all connections of the backends' family and forgets one after the other.
    fn flush_each(&mut self, gone: &BTreeSet<IpAddr>) -> Result<(), NetfilterError> {
        let Some(family) = gone.first() else { return Ok(()) };
        let answered =
            |connection: &Found| answered_by(connection).is_some_and(|backend| gone.contains(&backend));
        let cut: Vec<_> = self.list(*family)?.into_iter().filter(answered).collect();
        self.forget(*family, &cut)
    }

    /// Forgets connections to these published ports that are not translated, of both families: what a client sent
    /// while nobody was behind the port. As long as it goes on sending, the kernel would take all of it for the host's
    /// own, also when there are backends again.
    ///
    /// # Errors
    /// Some of them may be left.
    pub fn forget_unserved(&mut self, ports: &BTreeSet<(Protocol, u16)>) -> Result<(), NetfilterError> {
        for family in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            let gone: Vec<_> = self.list(family)?.into_iter().filter(|one| is_unserved(one, ports)).collect();
            self.forget(family, &gone)?;
        }
        Ok(())
    }

    /// Forgets these, all of the backend's family, one after the other.
    fn forget(&mut self, backend: IpAddr, gone: &[Found]) -> Result<(), NetfilterError> {
        for some in gone.chunks(TOGETHER_MAX) {
            let forget = |connection: &Found| {
                let mut body = Attributes::default();
                for (number, value) in attributes(connection) {
                    if matches!(number, ORIGINAL | ID | ZONE) {
                        body.put(number, value);
                    }
                }
                request(DELETE, backend, body)
            };
            match self.netfilter.requests(some.iter().map(forget).collect()) {
                // It has ended by itself.
                Err(error) if error.is(libc::ENOENT) => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// All connections of the backend's family.
    fn list(&mut self, backend: IpAddr) -> Result<Vec<Found>, NetfilterError> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(found) = self.netfilter.dump(request(GET, backend, Attributes::default()))? {
                return Ok(found);
            }
        }
        Err(NetfilterError::Torn)
    }
}

fn request(message: i32, backend: IpAddr, body: Attributes) -> Request {
    let family = if backend.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = (libc::NFNL_SUBSYS_CTNETLINK << 8 | message) as u16;
    Request { kind, flags: 0, family: family as u8, resource: 0, body: body.into_bytes() }
}

/// By the source of replies, of IPv4 or IPv6.
fn filter(backend: IpAddr) -> Attributes {
    let (number, address) = match backend {
        IpAddr::V4(address) => (IP_V4_SOURCE, address.octets().to_vec()),
        IpAddr::V6(address) => (IP_V6_SOURCE, address.octets().to_vec()),
    };
    let mut body = Attributes::default();
    body.nest(REPLY, |tuple| tuple.nest(TUPLE_IP, |ip| ip.put(number, &address)));
    body.nest(FILTER, |filter| {
        filter.put(FILTER_ORIGINAL, &0u32.to_ne_bytes());
        filter.put(FILTER_REPLY, &BY_SOURCE.to_ne_bytes());
    });
    body
}

/// Where a connection's replies come from.
fn answered_by(connection: &Found) -> Option<IpAddr> {
    let ip = find(find(connection, REPLY)?, TUPLE_IP)?;
    let v4 = || Some(<[u8; 4]>::try_from(find(ip, IP_V4_SOURCE)?).ok()?.into());
    let v6 = || Some(<[u8; 16]>::try_from(find(ip, IP_V6_SOURCE)?).ok()?.into());
    v4().or_else(v6)
}

fn is_unserved(connection: &Found, ports: &BTreeSet<(Protocol, u16)>) -> bool {
    let original = find(connection, ORIGINAL).unwrap_or_default();
    let protocol = find(original, TUPLE_PROTOCOL).unwrap_or_default();
    let to = |(wanted, port): &(Protocol, u16)| {
        find(protocol, PROTOCOL_NUMBER) == Some(&[wanted.number()])
            && find(protocol, PROTOCOL_DESTINATION_PORT) == Some(&port.to_be_bytes())
    };
    let status = find(connection, STATUS).and_then(|status| status.try_into().ok());
    status.is_some_and(|status| u32::from_be_bytes(status) & TRANSLATED == 0) && ports.iter().any(to)
}
