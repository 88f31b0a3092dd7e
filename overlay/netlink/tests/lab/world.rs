//! Three hosts with all that the flow cache is for: edge, routers of one network, tables of the mesh program; and a
//! fourth one that belongs to nobody.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use covey_mesh::{
    Backend, Balance, Edge, Frontend, Host, Member, Network, Place as MeshPlace, Program, Protocol, Virtual,
    mark, plan,
};
use covey_mesh_netlink::{Conntrack, Nft};
use covey_overlay::{
    block::Pair,
    edge,
    mac::Mac,
    object::{Change, LinkName},
    underlay::overhead,
};
use covey_overlay_netlink::Stack;

use super::{Lab, routers::*};

/// Hosts of the cluster.
pub const HOSTS: [u8; 3] = [1, 2, 3];
/// Somebody outside.
pub const OUTSIDE: &str = "h4";
/// UDP port of VXLAN.
pub const VXLAN: u16 = 4789;

/// A container: of an overlay network, and at its host's edge.
pub struct Container {
    pub host: u8,
    pub id: &'static str,
    last: u8,
}

/// On host 1.
pub const CLIENT: Container = Container { host: 1, id: A, last: 5 };
/// Beside it.
pub const NEAR: Container = Container { host: 1, id: D, last: 8 };
/// On host 2.
pub const FAR: Container = Container { host: 2, id: B, last: 6 };
/// Beside that.
pub const OTHER: Container = Container { host: 2, id: C, last: 7 };
pub const CONTAINERS: [Container; 4] = [CLIENT, NEAR, FAR, OTHER];

/// The two families of addresses of containers.
pub const FAMILIES: [bool; 2] = [false, true];

impl Container {
    /// In the overlay network.
    pub fn address(&self, v6: bool) -> IpAddr {
        if v6 {
            [0xfd01, 0, 0, 0, 0, 0, 0, u16::from(self.last)].into()
        } else {
            [10, 0, 1, self.last].into()
        }
    }

    /// At the edge.
    pub fn edge(&self, v6: bool) -> IpAddr {
        let Pair { v4, v6: six } = self.pair();
        if v6 { six.into() } else { v4.into() }
    }

    fn pair(&self) -> Pair {
        Pair {
            v4: [100, 64, self.host, self.last].into(),
            v6: [0xfd00, 0xc0, 0, u16::from(self.host), 0, 0, 0, u16::from(self.last)].into(),
        }
    }

    pub fn link(&self) -> LinkName {
        LinkName::of_container(self.id)
    }

    /// Of its host's namespace, and of the router there.
    pub fn places(&self) -> [String; 2] {
        [format!("h{}", self.host), format!("r{}", self.host)]
    }
}

/// An address of the overlay network that nobody has.
pub fn virtual_address(v6: bool) -> IpAddr {
    if v6 { [0xfd01, 0, 0, 0, 0, 0, 0, 0x99].into() } else { [10, 0, 1, 99].into() }
}

pub struct World {
    pub lab: Lab,
    pub v6: bool,
    routers: RefCell<Vec<Stack>>,
    programs: RefCell<Vec<(String, Program)>>,
}

impl World {
    /// Over an underlay of one of the families. `None` where this user may not make namespaces.
    pub fn over(v6: bool) -> Option<Self> {
        let lab = Lab::new()?;
        lab.hosts(4);
        CONTAINERS.iter().for_each(|container| _ = lab.add(container.id));
        let world = Self { lab, v6, routers: RefCell::default(), programs: RefCell::default() };
        for host in HOSTS {
            let wanted = world.edge_of(host).objects();
            let changes = world.edge(host, |edge| {
                edge.mend(&wanted).unwrap();
                edge.compare(&wanted).unwrap().0
            });
            assert_eq!(changes, []);
            world.make_router(host);
            world.set_place(&format!("h{host}"), world.mesh_of(host));
        }
        Some(world)
    }

    fn edge_of(&self, host: u8) -> edge::Desired {
        let blocks = |host| (peer(host, self.v6).v4, peer(host, self.v6).v6);
        let (v4, v6) = blocks(host);
        let local = local(host, self.v6);
        let mtu = 1500 - overhead(local);
        let mac = Mac::of_node([mark::of_node(0)[0], 0, 0, host]);
        let device = edge::Device { mac, local, port: VXLAN, mtu, v4, v6, return_mark: mark::RULE };
        let here = CONTAINERS.iter().filter(|container| container.host == host);
        let veth = |container: &Container| edge::Veth {
            name: container.link(),
            namespace: self.lab.text(container.id),
            addresses: container.pair(),
            mtu,
        };
        let peers = HOSTS.iter().filter(|other| **other != host).map(|other| {
            let mac = Mac::of_node([mark::of_node(0)[0], 0, 0, *other]);
            (u32::from(*other), covey_overlay::peer::Peer { mac, ..peer(*other, self.v6) })
        });
        edge::Desired {
            device: Some(device),
            peers: peers.collect(),
            veths: here.map(|container| (container.link(), veth(container))).collect(),
            cached: true,
        }
    }

    fn mesh_of(&self, host: u8) -> MeshPlace {
        let blocks = |host| [peer(host, self.v6).v4.into(), peer(host, self.v6).v6.into()].into();
        let others = HOSTS.iter().filter(|other| **other != host);
        let members = others
            .map(|other| Member {
                address: local(*other, self.v6),
                others: [].into(),
                blocks: blocks(*other),
            })
            .collect::<BTreeSet<_>>();
        let edge = Edge {
            device: LinkName::of_vni(edge::VNI).as_str().to_owned(),
            local: local(host, self.v6),
            port: VXLAN,
            networks: [edge::VNI, VNI, VNI + 1, VNI + 2].into(),
            members,
        };
        let edge = Some(edge);
        MeshPlace::Host(Host { blocks: blocks(host), inside: "cv".to_owned(), bridged: [].into(), edge })
    }

    /// The overlay network as a host has it.
    pub fn network(&self, host: u8) -> covey_overlay::network::Desired {
        let places: Vec<_> = CONTAINERS
            .iter()
            .map(|container| Place {
                host: container.host,
                id: container.id,
                addresses: FAMILIES.map(|v6| container.address(v6)).into(),
            })
            .collect();
        desired(&self.lab, host, self.v6, &places)
    }

    /// Makes the router of a host, with its containers' links.
    pub fn make_router(&self, host: u8) {
        let name = format!("r{host}");
        self.lab.add(&name);
        let mut router = open(&self.lab, host);
        let wanted = self.network(host);
        repair(&mut router, &wanted);
        assert_eq!(repair(&mut router, &wanted), []);
        self.routers.borrow_mut().push(router);
        let here = CONTAINERS.iter().filter(|container| container.host == host);
        let own = here.flat_map(|container| FAMILIES.map(|v6| container.address(v6))).collect();
        self.set_place(&name, MeshPlace::Network(Network { own, outside: "cvx".to_owned() }));
    }

    /// Another network on hosts 1 and 2, with a container each that has the addresses of [`CLIENT`] and [`FAR`].
    pub fn add_twin(&self, client: &'static str, server: &'static str) -> [Stack; 2] {
        const VNIS: u32 = 16;
        let place = |(id, like): (&'static str, &Container)| {
            self.lab.add(id);
            Place { host: like.host, id, addresses: FAMILIES.map(|v6| like.address(v6)).into() }
        };
        let places = [(client, &CLIENT), (server, &FAR)].map(place);
        [1, 2].map(|host| {
            let path = self.lab.add(&format!("twin{host}"));
            let cache = Some(self.lab.cache(host));
            let mut router = self.lab.within(&format!("h{host}"), || Stack::router(&path, cache)).unwrap();
            let mut wanted = desired(&self.lab, host, self.v6, &places);
            wanted.subnets.iter_mut().for_each(|subnet| subnet.vni = subnet.vni.map(|vni| vni + VNIS));
            repair(&mut router, &wanted);
            assert_eq!(repair(&mut router, &wanted), []);
            router
        })
    }

    /// Works on the edge of a host.
    pub fn edge<T: Send>(&self, host: u8, work: impl FnOnce(&mut Stack) -> T + Send) -> T {
        let cache = Some(self.lab.cache(host));
        self.lab.within(&format!("h{host}"), || work(&mut Stack::edge(cache).unwrap()))
    }

    /// Removes the router of a host.
    pub fn remove_router(&self, host: u8) {
        let name = format!("r{host}");
        self.routers.borrow_mut().clear();
        self.programs.borrow_mut().retain(|(other, _)| *other != name);
        let path = self.lab.path(&name);
        self.lab.within(&format!("h{host}"), || covey_overlay_netlink::remove_router(&path).unwrap());
    }

    fn set_place(&self, name: &str, place: MeshPlace) {
        let program = Program::new(place);
        let mut nft = Nft::open_in(&self.lab.path(name)).unwrap();
        let observed = nft.observe().unwrap();
        nft.apply(&plan(&program, &observed)).unwrap();
        self.programs.borrow_mut().push((name.to_owned(), program));
    }

    /// Puts backends behind a frontend, in one namespace.
    pub fn serve(&self, name: &str, frontend: Frontend, backends: &[SocketAddr]) {
        let backends = backends.iter().map(|to| Backend { address: to.ip(), port: Some(to.port()) });
        let service = Virtual { balance: Balance::Random, backends: backends.collect() };
        let mut programs = self.programs.borrow_mut();
        let (_, program) = programs.iter_mut().find(|(other, _)| other == name).unwrap();
        let changes = program.set(frontend, Some(service));
        Nft::open_in(&self.lab.path(name)).unwrap().apply(&changes).unwrap();
    }

    /// Publishes a port of every host.
    pub fn publish(&self, protocol: Protocol, port: u16, backends: &[SocketAddr]) {
        for host in HOSTS {
            let v6 = backends[0].is_ipv6();
            let any = if v6 { "::" } else { "0.0.0.0" }.parse().unwrap();
            self.serve(&format!("h{host}"), Frontend::Port { address: any, protocol, port }, backends);
        }
    }

    /// Has a namespace forget connections to a backend, and its host's cache what it has learnt.
    pub fn cut(&self, name: &str, backend: IpAddr) {
        Conntrack::open_in(&self.lab.path(name)).unwrap().flush(&[backend].into()).unwrap();
        self.forget();
    }

    pub fn forget(&self) {
        HOSTS.iter().for_each(|host| self.lab.cache(*host).forget().unwrap());
    }

    /// Packets that the kernel has forwarded anywhere while `work` was done.
    pub fn slow(&self, work: impl FnOnce()) -> u64 {
        let count = || -> u64 {
            HOSTS
                .iter()
                .map(|host| self.lab.forwarded(&format!("h{host}")) + self.lab.forwarded(&format!("r{host}")))
                .sum()
        };
        let before = count();
        work();
        count() - before
    }

    /// Nothing of `work`, which has been done once already, goes the kernel's own way. A flow that was learnt long ago
    /// may have to be renewed now and then.
    pub fn is_fast(&self, what: &str, mut work: impl FnMut()) {
        const ATTEMPTS: usize = 5;
        let forwarded: Vec<_> =
            (0..ATTEMPTS).map(|_| self.slow(&mut work)).take_while(|count| *count > 0).collect();
        assert!(forwarded.len() < ATTEMPTS, "{what}: {forwarded:?} packets were forwarded");
    }

    /// A UDP socket of a container in the overlay network.
    pub fn udp(&self, of: &Container, v6: bool) -> UdpSocket {
        self.lab.udp(of.id, of.address(v6))
    }

    pub fn stacks<T>(&self, host: u8, work: impl FnOnce(&mut Stack) -> T) -> T {
        work(&mut self.routers.borrow_mut()[usize::from(host) - 1])
    }

    pub fn mend(&self, host: u8) -> Vec<Change> {
        let wanted = self.network(host);
        self.stacks(host, |router| repair(router, &wanted))
    }
}

/// Sends to an address, and gets an answer, all whole. Answers whom the other end has seen, and who it was.
pub fn ask(
    from: &UdpSocket,
    to: SocketAddr,
    servers: &[&UdpSocket],
    bytes: &[u8],
) -> io::Result<(SocketAddr, usize)> {
    let mut buffer = vec![0; bytes.len() + 1];
    servers.iter().for_each(|server| server.set_nonblocking(true).unwrap());
    from.send_to(bytes, to)?;
    let start = std::time::Instant::now();
    let (server, length, seen) = loop {
        let found = servers.iter().enumerate().find_map(|(number, server)| {
            server.recv_from(&mut buffer).ok().map(|(length, seen)| (number, length, seen))
        });
        match found {
            Some(found) => break found,
            None if start.elapsed() > super::PATIENCE => return Err(io::ErrorKind::TimedOut.into()),
            None => std::thread::sleep(std::time::Duration::from_micros(100)),
        }
    };
    assert_eq!(&buffer[..length], bytes, "to {to}");
    servers[server].send_to(bytes, seen)?;
    let (length, who) = from.recv_from(&mut buffer)?;
    assert_eq!((&buffer[..length], who), (bytes, to));
    Ok((seen, server))
}
