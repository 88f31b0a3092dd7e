//! E01: three hosts become a cluster, run their first service and remove it.
//!
//! The scenario is the table below, word for word, but for these substitutions: what stands in `<…>` is filled in
//! from what was printed before, `alpine` comes from the lab's own registry, and `docker.com` is that registry's
//! host, since there is no internet.

use std::{collections::BTreeSet, path::Path};

use covey_integration::{
    lab::{self, Lab, REGISTRY, Wanted},
    reply::Reply,
    wait,
};
use serde_json::Value;

/// What a client prints when a line of the table went well.
type Check = fn(&Reply, &mut Words);

/// A word of the table, and what stands for it.
struct Words {
    manager: String,
    worker_token: String,
    service: String,
}

const E01: &[(&str, &str, Check)] = &[
    ("m1", "swarm init --advertise-addr <M1>", initialized),
    ("m1", "info", shows_a_cluster_of_one),
    ("m1", "node ls", one_leader),
    ("m1", "swarm join-token worker", the_join_command),
    ("w1", "swarm join --token <worker> <M1>:2377", joined),
    ("w2", "swarm join --token <worker> <M1>:2377", joined),
    ("w1", "node ls", not_a_manager),
    ("m1", "swarm join-token worker", the_same_join_command),
    ("m1", "node ls", three_nodes),
    ("m1", "service create --replicas 2 --name helloworld alpine ping docker.com", an_id),
    ("m1", "service ls", both_run),
    ("m1", "service inspect helloworld", the_whole_spec),
    ("m1", "service ps helloworld", two_nodes),
    ("m1", "node inspect m1", the_manager),
    ("m1", "service scale helloworld=5", scaled),
    ("m1", "service rm helloworld", removed),
    ("m1", "service inspect helloworld", unknown),
];

/// E01, CLU-01, CLU-02, CLU-06, CLU-07, CLU-09, CLU-18, QRM-12, NOD-01, NOD-07, SVC-01, SVC-06, SVC-18, SVC-24
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn the_first_service_with_the_docker_client_of_today() {
    first_service(Path::new(lab::DOCKER));
}

/// E01, SVC-30, SVC-33, SVC-36, SVC-50, SVC-51, TSK-22
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn the_first_service_with_the_docker_client_of_debian() {
    first_service(Path::new(&lab::old_docker()));
}

/// E01
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn the_first_service_with_covey_itself() {
    if let Ok(binary) = std::env::var("COVEY_BIN") {
        first_service(Path::new(&binary));
    } else {
        eprintln!("SKIPPED: COVEY_BIN does not say which binary to test");
    }
}

fn first_service(client: &Path) {
    if !client.exists() {
        eprintln!("SKIPPED: there is no client at {}", client.display());
        return;
    }
    let Some(mut lab) = Lab::up(Wanted { managers: 1, workers: 2, swarm: false }) else { return };
    lab.start_registry();
    let client = client.to_str().expect("a plain path");
    let mut words = Words { manager: lab.address("m1"), worker_token: String::new(), service: String::new() };
    for (host, line, check) in E01 {
        let words_of_line: Vec<String> = line.split(' ').map(|word| words.substitute(word)).collect();
        let args: Vec<&str> = words_of_line.iter().map(String::as_str).collect();
        check(&lab.client(client, host, &args), &mut words);
        match *line {
            "service ps helloworld" => containers_are_where_the_tasks_are(&lab, client, 2),
            "service scale helloworld=5" => containers_are_where_the_tasks_are(&lab, client, 5),
            _ => {}
        }
    }
    let names = || lab.hosts().map(|host| containers(&lab, client, host).len()).sum::<usize>();
    wait::until_equal(20, "the end of the containers", &0, names);
}

impl Words {
    fn substitute(&self, word: &str) -> String {
        match word {
            "alpine" => format!("{REGISTRY}/alpine"),
            "docker.com" => REGISTRY.split(':').next().unwrap_or_default().to_owned(),
            _ => word.replace("<M1>", &self.manager).replace("<worker>", &self.worker_token),
        }
    }
}

/// `all$ ps`: a container `helloworld.N.<task id>` for each task, on the node of that task.
fn containers_are_where_the_tasks_are(lab: &Lab, client: &str, replicas: usize) {
    let reply = lab.client(client, "m1", &["service", "ps", "--no-trunc", "helloworld"]);
    let tasks: BTreeSet<String> =
        rows(&reply).iter().map(|row| format!("{} {}.{}", row[3], row[1], row[0])).collect();
    let found = lab
        .hosts()
        .flat_map(|host| containers(lab, client, host).into_iter().map(move |name| format!("{host} {name}")));
    let found: Vec<String> = found.collect();
    assert_eq!(found.len(), replicas, "{found:?}");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), tasks);
    let used = tasks.iter().filter_map(|task| task.split(' ').next()).collect::<BTreeSet<_>>();
    assert_eq!(used.len(), replicas.min(3), "the tasks are spread: {tasks:?}");
}

fn containers(lab: &Lab, client: &str, host: &str) -> Vec<String> {
    let reply = lab.client(client, host, &["ps", "--no-trunc"]);
    rows(&reply).iter().filter_map(|row| row.last()).map(|name| (*name).to_owned()).collect()
}

fn is_id(text: &str) -> bool {
    text.len() == 25 && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

/// The token in a printed join command, which has to end in the manager's address.
fn token(reply: &Reply, words: &Words) -> String {
    let line = reply.ok().lines().find(|line| line.contains("swarm join --token")).expect(&reply.line);
    assert!(line.ends_with(&format!(" {}:2377", words.manager)), "{line}");
    let token = line.split(' ').find(|word| word.starts_with("SWMTKN-1-")).expect(line);
    assert_eq!(token.split('-').count(), 4, "{token}");
    token.to_owned()
}

fn initialized(reply: &Reply, words: &mut Words) {
    let first = reply.ok().lines().next().unwrap_or_default();
    let id = first
        .strip_prefix("Swarm initialized: current node (")
        .and_then(|rest| rest.strip_suffix(") is now a manager."))
        .expect(first);
    assert!(is_id(id), "{id}");
    words.worker_token = token(reply, words);
}

fn shows_a_cluster_of_one(reply: &Reply, _: &mut Words) {
    let lines: Vec<&str> = reply.ok().lines().map(str::trim).collect();
    for line in ["Swarm: active", "Is Manager: true", "Managers: 1", "Nodes: 1", "Name: m1"] {
        assert!(lines.contains(&line), "no {line:?} in {}", reply.out);
    }
    for name in ["NodeID: ", "ClusterID: "] {
        let id = lines.iter().find_map(|line| line.strip_prefix(name)).expect(name);
        assert!(is_id(id), "{name}{id}");
    }
}

/// The rows of a table, words apart.
fn rows(reply: &Reply) -> Vec<Vec<&str>> {
    reply.ok().lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

fn one_leader(reply: &Reply, _: &mut Words) {
    let rows = rows(reply);
    assert_eq!(rows.len(), 1, "{}", reply.out);
    assert!(is_id(rows[0][0]), "{}", reply.out);
    assert_eq!(rows[0][1..6], ["*", "m1", "Ready", "Active", "Leader"]);
}

fn the_join_command(reply: &Reply, words: &mut Words) {
    assert_eq!(token(reply, words), words.worker_token);
}

fn the_same_join_command(reply: &Reply, words: &mut Words) {
    the_join_command(reply, words);
}

fn joined(reply: &Reply, _: &mut Words) {
    assert_eq!(reply.ok(), "This node joined a swarm as a worker.");
}

fn not_a_manager(reply: &Reply, _: &mut Words) {
    reply.refused_with(
        "Error response from daemon: This node is not a swarm manager. Worker nodes can't be used to view or \
         modify cluster state. Please run this command on a manager node or promote the current node to a manager.",
    );
}

fn three_nodes(reply: &Reply, _: &mut Words) {
    let header: Vec<&str> = reply.out.lines().next().unwrap_or_default().split("  ").map(str::trim).collect();
    let header: Vec<&str> = header.into_iter().filter(|word| !word.is_empty()).collect();
    assert_eq!(header[..5], ["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS"]);
    let rows = rows(reply);
    assert_eq!(rows.len(), 3, "{}", reply.out);
    for row in rows {
        let marked = usize::from(row[1] == "*");
        assert_eq!(row[2 + marked..4 + marked], ["Ready", "Active"], "{}", reply.out);
        let status = row.get(4 + marked).copied();
        assert_eq!(status == Some("Leader"), row[1 + marked] == "m1", "{}", reply.out);
        assert_ne!(status, Some("Reachable"), "{}", reply.out);
    }
}

fn an_id(reply: &Reply, words: &mut Words) {
    let id = reply.ok().lines().next().unwrap_or_default();
    assert!(is_id(id), "{}", reply.out);
    assert!(!reply.err.contains("could not be accessed"), "{}", reply.err);
    id.clone_into(&mut words.service);
}

fn both_run(reply: &Reply, words: &mut Words) {
    let rows = rows(reply);
    let image = format!("{REGISTRY}/alpine:latest");
    assert_eq!(
        rows,
        [["1", "helloworld", "replicated", "2/2", &image]
            .map(|word| { if word == "1" { &words.service[..12] } else { word } })]
    );
}

fn json(reply: &Reply) -> Value {
    let whole: Value = serde_json::from_str(reply.ok()).expect("JSON");
    assert_eq!(whole.as_array().map(Vec::len), Some(1), "{}", reply.out);
    whole[0].clone()
}

fn the_whole_spec(reply: &Reply, words: &mut Words) {
    let service = json(reply);
    assert_eq!(service["ID"], words.service.as_str());
    let spec = &service["Spec"];
    let container = &spec["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["Args"], serde_json::json!(["ping", words.substitute("docker.com")]));
    let image = container["Image"].as_str().unwrap_or_default();
    assert!(image.starts_with(&format!("{REGISTRY}/alpine:latest@sha256:")), "{image}");
    assert_eq!(spec["Mode"]["Replicated"]["Replicas"], 2);
    assert_eq!(spec["TaskTemplate"]["RestartPolicy"]["Condition"], "any");
    assert_eq!(spec["TaskTemplate"]["Placement"]["Platforms"][0]["OS"], "linux");
    assert_eq!(spec["UpdateConfig"]["Parallelism"], 1);
    assert_eq!(spec["UpdateConfig"]["FailureAction"], "pause");
    assert_eq!(spec["EndpointSpec"]["Mode"], "vip");
}

fn two_nodes(reply: &Reply, _: &mut Words) {
    let rows = rows(reply);
    let image = format!("{REGISTRY}/alpine:latest");
    let names: BTreeSet<&str> = rows.iter().map(|row| row[1]).collect();
    assert_eq!(names, BTreeSet::from(["helloworld.1", "helloworld.2"]));
    let nodes: BTreeSet<&str> = rows.iter().map(|row| row[3]).collect();
    assert_eq!((rows.len(), nodes.len()), (2, 2), "{}", reply.out);
    for row in rows {
        assert_eq!((row[2], row[4], row[5]), (image.as_str(), "Running", "Running"), "{}", reply.out);
    }
}

fn the_manager(reply: &Reply, words: &mut Words) {
    let node = json(reply);
    assert_eq!(node["Spec"]["Role"], "manager");
    assert_eq!(node["Description"]["Hostname"], "m1");
    assert_eq!(node["Status"]["State"], "ready");
    let manager = &node["ManagerStatus"];
    assert_eq!(manager["Leader"], true);
    assert_eq!(manager["Reachability"], "reachable");
    assert_eq!(manager["Addr"], format!("{}:2377", words.manager));
}

fn scaled(reply: &Reply, _: &mut Words) {
    assert_eq!(reply.ok().lines().next(), Some("helloworld scaled to 5"));
}

fn removed(reply: &Reply, _: &mut Words) {
    assert_eq!(reply.ok(), "helloworld");
}

fn unknown(reply: &Reply, _: &mut Words) {
    // Older clients print `Status: Error: …, Code: 1`.
    assert!(reply.refused().contains("rror: no such service: helloworld"), "{}", reply.err);
    assert_eq!((reply.out.trim(), reply.code), ("[]", 1));
}
