//! Kernel objects as data, and the steps that change them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use crate::mac::Mac;

/// In front of the name of every link of ours. Others may begin so too: [`LinkName::ours`] tells.
pub const LINK_PREFIX: &str = "cv";
/// In front of the names of our VXLAN devices. An `x` is no hexadecimal digit: no container's link begins so.
pub const VXLAN_PREFIX: &str = "cvx";
/// The same of our routers' [uplinks](LinkKind::Uplink).
pub const UPLINK_PREFIX: &str = "cvu";
/// Bytes of a link's name, the closing zero not counted (`IFNAMSIZ`, linux/if.h).
pub const LINK_NAME_MAX: usize = 15;

/// The way out of every container, and the way back out of a host: nobody has these addresses, a permanent neighbour
/// entry stands for each.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// As [`GATEWAY_V4`].
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Number of the routing table that is asked when no rule says otherwise (`RT_TABLE_MAIN`, linux/rtnetlink.h).
pub const TABLE_MAIN: u32 = 254;

/// Switches of a namespace whose links have the flow cache ([`crate::flow_cache`]), with their values. Packets that it
/// carries are not tracked: what a connection's other packets say of TCP windows looks wrong, and what they carry looks
/// unacknowledged for ever. (Of two times in seconds that apply the kernel takes the shorter one; this is its own for a
/// connection.)
pub const CACHED_SWITCHES: &[(&str, u32)] = &[
    ("netfilter/nf_conntrack_tcp_be_liberal", 1),
    ("netfilter/nf_conntrack_tcp_timeout_unacknowledged", 432_000),
];

/// [`GATEWAY_V4`] or [`GATEWAY_V6`].
pub const fn gateway(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(GATEWAY_V4),
        IpAddr::V6(_) => IpAddr::V6(GATEWAY_V6),
    }
}

/// The name of a link of ours, or the loopback of a namespace of ours.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkName(String);

impl LinkName {
    /// The link of this container: the prefix and the first characters of its id, which is 64 lower-case hexadecimal
    /// digits.
    pub fn of_container(id: &str) -> Self {
        Self(format!(
            "{LINK_PREFIX}{}",
            id.chars().take(LINK_NAME_MAX - LINK_PREFIX.len()).collect::<String>()
        ))
    }

    /// The VXLAN device of this VNI.
    pub fn of_vni(vni: u32) -> Self {
        Self(format!("{VXLAN_PREFIX}{vni}"))
    }

    /// The uplink of the router that has this VNI: both ends are called so, each in its namespace.
    pub fn of_uplink(vni: u32) -> Self {
        Self(format!("{UPLINK_PREFIX}{vni}"))
    }

    /// It is a VXLAN device.
    pub fn is_vxlan(&self) -> bool {
        self.0.starts_with(VXLAN_PREFIX)
    }

    /// It is an end of a router's uplink.
    pub fn is_uplink(&self) -> bool {
        self.0.starts_with(UPLINK_PREFIX)
    }

    /// The loopback: it is never made or deleted, but a namespace of ours may have addresses there.
    pub fn loopback() -> Self {
        Self("lo".to_owned())
    }

    /// The link of this name, if it is one of ours: another one is never touched.
    pub fn ours(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(LINK_PREFIX)?;
        let of_vni = [VXLAN_PREFIX, UPLINK_PREFIX]
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix))
            .is_some_and(|vni| !vni.is_empty() && vni.bytes().all(|byte| byte.is_ascii_digit()));
        let of_container = rest.len() == LINK_NAME_MAX - LINK_PREFIX.len()
            && rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (of_vni || of_container).then(|| Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// IPv4 switches of one link (`/proc/sys/net/ipv4/conf/LINK/…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conf {
    /// 1: a packet whose source is not reached by this link is dropped; 2: only where no link reaches it; 0: neither.
    /// The kernel takes the maximum of this and `conf/all/rp_filter`.
    pub rp_filter: u32,
    /// Senders are told of shorter ways.
    pub send_redirects: bool,
    /// 127.0.0.0/8 may pass.
    pub route_localnet: bool,
    /// A packet may have an address of this host as its source.
    pub accept_local: bool,
}

/// What makes a VXLAN device the one that it is. Ours never learn, and never send to where nobody said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// Network identifier.
    pub vni: u32,
    /// Underlay address of this host.
    pub local: IpAddr,
    /// UDP port, the same on all hosts.
    pub port: u16,
}

/// The container's end of a veth pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Path of the container's network namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
    /// The container's addresses, each without neighbours (/32, /128).
    pub addresses: Vec<IpAddr>,
    /// What it reaches by this link. The host's end answers for all of it.
    pub routes: Vec<IpNet>,
    /// Its Ethernet address.
    pub mac: Mac,
}

/// One thing that the container's end of a veth pair has, in the order in which they are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// An address of the container.
    Address(IpAddr),
    /// It is up, and its packets have so many bytes at most.
    Up {
        /// Bytes.
        mtu: u32,
    },
    /// The host's end answers for this gateway.
    Gateway(IpAddr, Mac),
    /// The way to these addresses is by the [`gateway`] of their family.
    Route(IpNet),
}

impl Part {
    /// Only one of the two can be there.
    pub fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Up { .. }, Self::Up { .. }) => true,
            (Self::Gateway(to, _), Self::Gateway(other, _)) => to == other,
            _ => self == other,
        }
    }

    /// It is nothing without IPv6.
    pub fn is_v6(&self) -> bool {
        match self {
            Self::Address(address) | Self::Gateway(address, _) => address.is_ipv6(),
            Self::Route(net) => net.addr().is_ipv6(),
            Self::Up { .. } => false,
        }
    }

    /// The kind of kernel object, as metrics name it.
    pub const fn object(&self) -> &'static str {
        match self {
            Self::Address(_) => "address",
            Self::Up { .. } => "link",
            Self::Gateway(..) => "neighbour",
            Self::Route(_) => "route",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "address {address}"),
            Self::Up { mtu } => write!(f, "link up, MTU {mtu}"),
            Self::Gateway(gateway, mac) => write!(f, "neighbour {gateway} at {mac}"),
            Self::Route(net) => write!(f, "route to {net}"),
        }
    }
}

/// The container's end of a veth pair, as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedInside {
    /// Its Ethernet address; none where the end is not there under its name.
    pub mac: Option<Mac>,
    /// IPv6 is switched off there, which is the container's own choice.
    pub v4_only: bool,
    /// What it has, and beside it what the container leads over links of its own: that is none of ours any more.
    pub parts: BTreeSet<Part>,
}

/// Which kind of link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A VXLAN device; its UDP socket is the host's, wherever the device is.
    Vxlan(Vxlan),
    /// One end of a veth pair; the other one is a container's.
    Veth(Inside),
    /// A router's end of a veth pair; the other one, in the host's namespace, has the same name and Ethernet address. What
    /// the flow cache carries between the two namespaces crosses by it, and nothing else does.
    Uplink,
}

/// A link as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its Ethernet address.
    pub mac: Mac,
    /// Bytes of a packet, at most.
    pub mtu: u32,
    /// Its switches.
    pub conf: Conf,
    /// It has the programs of the flow cache ([`crate::flow_cache`]); an uplink has them at both ends.
    pub cached: bool,
    /// What it is.
    pub kind: LinkKind,
}

impl Link {
    /// The container's end; none where there is none.
    pub const fn inside(&self) -> Option<&Inside> {
        match &self.kind {
            LinkKind::Veth(inside) => Some(inside),
            LinkKind::Vxlan(_) | LinkKind::Uplink => None,
        }
    }

    /// What the container's end has; nothing where there is none.
    pub fn parts(&self) -> BTreeSet<Part> {
        let Some(inside) = self.inside() else { return BTreeSet::new() };
        let addresses = inside.addresses.iter().copied().map(Part::Address);
        let gateways = inside.routes.iter().map(|net| Part::Gateway(gateway(net.addr()), self.mac));
        let routes = inside.routes.iter().copied().map(Part::Route);
        addresses.chain([Part::Up { mtu: self.mtu }]).chain(gateways).chain(routes).collect()
    }
}

/// A link of ours, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedLink {
    /// Its Ethernet address; another one than ours makes it a stranger. None of an uplink whose ends do not have the same.
    pub mac: Option<Mac>,
    /// Bytes of a packet, at most.
    pub mtu: u32,
    /// It is up, asks for neighbours, and is its own master: no bridge's port. An uplink's other end is up as well.
    pub up: bool,
    /// Its switches; none where the kernel does not tell.
    pub conf: Option<Conf>,
    /// It is a VXLAN device that does not learn and sends to nobody by default.
    pub vxlan: Option<Vxlan>,
    /// The container's end; none where nobody looked.
    pub inside: Option<ObservedInside>,
    /// It has the programs of the flow cache, those that this daemon has loaded; an uplink has them at both ends.
    pub cached: bool,
}

/// The host's own link to the other hosts, as the flow cache knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// Its address, by which it is found.
    pub local: IpAddr,
    /// UDP port of VXLAN.
    pub port: u16,
}

/// Where a route leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// Routing table.
    pub table: u32,
    /// Destination.
    pub net: IpNet,
}

impl Destination {
    /// This network, in the main table.
    pub fn main(net: impl Into<IpNet>) -> Self {
        Self { table: TABLE_MAIN, net: net.into() }
    }
}

/// How a route gets there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// It is on this link.
    On(LinkName),
    /// By this address, which is taken to be on this link.
    Via(LinkName, IpAddr),
    /// Not at all: senders are told so at once.
    Unreachable,
}

impl Hop {
    /// The link that it needs.
    pub fn link(&self) -> Option<&LinkName> {
        match self {
            Self::On(link) | Self::Via(link, _) => Some(link),
            Self::Unreachable => None,
        }
    }
}

/// A rule of policy routing: packets with a mark are looked up in a table of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// For IPv6; else for IPv4.
    pub v6: bool,
    /// Value and mask of the packet mark.
    pub mark: (u32, u32),
    /// Routing table.
    pub table: u32,
}

/// Kernel objects of one network namespace: as they are wanted, or as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objects<L> {
    /// Links of ours.
    pub links: BTreeMap<LinkName, L>,
    /// Addresses on them, but for link-local ones.
    pub addresses: BTreeSet<(LinkName, IpNet)>,
    /// Routes of ours.
    pub routes: BTreeMap<Destination, Hop>,
    /// Permanent neighbours on links of ours.
    pub neighbours: BTreeMap<(LinkName, IpAddr), Mac>,
    /// Which underlay addresses an Ethernet address is behind, on VXLAN devices of ours: never more than one is wanted.
    pub fdb: BTreeMap<(LinkName, Mac), BTreeSet<IpAddr>>,
    /// Rules of ours.
    pub rules: BTreeSet<Rule>,
    /// Switches of the whole namespace: path below `/proc/sys/net` → value.
    pub switches: BTreeMap<&'static str, u32>,
    /// The link, not one of ours, that has the programs of the flow cache; no other one has.
    pub underlay: Option<Underlay>,
}

impl<L> Default for Objects<L> {
    fn default() -> Self {
        Self {
            links: BTreeMap::new(),
            addresses: BTreeSet::new(),
            routes: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            fdb: BTreeMap::new(),
            rules: BTreeSet::new(),
            switches: BTreeMap::new(),
            underlay: None,
        }
    }
}

/// What is wanted.
pub type Wanted = Objects<Link>;
/// What the kernel has of ours.
pub type Observed = Objects<ObservedLink>;

/// One step that brings the kernel closer to what is wanted. Whatever is set replaces what is there; deleting what is
/// not there is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A switch of the whole namespace: path below `/proc/sys/net`, value.
    SetSwitch(&'static str, u32),
    /// A link of ours that nobody wants.
    DeleteLink(LinkName),
    /// A new link, up; of a veth pair both ends, a container's with addresses and routes.
    CreateLink(LinkName, Link),
    /// A link is not [up](ObservedLink::up), or has another size of packets.
    MendLink {
        /// Which.
        name: LinkName,
        /// Bytes of a packet, at most.
        mtu: u32,
    },
    /// Switches of a link.
    SetConf(LinkName, Conf),
    /// Something of the container's end.
    SetInside {
        /// The host's end.
        link: LinkName,
        /// The container's.
        inside: Inside,
        /// What of it.
        part: Part,
    },
    /// The programs of the flow cache at a link that has been there before.
    SetCached(LinkName),
    /// Those at the host's link to the others: they go from every other link that is not ours, and without one from all.
    SetUnderlay(Option<Underlay>),
    /// An address of this host.
    SetAddress(LinkName, IpNet),
    /// An address on a link of ours that is not ours.
    DeleteAddress(LinkName, IpNet),
    /// A permanent neighbour.
    SetNeighbour {
        /// On this link.
        link: LinkName,
        /// Its address.
        to: IpAddr,
        /// Its Ethernet address.
        mac: Mac,
    },
    /// A permanent neighbour that is no more.
    DeleteNeighbour {
        /// On this link.
        link: LinkName,
        /// Its address.
        to: IpAddr,
    },
    /// An Ethernet address behind an underlay address.
    SetFdb {
        /// On this VXLAN device.
        link: LinkName,
        /// Whose.
        mac: Mac,
        /// Where.
        underlay: IpAddr,
    },
    /// An Ethernet address that is no more behind an underlay address.
    DeleteFdb {
        /// On this VXLAN device.
        link: LinkName,
        /// Whose.
        mac: Mac,
        /// Where.
        underlay: IpAddr,
    },
    /// A route.
    SetRoute(Destination, Hop),
    /// A route that is no more.
    DeleteRoute(Destination),
    /// A rule of policy routing.
    SetRule(Rule),
    /// A rule that is no more.
    DeleteRule(Rule),
}

impl Change {
    /// The kind of kernel object that it is about, as metrics name it.
    pub const fn object(&self) -> &'static str {
        match self {
            Self::SetSwitch(..) | Self::SetConf(..) => "sysctl",
            Self::DeleteLink(..) | Self::CreateLink(..) | Self::MendLink { .. } => "link",
            Self::SetInside { part, .. } => part.object(),
            Self::SetCached(..) | Self::SetUnderlay(..) => "flow_cache",
            Self::SetAddress(..) | Self::DeleteAddress(..) => "address",
            Self::SetNeighbour { .. } | Self::DeleteNeighbour { .. } => "neighbour",
            Self::SetFdb { .. } | Self::DeleteFdb { .. } => "fdb",
            Self::SetRoute(..) | Self::DeleteRoute(..) => "route",
            Self::SetRule(..) | Self::DeleteRule(..) => "rule",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetSwitch(path, value) => write!(f, "set {path} to {value}"),
            Self::DeleteLink(name) => write!(f, "delete link {name}"),
            Self::CreateLink(name, _) => write!(f, "make link {name}"),
            Self::MendLink { name, mtu } => write!(f, "set link {name} up, MTU {mtu}"),
            Self::SetConf(name, _) => write!(f, "set switches of link {name}"),
            Self::SetInside { link, part, .. } => write!(f, "set {part} at the container's end of {link}"),
            Self::SetCached(name) => write!(f, "set the flow cache at {name}"),
            Self::SetUnderlay(Some(underlay)) => {
                write!(f, "set the flow cache at the link that has {}", underlay.local)
            }
            Self::SetUnderlay(None) => f.write_str("take the flow cache from links that are not ours"),
            Self::SetAddress(link, address) => write!(f, "set address {address} on {link}"),
            Self::DeleteAddress(link, address) => write!(f, "delete address {address} on {link}"),
            Self::SetNeighbour { link, to, mac } => write!(f, "set neighbour {to} at {mac} on {link}"),
            Self::DeleteNeighbour { link, to } => write!(f, "delete neighbour {to} on {link}"),
            Self::SetFdb { link, mac, underlay } => write!(f, "set {mac} behind {underlay} on {link}"),
            Self::DeleteFdb { link, mac, underlay } => write!(f, "delete {mac} behind {underlay} on {link}"),
            Self::SetRoute(to, _) => write!(f, "set route to {}", to.net),
            Self::DeleteRoute(to) => write!(f, "delete route to {}", to.net),
            Self::SetRule(rule) => write!(f, "set rule for table {}", rule.table),
            Self::DeleteRule(rule) => write!(f, "delete rule for table {}", rule.table),
        }
    }
}
