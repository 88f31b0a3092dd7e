//! Plain containers in networks: those of their host, and attachable ones of the cluster; and ports of their host.

use std::{collections::BTreeSet, fs};

use covey_integration::{
    lab::{ALPINE, Lab, Wanted},
    residue, wait,
};

/// Until gossip has told what changed, with room for a busy machine.
const HEARD: u64 = 10;

/// Starts a container that sleeps.
fn sleeper(lab: &Lab, host: &str, name: &str, options: &[&str]) {
    let args = [&["run", "-d", "--name", name], options, &[ALPINE, "sleep", "10000"]].concat();
    lab.docker(host, &args).ok();
}

/// Starts a web server that says `name` on port 80.
fn server(lab: &Lab, host: &str, name: &str, options: &[&str]) {
    let script = format!("echo {name} > /index.html; exec httpd -f -p [::]:80 -h /");
    let args = [&["run", "-d", "--name", name], options, &[ALPINE, "sh", "-c", &script]].concat();
    lab.docker(host, &args).ok();
}

/// Whether `to` answers `from`.
fn reaches(lab: &Lab, host: &str, from: &str, to: &str) -> bool {
    lab.docker(host, &["exec", from, "ping", "-c", "1", "-w", "1", to]).code == 0
}

/// The links of a container: number and name.
fn links(lab: &Lab, host: &str, container: &str) -> BTreeSet<(String, String)> {
    let list = lab.space_of(host, container).run(|| fs::read_to_string("/proc/thread-self/net/if_inet6"));
    let link = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[1].to_owned(), words[5].to_owned())
    };
    list.expect("links have IPv6 addresses").lines().map(link).collect()
}

/// What a web server says at this address, as `place` hears it; empty where there is none.
fn heard(lab: &Lab, place: &str, url: &str) -> String {
    lab.script(&["exec", place, "curl", "-sm", "2", url]).out.trim().to_owned()
}

fn lonely_host() -> Option<Lab> {
    let lab = Lab::up(Wanted { managers: 1, workers: 0, swarm: false })?;
    lab.load_image("m1");
    Some(lab)
}

/// NET-12, NET-14, NET-15, NET-20, NET-24, NET-26
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn containers_on_a_network_of_their_host_know_each_other_by_name() {
    let Some(lab) = lonely_host() else { return };
    let docker = |args: &[&str]| lab.docker("m1", args);
    // The parent of all containers' control groups is made with the first of them.
    docker(&["run", "--rm", ALPINE, "true"]).ok();
    let before = residue::of_host(&lab, "m1");
    let id = docker(&["network", "create", "--label", "tier=back", "back"]).ok().to_owned();
    assert_eq!(id.len(), 64);
    docker(&["network", "create", "back"]).refused_with("network with name back already exists");
    let overlap = docker(&["network", "create", "--subnet", "172.18.5.0/24", "other"]);
    overlap.refused_with("Pool overlaps with other one on this address space");
    docker(&["network", "create", "--subnet", "100.64.9.0/24", "other"]).refused_with("Pool overlaps");
    docker(&["network", "create", "--internal", "--subnet", "10.9.0.0/24", "inner"]).ok();

    sleeper(&lab, "m1", "one", &["--network", "back", "--network-alias", "first"]);
    sleeper(&lab, "m1", "two", &["--network", "back", "--ip", "172.18.0.77"]);
    sleeper(&lab, "m1", "apart", &[]);
    let short = docker(&["inspect", "-f", "{{slice .Id 0 12}}", "one"]).ok().to_owned();
    for name in ["one", "first", &short, "one.back"] {
        assert!(reaches(&lab, "m1", "two", name), "{name}");
    }
    assert!(reaches(&lab, "m1", "one", "172.18.0.77"));
    assert!(!reaches(&lab, "m1", "apart", "172.18.0.77"), "it is in another network");
    let taken = docker(&["run", "--rm", "--network", "back", "--ip", "172.18.0.77", ALPINE, "true"]);
    taken.refused_with("Address already in use");
    docker(&["run", "--rm", "--network", "nosuch", ALPINE, "true"]).refused_with("network nosuch not found");

    sleeper(&lab, "m1", "hidden", &["--network", "inner"]);
    let out = docker(&["exec", "hidden", "ping", "-c", "1", "-w", "1", "10.77.0.1"]);
    out.refused_with("Network is unreachable");

    // Everything is as it was after the daemon was killed.
    lab.script(&["restart", "m1"]).ok();
    assert!(reaches(&lab, "m1", "two", "first"));
    assert_eq!(docker(&["network", "ls", "-q", "-f", "label=tier=back"]).ok(), &id[..12]);

    let in_use = docker(&["network", "rm", "back"]);
    in_use.refused_with("network back has active endpoints");
    docker(&["rm", "-f", "one", "two", "apart", "hidden"]).ok();
    let pruned = docker(&["network", "prune", "-f"]);
    assert_eq!(pruned.ok().lines().skip(1).collect::<BTreeSet<_>>(), ["back", "inner"].into());
    wait::until_equal(HEARD, "the host as it was", &Vec::new(), || {
        residue::of_host(&lab, "m1").difference(&before).cloned().collect::<Vec<_>>()
    });
}

/// NET-20, NET-26
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn containers_come_and_go_in_networks_while_they_run() {
    let Some(lab) = lonely_host() else { return };
    let docker = |args: &[&str]| lab.docker("m1", args);
    for name in ["left", "right"] {
        docker(&["network", "create", name]).ok();
    }
    sleeper(&lab, "m1", "west", &["--network", "left"]);
    sleeper(&lab, "m1", "east", &["--network", "right"]);
    sleeper(&lab, "m1", "goer", &[]);
    docker(&["network", "connect", "--alias", "guest", "left", "goer"]).ok();
    docker(&["network", "connect", "right", "goer"]).ok();
    assert!(reaches(&lab, "m1", "goer", "west") && reaches(&lab, "m1", "goer", "east"));
    assert!(reaches(&lab, "m1", "west", "guest") && !reaches(&lab, "m1", "east", "guest"));
    assert!(!reaches(&lab, "m1", "west", "east"));
    let again = docker(&["network", "connect", "left", "goer"]);
    again.refused_with("endpoint with name goer already exists in network left");
    let networks =
        ["inspect", "-f", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}", "goer"];
    assert_eq!(docker(&networks).ok(), "bridge left right");

    docker(&["network", "disconnect", "left", "goer"]).ok();
    assert!(!reaches(&lab, "m1", "goer", "west") && reaches(&lab, "m1", "goer", "east"));
    docker(&["network", "disconnect", "left", "goer"]).refused_with("is not connected to network left");
    // What changed counts at the next start, and after a restart of the daemon, which takes over the links as they are.
    let before = links(&lab, "m1", "goer");
    lab.script(&["restart", "m1"]).ok();
    // It is answered when the kernel was looked over.
    lab.request("m1", "GET", "/metrics", None);
    assert_eq!(links(&lab, "m1", "goer"), before);
    assert!(reaches(&lab, "m1", "goer", "east") && !reaches(&lab, "m1", "goer", "west"));
    docker(&["restart", "-t", "0", "goer"]).ok();
    assert!(reaches(&lab, "m1", "east", "goer"));
    assert_eq!(docker(&networks).ok(), "bridge right");

    docker(&["stop", "-t", "0", "goer"]).ok();
    docker(&["network", "connect", "left", "goer"]).ok();
    docker(&["start", "goer"]).ok();
    assert!(reaches(&lab, "m1", "west", "goer"));
    docker(&["rm", "-f", "west"]).ok();
    docker(&["stop", "-t", "0", "goer"]).ok();
    docker(&["network", "rm", "left"]).ok();
    docker(&["start", "goer"]).refused_with("network left not found");
    docker(&["network", "disconnect", "right", "goer"]).ok();
}

/// CTR-03, CTR-11, CTR-13
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_container_finds_names_as_its_user_says_and_another_one_joins_it() {
    let Some(lab) = Lab::cluster(1, 0) else { return };
    let docker = |args: &[&str]| lab.docker("m1", args);
    docker(&["network", "create", "back"]).ok();
    let names = ["--add-host", "db:10.0.0.9", "--add-host", "up:host-gateway", "--dns-search", "corp"];
    let options = [&["--network", "back", "--dns-option", "ndots:2"], &names[..]].concat();
    server(&lab, "m1", "web", &options);
    let files = docker(&["exec", "web", "cat", "/etc/hosts", "/etc/resolv.conf"]).ok().to_owned();
    for line in ["10.0.0.9\tdb", "nameserver 127.0.0.11", "search corp", "options ndots:2"] {
        assert!(files.lines().any(|have| have == line), "{line:?} is not in {files}");
    }
    assert!(reaches(&lab, "m1", "web", "up"), "the host of the container: {files}");
    let nowhere = docker(&["run", "--rm", "--add-host", "db:here", ALPINE, "true"]);
    nowhere.refused_with("invalid IP address");
    docker(&["run", "--rm", "--domainname", "lan", ALPINE, "true"]).refused_with("not yet: --domainname");
    let host = ["run", "--rm", "--network", "host", "--add-host", "db:10.0.0.9", "--dns", "192.0.2.53"];
    let files = docker(&[&host[..], &[ALPINE, "cat", "/etc/hosts", "/etc/resolv.conf"]].concat());
    assert!(files.ok().contains("10.0.0.9\tdb\n") && files.ok().contains("nameserver 192.0.2.53"));

    // What listens in the one is at the loopback of the other.
    let join = ["run", "--rm", "--network", "container:web", ALPINE];
    let said = docker(&[&join[..], &["wget", "-q", "-O", "-", "http://127.0.0.1/"]].concat());
    assert_eq!(said.ok(), "web");
    let shown = docker(&[&join[..], &["cat", "/etc/hosts"]].concat()).ok().to_owned();
    assert!(shown.contains("10.0.0.9\tdb"), "{shown}");
    docker(&["run", "-d", "--name", "side", "--network", "container:web", ALPINE, "sleep", "10000"]).ok();
    docker(&["network", "connect", "bridge", "side"]).refused_with("sharing network namespace");
    // It goes on without the other, but does not start again.
    docker(&["rm", "-f", "web"]).ok();
    assert_eq!(docker(&["exec", "side", "wget", "-q", "-O", "-", "http://127.0.0.1/"]).code, 1);
    docker(&["restart", "-t", "0", "side"]).refused_with("No such container");
    docker(&["rm", "-f", "side"]).ok();
    docker(&["network", "rm", "back"]).ok();
}

/// PRT-11
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_containers_ports_answer_on_its_host_and_nobody_elses_are_taken() {
    let Some(lab) = lonely_host() else { return };
    let docker = |args: &[&str]| lab.docker("m1", args);
    server(&lab, "m1", "web", &["-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "5353:53/udp", "-p", "80"]);
    wait::until_equal(HEARD, "an answer", &"web".to_owned(), || heard(&lab, "hub", "http://10.77.0.11:8080"));
    for (place, url, expected) in [
        ("m1", "http://127.0.0.1:8080", "web"),
        ("m1", "http://10.77.0.11:8080", "web"),
        ("m1", "http://127.0.0.1:8081", "web"),
        ("hub", "http://10.77.0.11:8081", ""),
    ] {
        assert_eq!(heard(&lab, place, url), expected, "{url} from {place}");
    }
    let ports = docker(&["port", "web"]).ok().to_owned();
    assert!(
        ports.contains("53/udp -> 0.0.0.0:5353") && ports.contains("80/tcp -> 127.0.0.1:8081"),
        "{ports}"
    );
    let random = |port: &u16| (32_768..=60_999).contains(port);
    let free = ports.lines().filter_map(|line| line.rsplit(':').next()?.parse().ok()).find(random);
    let free = free.expect("a port of the dynamic range");
    assert_eq!(heard(&lab, "hub", &format!("http://10.77.0.11:{free}")), "web");

    let clash =
        docker(&["run", "-d", "--name", "late", "-p", "8080:80", "-p", "8082:80", ALPINE, "sleep", "10000"]);
    clash.refused_with("port 8080/tcp of this host is in use by another process or container");
    docker(&["rm", "late"]).ok();
    // Nothing of the attempt is left.
    server(&lab, "m1", "next", &["-p", "8082:80"]);
    wait::until_equal(HEARD, "an answer", &"next".to_owned(), || {
        heard(&lab, "hub", "http://10.77.0.11:8082")
    });

    // A way out comes and goes with its ports.
    docker(&["network", "create", "back"]).ok();
    docker(&["network", "connect", "back", "next"]).ok();
    docker(&["network", "disconnect", "bridge", "next"]).ok();
    assert_eq!(heard(&lab, "hub", "http://10.77.0.11:8082"), "next");
    docker(&["network", "disconnect", "back", "next"]).ok();
    assert_eq!(heard(&lab, "hub", "http://10.77.0.11:8082"), "");

    lab.script(&["restart", "m1"]).ok();
    assert_eq!(heard(&lab, "hub", "http://10.77.0.11:8080"), "web");
    docker(&["rm", "-f", "web"]).ok();
    server(&lab, "m1", "heir", &["-p", "8080:80"]);
    wait::until_equal(HEARD, "an answer", &"heir".to_owned(), || {
        heard(&lab, "hub", "http://10.77.0.11:8080")
    });
}

/// NET-17, NET-18; NET-19 is lifted (C-30)
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_plain_container_on_an_attachable_overlay_meets_services_and_others_on_all_hosts() {
    let Some(lab) = Lab::cluster(1, 1) else { return };
    lab.docker("m1", &["network", "create", "-d", "overlay", "--attachable", "wide"]).ok();
    lab.docker("m1", &["network", "create", "-d", "overlay", "closed"]).ok();
    // A worker does not know networks that it does not carry: it asks.
    let closed = lab.docker("w1", &["run", "--rm", "--network", "closed", ALPINE, "true"]);
    closed.refused_with("not manually attachable");
    lab.docker("w1", &["run", "--rm", "--network", "nosuch", ALPINE, "true"])
        .refused_with("network nosuch not found");

    sleeper(&lab, "w1", "far", &["--network", "wide", "--network-alias", "distant"]);
    sleeper(&lab, "m1", "near", &["--network", "wide"]);
    let create = ["service", "create", "-d", "--no-resolve-image", "--name", "web", "--network", "wide"];
    let script = "echo $HOSTNAME > /index.html; exec httpd -f -p 80 -h /";
    lab.docker("m1", &[&create[..], &["--replicas", "2", ALPINE, "sh", "-c", script]].concat()).ok();
    wait::until(HEARD, "far by name", || reaches(&lab, "m1", "near", "distant"));
    wait::until(HEARD, "near by name", || reaches(&lab, "w1", "far", "near"));
    wait::until(HEARD, "the service, as a container asks", || {
        lab.docker("w1", &["exec", "far", "wget", "-q", "-O", "-", "http://web/"]).code == 0
    });
    assert!(!lab.docker("w1", &["exec", "far", "cat", "/etc/resolv.conf"]).ok().contains("10.77"));

    let address = "{{(index .NetworkSettings.Networks \"wide\").IPAddress}}";
    let taken = lab.docker("m1", &["inspect", "-f", address, "near"]).ok().to_owned();
    let clash = lab.docker("w1", &["run", "--rm", "--network", "wide", "--ip", &taken, ALPINE, "true"]);
    clash.refused_with("is already in use");

    // It runs on while the daemon does not, and is known as before. A name that the new daemon has not heard yet is asked
    // outside, where nobody answers: one such question takes the C library's ten seconds.
    lab.script(&["restart", "w1"]).ok();
    wait::until(4 * HEARD, "far as before", || {
        reaches(&lab, "m1", "near", "far") && reaches(&lab, "w1", "far", "near")
    });

    sleeper(&lab, "w1", "late", &[]);
    lab.docker("w1", &["network", "connect", "--alias", "latest", "wide", "late"]).ok();
    wait::until(HEARD, "whoever joined later", || reaches(&lab, "m1", "near", "latest"));
    lab.docker("w1", &["network", "disconnect", "wide", "late"]).ok();
    wait::until(HEARD, "it to be gone", || !reaches(&lab, "m1", "near", "latest"));

    lab.docker("w1", &["stop", "-t", "0", "far"]).ok();
    wait::until(HEARD, "its name to be gone", || !reaches(&lab, "m1", "near", "far"));
    let of_tasks = "is in use by service";
    lab.docker("m1", &["network", "rm", "wide"]).refused_with(of_tasks);
    lab.docker("m1", &["service", "rm", "web"]).ok();
    lab.docker("m1", &["rm", "-f", "near"]).ok();
    let mut refusal = String::new();
    wait::until(30, "the tasks to be gone", || {
        refusal = lab.docker("m1", &["network", "rm", "wide"]).refused().to_owned();
        !refusal.contains("task")
    });
    assert!(refusal.contains("in use by container far"), "{refusal}");
    lab.docker("w1", &["rm", "far"]).ok();
    lab.docker("m1", &["network", "rm", "wide"]).ok();
}

/// What a container that is gone held is free again, however it went.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn places_in_a_network_are_given_back_whatever_ends_a_container() {
    let Some(lab) = Lab::cluster(1, 1) else { return };
    let used = |network: &str| lab.docker("m1", &["network", "rm", network]).code != 0;
    let create = |network: &str| {
        lab.docker("m1", &["network", "create", "-d", "overlay", "--attachable", network]).ok();
    };
    create("one");
    sleeper(&lab, "w1", "brief", &["--rm", "--network", "one"]);
    assert!(used("one"));
    lab.docker("w1", &["kill", "brief"]).ok();
    wait::until(HEARD, "one that removed itself", || !used("one"));

    create("two");
    sleeper(&lab, "w1", "named", &[]);
    let twice = lab.docker("w1", &["run", "-d", "--name", "named", "--network", "two", ALPINE, "true"]);
    twice.refused_with("is already in use by container");
    wait::until(HEARD, "one that was never made", || !used("two"));

    // It ends while no daemon looks, and no manager can be asked when one does.
    create("three");
    sleeper(&lab, "w1", "gone", &["--rm", "--network", "three"]);
    lab.script(&["cut", "w1"]).ok();
    lab.docker("w1", &["kill", "gone"]).ok();
    wait::until(HEARD, "its end", || lab.docker("w1", &["inspect", "gone"]).code != 0);
    assert!(used("three"));
    lab.script(&["heal", "w1"]).ok();
    wait::until(40, "the place to be given back", || !used("three"));
}
