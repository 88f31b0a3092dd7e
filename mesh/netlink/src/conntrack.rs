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
const BY_PROTOCOL: u32 = 1 << 3;
const BY_SOURCE_PORT: u32 = 1 << 4;
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

    /// Forgets the connections that this backend answers, all of them or those to one port there: their next packet
    /// is balanced anew, and a TCP client learns from the other backend's reset that its connection is gone.
    ///
    /// # Errors
    /// Some of them may be left.
    pub fn flush(&mut self, backend: IpAddr, only: Option<(Protocol, u16)>) -> Result<(), NetfilterError> {
        if backend.is_ipv6() {
            // Linux compares IPv6 addresses of a filter the wrong way round (seen in 6.18): everything but the backend
            // would be forgotten.
            return self.flush_each(backend, only);
        }
        match self.netfilter.request(request(DELETE, backend, filter(backend, only))) {
            // Kernels before 5.8 do not know the filter, and take this for one connection, badly described.
            Err(error) if error.is(libc::EINVAL) || error.is(libc::ENOENT) => self.flush_each(backend, only),
            done => done.map(drop),
        }
    }

    /// The long way: lists all connections and forgets one after the other.
    fn flush_each(&mut self, backend: IpAddr, only: Option<(Protocol, u16)>) -> Result<(), NetfilterError> {
        let answered =
            |connection: &Found| is_answered_by(find(connection, REPLY).unwrap_or_default(), backend, only);
        let gone: Vec<_> = self.list(backend)?.into_iter().filter(answered).collect();
        self.forget(backend, &gone)
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

/// The address of the backend, as the source of replies.
fn source(backend: IpAddr) -> (u16, Vec<u8>) {
    match backend {
        IpAddr::V4(address) => (IP_V4_SOURCE, address.octets().to_vec()),
        IpAddr::V6(address) => (IP_V6_SOURCE, address.octets().to_vec()),
    }
}

fn filter(backend: IpAddr, only: Option<(Protocol, u16)>) -> Attributes {
    let mut body = Attributes::default();
    let (number, address) = source(backend);
    body.nest(REPLY, |tuple| {
        tuple.nest(TUPLE_IP, |ip| ip.put(number, &address));
        if let Some((protocol, port)) = only {
            tuple.nest(TUPLE_PROTOCOL, |inside| {
                inside.put(PROTOCOL_NUMBER, &[protocol.number()]);
                inside.put(PROTOCOL_SOURCE_PORT, &port.to_be_bytes());
            });
        }
    });
    let by = BY_SOURCE | only.map_or(0, |_| BY_PROTOCOL | BY_SOURCE_PORT);
    body.nest(FILTER, |filter| {
        filter.put(FILTER_ORIGINAL, &0u32.to_ne_bytes());
        filter.put(FILTER_REPLY, &by.to_ne_bytes());
    });
    body
}

fn is_answered_by(reply: &[u8], backend: IpAddr, only: Option<(Protocol, u16)>) -> bool {
    let (number, address) = source(backend);
    let ip = find(reply, TUPLE_IP).unwrap_or_default();
    let protocol = find(reply, TUPLE_PROTOCOL).unwrap_or_default();
    find(ip, number) == Some(&address)
        && only.is_none_or(|(wanted, port)| {
            find(protocol, PROTOCOL_NUMBER) == Some(&[wanted.number()])
                && find(protocol, PROTOCOL_SOURCE_PORT) == Some(&port.to_be_bytes())
        })
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
