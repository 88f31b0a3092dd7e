//! The networks examined and explained: `covey net doctor`, `covey net path`, and what `/metrics` counts.

use covey_integration::{
    lab::{ALPINE, Lab},
    reply::Reply,
    wait,
};

/// Until gossip has told what changed, with room for a busy machine.
const HEARD: u64 = 15;
/// Until a host that was away is one of the others again.
const BACK: u64 = 40;

fn doctor(lab: &Lab, host: &str) -> Reply {
    lab.covey(host, &["net", "doctor"])
}

/// Three hosts, a network, a web server on m2 behind a published port, and a container of m1 beside it.
fn examined() -> Option<Lab> {
    let lab = Lab::cluster(3, 0)?;
    lab.covey("m1", &["network", "create", "-d", "overlay", "--attachable", "front"]).ok();
    let place = ["--network", "front", "--constraint", "node.hostname==m2", "-p", "8080:80"];
    let create = [&["service", "create", "-d", "--no-resolve-image", "--name", "web"], &place[..]].concat();
    lab.covey("m1", &[&create[..], &[ALPINE, "httpd", "-f", "-p", "[::]:80", "-h", "/"]].concat()).ok();
    lab.covey("m1", &["run", "-d", "--name", "box", "--network", "front", ALPINE, "sleep", "10000"]).ok();
    wait::until(HEARD, "the web server", || path(&lab, "web:80").contains("it answers"));
    Some(lab)
}

fn path(lab: &Lab, to: &str) -> String {
    lab.covey("m1", &["net", "path", "box", to]).out
}

/// The steps of a printed way, and whether a packet was seen to pass there.
fn steps(printed: &str) -> Vec<(&str, bool)> {
    let step = |line: &str| line.split(' ').next().is_some_and(|step| !step.is_empty());
    let lines = printed.lines().skip(1).filter(|line| step(line));
    lines.map(|line| (line.split(' ').next().unwrap_or_default(), line.contains("(+"))).collect()
}

/// The value of a metric of a host.
fn metric(lab: &Lab, host: &str, name: &str) -> Option<u64> {
    let (status, text) = lab.request(host, "GET", "/metrics", None);
    assert_eq!(status, 200, "{text}");
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// NET-35: what keeps it from being so is found, told and, where it can be, mended.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn the_doctor_finds_what_is_wrong_with_networks() {
    let Some(lab) = examined() else { return };
    wait::until(HEARD, "a clean bill of health", || doctor(&lab, "m3").code == 0);
    let well = lab.covey("m3", &["net", "doctor", "-v"]);
    for line in ["data path to m2   packets of 1450 bytes pass", "links, ways and tables are as wanted"] {
        assert!(well.ok().contains(line), "no {line:?} in {}", well.out);
    }
    assert!(well.out.contains("3 hosts, 2 networks: ") && !well.out.contains(" wrong"), "{}", well.out);

    // Somebody meddles: found and mended by whoever looks first, and counted.
    let drift = r#"covey_dataplane_drift_total{object="fdb"}"#;
    let (before, repairs) = (metric(&lab, "m1", drift), metric(&lab, "m1", "covey_dataplane_repairs_total"));
    let show = ["exec", "m1", "bridge", "fdb", "show", "dev", "cvx4096"];
    let entries = lab.script(&show).ok().lines().count();
    let entry = lab
        .script(&show)
        .ok()
        .lines()
        .find(|line| line.contains("10.77.0.12"))
        .unwrap_or_default()
        .to_owned();
    let mac = entry.split(' ').next().unwrap_or_default();
    lab.script(&["exec", "m1", "bridge", "fdb", "del", mac, "dev", "cvx4096", "dst", "10.77.0.12"]).ok();
    let found = doctor(&lab, "m2");
    assert!(found.ok().contains("repaired"), "{}", found.out);
    assert!(found.out.contains("fdb"), "{}", found.out);
    assert_eq!(lab.script(&show).ok().lines().count(), entries);
    assert_eq!(metric(&lab, "m1", drift), before.map(|count| count + 1));
    assert_eq!(metric(&lab, "m1", "covey_dataplane_repairs_total"), repairs.map(|count| count + 1));
    assert_eq!(metric(&lab, "m1", "covey_networks"), Some(1));
    let id = lab.get("m1", "/containers/box/json").expect("it is there")["Id"].take();
    let id = id.as_str().unwrap_or_default();
    let space = format!("--net=/run/covey/netns/{id}");
    lab.script(&["exec", "m1", "nsenter", &space, "nft", "delete", "table", "inet", "covey-dns"]).ok();
    let found = doctor(&lab, "m2");
    let what = format!("resolver of container {id:.12}");
    assert!(
        found.ok().contains(&what) || found.out.contains("drift of resolver"),
        "no {what} in {}",
        found.out
    );

    // What no host can mend by itself.
    let listener = "busybox nc -l -p 7777 </dev/null >/dev/null 2>&1 &";
    lab.script(&["exec", "m1", "sh", "-c", listener]).ok();
    let publish = ["service", "update", "-d", "--publish-add", "7777:80", "web"];
    lab.covey("m1", &publish).ok();
    wait::until(HEARD, "the port that is taken", || {
        let found = doctor(&lab, "m3");
        found.code == 1 && found.out.contains("port 7777/tcp of this host is in use by another process")
    });
    lab.covey("m1", &["service", "update", "-d", "--publish-rm", "80", "--publish-add", "8080:80", "web"])
        .ok();
    wait::until(HEARD, "the end of the port that is taken", || doctor(&lab, "m3").code == 0);

    lab.script(&["exec", "m2", "nft", "add table inet other"]).ok();
    let chain = "add chain inet other fw { type filter hook forward priority 0; policy drop; }";
    lab.script(&["exec", "m2", "nft", chain]).ok();
    let found = doctor(&lab, "m1");
    assert_eq!(found.code, 1);
    assert!(found.out.contains("nft inet other fw"), "{}", found.out);
    lab.script(&["exec", "m2", "nft", "delete table inet other"]).ok();

    lab.script(&["exec", "m1", "ip", "link", "set", "eth0", "mtu", "1400"]).ok();
    let found = doctor(&lab, "m2");
    assert_eq!(found.code, 1);
    assert!(
        found.out.contains("data path to m1   small packets pass, those of 1450 bytes do not"),
        "{}",
        found.out
    );
    lab.script(&["exec", "m1", "ip", "link", "set", "eth0", "mtu", "1500"]).ok();

    lab.script(&["cut", "m3"]).ok();
    let found = doctor(&lab, "m1");
    assert_eq!(found.code, 1);
    for line in ["host      does not answer", "data path to m3   no echo comes back"] {
        assert!(found.out.contains(line), "no {line:?} in {}", found.out);
    }
    lab.script(&["heal", "m3"]).ok();
    wait::until(BACK, "health again", || doctor(&lab, "m1").code == 0);
}

/// NET-35: each step by which it is so is shown.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn the_way_of_a_packet_is_shown_with_the_counters_that_it_moved() {
    let Some(lab) = examined() else { return };
    let way = [("host", false), ("vtep", false), ("fdb", true), ("veth", true), ("answer", false)];
    let by_name =
        [&[("dns", false), ("container", true), ("vip", false), ("backend", false)], &way[..]].concat();
    let printed = path(&lab, "web:80");
    assert_eq!(steps(&printed), by_name, "{printed}");
    for word in [
        "network front knows web",
        "is virtual",
        "web.1.",
        "is on m2",
        "behind 10.77.0.12",
        ", on m2",
        "it answers",
    ] {
        assert!(printed.contains(word), "no {word:?} in {printed}");
    }

    // One that nobody takes, and one that says nothing.
    let refused = path(&lab, "web:81");
    assert_eq!(steps(&refused), by_name, "{refused}");
    assert!(refused.contains("the connection is refused"), "{refused}");
    let udp = path(&lab, "web:9/udp");
    assert_eq!(steps(&udp), by_name, "{udp}");

    // A port that this host publishes, and the task itself.
    let published = path(&lab, "10.77.0.11:8080");
    let by_port = [&[("container", true), ("vip", false), ("backend", false)], &way[..]].concat();
    assert_eq!(steps(&published), by_port, "{published}");
    assert!(published.contains("port 8080/tcp of this host is published"), "{published}");
    let task = path(&lab, "tasks.web:80");
    assert_eq!(steps(&task), [&[("dns", false), ("container", true)], &way[..]].concat(), "{task}");

    // Ways that end say why.
    let last = |to: &str| path(&lab, to).trim().lines().last().unwrap_or_default().to_owned();
    assert!(last("nobody:80").contains("nobody is no name in front"), "{}", last("nobody:80"));
    assert!(last("127.0.0.1:80").contains("is the container itself"), "{}", last("127.0.0.1:80"));
    lab.covey("m1", &["net", "path", "nosuch", "web:80"]).refused_with("No such container: nosuch");
    lab.covey("m1", &["net", "path", "box", "web"]).refused_with("NAME:PORT");
}
