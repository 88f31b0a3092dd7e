//! A published port that somebody else's process holds on one host: users see it where they look at the service.

use std::net::TcpListener;

use covey_integration::{
    lab::{ALPINE, Lab},
    space::Space,
    wait,
};
use serde_json::json;

/// Seconds for anything to come about.
const SOON: u64 = 20;

/// What `service ps` says of the running tasks of a service, asked at one manager: name, state and error of each.
fn shown(lab: &Lab, manager: &str, service: &str) -> Vec<String> {
    let format = "{{.Name}} {{.CurrentState}} {{.Error}}";
    let running = "desired-state=running";
    let ps = ["service", "ps", "--no-trunc", "--filter", running, "--format", format, service];
    let shown = lab.docker(manager, &ps);
    // Not for how long.
    let tasks = shown.ok().lines().map(|line| {
        let (task, rest) = line.split_once(' ').unwrap_or_default();
        let error = rest.split_once(" ago ").map_or("", |(_, error)| error);
        let state = rest.split(' ').next().unwrap_or_default();
        format!("{task} {state} {error}").trim_end().to_owned()
    });
    let mut tasks: Vec<String> = tasks.collect();
    tasks.sort();
    tasks
}

/// Every manager says this of both tasks, and in the inspection of the service.
#[track_caller]
fn all_say(lab: &Lab, error: &str) {
    let quoted = if error.is_empty() { String::new() } else { format!(" \"{error}\"") };
    let tasks = [1, 2].map(|slot| format!("web.{slot} Running{quoted}")).to_vec();
    let errors = if error.is_empty() { json!(null) } else { json!([error]) };
    for manager in ["m1", "m2", "m3"] {
        wait::until_equal(SOON, &format!("the tasks at {manager}"), &tasks, || shown(lab, manager, "web"));
        let found = || lab.get(manager, "/services/web").map(|service| service["Endpoint"]["Errors"].clone());
        wait::until_equal(SOON, &format!("the service at {manager}"), &Some(errors.clone()), found);
    }
}

fn hold(space: &Space, port: u16) -> TcpListener {
    space.run(|| TcpListener::bind(("0.0.0.0", port))).expect("the port is free")
}

/// PRT-05, PRT-11: the host has no task of the service. The tasks run on, every manager says why one host does not answer,
/// and nobody says it any longer than it is true.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_port_that_somebody_elses_process_holds_is_an_error_of_the_service() {
    let Some(lab) = Lab::cluster(3, 2) else { return };
    let (hub, w1, w2) = (lab.space("hub"), lab.space("w1"), lab.space("w2"));
    let stranger = hold(&w2, 8080);
    let create = ["service", "create", "-d", "--no-resolve-image", "--name", "web", "--replicas", "2"];
    let rest = ["--constraint", "node.hostname==m2", "-p", "8080:80", ALPINE, "witness"];
    lab.docker("m1", &[&create[..], &rest].concat()).ok();
    let silent = "port 8080/tcp is held on w2 by another process";
    all_say(&lab, silent);
    let running = lab.running(lab.hosts());
    assert_eq!(running.iter().filter(|(host, _)| host == "m2").count(), 2, "{running:?}");
    let at = |host: &str| format!("{}:8080", lab.address(host));
    for host in ["m1", "m2", "m3", "w1"] {
        wait::until(SOON, &format!("the answer of {host}"), || hub.ask(&at(host)).is_ok());
    }
    let pretty = lab.covey("m3", &["service", "inspect", "--pretty", "web"]);
    assert!(pretty.ok().ends_with(&format!("Errors:\n {silent}")), "{}", pretty.out);

    // Another port, added while one is held; and another host.
    let others = [hold(&w1, 9090), hold(&w2, 9090)];
    lab.docker("m2", &["service", "update", "-d", "--publish-add", "9090:81", "web"]).ok();
    let both = format!("{silent}; port 9090/tcp is held on w1 and w2 by another process");
    let ps = || shown(&lab, "m3", "web");
    let tasks = [1, 2].map(|slot| format!("web.{slot} Running \"{both}\"")).to_vec();
    wait::until_equal(SOON, "both ports in one error", &tasks, ps);
    assert_eq!(lab.running(lab.hosts()), running, "the tasks are the same");
    lab.docker("m2", &["service", "update", "-d", "--publish-rm", "81", "web"]).ok();
    all_say(&lab, silent);
    drop(others);

    // What a host said that is down is not said of it; once it is back, it is as before.
    lab.script(&["cut", "w2"]).ok();
    wait::until(SOON, "w2 down", || lab.node("m1", "w2")[0] == "down");
    all_say(&lab, "");
    lab.script(&["heal", "w2"]).ok();
    all_say(&lab, silent);

    // The next daemon of the host says the same.
    lab.script(&["restart", "w2"]).ok();
    all_say(&lab, silent);
    assert!(hub.ask(&at("w2")).is_err(), "it is the stranger's port");

    drop(stranger);
    all_say(&lab, "");
    wait::until(SOON, "the answer of w2", || hub.ask(&at("w2")).is_ok());
    assert_eq!(lab.running(lab.hosts()), running, "the tasks are the same");
}
