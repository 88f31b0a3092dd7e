//! The shortcut past routers against a real kernel: what takes it, and what must not.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces and use sockets in them")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lab;

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use covey_overlay::object::{Change, Destination, LinkName};
use covey_overlay_netlink::namespace;
use lab::{Lab, exchange, routers::*};
use netlink_packet_core::NLM_F_ACK;
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcHandle, TcMessage},
};
use nix::sys::socket::{setsockopt, sockopt::IpTransparent};

/// For what is never answered.
const UNHEARD: Duration = Duration::from_millis(200);

/// Sends to a socket, which gets it whole.
fn send(from: &UdpSocket, to: &UdpSocket, bytes: &[u8]) {
    let mut buffer = vec![0; bytes.len() + 1];
    from.send_to(bytes, to.local_addr().unwrap()).unwrap();
    let (length, seen) = to.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], seen), (bytes, from.local_addr().unwrap()));
}

/// Packets that host 1's router forwards while `work` is done.
fn forwarded(lab: &Lab, work: impl FnOnce()) -> u64 {
    let before = lab.forwarded("r1");
    work();
    lab.forwarded("r1") - before
}

/// NET-18
#[test]
fn what_goes_between_hosts_passes_no_router() {
    for over_v6 in [false, true] {
        let Some((lab, _routers)) = network(over_v6) else { return };
        let [a, b, c] = places().try_into().ok().unwrap();
        for there in b.addresses.iter().chain(&c.addresses) {
            let to = if b.addresses.contains(there) { b.id } else { c.id };
            assert_eq!(forwarded(&lab, || _ = lab.tcp(a.id, to, *there)), 0, "to {there}");
            assert_eq!(lab.forwarded("r2"), 0);
        }
        for link in [LinkName::of_vni(VNI), LinkName::of_container(A)] {
            remove(&lab, "r1", &link);
        }
        assert_ne!(
            forwarded(&lab, || _ = lab.tcp(a.id, b.id, b.addresses[0])),
            0,
            "the router does the same"
        );
    }
}

/// A container's statistics are what its links count.
#[test]
fn what_passes_no_router_is_counted_at_the_containers() {
    const COUNT: u64 = 20;
    let Some((lab, _routers)) = network(false) else { return };
    let (near, far) = (lab.udp(A, places()[0].addresses[0]), lab.udp(B, places()[1].addresses[0]));
    let packets = |container, column: usize| -> u64 {
        let links = lab.within(container, || std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
        let counters = links.lines().find_map(|line| line.trim().strip_prefix("eth1:")).unwrap();
        counters.split_whitespace().nth(column).unwrap().parse().unwrap()
    };
    let (sent, received) = (packets(A, 9), packets(B, 1));
    assert_eq!(forwarded(&lab, || (0..COUNT).for_each(|_| send(&near, &far, b"packet"))), 0);
    // Beside these there is what each end says by itself.
    assert!(packets(A, 9) >= sent + COUNT && packets(B, 1) >= received + COUNT);
}

/// Takes the shortcut from a link.
fn remove(lab: &Lab, router: &str, link: &LinkName) {
    let mut queue = TcMessage::with_index(lab.index(router, link.as_str()).cast_signed());
    queue.header.parent = TcHandle::CLSACT;
    lab.within(router, || exchange(RouteNetlinkMessage::DelQueueDiscipline(queue), NLM_F_ACK)).unwrap();
}

/// Has host 1's router send something under a container's address and port, as when it translates.
fn translate(lab: &Lab, from: &UdpSocket, to: &UdpSocket, bytes: &[u8]) {
    let seen = from.local_addr().unwrap();
    let router = lab.within("r1", || {
        for family in ["ipv4", "ipv6"] {
            std::fs::write(format!("/proc/sys/net/{family}/ip_nonlocal_bind"), "1").unwrap();
        }
        let socket = UdpSocket::bind(seen).unwrap();
        if seen.is_ipv4() {
            setsockopt(&socket, IpTransparent, &true).unwrap();
        }
        socket
    });
    send(&router, to, bytes);
}

/// What a router translates comes back through it: its other end is not whom the container called.
///
/// LB-02, LB-03
#[test]
fn what_the_router_has_sent_itself_is_answered_through_it() {
    let Some((lab, routers)) = network(false) else { return };
    for (here, there) in places()[0].addresses.iter().zip(&places()[1].addresses) {
        let (caller, other, far) = (lab.udp(A, *here), lab.udp(A, *here), lab.udp(B, *there));
        assert_eq!(forwarded(&lab, || send(&far, &caller, b"before")), 0);
        translate(&lab, &caller, &far, b"call");
        let look = || {
            assert_eq!(forwarded(&lab, || send(&far, &caller, b"answer")), 1);
            assert_eq!(forwarded(&lab, || send(&caller, &far, b"call")), 1, "it tells the two apart");
            assert_eq!(
                forwarded(&lab, || send(&far, &other, b"call")),
                0,
                "its other ports are not affected"
            );
            assert_eq!(forwarded(&lab, || send(&other, &far, b"call")), 0);
        };
        look();
        // Whoever opens the router next goes on with what was noted.
        let mut again = open(&lab, 1);
        assert_eq!(repair(&mut again, &desired(&lab, 1, false, &places())), []);
        look();
    }
    drop(routers);
}

/// Such as groups, and addresses of which this host has not heard yet.
#[test]
fn who_calls_what_leads_nowhere_keeps_the_shortcut() {
    let Some((lab, _routers)) = network(false) else { return };
    for (index, nobody) in ["10.0.1.99", "fd01::99"].into_iter().enumerate() {
        let nobody: IpAddr = nobody.parse().unwrap();
        let (here, there) = (places()[0].addresses[index], places()[1].addresses[index]);
        let (caller, far) = (lab.udp(A, here), lab.udp(B, there));
        for bytes in [&b"call"[..], &[7; 4000]] {
            caller.send_to(bytes, (nobody, 53)).unwrap();
        }
        assert_eq!(forwarded(&lab, || send(&far, &caller, b"call")), 0);
    }
}

/// A container begins to serve others as soon as it runs, and its host may hear of them a moment later.
#[test]
fn a_server_that_answers_somebody_unknown_keeps_the_shortcut() {
    let Some((lab, mut routers)) = network(false) else { return };
    for (client, server) in places()[0].addresses.iter().zip(&places()[1].addresses) {
        let unknown = Change::DeleteRoute(Destination::main(*client));
        routers[1].apply(&unknown).unwrap();
        let listener = lab.within(B, || TcpListener::bind(SocketAddr::new(*server, 0))).unwrap();
        let there = listener.local_addr().unwrap();
        lab.within(A, || TcpStream::connect_timeout(&there, UNHEARD)).unwrap_err();
        repair(&mut routers[1], &desired(&lab, 2, false, &places()));
        let before = lab.forwarded("r2");
        lab.connect(A, there).unwrap();
        assert_eq!(lab.forwarded("r2"), before);
    }
}

/// Whatever they are cut into: what arrives by pieces is the router's, which waits for all of them.
#[test]
fn fragments_arrive_whole() {
    let Some((lab, _routers)) = network(false) else { return };
    for (here, there) in places()[0].addresses.iter().zip(&places()[1].addresses) {
        let (near, far) = (lab.udp(A, *here), lab.udp(B, *there));
        for length in 2820..2870 {
            assert_eq!(forwarded(&lab, || send(&near, &far, &vec![7; length])), 0, "{length}");
        }
        assert_ne!(lab.forwarded("r2"), 0);
    }
}

/// Its ports cannot be seen in every packet.
#[test]
fn a_container_whose_fragments_the_router_has_sent_is_left_to_it_on_all_ports() {
    for index in 0..2 {
        let Some((lab, _routers)) = network(false) else { return };
        let (here, there) = (places()[0].addresses[index], places()[1].addresses[index]);
        let (caller, other, far) = (lab.udp(A, here), lab.udp(A, here), lab.udp(B, there));
        translate(&lab, &caller, &far, &[7; 4000]);
        assert_eq!(forwarded(&lab, || send(&far, &other, b"call")), 1);
        assert_eq!(forwarded(&lab, || send(&other, &far, b"call")), 1);
    }
}

#[test]
fn who_was_there_before_the_shortcut_is_left_to_the_router() {
    for link in [LinkName::of_container(A), LinkName::of_vni(VNI)] {
        let Some((lab, mut routers)) = network(false) else { return };
        let wanted = desired(&lab, 1, false, &places());
        let (caller, far) = (lab.udp(A, [10, 0, 1, 5].into()), lab.udp(B, [10, 0, 1, 6].into()));
        remove(&lab, "r1", &link);
        let mended = repair(&mut routers[0], &wanted);
        assert!(matches!(&mended[..], [Change::SetShortcut(name, _)] if *name == link), "{mended:?}");
        assert_eq!(repair(&mut routers[0], &wanted), []);
        assert_eq!(forwarded(&lab, || send(&far, &caller, b"answer")), 1, "it may have called unnoted");
        assert_eq!(forwarded(&lab, || send(&caller, &far, b"call")), 1);
    }
}

#[test]
fn nothing_is_led_to_a_container_that_has_ended() {
    let Some((lab, mut routers)) = network(false) else { return };
    namespace::remove(&lab.path(B)).unwrap();
    // Its link goes with it; whoever looks next finds that out.
    let gone = || !routers[1].observe().unwrap().links.contains_key(&LinkName::of_container(B));
    lab::until("a link goes with its container", gone);
    for address in &places()[1].addresses {
        lab.fails_at_once(A, *address);
    }
}
