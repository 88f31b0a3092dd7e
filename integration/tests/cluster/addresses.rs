//! Which addresses there are: hosts that reach each other over IPv6, networks without a free one, ports at one of several.

use std::{
    collections::BTreeSet,
    net::{IpAddr, UdpSocket},
};

use covey_integration::{
    dns::AAAA,
    lab::{Lab, Wanted},
    reply::{PATIENCE, run},
    space::{ANSWER, Space},
    wait,
};
use serde_json::{Value, json};

const REPAIR: u64 = 20;
/// A host's second address.
const SECOND: &str = "10.77.0.211";

/// Makes a service of witnesses; those of one host where it is named.
fn create(lab: &Lab, name: &str, host: Option<&str>, more: &[&str]) {
    let place = host.map(|host| format!("--constraint=node.hostname=={host}"));
    let args = ["service", "create", "-d", "--no-resolve-image", "--name", name];
    let place: Vec<&str> = place.as_deref().into_iter().collect();
    lab.docker("m1", &[&args[..], &place, more, &["alpine", "witness"]].concat()).ok();
}

/// Where the only task of a service is.
fn inside(lab: &Lab, host: &str, name: &str) -> Space {
    let of_service =
        || lab.running([host]).into_iter().find(|(_, other)| other.starts_with(&format!("{name}.")));
    let (_, container) = wait::until_some(REPAIR, name, of_service);
    lab.space_of(host, &container)
}

/// NET-18, NET-13, LB-01, PRT-01, PRT-14: hosts that know each other by addresses of IPv6 only: names, virtual addresses of
/// both families and published ports work as ever, the client is seen, and nothing of the data path goes over IPv4.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn an_underlay_of_ipv6_carries_everything() {
    let Some(lab) = Lab::up(Wanted { managers: 1, workers: 1, swarm: false }) else { return };
    lab.script(&["exec", "hub", "ip", "addr", "add", "fd77::1/64", "dev", "br0", "nodad"]).ok();
    for (host, address) in [("m1", "fd77::11/64"), ("w1", "fd77::12/64")] {
        lab.load_image(host);
        lab.script(&["exec", host, "ip", "addr", "add", address, "dev", "eth0", "nodad"]).ok();
        // Whatever is sent over IPv4 from host to host is lost.
        lab.script(&["exec", host, "ip", "route", "add", "blackhole", "10.77.0.8/29"]).ok();
    }
    lab.docker("m1", &["swarm", "init", "--advertise-addr", "fd77::11"]).ok();
    let token = lab.docker("m1", &["swarm", "join-token", "-q", "worker"]);
    let join = ["swarm", "join", "--token", token.ok(), "--advertise-addr", "fd77::12"];
    lab.docker("w1", &[&join[..], &["[fd77::11]:2377"]].concat()).ok();

    lab.docker("m1", &["network", "create", "-d", "overlay", "--ipv6", "--subnet", "fd88::/64", "net"]).ok();
    create(&lab, "web", Some("w1"), &["--network", "net", "-p", "8080:80", "-p", "8080:80/udp"]);
    create(&lab, "client", Some("m1"), &["--network", "net"]);
    let client = inside(&lab, "m1", "client");
    let v4 = wait::until_some(REPAIR, "its name", || client.addresses("web").pop());
    let v6 = client.resolve("web", AAAA).records.pop().expect("an address of IPv6");
    for (to, seen_v6) in [(format!("{v4}:80"), false), (format!("[{v6}]:80"), true)] {
        let said = client.ask(&to).expect("its virtual address answers");
        assert_eq!((said.client.is_ipv6(), said.address.is_ipv6()), (seen_v6, seen_v6), "{said:?}");
        client.ask_udp(&to).expect("so it does over UDP");
    }

    let hub = lab.space("hub");
    let here: IpAddr = "fd77::1".parse().expect("an address");
    for to in ["[fd77::11]:8080", "[fd77::12]:8080"] {
        wait::until(REPAIR, to, || hub.ask(to).is_ok());
        assert_eq!(hub.ask(to).expect("it answers").client, here, "the task sees the client, by {to}");
        assert_eq!(hub.ask_udp(to).expect("it answers").client, here, "over UDP as well, by {to}");
    }
    // A client of IPv4 is served all the same: its packets travel inside those of IPv6.
    let to = format!("{}:8080", lab.address("m1"));
    assert_eq!(hub.ask(&to).expect("it answers").client, IpAddr::from([10, 77, 0, 1]));

    // 70 bytes of IPv6, UDP and VXLAN are in front of each packet.
    for host in lab.hosts() {
        let device = lab.script(&["exec", host, "ip", "-d", "link", "show", "cvx4096"]);
        let local = if host == "m1" { "local fd77::11" } else { "local fd77::12" };
        assert!(device.ok().contains("mtu 1430") && device.out.contains(local), "{}", device.out);
        let router = lab.script(&[
            "exec",
            host,
            "sh",
            "-c",
            "nsenter --net=$(ls -d /run/covey/netns/net-*) ip -d link show type vxlan",
        ]);
        assert!(router.ok().contains("mtu 1430") && router.out.contains(local), "{}", router.out);
    }
}

/// Bytes of a packet, at most, of all links of this kind of name, from where this thread is.
fn packet_sizes(links: &str) -> BTreeSet<u32> {
    let shown = run("ip", &["-o", "link"], &[], PATIENCE);
    let size = |line: &str| {
        let mut words = line.split_whitespace();
        words.nth(1).filter(|name| name.starts_with(links))?;
        words.find(|word| *word == "mtu")?;
        words.next()?.parse().ok()
    };
    shown.ok().lines().filter_map(size).collect()
}

/// NET-18: where the underlay takes smaller packets than before, or larger ones, so do all links above it soon, at both of
/// their ends; and packets of that size pass.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_change_of_the_underlays_packet_size_is_followed_by_every_link() {
    let Some(lab) = Lab::cluster_with("--repair-interval 1s", 1, 1) else { return };
    lab.docker("m1", &["network", "create", "-d", "overlay", "net"]).ok();
    create(&lab, "web", Some("w1"), &["--network", "net"]);
    create(&lab, "client", Some("m1"), &["--network", "net"]);
    let (client, web) = (inside(&lab, "m1", "client"), inside(&lab, "w1", "web"));
    let task = wait::until_some(REPAIR, "the task", || client.addresses("tasks.web").pop());
    let task: IpAddr = task.parse().expect("an address");
    for underlay in [1400_u32, 1500, 1450] {
        let wanted = underlay - 50;
        for host in lab.hosts() {
            lab.script(&["exec", host, "ip", "link", "set", "eth0", "mtu", &underlay.to_string()]).ok();
        }
        let routers = lab.hosts().flat_map(|host| lab.routers(host)).collect::<Vec<_>>();
        let sizes = || -> BTreeSet<u32> {
            let outside = lab.hosts().map(|host| lab.space(host).run(|| packet_sizes("cv")));
            let within = routers.iter().map(|router| router.run(|| packet_sizes("cv")));
            let ends = [&client, &web].map(|container| container.run(|| packet_sizes("eth")));
            outside.chain(within).chain(ends).flatten().collect()
        };
        wait::until_equal(REPAIR, "the size of packets", &[wanted].into(), sizes);
        let near = client.run(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
        let far = web.run(|| UdpSocket::bind((task, 0))).expect("a socket");
        far.set_read_timeout(Some(ANSWER)).expect("a plain call");
        // IPv4 and UDP have 28 bytes of each packet.
        let full = vec![7; wanted as usize - 28];
        near.send_to(&full, far.local_addr().expect("an address")).expect("it is sent");
        assert_eq!(far.recv(&mut [0; 2000]).expect("it passes"), full.len());
    }
}

/// The error that `service ps` shows of some task.
fn error_of(lab: &Lab, service: &str) -> Option<String> {
    let shown = lab.docker("m1", &["service", "ps", "--no-trunc", "--format", "{{.Error}}", service]);
    shown.out.lines().find(|line| !line.is_empty()).map(str::to_owned)
}

/// NET-17: a task that finds no free address says so, and starts by itself as soon as there is one.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_task_without_a_free_address_says_so_and_goes_on_when_one_is_freed() {
    let Some(lab) = Lab::cluster(1, 1) else { return };
    lab.docker("m1", &["network", "create", "-d", "overlay", "--subnet", "10.60.0.0/29", "tiny"]).ok();
    // Of 8 addresses the first, the last and the gateway are nobody's; a virtual address is one of the others.
    create(&lab, "first", None, &["--network", "tiny"]);
    create(&lab, "many", None, &["--network", "tiny", "--endpoint-mode", "dnsrr", "--replicas", "5"]);
    wait::until_equal(REPAIR, "all that there is place for", &4, || lab.running(lab.hosts()).len());
    let said = wait::until_some(REPAIR, "its error", || error_of(&lab, "many"));
    assert!(said.contains("network tiny has no free address (6 used)"), "{said}");
    wait::stays(1, "no more than there is place for", &4, || lab.running(lab.hosts()).len());

    lab.docker("m1", &["service", "rm", "first"]).ok();
    wait::until_equal(REPAIR, "the fifth", &vec![1, 2, 3, 4, 5], || lab.slots("many", lab.hosts()));
    wait::until_equal(REPAIR, "the end of its error", &None, || error_of(&lab, "many"));
    let (host, name) = lab.running(lab.hosts()).pop().expect("one of them");
    let space = lab.space_of(&host, &name);
    wait::until_equal(REPAIR, "all of their names", &5, || space.addresses("many").len());
}

/// PRT-06, moby#26696: a port that is published at one address answers there and at no other, on the host that has the
/// address; another service has the same port at another one.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_port_published_at_one_address_answers_there_only() {
    let Some(lab) = Lab::cluster(1, 1) else { return };
    let first = lab.address("m1");
    lab.script(&["exec", "m1", "ip", "addr", "add", &format!("{SECOND}/24"), "dev", "eth0"]).ok();
    lab.docker("m1", &["network", "create", "-d", "overlay", "net"]).ok();
    let service = |name: &str, address: &str, mode: &str, published: u16| {
        let port = json!({"Protocol": "tcp", "TargetPort": 80, "PublishedPort": published, "PublishMode": mode,
            "HostIP": address});
        let container = json!({"Image": "alpine", "Args": ["witness"]});
        let placement = json!({"Constraints": ["node.hostname==m1"]});
        let placement = if mode == "host" { placement } else { json!({}) };
        let body = json!({"Name": name, "TaskTemplate": {"ContainerSpec": container, "Placement": placement},
            "EndpointSpec": {"Ports": [port]}});
        let (status, answer) = lab.request("m1", "POST", "/services/create", Some(&body.to_string()));
        assert_eq!(status, 201, "{answer}");
    };
    service("near", &first, "ingress", 8080);
    service("far", SECOND, "ingress", 8080);
    service("own", SECOND, "host", 9090);
    let hub = lab.space("hub");
    let host_of = |to: String| hub.ask(&to).ok().map(|said| said.host);
    let near = wait::until_some(REPAIR, "the first address", || host_of(format!("{first}:8080")));
    let far = wait::until_some(REPAIR, "the second address", || host_of(format!("{SECOND}:8080")));
    wait::until_some(REPAIR, "the port of the host", || host_of(format!("{SECOND}:9090")));
    assert_ne!(near, far, "two services");
    for _ in 0..8 {
        assert_eq!(host_of(format!("{first}:8080")).as_deref(), Some(&*near));
        assert_eq!(host_of(format!("{SECOND}:8080")).as_deref(), Some(&*far));
    }
    for silent in [
        format!("{first}:9090"),
        format!("{}:8080", lab.address("w1")),
        format!("{}:9090", lab.address("w1")),
    ] {
        assert_eq!(host_of(silent.clone()), None, "{silent}");
    }
    let shown: Value = lab.get("m1", "/services/own").expect("it is there");
    assert_eq!(shown["Endpoint"]["Ports"][0]["HostIP"], SECOND);
    // Both ports at every address: that would mean two things.
    let port = json!({"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080});
    let body = json!({"Name": "all", "TaskTemplate": {"ContainerSpec": {"Image": "alpine"}},
        "EndpointSpec": {"Ports": [port]}});
    let (status, answer) = lab.request("m1", "POST", "/services/create", Some(&body.to_string()));
    assert!(
        status >= 400 && answer.contains("port '8080' is already in use by service"),
        "{status} {answer}"
    );
}

/// PRT-05: a host whose task is behind a port asks another host for it, by whatever addresses the two have: none of its
/// own can come back to it as a source.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_host_reaches_a_task_of_its_own_by_every_address_of_another() {
    let Some(lab) = Lab::cluster(1, 1) else { return };
    create(&lab, "web", Some("w1"), &["-p", "8080:80", "-p", "8080:80/udp"]);
    lab.covey("w1", &["run", "-d", "--name", "client", "alpine", "sleep", "10000"]).ok();
    for (host, addresses) in
        [("m1", ["198.51.100.11/24", "fd77::11/64"]), ("w1", ["198.51.100.12/24", "fd77::12/64"])]
    {
        for address in addresses {
            let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
            let add = ["exec", host, "ip", "addr", "add", address, "dev", "eth0"];
            lab.script(&[&add[..], nodad].concat()).ok();
        }
    }
    let (host, client) = (lab.space("w1"), lab.space_of("w1", "client"));
    let first = format!("{}:8080", lab.address("m1"));
    for (to, seen) in [
        (first.as_str(), "100.64.1.0"),
        ("198.51.100.11:8080", "100.64.1.0"),
        ("[fd77::11]:8080", "fd00:c0e7:0:1::"),
    ] {
        let asked =
            || [host.ask(to), host.ask_udp(to), client.ask(to)].map(|said| said.ok().map(|said| said.client));
        let seen: IpAddr = seen.parse().expect("an address");
        wait::until_equal(REPAIR, to, &[Some(seen); 3], asked);
    }
}
