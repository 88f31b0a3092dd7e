//! E04: a service is published: every host answers, by turns, with the client's own address kept.
//!
//! The scenario is the table below, word for word, but for these substitutions: what stands in `<…>` is filled in
//! from what was printed before; `tutum/hello-world` and `dns-cache` come from the lab's own registry, as programs that
//! say who they are; `--mode global` is not there yet, so that `dnsh` has three replicas, of which a fixed port of the
//! host lets each node have one. A published port has no virtual address of its own here: `VirtualIPs` names the
//! networks that a service was put on, and `hello-world` is on none. All services but the first are made with `--detach`:
//! a client that watches does so for five seconds.

use std::{
    collections::BTreeSet,
    io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use covey_integration::{
    dns,
    lab::{self, Lab, REGISTRY, Wanted},
    reply::Reply,
    space::{self, Connection, Space, Testimony},
    wait,
};
use serde_json::{Value, json};

const REPAIR: u64 = 20;
/// In which a client that asks again is served when a task ends, on a busy machine as well.
const AGAIN: u64 = 2;
/// Requests in which all of a few tasks answer, but for one run in millions.
const MANY: usize = 60;

/// What a client prints when a line of the table went well.
type Check = fn(&Lab, &Reply);

const E04: &[(&str, Check)] = &[
    ("service create --name hello-world --publish 8080:80 --replicas 2 tutum/hello-world", an_id),
    ("service ls", published_on_8080),
    ("service inspect hello-world", the_defaults),
    ("curl <each of the 3 nodes>:8080", |lab, _| every_node_answers(lab, 8080)),
    ("curl <m1>:8080 many times", |lab, _| tasks_take_turns(lab, 8080, 2)),
    ("rm one container by hand", |lab, _| a_removed_container_is_replaced(lab)),
    ("service create --name hello-80 -p 80 --replicas 3 tutum/hello-world", an_id),
    ("service inspect hello-80", the_first_automatic_port),
    ("service ls", |_, reply| assert!(reply.ok().contains("*:30000->80/tcp"), "{}", reply.out)),
    ("curl <node>:30000", |lab, _| every_node_answers(lab, 30_000)),
    ("service create --name dns -p 53:53 -p 53:53/udp dns-cache", an_id),
    ("query <node>:53", |lab, _| names_are_answered_over_tcp_and_udp(lab)),
    (
        "service create --name dnsh --publish target=53,published=5353,protocol=udp,mode=host --replicas 3 dns-cache",
        an_id,
    ),
    ("query <node>:5353", |lab, _| each_node_answers_by_its_own_task(lab)),
    ("node update --availability drain w2", |_, reply| assert_eq!(reply.ok(), "w2")),
    ("query <drained node>:5353", |lab, _| a_drained_node_is_silent(lab)),
    ("node update --availability active w2", |_, reply| assert_eq!(reply.ok(), "w2")),
    ("service rm dnsh dns hello-80 hello-world", |_, reply| assert_eq!(reply.ok().lines().count(), 4)),
    ("curl <node>:8080", |lab, _| nobody_answers(lab, &[8080, 30_000, 53])),
];

/// E04, PRT-01 to PRT-09, PRT-11 to PRT-13, PRT-14, LB-05, LB-06, LB-07, LB-08, LB-10, LB-13, SVC-17: with the client of
/// today, that of Debian, and our own, on one cluster in turn.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_published_service_answers_on_every_host() {
    let Some(mut lab) = Lab::up(Wanted { managers: 1, workers: 2, swarm: true }) else { return };
    lab.start_registry();
    lab.push("tutum/hello-world", &["witness"]);
    lab.push("dns-cache", &["witness", "53"]);
    let own = std::env::var("COVEY_BIN").expect("looked at before");
    for client in [lab::DOCKER, &lab::old_docker(), &own] {
        if !Path::new(client).exists() {
            eprintln!("SKIPPED: there is no client at {client}");
            continue;
        }
        for (line, check) in E04 {
            let line = line
                .replace("create --name hello-80", "create --detach --name hello-80")
                .replace("create --name dns", "create --detach --name dns")
                .replace("tutum/hello-world", &format!("{REGISTRY}/tutum/hello-world"))
                .replace("dns-cache", &format!("{REGISTRY}/dns-cache"));
            let args: Vec<&str> = line.split(' ').collect();
            // The others are this test's own steps.
            let reply = match args[0] {
                "service" | "node" => lab.client(client, "m1", &args),
                _ => Reply { line: line.clone(), code: 0, out: String::new(), err: String::new() },
            };
            check(&lab, &reply);
        }
    }
    an_external_balancer_sees_no_failure(&lab);
}

fn an_id(_: &Lab, reply: &Reply) {
    let id = reply.ok().lines().next().unwrap_or_default();
    assert!(id.len() == 25 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{}", reply.out);
}

fn published_on_8080(lab: &Lab, reply: &Reply) {
    let line = reply.ok().lines().find(|line| line.contains("hello-world")).unwrap_or_default();
    assert!(line.contains("2/2") && line.ends_with("*:8080->80/tcp"), "{}", reply.out);
    // PRT-12: where a task is, its own port is shown, and its place in the network that the port is published by.
    for (host, name) in lab.running(lab.hosts()) {
        let shown = lab.docker(&host, &["ps", "--filter", &format!("name={name}"), "--format", "{{.Ports}}"]);
        assert_eq!(shown.ok(), "80/tcp");
        let networks = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
        assert_eq!(lab.docker(&host, &["inspect", "-f", networks, &name]).ok(), "ingress");
    }
}

fn service(reply: &Reply) -> Value {
    serde_json::from_str::<Value>(reply.ok()).expect("JSON")[0].take()
}

fn the_defaults(_: &Lab, reply: &Reply) {
    let service = service(reply);
    let port = json!({"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"});
    assert_eq!(service["Spec"]["EndpointSpec"], json!({"Mode": "vip", "Ports": [port]}));
    assert_eq!(service["Endpoint"]["Spec"], service["Spec"]["EndpointSpec"]);
    assert_eq!(service["Endpoint"]["Ports"], json!([port]));
    let image = service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap_or_default();
    assert!(image.starts_with(&format!("{REGISTRY}/tutum/hello-world:latest@sha256:")), "{image}");
    assert_eq!(service["Spec"]["UpdateConfig"]["Parallelism"], 1);
    assert_eq!(service["Spec"]["TaskTemplate"]["RestartPolicy"]["Condition"], "any");
}

fn the_first_automatic_port(_: &Lab, reply: &Reply) {
    let service = service(reply);
    assert_eq!(service["Endpoint"]["Ports"][0]["PublishedPort"], 30_000, "{}", reply.out);
    let asked = json!([{"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress"}]);
    assert_eq!(service["Spec"]["EndpointSpec"]["Ports"], asked);
    assert_eq!(service["Endpoint"]["Spec"]["Ports"], asked);
}

/// From outside, each host answers, with a task or without, and the task sees who asked; the hosts do for themselves and
/// for each other, too. (A task that has just begun may not be ready for the first.)
fn every_node_answers(lab: &Lab, port: u16) {
    let hub = lab.space("hub");
    for host in lab.hosts() {
        let to = format!("{}:{port}", lab.address(host));
        let said = wait::until_some(REPAIR, &to, || hub.ask(&to).ok());
        assert_eq!(said.client.to_string(), "10.77.0.1", "the client's own address at {to}");
        for from in lab.hosts() {
            let space = lab.space(from);
            let said = wait::until_some(REPAIR, &format!("{from} to {to}"), || space.ask(&to).ok());
            // A host that reaches a task of its own by way of another one: its address cannot come in from outside.
            let own = from != host && lab.get(from, &format!("/containers/{}/json", said.host)).is_some();
            let expected = if own { &format!("100.64.{}.0", number(lab, host)) } else { &lab.address(from) };
            assert_eq!(said.client.to_string(), *expected, "{from} to {to}");
        }
        let (to, space) = (format!("127.0.0.1:{port}"), lab.space(host));
        wait::until_some(REPAIR, &format!("{host} to {to}"), || space.ask(&to).ok());
    }
}

/// The number of a host, which is its place in the lab.
fn number(lab: &Lab, host: &str) -> usize {
    lab.hosts().position(|other| other == host).expect("a host") + 1
}

/// The host names that answer in so many requests, if all of them are answered: a task that has just begun may not be
/// ready for the first.
fn answering(lab: &Lab, to: &str, requests: usize) -> Option<BTreeSet<String>> {
    lab.space("hub").run(|| (0..requests).map(|_| Some(space::tcp(to).ok()?.host)).collect())
}

fn tasks_take_turns(lab: &Lab, port: u16, tasks: usize) {
    for host in lab.hosts() {
        let to = format!("{}:{port}", lab.address(host));
        let found = || answering(lab, &to, MANY).map(|found| found.len());
        wait::until_equal(REPAIR, &format!("tasks that answer at {host}"), &Some(tasks), found);
    }
}

fn a_removed_container_is_replaced(lab: &Lab) {
    let to = format!("{}:8080", lab.address("m1"));
    let before = answering(lab, &to, MANY).expect("all requests are answered");
    let (host, name) = lab
        .running(lab.hosts())
        .into_iter()
        .find(|(_, name)| name.starts_with("hello-world."))
        .expect("a container");
    let hub = lab.space("hub");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let ended = wait::Raise(&over);
        let client = scope.spawn(|| {
            hub.run(|| {
                // A request fails in the moment between the task's end and the news of it, or while the next one is not
                // ready; a client that asks again is served.
                while !over.load(Ordering::Relaxed) {
                    wait::until(AGAIN, "a client that asks again is served", || space::tcp(&to).is_ok());
                }
            })
        });
        lab.docker(&host, &["rm", "-f", &name]).ok();
        wait::until(REPAIR, "another task in its place", || {
            let names = lab.running(lab.hosts());
            let tasks = names.iter().filter(|(_, name)| name.starts_with("hello-world."));
            tasks.count() == 2 && !names.iter().any(|(_, other)| *other == name)
        });
        wait::until(REPAIR, "its answers", || {
            answering(lab, &to, MANY).is_some_and(|now| now.len() == 2 && now != before)
        });
        drop(ended);
        client.join().expect("the client ends");
    });
}

/// What the DNS server says its name is, asked at this address by a client outside.
fn name_at(lab: &Lab, to: &str) -> io::Result<String> {
    let reply = lab.space("hub").run(|| dns::over_udp(to, "who.test", dns::TXT))?;
    reply.records.into_iter().next().ok_or_else(|| io::Error::other("no record"))
}

fn names_are_answered_over_tcp_and_udp(lab: &Lab) {
    for host in lab.hosts() {
        let to = format!("{}:53", lab.address(host));
        let hub = lab.space("hub");
        for (protocol, ask) in [("udp", dns::over_udp as fn(&str, &str, u16) -> _), ("tcp", dns::over_tcp)] {
            let what = format!("{to}/{protocol}");
            let found = wait::until_some(REPAIR, &what, || hub.run(|| ask(&to, "any.test", dns::A)).ok());
            assert_eq!(found.records, ["192.0.2.53"], "{what}");
        }
    }
}

fn each_node_answers_by_its_own_task(lab: &Lab) {
    let mut names = BTreeSet::new();
    for host in lab.hosts() {
        let to = format!("{}:5353", lab.address(host));
        let name = wait::until_some(REPAIR, &to, || name_at(lab, &to).ok());
        // It is the short id of a container of that very host.
        assert!(lab.get(host, &format!("/containers/{name}/json")).is_some(), "{name} is not on {host}");
        for _ in 0..5 {
            assert_eq!(name_at(lab, &to).expect("an answer"), name, "only its own task answers at {to}");
        }
        names.insert(name);
    }
    assert_eq!(names.len(), 3);
}

fn a_drained_node_is_silent(lab: &Lab) {
    let drained = format!("{}:5353", lab.address("w2"));
    wait::until(REPAIR, "the silence of w2", || name_at(lab, &drained).is_err());
    // In the mesh it still answers, by tasks of others.
    every_node_answers(lab, 8080);
    name_at(lab, &format!("{}:5353", lab.address("w1"))).expect("w1 goes on");
}

fn nobody_answers(lab: &Lab, ports: &[u16]) {
    for host in lab.hosts() {
        for port in ports {
            let to = format!("{}:{port}", lab.address(host));
            wait::until(REPAIR, &format!("the end of {to}"), || lab.space("hub").ask(&to).is_err());
        }
    }
    wait::until(REPAIR, "the end of all containers", || lab.running(lab.hosts()).is_empty());
}

/// PRT-05, PRT-06, PRT-10, PRT-11, LB-02: whoever asks is seen as who it is, over both protocols and both families;
/// ports come and go on a running service; a port that is taken is said to be.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn clients_of_every_kind_are_seen_as_themselves() {
    let Some(lab) = Lab::cluster(1, 2) else { return };
    for (host, place) in lab.hosts().chain(["hub"]).zip([11, 12, 13, 1]) {
        let link = if host == "hub" { "br0" } else { "eth0" };
        let add = ["ip", "-6", "addr", "add", &format!("fd77::{place}/64"), "dev", link, "nodad"];
        lab.script(&[&["exec", host], &add[..]].concat()).ok();
    }
    let create = ["service", "create", "-d", "--no-resolve-image", "--name", "web", "--replicas", "2"];
    let ports =
        ["-p", "8080:80", "-p", "8080:80/udp", "--constraint", "node.role==worker", "alpine", "witness"];
    lab.docker("m1", &[&create[..], &ports].concat()).ok();
    lab.covey("m1", &["run", "-d", "--name", "client", "alpine", "sleep", "10000"]).ok();
    every_node_answers(&lab, 8080);

    let (hub, client) = (lab.space("hub"), lab.space_of("m1", "client"));
    for host in lab.hosts() {
        let (four, six) =
            (format!("{}:8080", lab.address(host)), format!("[fd77::{}]:8080", number(&lab, host) + 10));
        let udp = |from: &Space, to: &str| {
            wait::until_some(REPAIR, &format!("{to}/udp"), || from.ask_udp(to).ok()).client.to_string()
        };
        assert_eq!(udp(&hub, &four), "10.77.0.1", "{host}");
        assert_eq!(udp(&hub, &six), "fd77::1", "{host}");
        let said = wait::until_some(REPAIR, &six, || hub.ask(&six).ok());
        assert_eq!(said.client.to_string(), "fd77::1", "{six}");
        assert!(said.address.is_ipv6());
        // A container is seen by the address that it has at the edge, or by that of its host where it left the cluster's
        // own paths.
        let said = client.ask(&four).unwrap_or_else(|error| panic!("a container to {four}: {error}"));
        let seen = said.client.to_string();
        assert!(
            seen.starts_with("100.64.1.") || seen == lab.address("m1"),
            "a container to {four} is {seen}"
        );
    }

    // Ports change while connections last.
    let m1 = format!("{}:8080", lab.address("m1"));
    let mut lasting = hub.run(|| Connection::open(&m1)).expect("a connection");
    let served = lasting.ask().expect("an answer");
    lab.docker("m1", &["service", "update", "-d", "--publish-add", "9090:80", "web"]).ok();
    for host in lab.hosts() {
        let to = format!("{}:9090", lab.address(host));
        wait::until(REPAIR, &to, || hub.ask(&to).is_ok());
    }
    assert_eq!(lasting.ask().expect("it lasts"), served);
    lab.docker("m1", &["service", "create", "-d", "--name", "other", "-p", "9090:80", "alpine"])
        .refused_with("port '9090' is already in use by service 'web'");
    lab.docker("m1", &["service", "update", "-d", "--publish-rm", "80", "web"]).ok();
    for host in lab.hosts() {
        for port in [8080, 9090] {
            let to = format!("{}:{port}", lab.address(host));
            wait::until(REPAIR, &format!("the end of {to}"), || hub.ask(&to).is_err());
        }
    }
}

/// `external balancer on 8080 -> all nodes, health check "/"`: one node is stopped.
fn an_external_balancer_sees_no_failure(lab: &Lab) {
    let create =
        ["service", "create", "-d", "--name", "hello-world", "--publish", "8080:80", "--replicas", "3"];
    lab.docker("m1", &[&create[..], &[&format!("{REGISTRY}/tutum/hello-world")]].concat()).ok();
    every_node_answers(lab, 8080);
    tasks_take_turns(lab, 8080, 3);
    lab.script(&["kill", "w1"]).ok();
    let hub = lab.space("hub");
    let check = |host: &str| -> io::Result<Testimony> { hub.ask(&format!("{}:8080", lab.address(host))) };
    wait::until(REPAIR, "the check noticing", || check("w1").is_err());
    wait::until(REPAIR, "the cluster noticing", || lab.node("m1", "w1")[0] == "down");
    for _ in 0..MANY {
        for host in ["m1", "w2"] {
            check(host).unwrap_or_else(|error| panic!("{host} with w1 down: {error}"));
        }
    }
}
