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

/// Takes the shortcut from a link.
fn remove(lab: &Lab, router: &str, link: &LinkName) {
    let mut queue = TcMessage::with_index(lab.index(router, link.as_str()).cast_signed());
    queue.header.parent = TcHandle::CLSACT;
    lab.within(router, || exchange(RouteNetlinkMessage::DelQueueDiscipline(queue), NLM_F_ACK)).unwrap();
}

/// What a router translates comes back through it: its other end is not whom the container called.
///
/// LB-02, LB-03
#[test]
fn what_answers_an_address_of_no_container_is_left_to_the_router() {
    let Some((lab, routers)) = network(false) else { return };
    for (index, nobody) in ["10.0.1.99", "fd01::99"].into_iter().enumerate() {
        let nobody: IpAddr = nobody.parse().unwrap();
        let (here, there) = (places()[0].addresses[index], places()[1].addresses[index]);
        let (caller, other, far) = (lab.udp(A, here), lab.udp(A, here), lab.udp(B, there));
        assert_eq!(forwarded(&lab, || send(&far, &caller, b"before")), 0);
        caller.send_to(b"call", (nobody, 53)).unwrap();
        assert_eq!(forwarded(&lab, || send(&far, &caller, b"answer")), 1);
        assert_eq!(
            forwarded(&lab, || send(&caller, &far, b"call")),
            0,
            "what it sends itself is not affected"
        );
        assert_eq!(forwarded(&lab, || send(&far, &other, b"call")), 0, "nor are its other ports");
        // Whoever opens the router next goes on with what was noted.
        let mut again = open(&lab, 1);
        assert_eq!(repair(&mut again, &desired(&lab, 1, false, &places())), []);
        assert_eq!(forwarded(&lab, || send(&far, &caller, b"answer")), 1);
        assert_eq!(forwarded(&lab, || send(&far, &other, b"call")), 0);
    }
    drop(routers);
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

/// Its ports cannot be seen in every packet.
#[test]
fn a_container_that_calls_by_fragments_is_left_to_the_router_on_all_ports() {
    let Some((lab, _routers)) = network(false) else { return };
    let long = [7; 4000];
    for (index, nobody) in ["10.0.1.99", "fd01::99"].into_iter().enumerate() {
        let nobody: IpAddr = nobody.parse().unwrap();
        let (here, there) = (places()[0].addresses[index], places()[1].addresses[index]);
        let (caller, other, far) = (lab.udp(A, here), lab.udp(A, here), lab.udp(B, there));
        assert_ne!(forwarded(&lab, || send(&caller, &far, &long)), 0, "fragments are the router's");
        assert_eq!(forwarded(&lab, || send(&far, &other, b"call")), 0, "to a container they change nothing");
        caller.send_to(&long, (nobody, 53)).unwrap();
        assert_eq!(forwarded(&lab, || send(&far, &other, b"call")), 1);
    }
}

#[test]
fn who_was_there_before_the_shortcut_is_left_to_the_router() {
    let Some((lab, mut routers)) = network(false) else { return };
    let wanted = desired(&lab, 1, false, &places());
    let (caller, far) = (lab.udp(A, [10, 0, 1, 5].into()), lab.udp(B, [10, 0, 1, 6].into()));
    let link = LinkName::of_container(A);
    remove(&lab, "r1", &link);
    let mended = repair(&mut routers[0], &wanted);
    assert!(matches!(&mended[..], [Change::SetShortcut(name, Some(_))] if *name == link), "{mended:?}");
    assert_eq!(repair(&mut routers[0], &wanted), []);
    assert_eq!(forwarded(&lab, || send(&far, &caller, b"answer")), 1, "it may have called unnoted");
    assert_eq!(forwarded(&lab, || send(&caller, &far, b"call")), 0);
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
