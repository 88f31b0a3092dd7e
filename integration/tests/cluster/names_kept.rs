//! Names over time: daemons that are killed and come back, and nodes that are drained.
#![allow(clippy::disallowed_methods, reason = "door: files of a host, and clients that ask all the while")]

use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use covey_integration::{
    dns::{self, Asked, RESOLVER},
    lab::Lab,
    space::{Connection, Space},
    wait,
};

use crate::names::{OUTSIDE, REPAIR, container, create, vip, wait_for_names};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a client waits for its answer, as a C library does.
const PATIENCE: Duration = Duration::from_secs(5);
/// Seconds until a daemon has been told anew what the one before was told: it is forgotten only after 30.
const CONFIRMED_BY: u64 = 20;
/// Seconds for what gossip tells: far less than a daemon waits that nobody tells anything.
const SOON: u64 = 8;

/// LB-01, NET-26: a daemon that forgot a name over a restart does not take it for one outside before others have told it
/// again; and a container that came into its network while it ran loses no question.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_daemon_that_was_killed_takes_no_name_for_one_outside() {
    let Some(mut lab) = Lab::cluster(1, 1) else { return };
    lab.start_name_server();
    lab.docker("m1", &["network", "create", "-d", "overlay", "--attachable", "net"]).ok();
    create(&lab, "web", 1, &["--network", "net", "--constraint", "node.role==manager"], &[]);
    let run = |host: &str, name: &str, more: &[&str]| {
        lab.docker(host, &[&["run", "-d", "--name", name], more, &["alpine", "witness"]].concat()).ok();
    };
    // The first of a host to come into a network finds the names that others have had there for long.
    let vip = vip(&lab, "web");
    let found = lab.docker("w1", &["run", "--rm", "--network", "net", "alpine", "nslookup", "web"]);
    assert!(found.ok().contains(&format!("Address: {vip}")), "{vip} is not in {}", found.out);
    run("w1", "plain", &[]);
    lab.docker("w1", &["network", "connect", "net", "plain"]).ok();
    let plain = lab.space_of("w1", "plain");
    wait::until_equal(REPAIR, "web", &vec![vip.clone()], || plain.addresses("web"));
    let own = address_in_net(&lab, "w1", "plain");
    wait::until_equal(REPAIR, "plain", &own, || plain.addresses("plain"));
    let hosts = lab.docker("w1", &["exec", "plain", "cat", "/etc/hosts"]).ok().to_owned();
    assert!(hosts.contains(&format!("{}\t", own[0])), "its own line leads to its address there: {hosts}");

    // From here on the daemon cannot write down any more what it is told.
    let file = lab.root("w1").join("run/covey/network");
    let holds = |text: &str| {
        let bytes = fs::read(&file).expect("the file is there");
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    wait::until(REPAIR, "what was told is written down", || holds("web.1.") && holds("plain"));
    // There need not be any news at this moment.
    let _ = fs::remove_file(file.with_extension("news"));
    for next in ["new", "news", "news-before"] {
        fs::create_dir(file.with_extension(next)).expect("a directory in the place of the next file");
    }
    run("m1", "late", &["--network", "net"]);
    let late = address_in_net(&lab, "m1", "late");
    wait::until_equal(REPAIR, "late", &late, || plain.addresses("late"));
    assert!(!holds("late"), "it was written down all the same");

    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let ended = wait::Raise(&over);
        let ask = |name: &'static str, expected: &[String]| {
            let (plain, over, expected) = (&plain, &over, expected.to_owned());
            scope.spawn(move || plain.run(|| ask_all_the_while(name, &expected, over)))
        };
        let asking = [ask("web", &[vip]), ask("late", &late), ask("plain", &own)];
        lab.script(&["restart", "w1"]).ok();
        wait::until(REPAIR, "the daemon", || lab.get("w1", "/containers/json").is_some());
        assert_eq!(plain.addresses("any.test"), [OUTSIDE]);
        drop(ended);
        asking.into_iter().for_each(|asking| asking.join().expect("every question is answered rightly"));
    });
}

/// LB-07, NET-29: a worker's daemon that starts while no manager is there checks what the others tell: who is there is not
/// forgotten, and who dies is taken out.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_daemon_that_starts_without_any_manager_believes_the_others() {
    let Some(lab) = Lab::cluster(1, 2) else { return };
    lab.docker("m1", &["network", "create", "-d", "overlay", "net"]).ok();
    create(&lab, "web", 6, &["--network", "net", "--constraint", "node.role==worker"], &[]);
    create(&lab, "client", 1, &["--network", "net", "--constraint", "node.hostname==w1"], &["80"]);
    let vip = format!("{}:80", vip(&lab, "web"));
    let (_, name) = container(&lab, "client");
    let client = lab.space_of("w1", &name);
    let mut all = wait_for_names(&client, "tasks.web", 6);
    all.sort();
    let others: Vec<String> = lab
        .running(["w2"])
        .into_iter()
        .map(|(_, name)| name)
        .filter(|name| name.starts_with("web."))
        .collect();
    assert!(others.len() > 1, "{others:?}");
    kill_daemon(&lab, "m1");
    wait::until(REPAIR, "w1 without a manager", || lab.docker("m1", &["node", "ls"]).code != 0);
    lab.script(&["restart", "w1"]).ok();

    // It believes what it is told again, so it forgets nothing of that.
    wait_for_all_told(&lab, "w1");
    let named = || {
        let mut found = client.addresses("tasks.web");
        found.sort();
        found
    };
    wait::until_equal(REPAIR, "all names", &all, named);

    let dead = client.addresses(&others[0]);
    kill(&lab, "w2", &others[0]);
    let left: Vec<String> = all.into_iter().filter(|address| !dead.contains(address)).collect();
    wait::until_equal(REPAIR, "the names without it", &left, named);
    wait::until(REPAIR, "the end of its turns", || (0..20).all(|_| client.ask(&vip).is_ok()));
}

/// LB-07, NET-29: a task that ends elsewhere while a daemon is down, which has no way to hear of that, is found no more as
/// soon as it is back; and of those that run none is lost.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_task_that_ended_while_the_daemon_was_down_is_not_found_when_it_is_back() {
    let Some(lab) = Lab::cluster(1, 2) else { return };
    lab.docker("m1", &["network", "create", "-d", "overlay", "net"]).ok();
    let once = ["--network", "net", "--restart-condition", "none"];
    create(&lab, "web", 4, &[&once[..], &["--constraint", "node.hostname==w2"]].concat(), &[]);
    create(&lab, "client", 1, &["--network", "net", "--constraint", "node.hostname==w1"], &[]);
    let client = lab.space_of("w1", &container(&lab, "client").1);
    let mut all = wait_for_names(&client, "tasks.web", 4);
    let (_, dying) = container(&lab, "web");
    let dead = client.addresses(&dying);
    kill_daemon(&lab, "w1");
    kill(&lab, "w2", &dying);
    wait::until(REPAIR, "its end", || lab.running(["w2"]).iter().all(|(_, name)| *name != dying));
    lab.script(&["start", "w1"]).ok();
    all.retain(|address| !dead.contains(address));
    all.sort();
    wait::until_equal(SOON, "the names without it", &all, || {
        let mut found = client.addresses("tasks.web");
        found.sort();
        found
    });
}

/// NET-29: workers whose daemons begin anew while no manager is there know of each other where they were found last.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn workers_that_begin_anew_find_each_other_without_any_manager() {
    let Some(lab) = Lab::cluster(1, 2) else { return };
    lab.docker("m1", &["network", "create", "-d", "overlay", "net"]).ok();
    create(&lab, "web", 3, &["--network", "net", "--constraint", "node.hostname==w2"], &[]);
    create(&lab, "client", 1, &["--network", "net", "--constraint", "node.hostname==w1"], &[]);
    let client = lab.space_of("w1", &container(&lab, "client").1);
    let all = wait_for_names(&client, "tasks.web", 3);
    let (_, dying) = container(&lab, "web");
    ["m1", "w1", "w2"].into_iter().for_each(|host| kill_daemon(&lab, host));
    ["w1", "w2"].into_iter().for_each(|host| _ = lab.script(&["start", host]).ok());

    wait_for_all_told(&lab, "w1");
    assert_eq!(client.addresses("tasks.web").len(), all.len());
    let dead = client.addresses(&dying);
    kill(&lab, "w2", &dying);
    wait::until(SOON, "its end", || {
        client.addresses("tasks.web").iter().all(|address| !dead.contains(address))
    });
}

/// Waits until a daemon that began anew has heard of all again that the one before knew of.
fn wait_for_all_told(lab: &Lab, host: &str) {
    wait::until(CONFIRMED_BY, "endpoints that are told anew", || {
        let (_, text) = lab.request(host, "GET", "/metrics", None);
        text.lines().any(|line| line == "covey_endpoints_unconfirmed 0")
    });
}

fn kill_daemon(lab: &Lab, host: &str) {
    let pid = fs::read_to_string(lab.directory(host).join("pid")).expect("a pid file");
    lab.script(&["exec", host, "kill", "-9", pid.trim()]).ok();
}

/// Kills a container's process.
fn kill(lab: &Lab, host: &str, container: &str) {
    let state = lab.get(host, &format!("/containers/{container}/json")).expect("it is there");
    lab.script(&["exec", host, "kill", "-9", &state["State"]["Pid"].to_string()]).ok();
}

/// The address of a container in network `net`.
fn address_in_net(lab: &Lab, host: &str, container: &str) -> Vec<String> {
    let inspected = lab.get(host, &format!("/containers/{container}/json")).expect("it is there");
    let address = inspected["NetworkSettings"]["Networks"]["net"]["IPAddress"].as_str();
    address.map(str::to_owned).into_iter().collect()
}

/// Asks for a name by one client after the other, until it is `over`. Each of them asks once, and is answered at last.
fn ask_all_the_while(name: &str, expected: &[String], over: &AtomicBool) {
    let mut asked = Vec::new();
    while !over.load(Ordering::Relaxed) {
        asked.push(Asked::over_udp(RESOLVER, name, dns::A).expect("it is sent"));
        thread::sleep(PAUSE);
    }
    let count = asked.len();
    assert!(count > 1, "{count} questions");
    for (number, asked) in asked.into_iter().enumerate() {
        let reply =
            asked.answer(PATIENCE).unwrap_or_else(|error| panic!("{name}, {number} of {count}: {error}"));
        assert_eq!(reply.records, expected, "{name}, {number} of {count}: {reply:?}");
    }
}

/// LB-07, NOD-11: whoever asks for the tasks of a service while a node is drained is sent to none that is about to end, and
/// connections to those last until the end.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn tasks_of_a_drained_node_leave_the_names_before_they_end() {
    let Some(lab) = Lab::cluster(1, 2) else { return };
    lab.docker("m1", &["network", "create", "-d", "overlay", "net"]).ok();
    let slowly = ["--network", "net", "--env", "WITNESS_STOP=4000", "--stop-grace-period", "20s"];
    create(&lab, "web", 2, &[&slowly[..], &["--constraint", "node.role==worker"]].concat(), &[]);
    create(&lab, "each", 2, &[&slowly[..], &["--endpoint-mode", "dnsrr"]].concat(), &[]);
    create(&lab, "client", 1, &["--network", "net", "--constraint", "node.role==manager"], &["80"]);
    let (host, name) = container(&lab, "client");
    let client = lab.space_of(&host, &name);
    wait_for_names(&client, "tasks.web", 2);
    wait_for_names(&client, "each", 2);
    let drained = lab.running(["w1"]);
    let leaving: Vec<String> = drained.iter().flat_map(|(_, name)| client.addresses(name)).collect();
    assert!(drained.iter().any(|(_, name)| name.starts_with("web.")), "{drained:?}");
    let lasting = |address: &String| Connection::open(&format!("{address}:80"));
    let mut lasting: Vec<_> =
        client.run(|| leaving.iter().map(|address| lasting(address).expect("it opens")).collect());

    lab.docker("m1", &["node", "update", "--availability", "drain", "w1"]).ok();
    let are_named = |space: &Space, name: &str| {
        let found = space.addresses(name);
        found.iter().any(|address| leaving.contains(address))
    };
    wait::until(REPAIR, "names without them", || {
        !are_named(&client, "tasks.web") && !are_named(&client, "each")
    });
    let running: BTreeSet<_> = lab.running(["w1"]).into_iter().collect();
    assert!(drained.iter().all(|task| running.contains(task)), "{running:?} of {drained:?}");
    for open in &mut lasting {
        open.ask().expect("the connection lasts");
    }
    // Asked for by its own name, a task is reached to the end: nobody else could answer.
    for (_, name) in &drained {
        assert!(are_named(&client, name), "{name}");
    }
    wait_for_names(&client, "tasks.web", 2);
    wait_for_names(&client, "each", 2);
    wait::until(REPAIR, "their end", || lasting.iter_mut().all(|open| open.ask().is_err()));
    assert!(!are_named(&client, "tasks.web") && !are_named(&client, "each"));
}
