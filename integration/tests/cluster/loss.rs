//! What is lost and what is not: a host, the leader, a daemon, the network.

use std::collections::BTreeSet;

use covey_integration::{lab::Lab, residue, wait};
use serde_json::Value;

/// Seconds in which a cluster has to repair itself here; the figures proper are measured by `scripts/bench`.
const REPAIR: u64 = 20;

/// All slots of a service once each.
fn each_once(replicas: u32) -> Vec<u32> {
    (1..=replicas).collect()
}

/// `(id, pid, start)` of each container of a host.
fn processes(lab: &Lab, host: &str) -> BTreeSet<(String, i64, String)> {
    let containers = lab.get(host, "/containers/json").expect("the daemon answers");
    let ids = containers.as_array().into_iter().flatten().filter_map(|container| container["Id"].as_str());
    ids.map(|id| {
        let state = lab.get(host, &format!("/containers/{id}/json")).expect("it is there")["State"].take();
        let start = state["StartedAt"].as_str().unwrap_or_default().to_owned();
        (id.to_owned(), state["Pid"].as_i64().unwrap_or(0), start)
    })
    .collect()
}

/// TSK-09, TSK-04, TSK-08, QRM-09, NOD-02
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn tasks_of_a_dead_host_run_elsewhere_and_are_not_doubled_when_it_returns() {
    let Some(lab) = Lab::cluster(3, 2) else { return };
    lab.create_sleepers("m1", "web", 10);
    wait::until_equal(REPAIR, "10 tasks", &each_once(10), || lab.slots("web", lab.hosts()));
    let kept = lab.running(lab.hosts().filter(|host| *host != "w1"));
    assert_eq!(lab.slots("web", ["w1"]).len(), 2, "the tasks are spread");

    lab.script(&["kill", "w1"]).ok();
    let alive = || lab.hosts().filter(|host| *host != "w1");
    wait::until_equal(REPAIR, "replacements", &each_once(10), || lab.slots("web", alive()));
    let now = lab.running(alive());
    assert!(kept.iter().all(|container| now.contains(container)), "only tasks of the lost host are replaced");
    wait::until(REPAIR, "w1 being down", || lab.node("m1", "w1")[0] == "down");
    // What was lost is shown as it was last seen, and wanted no more.
    let tasks = lab.covey("m1", &["service", "ps", "--filter", "node=w1", "web"]);
    assert_eq!(tasks.ok().lines().filter(|line| line.contains("Shutdown")).count(), 2, "{}", tasks.out);

    lab.script(&["start", "w1"]).ok();
    wait::until(REPAIR, "w1 being ready", || lab.node("m1", "w1")[0] == "ready");
    wait::until_equal(5, "one task a slot", &each_once(10), || lab.slots("web", lab.hosts()));
    wait::stays(5, "one task a slot", &each_once(10), || lab.slots("web", lab.hosts()));
    assert_eq!(lab.running(["w1"]), [], "nothing moves back");
}

/// QRM-02, QRM-03, QRM-08, QRM-13, NOD-04
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn when_the_leader_dies_another_leads_and_it_returns_as_a_follower() {
    let Some(lab) = Lab::cluster(3, 0) else { return };
    assert_eq!(lab.leader("m2").as_deref(), Some("m1"));
    lab.create_sleepers("m2", "before", 3);
    wait::until_equal(REPAIR, "3 tasks", &each_once(3), || lab.slots("before", lab.hosts()));
    lab.script(&["kill", "m1"]).ok();
    // A request that the dying leader had already taken has no certain answer, and says so: ask again.
    let create = ["service", "create", "-d", "--no-resolve-image", "--replicas", "2", "--name", "after"];
    let create = [&create[..], &["alpine", "sleep", "10000"]].concat();
    wait::until(REPAIR, "a service through the new leader", || {
        let reply = lab.covey("m2", &create);
        reply.code == 0 || reply.err.contains("name conflicts with an existing object")
    });
    let rest = ["m2", "m3"];
    let leader = wait::until_some(REPAIR, "another leader", || lab.leader("m3"));
    assert!(rest.contains(&leader.as_str()), "{leader}");
    wait::until_equal(REPAIR, "new tasks", &each_once(2), || lab.slots("after", rest));
    wait::until_equal(REPAIR, "replacements", &each_once(3), || lab.slots("before", rest));
    assert_eq!(lab.node("m2", "m1")[2], "unreachable");

    lab.script(&["start", "m1"]).ok();
    let followers = ["ready", "active", "reachable"].map(str::to_owned);
    wait::until_equal(REPAIR, "m1 following", &followers, || lab.node("m2", "m1"));
    let services = |host| lab.get(host, "/services").map(|all| all.as_array().map_or(0, Vec::len));
    wait::until_equal(REPAIR, "m1 knowing it all", &Some(2), || services("m1"));
    wait::stays(3, "one task a slot", &each_once(3), || lab.slots("before", lab.hosts()));
}

/// QRM-06: without a quorum nothing is decided and everything runs on.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn without_a_quorum_tasks_run_on_and_commands_are_refused() {
    let Some(lab) = Lab::cluster(3, 1) else { return };
    lab.create_sleepers("m1", "web", 4);
    wait::until_equal(REPAIR, "4 tasks", &each_once(4), || lab.slots("web", lab.hosts()));
    lab.script(&["kill", "m1"]).ok();
    lab.script(&["kill", "m2"]).ok();
    let kept = lab.running(["m3", "w1"]);
    let reply = lab
        .covey("m3", &["service", "create", "-d", "--no-resolve-image", "--name", "more", "alpine", "true"]);
    assert!(reply.refused().contains("leader"), "{}", reply.err);
    assert_eq!(lab.running(["m3", "w1"]), kept);
    lab.script(&["start", "m2"]).ok();
    wait::until(REPAIR, "a leader", || lab.leader("m3").is_some());
    let alive = ["m2", "m3", "w1"];
    wait::until_equal(REPAIR, "4 tasks", &each_once(4), || lab.slots("web", alive));
    let now = lab.running(alive);
    assert!(kept.iter().all(|container| now.contains(container)), "what ran on still runs");
}

/// The daemon is killed: containers, log lines and exit codes are not lost.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn containers_outlive_their_daemon_and_nothing_they_said_is_lost() {
    let Some(lab) = Lab::cluster(1, 1) else { return };
    lab.create_sleepers("m1", "web", 4);
    wait::until_equal(REPAIR, "4 tasks", &each_once(4), || lab.slots("web", lab.hosts()));
    // One counts, and one ends with a code of its own while there is no daemon.
    let count = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; sleep 10000";
    lab.covey("w1", &["run", "-d", "--name", "counts", "alpine", "sh", "-c", count]).ok();
    lab.covey("w1", &["run", "-d", "--name", "ends", "alpine", "sh", "-c", "sleep 0.8; echo last; exit 7"])
        .ok();
    let before = (processes(&lab, "m1"), processes(&lab, "w1"));
    let pid = |host: &str| std::fs::read_to_string(lab.directory(host).join("pid")).expect("a pid file");
    let daemons = (pid("m1"), pid("w1"));
    lab.script(&["exec", "w1", "kill", "-9", daemons.1.trim()]).ok();
    wait::until(10, "the end of the other", || {
        !residue::of_host(&lab, "w1").iter().any(|item| item.contains("sleep 0.8"))
    });
    lab.script(&["start", "w1"]).ok();
    lab.script(&["restart", "m1"]).ok();
    assert_ne!((pid("m1"), pid("w1")), daemons);

    let code = lab.covey("w1", &["wait", "ends"]);
    assert_eq!(code.ok(), "7");
    assert_eq!(lab.covey("w1", &["logs", "ends"]).ok(), "last");
    let expected: Vec<String> = (0..200).map(|number| format!("line {number}")).collect();
    wait::until_equal(30, "all lines", &expected, || {
        lab.covey("w1", &["logs", "counts"]).ok().lines().map(str::to_owned).collect()
    });
    wait::until(REPAIR, "w1 being ready", || lab.node("m1", "w1")[0] == "ready");
    let ended = |all: &BTreeSet<(String, i64, String)>, host: &str| {
        let ends = lab.get(host, "/containers/ends/json").unwrap_or(Value::Null);
        all.iter().filter(|(id, ..)| ends["Id"] != id.as_str()).cloned().collect::<BTreeSet<_>>()
    };
    assert_eq!(ended(&processes(&lab, "w1"), "w1"), ended(&before.1, "w1"), "the same processes run");
    assert_eq!(processes(&lab, "m1"), before.0, "the same processes run");
    wait::stays(3, "one task a slot", &each_once(4), || lab.slots("web", lab.hosts()));
}

/// A worker, then the leader, is cut off and put back: 5 s later exactly one task a slot runs.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn after_a_partition_exactly_one_task_a_slot_runs() {
    let Some(lab) = Lab::cluster(3, 1) else { return };
    lab.create_sleepers("m1", "web", 8);
    wait::until_equal(REPAIR, "8 tasks", &each_once(8), || lab.slots("web", lab.hosts()));
    for cut in ["w1", "m1"] {
        let rest = || lab.hosts().filter(move |host| *host != cut);
        lab.script(&["cut", cut]).ok();
        wait::until_equal(REPAIR, "replacements", &each_once(8), || lab.slots("web", rest()));
        lab.script(&["heal", cut]).ok();
        wait::until_equal(5, "one task a slot", &each_once(8), || lab.slots("web", lab.hosts()));
        wait::until(REPAIR, "its return", || lab.node("m2", cut)[0] == "ready");
        wait::stays(3, "one task a slot", &each_once(8), || lab.slots("web", lab.hosts()));
        // It takes tasks again: what it lost is not held against it.
        lab.covey("m2", &["service", "update", "-d", "--force", "--update-parallelism", "0", "web"]).ok();
        wait::until(REPAIR, "tasks on it again", || {
            lab.slots("web", lab.hosts()) == each_once(8) && lab.slots("web", [cut]).len() == 2
        });
    }
}
