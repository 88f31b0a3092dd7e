//! The planner of an overlay network on one host: a router in a namespace of its own.
//!
//! Each subnet has a VXLAN device, each local container a routed veth, each remote endpoint a route to its host. An
//! address that nobody has is unreachable at once. A network of one host is the same router without VXLAN devices.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;

use crate::{
    diff::plan,
    mac::Mac,
    object::{
        CACHED_SWITCHES, Change, Conf, Destination, Hop, Inside, Link, LinkKind, LinkName, Objects, Observed,
        Vxlan, Wanted,
    },
    peer::Peer,
};

/// The smallest VNI; it is the edge's ([`crate::edge::VNI`]).
pub const VNI_MIN: u32 = 4096;
/// The largest VNI: it has 24 bits.
pub const VNI_MAX: u32 = (1 << 24) - 1;

/// Ethernet address of both ends of a router's uplink: nobody asks for it.
pub const UPLINK_MAC: Mac = Mac::of_host_end(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

/// Switches of a router's namespace, with their values. Both of `all` in IPv4 are minima for every link. Whoever asks
/// for an address that nobody has is told so; the kernel's limits for such errors are taken off but for one, which no
/// namespace can change: five at once to an IPv4 client, then one a second. (A limit of 0 for IPv4 would eat its tokens.)
pub const SWITCHES: &[(&str, u32)] = &[
    ("ipv4/ip_forward", 1),
    ("ipv6/conf/all/forwarding", 1),
    ("ipv4/conf/all/rp_filter", 0),
    ("ipv4/conf/all/send_redirects", 0),
    ("ipv4/icmp_ratemask", 0),
    ("ipv6/icmp/ratelimit", 0),
];

/// What is not from where it says it is does not pass.
const VETH_CONF: Conf =
    Conf { rp_filter: 1, send_redirects: false, route_localnet: false, accept_local: false };
/// Routers of all hosts have the same addresses: what another one says about an endpoint that is gone is heard.
const VXLAN_CONF: Conf =
    Conf { rp_filter: 0, send_redirects: false, route_localnet: false, accept_local: true };

/// An overlay network as it is wanted on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Underlay address of this host.
    pub local: IpAddr,
    /// UDP port of VXLAN.
    pub port: u16,
    /// Ethernet address of this host's VXLAN devices.
    pub mac: Mac,
    /// Bytes of a packet, at most.
    pub mtu: u32,
    /// Its links have the flow cache ([`crate::flow_cache`]), if any of its subnets has a VNI.
    pub cached: bool,
    /// The network's address ranges, disjoint.
    pub subnets: Vec<Subnet>,
    /// The containers of this host, by the router's end of their veth.
    pub attachments: BTreeMap<LinkName, Attachment>,
    /// Node number → the hosts that have endpoints.
    pub peers: BTreeMap<u32, Peer>,
    /// Endpoints of other hosts → node number. One whose host is not among the peers, or whose subnet has no VNI, is
    /// unreachable; one that a container of this host has is here.
    pub endpoints: BTreeMap<IpAddr, u32>,
}

/// An address range of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Its addresses.
    pub net: IpNet,
    /// Its VNI, [`VNI_MIN`] to [`VNI_MAX`]; none where the network is this host's alone.
    pub vni: Option<u32>,
    /// The router's own address in it, the same on all hosts: it answers pings, and says what cannot be reached.
    pub gateway: IpAddr,
}

/// A container of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Path of its network namespace.
    pub namespace: String,
    /// Name of its end of the veth.
    pub inside: String,
    /// Its addresses, at least one; the Ethernet addresses derive from the first.
    pub addresses: Vec<IpAddr>,
    /// It leaves the network by this one.
    pub default_route: bool,
}

impl Desired {
    /// The kernel objects that it takes.
    pub fn objects(&self) -> Wanted {
        let mut wanted = Wanted { switches: SWITCHES.iter().copied().collect(), ..Wanted::default() };
        for subnet in &self.subnets {
            self.subnet(subnet, &mut wanted);
        }
        if let Some(name) = self.uplink() {
            let kind = LinkKind::Uplink;
            let link = Link { mac: UPLINK_MAC, mtu: self.mtu, conf: VETH_CONF, cached: true, kind };
            wanted.links.insert(name, link);
            wanted.switches.extend(CACHED_SWITCHES.iter().copied());
        }
        for peer in self.peers.values() {
            self.peer(peer, &mut wanted);
        }
        for (address, number) in &self.endpoints {
            if let Some(hop) = self.remote(*address, *number) {
                wanted.routes.insert(Destination::main(*address), hop);
            }
        }
        for (name, attachment) in &self.attachments {
            self.attachment(name, attachment, &mut wanted);
        }
        wanted
    }

    /// The flow cache's way between the router and its host; none without the cache.
    fn uplink(&self) -> Option<LinkName> {
        let vni = self.subnets.iter().find_map(|subnet| subnet.vni);
        vni.filter(|_| self.cached).map(LinkName::of_uplink)
    }

    fn subnet(&self, subnet: &Subnet, wanted: &mut Wanted) {
        wanted.routes.insert(Destination::main(subnet.net.trunc()), Hop::Unreachable);
        wanted.addresses.insert((LinkName::loopback(), subnet.gateway.into()));
        if let Some(vni) = subnet.vni {
            let vxlan = Vxlan { vni, local: self.local, port: self.port };
            let kind = LinkKind::Vxlan(vxlan);
            let link = Link { mac: self.mac, mtu: self.mtu, conf: VXLAN_CONF, cached: false, kind };
            wanted.links.insert(LinkName::of_vni(vni), link);
        }
    }

    fn peer<L>(&self, peer: &Peer, objects: &mut Objects<L>) {
        for subnet in &self.subnets {
            if let Some(vni) = subnet.vni {
                peer.reach(&LinkName::of_vni(vni), is_v6(subnet.net.addr()), objects);
            }
        }
    }

    fn remote(&self, address: IpAddr, number: u32) -> Option<Hop> {
        let peer = self.peers.get(&number)?;
        let subnet = self.subnets.iter().find(|subnet| subnet.net.contains(&address))?;
        Some(Hop::Via(LinkName::of_vni(subnet.vni?), peer.hop(is_v6(address))))
    }

    fn attachment(&self, name: &LinkName, attachment: &Attachment, wanted: &mut Wanted) {
        let Some(first) = attachment.addresses.first() else { return };
        let mac = Mac::of_container_end(*first);
        let inside = Inside {
            namespace: attachment.namespace.clone(),
            name: attachment.inside.clone(),
            addresses: attachment.addresses.clone(),
            routes: self.routes_of(attachment),
            mac,
        };
        let kind = LinkKind::Veth(inside);
        let mac_here = Mac::of_host_end(*first);
        let cached = self.uplink().is_some();
        let link = Link { mac: mac_here, mtu: self.mtu, conf: VETH_CONF, cached, kind };
        wanted.links.insert(name.clone(), link);
        for address in &attachment.addresses {
            wanted.routes.insert(Destination::main(*address), Hop::On(name.clone()));
            wanted.neighbours.insert((name.clone(), *address), mac);
        }
    }

    /// Of each family that the container has an address of.
    fn routes_of(&self, attachment: &Attachment) -> Vec<IpNet> {
        let all = [IpNet::V4(ipnet::Ipv4Net::default()), IpNet::V6(ipnet::Ipv6Net::default())];
        let subnets = self.subnets.iter().map(|subnet| subnet.net.trunc());
        let default = all.into_iter().filter(|_| attachment.default_route);
        subnets
            .chain(default)
            .filter(|net| attachment.addresses.iter().any(|address| is_v6(*address) == is_v6(net.addr())))
            .collect()
    }
}

const fn is_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(_))
}

/// The steps for a container of `desired` that is new: nothing of it is in the kernel. (One that is gone takes
/// [`Change::DeleteLink`].)
pub fn plan_attachment(desired: &Desired, name: &LinkName) -> Vec<Change> {
    let mut wanted = Wanted::default();
    if let Some(attachment) = desired.attachments.get(name) {
        desired.attachment(name, attachment, &mut wanted);
    }
    plan(&wanted, &Observed::default())
}

/// The step for one endpoint of another host that came, moved or went, once `desired` says so. Its cost does not grow
/// with the number of endpoints.
pub fn plan_endpoint(desired: &Desired, address: IpAddr) -> Change {
    let to = Destination::main(address);
    let local = desired.attachments.iter().find(|(_, attachment)| attachment.addresses.contains(&address));
    let hop = match local {
        Some((name, _)) => Some(Hop::On(name.clone())),
        None => desired.endpoints.get(&address).and_then(|number| desired.remote(address, *number)),
    };
    hop.map_or(Change::DeleteRoute(to), |hop| Change::SetRoute(to, hop))
}

/// The steps for one peer that came, changed or went, once `desired` says so; `before` is what `desired` had of it.
/// Its endpoints are planned by [`plan_endpoint`]: after this when it came, before this when it went.
pub fn plan_peer(desired: &Desired, number: u32, before: Option<&Peer>) -> Vec<Change> {
    let (mut wanted, mut observed) = (Wanted::default(), Observed::default());
    if let Some(peer) = desired.peers.get(&number) {
        desired.peer(peer, &mut wanted);
    }
    if let Some(peer) = before {
        desired.peer(peer, &mut observed);
    }
    plan(&wanted, &observed)
}
