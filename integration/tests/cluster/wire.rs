//! What crosses the wire between hosts, seen on the wire, and what a stranger may put on it.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use covey_integration::{
    capture::{Capture, Packet, vxlan},
    dns::{A, AAAA},
    lab::Lab,
    reply::{PATIENCE, run},
    space::{ANSWER, Space},
    wait,
};

const REPAIR: u64 = 20;
const VXLAN: u16 = 4789;
const EDGE: u32 = 4096;
const HUB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const M1: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const W1: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 12);
/// Ports of the control plane.
const CONTROL: u16 = 2377;

/// A service of one witness on that host and the network `net`; the space of its container.
fn create(lab: &Lab, name: &str, host: &str, more: &[&str]) -> Space {
    let place = format!("node.hostname=={host}");
    let args = ["service", "create", "-d", "--no-resolve-image", "--network", "net", "--constraint", &place];
    lab.docker("m1", &[&args[..], &["--name", name], more, &["alpine", "witness"]].concat()).ok();
    let of_service =
        || lab.running([host]).into_iter().find(|(_, other)| other.starts_with(&format!("{name}.")));
    let (_, container) = wait::until_some(REPAIR, name, of_service);
    lab.space_of(host, &container)
}

/// The packets inside, with their network; whatever is on the wire in plain must be between these addresses.
fn inside(packets: &[Packet], plain: &[Ipv4Addr]) -> Vec<(u32, Packet)> {
    let mut found = Vec::new();
    for packet in packets {
        match &packet.inner {
            Some((vni, inner)) => {
                assert!(
                    [M1, W1].contains(&packet.source.0) && [M1, W1].contains(&packet.target.0),
                    "{packet:?}"
                );
                assert_eq!(packet.target.1, VXLAN);
                found.push((*vni, (**inner).clone()));
            }
            None => assert!(
                plain.contains(&packet.source.0) && plain.contains(&packet.target.0),
                "in plain on the wire: {packet:?}"
            ),
        }
    }
    found
}

/// NET-18, PRT-05: between hosts there is VXLAN between members and nothing else; a virtual address never leaves its
/// host, a client's address is kept on all of the way, and answers come back through the host that was asked. What a
/// stranger sends, with all the right numbers in it, reaches nobody.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn only_members_speak_and_addresses_are_kept() {
    let Some(lab) = Lab::cluster(1, 1) else { return };
    lab.docker("m1", &["network", "create", "-d", "overlay", "net"]).ok();
    let web = create(&lab, "web", "w1", &["-p", "8080:80", "-p", "8080:80/udp"]);
    let client = create(&lab, "client", "m1", &[]);
    let vip = wait::until_some(REPAIR, "its name", || client.addresses("web").pop());
    let task = wait::until_some(REPAIR, "its task", || client.addresses("tasks.web").pop());
    let own = wait::until_some(REPAIR, "the client's own name", || client.addresses("tasks.client").pop());
    let [vip, task, own]: [Ipv4Addr; 3] = [vip, task, own].map(|text| text.parse().expect("an address"));
    let (hub, m1) = (lab.space("hub"), lab.space("m1"));
    let port = format!("{M1}:8080");
    wait::until(REPAIR, "the port", || hub.ask(&port).is_ok() && hub.ask_udp(&port).is_ok());
    let wire = m1.run(|| Capture::open("eth0"));
    let drain = || {
        let packets = wire.packets();
        packets
            .into_iter()
            .filter(|packet| packet.source.1 != CONTROL && packet.target.1 != CONTROL)
            .collect::<Vec<_>>()
    };

    // Inside the network.
    drain();
    client.ask(&format!("{vip}:80")).expect("an answer");
    let found = inside(&drain(), &[]);
    assert!(
        found.iter().any(|(_, packet)| packet.source.0 == own && packet.target == (task, 80)),
        "{found:?}"
    );
    assert!(
        found.iter().any(|(_, packet)| packet.source == (task, 80) && packet.target.0 == own),
        "{found:?}"
    );
    for (vni, packet) in &found {
        assert!(*vni > EDGE, "{packet:?} in network {vni}");
        assert!(packet.source.0 != vip && packet.target.0 != vip, "{packet:?}");
    }

    // By a published port, over both protocols.
    for ask in [Space::ask, Space::ask_udp] {
        drain();
        let said = ask(&hub, &port).expect("an answer");
        assert_eq!(said.client, HUB);
        let mut found = inside(&drain(), &[HUB, M1]);
        // The end of a conversation of before may be late.
        found.retain(|(_, packet)| [packet.source.0, packet.target.0].contains(&HUB));
        let there =
            found.iter().filter(|(_, packet)| packet.source.0 == HUB && packet.target.1 == 80).count();
        let back = found.iter().filter(|(_, packet)| packet.target.0 == HUB && packet.source.1 == 80).count();
        assert!(there > 0 && back > 0, "{found:?}");
        assert!(found.iter().all(|(vni, _)| *vni == EDGE), "{found:?}");
    }

    // A packet to the task at the edge, in the name of a container of m1: sent by m1 it arrives, by a stranger it does not.
    let task_at_edge = web.run(edge_address);
    let macs = ([2, 0xfd, 0xc0, 0, 0, 1], [2, 0xfd, 0xc0, 0, 0, 2]);
    let message =
        |text: &[u8]| vxlan(EDGE, macs, (Ipv4Addr::new(100, 64, 1, 77), 7777), (task_at_edge, 80), text);
    let ears = web.run(|| Capture::open("eth0"));
    let send = |from: &Space, text: &[u8]| {
        let message = message(text);
        from.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.send_to(&message, (W1, VXLAN)).expect("it is sent");
        });
    };
    let mut heard = Vec::new();
    for _ in 0..5 {
        send(&hub, b"from a stranger");
    }
    wait::until(REPAIR, "a member's packet", || {
        send(&m1, b"from a member");
        heard.extend(ears.packets());
        heard.iter().any(|packet| packet.payload.starts_with(b"from a member"))
    });
    assert!(!heard.iter().any(|packet| packet.payload.starts_with(b"from a stranger")), "{heard:?}");
}

/// NET-18, PRT-14: a container that may give itself addresses is heard in none of them, in either family: not by tasks of its
/// network, nor outside of the cluster.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_container_is_heard_in_no_name_but_its_own() {
    let Some(lab) = Lab::cluster(1, 1) else { return };
    for (host, link, address) in [("hub", "br0", "fd77::1/64"), ("m1", "eth0", "fd77::11/64")] {
        lab.script(&["exec", host, "ip", "addr", "add", address, "dev", link, "nodad"]).ok();
    }
    lab.docker("m1", &["network", "create", "-d", "overlay", "--ipv6", "--subnet", "fd88::/64", "net"]).ok();
    let (web, liar) = (create(&lab, "web", "w1", &[]), create(&lab, "liar", "m1", &[]));
    let task = |kind| wait::until_some(REPAIR, "the task", || liar.resolve("tasks.web", kind).records.pop());
    let hub = lab.space("hub");
    // Where it speaks to, by which link that is, and in whose name: of its network, of its host's block, of outside.
    let cases = [
        (&web, task(A), "eth1", ["10.0.0.77", "100.64.1.77", "198.51.100.7"]),
        (&web, task(AAAA), "eth1", ["fd88::77", "fd77::77", "2001:db8::7"]),
        (&hub, HUB.to_string(), "eth0", ["10.0.0.77", "100.64.1.77", "198.51.100.7"]),
        (&hub, "fd77::1".to_owned(), "eth0", ["fd88::77", "fd77::77", "2001:db8::7"]),
    ];
    for (to, address, link, names) in cases {
        let address: IpAddr = address.parse().expect("an address");
        let ear = to.run(|| UdpSocket::bind((address, 0)).expect("a socket"));
        ear.set_read_timeout(Some(ANSWER)).expect("a plain call");
        let target = ear.local_addr().expect("an address");
        for name in names {
            liar.run(|| change_address("add", name, link));
            let socket = liar.run(|| UdpSocket::bind((name.parse::<IpAddr>().expect("an address"), 0)));
            socket.expect("a socket").send_to(b"a lie", target).expect("it is sent");
            liar.run(|| change_address("del", name, link));
        }
        let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let socket = liar.run(|| UdpSocket::bind((any, 0))).expect("a socket");
        socket.send_to(b"truth", target).expect("it is sent");
        let mut heard = [0; 16];
        let (length, from) = ear.recv_from(&mut heard).expect("its own name is heard");
        assert_eq!(&heard[..length], b"truth", "{target} hears {from}");
    }
}

/// What root in a container does by hand.
fn change_address(verb: &str, address: &str, link: &str) {
    let net = if address.contains(':') { format!("{address}/128") } else { format!("{address}/32") };
    let nodad = (verb == "add" && address.contains(':')).then_some("nodad");
    let args: Vec<&str> = ["addr", verb, &net, "dev", link].into_iter().chain(nodad).collect();
    run("ip", &args, &[], PATIENCE).ok();
}

/// The address by which the outside would be reached from here.
fn edge_address() -> Ipv4Addr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect((HUB, 9)).expect("a way out");
    match socket.local_addr().expect("an address").ip() {
        IpAddr::V4(address) => address,
        other => panic!("{other} is not of IPv4"),
    }
}
