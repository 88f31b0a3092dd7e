//! Who really answers one connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use covey_mesh::Protocol;

use super::{
    Conntrack, GET, IP_V4_SOURCE, IP_V6_SOURCE, ORIGINAL, PROTOCOL_DESTINATION_PORT, PROTOCOL_NUMBER,
    PROTOCOL_SOURCE_PORT, REPLY, TUPLE_IP, TUPLE_PROTOCOL, request,
};
use crate::{
    attribute::{Attributes, find},
    socket::NetfilterError,
};

/// `CTA_IP_V4_DST`, `CTA_IP_V6_DST` of linux/netfilter/nfnetlink_conntrack.h.
const IP_V4_DESTINATION: u16 = 2;
const IP_V6_DESTINATION: u16 = 4;

impl Conntrack {
    /// The address that answers a connection from `from` to `to`, as this namespace tracks it; `None` where it does not.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn answered_by(
        &mut self,
        protocol: Protocol,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<Option<SocketAddr>, NetfilterError> {
        let mut body = Attributes::default();
        body.nest(ORIGINAL, |tuple| {
            tuple.nest(TUPLE_IP, |ip| {
                put_address(ip, [IP_V4_SOURCE, IP_V6_SOURCE], from.ip());
                put_address(ip, [IP_V4_DESTINATION, IP_V6_DESTINATION], to.ip());
            });
            tuple.nest(TUPLE_PROTOCOL, |inside| {
                inside.put(PROTOCOL_NUMBER, &[protocol.number()]);
                inside.put(PROTOCOL_SOURCE_PORT, &from.port().to_be_bytes());
                inside.put(PROTOCOL_DESTINATION_PORT, &to.port().to_be_bytes());
            });
        });
        match self.netfilter.request(request(GET, from.ip(), body)) {
            Err(error) if error.is(libc::ENOENT) => Ok(None),
            found => Ok(found?.first().and_then(|connection| source(find(connection, REPLY)?))),
        }
    }
}

fn put_address(ip: &mut Attributes, [v4, v6]: [u16; 2], address: IpAddr) {
    match address {
        IpAddr::V4(address) => ip.put(v4, &address.octets()),
        IpAddr::V6(address) => ip.put(v6, &address.octets()),
    }
}

/// The source of a tuple.
fn source(tuple: &[u8]) -> Option<SocketAddr> {
    let ip = find(tuple, TUPLE_IP)?;
    let v4 = || <[u8; 4]>::try_from(find(ip, IP_V4_SOURCE)?).ok().map(Ipv4Addr::from).map(IpAddr::V4);
    let v6 = || <[u8; 16]>::try_from(find(ip, IP_V6_SOURCE)?).ok().map(Ipv6Addr::from).map(IpAddr::V6);
    let port = <[u8; 2]>::try_from(find(find(tuple, TUPLE_PROTOCOL)?, PROTOCOL_SOURCE_PORT)?).ok()?;
    Some(SocketAddr::new(v4().or_else(v6)?, u16::from_be_bytes(port)))
}
