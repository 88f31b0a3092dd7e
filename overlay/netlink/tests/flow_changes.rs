//! The flow cache while what it has learnt changes.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces and use sockets in them")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lab;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use covey_mesh::Frontend;
use covey_overlay::object::Change;
use covey_overlay_netlink::namespace;
use lab::{PATIENCE, until, world::*};
use nix::sys::socket::{
    setsockopt,
    sockopt::{Linger, ReuseAddr},
};

/// For what never comes.
const UNHEARD: Duration = Duration::from_millis(100);

fn hears(socket: &UdpSocket) -> bool {
    let mut buffer = [0; 100];
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(UNHEARD)).unwrap();
    socket.recv_from(&mut buffer).is_ok()
}

/// LB-07
#[test]
fn nothing_reaches_a_backend_that_is_gone_once_its_connections_are_cut() {
    let Some(world) = World::over(false) else { return };
    for v6 in FAMILIES {
        let front = virtual_address(v6);
        let serve = |backend| world.serve("r1", Frontend::Address(front), &[SocketAddr::new(backend, 0)]);
        let client = world.udp(&CLIENT, v6);
        let first = world.udp(&FAR, v6);
        let port = first.local_addr().unwrap().port();
        let second = world.lab.within(OTHER.id, || UdpSocket::bind((OTHER.address(v6), port))).unwrap();
        let service = SocketAddr::new(front, port);
        for [old, new] in [[&FAR, &OTHER], [&OTHER, &FAR], [&FAR, &OTHER]] {
            serve(old.address(v6));
            world.cut("r1", new.address(v6));
            let (gone, there) = if old.id == FAR.id { (&first, &second) } else { (&second, &first) };
            let round = || _ = ask(&client, service, &[gone], b"call").unwrap();
            round();
            world.is_fast("UDP", round);
            serve(new.address(v6));
            world.cut("r1", old.address(v6));
            for _ in 0..5 {
                ask(&client, service, &[there], b"call").unwrap();
            }
            assert!(!hears(gone));
        }
    }
}

/// LB-02
#[test]
fn a_connection_with_the_ports_of_one_before_it_may_lead_elsewhere() {
    let Some(world) = World::over(false) else { return };
    for v6 in FAMILIES {
        let front = virtual_address(v6);
        let listen = |at: &Container, port| {
            world.lab.within(at.id, || TcpListener::bind((at.address(v6), port))).unwrap()
        };
        let first = listen(&FAR, 0);
        let port = first.local_addr().unwrap().port();
        let second = listen(&OTHER, port);
        let source = world.udp(&CLIENT, v6).local_addr().unwrap();
        [&first, &second].iter().for_each(|listener| listener.set_nonblocking(true).unwrap());
        let mut was_reset = false;
        for round in 0..6 {
            let (at, listener, other) =
                if round % 2 == 0 { (&FAR, &first, &second) } else { (&OTHER, &second, &first) };
            world.serve("r1", Frontend::Address(front), &[SocketAddr::new(at.address(v6), 0)]);
            let near = world.lab.within(CLIENT.id, || connect_from(source, (front, port).into()));
            let mut far = None;
            until("a connection", || {
                far = listener.accept().ok().or_else(|| was_reset.then(|| other.accept().ok()).flatten());
                far.is_some()
            });
            let (mut near, (mut far, _)) = (TcpStream::from(near), far.unwrap());
            far.set_nonblocking(false).unwrap();
            for stream in [&near, &far] {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            let mut buffer = [0; 100_000];
            for _ in 0..3 {
                near.write_all(&buffer).unwrap();
                far.read_exact(&mut buffer).unwrap();
                far.write_all(&buffer).unwrap();
                near.read_exact(&mut buffer).unwrap();
            }
            // The kernel has not seen enough to believe a reset, and leads the next one to where the last one was.
            was_reset = round > 3;
            if was_reset {
                let reset = libc::linger { l_onoff: 1, l_linger: 0 };
                setsockopt(&near, Linger, &reset).unwrap();
                drop(near);
                assert!(far.read(&mut buffer).is_err(), "it learns of the reset");
            } else {
                drop(far);
                assert_eq!(near.read(&mut buffer).unwrap(), 0);
            }
        }
    }
}

/// A connection from a port that was used a moment before.
fn connect_from(source: SocketAddr, to: SocketAddr) -> std::os::fd::OwnedFd {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
    use std::os::fd::AsRawFd;
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::empty(), None).unwrap();
    setsockopt(&socket, ReuseAddr, &true).unwrap();
    bind(socket.as_raw_fd(), &SockaddrStorage::from(source)).unwrap();
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
    socket
}

#[test]
fn the_kernel_sees_a_packet_of_a_flow_every_few_seconds() {
    const AGE_MAX: Duration = Duration::from_secs(3);
    let Some(world) = World::over(false) else { return };
    let (near, far) = (world.udp(&CLIENT, false), world.udp(&FAR, false));
    let round = || _ = ask(&near, far.local_addr().unwrap(), &[&far], b"call").unwrap();
    round();
    let start = Instant::now();
    while world.slow(round) == 0 {
        assert!(start.elapsed() < AGE_MAX);
    }
    world.is_fast("UDP", round);
}

#[test]
fn nothing_is_led_to_a_container_that_has_ended() {
    let Some(world) = World::over(false) else { return };
    for v6 in FAMILIES {
        let (near, far) = (world.udp(&CLIENT, v6), world.udp(&FAR, v6));
        for _ in 0..3 {
            ask(&near, far.local_addr().unwrap(), &[&far], b"call").unwrap();
        }
    }
    let beside = FAMILIES.map(|v6| world.udp(&OTHER, v6));
    namespace::remove(&world.lab.path(FAR.id)).unwrap();
    // Its link goes with it; whoever looks next finds that out.
    let gone = || !world.stacks(2, |router| router.observe().unwrap().links.contains_key(&FAR.link()));
    until("a link goes with its container", gone);
    for v6 in FAMILIES {
        world.lab.fails_at_once(CLIENT.id, FAR.address(v6));
        let near = world.udp(&CLIENT, v6);
        near.send_to(b"call", (FAR.address(v6), beside[usize::from(v6)].local_addr().unwrap().port()))
            .unwrap();
        assert!(!hears(&beside[usize::from(v6)]));
    }
}

#[test]
fn a_router_that_was_made_anew_begins_without_flows() {
    let Some(world) = World::over(false) else { return };
    let round = || {
        for v6 in FAMILIES {
            for (from, to) in [(&CLIENT, &FAR), (&FAR, &NEAR), (&OTHER, &CLIENT)] {
                let (near, far) = (world.udp(from, v6), world.udp(to, v6));
                for _ in 0..3 {
                    ask(&near, far.local_addr().unwrap(), &[&far], b"call").unwrap();
                }
                world.is_fast("UDP", || _ = ask(&near, far.local_addr().unwrap(), &[&far], b"call").unwrap());
            }
        }
    };
    round();
    for host in [2, 1] {
        world.remove_router(host);
        world.make_router(host);
        world.forget();
        round();
    }
}

/// A container's statistics are what its links count.
#[test]
fn what_passes_no_router_is_counted_at_the_containers() {
    const COUNT: u64 = 20;
    let Some(world) = World::over(false) else { return };
    let (near, far) = (world.udp(&CLIENT, false), world.udp(&FAR, false));
    let packets = |at: &Container, column: usize| -> u64 {
        let read = || std::fs::read_to_string("/proc/thread-self/net/dev");
        let links = world.lab.within(at.id, read).unwrap();
        let counters = links.lines().find_map(|line| line.trim().strip_prefix("eth1:")).unwrap();
        counters.split_whitespace().nth(column).unwrap().parse().unwrap()
    };
    let round = || _ = ask(&near, far.local_addr().unwrap(), &[&far], b"packet").unwrap();
    round();
    let before = [(&CLIENT, 9), (&FAR, 1), (&FAR, 9), (&CLIENT, 1)].map(|(at, column)| packets(at, column));
    (0..COUNT).for_each(|_| round());
    let after = [(&CLIENT, 9), (&FAR, 1), (&FAR, 9), (&CLIENT, 1)].map(|(at, column)| packets(at, column));
    // Beside these there is what each end says by itself.
    assert!(
        before.iter().zip(&after).all(|(before, after)| *after >= before + COUNT),
        "{before:?} {after:?}"
    );
}

#[test]
fn a_link_without_the_programs_gets_them_again() {
    let Some(world) = World::over(false) else { return };
    let (near, far) = (world.udp(&CLIENT, false), world.udp(&FAR, false));
    let round = || _ = ask(&near, far.local_addr().unwrap(), &[&far], b"call").unwrap();
    round();
    world.is_fast("UDP", round);
    world.lab.strip("r1", CLIENT.link().as_str());
    assert_ne!(world.slow(round), 0);
    assert_eq!(world.mend(1), [Change::SetCached(CLIENT.link())]);
    round();
    world.is_fast("UDP", round);
}
