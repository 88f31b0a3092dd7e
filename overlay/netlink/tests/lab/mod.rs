//! Hosts, containers and the wire between them, each a network namespace of its own. No external programs.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod frames;
pub mod routers;
pub mod world;

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use covey_overlay_netlink::{FlowCache, namespace};
use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
    rule::RuleMessage,
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_ROUTE};

/// What takes longer does not come any more.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Errors that answer within this are "at once".
pub const AT_ONCE: Duration = Duration::from_millis(900);
const WIRE: &str = "wire";

/// Hosts, at most.
const HOSTS_MAX: usize = 3;

/// Namespaces named in a folder that goes with the test.
pub struct Lab {
    folder: tempfile::TempDir,
    caches: [OnceLock<Arc<FlowCache>>; HOSTS_MAX],
}

impl Lab {
    /// `None`, said loudly, where this user may not make namespaces.
    pub fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root to make network namespaces");
            return None;
        }
        Some(Self { folder: tempfile::tempdir().unwrap(), caches: [const { OnceLock::new() }; HOSTS_MAX] })
    }

    /// The flow cache of a host.
    pub fn cache(&self, host: u8) -> Arc<FlowCache> {
        let cache = self.caches[usize::from(host) - 1].get_or_init(|| Arc::new(FlowCache::open().unwrap()));
        Arc::clone(cache)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn add(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        namespace::create(&path).unwrap();
        path
    }

    /// Hosts `h1`… on one wire: 192.0.2.N/24 and 2001:db8::N/64 on `up0`, MTU 1500.
    pub fn hosts(&self, count: u8) {
        self.add(WIRE);
        self.ask(WIRE, new_link("br0", InfoKind::Bridge, None, None));
        let bridge = self.index(WIRE, "br0");
        for number in 1..=count {
            let host = format!("h{number}");
            let path = self.add(&host);
            let far = std::fs::File::open(&path).unwrap();
            let port = format!("p{number}");
            let peer = peer("up0", far.as_raw_fd());
            self.ask(WIRE, new_link(&port, InfoKind::Veth, Some(peer), Some(bridge)));
            for net in [format!("192.0.2.{number}/24"), format!("2001:db8::{number}/64")] {
                self.address(&host, "up0", net.parse().unwrap());
            }
            self.up(&host, "up0");
        }
        self.up(WIRE, "br0");
    }

    /// Runs `work` in a namespace.
    pub fn within<T: Send>(&self, name: &str, work: impl FnOnce() -> T + Send) -> T {
        namespace::inside::<_, io::Error>(&self.path(name), || Ok(work())).unwrap()
    }

    /// Asks the kernel for something in a namespace.
    pub fn ask(&self, name: &str, message: RouteNetlinkMessage) {
        self.within(name, || exchange(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)).unwrap();
    }

    pub fn index(&self, name: &str, link: &str) -> u32 {
        self.within(name, || nix::net::if_::if_nametoindex(link)).unwrap()
    }

    pub fn up(&self, name: &str, link: &str) {
        self.set(name, link, LinkFlags::Up, vec![]);
    }

    /// Sets or clears the flag "up", and attributes.
    pub fn set(&self, name: &str, link: &str, flags: LinkFlags, attributes: Vec<LinkAttribute>) {
        let mut message = LinkMessage::default();
        message.header.index = self.index(name, link);
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = attributes;
        self.within(name, || exchange(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)).unwrap();
    }

    pub fn delete(&self, name: &str, link: &str) {
        let link = RouteNetlinkMessage::DelLink(peer_named(link));
        self.within(name, || exchange(link, NLM_F_ACK)).unwrap();
    }

    /// Has a link ask for no neighbours.
    pub fn silence(&self, name: &str, link: &str) {
        let mut message = LinkMessage::default();
        message.header.index = self.index(name, link);
        message.header.flags = LinkFlags::Noarp;
        message.header.change_mask = LinkFlags::Noarp;
        self.within(name, || exchange(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)).unwrap();
    }

    pub fn address(&self, name: &str, link: &str, net: IpNet) {
        self.ask(name, RouteNetlinkMessage::NewAddress(self.address_at(name, link, net)));
    }

    pub fn remove_address(&self, name: &str, link: &str, net: IpNet) {
        let message = RouteNetlinkMessage::DelAddress(self.address_at(name, link, net));
        self.within(name, || exchange(message, NLM_F_ACK)).unwrap();
    }

    fn address_at(&self, name: &str, link: &str, net: IpNet) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = family(net.addr());
        message.header.prefix_len = net.prefix_len();
        message.header.index = self.index(name, link);
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes = vec![AddressAttribute::Address(net.addr()), AddressAttribute::Local(net.addr())];
        message
    }

    /// A veth pair between two namespaces.
    pub fn join(&self, name: &str, link: &str, other: &str, far: &str) {
        let file = std::fs::File::open(self.path(other)).unwrap();
        self.ask(name, new_link(link, InfoKind::Veth, Some(peer(far, file.as_raw_fd())), None));
        self.up(other, far);
    }

    /// A way to a network.
    pub fn route(&self, name: &str, net: &str, by: IpAddr) {
        let net: IpNet = net.parse().unwrap();
        let mut route = RouteMessage::default();
        route.header.address_family = family(by);
        route.header.destination_prefix_length = net.prefix_len();
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.protocol = RouteProtocol::Static;
        route.header.scope = RouteScope::Universe;
        route.header.kind = RouteType::Unicast;
        route.attributes =
            vec![RouteAttribute::Destination(net.addr().into()), RouteAttribute::Gateway(by.into())];
        self.ask(name, RouteNetlinkMessage::NewRoute(route));
    }

    /// A veth pair and a route of somebody else.
    pub fn foreign(&self, name: &str) {
        self.ask(name, new_link("other", InfoKind::Veth, Some(peer_named("rehto")), None));
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        route.header.destination_prefix_length = 32;
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.protocol = RouteProtocol::Static;
        route.header.scope = RouteScope::Link;
        route.header.kind = RouteType::Unicast;
        route.attributes = vec![
            RouteAttribute::Destination(IpAddr::from([10, 9, 9, 9]).into()),
            RouteAttribute::Oif(self.index(name, "other")),
        ];
        self.ask(name, RouteNetlinkMessage::NewRoute(route));
    }

    /// The filters at a link, by name where they have one, else by priority: of what comes in, and of what goes out.
    pub fn filters(&self, name: &str, link: &str) -> [BTreeSet<String>; 2] {
        [TcHandle::MIN_INGRESS, TcHandle::MIN_EGRESS].map(|minor| {
            let mut all = TcMessage::with_index(self.index(name, link).cast_signed());
            all.header.parent = TcHandle { major: u16::MAX, minor };
            let all = RouteNetlinkMessage::GetTrafficFilter(all);
            let found = self.within(name, || exchange(all, NLM_F_DUMP)).unwrap();
            found.iter().filter_map(filter).collect()
        })
    }

    /// Where filters hang.
    pub fn clsact(&self, name: &str, link: &str) -> TcMessage {
        let mut queue = TcMessage::with_index(self.index(name, link).cast_signed());
        queue.header.handle = TcHandle { major: u16::MAX, minor: 0 };
        queue.header.parent = TcHandle::CLSACT;
        queue.attributes = vec![TcAttribute::Kind("clsact".to_owned())];
        queue
    }

    /// Takes all filters from a link, and what they hang on.
    pub fn strip(&self, name: &str, link: &str) {
        let mut queue = self.clsact(name, link);
        queue.attributes.clear();
        self.within(name, || exchange(RouteNetlinkMessage::DelQueueDiscipline(queue), NLM_F_ACK)).unwrap();
    }

    /// All that somebody put into a namespace: links, queueing disciplines, addresses, routes, forwarding entries, rules.
    pub fn everything(&self, name: &str) -> Vec<String> {
        use RouteNetlinkMessage as M;
        let mut bridge = NeighbourMessage::default();
        bridge.header.family = AddressFamily::Bridge;
        let lists = [
            M::GetLink(LinkMessage::default()),
            M::GetAddress(AddressMessage::default()),
            M::GetRoute(RouteMessage::default()),
            M::GetNeighbour(bridge),
            M::GetRule(RuleMessage::default()),
            M::GetQueueDiscipline(TcMessage::default()),
        ];
        let mut found: Vec<String> = lists
            .into_iter()
            .flat_map(|list| self.within(name, || exchange(list, NLM_F_DUMP)).unwrap())
            .map(|message| match message {
                // Counters and carriers move by themselves.
                M::NewLink(mut link) => {
                    link.attributes.retain(|attribute| matches!(attribute, LinkAttribute::IfName(_)));
                    format!("{:?} {}", link.attributes, link.header.flags.contains(LinkFlags::Up))
                }
                M::NewQueueDiscipline(queue) => {
                    format!("{} {:?}", queue.header.index, queue.attributes.first())
                }
                // What the kernel has by itself comes when it is ready, and routes of its own with each address.
                M::NewAddress(address) if address.header.scope != AddressScope::Universe => String::new(),
                M::NewRoute(route) if route.header.protocol == RouteProtocol::Kernel => String::new(),
                M::NewAddress(address) => {
                    format!("{} {:?}", address.header.index, address.attributes.first())
                }
                M::NewRoute(mut route) => {
                    // Whether its link has a carrier.
                    route.header.flags = RouteFlags::empty();
                    route.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::CacheInfo(_)));
                    format!("{route:?}")
                }
                // Groups that a link listens to come and go with its addresses.
                M::NewNeighbour(entry) if !has_destination(&entry) => String::new(),
                other => format!("{other:?}"),
            })
            .collect();
        found.retain(|line| !line.is_empty());
        found.sort();
        found
    }

    /// The link by which a packet with this mark leaves for `to`.
    pub fn way(&self, name: &str, to: IpAddr, mark: u32) -> u32 {
        let mut route = RouteMessage::default();
        route.header.address_family = family(to);
        route.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
        route.attributes = vec![RouteAttribute::Destination(to.into()), RouteAttribute::Mark(mark)];
        let found = self.within(name, || exchange(RouteNetlinkMessage::GetRoute(route), NLM_F_ACK)).unwrap();
        let Some(RouteNetlinkMessage::NewRoute(route)) = found.first() else { panic!("no route: {found:?}") };
        let link = |attribute: &_| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        };
        route.attributes.iter().find_map(link).unwrap()
    }

    /// A connection from one namespace to an address, both ways used, and whom the other end sees.
    pub fn tcp(&self, from: &str, to: &str, address: IpAddr) -> IpAddr {
        const AMOUNT: usize = 300_000;
        let listener = self.within(to, || TcpListener::bind(SocketAddr::new(address, 0))).unwrap();
        let there = listener.local_addr().unwrap();
        let mut near = self.connect(from, there).unwrap();
        let (mut far, seen) = listener.accept().unwrap();
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
        }
        std::thread::scope(|scope| {
            scope.spawn(|| near.write_all(&vec![7; AMOUNT]).unwrap());
            far.read_exact(&mut vec![0; AMOUNT]).unwrap();
        });
        std::thread::scope(|scope| {
            scope.spawn(|| far.write_all(&vec![7; AMOUNT]).unwrap());
            near.read_exact(&mut vec![0; AMOUNT]).unwrap();
        });
        seen.ip()
    }

    pub fn connect(&self, from: &str, to: SocketAddr) -> io::Result<TcpStream> {
        self.within(from, || TcpStream::connect_timeout(&to, PATIENCE))
    }

    /// A connection to an address that nobody has is refused by the network.
    pub fn fails_at_once(&self, from: &str, nobody: IpAddr) {
        let start = std::time::Instant::now();
        let error = self.connect(from, SocketAddr::new(nobody, 80)).unwrap_err();
        assert!(
            matches!(error.kind(), io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable),
            "{nobody}: {error}"
        );
        // An IPv6 client is told as soon, but the kernel listens only once connect() is over: at the second packet.
        assert!(nobody.is_ipv6() || start.elapsed() < AT_ONCE, "{nobody}: {:?}", start.elapsed());
    }

    /// Has a VXLAN device send what is for nobody known to this underlay address as well.
    pub fn send_unknown_to(&self, name: &str, link: &str, underlay: IpAddr) {
        let mut entry = NeighbourMessage::default();
        entry.header.family = AddressFamily::Bridge;
        entry.header.ifindex = self.index(name, link);
        entry.header.state = NeighbourState::Permanent;
        entry.header.flags = NeighbourFlags::Own;
        entry.attributes = vec![
            NeighbourAttribute::LinkLayerAddress(vec![0; 6]),
            NeighbourAttribute::Destination(underlay.into()),
        ];
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND;
        self.within(name, || exchange(RouteNetlinkMessage::NewNeighbour(entry), flags)).unwrap();
    }

    /// Has a link leave nothing to its other end: packets are cut up, and have their checksums, before they leave.
    pub fn finish_packets(&self, name: &str, link: &str) {
        // `ETHTOOL_STXCSUM`, `ETHTOOL_STSO`, `ETHTOOL_SGSO` (linux/ethtool.h).
        for command in [0x17_u32, 0x1f, 0x24] {
            let mut value = [command, 0];
            // SAFETY: of integers and addresses, all may be zero.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (to, from) in request.ifr_name.iter_mut().zip(link.bytes()) {
                *to = from.cast_signed();
            }
            request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
            let request = std::ptr::from_mut(&mut request) as usize;
            let result = self.within(name, || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                // SAFETY: the request and what it refers to live as long as the call.
                unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, request as *mut libc::ifreq) }
            });
            assert_eq!(result, 0, "{}", io::Error::last_os_error());
        }
    }

    /// Has a namespace ask for the Ethernet address of a neighbour anew.
    pub fn forget_neighbour(&self, name: &str, link: &str, to: IpAddr) {
        let mut entry = NeighbourMessage::default();
        entry.header.family = family(to);
        entry.header.ifindex = self.index(name, link);
        entry.attributes = vec![NeighbourAttribute::Destination(to.into())];
        // It may not be there.
        let _ = self.within(name, || exchange(RouteNetlinkMessage::DelNeighbour(entry), NLM_F_ACK));
    }

    /// Packets that a namespace has forwarded, of both families.
    pub fn forwarded(&self, name: &str) -> u64 {
        let (v4, v6) = self
            .within(name, || {
                let read = |file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
                Ok::<_, io::Error>((read("snmp")?, read("snmp6")?))
            })
            .unwrap();
        let mut lines = v4.lines().filter(|line| line.starts_with("Ip: ")).map(str::split_whitespace);
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let v4 = names.zip(values).find(|(name, _)| *name == "ForwDatagrams").unwrap().1;
        let v6 = v6.lines().find_map(|line| line.strip_prefix("Ip6OutForwDatagrams")).unwrap();
        v4.parse::<u64>().unwrap() + v6.trim().parse::<u64>().unwrap()
    }

    pub fn udp(&self, name: &str, address: IpAddr) -> UdpSocket {
        let socket = self.within(name, || UdpSocket::bind(SocketAddr::new(address, 0))).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.folder.path()).unwrap().flatten() {
            namespace::remove(&entry.path()).unwrap();
        }
    }
}

/// Waits for something to become true.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

pub fn peer_named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    message
}

fn peer(name: &str, namespace: i32) -> LinkMessage {
    let mut message = peer_named(name);
    message.attributes.push(LinkAttribute::NetNsFd(namespace));
    message
}

pub fn new_link(
    name: &str,
    kind: InfoKind,
    peer: Option<LinkMessage>,
    bridge: Option<u32>,
) -> RouteNetlinkMessage {
    let mut message = peer_named(name);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    let mut parts = vec![LinkInfo::Kind(kind)];
    parts.extend(peer.map(|peer| LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer)))));
    message.attributes.push(LinkAttribute::LinkInfo(parts));
    message.attributes.extend(bridge.map(LinkAttribute::Controller));
    RouteNetlinkMessage::NewLink(message)
}

/// One exchange with the kernel in this thread's namespace.
pub fn exchange(message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddress::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut found = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let answer =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            rest = rest.get((answer.header.length as usize).next_multiple_of(4)..).unwrap_or_default();
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => found.push(message),
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Error(_) => return Ok(found),
                _ => {}
            }
        }
    }
}

fn filter(message: &RouteNetlinkMessage) -> Option<String> {
    let RouteNetlinkMessage::NewTrafficFilter(filter) = message else { return None };
    let name = |attribute: &TcAttribute| match attribute {
        TcAttribute::Options(options) => options.iter().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
            _ => None,
        }),
        _ => None,
    };
    // Before each filter the kernel tells of one that has no number.
    let number = u32::from(filter.header.handle);
    let nameless = || (number > 0).then(|| format!("priority {}", filter.header.info >> 16));
    filter.attributes.iter().find_map(name).or_else(nameless)
}

fn has_destination(entry: &NeighbourMessage) -> bool {
    entry.attributes.iter().any(|attribute| matches!(attribute, NeighbourAttribute::Destination(_)))
}
