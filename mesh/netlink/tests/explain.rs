//! What is read to explain where packets go: who answers a connection, and which chains of others are in the way.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces, and run ip and nft")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in what it is built of as well")]

mod lab;

use std::{io, net::SocketAddr};

use covey_mesh::Protocol;
use covey_mesh_netlink::forward_drops;
use lab::{
    Lab, Place,
    server::{Server, ask_udp},
};

/// Where the task listens.
const PORT: u16 = 9000;

#[test]
fn a_connection_is_answered_by_where_it_was_led() {
    let task = Place { name: "aaaa", link: "cvaaaa", v4: "100.64.1", v6: "fd00:c0:0:1:a" };
    let outside = Place { name: "outside", link: "out0", v4: "10.20.0", v6: "fd20:0:0:0:0" };
    let Some(lab) = Lab::star(&[task, outside]) else { return };
    if !lab.has_nft() {
        return;
    }
    lab.run(
        "host",
        "nft 'add table inet lead; add chain inet lead pre { type nat hook prerouting priority -100; }
        add rule inet lead pre ip daddr 10.20.0.1 udp dport 8080 dnat ip to 100.64.1.2:9000
        add rule inet lead pre ip6 daddr fd20::1 udp dport 8080 dnat ip6 to [fd00:c0:0:1:a::2]:9000'",
    );
    let _server = Server::start(&lab, "aaaa", PORT);
    let mut conntrack = lab.conntrack();
    for (own, any, front, back) in [
        ("10.20.0.2", "0.0.0.0", "10.20.0.1:8080", "100.64.1.2:9000"),
        ("fd20::2", "::", "[fd20::1]:8080", "[fd00:c0:0:1:a::2]:9000"),
    ] {
        let (front, back): (SocketAddr, SocketAddr) = (front.parse().unwrap(), back.parse().unwrap());
        for to in [front, back] {
            let socket = lab.udp("outside", any, 0);
            let from = SocketAddr::new(own.parse().unwrap(), socket.local_addr().unwrap().port());
            assert_eq!(conntrack.answered_by(Protocol::Udp, from, to).unwrap(), None, "nobody has asked yet");
            ask_udp(&socket, to).unwrap();
            assert_eq!(conntrack.answered_by(Protocol::Udp, from, to).unwrap(), Some(back), "{from} to {to}");
            assert_eq!(conntrack.answered_by(Protocol::Tcp, from, to).unwrap(), None, "of another protocol");
        }
    }
}

#[test]
fn chains_of_others_that_drop_what_is_forwarded_are_found() {
    let Some(lab) = Lab::new().filter(Lab::has_nft) else { return };
    let found = || {
        let drops = lab.inside("host", || forward_drops().map_err(io::Error::other)).unwrap();
        drops
            .into_iter()
            .map(|drop| format!("{} {} {}", drop.family, drop.table, drop.chain))
            .collect::<Vec<_>>()
    };
    assert_eq!(found(), [""; 0]);
    let chain = |family: &str, table: &str, hook: &str, policy: &str| {
        let line = format!("{{ type filter hook {hook} priority 0; policy {policy}; }}");
        lab.run("host", &format!("nft 'add table {family} {table}; add chain {family} {table} FW {line}'"));
    };
    chain("inet", "covey", "forward", "drop");
    chain("inet", "fine", "forward", "accept");
    chain("ip", "elsewhere", "input", "drop");
    assert_eq!(found(), [""; 0], "our own, one that accepts, and one of another hook");
    chain("ip", "docker", "forward", "drop");
    chain("ip6", "docker", "forward", "drop");
    chain("inet", "firewall", "forward", "drop");
    assert_eq!(found(), ["inet firewall FW", "ip docker FW", "ip6 docker FW"]);
}
