//! Services whose tasks are in the network of their host.

use std::{fs, net::UdpSocket};

use covey_integration::{
    lab::{ALPINE, Lab},
    space::Space,
    wait,
};

/// Seconds for anything to come about.
const SOON: u64 = 20;
const HOSTS: [&str; 2] = ["m1", "w1"];

/// NET-20, NET-33, PRT-08: a port of the host is no more than a word, by which tasks keep out of each other's way.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn tasks_of_a_service_answer_on_the_address_of_their_host() {
    let Some(lab) = Lab::cluster(1, 1) else { return };
    let docker = |args: &[&str]| lab.docker("m1", args);
    let hub = lab.space("hub");
    let create = ["service", "create", "-d", "--no-resolve-image", "--name", "web", "--replicas", "2"];
    let hosted = [&create[..], &["--network", "host"]].concat();
    docker(&["network", "create", "-d", "overlay", "front"]).ok();
    docker(&[&hosted[..], &["-p", "8080:80", ALPINE]].concat())
        .refused_with("port published with ingress mode can't be used with the network of the host");
    docker(&[&hosted[..], &["--network", "front", ALPINE]].concat())
        .refused_with("the network of the host cannot be used together with other networks");
    docker(&[&hosted[..], &["-p", "mode=host,target=80,published=80", ALPINE, "witness"]].concat()).ok();

    // Who is asked sees who asks: there is nothing in between.
    let own = hub.run(|| UdpSocket::bind("10.77.0.1:0")).expect("the hub has it").local_addr();
    let asker = own.expect("it is bound").ip();
    let answers = |host: &str| {
        let told = hub.ask(&format!("{}:80", lab.address(host)));
        told.is_ok_and(|told| told.address.to_string() == lab.address(host) && told.client == asker)
    };
    for host in HOSTS {
        wait::until(SOON, &format!("the answer of {host}"), || answers(host));
    }
    let link = |space: &Space| space.run(|| fs::read_link("/proc/thread-self/ns/net")).expect("it is a link");
    let running = lab.running(HOSTS);
    assert_eq!(running.len(), 2, "{running:?}");
    for (host, name) in &running {
        let inspect = |format: &str| lab.docker(host, &["inspect", "-f", format, name]).ok().to_owned();
        assert_eq!(inspect("{{.HostConfig.NetworkMode}}"), "host");
        assert_eq!(inspect("{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}"), "host");
        assert_eq!(link(&lab.space_of(host, name)), link(&lab.space(host)));
        let ps = lab.docker(host, &["ps", "--format", "{{.Names}} {{.Ports}}."]);
        assert_eq!(ps.ok(), format!("{name} ."));
    }
    let host_id = docker(&["network", "inspect", "-f", "{{.Id}}", "host"]).ok().to_owned();
    let networks =
        ["service", "inspect", "-f", "{{range .Spec.TaskTemplate.Networks}}{{.Target}} {{end}}", "web"];
    assert_eq!(docker(&networks).ok(), host_id);
    assert_eq!(docker(&["service", "inspect", "-f", "{{len .Endpoint.VirtualIPs}}", "web"]).ok(), "0");
    let pretty = lab.covey("m1", &["service", "inspect", "--pretty", "web"]);
    assert!(
        pretty.ok().lines().any(|line| line.starts_with("Networks:") && line.ends_with(" host")),
        "{}",
        pretty.out
    );

    // The next daemon takes the tasks over as they are.
    for host in HOSTS {
        lab.script(&["restart", host]).ok();
    }
    wait::until_equal(SOON, "the same tasks", &running, || lab.running(HOSTS));
    assert!(HOSTS.iter().all(|host| answers(host)));

    // Out of the network of the host, and into it again.
    docker(&["service", "update", "-d", "--network-rm", "host", "--network-add", "front", "web"]).ok();
    let in_front = |host: &str| {
        let tasks = lab.running([host]);
        let mode = |(_, name): &(String, String)| {
            lab.docker(host, &["inspect", "-f", "{{.HostConfig.NetworkMode}}", name]).out.trim().to_owned()
        };
        tasks.len() == 1 && tasks.iter().all(|task| mode(task) == "front")
    };
    wait::until(SOON, "tasks in the overlay", || HOSTS.iter().all(|host| in_front(host)));
    lab.covey("m1", &["service", "update", "-d", "--network-rm", "front", "--network-add", "host", "web"])
        .ok();
    wait::until(SOON, "tasks back in the hosts' network", || {
        lab.running(HOSTS).len() == 2
            && !HOSTS.iter().any(|host| in_front(host))
            && HOSTS.iter().all(|host| answers(host))
    });

    docker(&["service", "rm", "web"]).ok();
    wait::until_equal(SOON, "no task", &Vec::new(), || lab.running(HOSTS));
    assert!(!HOSTS.iter().any(|host| answers(host)));
}
