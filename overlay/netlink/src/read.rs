//! What the kernel tells, as objects of ours; `None` for what is not ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use covey_overlay::{
    mac::Mac,
    object::{Conf, Destination, Hop, LinkName, ObservedLink, Rule, Vxlan},
};
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{AfSpecInet, AfSpecUnspec, InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use crate::message::PROTOCOL;

pub fn link(message: &LinkMessage) -> Option<(LinkName, ObservedLink)> {
    let mut name = None;
    let flags = message.header.flags;
    let up = flags.contains(LinkFlags::Up) && !flags.contains(LinkFlags::Noarp);
    let mut seen =
        ObservedLink { mac: None, mtu: 0, up, conf: None, vxlan: None, inside: None, cached: false };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = LinkName::ours(text),
            LinkAttribute::Mtu(mtu) => seen.mtu = *mtu,
            LinkAttribute::Controller(_) => seen.up = false,
            LinkAttribute::Address(bytes) => seen.mac = mac(bytes),
            LinkAttribute::AfSpecUnspec(families) => seen.conf = families.iter().find_map(conf),
            LinkAttribute::LinkInfo(parts) => seen.vxlan = parts.iter().find_map(vxlan),
            _ => {}
        }
    }
    Some((name?, seen))
}

fn conf(family: &AfSpecUnspec) -> Option<Conf> {
    let AfSpecUnspec::Inet(parts) = family else { return None };
    parts.iter().find_map(|part| match part {
        AfSpecInet::DevConf(conf) => Some(Conf {
            rp_filter: u32::try_from(conf.rp_filter).ok()?,
            send_redirects: conf.send_redirects != 0,
            route_localnet: conf.route_localnet != 0,
            accept_local: conf.accept_local != 0,
        }),
        _ => None,
    })
}

/// None for a device that learns or that has a default remote: ours do neither.
fn vxlan(part: &LinkInfo) -> Option<Vxlan> {
    let LinkInfo::Data(InfoData::Vxlan(attributes)) = part else { return None };
    let (mut vni, mut local, mut port) = (None, None, None);
    for attribute in attributes {
        match attribute {
            InfoVxlan::Id(id) => vni = Some(*id),
            InfoVxlan::Local(address) => local = Some(IpAddr::V4(*address)),
            InfoVxlan::Local6(address) => local = Some(IpAddr::V6(*address)),
            InfoVxlan::Port(number) => port = Some(*number),
            InfoVxlan::Learning(true) | InfoVxlan::Group(_) | InfoVxlan::Group6(_) => return None,
            _ => {}
        }
    }
    Some(Vxlan { vni: vni?, local: local?, port: port? })
}

/// Index of the link, and the address; none for addresses that every link or host has.
pub fn address(message: &AddressMessage) -> Option<(u32, IpNet)> {
    if message.header.scope != AddressScope::Universe {
        return None;
    }
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(found) => local = Some(*found),
            AddressAttribute::Address(found) => address = Some(*found),
            _ => {}
        }
    }
    let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some((message.header.index, net))
}

/// A route of ours; the name of its link is looked up by index.
pub fn route(
    message: &RouteMessage,
    name_of: impl Fn(u32) -> Option<LinkName>,
) -> Option<(Destination, Hop)> {
    let header = &message.header;
    if header.protocol != PROTOCOL {
        return None;
    }
    let mut to = any(header.address_family)?;
    let (mut link, mut gateway) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Destination(address) => to = ip(address)?,
            RouteAttribute::Gateway(address) => gateway = Some(ip(address)?),
            _ => {}
        }
    }
    let net = IpNet::new(to, header.destination_prefix_length).ok()?;
    let to = Destination { table: u32::from(header.table), net };
    let hop = match (header.kind, gateway) {
        (RouteType::Unreachable, _) => Hop::Unreachable,
        (RouteType::Unicast, None) => Hop::On(name_of(link?)?),
        (RouteType::Unicast, Some(gateway)) => Hop::Via(name_of(link?)?, gateway),
        _ => return None,
    };
    Some((to, hop))
}

pub fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

pub fn any(family: AddressFamily) -> Option<IpAddr> {
    match family {
        AddressFamily::Inet => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        AddressFamily::Inet6 => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        _ => None,
    }
}

/// A permanent neighbour, of whichever link.
pub fn neighbour(message: &NeighbourMessage) -> Option<(IpAddr, Mac)> {
    if message.header.state != NeighbourState::Permanent || message.header.family == AddressFamily::Bridge {
        return None;
    }
    ends(message)
}

/// An entry of a forwarding table, of whichever link.
pub fn fdb(message: &NeighbourMessage) -> Option<(IpAddr, Mac)> {
    (message.header.family == AddressFamily::Bridge).then(|| ends(message)).flatten()
}

fn ends(message: &NeighbourMessage) -> Option<(IpAddr, Mac)> {
    let (mut to, mut at) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(address) => to = Some(destination(address)?),
            NeighbourAttribute::LinkLayerAddress(bytes) => at = mac(bytes),
            _ => {}
        }
    }
    Some((to?, at?))
}

fn destination(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(address) => Some(IpAddr::V4(*address)),
        NeighbourAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        // In an entry of a forwarding table only its length tells the family.
        NeighbourAddress::Other(bytes) => <[u8; 4]>::try_from(bytes.as_slice())
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from))
            .ok(),
        _ => None,
    }
}

pub fn rule(message: &RuleMessage) -> Option<Rule> {
    if message.header.action != RuleAction::ToTable {
        return None;
    }
    let v6 = message.header.family == AddressFamily::Inet6;
    let (mut ours, mut value, mut mask, mut table) = (false, 0, u32::MAX, u32::from(message.header.table));
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Protocol(protocol) => ours = *protocol == PROTOCOL,
            RuleAttribute::FwMark(mark) => value = *mark,
            RuleAttribute::FwMask(bits) => mask = *bits,
            RuleAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    ours.then_some(Rule { v6, mark: (value, mask), table })
}

pub fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}
