//! Who does not reach whom by the addresses that containers have at the edge.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use covey_integration::{
    lab::{ALPINE, Lab},
    space::{ANSWER, Space},
    wait,
};

/// Until what was told to start runs.
const START: u64 = 30;
/// Documentation addresses (RFC 5737, RFC 3849), on which no packet is sent.
const ELSEWHERE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// A container: where it runs, and its network.
struct Inside {
    name: String,
    space: Space,
}

impl Inside {
    fn of(lab: &Lab, host: &str, container: &str) -> Self {
        Self { name: format!("{container} of {host}"), space: lab.space_of(host, container) }
    }

    /// Its addresses at the edge: what it leaves for the world with.
    fn addresses(&self) -> [IpAddr; 2] {
        self.space.run(|| {
            ELSEWHERE.map(|elsewhere| {
                let any = if elsewhere.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
                let socket = UdpSocket::bind(any).expect("a socket");
                socket.connect(elsewhere).expect("there is a way out");
                socket.local_addr().expect("it has an address").ip()
            })
        })
    }

    /// Whether a port that `other` listens at is reached by both of its addresses; if not, that is told at once.
    fn reaches(&self, other: &Self) -> bool {
        let reached = other.addresses().map(|address| {
            let listener = other.space.run(|| TcpListener::bind((address, 0))).expect("a listener");
            let to = listener.local_addr().expect("it has an address");
            match self.connect(to) {
                Ok(()) => true,
                Err(error) => {
                    assert_eq!(
                        error.kind(),
                        ErrorKind::ConnectionRefused,
                        "{} to {}: {error}",
                        self.name,
                        other.name
                    );
                    false
                }
            }
        });
        assert_eq!(reached[0], reached[1], "{} to {} by IPv4 and by IPv6", self.name, other.name);
        reached[0]
    }

    fn connect(&self, to: SocketAddr) -> io::Result<()> {
        self.space.run(|| TcpStream::connect_timeout(&to, ANSWER)).map(drop)
    }
}

/// Containers of several networks are one another's strangers, by the way that all of them have out of their hosts as
/// well; those on a host's bridge are not.
///
/// NET-05, NET-18, NET-20, NET-21, NET-22
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn containers_of_different_networks_do_not_reach_each_other() {
    let Some(lab) = Lab::cluster(1, 1) else { return };
    lab.load_image("m1");
    lab.load_image("w1");
    for network in ["left", "right"] {
        lab.docker("m1", &["network", "create", "-d", "overlay", network]).ok();
    }
    let create = ["service", "create", "-d", "--no-resolve-image", "--replicas", "2", "--name"];
    for (name, options) in [
        ("left", &["--network", "left", "-p", "8080:80"][..]),
        ("right", &["--network", "right"]),
        ("open", &[]),
        ("closed", &["-p", "8081:81"]),
    ] {
        lab.docker("m1", &[&create[..], &[name], options, &[ALPINE, "sleep", "10000"]].concat()).ok();
    }
    lab.docker("m1", &["run", "-d", "--name", "plain", ALPINE, "sleep", "10000"]).ok();
    wait::until_equal(START, "containers that run", &9, || lab.running(["m1", "w1"]).len());
    let of = |host: &str, service: &str| {
        let running = lab.running([host]);
        let (_, container) = running.iter().find(|(_, name)| name.starts_with(service)).expect("it runs");
        Inside::of(&lab, host, container)
    };
    let on = |host: &str| ["left.", "right.", "open.", "closed."].map(|service| of(host, service));
    let [left, right, open, closed] = on("m1");
    let [far_left, far_right, far_open, far_closed] = on("w1");
    let plain = of("m1", "plain");

    for from in [&left, &right, &closed] {
        for to in [&left, &right, &open, &closed, &plain, &far_left, &far_right, &far_open, &far_closed] {
            let itself = from.name == to.name;
            assert_eq!(from.reaches(to), itself, "{} to {}", from.name, to.name);
            assert!(itself || !to.reaches(from), "{} to {}", to.name, from.name);
        }
    }
    assert!(open.reaches(&plain) && plain.reaches(&open), "both are on their host's bridge");
    assert!(!plain.reaches(&far_open), "a bridge is a host's own");
    // By its published port everybody reaches a service.
    let _listener = left.space.run(|| TcpListener::bind("0.0.0.0:80")).expect("a listener");
    let _other = far_left.space.run(|| TcpListener::bind("0.0.0.0:80")).expect("a listener");
    for from in [&left, &right, &open, &plain, &far_closed] {
        for host in ["m1", "w1"] {
            let to = SocketAddr::new(lab.address(host).parse().expect("an address"), 8080);
            from.connect(to).unwrap_or_else(|error| panic!("{} to {to}: {error}", from.name));
        }
    }
}

/// Somebody beside the hosts who has a route to their containers, by their own host or by another one, reaches nothing
/// of them but published ports. The hosts themselves do.
///
/// NET-05, NET-18, PRT-05
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn whoever_has_a_route_to_containers_does_not_reach_them_by_it() {
    let Some(lab) = Lab::cluster(1, 1) else { return };
    lab.load_image("m1");
    lab.load_image("w1");
    for (host, place) in [("m1", 11), ("w1", 12), ("hub", 1)] {
        let link = if host == "hub" { "br0" } else { "eth0" };
        let address = format!("fd77::{place}/64");
        lab.script(&["exec", host, "ip", "-6", "addr", "add", &address, "dev", link, "nodad"]).ok();
    }
    let create = ["service", "create", "-d", "--no-resolve-image", "--replicas", "2", "--name"];
    lab.docker("m1", &[&create[..], &["web", "-p", "8080:80", ALPINE, "sleep", "10000"]].concat()).ok();
    lab.docker("m1", &[&create[..], &["open", ALPINE, "sleep", "10000"]].concat()).ok();
    wait::until_equal(START, "containers that run", &4, || lab.running(["m1", "w1"]).len());
    let running = lab.running(["m1", "w1"]);
    let containers: Vec<_> = running.iter().map(|(host, name)| Inside::of(&lab, host, name)).collect();
    let at = |host: &str| Inside { name: host.to_owned(), space: lab.space(host) };
    let (somebody, hosts) = (at("hub"), ["m1", "w1"].map(at));

    for (host, place) in [("m1", 11), ("w1", 12)] {
        for (family, to, by) in [
            ("-4", "100.64.0.0/10", format!("10.77.0.{place}")),
            ("-6", "fd00:c0e7::/40", format!("fd77::{place}")),
        ] {
            lab.script(&["exec", "hub", "ip", family, "route", "replace", to, "via", &by]).ok();
        }
        for container in &containers {
            assert!(!somebody.reaches(container), "by {host} to {}", container.name);
        }
    }
    for (host, container) in hosts.iter().flat_map(|host| containers.iter().map(move |to| (host, to))) {
        assert!(host.reaches(container), "{} to {}", host.name, container.name);
    }
    let listen = |web: &Inside| {
        web.space.run(|| TcpListener::bind("[::]:80")).expect("it listens at its published port")
    };
    let _listeners: Vec<_> = containers.iter().filter(|it| it.name.starts_with("web")).map(listen).collect();
    for to in ["10.77.0.11:8080", "10.77.0.12:8080", "[fd77::11]:8080", "[fd77::12]:8080"] {
        let to = to.parse().expect("an address");
        somebody.connect(to).unwrap_or_else(|error| panic!("somebody to {to}: {error}"));
    }
}
