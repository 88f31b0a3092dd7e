//! The flow cache against a real kernel: what it carries, and that this arrives as by the kernel's own way.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces and use sockets in them")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lab;

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use covey_mesh::{Frontend, Protocol};
use lab::{PATIENCE, world::*};
use nix::sys::socket::{
    setsockopt,
    sockopt::{Ipv4Tos, Ipv6TClass, UdpGsoSegment},
};

/// Payloads, up to as much as an IPv6 packet of every path here has room for.
const SIZES: [usize; 5] = [1, 3, 4, 100, 1382];

/// Bytes that take packets which will be cut up.
const BULK: usize = 1_000_000;

/// Both ends of a connection to `to`, where `listener` listens.
fn connection(world: &World, from: &Container, to: SocketAddr, listener: &TcpListener) -> [TcpStream; 2] {
    let near = world.lab.connect(from.id, to).unwrap();
    let (far, _) = listener.accept().unwrap();
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    [near, far]
}

fn listen(world: &World, at: &Container, v6: bool) -> TcpListener {
    world.lab.within(at.id, || TcpListener::bind(SocketAddr::new(at.address(v6), 0))).unwrap()
}

/// So many bytes from one to the other, which get there whole.
fn carry(from: &mut TcpStream, to: &mut TcpStream, amount: usize) {
    let bytes: Vec<u8> = (0..amount).map(|at| (at / 7) as u8).collect();
    let mut got = vec![0; amount];
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&bytes).unwrap());
        to.read_exact(&mut got).unwrap();
    });
    assert!(got == bytes, "what arrives is what was sent");
}

/// A few small ones each way, so that both are known, then many; where an answer is to lose VXLAN on its way out of a
/// host, what will be cut up is left to the kernel.
fn is_carried_fast(world: &World, what: &str, near: &mut TcpStream, far: &mut TcpStream, back: bool) {
    for _ in 0..3 {
        carry(near, far, 10);
        carry(far, near, 10);
    }
    world.is_fast(what, || {
        carry(near, far, 10);
        carry(far, near, 10);
        carry(near, far, BULK);
        if back {
            carry(far, near, BULK);
        }
    });
    carry(far, near, BULK);
}

/// NET-18
#[test]
fn what_goes_between_hosts_passes_no_router_after_its_first_packets() {
    for over in FAMILIES {
        let Some(world) = World::over(over) else { return };
        for (v6, to) in FAMILIES.into_iter().flat_map(|v6| [(v6, FAR), (v6, NEAR)]) {
            let listener = listen(&world, &to, v6);
            let there = listener.local_addr().unwrap();
            let [mut near, mut far] = connection(&world, &CLIENT, there, &listener);
            is_carried_fast(&world, &format!("TCP to {there}"), &mut near, &mut far, true);
            let (near, far) = (world.udp(&CLIENT, v6), world.udp(&to, v6));
            let there = far.local_addr().unwrap();
            let round =
                || SIZES.iter().for_each(|size| _ = ask(&near, there, &[&far], &vec![7; *size]).unwrap());
            round();
            world.is_fast(&format!("UDP to {there}"), round);
        }
    }
}

/// LB-02, LB-03
#[test]
fn who_calls_a_service_and_its_task_by_the_same_port_is_answered_by_each_for_itself() {
    let Some(world) = World::over(false) else { return };
    for v6 in FAMILIES {
        let service = SocketAddr::new(virtual_address(v6), 0);
        world.serve("r1", Frontend::Address(service.ip()), &[SocketAddr::new(FAR.address(v6), 0)]);
        let (near, far) = (world.udp(&CLIENT, v6), world.udp(&FAR, v6));
        let task = far.local_addr().unwrap();
        let service = SocketAddr::new(service.ip(), task.port());
        let round = || {
            let ports = [task, service]
                .map(|to| SIZES.map(|size| ask(&near, to, &[&far], &vec![7; size]).unwrap().0.port()));
            for [first, rest @ ..] in ports {
                assert!(rest.iter().all(|port| *port == first), "{ports:?}");
            }
            assert_ne!(ports[0][0], ports[1][0], "the task can tell them apart");
        };
        round();
        world.is_fast("UDP", round);

        let listener = listen(&world, &FAR, v6);
        let task = listener.local_addr().unwrap();
        let service = SocketAddr::new(service.ip(), task.port());
        let mut ends = [task, service].map(|to| connection(&world, &CLIENT, to, &listener));
        for [near, far] in &mut ends {
            is_carried_fast(&world, "TCP", near, far, true);
        }
    }
}

/// PRT-05
#[test]
fn what_comes_to_a_published_port_of_any_host_is_answered_by_the_task_which_sees_the_client() {
    const PORT: u16 = 8080;
    for over in FAMILIES {
        let Some(world) = World::over(over) else { return };
        let ours = lab::routers::local(4, over);
        for task in [FAR, NEAR] {
            let server = world.lab.udp(task.id, task.edge(over));
            let at = server.local_addr().unwrap();
            world.publish(Protocol::Udp, PORT, &[at]);
            let listener = world.lab.within(task.id, || TcpListener::bind(at)).unwrap();
            world.publish(Protocol::Tcp, PORT, &[at]);
            let client = world.lab.udp(OUTSIDE, ours);
            for host in HOSTS {
                let to = SocketAddr::new(lab::routers::local(host, over), PORT);
                let mut seen = [ours; 0].to_vec();
                let mut round = || {
                    for size in SIZES {
                        seen.push(ask(&client, to, &[&server], &vec![7; size]).unwrap().0.ip());
                    }
                };
                round();
                world.is_fast(&format!("UDP to {to} for {at}"), &mut round);
                assert!(seen.iter().all(|address| *address == ours), "{seen:?}");
                let mut near = world.lab.connect(OUTSIDE, to).unwrap();
                let (mut far, seen) = listener.accept().unwrap();
                assert_eq!(seen.ip(), ours);
                let back = host == task.host;
                is_carried_fast(&world, &format!("TCP to {to} for {at}"), &mut near, &mut far, back);
            }
            // The task tells connections of one client's port apart, though they come by different hosts.
            let by_turns = || {
                HOSTS.map(|host| {
                    let to = SocketAddr::new(lab::routers::local(host, over), PORT);
                    ask(&client, to, &[&server], &[host]).unwrap().0.port()
                })
            };
            let ports = by_turns();
            assert_eq!(BTreeSet::from(ports).len(), HOSTS.len(), "{ports:?}");
            world.is_fast("by turns", || assert_eq!(by_turns(), ports));
        }
    }
}

/// Connections are tracked as long as without, though most of their packets are not seen. (A class of service that is
/// another one sends a packet the kernel's own way.)
#[test]
fn an_idle_connection_is_not_forgotten() {
    const DAY: u32 = 24 * 60 * 60;
    let Some(world) = World::over(false) else { return };
    for v6 in FAMILIES {
        let listener = listen(&world, &FAR, v6);
        let there = listener.local_addr().unwrap();
        let [mut near, mut far] = connection(&world, &CLIENT, there, &listener);
        carry(&mut near, &mut far, 10);
        if v6 {
            setsockopt(&near, Ipv6TClass, &0x20).unwrap();
        } else {
            setsockopt(&near, Ipv4Tos, &0x20).unwrap();
        }
        assert_ne!(world.slow(|| carry(&mut near, &mut far, 10)), 0, "it is not known with this class");
        for router in ["r1", "r2"] {
            let read = || std::fs::read_to_string("/proc/thread-self/net/nf_conntrack");
            let Ok(found) = world.lab.within(router, read) else {
                eprintln!("SKIPPED: this kernel does not list connections");
                return;
            };
            let port = format!(" dport={} ", there.port());
            let connection = found.lines().find(|line| line.contains(&port)).unwrap();
            let left: u32 = connection.split_whitespace().nth(4).unwrap().parse().unwrap();
            assert!(left > DAY, "{router}: {connection}");
        }
    }
}

/// Whoever receives checks what he gets, where nobody else has vouched for it.
///
/// LB-03
#[test]
fn packets_that_are_cut_up_before_they_leave_have_right_checksums() {
    for over in FAMILIES {
        let Some(world) = World::over(over) else { return };
        for links in [&[(CLIENT.id, "eth1")][..], &[("h1", "up0"), ("h2", "up0")]] {
            links.iter().for_each(|(name, link)| world.lab.finish_packets(name, link));
            for v6 in FAMILIES {
                let front = virtual_address(v6);
                world.serve("r1", Frontend::Address(front), &[SocketAddr::new(FAR.address(v6), 0)]);
                let listener = listen(&world, &FAR, v6);
                for to in [FAR.address(v6), front] {
                    let there = (to, listener.local_addr().unwrap().port()).into();
                    let [mut near, mut far] = connection(&world, &CLIENT, there, &listener);
                    is_carried_fast(&world, &format!("TCP to {there}"), &mut near, &mut far, true);
                }
            }
        }
    }
}

/// Such as of a container that is a gateway, or has containers of its own.
#[test]
fn what_a_container_forwards_can_be_cut_up_for_others() {
    let Some(world) = World::over(false) else { return };
    let lab = &world.lab;
    lab.add("inner");
    lab.join(FAR.id, "in0", "inner", "eth0");
    lab.address(FAR.id, "eth1", "10.77.1.1/32".parse().unwrap());
    lab.remove_address(FAR.id, "eth1", "10.0.1.6/32".parse().unwrap());
    lab.address(FAR.id, "in0", "10.77.0.1/24".parse().unwrap());
    for net in ["10.77.0.2/24", "10.0.1.6/32"] {
        lab.address("inner", "eth0", net.parse().unwrap());
    }
    lab.route(FAR.id, "10.0.1.6/32", [10, 77, 0, 2].into());
    lab.route("inner", "0.0.0.0/0", [10, 77, 0, 1].into());
    lab.within(FAR.id, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap();
    lab.finish_packets(FAR.id, "in0");
    let listener = lab.within("inner", || TcpListener::bind((FAR.address(false), 0))).unwrap();
    let there = listener.local_addr().unwrap();
    let [mut near, mut far] = connection(&world, &CLIENT, there, &listener);
    is_carried_fast(&world, "TCP", &mut near, &mut far, true);
}

/// NET-18
#[test]
fn networks_with_the_same_addresses_are_told_apart() {
    let Some(world) = World::over(false) else { return };
    let [client, server] = ["eeeeeeeeeeeee", "fffffffffffff"];
    let _routers = world.add_twin(client, server);
    for v6 in FAMILIES {
        let near = world.udp(&CLIENT, v6);
        let far = world.udp(&FAR, v6);
        let [from, to] = [&near, &far].map(|socket| socket.local_addr().unwrap());
        let twin = [(client, from), (server, to)]
            .map(|(at, own)| world.lab.within(at, || UdpSocket::bind(own)).unwrap());
        twin[0].set_read_timeout(Some(PATIENCE)).unwrap();
        let round = || {
            ask(&near, to, &[&far], b"one").unwrap();
            ask(&twin[0], to, &[&twin[1]], b"two").unwrap();
        };
        round();
        world.is_fast("by turns", round);
    }
}

/// PRT-05
#[test]
fn containers_reach_published_ports_as_well_their_own_too() {
    const PORT: u16 = 8080;
    for over in FAMILIES {
        let Some(world) = World::over(over) else { return };
        for task in [&NEAR, &FAR] {
            let server = world.lab.udp(task.id, task.edge(over));
            let at = server.local_addr().unwrap();
            let listener = world.lab.within(task.id, || TcpListener::bind(at)).unwrap();
            for protocol in [Protocol::Udp, Protocol::Tcp] {
                world.publish(protocol, PORT, &[at]);
            }
            for (from, host) in CONTAINERS.iter().flat_map(|from| HOSTS.map(|host| (from, host))) {
                let client = world.lab.udp(from.id, from.edge(over));
                let to = SocketAddr::new(lab::routers::local(host, over), PORT);
                let round = || {
                    SIZES.iter().for_each(|size| _ = ask(&client, to, &[&server], &vec![7; *size]).unwrap())
                };
                round();
                let what = format!("from {} to {to} for {at}", from.edge(over));
                world.is_fast(&what, round);
                let [mut near, mut far] = connection(&world, from, to, &listener);
                for _ in 0..2 {
                    carry(&mut near, &mut far, 100_000);
                    carry(&mut far, &mut near, 100_000);
                }
            }
        }
    }
}

#[test]
fn containers_reach_the_world_under_their_hosts_address() {
    for over in FAMILIES {
        let Some(world) = World::over(over) else { return };
        let there = lab::routers::local(4, over);
        let server = world.lab.udp(OUTSIDE, there);
        let listener = world.lab.within(OUTSIDE, || TcpListener::bind((there, 0))).unwrap();
        for from in [&CLIENT, &NEAR, &FAR] {
            // The same port for each.
            let own = SocketAddr::new(from.edge(over), 5000);
            let client = world.lab.within(from.id, || UdpSocket::bind(own)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let round = || {
                let (seen, _) = ask(&client, server.local_addr().unwrap(), &[&server], b"call").unwrap();
                assert_eq!(seen.ip(), lab::routers::local(from.host, over));
            };
            round();
            world.is_fast("UDP", round);
            let [mut near, mut far] = connection(&world, from, listener.local_addr().unwrap(), &listener);
            is_carried_fast(&world, "TCP", &mut near, &mut far, true);
        }
    }
}

/// As servers of HTTP/3 send them: one call, one packet within the host, many on the wire.
#[test]
fn datagrams_that_are_sent_together_arrive_one_by_one() {
    const SIZE: usize = 1000;
    const COUNT: usize = 20;
    for over in FAMILIES {
        let Some(world) = World::over(over) else { return };
        for finished in [false, true] {
            if finished {
                ["h1", "h2"].iter().for_each(|host| world.lab.finish_packets(host, "up0"));
            }
            for v6 in FAMILIES {
                let front = virtual_address(v6);
                world.serve("r1", Frontend::Address(front), &[SocketAddr::new(FAR.address(v6), 0)]);
                for to in [FAR.address(v6), front] {
                    let (near, far) = (world.udp(&CLIENT, v6), world.udp(&FAR, v6));
                    let there = SocketAddr::new(to, far.local_addr().unwrap().port());
                    for _ in 0..3 {
                        ask(&near, there, &[&far], b"call").unwrap();
                    }
                    setsockopt(&near, UdpGsoSegment, &(SIZE as i32)).unwrap();
                    far.set_nonblocking(false).unwrap();
                    let mut buffer = [0; 2 * SIZE];
                    for _ in 0..3 {
                        near.send_to(&[7; SIZE * COUNT], there).unwrap();
                        for number in 0..COUNT {
                            let length = far.recv(&mut buffer);
                            assert_eq!(
                                length.ok(),
                                Some(SIZE),
                                "{number} of those to {there}, finished {finished}"
                            );
                        }
                    }
                }
            }
        }
    }
}
