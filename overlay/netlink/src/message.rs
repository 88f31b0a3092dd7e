//! What is asked of the kernel, as rtnetlink messages.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use covey_overlay::{
    mac::Mac,
    object::{Conf, Destination, Hop, Link, LinkKind, LinkName, Rule, Vxlan},
};
use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{
        AfSpecInet, AfSpecUnspec, InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags,
        LinkInfo, LinkMessage,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

/// Marks our routes and rules, so that `ip route` says whose they are (`/etc/iproute2/rt_protos` leaves this one free).
pub const PROTOCOL: RouteProtocol = RouteProtocol::Other(67);
/// Our rules are looked at before those that the kernel has by itself (32766), and after those that go first on purpose.
const RULE_PRIORITY: u32 = 4096;

/// Switches of a link (`IFLA_INET_CONF` and `IPV4_DEVCONF_…`, linux/if_link.h and linux/ip.h).
const INET_CONF: u16 = 1;
const SEND_REDIRECTS: u16 = 6;
const RP_FILTER: u16 = 8;
const ACCEPT_LOCAL: u16 = 23;
const ROUTE_LOCALNET: u16 = 26;

pub fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

pub fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

pub fn of(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

pub fn up(index: u32) -> LinkMessage {
    let mut message = of(index);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

pub fn mended(index: u32, mtu: u32) -> LinkMessage {
    let mut message = up(index);
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message
}

/// The same of a link that is all ours: nobody's port, and with neighbours.
pub fn restored(index: u32, mtu: u32) -> LinkMessage {
    let mut message = mended(index, mtu);
    message.header.change_mask |= LinkFlags::Noarp;
    message.attributes.push(LinkAttribute::Controller(0));
    message
}

pub fn conf(index: u32, conf: Conf) -> LinkMessage {
    let switches = [
        (SEND_REDIRECTS, u32::from(conf.send_redirects)),
        (RP_FILTER, conf.rp_filter),
        (ACCEPT_LOCAL, u32::from(conf.accept_local)),
        (ROUTE_LOCALNET, u32::from(conf.route_localnet)),
    ];
    let mut bytes = Vec::new();
    for (switch, value) in switches {
        let attribute = DefaultNla::new(switch, value.to_ne_bytes().to_vec());
        let start = bytes.len();
        bytes.resize(start + attribute.buffer_len(), 0);
        attribute.emit(&mut bytes[start..]);
    }
    let inet = AfSpecInet::Other(DefaultNla::new(INET_CONF | NLA_F_NESTED, bytes));
    let mut message = of(index);
    message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![inet])]));
    message
}

/// A new link. What of it is to be elsewhere is made right in `namespace`, since moving it there costs four times as much:
/// a container's end of a veth pair, else the link itself.
pub fn new_link(name: &LinkName, link: &Link, namespace: Option<BorrowedFd<'_>>) -> LinkMessage {
    let mut message = up(0);
    message.attributes = vec![
        LinkAttribute::IfName(name.to_string()),
        LinkAttribute::Address(link.mac.0.to_vec()),
        LinkAttribute::Mtu(link.mtu),
    ];
    let within = namespace.map(|namespace| LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    let parts = match &link.kind {
        LinkKind::Veth(inside) => veth(other_end(&inside.name, inside.mac, link.mtu, within)),
        LinkKind::Vxlan(device) => {
            message.attributes.extend(within);
            vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(vxlan(*device)))]
        }
        LinkKind::Uplink => {
            message.attributes.extend(within);
            veth(other_end(name.as_str(), link.mac, link.mtu, None))
        }
    };
    message.attributes.push(LinkAttribute::LinkInfo(parts));
    message
}

fn veth(other_end: LinkMessage) -> Vec<LinkInfo> {
    vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other_end)))]
}

fn other_end(name: &str, mac: Mac, mtu: u32, within: Option<LinkAttribute>) -> LinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(mac.0.to_vec()),
        LinkAttribute::Mtu(mtu),
    ];
    peer.attributes.extend(within);
    peer
}

fn vxlan(device: Vxlan) -> Vec<InfoVxlan> {
    let local = match device.local {
        IpAddr::V4(local) => InfoVxlan::Local(local),
        IpAddr::V6(local) => InfoVxlan::Local6(local),
    };
    let mut parts =
        vec![InfoVxlan::Id(device.vni), local, InfoVxlan::Port(device.port), InfoVxlan::Learning(false)];
    if device.local.is_ipv6() {
        // As over IPv4: what is inside has checksums of its own (RFC 6935).
        parts.extend([InfoVxlan::UDPZeroCsumTX(true), InfoVxlan::UDPZeroCsumRX(true)]);
    }
    parts
}

pub fn address(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    // Nobody else can have it: no need to ask around for a second whether somebody does.
    message.header.flags = AddressHeaderFlags::Nodad;
    message.attributes =
        vec![AddressAttribute::Address(address.addr()), AddressAttribute::Local(address.addr())];
    message
}

pub fn neighbour(index: u32, to: IpAddr, mac: Option<Mac>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(to);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(to)));
    message.attributes.extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())));
    message
}

/// An entry of the device's own table, which is where it is deleted from as well.
pub fn fdb(index: u32, mac: Mac, underlay: IpAddr) -> NeighbourMessage {
    let mut message = neighbour(index, underlay, Some(mac));
    message.header.family = AddressFamily::Bridge;
    message.header.flags = NeighbourFlags::Own;
    message
}

pub fn route(to: Destination, hop: Option<(&Hop, u32)>) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(to.net.addr());
    header.destination_prefix_length = to.net.prefix_len();
    // Ours are few, and all below 256.
    header.table = u8::try_from(to.table).unwrap_or_default();
    header.protocol = PROTOCOL;
    // Deleting one: whatever it is.
    header.scope = RouteScope::NoWhere;
    header.kind = RouteType::Unspec;
    if to.net.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(to.net.addr().into()));
    }
    let Some((hop, index)) = hop else { return message };
    (message.header.scope, message.header.kind) = (RouteScope::Universe, RouteType::Unicast);
    match hop {
        Hop::On(_) => message.header.scope = RouteScope::Link,
        Hop::Via(_, gateway) => {
            // The gateway is on no network of this link: trust that it is there.
            message.header.flags = RouteFlags::Onlink;
            message.attributes.push(RouteAttribute::Gateway((*gateway).into()));
        }
        Hop::Unreachable => {
            message.header.kind = RouteType::Unreachable;
            return message;
        }
    }
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

pub fn rule(rule: Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if rule.v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(rule.table).unwrap_or_default();
    message.attributes = vec![
        RuleAttribute::Priority(RULE_PRIORITY),
        RuleAttribute::FwMark(rule.mark.0),
        RuleAttribute::FwMask(rule.mark.1),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(PROTOCOL),
    ];
    message
}

/// Which way to everything that a container reaches by its end.
pub fn way_out(index: u32, net: IpNet) -> RouteNetlinkMessage {
    let gateway = covey_overlay::object::gateway(net.addr());
    let hop = Hop::Via(LinkName::loopback(), gateway);
    RouteNetlinkMessage::NewRoute(route(Destination::main(net), Some((&hop, index))))
}
