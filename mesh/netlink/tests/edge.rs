//! Two hosts joined by a VXLAN link: a client of the one reaches a task of the other, which sees its address.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces, run ip and bridge, and wait")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in what it is built of as well")]

mod lab;

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Instant,
};

use covey_mesh::{Backend, Balance, Edge, Frontend, Host, Member, Place, Program, Protocol, Virtual, mark};
use covey_mesh_netlink::Nft;
use lab::{
    Lab, PATIENCE, repair,
    server::{Server, address, ask_tcp, ask_udp},
};

const PUBLISHED: u16 = 8080;
const PORT: u16 = 9000;
const VXLAN: u16 = 4789;
const EDGE: u32 = 4096;

fn mac(number: u32) -> String {
    let [a, b, c, d] = mark::of_node(number);
    format!("02:fd:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// The name of the namespace of host 1 or 2.
fn host(number: u32) -> &'static str {
    ["host", "host2"][number as usize - 1]
}

/// Host 1 has the client `outside`, host 2 the task `task`; host 2 knows nothing of where the client is.
fn world() -> Option<(Lab, [Nft; 2])> {
    let lab = Lab::star(&[lab::Place { name: "outside", link: "out0", v4: "10.20.0", v6: "fd20:0:0:0:0" }])?;
    lab.add("host2");
    lab.add("task");
    let path = lab.path("host2");
    lab.run("host", &format!("ip link add und0 type veth peer name und0 netns {}", path.display()));
    let (value, mask) = mark::RULE;
    for (own, peer) in [(1, 2), (2, 1)] {
        lab.run(
            host(own),
            &format!(
                "cd /proc/sys/net; echo 1 >ipv4/ip_forward; echo 1 >ipv6/conf/all/forwarding
                for of in all default; do echo 0 >ipv4/conf/$of/rp_filter; echo 1 >ipv4/conf/$of/route_localnet; done
                ip addr add 10.90.0.{own}/24 dev und0; ip link set und0 up
                ip link add cvx4096 address {own_mac} mtu 1450 type vxlan id {EDGE} local 10.90.0.{own} \
                    dstport {VXLAN} nolearning
                ip addr add 100.64.{own}.0/32 dev cvx4096; ip addr add fd00:c0:0:{own}::/128 dev cvx4096 nodad
                ip link set cvx4096 up
                bridge fdb replace {peer_mac} dev cvx4096 dst 10.90.0.{peer} self static
                for to in 100.64.{peer}.0 fe80::{peer}; do
                    ip neigh replace $to lladdr {peer_mac} dev cvx4096 nud permanent
                done
                ip route replace 100.64.{peer}.0/24 via 100.64.{peer}.0 dev cvx4096 onlink
                ip route replace fd00:c0:0:{peer}::/64 via fe80::{peer} dev cvx4096
                for to in 169.254.1.1 fe80::a; do
                    ip neigh replace $to lladdr 02:fd:00:00:00:00 dev cvx4096 nud permanent
                done
                ip rule add fwmark {value}/{mask} lookup 100; ip -6 rule add fwmark {value}/{mask} lookup 100
                ip route replace default via 169.254.1.1 dev cvx4096 onlink table 100
                ip -6 route replace default via fe80::a dev cvx4096 table 100",
                own_mac = mac(own),
                peer_mac = mac(peer),
            ),
        );
    }
    let path = lab.path("task");
    lab.run(
        "host2",
        &format!(
            "ip link add cvtask mtu 1450 address 02:fe:00:00:00:01 type veth peer name eth0 netns {}
            ip link set cvtask up
            ip addr add fe80::1/64 dev cvtask nodad
            ip route add 100.64.2.2/32 dev cvtask; ip route add fd00:c0:0:2::2/128 dev cvtask",
            path.display()
        ),
    );
    lab.run(
        "task",
        "ip link set eth0 up mtu 1450; ip addr add 100.64.2.2/32 dev eth0
        ip addr add fd00:c0:0:2::2/128 dev eth0 nodad
        ip neigh add 169.254.1.1 lladdr 02:fe:00:00:00:01 dev eth0 nud permanent
        ip route add default via 169.254.1.1 dev eth0 onlink
        ip -6 route add default via fe80::1 dev eth0",
    );
    let nft = [1, 2].map(|number| Nft::open_in(&lab.path(host(number))).unwrap());
    Some((lab, nft))
}

fn place(own: u32, peer: u32) -> Place {
    let blocks = |number: u32| {
        [format!("100.64.{number}.0/24"), format!("fd00:c0:0:{number}::/64")]
            .iter()
            .map(|block| block.parse().unwrap())
            .collect()
    };
    Place::Host(Host {
        blocks: blocks(own),
        inside: "cv".to_owned(),
        bridged: [].into(),
        edge: Some(Edge {
            device: "cvx4096".to_owned(),
            local: [10, 90, 0, own as u8].into(),
            port: VXLAN,
            networks: [EDGE].into(),
            members: [Member {
                address: [10, 90, 0, peer as u8].into(),
                others: [].into(),
                blocks: blocks(peer),
            }]
            .into(),
        }),
    })
}

/// PRT-05, NET-18
#[test]
fn a_task_elsewhere_sees_the_client_and_answers_through_the_host_that_was_asked() {
    let Some((lab, [mut first, mut second])) = world() else { return };
    let _server = Server::start(&lab, "task", PORT);
    let mut program = Program::new(place(1, 2));
    for (any, backend) in [("0.0.0.0", "100.64.2.2"), ("::", "fd00:c0:0:2::2")] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let front = Frontend::Port { address: address(any), protocol, port: PUBLISHED };
            let backends = vec![Backend { address: address(backend), port: Some(PORT) }];
            program.set(front, Some(Virtual { balance: Balance::Random, backends }));
        }
    }
    repair(&mut first, &program);
    repair(&mut second, &Program::new(place(2, 1)));
    for (from, own, to, sees) in [
        ("outside", "10.20.0.2", "10.20.0.1", "10.20.0.2"),
        ("outside", "fd20::2", "fd20::1", "fd20::2"),
        ("host", "127.0.0.1", "127.0.0.1", "100.64.1.0"),
        ("host", "10.90.0.1", "10.90.0.1", "10.90.0.1"),
        // What comes from the task's host itself cannot come back to it under its own address.
        ("host2", "10.90.0.2", "10.90.0.1", "100.64.1.0"),
    ] {
        let to = SocketAddr::new(address(to), PUBLISHED);
        let expected = format!("task {sees}");
        assert_eq!(ask_udp(&lab.udp(from, own, 0), to).unwrap(), expected, "UDP from {own} of {from}");
        for _ in 0..3 {
            assert_eq!(ask_tcp(&lab, from, to).unwrap(), expected, "TCP from {own} of {from}");
        }
    }
    for number in [1, 2] {
        let tracked = lab.run(host(number), "cat /proc/net/nf_conntrack");
        assert!(tracked.contains(&format!("port={PUBLISHED} ")), "{tracked}");
        assert!(
            !tracked.contains(&format!("port={VXLAN} ")),
            "what is around packets is no connection: {tracked}"
        );
    }
    for to in ["100.64.1.0", "fd00:c0:0:1::"] {
        let refused = ask_tcp(&lab, "task", SocketAddr::new(address(to), PUBLISHED)).unwrap_err();
        assert_eq!(
            refused.kind(),
            io::ErrorKind::ConnectionRefused,
            "a container of another host, from a task"
        );
    }
    for (nft, program) in [(&mut first, &program), (&mut second, &Program::new(place(2, 1)))] {
        assert_eq!(repair(nft, program), []);
        repair(nft, &Program::default());
        assert!(nft.observe().unwrap().is_empty());
    }
}

/// NET-18
#[test]
fn nobody_is_led_to_containers_by_their_own_host_or_by_another_one() {
    let Some((lab, [mut first, mut second])) = world() else { return };
    let _server = Server::start(&lab, "task", PORT);
    let tasks = ["100.64.2.2", "fd00:c0:0:2::2"].map(address);
    let ask = |from: &str, to: IpAddr| {
        let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
        let to = SocketAddr::new(to, PORT);
        [ask_tcp(&lab, from, to), ask_udp(&lab.udp(from, any, 0), to)]
    };
    let is_refused = |from: &str, why: &str| {
        for answer in tasks.into_iter().flat_map(|to| ask(from, to)) {
            assert_eq!(answer.expect_err(why).kind(), io::ErrorKind::ConnectionRefused, "{why}");
        }
    };
    repair(&mut second, &Program::new(place(2, 1)));
    for answer in tasks.into_iter().flat_map(|to| ask("outside", to)) {
        let seen = answer.unwrap();
        assert!(["task 10.20.0.2", "task fd20::2"].contains(&seen.as_str()), "not refused yet: {seen}");
    }
    repair(&mut first, &Program::new(place(1, 2)));
    is_refused("outside", "by another host");
    for answer in tasks.into_iter().flat_map(|to| ask("host", to)) {
        let seen = answer.unwrap();
        assert!(["task 100.64.1.0", "task fd00:c0:0:1::"].contains(&seen.as_str()), "a host itself: {seen}");
    }
    lab.run("host2", "ip addr add fd90::2/64 dev und0 nodad");
    lab.run(
        "host",
        "ip addr add fd90::1/64 dev und0 nodad
        ip route replace 100.64.2.0/24 via 10.90.0.2; ip route replace fd00:c0:0:2::/64 via fd90::2",
    );
    is_refused("host", "by their own host");
}

/// Packets that came in by the edge link of host 2.
fn received(lab: &Lab) -> u64 {
    let shown = lab.run("host2", "sed -n 's/^ *cvx4096://p' /proc/net/dev");
    shown.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// NET-19
#[test]
fn what_strangers_send_to_our_networks_is_dropped() {
    let Some((lab, [_, mut nft])) = world() else { return };
    lab.run("host", "ip addr add 10.90.0.9/24 dev und0");
    let socket = |own: &str| lab.inside("host", || UdpSocket::bind((address(own), 0))).unwrap();
    let (member, stranger) = (socket("10.90.0.1"), socket("10.90.0.9"));
    // A VXLAN header, and a frame to host 2 from nobody.
    let header = [0x08, 0, 0, 0, 0, (EDGE >> 8) as u8, 0, 0];
    let frame = [0x02, 0xfd, 0xc0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1, 0x88, 0xb5];
    let packet = [&header[..], &frame, &[0; 46]].concat();
    let send = |socket: &UdpSocket| socket.send_to(&packet, ("10.90.0.2", VXLAN)).unwrap();
    let arrives = |socket: &UdpSocket| {
        let (before, begun) = (received(&lab), Instant::now());
        while received(&lab) == before && begun.elapsed() < PATIENCE {
            send(socket);
        }
        received(&lab) > before
    };
    assert!(arrives(&stranger), "nobody is kept out yet");
    repair(&mut nft, &Program::new(place(2, 1)));
    let before = received(&lab);
    for _ in 0..10 {
        send(&stranger);
    }
    // They take the same way, so the stranger's have been dealt with by then.
    assert!(arrives(&member), "members come in");
    let sent = received(&lab) - before;
    send(&stranger);
    assert!(arrives(&member));
    assert!(sent < 10, "a stranger's packets came in: {sent}");
}
