//! E13: overlay networks: made, lazy, joined, internal, removed.
//!
//! The scenario is the table below, word for word, but for these substitutions: what stands in `<…>` is filled in from
//! what was printed before; `mysql` and `tutum/hello-world` come from the lab's own registry, as programs that say who
//! they are; services are made with `--detach`; `exec` goes without `-it`, since there is no terminal, and `google.com`
//! is known to the lab's own name server only. The ingress network is the edge, 100.64.0.0/10 by default. `--opt encrypted` is
//! refused until it is real: that it is, is the line's check, and there is no such network to be removed at the end.

use std::{collections::BTreeMap, path::Path};

use covey_integration::{
    lab::{self, Lab, REGISTRY, Wanted},
    reply::Reply,
    wait,
};
use serde_json::{Value, json};

const REPAIR: u64 = 20;
/// What the lab's name server says of every name.
const OUTSIDE: [&str; 1] = ["192.0.2.53"];

/// What was printed before, by name.
type Words = BTreeMap<&'static str, String>;
/// What a client prints when a line of the table went well.
type Check = fn(&Lab, &Reply, &mut Words);

const E13: &[(&str, &str, Check)] = &[
    ("m1", "network ls", the_five_networks),
    ("w1", "network ls", the_five_networks),
    ("m1", "network ls --filter driver=overlay", |_, reply, _| assert_eq!(names(reply), ["ingress"])),
    ("m1", "network inspect ingress", the_edge),
    (
        "m1",
        "network create --subnet=192.168.0.0/16 --subnet=192.170.0.0/16 --gateway=192.168.0.100 \
         --gateway=192.170.0.100 --ip-range=192.168.1.0/24 --driver overlay mysql-network",
        |_, reply, words| _ = words.insert("<mysql-network>", an_id(reply)),
    ),
    ("m1", "network inspect mysql-network", two_subnets),
    (
        "m1",
        "network create --subnet=10.0.0.0/16 --gateway=10.0.0.100 --ip-range=10.0.1.0/24 --driver overlay mysql-network-2",
        |_, reply, words| _ = words.insert("<id>", an_id(reply)),
    ),
    ("w1", "network ls", the_five_networks),
    ("m1", "network create --driver overlay --opt encrypted overlay-network-2", |_, reply, _| {
        reply.refused_with("--opt encrypted");
    }),
    ("m1", "service create --detach --network mysql-network --name mysql-2 mysql", |_, reply, _| {
        _ = an_id(reply)
    }),
    ("m1", "service scale --detach mysql-2=3", |lab, reply, words| {
        reply.ok();
        all_run(lab, words, "mysql-2");
    }),
    ("w1", "network ls", |_, reply, _| lists_mysql(reply)),
    ("w2", "network ls", |_, reply, _| lists_mysql(reply)),
    (
        "m1",
        "service create --detach --network mysql-network-2 --name other --replicas 3 mysql",
        |lab, _, words| {
            networks_are_apart(lab, words);
        },
    ),
    ("m1", "exec <c> ping -c 1 google.com", |_, reply, _| assert!(reply.ok().contains(" 0% packet loss"))),
    (
        "m1",
        "network create --internal --label HelloWorldService --driver overlay hello-world-network",
        |_, reply, _| _ = an_id(reply),
    ),
    ("m1", "network inspect hello-world-network", |_, reply, _| {
        let network = network(reply);
        assert_eq!(network["Internal"], true);
        assert_eq!(network["Labels"], json!({"HelloWorldService": ""}));
    }),
    (
        "m1",
        "service create --detach --name hello-world --network hello-world-network --replicas 3 tutum/hello-world",
        |lab, _, words| all_run(lab, words, "hello-world"),
    ),
    ("m1", "exec <c> ping -c 1 google.com", |_, reply, _| {
        reply.refused_with("ping: bad address 'google.com'");
    }),
    ("m1", "exec <c> ping -c 1 -w 2 10.77.0.1", |_, reply, _| assert_ne!(reply.code, 0, "{}", reply.out)),
    ("m1", "exec <c> ping -c 1 <c-on-w1>", |_, reply, _| assert!(reply.ok().contains(" 0% packet loss"))),
    ("m1", "service rm hello-world", |lab, reply, _| {
        reply.ok();
        let gone = || !lab.running(lab.hosts()).iter().any(|(_, name)| name.starts_with("hello-world."));
        wait::until(REPAIR, "its end", gone);
    }),
    (
        "m1",
        "service create --detach --name hello-world --network hello-world-network --publish 8080:80 --replicas 3 \
         tutum/hello-world",
        |lab, reply, words| {
            words.insert("<service>", an_id(reply));
            all_run(lab, words, "hello-world");
        },
    ),
    ("m1", "exec <c> ping -c 1 google.com", |lab, reply, _| {
        assert!(reply.ok().contains(" 0% packet loss"));
        let to = format!("{}:8080", lab.address("w1"));
        wait::until(REPAIR, "an answer from outside", || lab.space("hub").ask(&to).is_ok());
    }),
    ("m1", "service rm mysql-2 other", |lab, reply, _| {
        reply.ok();
        wait::until(REPAIR, "their end", || lab.running(lab.hosts()).len() == 3);
    }),
    ("m1", "network rm hello-world-network <mysql-network> <id>", the_one_in_use_stays),
    ("m1", "service rm hello-world", |lab, reply, _| {
        reply.ok();
        wait::until(REPAIR, "its end", || lab.running(lab.hosts()).is_empty());
    }),
    ("m1", "network rm hello-world-network", |_, reply, _| assert_eq!(reply.ok(), "hello-world-network")),
];

/// E13, NET-01 to NET-04, NET-07 to NET-19, NET-22 to NET-28, NET-32, NET-34, LB-03, C-29, C-48: with the client of
/// today, that of Debian, and our own, on one cluster in turn.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn overlay_networks_span_the_hosts_that_need_them() {
    let Some(mut lab) = Lab::up(Wanted { managers: 1, workers: 2, swarm: true }) else { return };
    lab.start_registry();
    lab.start_name_server();
    lab.push("tutum/hello-world", &["witness"]);
    lab.push("mysql", &["witness", "3306"]);
    let own = std::env::var("COVEY_BIN").expect("looked at before");
    for client in [lab::DOCKER, &lab::old_docker(), &own] {
        if !Path::new(client).exists() {
            eprintln!("SKIPPED: there is no client at {client}");
            continue;
        }
        let mut words = Words::new();
        for (host, line, check) in E13 {
            let args: Vec<String> = line.split(' ').map(|word| substitute(word, &words)).collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            check(&lab, &lab.client(client, host, &args), &mut words);
        }
        // The last container takes the network of its host with it.
        for host in lab.hosts() {
            let listed = || lab.get(host, "/networks").and_then(|all| all.as_array().map(Vec::len));
            wait::until_equal(REPAIR, "the five networks", &Some(5), listed);
            wait::until_equal(REPAIR, "no router", &0, || lab.routers(host).len());
        }
    }
    for name in ["bridge", "host", "none", "ingress"] {
        let (status, answer) = lab.request("m1", "DELETE", &format!("/networks/{name}"), None);
        assert!(status == 403 && answer.contains(name), "{status} {answer}");
    }
}

fn substitute(word: &str, words: &Words) -> String {
    match word {
        "mysql" | "tutum/hello-world" => format!("{REGISTRY}/{word}"),
        _ => words.get(word).cloned().unwrap_or_else(|| word.to_owned()),
    }
}

fn names(reply: &Reply) -> Vec<&str> {
    let mut names: Vec<&str> =
        reply.ok().lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    names.sort_unstable();
    names
}

fn the_five_networks(_: &Lab, reply: &Reply, _: &mut Words) {
    let mut rows: Vec<Vec<&str>> =
        reply.ok().lines().map(|line| line.split_whitespace().skip(1).collect()).collect();
    assert_eq!(rows.remove(0), ["ID", "NAME", "DRIVER", "SCOPE"]);
    rows.sort();
    let expected = [
        ["bridge", "bridge", "local"],
        ["docker_gwbridge", "bridge", "local"],
        ["host", "host", "local"],
        ["ingress", "overlay", "swarm"],
        ["none", "null", "local"],
    ];
    assert_eq!(rows, expected, "{}", reply.out);
    assert!(reply.ok().lines().skip(1).all(|line| line.find(' ') == Some(12)), "{}", reply.out);
}

fn network(reply: &Reply) -> Value {
    serde_json::from_str::<Value>(reply.ok()).expect("JSON")[0].take()
}

fn the_edge(_: &Lab, reply: &Reply, _: &mut Words) {
    let network = network(reply);
    let expected = json!({"Scope": "swarm", "Driver": "overlay", "EnableIPv6": false, "Internal": false,
        "Attachable": false, "Ingress": true, "ConfigFrom": {"Network": ""}, "ConfigOnly": false});
    for (key, value) in expected.as_object().into_iter().flatten() {
        assert_eq!(network[key], *value, "{key}");
    }
    assert_eq!(network["IPAM"]["Config"], json!([{"Subnet": "100.64.0.0/10", "Gateway": "100.64.0.1"}]));
    assert_eq!(network["Options"], json!({"com.docker.network.driver.overlay.vxlanid_list": "4096"}));
    assert_eq!(network["Containers"]["ingress-sbox"]["Name"], "ingress-endpoint");
    let peers = network["Peers"].as_array().cloned().unwrap_or_default();
    assert_eq!(peers.len(), 3, "one peer a node: {peers:?}");
    for (host, address) in [("m1", "10.77.0.11"), ("w1", "10.77.0.12"), ("w2", "10.77.0.13")] {
        let named = |peer: &&Value| {
            let name = peer["Name"].as_str().and_then(|name| name.strip_prefix(host)?.strip_prefix('-'));
            name.is_some_and(|rest| rest.len() == 12) && peer["IP"] == address
        };
        assert!(peers.iter().any(|peer| named(&peer)), "{host}: {peers:?}");
    }
}

fn an_id(reply: &Reply) -> String {
    let id = reply.ok().lines().next().unwrap_or_default();
    assert!(id.len() == 25 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{}", reply.out);
    id.to_owned()
}

fn two_subnets(_: &Lab, reply: &Reply, _: &mut Words) {
    let network = network(reply);
    // Docker's client sends them in any order.
    let mut found = network["IPAM"]["Config"].as_array().cloned().unwrap_or_default();
    found.sort_by_key(|config| config["Subnet"].to_string());
    let subnets = json!([
        {"Subnet": "192.168.0.0/16", "IPRange": "192.168.1.0/24", "Gateway": "192.168.0.100"},
        {"Subnet": "192.170.0.0/16", "Gateway": "192.170.0.100"},
    ]);
    assert_eq!(Value::from(found), subnets);
    assert_eq!(network["Created"], "0001-01-01T00:00:00Z", "it is not on this host yet");
    assert_eq!((&network["Containers"], &network["Peers"]), (&Value::Null, &Value::Null));
    let list = &network["Options"]["com.docker.network.driver.overlay.vxlanid_list"];
    let vnis: Vec<u32> = list.as_str().unwrap_or_default().split(',').flat_map(str::parse).collect();
    assert!(vnis.len() == 2 && vnis[0] >= 4097 && vnis[1] == vnis[0] + 1, "{list}");
}

fn lists_mysql(reply: &Reply) {
    let expected = ["bridge", "docker_gwbridge", "host", "ingress", "mysql-network", "none"];
    assert_eq!(names(reply), expected);
}

/// Waits until each host runs one of its tasks; `<c>` is that of m1, in its short form.
fn all_run(lab: &Lab, words: &mut Words, service: &str) {
    wait::until_equal(REPAIR, service, &vec![1, 2, 3], || lab.slots(service, lab.hosts()));
    for (host, word) in [("m1", "<c>"), ("w1", "<c-on-w1>")] {
        let (_, name) = container(lab, host, service);
        let id = lab.get(host, &format!("/containers/{name}/json")).expect("it is there")["Id"].take();
        words.insert(word, id.as_str().unwrap_or_default()[..12].to_owned());
    }
}

fn container(lab: &Lab, host: &str, service: &str) -> (String, String) {
    let of_service = |(_, name): &(String, String)| name.starts_with(&format!("{service}."));
    lab.running([host]).into_iter().find(of_service).unwrap_or_else(|| panic!("no {service} on {host}"))
}

/// By name and by id within a network, and not between two.
fn networks_are_apart(lab: &Lab, words: &mut Words) {
    let mut other = Words::new();
    all_run(lab, &mut other, "other");
    let (_, from) = container(lab, "m1", "mysql-2");
    let (from, stranger) = (lab.space_of("m1", &from), lab.space_of("w1", &other["<c-on-w1>"]));
    for host in ["w1", "w2"] {
        let (_, name) = container(lab, host, "mysql-2");
        let id = lab.get(host, &format!("/containers/{name}/json")).expect("it is there")["Id"].take();
        let addresses = wait::until_some(REPAIR, "its name", || {
            Some(from.addresses(&name)).filter(|addresses| !addresses.is_empty())
        });
        let id = &id.as_str().unwrap_or_default()[..12];
        assert_eq!(from.addresses(id), addresses);
        assert_eq!(stranger.addresses(id), OUTSIDE, "not a name of its network: the outside is asked");
        let ranges = ["192.168.1.", "192.170.0."];
        assert!(ranges.iter().any(|range| addresses[0].starts_with(range)), "{addresses:?} are out of range");
        let said = from.ask(&format!("{}:3306", addresses[0])).expect("it answers");
        assert_eq!(said.address.to_string(), addresses[0]);
        assert!(
            stranger.ask(&format!("{}:3306", addresses[0])).is_err(),
            "{host} is reached from another network"
        );
    }
    assert_eq!(stranger.addresses("mysql-2"), OUTSIDE);
    words.remove("<c-on-w1>");
}

/// C-48: one line a network, and an exit code.
fn the_one_in_use_stays(_: &Lab, reply: &Reply, words: &mut Words) {
    reply.refused_with(&format!("is in use by service {}", words["<service>"]));
    let removed: Vec<&str> = reply.out.lines().collect();
    assert_eq!(removed, [&words["<mysql-network>"], &words["<id>"]], "{}", reply.err);
}
