//! Kernel objects of ours that somebody takes away or alters are put back, and nothing of others is touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use covey_integration::{lab::Lab, reply::Reply, residue, wait};

/// Seconds for a repair: daemons look every second here.
const REPAIR: u64 = 20;
/// Blows that fall at a time, and how often some fall.
const BLOWS: usize = 8;
const ROUNDS: usize = 5;
/// The blows of every run, unless `COVEY_SEED` names others (`scripts/soak drift`).
const SEED: u64 = 7;
/// What somebody else has in each host.
const FOREIGN: &str = "ip link add trap address 02:00:00:00:00:01 type bridge && \
    ip link add other type bridge && ip link set other up && ip addr add 198.51.100.1/24 dev other && \
    ip route add 203.0.113.0/24 dev other && ip rule add pref 5000 fwmark 7 lookup 77 && \
    ip route add default dev other table 77 && ip neigh add 198.51.100.9 lladdr 02:00:00:00:00:09 dev other && \
    nft add table inet foreign && nft add map inet foreign ports '{ type inet_service : ipv4_addr; }' && \
    nft add element inet foreign ports '{ 80 : 198.51.100.7 }' && \
    nft add chain inet foreign forward '{ type filter hook forward priority 0; }' && \
    nft add rule inet foreign forward tcp dport 81 counter accept";
const SHOW_FOREIGN: &str = "nft -s list table inet foreign; ip -4 addr show dev other; ip route show dev other; \
    ip route show table 77; ip rule show pref 5000; ip neigh show dev other nud permanent";
/// What a container has of its own.
const OWN: &str = "ip link add own type bridge && ip link set own up && ip addr add 198.51.100.2/24 dev own && \
    ip route add 203.0.113.0/24 dev own && ip neigh add 198.51.100.9 lladdr 02:00:00:00:00:09 dev own";
const SHOW_OWN: &str = "ip -4 addr show dev own; ip route show dev own; ip neigh show dev own nud permanent";
/// What ours is, in a host, in a router and in a container. Where an object is in an order of its own, lines are compared
/// as a set.
const SHOW: &str = "ip -br link; ip -o link show master trap 2>/dev/null; ip -o addr show scope global; \
    ip route show table all proto 67; ip -6 route show table all proto 67; ip rule; ip -6 rule; \
    ip -4 neigh show nud permanent; ip -6 neigh show nud permanent; bridge fdb show | grep dst; \
    for l in eth0 $(ip -br link | grep -o '^cv[^ @]*'); do for d in ingress egress; do \
    tc filter show dev $l $d 2>/dev/null | sed \"s/ id [0-9]* .*//; s/^/$l $d /\"; done; done; \
    for t in 'inet covey' 'netdev covey' 'inet covey-dns'; do nft -s list table $t 2>/dev/null; done";

/// A choice out of so many, which is the same in every run (Knuth's multiplier).
fn choose(state: &mut u64, of: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize % of.max(1)
}

/// Blows to what the flow cache has at a link.
fn uncaching(link: &str) -> [String; 2] {
    [format!("tc qdisc del dev {link} clsact"), format!("tc filter del dev {link} ingress")]
}

/// Where objects of ours are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Host,
    Router,
    Container,
}

/// A place with objects of ours: a host, or a router or container in it, by the name of its namespace.
struct Place {
    host: String,
    kind: Kind,
    name: String,
}

impl Place {
    fn run(&self, lab: &Lab, command: &str) -> Reply {
        let enter = format!("--net=/run/covey/netns/{}", self.name);
        let words = match self.kind {
            Kind::Host => &["exec", &self.host][..],
            Kind::Router | Kind::Container => &["exec", &self.host, "nsenter", &enter],
        };
        lab.script(&[words, &["sh", "-c", command]].concat())
    }

    /// What is there, without what is anew in a new object: numbers of links, and the order of slots.
    fn objects(&self, lab: &Lab) -> BTreeSet<String> {
        let shown = self.run(lab, SHOW).out;
        let parts = shown.split(['\n', ',']).map(|part| {
            let words = part.split_whitespace().map(|word| word.split("@if").next().unwrap_or(word));
            // `tcp . 8080 . 0x00000001 : …` is a slot, `0x03…` a service's number of them.
            words
                .filter(|word| {
                    !word.starts_with("0x")
                        && !word.ends_with(':')
                        && *word != "elements"
                        && *word != "="
                        && *word != "{"
                        && *word != "}"
                })
                .collect::<Vec<_>>()
                .join(" ")
        });
        parts.filter(|part| !part.is_empty()).collect()
    }

    /// Every way to do harm here that is known: one command each.
    fn blows(&self, lab: &Lab) -> Vec<String> {
        let lines = |command: &str| -> Vec<String> {
            self.run(lab, command).out.lines().map(str::to_owned).collect()
        };
        let ours = if self.kind == Kind::Container { "eth" } else { "cv" };
        let mut blows = Vec::new();
        for link in lines(&format!("ip -br link | grep -o '^{ours}[^ @]*'")) {
            blows.push(format!("ip link set {link} down"));
            blows.push(format!("ip link set {link} mtu 1300"));
            if self.kind != Kind::Container {
                blows.push(format!("ip link set {link} arp off"));
            }
            if self.kind == Kind::Host {
                blows.push(format!("ip link set {link} master trap"));
            }
            if self.kind != Kind::Container && !link.starts_with("cvx") {
                blows.extend(uncaching(&link));
            }
            blows.push(format!("ip link set {link} address 02:00:00:00:00:77"));
            blows.push(format!("ip link del {link}"));
            if link.starts_with("cvx") {
                blows.push(format!(
                    "bridge fdb add 02:fd:c0:00:00:99 dev {link} dst 10.77.0.99 self permanent"
                ));
            }
        }
        for family in ["-4", "-6"] {
            for route in lines(&format!("ip {family} route show table all proto 67")) {
                let route = route.replace(" onlink", "").replace(" pref medium", "");
                blows.push(format!("ip {family} route del {route}"));
            }
        }
        let neighbours = |family| format!("ip {family} neigh show nud permanent | grep 'dev {ours}'");
        for neighbour in lines(&neighbours("-4")).into_iter().chain(lines(&neighbours("-6"))) {
            let words: Vec<&str> = neighbour.split(' ').collect();
            if let [address, _, link, ..] = words[..] {
                blows.push(format!("ip neigh del {address} dev {link}"));
                blows.push(format!(
                    "ip neigh replace {address} dev {link} lladdr 02:00:00:00:00:66 nud permanent"
                ));
            }
        }
        for entry in lines("bridge fdb show | grep dst") {
            let words: Vec<&str> = entry.split(' ').collect();
            if let [mac, _, link, _, host, ..] = words[..] {
                blows.push(format!("bridge fdb del {mac} dev {link} dst {host} self"));
                blows.push(format!("bridge fdb replace {mac} dev {link} dst 10.77.0.99 self permanent"));
            }
        }
        match self.kind {
            Kind::Host => {
                blows.extend(uncaching("eth0"));
                blows.extend(
                    ["ip rule del pref 4096", "ip -6 rule del pref 4096", "nft delete table netdev covey"]
                        .map(str::to_owned),
                );
            }
            Kind::Router => blows.push("sysctl -q -w net.ipv4.ip_forward=0".to_owned()),
            Kind::Container => {
                for address in lines("ip -o addr show scope global | grep ' eth'") {
                    let words: Vec<&str> = address.split_whitespace().collect();
                    if let [_, link, _, address, ..] = words[..] {
                        blows.push(format!("ip addr del {address} dev {link}"));
                    }
                }
                blows.push("ip link set eth0 down && ip link set eth0 name lost".to_owned());
                blows.extend(
                    ["nft delete table inet covey-dns", "nft flush chain inet covey-dns output"]
                        .map(str::to_owned),
                );
                return blows;
            }
        }
        for line in lines("nft -s list table inet covey") {
            let line = line.trim();
            if let Some(chain) = line.strip_prefix("chain ").and_then(|rest| rest.split(' ').next()) {
                blows.push(format!("nft flush chain inet covey {chain}"));
                blows.push(format!("nft insert rule inet covey {chain} counter drop"));
            }
            for kind in ["map", "set"] {
                if let Some(name) = line.strip_prefix(kind).and_then(|rest| rest.trim().split(' ').next()) {
                    blows.push(format!("nft flush {kind} inet covey {name}"));
                }
            }
        }
        blows.push("nft delete table inet covey".to_owned());
        blows
    }
}

/// What is mended is counted by the kind of object.
fn a_resolver_is_counted(lab: &Lab, container: &Place) {
    let count = || {
        let (_, text) = lab.request(&container.host, "GET", "/metrics", None);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("covey_dataplane_drift_total{object=\"resolver\"} "));
        line.map(str::to_owned)
    };
    assert_eq!(count().as_deref(), Some("0"));
    container.run(lab, "nft delete table inet covey-dns").ok();
    wait::until_equal(REPAIR, "the count", &Some("1".to_owned()), count);
}

/// NET, PRT, LB-01: whatever of ours is taken away or altered while requests go on is soon as it was, without any help; what
/// others have in the same hosts stays; and when all is removed, the hosts are as they were at first.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn any_damage_heals_by_itself_and_nothing_foreign_is_touched() {
    let Some(lab) = Lab::cluster_with("--repair-interval 1s", 1, 1) else { return };
    for host in lab.hosts() {
        lab.script(&["exec", host, "sh", "-ec", FOREIGN]).ok();
        // The first container makes what all of them share.
        lab.covey(host, &["run", "--rm", "alpine", "true"]).ok();
    }
    for host in lab.hosts() {
        let known = || lab.script(&["exec", host, "nft", "list", "set", "inet", "covey", "selfblock4"]).out;
        wait::until(REPAIR, "the other's addresses", || known().contains("198.51.100.1 ."));
    }
    let foreign = || -> Vec<String> {
        lab.hosts().map(|host| lab.script(&["exec", host, "sh", "-c", SHOW_FOREIGN]).out).collect()
    };
    let before = (foreign(), lab.hosts().map(|host| residue::of_host(&lab, host)).collect::<Vec<_>>());

    lab.docker("m1", &["network", "create", "-d", "overlay", "net"]).ok();
    let create = ["service", "create", "-d", "--no-resolve-image", "--network", "net", "--replicas"];
    lab.docker("m1", &[&create[..], &["2", "--name", "web", "-p", "8080:80", "alpine", "witness"]].concat())
        .ok();
    lab.docker("m1", &[&create[..], &["2", "--name", "client", "alpine", "witness"]].concat()).ok();
    wait::until(REPAIR, "4 tasks", || lab.running(lab.hosts()).len() == 4);
    let containers = lab.running(lab.hosts());
    let inside: Vec<_> = containers
        .iter()
        .filter(|(_, name)| name.starts_with("client."))
        .map(|(host, name)| lab.space_of(host, name))
        .collect();
    let service = lab.get("m1", "/services/web").expect("it is there");
    let vip = service["Endpoint"]["VirtualIPs"][0]["Addr"].as_str().unwrap_or_default().replace("/24", ":80");
    let hub = lab.space("hub");
    let all_is_well = || {
        let outside =
            lab.hosts().all(|host| (0..6).all(|_| hub.ask(&format!("{}:8080", lab.address(host))).is_ok()));
        outside
            && inside.iter().all(|client| {
                (0..6).all(|_| client.ask(&vip).is_ok()) && client.addresses("tasks.web").len() == 2
            })
    };
    wait::until(REPAIR, "answers", all_is_well);

    let mut places = Vec::new();
    for host in lab.hosts().map(str::to_owned) {
        let names = lab.script(&["exec", &host, "ls", "/run/covey/netns"]);
        places.extend(names.ok().lines().map(|name| {
            let kind = if name.starts_with("net-") { Kind::Router } else { Kind::Container };
            Place { host: host.clone(), kind, name: name.to_owned() }
        }));
        places.push(Place { host, kind: Kind::Host, name: String::new() });
    }
    let of = |kind| places.iter().filter(move |place: &&Place| place.kind == kind);
    assert_eq!((of(Kind::Router).count(), of(Kind::Container).count()), (2, 4));
    of(Kind::Container).for_each(|place| _ = place.run(&lab, OWN).ok());
    let owned: Vec<_> = of(Kind::Container).map(|place| place.run(&lab, SHOW_OWN).out).collect();
    a_resolver_is_counted(&lab, of(Kind::Container).next().expect("there are four"));
    let healthy: Vec<_> = places.iter().map(|place| place.objects(&lab)).collect();
    let mut state = std::env::var("COVEY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    let mut missed = 0;
    let over = AtomicBool::new(false);
    let mut struck = BTreeMap::<String, usize>::new();
    thread::scope(|scope| {
        let ended = wait::Raise(&over);
        // Requests go on all the while: they may fail, and hold nothing up.
        let traffic = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for client in inside.iter().chain([&hub]) {
                    let _ = client.ask(&vip);
                }
            }
        });
        for round in 0..ROUNDS {
            let mut fallen = Vec::new();
            for _ in 0..BLOWS {
                let place = &places[choose(&mut state, places.len())];
                let mut blows = place.blows(&lab);
                let blow = blows.swap_remove(choose(&mut state, blows.len()));
                // Somebody may have mended, or another blow taken away, what this one is about.
                let reply = place.run(&lab, &blow);
                missed += usize::from(reply.code != 0);
                *struck.entry(blow.split(' ').take(3).collect::<Vec<_>>().join(" ")).or_default() += 1;
                fallen.push(format!("{} {:?} {}: {blow}", place.host, place.kind, place.name));
            }
            for (place, healthy) in places.iter().zip(&healthy) {
                let what = format!(
                    "{} {:?} {} in round {round} after {fallen:#?}",
                    place.host, place.kind, place.name
                );
                wait::until_equal(REPAIR, &what, &Vec::<String>::new(), || {
                    place.objects(&lab).symmetric_difference(healthy).cloned().collect()
                });
            }
            wait::until(REPAIR, &format!("answers in round {round} after {fallen:#?}"), all_is_well);
        }
        drop(ended);
        traffic.join().expect("the client ends");
    });
    assert!(missed < BLOWS, "{missed} blows of {} fell on nothing", BLOWS * ROUNDS);
    assert!(struck.len() > ROUNDS, "the blows were of few kinds: {struck:?}");
    for (place, owned) in of(Kind::Container).zip(&owned) {
        assert_eq!(place.run(&lab, SHOW_OWN).out, *owned, "what a container has of its own has changed");
    }
    assert_eq!(lab.running(lab.hosts()), containers, "the same containers run");
    for host in lab.hosts() {
        let (status, text) = lab.request(host, "GET", "/metrics", None);
        let drift = text.lines().find(|line| line.starts_with("covey_dataplane_drift_total{"));
        assert!(status == 200 && drift.is_some(), "no drift is counted: {text}");
    }

    lab.docker("m1", &["service", "rm", "web", "client"]).ok();
    wait::until(REPAIR, "their end", || lab.running(lab.hosts()).is_empty());
    lab.docker("m1", &["network", "rm", "net"]).ok();
    for (host, before) in lab.hosts().zip(&before.1) {
        wait::until_equal(REPAIR, host, &Vec::<String>::new(), || {
            residue::of_host(&lab, host).symmetric_difference(before).cloned().collect()
        });
    }
    assert_eq!(foreign(), before.0, "what others have has changed");

    for host in ["w1", "m1"] {
        lab.docker(host, &["swarm", "leave", "--force"]).ok();
        wait::until_equal(REPAIR, "what is left of the cluster", &Vec::<String>::new(), || {
            let ours = |item: &String| {
                item.contains("cvx")
                    || item.contains("proto 67")
                    || item.contains("0xc0")
                    || item.contains("netdev covey")
                    || item.starts_with("namespace")
            };
            residue::of_host(&lab, host).into_iter().filter(ours).collect()
        });
    }
    assert_eq!(foreign(), before.0, "what others have has changed");
}
