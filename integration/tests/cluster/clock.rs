//! Clocks that are off, and years that pass: whole daemons under another time of day (`other-clock`).

use std::{fs, thread};

use covey_integration::{
    lab::{Lab, Wanted},
    reply::{PATIENCE, run},
    wait, workspace,
};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Within this time after a start, certificates that are due have been renewed.
const RENEWAL: u64 = 40;

/// Boots a host, or restarts its daemon, with the clock off by so many seconds.
fn with_clock(lab: &Lab, command: &str, host: &str, offset: i64) {
    let wrap = format!("{} {offset}", env!("CARGO_BIN_EXE_other-clock"));
    let script = workspace().join("scripts/lab");
    let script = script.to_str().expect("a plain path");
    run(script, &[command, host], &[("LAB", lab.name()), ("LAB_WRAP", &wrap)], PATIENCE).ok();
}

/// All hosts go off, and these come back that much later than now.
fn time_travel(lab: &Lab, hosts: &[&str], offset: i64) {
    for host in lab.hosts() {
        lab.script(&["kill", host]).ok();
    }
    // All at once: each of them looks for the others before it goes on alone.
    thread::scope(|scope| {
        for host in hosts {
            scope.spawn(move || with_clock(lab, "start", host, offset));
        }
    });
}

/// A file of a host's identity.
fn identity(lab: &Lab, host: &str, file: &str) -> String {
    fs::read_to_string(lab.directory(host).join("data/swarm").join(file)).unwrap_or_default()
}

fn certificates(lab: &Lab) -> Vec<String> {
    lab.hosts().map(|host| identity(lab, host, "node.crt")).collect()
}

fn all_are_ready(lab: &Lab) {
    wait::until(RENEWAL, "all nodes being ready", || {
        lab.hosts().all(|host| lab.node("m1", host)[0] == "ready")
    });
}

/// Waits until every host has another certificate than before; their keys stay.
fn all_renew(lab: &Lab, before: &[String], keys: &[String]) {
    wait::until_equal(RENEWAL, "new certificates", &Vec::<&str>::new(), || {
        let now = certificates(lab);
        let old = lab.hosts().zip(now.iter().zip(before)).filter(|(_, (now, before))| now == before);
        old.map(|(host, _)| host).collect()
    });
    let now: Vec<String> = lab.hosts().map(|host| identity(lab, host, "node.key")).collect();
    assert!(now == keys, "a key has changed");
}

/// PKI-05, CLU-06: whichever way its clock is off, the joining node is told so and stays as it was.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_node_whose_clock_is_off_is_told_so_and_stays_as_it_was() {
    let Some(lab) = Lab::up(Wanted { managers: 2, workers: 0, swarm: false }) else { return };
    lab.covey("m1", &["swarm", "init", "--advertise-addr", &lab.address("m1")]).ok();
    let token = lab.covey("m1", &["swarm", "join-token", "-q", "worker"]).ok().to_owned();
    let manager = format!("{}:2377", lab.address("m1"));
    let join = ["swarm", "join", "--token", &token, &manager];
    for (offset, words) in [
        // The manager refuses.
        (2 * HOUR, "ahead of the cluster's: set it, then join again"),
        // This node refuses the manager's certificate: for its clock it is not valid yet, or not any more.
        (-3 * HOUR, "is not valid for another "),
        (100 * DAY, "expired 10 d 0 h ago"),
    ] {
        with_clock(&lab, "restart", "m2", offset);
        lab.covey("m2", &join).refused_with(words);
        assert_eq!(lab.get("m2", "/info").expect("it goes on")["Swarm"]["LocalNodeState"], "inactive");
        assert_eq!(identity(&lab, "m2", "member.json"), "", "something of the attempt is left");
        assert_eq!(lab.covey("m1", &["node", "ls", "-q"]).ok().lines().count(), 1);
    }
    // A clock that is off by minutes is nobody's trouble.
    with_clock(&lab, "restart", "m2", -50 * 60);
    lab.covey("m2", &join).ok();
    wait::until_equal(RENEWAL, "the new node", &"ready".to_owned(), || lab.node("m1", "m2")[0].clone());
}

/// PKI-01: certificates are renewed between 50 and 80 % of their 90 days, with the key kept, before anything expires.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn certificates_are_renewed_in_time_with_the_same_key() {
    let Some(lab) = Lab::cluster(2, 1) else { return };
    let all: Vec<&str> = lab.hosts().collect();
    let first = certificates(&lab);
    let keys: Vec<String> = lab.hosts().map(|host| identity(&lab, host, "node.key")).collect();
    time_travel(&lab, &all, 40 * DAY);
    all_are_ready(&lab);
    wait::stays(2, "certificates before half of their life", &first, || certificates(&lab));
    time_travel(&lab, &all, 80 * DAY);
    all_renew(&lab, &first, &keys);
    all_are_ready(&lab);
    // What was renewed lasts from then on: the first ones have expired meanwhile.
    let second = certificates(&lab);
    time_travel(&lab, &all, 100 * DAY);
    all_are_ready(&lab);
    wait::stays(2, "certificates in their first half", &second, || certificates(&lab));
    lab.create_sleepers("m1", "web", 2);
    wait::until(RENEWAL, "2 tasks", || lab.slots("web", lab.hosts()).len() == 2);
}

/// PKI-01: a node that was away until its certificate had expired gets a new one by the old one; and so do all nodes of
/// a cluster that was switched off for so long.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn expired_certificates_are_good_for_new_ones() {
    let Some(lab) = Lab::cluster(3, 1) else { return };
    let all: Vec<&str> = lab.hosts().collect();
    let first = certificates(&lab);
    let keys: Vec<String> = lab.hosts().map(|host| identity(&lab, host, "node.key")).collect();
    time_travel(&lab, &all, 100 * DAY);
    all_renew(&lab, &first, &keys);
    all_are_ready(&lab);
    // Now the worker alone stays away for longer than its certificate lasts.
    let second = certificates(&lab);
    let managers = ["m1", "m2", "m3"];
    time_travel(&lab, &managers, 185 * DAY);
    wait::until(RENEWAL, "the managers' new certificates", || {
        certificates(&lab).iter().zip(&second).filter(|(now, before)| now == before).count() == 1
    });
    time_travel(&lab, &all, 195 * DAY);
    all_renew(&lab, &second, &keys);
    all_are_ready(&lab);
    lab.create_sleepers("m1", "web", 4);
    wait::until(RENEWAL, "4 tasks", || lab.slots("web", lab.hosts()).len() == 4);
}
