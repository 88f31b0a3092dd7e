//! The container's end of a veth pair, in the container's own namespace, where others have things as well.

use std::{collections::BTreeSet, io, path::Path};

use covey_overlay::object::{Inside, ObservedInside, Part, TABLE_MAIN, gateway};
use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::AddressMessage,
    link::{AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkFlags, LinkMessage},
    neighbour::NeighbourMessage,
    route::{RouteAttribute, RouteMessage, RouteType},
};

use crate::{
    message, namespace, read,
    socket::{NetlinkError, REPLACE, Route},
};

/// Metric of an IPv6 route that was made without one (`IP6_RT_PRIO_USER`, linux/ipv6_route.h). For IPv4 that is 0.
const METRIC_V6: u32 = 1024;

/// Sets these parts of a container's end, in their order; the first that fails is the last that is tried for. What needs
/// IPv6 is left out where the container has switched it off.
pub fn set(inside: &Inside, parts: &BTreeSet<Part>) -> Result<(), NetlinkError> {
    namespace::inside(Path::new(&inside.namespace), || {
        let mut route = Route::open()?;
        let link = match route.ask(RouteNetlinkMessage::GetLink(message::named(&inside.name)))? {
            Some(RouteNetlinkMessage::NewLink(link)) => link,
            _ => return Err(NetlinkError::Refused(io::Error::from_raw_os_error(libc::ENODEV))),
        };
        let v4_only = is_v4_only(&link);
        let possible = parts.iter().filter(|part| !(v4_only && part.is_v6()));
        let messages = possible.map(|part| request(link.header.index, *part)).collect();
        route.batch(messages)?.into_iter().collect()
    })
}

fn request(index: u32, part: Part) -> (RouteNetlinkMessage, u16) {
    use RouteNetlinkMessage as M;
    match part {
        Part::Address(address) => (M::NewAddress(message::address(index, address.into())), REPLACE),
        Part::Up { mtu } => (M::SetLink(message::mended(index, mtu)), 0),
        Part::Gateway(to, mac) => (M::NewNeighbour(message::neighbour(index, to, Some(mac))), REPLACE),
        Part::Route(net) => (message::way_out(index, net), REPLACE),
    }
}

/// The container's end whose other end has the index `host`, seen from this thread's namespace.
///
/// What the container leads over a link of its own is its own: an address or a route of ours that it has there counts as
/// being there, so that it stays.
pub fn observe(inside: &Inside, host: u32) -> Result<ObservedInside, NetlinkError> {
    use RouteNetlinkMessage as M;
    let mut route = Route::open()?;
    let link = match route.ask(M::GetLink(message::named(&inside.name))) {
        Ok(Some(M::NewLink(link))) => link,
        Err(error) if error.errno() != Some(libc::ENODEV) => return Err(error),
        _ => return Ok(ObservedInside::default()),
    };
    let Some(mut seen) = end(&link, host) else { return Ok(ObservedInside::default()) };
    let index = link.header.index;
    let mut list = |message| route.dump(message);
    seen.parts.extend(list(M::GetAddress(AddressMessage::default()))?.iter().filter_map(address));
    let neighbours = list(M::GetNeighbour(NeighbourMessage::default()))?;
    seen.parts.extend(neighbours.iter().filter_map(|message| neighbour(message, index)));
    let routes = list(M::GetRoute(RouteMessage::default()))?;
    seen.parts.extend(routes.iter().filter_map(|message| way(message, index)).map(Part::Route));
    Ok(seen)
}

/// None where it is the end of another pair, under our name.
fn end(link: &LinkMessage, host: u32) -> Option<ObservedInside> {
    let mut seen = ObservedInside { v4_only: is_v4_only(link), ..ObservedInside::default() };
    let mut other = None;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => seen.mac = read::mac(bytes),
            LinkAttribute::Link(index) => other = Some(*index),
            LinkAttribute::Mtu(mtu) if link.header.flags.contains(LinkFlags::Up) => {
                seen.parts.insert(Part::Up { mtu: *mtu });
            }
            _ => {}
        }
    }
    (other == Some(host)).then_some(seen)
}

/// IPv6 is switched off on a link.
fn is_v4_only(link: &LinkMessage) -> bool {
    let is_off = |part: &AfSpecInet6| matches!(part, AfSpecInet6::DevConf(conf) if conf.disable_ipv6 != 0);
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::AfSpecUnspec(families) => families
            .iter()
            .any(|family| matches!(family, AfSpecUnspec::Inet6(parts) if parts.iter().any(is_off))),
        _ => false,
    })
}

fn address(message: &RouteNetlinkMessage) -> Option<Part> {
    let RouteNetlinkMessage::NewAddress(address) = message else { return None };
    read::address(address).map(|(_, net)| Part::Address(net.addr()))
}

fn neighbour(message: &RouteNetlinkMessage, index: u32) -> Option<Part> {
    let RouteNetlinkMessage::NewNeighbour(neighbour) = message else { return None };
    let (to, mac) = read::neighbour(neighbour)?;
    (neighbour.header.ifindex == index).then_some(Part::Gateway(to, mac))
}

/// Where this route leads to, if it is ours or in the place of ours: on our link it must be by the gateway.
fn way(message: &RouteNetlinkMessage, index: u32) -> Option<IpNet> {
    let RouteNetlinkMessage::NewRoute(route) = message else { return None };
    let mut to = read::any(route.header.address_family)?;
    let (mut link, mut by, mut metric) = (None, None, 0);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = read::ip(address)?,
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Gateway(address) => by = read::ip(address),
            RouteAttribute::Priority(number) => metric = *number,
            _ => {}
        }
    }
    let ours = if to.is_ipv4() { 0 } else { METRIC_V6 };
    let as_ours = route.header.kind == RouteType::Unicast && by == Some(gateway(to));
    let counts =
        u32::from(route.header.table) == TABLE_MAIN && metric == ours && (link != Some(index) || as_ours);
    counts.then(|| IpNet::new(to, route.header.destination_prefix_length).ok()).flatten()
}
