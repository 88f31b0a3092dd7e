//! The timers of the managers' log, changed on a running cluster.

use covey_integration::{lab::Lab, wait};
use serde_json::json;

/// Each manager takes its turn of a second.
const TURNS: u64 = 20;

/// QRM-03, SWM: other timers are in force on every manager without a restart, and work goes on.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn other_timers_of_the_log_take_effect_on_a_running_cluster() {
    let Some(lab) = Lab::cluster(3, 0) else { return };
    let managers = ["m1", "m2", "m3"];
    let swarm = lab.get("m1", "/swarm").expect("the cluster's settings");
    let mut spec = swarm["Spec"].clone();
    spec["Raft"]["HeartbeatTick"] = json!(2);
    spec["Raft"]["ElectionTick"] = json!(30);
    let path = format!("/swarm/update?version={}", swarm["Version"]["Index"]);
    let (status, answer) = lab.request("m1", "POST", &path, Some(&spec.to_string()));
    assert_eq!(status, 200, "{answer}");
    let told = |host: &str| lab.log(host).matches("other timers of the managers' log").count();
    let mut created = 0;
    wait::until(TURNS, "the new timers on all managers", || {
        // Whoever asks in between waits a little, and is not refused.
        created += 1;
        lab.create_sleepers("m2", &format!("s{created}"), 0);
        managers.iter().all(|host| told(host) == 1)
    });
    let services = lab.docker("m3", &["service", "ls", "-q"]).ok().lines().count();
    assert_eq!(services, created);
    for host in managers {
        assert!(!lab.log(host).contains("has stopped on this node"), "the log of {host} has stopped");
    }
    // The daemons of before still hold it together, and the loss of a leader is survived.
    let leader = wait::until_some(TURNS, "a leader", || lab.leader("m1"));
    lab.script(&["kill", &leader]).ok();
    let other = managers.into_iter().find(|host| *host != leader).expect("another one");
    wait::until(TURNS, "another leader", || lab.leader(other).is_some_and(|now| now != leader));
    lab.create_sleepers(other, "after", 0);
}
