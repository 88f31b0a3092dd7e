//! The edge in the kernel: what is there of ours, and the steps of a plan.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    path::Path,
};

use covey_overlay::{
    edge::{Observed, ObservedLink},
    mac::Mac,
    object::{Change, LinkName, Reach, Veth},
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};

use crate::{
    namespace,
    socket::{CREATE, NetlinkError, REPLACE, Route},
};

/// The container's way out: nobody has these addresses, a permanent neighbour entry stands for each.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The container's end of its veth.
const INSIDE: &str = "eth0";
/// Marks our routes, so that `ip route` says whose they are (`/etc/iproute2/rt_protos` leaves this one free).
pub(crate) const PROTOCOL: RouteProtocol = RouteProtocol::Other(67);

/// A step was not taken; those before it were.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct EdgeError {
    what: String,
    #[source]
    source: NetlinkError,
}

impl From<io::Error> for EdgeError {
    fn from(error: io::Error) -> Self {
        Self { what: "container's network namespace".to_owned(), source: NetlinkError::Socket(error) }
    }
}

fn doing(what: impl Into<String>) -> impl FnOnce(NetlinkError) -> EdgeError {
    let what = what.into();
    move |source| EdgeError { what, source }
}

/// The edge of the network namespace in which it was opened.
pub struct Edge {
    route: Route,
}

impl Edge {
    /// Opens the socket and has this host forward packets.
    ///
    /// # Errors
    /// The kernel has no netlink, or may not forward.
    pub fn open() -> Result<Self, EdgeError> {
        let route = Route::open().map_err(doing("rtnetlink"))?;
        for switch in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
            match fs::write(switch, "1") {
                // A kernel without IPv6 has no such switch.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(doing(switch)(NetlinkError::Socket(error)));
                }
                _ => {}
            }
        }
        Ok(Self { route })
    }

    /// What the kernel has of ours.
    ///
    /// # Errors
    /// A dump failed.
    pub fn observe(&mut self) -> Result<Observed, EdgeError> {
        let mut observed = Observed::default();
        let mut names = Vec::new();
        let links = self.route.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()));
        for message in links.map_err(doing("list links"))? {
            if let RouteNetlinkMessage::NewLink(link) = message
                && let Some((name, seen)) = our_link(&link)
            {
                names.push((link.header.index, name.clone()));
                observed.links.insert(name, seen);
            }
        }
        let name_of = |index: u32| names.iter().find(|(i, _)| *i == index).map(|(_, name)| name.clone());
        let routes = self.route.dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()));
        for message in routes.map_err(doing("list routes"))? {
            if let RouteNetlinkMessage::NewRoute(route) = message
                && let Some((index, to)) = our_route(&route)
                && let Some(link) = name_of(index)
            {
                observed.routes.insert((link, to));
            }
        }
        let neighbours = self.route.dump(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()));
        for message in neighbours.map_err(doing("list neighbours"))? {
            if let RouteNetlinkMessage::NewNeighbour(neighbour) = message
                && let Some((to, mac)) = permanent(&neighbour)
                && let Some(link) = name_of(neighbour.header.ifindex)
            {
                observed.neighbours.insert(Reach { link, to, mac });
            }
        }
        Ok(observed)
    }

    /// Takes one step.
    ///
    /// # Errors
    /// Nothing of the step is left but what a later plan finds and mends.
    pub fn apply(&mut self, change: &Change) -> Result<(), EdgeError> {
        match change {
            Change::DeleteLink(name) => self.delete(name),
            Change::CreateVeth(veth) => self.create(veth),
            Change::MendLink { name, mtu } => self.mend(name, *mtu),
            Change::SetRoute { link, to } => {
                let index = index(link.as_str())?;
                self.route
                    .request(RouteNetlinkMessage::NewRoute(host_route(index, *to)), REPLACE)
                    .map_err(doing(format!("route to {to}")))
            }
            Change::SetNeighbour(reach) => {
                let index = index(reach.link.as_str())?;
                self.route
                    .request(neighbour(index, reach.to, reach.mac), REPLACE)
                    .map_err(doing(format!("neighbour {}", reach.to)))
            }
        }
    }

    fn delete(&mut self, name: &LinkName) -> Result<(), EdgeError> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_string()));
        match self.route.request(RouteNetlinkMessage::DelLink(link), 0) {
            // It went with its namespace meanwhile.
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
            result => result.map_err(doing(format!("delete link {name}"))),
        }
    }

    fn mend(&mut self, name: &LinkName, mtu: u32) -> Result<(), EdgeError> {
        let mut link = up(index(name.as_str())?);
        link.attributes.push(LinkAttribute::Mtu(mtu));
        self.route
            .request(RouteNetlinkMessage::SetLink(link), 0)
            .map_err(doing(format!("set link {name} up")))
    }

    /// Makes both ends at once, the container's right in its namespace: moving it there costs four times as much.
    fn create(&mut self, veth: &Veth) -> Result<(), EdgeError> {
        let path = Path::new(&veth.namespace);
        let namespace = File::open(path)?;
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(INSIDE.to_owned()),
            LinkAttribute::Address(veth.container_mac().0.to_vec()),
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::NetNsFd(namespace.as_raw_fd()),
        ];
        let mut link = LinkMessage::default();
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes = vec![
            LinkAttribute::IfName(veth.name.to_string()),
            LinkAttribute::Address(veth.host_mac().0.to_vec()),
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        self.route
            .request(RouteNetlinkMessage::NewLink(link), CREATE)
            .map_err(doing(format!("make link {}", veth.name)))?;
        namespace::inside(path, || furnish(veth))
    }
}

/// Sets up the container's end, from inside its namespace.
fn furnish(veth: &Veth) -> Result<(), EdgeError> {
    let mut route = Route::open().map_err(doing("rtnetlink"))?;
    let index = index(INSIDE)?;
    let what = |what: &str| doing(format!("{what} of {}", veth.name));
    for address in [IpAddr::V4(veth.addresses.v4), IpAddr::V6(veth.addresses.v6)] {
        route.request(own_address(index, address), CREATE).map_err(what("address"))?;
    }
    route.request(RouteNetlinkMessage::SetLink(up(index)), 0).map_err(what("container's end"))?;
    for gateway in [IpAddr::V4(GATEWAY_V4), IpAddr::V6(GATEWAY_V6)] {
        route.request(neighbour(index, gateway, veth.host_mac()), REPLACE).map_err(what("gateway"))?;
        let way_out = RouteNetlinkMessage::NewRoute(default_route(index, gateway));
        route.request(way_out, REPLACE).map_err(what("default route"))?;
    }
    Ok(())
}

fn index(name: &str) -> Result<u32, EdgeError> {
    nix::net::if_::if_nametoindex(name)
        .map_err(|error| doing(format!("link {name}"))(NetlinkError::Socket(error.into())))
}

fn up(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

fn family(address: IpAddr) -> (AddressFamily, u8) {
    match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    }
}

fn own_address(index: u32, address: IpAddr) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    (message.header.family, message.header.prefix_len) = family(address);
    message.header.index = index;
    // Nobody else can have it: no need to ask around for a second whether somebody does.
    message.header.flags = AddressHeaderFlags::Nodad;
    message.attributes = vec![AddressAttribute::Address(address), AddressAttribute::Local(address)];
    RouteNetlinkMessage::NewAddress(message)
}

fn neighbour(index: u32, to: IpAddr, mac: Mac) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(to).0;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(match to {
            IpAddr::V4(to) => NeighbourAddress::Inet(to),
            IpAddr::V6(to) => NeighbourAddress::Inet6(to),
        }),
        NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
    ];
    RouteNetlinkMessage::NewNeighbour(message)
}

fn unicast(index: u32, family: AddressFamily, scope: RouteScope) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = PROTOCOL;
    message.header.scope = scope;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

fn host_route(index: u32, to: IpAddr) -> RouteMessage {
    let (family, length) = family(to);
    let mut message = unicast(index, family, RouteScope::Link);
    message.header.destination_prefix_length = length;
    message.attributes.push(RouteAttribute::Destination(to.into()));
    message
}

fn default_route(index: u32, gateway: IpAddr) -> RouteMessage {
    let mut message = unicast(index, family(gateway).0, RouteScope::Universe);
    // The gateway is on no network of the container: trust that it is there.
    message.header.flags = RouteFlags::Onlink;
    message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    message
}

fn our_link(link: &LinkMessage) -> Option<(LinkName, ObservedLink)> {
    let mut name = None;
    let mut seen = ObservedLink { mac: None, mtu: 0, up: link.header.flags.contains(LinkFlags::Up) };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = LinkName::ours(text),
            LinkAttribute::Mtu(mtu) => seen.mtu = *mtu,
            LinkAttribute::Address(bytes) => seen.mac = mac(bytes),
            _ => {}
        }
    }
    Some((name?, seen))
}

fn our_route(route: &RouteMessage) -> Option<(u32, IpAddr)> {
    let mut found = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => found.0 = Some(*index),
            RouteAttribute::Destination(RouteAddress::Inet(to)) => found.1 = Some(IpAddr::V4(*to)),
            RouteAttribute::Destination(RouteAddress::Inet6(to)) => found.1 = Some(IpAddr::V6(*to)),
            _ => {}
        }
    }
    let (index, to) = (found.0?, found.1?);
    let whole = route.header.destination_prefix_length == family(to).1;
    (whole && route.header.protocol == PROTOCOL).then_some((index, to))
}

fn permanent(neighbour: &NeighbourMessage) -> Option<(IpAddr, Mac)> {
    let mut found = (None, None);
    for attribute in &neighbour.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(to)) => found.0 = Some(IpAddr::V4(*to)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(to)) => found.0 = Some(IpAddr::V6(*to)),
            NeighbourAttribute::LinkLayerAddress(bytes) => found.1 = mac(bytes),
            _ => {}
        }
    }
    (neighbour.header.state == NeighbourState::Permanent).then_some((found.0?, found.1?))
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}
