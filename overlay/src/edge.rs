//! The edge planner: what joins this host to all others, and its containers to this host.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    block::Pair,
    diff::plan,
    mac::Mac,
    object::{
        CACHED_SWITCHES, Change, Conf, Destination, Hop, Inside, Link, LinkKind, LinkName, Observed, Rule,
        Underlay, Vxlan, Wanted, gateway,
    },
    peer::Peer,
};

/// VNI of the edge's device.
pub const VNI: u32 = crate::network::VNI_MIN;
/// Routing table of replies that go back by the host that their request came in by.
pub const RETURN_TABLE: u32 = 100;
/// Ethernet address of whoever a reply goes back to; nobody has it. A rule at the device's egress puts in the host's.
pub const RETURN_MAC: Mac = Mac::of_node([0; 4]);
/// Name of the container's end of its veth.
pub const INSIDE: &str = "eth0";

/// Switches of the host, with their values.
pub const SWITCHES: &[(&str, u32)] = &[("ipv4/ip_forward", 1), ("ipv6/conf/all/forwarding", 1)];
/// Switches of a host that is joined to others. What comes in by one host and is answered by another looks wrong to
/// `rp_filter`, and the value of `all` is a minimum for every link.
pub const JOINED_SWITCHES: &[(&str, u32)] = &[("ipv4/conf/all/rp_filter", 0)];

/// What comes in by one host and is answered by another passes. Published ports answer on 127.0.0.1 as well.
const DEVICE_CONF: Conf =
    Conf { rp_filter: 0, send_redirects: false, route_localnet: true, accept_local: false };
/// What is not from where it says it is does not pass. A reply that goes back by another host passes: the mark that leads
/// it there does not count when its source is looked up (`src_valid_mark`).
const VETH_CONF: Conf = Conf { rp_filter: 1, ..DEVICE_CONF };

/// The edge as it is wanted on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// What joins this host to others; none while it is alone.
    pub device: Option<Device>,
    /// Node number → the other hosts. They count only with a device.
    pub peers: BTreeMap<u32, Peer>,
    /// The containers' veths.
    pub veths: BTreeMap<LinkName, Veth>,
    /// Its containers' links and the host's link to the others have the flow cache ([`crate::flow_cache`]).
    pub cached: bool,
}

/// The VXLAN device that joins this host to all others at layer 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its Ethernet address ([`Mac::of_node`]).
    pub mac: Mac,
    /// Underlay address of this host.
    pub local: IpAddr,
    /// UDP port of VXLAN, the same on all hosts.
    pub port: u16,
    /// Bytes of a packet, at most.
    pub mtu: u32,
    /// This node's edge block; the device has its first address, and what nobody has of it is unreachable.
    pub v4: Ipv4Net,
    /// Its IPv6 edge block, likewise.
    pub v6: Ipv6Net,
    /// Value and mask of the packet mark of replies that go back by another host.
    pub return_mark: (u32, u32),
}

/// A container's veth as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// Its host's end.
    pub name: LinkName,
    /// Path of the container's network namespace, where the other end is `eth0`.
    pub namespace: String,
    /// The container's addresses.
    pub addresses: Pair,
    /// Bytes of a packet, at most.
    pub mtu: u32,
}

impl Desired {
    /// The kernel objects that it takes.
    pub fn objects(&self) -> Wanted {
        let mut wanted = Wanted { switches: SWITCHES.iter().copied().collect(), ..Wanted::default() };
        if self.cached {
            wanted.switches.extend(CACHED_SWITCHES.iter().copied());
        }
        if let Some(device) = &self.device {
            device.objects(&mut wanted);
            wanted.underlay = self.cached.then_some(Underlay { local: device.local, port: device.port });
            self.peers.values().for_each(|peer| join(peer, &mut wanted));
        }
        self.veths.values().for_each(|veth| veth.objects(self.cached, &mut wanted));
        wanted
    }
}

impl Device {
    fn objects(&self, wanted: &mut Wanted) {
        let name = LinkName::of_vni(VNI);
        let kind = LinkKind::Vxlan(Vxlan { vni: VNI, local: self.local, port: self.port });
        wanted.links.insert(
            name.clone(),
            Link { mac: self.mac, mtu: self.mtu, conf: DEVICE_CONF, cached: false, kind },
        );
        wanted.switches.extend(JOINED_SWITCHES.iter().copied());
        for block in [IpNet::V4(self.v4.trunc()), IpNet::V6(self.v6.trunc())] {
            let (first, v6) = (block.network(), matches!(block, IpNet::V6(_)));
            wanted.addresses.insert((name.clone(), first.into()));
            wanted.routes.insert(Destination::main(block), Hop::Unreachable);
            let back = gateway(first);
            let anywhere = if v6 { IpNet::V6(Ipv6Net::default()) } else { IpNet::V4(Ipv4Net::default()) };
            wanted.neighbours.insert((name.clone(), back), RETURN_MAC);
            wanted
                .routes
                .insert(Destination { table: RETURN_TABLE, net: anywhere }, Hop::Via(name.clone(), back));
            wanted.rules.insert(Rule { v6, mark: self.return_mark, table: RETURN_TABLE });
        }
    }
}

fn join(peer: &Peer, wanted: &mut Wanted) {
    let device = LinkName::of_vni(VNI);
    for block in peer.blocks() {
        let v6 = matches!(block, IpNet::V6(_));
        peer.reach(&device, v6, wanted);
        wanted.routes.insert(Destination::main(block), Hop::Via(device.clone(), peer.hop(v6)));
    }
}

impl Veth {
    /// Ethernet address of the host's end.
    pub const fn host_mac(&self) -> Mac {
        Mac::of_host_end(IpAddr::V4(self.addresses.v4))
    }

    /// Ethernet address of the container's end.
    pub const fn container_mac(&self) -> Mac {
        Mac::of_container_end(IpAddr::V4(self.addresses.v4))
    }

    fn objects(&self, cached: bool, wanted: &mut Wanted) {
        let addresses = [IpAddr::V4(self.addresses.v4), IpAddr::V6(self.addresses.v6)];
        let inside = Inside {
            namespace: self.namespace.clone(),
            name: INSIDE.to_owned(),
            addresses: addresses.to_vec(),
            routes: vec![Ipv4Net::default().into(), Ipv6Net::default().into()],
            mac: self.container_mac(),
        };
        let kind = LinkKind::Veth(inside);
        let link = Link { mac: self.host_mac(), mtu: self.mtu, conf: VETH_CONF, cached, kind };
        wanted.links.insert(self.name.clone(), link);
        for address in addresses {
            wanted.routes.insert(Destination::main(address), Hop::On(self.name.clone()));
            wanted.neighbours.insert((self.name.clone(), address), self.container_mac());
        }
    }
}

/// The steps for a container of `desired` that is new: nothing of it is in the kernel. (One that is gone takes
/// [`Change::DeleteLink`].)
pub fn plan_new(desired: &Desired, name: &LinkName) -> Vec<Change> {
    let mut wanted = Wanted::default();
    if let Some(veth) = desired.veths.get(name) {
        veth.objects(desired.cached, &mut wanted);
    }
    plan(&wanted, &Observed::default())
}
