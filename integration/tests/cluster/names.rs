//! Names and virtual addresses inside a network, and what becomes of them when tasks end.
#![allow(
    clippy::disallowed_methods,
    reason = "door: clients that ask now and then, and moments that are measured"
)]

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use covey_integration::{
    dns::{self, NO_ERROR, NO_SUCH_NAME, RESOLVER},
    lab::Lab,
    space::{self, Connection, Space},
    wait,
};

/// Seconds until names are as they should be.
pub const REPAIR: u64 = 20;
/// What the lab's name server says of every name.
pub const OUTSIDE: &str = "192.0.2.53";

/// A service of witnesses on the network `net`, and whatever else is said of it; waits until its tasks run.
pub fn create(lab: &Lab, name: &str, replicas: usize, more: &[&str], ports: &[&str]) {
    let count = replicas.to_string();
    let args = ["service", "create", "-d", "--no-resolve-image", "--name", name, "--replicas", &count];
    lab.docker("m1", &[&args[..], more, &["alpine", "witness"], ports].concat()).ok();
    wait::until(REPAIR, name, || lab.slots(name, lab.hosts()).len() == replicas);
}

/// A container of a service: its host and its name.
pub fn container(lab: &Lab, service: &str) -> (String, String) {
    let mut running = lab.running(lab.hosts()).into_iter();
    running
        .find(|(_, name)| name.starts_with(&format!("{service}.")))
        .unwrap_or_else(|| panic!("no {service}"))
}

/// The virtual address of a service in its only network.
pub fn vip(lab: &Lab, service: &str) -> String {
    let service = lab.get("m1", &format!("/services/{service}")).expect("it is there");
    let address = service["Endpoint"]["VirtualIPs"][0]["Addr"].as_str().unwrap_or_default().to_owned();
    address.split('/').next().unwrap_or_default().to_owned()
}

/// Waits until a name of the cluster has so many addresses, and gives them. As long as it is none, it is asked outside.
pub fn wait_for_names(space: &Space, name: &str, count: usize) -> Vec<String> {
    wait::until_some(REPAIR, &format!("{count} addresses of {name}"), || {
        Some(space.addresses(name))
            .filter(|found| found.len() == count && !found.iter().any(|found| found == OUTSIDE))
    })
}

/// LB-01, LB-02, LB-03, NET-26, C-30: every name that a container may use, and that those of others are not its own.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn names_lead_to_services_tasks_and_containers() {
    let Some(mut lab) = Lab::cluster(1, 1) else { return };
    lab.start_name_server();
    lab.docker(
        "m1",
        &[
            "network",
            "create",
            "-d",
            "overlay",
            "--attachable",
            "--ipv6",
            "--subnet",
            "10.9.0.0/24",
            "--subnet",
            "fd99::/64",
            "net",
        ],
    )
    .ok();
    create(&lab, "web", 3, &["--network", "name=net,alias=www,alias=www.example.com", "-p", "8081:80"], &[]);
    create(&lab, "each", 2, &["--network", "net", "--endpoint-mode", "dnsrr"], &[]);
    create(&lab, "dns", 1, &["--network", "net"], &["53"]);
    create(&lab, "client", 1, &["--network", "net"], &["80"]);
    let (host, name) = container(&lab, "client");
    let client = lab.space_of(&host, &name);

    let vip = vip(&lab, "web");
    let tasks = wait_for_names(&client, "tasks.web", 3);
    for name in ["web", "WEB", "web.", "www", "web.net", "www.example.com"] {
        assert_eq!(client.addresses(name), [vip.as_str()], "{name}");
    }
    assert!(!tasks.contains(&vip));
    let found = client.run(|| dns::over_tcp(RESOLVER, "tasks.web", dns::A)).expect("an answer over TCP");
    assert_eq!((found.code, found.records.len()), (NO_ERROR, 3));
    // By turns another one comes first.
    let firsts = || client.resolve("tasks.web", dns::A).records.into_iter().next();
    let firsts: BTreeSet<_> = (0..12).map(|_| firsts()).collect();
    assert_eq!(firsts.len(), 3, "{firsts:?}");
    assert_eq!(wait_for_names(&client, "each", 2), client.addresses("tasks.each"));
    let six = client.resolve("web", dns::AAAA).records;
    assert!(matches!(&six[..], [one] if one.starts_with("fd99:")), "{six:?}");
    assert_eq!(client.resolve("tasks.web", dns::AAAA).records.len(), 3);

    // A task, by its name and by its container's id; and back again from its address.
    let (host, name) = container(&lab, "web");
    let id = lab.get(&host, &format!("/containers/{name}/json")).expect("it is there")["Id"].take();
    let own = client.addresses(&name);
    assert!(own.len() == 1 && tasks.contains(&own[0]), "{own:?}");
    assert_eq!(client.addresses(&id.as_str().unwrap_or_default()[..12]), own);
    let octets: Vec<&str> = own[0].split('.').rev().collect();
    let pointer = client.resolve(&format!("{}.in-addr.arpa", octets.join(".")), dns::PTR);
    assert!(pointer.records.iter().any(|found| found.starts_with(&name)), "{pointer:?} is not {name}");

    // The client that people have at hand.
    let (host, name) = container(&lab, "client");
    let said = lab.docker(&host, &["exec", &name, "nslookup", "web"]);
    assert!(
        said.ok().contains(&format!("Address: {vip}")) && said.out.contains("127.0.0.11"),
        "{}",
        said.out
    );

    // A plain container on the same network, by its name and its alias.
    lab.docker(
        "m1",
        &[
            "run",
            "-d",
            "--name",
            "plain",
            "--network",
            "net",
            "--network-alias",
            "simple",
            "alpine",
            "witness",
        ],
    )
    .ok();
    let plain = wait_for_names(&client, "plain", 1);
    assert_eq!(client.addresses("simple"), plain);
    let inside = lab.space_of("m1", "plain");
    assert_eq!(inside.addresses("web"), [vip.as_str()]);
    inside.ask(&format!("{vip}:80")).expect("a plain container reaches a service");
    client.ask(&format!("{}:80", plain[0])).expect("and is reached");

    // Everything else is asked outside; what a network knows is not.
    assert_eq!(client.addresses("example.com"), [OUTSIDE]);
    lab.docker("m1", &["network", "create", "-d", "overlay", "--internal", "closed"]).ok();
    create(&lab, "alone", 1, &["--network", "closed"], &[]);
    let (host, name) = container(&lab, "alone");
    let alone = lab.space_of(&host, &name);
    let nowhere = alone.resolve("web", dns::A);
    assert_eq!((nowhere.code, nowhere.records.len()), (NO_SUCH_NAME, 0), "a name of another network");
    assert_eq!(alone.resolve("example.com", dns::A).records, Vec::<String>::new());

    // The task has port 53 of all its addresses, the loopback's own among them, and its resolver all the same.
    let (host, name) = container(&lab, "dns");
    let server = lab.space_of(&host, &name);
    assert_eq!(server.addresses("web"), [vip.as_str()]);
    let to = format!("{}:53", wait_for_names(&client, "dns", 1)[0]);
    let found = client.run(|| dns::over_udp(&to, "any.test", dns::A)).expect("the task's own answer");
    assert_eq!(found.records, [OUTSIDE]);
    assert_eq!(client.run(|| dns::over_tcp(&to, "any.test", dns::A)).expect("over TCP").records, [OUTSIDE]);
    assert_eq!(
        server.run(|| dns::over_udp("127.0.0.1:53", "x.test", dns::A)).expect("its own").records,
        [OUTSIDE]
    );
    ports_are_found_by_name(&lab, &client);
    servers_are_asked_where_the_container_is(&lab);
    queries_wait_for_the_daemon(&lab, &client, &vip);
}

/// Ports that a service publishes have records of type SRV: all of them under its name, and those with a name of their own.
fn ports_are_found_by_name(lab: &Lab, client: &Space) {
    assert_eq!(client.resolve("web", dns::SRV).records, ["80 web.net"]);
    let tasks = client.resolve("tasks.web", dns::SRV).records;
    let addresses = client.addresses("tasks.web");
    let found: BTreeSet<String> = tasks
        .iter()
        .filter_map(|task| task.strip_prefix("80 "))
        .flat_map(|target| client.addresses(target))
        .collect();
    assert_eq!(found, addresses.into_iter().collect(), "{tasks:?}");
    let spec = r#"{"Name": "named", "TaskTemplate": {"ContainerSpec": {"Image": "alpine", "Command": ["witness"]},
        "Networks": [{"Target": "net"}]}, "EndpointSpec": {"Ports": [
        {"Name": "http", "TargetPort": 80, "PublishedPort": 8082}, {"Name": "dns", "Protocol": "udp", "TargetPort": 53}]}}"#;
    let (status, text) = lab.request("m1", "POST", "/services/create", Some(spec));
    assert_eq!(status, 201, "{text}");
    wait::until(REPAIR, "its task", || lab.slots("named", lab.hosts()).len() == 1);
    wait::until_equal(REPAIR, "named", &[vip(lab, "named")].to_vec(), || client.addresses("named"));
    assert_eq!(client.resolve("_http._tcp.named", dns::SRV).records, ["80 named.net"]);
    assert_eq!(client.resolve("_dns._udp.named", dns::SRV).records, ["53 named.net"]);
    assert_eq!(client.resolve("named", dns::SRV).records.len(), 2);
    let other = client.resolve("_http._udp.named", dns::SRV);
    assert_eq!((other.code, other.records.len()), (NO_ERROR, 0));
}

/// A DNS server that is a task of the same network is reached from there only.
fn servers_are_asked_where_the_container_is(lab: &Lab) {
    lab.docker("m1", &["network", "create", "-d", "overlay", "--attachable", "--internal", "inner"]).ok();
    create(lab, "server", 1, &["--network", "inner", "--network", "net"], &["53"]);
    let (host, name) = container(lab, "server");
    let inspected = lab.get(&host, &format!("/containers/{name}/json")).expect("it is there");
    let address = inspected["NetworkSettings"]["Networks"]["inner"]["IPAddress"].clone();
    let address = address.as_str().unwrap_or_default();
    let run = ["run", "-d", "--name", "inner", "--network", "inner", "--dns", address, "alpine", "witness"];
    lab.docker("w1", &run).ok();
    let inner = lab.space_of("w1", "inner");
    wait::until_equal(REPAIR, "its answer", &[OUTSIDE.to_owned()].to_vec(), || inner.addresses("any.test"));
    assert_eq!(inner.addresses("tasks.server"), [address]);
}

/// What is asked while the daemon restarts is answered, late.
fn queries_wait_for_the_daemon(lab: &Lab, client: &Space, vip: &str) {
    let (host, _) = container(lab, "client");
    let over = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let ended = wait::Raise(&over);
        let questions = scope.spawn(|| {
            let mut asked = 0;
            while !over.load(Ordering::Relaxed) {
                assert_eq!(client.addresses("web"), [vip]);
                asked += 1;
            }
            asked
        });
        lab.script(&["restart", &host]).ok();
        thread::sleep(Duration::from_millis(500));
        drop(ended);
        questions.join().expect("every question is answered")
    });
    assert!(asked > 1, "{asked} questions");
}

/// LB-07, NET-29: with all managers stopped, a task that dies leaves names, virtual addresses and ports of all hosts.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn without_any_manager_a_dead_task_is_still_taken_out() {
    let Some(lab) = Lab::cluster(3, 2) else { return };
    lab.docker("m1", &["network", "create", "-d", "overlay", "net"]).ok();
    let on_workers = ["--network", "net", "-p", "8080:80", "--constraint", "node.role==worker"];
    create(&lab, "web", 2, &on_workers, &[]);
    create(&lab, "client", 1, &["--network", "net", "--constraint", "node.hostname==w2"], &["80"]);
    let (_, name) = container(&lab, "client");
    let client = lab.space_of("w2", &name);
    let vip = format!("{}:80", vip(&lab, "web"));
    wait_for_names(&client, "tasks.web", 2);
    for manager in ["m1", "m2", "m3"] {
        let pid = std::fs::read_to_string(lab.directory(manager).join("pid")).expect("a pid file");
        lab.script(&["exec", manager, "kill", "-9", pid.trim()]).ok();
    }
    wait::until(REPAIR, "w1 without managers", || lab.docker("m1", &["node", "ls"]).code != 0);
    let kept =
        lab.running(["w2"]).into_iter().find(|(_, name)| name.starts_with("web.")).expect("one a worker").1;
    let died =
        lab.running(["w1"]).into_iter().find(|(_, name)| name.starts_with("web.")).expect("one a worker").1;
    let state =
        |host: &str, name: &str| lab.get(host, &format!("/containers/{name}/json")).expect("it is there");
    let pid = state("w1", &died)["State"]["Pid"].to_string();
    lab.script(&["exec", "w1", "kill", "-9", &pid]).ok();

    wait_for_names(&client, "tasks.web", 1);
    let kept = state("w2", &kept)["Config"]["Hostname"].as_str().unwrap_or_default().to_owned();
    let hub = lab.space("hub");
    wait::until(REPAIR, "the end of its turns", || {
        let inside = (0..20).all(|_| client.ask(&vip).is_ok_and(|said| said.host == kept));
        let ports = ["w1", "w2", "m1", "m2", "m3"].map(|host| format!("{}:8080", lab.address(host)));
        // Daemons of managers are gone: their hosts have what they knew last.
        inside && ports[..2].iter().all(|to| (0..10).all(|_| hub.ask(to).is_ok_and(|said| said.host == kept)))
    });
}

/// LB-07: a client that asks again loses moments by a dead task, over TCP and over UDP; what is under way with a task that
/// is ending goes on until its end, and nothing new comes to it.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn flows_to_the_dead_are_cut_and_those_to_the_draining_last() {
    let Some(lab) = Lab::cluster(1, 2) else { return };
    lab.docker("m1", &["network", "create", "-d", "overlay", "net"]).ok();
    let slowly = [
        "--network",
        "net",
        "--env",
        "WITNESS_STOP=8000",
        "--stop-signal",
        "SIGTERM",
        "--stop-grace-period",
        "20s",
    ];
    create(&lab, "web", 4, &[&slowly[..], &["-p", "8080:80"]].concat(), &[]);
    create(&lab, "client", 1, &["--network", "net"], &["80"]);
    let (host, name) = container(&lab, "client");
    let client = lab.space_of(&host, &name);
    wait_for_names(&client, "tasks.web", 4);
    let vip = format!("{}:80", vip(&lab, "web"));

    // One socket each: the same flow, as a client keeps it.
    let over = AtomicBool::new(false);
    let failures = AtomicU32::new(0);
    let (victim_host, victim) = container(&lab, "web");
    let pid =
        lab.get(&victim_host, &format!("/containers/{victim}/json")).expect("it is there")["State"]["Pid"]
            .to_string();
    let last_failure = thread::scope(|scope| {
        let ended = wait::Raise(&over);
        let clients: Vec<_> = [false, true]
            .into_iter()
            .cycle()
            .take(24)
            .map(|by_udp| {
                let (client, vip, over, failures) = (&client, &vip, &over, &failures);
                scope.spawn(move || {
                    client.run(|| {
                        let mut last = None;
                        let mut connection = None;
                        let socket = std::net::UdpSocket::bind("0.0.0.0:0")
                            .and_then(|socket| socket.connect(vip).map(|()| socket));
                        let socket = socket.expect("a socket");
                        while !over.load(Ordering::Relaxed) {
                            let said = if by_udp {
                                space::ask_by(&socket, Duration::from_millis(100)).map(drop)
                            } else {
                                let ask = |open: Option<Connection>| -> std::io::Result<Connection> {
                                    let mut open = match open {
                                        Some(open) => open,
                                        None => Connection::open(vip)?,
                                    };
                                    open.ask().map(|_| open)
                                };
                                ask(connection.take()).map(|open| connection = Some(open))
                            };
                            if said.is_err() {
                                failures.fetch_add(1, Ordering::Relaxed);
                                last = Some(Instant::now());
                            }
                            thread::sleep(Duration::from_millis(10));
                        }
                        last
                    })
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(300));
        let killed = Instant::now();
        lab.script(&["exec", &victim_host, "kill", "-9", &pid]).ok();
        wait::until(REPAIR, "another in its place", || {
            let names = lab.running(lab.hosts());
            !names.iter().any(|(_, name)| *name == victim) && lab.slots("web", lab.hosts()).len() == 4
        });
        thread::sleep(Duration::from_millis(300));
        drop(ended);
        let last = clients.into_iter().filter_map(|client| client.join().expect("a client ends")).max();
        last.map_or(Duration::ZERO, |last| last.duration_since(killed))
    });
    // A few hundred milliseconds are usual; here everything else runs at the same time.
    assert!(last_failure < Duration::from_secs(3), "a request failed {last_failure:?} after the kill");
    eprintln!(
        "{} requests failed, the last {last_failure:?} after the kill",
        failures.load(Ordering::Relaxed)
    );

    // Three of four drain for seconds: connections to them last, new ones go to the one that stays.
    let hub = lab.space("hub");
    let port = format!("{}:8080", lab.address("m1"));
    let inside =
        client.run(|| (0..12).map(|_| Connection::open(&vip).expect("it opens")).collect::<Vec<_>>());
    let outside = hub.run(|| (0..12).map(|_| Connection::open(&port).expect("it opens")).collect::<Vec<_>>());
    let mut lasting: Vec<Connection> = inside.into_iter().chain(outside).collect();
    let before: Vec<String> = lasting.iter_mut().map(|open| open.ask().expect("it answers").host).collect();
    lab.docker("m1", &["service", "scale", "-d", "web=1"]).ok();
    wait::until(REPAIR, "one that stays", || {
        let asked = |from: &Space, to: &str| from.ask(to).map(|said| said.host).ok();
        let found: BTreeSet<_> = (0..20).flat_map(|_| [asked(&client, &vip), asked(&hub, &port)]).collect();
        found.len() == 1 && !found.contains(&None)
    });
    for (open, host) in lasting.iter_mut().zip(&before) {
        assert_eq!(&open.ask().expect("the connection lasts").host, host);
    }
    let hosts: BTreeSet<&String> = before.iter().collect();
    assert!(hosts.len() > 1, "{hosts:?} were asked");
    wait::until(REPAIR, "their end", || lasting.iter_mut().any(|open| open.ask().is_err()));
}
