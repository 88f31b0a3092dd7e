//! What a host's own namespace holds beside its published ports: the way out, the way back, and the door for strangers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;

use crate::{
    expression::{self as e, Base, Connection, Meta, Register, Rule},
    layout::{Ip, KEY, Shape, VALUE, octets, refuse},
    mark,
    object::{Chain, Family, Form, Hook, Map, Table, Tables, Type, Value},
    program::{At, add_services, hooked, own_sources_only, priority},
    service::Protocol,
};

/// A host's own namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Blocks of which this host's containers have their addresses.
    pub blocks: BTreeSet<IpNet>,
    /// In front of the names of containers' links; not empty, at most 15 bytes.
    pub inside: String,
    /// Addresses of those of this host's containers that are open to each other, as Docker's `bridge` has it. All others
    /// reach each other by their networks and by published ports, not by these addresses.
    pub bridged: BTreeSet<IpAddr>,
    /// The link to all other hosts, unless this one stands alone.
    pub edge: Option<Edge>,
}

/// The VXLAN link that joins all hosts. It must be there when this is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Its name, at most 15 bytes. It may begin as containers' links do.
    pub device: String,
    /// This host's own address in the underlay, from and to which its VXLAN packets go.
    pub local: IpAddr,
    /// The UDP port of VXLAN.
    pub port: u16,
    /// The VXLAN networks that this host carries, that of the edge among them: 24 bits each. What strangers send to
    /// these is dropped.
    pub networks: BTreeSet<u32>,
    /// The other hosts.
    pub members: BTreeSet<Member>,
}

/// Another host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its address in the underlay, from which its VXLAN packets come.
    pub address: IpAddr,
    /// The other addresses that it has: what it asks for comes from any of them.
    pub others: BTreeSet<IpAddr>,
    /// Blocks of which its containers have their addresses.
    pub blocks: BTreeSet<IpNet>,
}

impl Member {
    fn addresses(&self) -> BTreeSet<IpAddr> {
        self.others.iter().copied().chain([self.address]).collect()
    }
}

/// Pairs of a host and a block of its own.
const SELF_BLOCK: &str = "selfblock";
/// Identifiers of the VXLAN networks that we carry.
const NETWORKS: &str = "vni";
/// Addresses of the other hosts from which their VXLAN packets come.
const MEMBERS: &str = "vtep";
/// All addresses of the other hosts.
const HOSTS: &str = "hosts";
/// Addresses of containers that are open to each other.
const BRIDGED: &str = "bridged";
/// Blocks of containers of other hosts.
const ELSEWHERE: &str = "elsewhere";

/// Chain of the first packets of connections from other hosts.
const ARRIVING: &str = "arriving";
/// Chain of what a container sends.
const LEAVING: &str = "leaving";
/// Chain of what a container sends to the address of another one on this host.
const NEAR: &str = "near";
/// Chain of the first packets of connections from everybody else.
const ENTERING: &str = "entering";
/// Chain of what is refused.
const REFUSED: &str = "refused";

/// In front of the link-layer addresses of the edge, with the first byte of a node's mark: nobody else's.
const EDGE_MAC: [u8; 3] = [0x02, 0xfd, mark::of_node(0)[0]];
/// Bytes of a link-layer address.
const MAC: u32 = 6;
/// The VXLAN header's identifier, in bytes after the UDP header's begin (RFC 7348), with the reserved byte behind.
const VXLAN_NETWORK: u32 = 12;
/// Where the source is in an IPv4 header (RFC 791).
const SOURCE_V4: u32 = 12;
/// Where the destination is, likewise.
const DESTINATION_V4: u32 = 16;
/// `NF_NETDEV_EGRESS` of linux/netfilter.h.
const EGRESS: u32 = 1;

impl Host {
    pub(crate) fn tables(&self) -> Tables {
        let mut table = Table::default();
        let services = add_services(&mut table, &[Shape::Port, Shape::AnyPort]);
        let own = || Ip::BOTH.map(|ip| to_own(ip, services)).to_vec();
        let mut add = |name: &str, chain: Chain| _ = table.chains.insert(name.to_owned(), chain);
        // Chains of this kind are asked for the first packet of a connection only, and no further once it is translated.
        let first = own().into_iter().chain([self.sent_by_others()]).collect();
        add("prerouting", hooked("nat", At::PreRouting, priority::NAT_DESTINATION, first));
        add("output", hooked("nat", At::Output, priority::NAT_DESTINATION, own()));
        add("postrouting", hooked("nat", At::PostRouting, priority::NAT_SOURCE, self.sources()));
        add(NEAR, Chain { hook: None, rules: near() });
        add(LEAVING, Chain { hook: None, rules: self.leaving() });
        add(ENTERING, Chain { hook: None, rules: self.entering() });
        add(REFUSED, Chain { hook: None, rules: refuse().into() });
        let mut mangle: Vec<_> = self.edge.iter().map(Edge::begins).collect();
        mangle.push(self.sent_by_a_container([e::jump(LEAVING)]));
        add("mangle", hooked("filter", At::PreRouting, priority::MANGLE, mangle));
        let own_sources = own_sources_only(self.sent_by_a_container([]));
        let Some(edge) = &self.edge else {
            table.maps.extend(self.sets());
            return Tables::from([(Family::Inet, table), own_sources]);
        };
        add(ARRIVING, Chain { hook: None, rules: loopback().into_iter().chain([remember()]).collect() });
        let raw = vec![edge.untracked(Ip::destination), edge.zone()];
        add("raw", hooked("filter", At::PreRouting, priority::RAW, raw));
        let own = vec![edge.untracked(Ip::source)];
        add("own", hooked("filter", At::Output, priority::RAW, own));
        let strangers = Ip::BOTH.map(|ip| edge.strangers(ip)).to_vec();
        add("input", hooked("filter", At::Input, priority::FILTER, strangers));
        table.maps.extend(self.sets().into_iter().chain(edge.sets()));
        Tables::from([(Family::Inet, table), own_sources, (Family::Netdev, edge.egress())])
    }

    /// `iifname INSIDE* iifname != EDGE …`: what a container of this host sends.
    fn sent_by_a_container(&self, then: impl IntoIterator<Item = e::Expression>) -> Rule {
        let mut rule = vec![e::meta(Meta::InputName, VALUE), e::is(VALUE, self.inside.as_bytes())];
        rule.extend(self.edge.iter().map(|edge| e::is_not(VALUE, &exactly(&edge.device))));
        rule.extend(then);
        rule
    }

    /// `iifname != INSIDE* iifname != EDGE goto ENTERING`: what comes neither from a container of this host nor from
    /// another host. Connections of this host to itself are asked about in `output` alone.
    fn sent_by_others(&self) -> Rule {
        let mut rule = vec![e::meta(Meta::InputName, VALUE), e::is_not(VALUE, self.inside.as_bytes())];
        rule.extend(self.edge.iter().map(|edge| e::is_not(VALUE, &exactly(&edge.device))));
        rule.push(e::go(ENTERING));
        rule
    }

    /// Nobody outside reaches a container by its own address, whatever routes he has: not one of this host, and not one
    /// of another host, to which this one would lead him. What goes to a published port has been translated by then.
    fn entering(&self) -> Vec<Rule> {
        let own =
            self.blocks.iter().map(|block| [within(block, Ip::destination), vec![e::go(REFUSED)]].concat());
        own.chain(self.edge.iter().flat_map(Edge::elsewhere)).collect()
    }

    /// Answers go back by the host that the connection came in by; nobody begins one with another container's address.
    /// Destinations are translated later: what goes to a published port is not such a one.
    fn leaving(&self) -> Vec<Rule> {
        let mut rules: Vec<_> = self.edge.iter().flat_map(Edge::forged).collect();
        rules.extend(self.edge.iter().map(Edge::answer));
        rules.push(vec![
            e::connection(Connection::Direction, VALUE),
            e::is(VALUE, &[e::DIRECTION_REPLY]),
            e::accept(),
        ]);
        rules.extend(loopback());
        rules.extend(self.edge.iter().flat_map(Edge::elsewhere));
        rules.extend(self.blocks.iter().map(|block| {
            let mut rule = within(block, Ip::destination);
            rule.push(e::go(NEAR));
            rule
        }));
        rules
    }

    fn sets(&self) -> Vec<(String, Map)> {
        Ip::BOTH
            .map(|ip| {
                let open = self.bridged.iter().filter(|address| Ip::of(**address) == ip);
                set(ip.name(BRIDGED), ip.address(), open.copied().map(octets).collect())
            })
            .into()
    }

    /// Whose source is translated on the way out.
    fn sources(&self) -> Vec<Rule> {
        let loopback = is_loopback(SOURCE_V4);
        let mut rules = vec![dnat_of(loopback)];
        rules.extend(self.blocks.iter().map(|block| dnat_of(within(block, Ip::source))));
        rules.extend(self.edge.iter().flat_map(Edge::self_blocks));
        rules.extend(self.blocks.iter().map(|block| {
            let mut rule = within(block, Ip::source);
            rule.extend([e::meta(Meta::OutputName, VALUE), e::is_not(VALUE, self.inside.as_bytes())]);
            rule.push(e::masquerade());
            rule
        }));
        rules
    }
}

/// `fib daddr type local jump CHAIN`, but not for `::1`: nothing leaves a host under that address, and who asks there
/// is to learn at once that nobody answers.
fn to_own(ip: Ip, chain: &str) -> Rule {
    let mut rule = ip.only().to_vec();
    if ip == Ip::V6 {
        rule.extend([ip.destination(VALUE), e::is_not(VALUE, &Ipv6Addr::LOCALHOST.octets())]);
    }
    rule.extend([e::destination_type(VALUE), e::is(VALUE, &e::LOCAL.to_ne_bytes()), e::jump(chain)]);
    rule
}

/// By which host a connection came in: `ct mark set @ll,64,32`.
fn remember() -> Rule {
    vec![
        e::payload(Base::Link, MAC, EDGE_MAC.len() as u32, VALUE),
        e::is(VALUE, &EDGE_MAC),
        e::payload(Base::Link, 2 * MAC - 4, 4, VALUE),
        e::set_connection_mark(VALUE),
    ]
}

/// Containers and other hosts reach nobody who listens on the host's loopback, and nobody takes them for the host
/// itself: `ip daddr 127.0.0.0/8 drop`, and `ip saddr`. Linux would let them, because their links have `route_localnet`
/// for our own sake. Answers to what the host asked by its loopback come to another address.
fn loopback() -> [Rule; 2] {
    [DESTINATION_V4, SOURCE_V4].map(|offset| is_loopback(offset).chain([e::drop()]).collect())
}

/// `ip saddr 127.0.0.0/8`, or `ip daddr`.
fn is_loopback(offset: u32) -> impl Iterator<Item = e::Expression> {
    let first = [e::payload(Base::Network, offset, 1, VALUE), e::is(VALUE, &[127])];
    Ip::V4.only().into_iter().chain(first)
}

/// What of a packet is read: [`Ip::source`] or [`Ip::destination`].
type Read = fn(Ip, Register) -> e::Expression;

/// `ip saddr BLOCK`, or `ip daddr`.
fn within(block: &IpNet, address: Read) -> Rule {
    let ip = Ip::of(block.addr());
    let mut rule = ip.only().to_vec();
    rule.extend([
        address(ip, VALUE),
        e::mask(VALUE, &octets(block.netmask())),
        e::is(VALUE, &octets(block.network())),
    ]);
    rule
}

/// `ct status dnat … masquerade`.
fn dnat_of(source: impl IntoIterator<Item = e::Expression>) -> Rule {
    let bit = e::STATUS_DNAT.to_ne_bytes();
    let mut rule = vec![e::connection(Connection::Status, VALUE), e::mask(VALUE, &bit), e::is(VALUE, &bit)];
    rule.extend(source);
    rule.push(e::masquerade());
    rule
}

/// What goes to another container of this host, or to the host itself by its address among them, which it may:
/// `ip saddr @bridged ip daddr @bridged accept`, `fib daddr type local accept`, and nothing else.
fn near() -> Vec<Rule> {
    let open = Ip::BOTH.map(|ip| {
        let mut rule = ip.only().to_vec();
        for read in [Ip::source, Ip::destination] {
            rule.extend([read(ip, VALUE), e::is_in(&ip.name(BRIDGED), VALUE)]);
        }
        rule.push(e::accept());
        rule
    });
    let own = [e::destination_type(VALUE), e::is(VALUE, &e::LOCAL.to_ne_bytes()), e::accept()];
    open.into_iter().chain([own.into()]).chain(refuse()).collect()
}

/// A name, and no longer one.
fn exactly(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// `iifname NAME`, or `oifname`.
fn link(which: Meta, name: &str) -> [e::Expression; 2] {
    [e::meta(which, VALUE), e::is(VALUE, &exactly(name))]
}

fn set(name: String, key: Type, keys: BTreeSet<Vec<u8>>) -> (String, Map) {
    (name, Map { form: Form::set(key), elements: keys.into_iter().map(|key| (key, Value::Member)).collect() })
}

/// The mark in [`VALUE`] is a node's; all but its first byte is gone afterwards.
fn of_a_node() -> [e::Expression; 2] {
    let (value, mask) = mark::RULE;
    [e::mask(VALUE, &mask.to_ne_bytes()), e::is(VALUE, &value.to_ne_bytes())]
}

impl Edge {
    /// Connections by different hosts with the same addresses and ports are kept apart:
    /// `iifname EDGE ct original zone set @ll,80,16`.
    fn zone(&self) -> Rule {
        let mut rule = link(Meta::InputName, &self.device).to_vec();
        rule.extend([e::payload(Base::Link, 2 * MAC - 2, 2, VALUE), e::set_connection_zone(VALUE)]);
        rule
    }

    /// `iifname EDGE ct state new jump ARRIVING`.
    fn begins(&self) -> Rule {
        let new = e::STATE_NEW.to_ne_bytes();
        let mut rule = link(Meta::InputName, &self.device).to_vec();
        rule.extend([
            e::connection(Connection::State, VALUE),
            e::mask(VALUE, &new),
            e::is(VALUE, &new),
            e::jump(ARRIVING),
        ]);
        rule
    }

    /// The packets around those of containers are no connections, and each would be one of its own:
    /// `ip daddr LOCAL udp dport PORT notrack accept`, or `ip saddr`.
    fn untracked(&self, local: Read) -> Rule {
        let ip = Ip::of(self.local);
        let mut rule = ip.only().to_vec();
        rule.extend([local(ip, VALUE), e::is(VALUE, &octets(self.local))]);
        rule.extend(self.is_vxlan());
        rule.extend([e::untracked(), e::accept()]);
        rule
    }

    /// `udp dport PORT`.
    fn is_vxlan(&self) -> [e::Expression; 4] {
        [
            e::meta(Meta::Protocol, VALUE),
            e::is(VALUE, &[Protocol::Udp.number()]),
            e::payload(Base::Transport, 2, 2, VALUE),
            e::is(VALUE, &self.port.to_be_bytes()),
        ]
    }

    /// Answers go back through that host: `ct direction reply meta mark set ct mark`.
    fn answer(&self) -> Rule {
        let mut rule = vec![
            e::connection(Connection::Direction, VALUE),
            e::is(VALUE, &[e::DIRECTION_REPLY]),
            e::connection(Connection::Mark, VALUE),
        ];
        rule.extend(of_a_node());
        rule.extend([e::connection(Connection::Mark, VALUE), e::set_meta(Meta::Mark, VALUE)]);
        rule
    }

    /// `ip daddr & MASK @elsewhere`, refused.
    fn elsewhere(&self) -> Vec<Rule> {
        let blocks = self.members.iter().flat_map(|member| &member.blocks);
        let masks: BTreeSet<_> = blocks.map(|block| block.netmask()).collect();
        let to = |mask: IpAddr| {
            let ip = Ip::of(mask);
            let mut rule = ip.only().to_vec();
            rule.extend([ip.destination(KEY), e::mask(KEY, &octets(mask))]);
            rule.extend([e::is_in(&ip.name(ELSEWHERE), KEY), e::go(REFUSED)]);
            rule
        };
        masks.into_iter().map(to).collect()
    }

    /// On the link itself the mark becomes the tail of the address that the packet goes to, and is cleared: what
    /// carries the packet is routed by its mark as well.
    fn egress(&self) -> Table {
        let mut rule = vec![e::meta(Meta::Mark, VALUE)];
        rule.extend(of_a_node());
        rule.extend([
            e::meta(Meta::Mark, VALUE),
            e::set_link_payload(MAC - 4, 4, VALUE),
            e::immediate(VALUE, &[0; 4]),
            e::set_meta(Meta::Mark, VALUE),
        ]);
        let device = Some(self.device.clone());
        let hook = Hook { kind: "filter".to_owned(), number: EGRESS, priority: 0, device, accepts: true };
        let chain = Chain { hook: Some(hook), rules: vec![rule] };
        Table { chains: BTreeMap::from([("egress".to_owned(), chain)]), ..Table::default() }
    }

    /// A host's own address cannot come back to it as a source:
    /// `oifname EDGE ct status dnat ip saddr . (ip daddr & MASK) @selfblock masquerade`.
    fn self_blocks(&self) -> Vec<Rule> {
        let masks: BTreeSet<_> = self.pairs().map(|(_, block)| block.netmask()).collect();
        let rule = |mask: IpAddr| {
            let (ip, block) = (Ip::of(mask), Register(Ip::of(mask).behind()));
            let mut rule = link(Meta::OutputName, &self.device).to_vec();
            rule.extend(ip.only());
            rule.extend([ip.source(KEY), ip.destination(block), e::mask(block, &octets(mask))]);
            rule.push(e::is_in(&ip.name(SELF_BLOCK), KEY));
            dnat_of(rule)
        };
        masks.into_iter().map(rule).collect()
    }

    fn pairs(&self) -> impl Iterator<Item = (IpAddr, &IpNet)> {
        self.members.iter().flat_map(|member| {
            member.addresses().into_iter().flat_map(move |address| {
                let same = member.blocks.iter().filter(move |block| Ip::of(block.addr()) == Ip::of(address));
                same.map(move |block| (address, block))
            })
        })
    }

    /// Under this host's address, which it leaves with, other hosts would take it for this host's own:
    /// `udp dport PORT ip daddr @hosts drop`.
    fn forged(&self) -> [Rule; 2] {
        Ip::BOTH.map(|ip| {
            let mut rule = ip.only().to_vec();
            rule.extend(self.is_vxlan());
            rule.extend([ip.destination(VALUE), e::is_in(&ip.name(HOSTS), VALUE), e::drop()]);
            rule
        })
    }

    /// `udp dport PORT @th,96,24 @vni ip saddr != @vtep drop`.
    fn strangers(&self, ip: Ip) -> Rule {
        let mut rule = ip.only().to_vec();
        rule.extend(self.is_vxlan());
        rule.extend([
            e::payload(Base::Transport, VXLAN_NETWORK, 4, VALUE),
            e::mask(VALUE, &[0xff, 0xff, 0xff, 0]),
            e::is_in(NETWORKS, VALUE),
            ip.source(VALUE),
            e::is_not_in(&ip.name(MEMBERS), VALUE),
            e::drop(),
        ]);
        rule
    }

    fn sets(&self) -> Vec<(String, Map)> {
        // The three bytes of an identifier are followed by a reserved one.
        let networks = self.networks.iter().map(|network| (network << 8).to_be_bytes().to_vec());
        let mut sets = vec![set(NETWORKS.to_owned(), Type::MARK, networks.collect())];
        for ip in Ip::BOTH {
            let members = self.members.iter().map(|member| member.address).filter(|a| Ip::of(*a) == ip);
            sets.push(set(ip.name(MEMBERS), ip.address(), members.map(octets).collect()));
            let hosts = self.members.iter().flat_map(Member::addresses).filter(|a| Ip::of(*a) == ip);
            sets.push(set(ip.name(HOSTS), ip.address(), hosts.map(octets).collect()));
            let pairs = self.pairs().filter(|(address, _)| Ip::of(*address) == ip);
            let pair = |(address, block): (_, &IpNet)| [octets(address), octets(block.network())].concat();
            sets.push(set(ip.name(SELF_BLOCK), ip.address().and(ip.address()), pairs.map(pair).collect()));
            let blocks = self.members.iter().flat_map(|member| &member.blocks);
            let blocks =
                blocks.filter(|block| Ip::of(block.addr()) == ip).map(|block| octets(block.network()));
            sets.push(set(ip.name(ELSEWHERE), ip.address(), blocks.collect()));
        }
        sets
    }
}
