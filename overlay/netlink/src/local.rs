//! What this host reaches already, so that nobody's addresses are taken twice.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
};

use crate::{
    message::PROTOCOL,
    socket::{NetlinkError, Route},
};

/// Every network of this host's main routing table but the default routes and those of the edge.
///
/// # Errors
/// [`NetlinkError`].
pub fn local_networks() -> Result<Vec<IpNet>, NetlinkError> {
    let found = Route::open()?.dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()))?;
    Ok(found
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => network(&route),
            _ => None,
        })
        .collect())
}

fn network(route: &RouteMessage) -> Option<IpNet> {
    let header = &route.header;
    if header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
        || header.protocol == PROTOCOL
    {
        return None;
    }
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
    IpNet::new(address, route.header.destination_prefix_length).ok()
}
