//! Nodes come, change and go: availability, roles, leaving, removing, joining again.

use covey_integration::{
    lab::{Lab, Wanted},
    wait,
};

const REPAIR: u64 = 20;

fn slots_of(lab: &Lab, hosts: &[&str]) -> usize {
    lab.slots("web", hosts.iter().copied()).len()
}

fn update(lab: &Lab, availability: &str, node: &str) {
    let reply = lab.docker("m1", &["node", "update", "--availability", availability, node]);
    assert_eq!(reply.ok(), node, "the node is printed as it was typed");
    wait::until_equal(REPAIR, "the change", &availability.to_owned(), || lab.node("m1", node)[1].clone());
}

/// NOD-03, NOD-11, NOD-13, NOD-14, NOD-15, NOD-22, SVC-29, SVC-36, SVC-38, SVC-39
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn drain_moves_tasks_pause_keeps_them_and_active_takes_new_ones() {
    let Some(lab) = Lab::cluster(1, 2) else { return };
    let all = |count: u32| (1..=count).collect::<Vec<u32>>();
    let scale = |count: u32| {
        let reply = lab.docker("m1", &["service", "scale", "-d", &format!("web={count}")]);
        assert_eq!(reply.ok().lines().next(), Some(format!("web scaled to {count}").as_str()));
        wait::until_equal(REPAIR, "the scale", &all(count), || lab.slots("web", lab.hosts()));
    };
    lab.create_sleepers("m1", "web", 3);
    wait::until_equal(REPAIR, "3 tasks", &all(3), || lab.slots("web", lab.hosts()));
    assert_eq!(slots_of(&lab, &["w1"]), 1, "one task a node");

    update(&lab, "drain", "w1");
    wait::until(REPAIR, "w1 empty", || slots_of(&lab, &["w1"]) == 0 && slots_of(&lab, &["m1", "w2"]) == 3);
    let kept = lab.running(["m1", "w2"]);
    update(&lab, "active", "w1");
    wait::stays(2, "nothing moves back", &kept, || lab.running(lab.hosts()));
    scale(4);
    assert_eq!(slots_of(&lab, &["w1"]), 1, "the emptiest node takes the new task");
    let now = lab.running(lab.hosts());
    assert!(kept.iter().all(|container| now.contains(container)), "scaling up leaves tasks alone");

    update(&lab, "pause", "w2");
    let kept = lab.running(["w2"]);
    scale(8);
    assert_eq!(lab.running(["w2"]), kept, "a paused node keeps its tasks and gets none");
    update(&lab, "drain", "m1");
    wait::until(REPAIR, "m1 empty", || slots_of(&lab, &["m1"]) == 0);
    wait::until_equal(REPAIR, "8 tasks", &all(8), || lab.slots("web", lab.hosts()));
    assert_eq!(lab.running(["w2"]), kept);
    scale(0);
    assert!(lab.docker("m1", &["service", "ls"]).ok().contains(" 0/0 "));
    assert_eq!(lab.docker("m1", &["service", "ps", "-q", "web"]).ok(), "", "tasks of removed slots vanish");
    // A node that nothing can run on has its reason shown (TSK-06).
    update(&lab, "drain", "w1");
    lab.covey("m1", &["service", "scale", "-d", "web=1"]).ok();
    wait::until(REPAIR, "the reason", || {
        let reply = lab.docker("m1", &["service", "ps", "--no-trunc", "web"]);
        reply.ok().contains("Pending") && reply.ok().contains("no suitable node (3 not available")
    });
    update(&lab, "active", "w1");
    wait::until(REPAIR, "the task runs by itself (TSK-16)", || slots_of(&lab, &["w1"]) == 1);
}

/// NOD-16, NOD-17, NOD-18, QRM-03, QRM-12, QRM-18, PKI-13
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn roles_change_at_run_time_and_the_leader_too_can_be_demoted() {
    let Some(lab) = Lab::cluster(1, 2) else { return };
    let reply = lab.docker("m1", &["node", "promote", "w1", "w2"]);
    let said = "Node w1 promoted to a manager in the swarm.\nNode w2 promoted to a manager in the swarm.";
    assert_eq!(reply.ok(), said);
    for host in ["w1", "w2"] {
        wait::until(REPAIR, "a reachable manager", || lab.node("m1", host)[2] == "reachable");
        wait::until(REPAIR, "its answers", || lab.docker(host, &["node", "ls"]).code == 0);
    }
    lab.create_sleepers("w1", "web", 3);
    wait::until(REPAIR, "tasks", || slots_of(&lab, &["m1", "w1", "w2"]) == 3);
    let kept = lab.running(lab.hosts());

    let reply = lab.docker("m1", &["node", "demote", "m1"]);
    assert_eq!(reply.ok(), "Manager m1 demoted in the swarm.");
    wait::until(REPAIR, "another leader", || lab.leader("w1").is_some_and(|leader| leader != "m1"));
    wait::until(REPAIR, "m1 being a worker", || lab.node("w1", "m1")[2].is_empty());
    wait::until(REPAIR, "its refusal", || {
        let reply = lab.docker("m1", &["node", "ls"]);
        reply.code != 0 && reply.err.contains("This node is not a swarm manager.")
    });
    // Nobody's tasks are touched by who manages.
    assert_eq!(lab.running(lab.hosts()), kept);
    let reply = lab.docker("w1", &["node", "update", "--role", "manager", "m1"]);
    assert_eq!(reply.ok(), "m1");
    wait::until(REPAIR, "m1 managing again", || lab.node("w1", "m1")[2] == "reachable");
    wait::until(REPAIR, "its answers", || lab.docker("m1", &["service", "ls"]).code == 0);
    // Down to one, which stays.
    for host in ["w1", "w2"] {
        lab.docker("m1", &["node", "demote", host]).ok();
        wait::until(REPAIR, "a worker", || lab.node("m1", host)[2].is_empty());
    }
    lab.docker("m1", &["node", "demote", "m1"]).refused_with("last manager of the swarm");
    assert_eq!(lab.running(lab.hosts()), kept);
}

/// CLU-10, CLU-11, CLU-12, CLU-13, CLU-15, CLU-17, NOD-02, NOD-06, NOD-19, NOD-20
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn nodes_leave_and_join_again_and_refusals_say_why() {
    let Some(lab) = Lab::cluster(2, 1) else { return };
    let two = "You are attempting to leave the swarm on a node that is participating as a manager. Removing this \
               node leaves one manager out of two. Without a Raft quorum, your Swarm will be inaccessible. The only \
               way to restore a Swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use \
               `--force` to suppress this message.";
    lab.docker("m2", &["swarm", "leave"]).refused_with(two);
    lab.docker("m1", &["swarm", "init"]).refused_with(
        "Error response from daemon: This node is already part of a swarm. Use \"docker swarm leave\" to leave this \
         swarm and join another one.",
    );
    lab.docker("m1", &["node", "rm", "w1"]).refused_with("is not down and can't be removed");
    lab.docker("m1", &["node", "rm", "m2"]).refused_with("must be demoted to worker before removal");

    lab.create_sleepers("m1", "web", 3);
    wait::until(REPAIR, "3 tasks", || slots_of(&lab, &["m1", "m2", "w1"]) == 3);
    assert_eq!(lab.docker("w1", &["swarm", "leave"]).ok(), "Node left the swarm.");
    wait::until(REPAIR, "w1 being down", || lab.node("m1", "w1")[0] == "down");
    wait::until(REPAIR, "its task elsewhere", || slots_of(&lab, &["m1", "m2"]) == 3);
    wait::until_equal(REPAIR, "the end of its containers", &Vec::new(), || lab.running(["w1"]));

    // A node that comes back is a new one: its name is there twice.
    let token = lab.docker("m1", &["swarm", "join-token", "-q", "worker"]).ok().to_owned();
    let join = ["swarm", "join", "--token", &token, &format!("{}:2377", lab.address("m1"))];
    assert_eq!(lab.docker("w1", &join).ok(), "This node joined a swarm as a worker.");
    let rows = || lab.docker("m1", &["node", "ls"]).ok().to_owned();
    let states = || {
        let rows = rows();
        let of_w1 = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            (words.next() == Some("w1")).then(|| words.next().unwrap_or_default().to_owned())
        };
        let mut states: Vec<String> = rows.lines().filter_map(of_w1).collect();
        states.sort();
        states
    };
    wait::until_equal(REPAIR, "the new node", &vec!["Down".to_owned(), "Ready".to_owned()], states);
    lab.docker("m1", &["node", "inspect", "w1"]).refused_with("ambiguous");
    let rows = rows();
    let down = rows.lines().find(|line| line.contains("Down")).and_then(|line| line.split(' ').next());
    let down = down.expect("a node that is down");
    assert_eq!(lab.docker("m1", &["node", "rm", down]).ok(), down);
    lab.docker("m1", &["node", "inspect", "w1"]).ok();

    // A manager goes the clean way: demote, leave, remove.
    lab.docker("m1", &["node", "demote", "m2"]).ok();
    wait::until(REPAIR, "m2 being a worker", || lab.node("m1", "m2")[2].is_empty());
    wait::until(REPAIR, "m2 may leave", || lab.docker("m2", &["swarm", "leave"]).code == 0);
    wait::until(REPAIR, "m2 being down", || lab.node("m1", "m2")[0] == "down");
    assert_eq!(lab.docker("m1", &["node", "rm", "m2"]).ok(), "m2");
    assert_eq!(lab.node("m1", "m2"), ["", "", ""]);

    // The last manager takes all with it, when forced.
    lab.docker("m1", &["swarm", "leave"]).refused_with(
        "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message.",
    );
    let worker = lab.get("m1", "/swarm").map(|swarm| swarm["JoinTokens"]["Worker"].clone());
    let old = lab.get("m1", "/info").map(|info| info["Swarm"]["NodeID"].clone());
    assert_eq!(lab.docker("m1", &["swarm", "leave", "--force"]).ok(), "Node left the swarm.");
    lab.docker("m1", &["node", "ls"]).refused();
    lab.docker("m1", &["swarm", "init", "--advertise-addr", &lab.address("m1")]).ok();
    assert_ne!(lab.get("m1", "/swarm").map(|swarm| swarm["JoinTokens"]["Worker"].clone()), worker);
    assert_ne!(lab.get("m1", "/info").map(|info| info["Swarm"]["NodeID"].clone()), old);
    assert_eq!(lab.docker("m1", &["node", "ls", "-q"]).ok().lines().count(), 1);
    assert_eq!(lab.docker("m1", &["service", "ls", "-q"]).ok(), "");
}

/// NOD-19, PKI-05, PKI-07: who was removed is out at once, whatever it still holds.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_node_removed_by_force_is_out_and_old_tokens_are_refused() {
    let Some(lab) = Lab::cluster(1, 1) else { return };
    lab.create_sleepers("m1", "web", 2);
    wait::until(REPAIR, "2 tasks", || slots_of(&lab, &["m1", "w1"]) == 2);
    let token = lab.docker("m1", &["swarm", "join-token", "-q", "worker"]).ok().to_owned();
    assert_eq!(lab.docker("m1", &["node", "rm", "--force", "w1"]).ok(), "w1");
    wait::until(REPAIR, "its tasks elsewhere", || slots_of(&lab, &["m1"]) == 2);
    wait::until_equal(REPAIR, "the end of its containers", &Vec::new(), || lab.running(["w1"]));
    wait::until(REPAIR, "w1 knowing", || {
        let state = lab.get("w1", "/info").map(|info| info["Swarm"]["LocalNodeState"].clone());
        state.is_some_and(|state| state != "active")
    });
    let new = lab.docker("m1", &["swarm", "join-token", "--rotate", "-q", "worker"]).ok().to_owned();
    assert_ne!(new, token);
    let manager = format!("{}:2377", lab.address("m1"));
    lab.covey("w1", &["swarm", "leave", "--force"]);
    lab.docker("w1", &["swarm", "join", "--token", &token, &manager]).refused_with("join token");
    lab.docker("w1", &["swarm", "join", "--token", &new, &manager]).ok();
}

/// PKI-05, CLU-06: every wrong way to join has an error of its own and leaves the node as it was.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_wrong_join_says_what_is_wrong_and_changes_nothing() {
    let Some(lab) = Lab::up(Wanted { managers: 3, workers: 0, swarm: false }) else { return };
    for host in ["m1", "m2"] {
        lab.docker(host, &["swarm", "init", "--advertise-addr", &lab.address(host)]).ok();
    }
    let token = |host: &str| lab.docker(host, &["swarm", "join-token", "-q", "worker"]).ok().to_owned();
    let (right, foreign) = (token("m1"), token("m2"));
    let manager = format!("{}:2377", lab.address("m1"));
    let mut wrong_secret = right.clone();
    wrong_secret.pop();
    wrong_secret.push(if right.ends_with('1') { '2' } else { '1' });
    let mut reasons = Vec::new();
    for (token, address) in [
        (foreign.as_str(), manager.as_str()),
        (&wrong_secret, &manager),
        ("SWMTKN-1-nonsense", &manager),
        (&right, "10.77.0.99:2377"),
        (&right, "nowhere.invalid:2377"),
        // Only m3 listens there, and has no cluster.
        (&right, &format!("{}:2377", lab.address("m3"))),
    ] {
        let reply = lab.docker("m3", &["swarm", "join", "--token", token, address]);
        reasons.push(reply.refused().to_owned());
        assert_eq!(lab.get("m3", "/info").expect("it goes on")["Swarm"]["LocalNodeState"], "inactive");
    }
    for (reason, word) in
        reasons.iter().zip(["CA", "join token", "SWMTKN-1-", "10.77.0.99", "nowhere.invalid", "10.77.0.13"])
    {
        assert!(reason.contains(word), "{word} is not in {reason}");
    }
    let distinct: std::collections::BTreeSet<&String> = reasons.iter().collect();
    assert_eq!(distinct.len(), reasons.len(), "{reasons:#?}");
    lab.docker("m3", &["swarm", "join", "--token", &right, &manager]).ok();
}
