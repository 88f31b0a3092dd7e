//! What somebody tries who comes from Docker Swarm, with the client that is there already.

use std::fs;

use covey_integration::{
    lab::{ALPINE, Lab, Wanted},
    wait,
};
use serde_json::{Value, json};

/// Seconds for anything to come about.
const SOON: u64 = 20;

/// Two networks and two services, one of which takes no notice of being asked to stop.
const STACK: &str = r#"
version: "3.8"
services:
  web:
    image: alpine
    command: [sh, -c, "echo web > /index.html; exec httpd -f -p 80 -h /"]
    networks: {front: {aliases: [site]}, back: {}}
    ports: ["8080:80"]
    sysctls: {net.core.somaxconn: "99"}
    stop_grace_period: 2s
    deploy: {replicas: 2}
  db:
    image: alpine
    command: [sh, -c, "trap '' TERM; while true; do sleep 1; done"]
    networks: [back]
    stop_grace_period: 2s
    deploy: {endpoint_mode: dnsrr}
networks:
  front: {driver: overlay, attachable: true}
  back: {driver: overlay, internal: true, attachable: true}
"#;

/// STK-01, STK-12, NET-32: a stack goes with its networks, though its tasks take their time, and can come again at once.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_stack_comes_and_goes_with_its_networks() {
    let Some(lab) = Lab::cluster(1, 1) else { return };
    lab.hosts().for_each(|host| lab.load_image(host));
    let file = lab.directory("m1").join("stack.yml");
    fs::write(&file, STACK).expect("a file of the lab");
    let docker = |args: &[&str]| lab.docker("m1", args);
    let path = file.to_str().expect("a plain path");
    let networks = || docker(&["network", "ls", "-q", "--filter", "name=shop_"]).ok().lines().count();
    for _ in 0..2 {
        docker(&["stack", "deploy", "--detach=true", "--resolve-image", "never", "-c", path, "shop"]).ok();
        assert_eq!(networks(), 2);
        let ask = |name: &str, words: &[&str]| {
            docker(&[&["run", "--rm", "--network", name, ALPINE], words].concat()).out.trim().to_owned()
        };
        wait::until_equal(SOON, "the site by its alias", &"web".to_owned(), || {
            ask("shop_front", &["wget", "-qO-", "http://site/"])
        });
        wait::until(SOON, "the other service by its short name", || {
            ask("shop_back", &["nslookup", "db"]).contains("Address")
        });
        let setting =
            docker(&["service", "inspect", "-f", "{{.Spec.TaskTemplate.ContainerSpec.Sysctls}}", "shop_web"]);
        assert_eq!(setting.ok(), "map[net.core.somaxconn:99]");
        docker(&["network", "rm", "shop_back"]).refused_with("is in use by service");

        let gone = docker(&["stack", "rm", "shop"]);
        assert!(
            gone.ok().lines().filter(|line| line.starts_with("Removing network")).count() == 2,
            "{}",
            gone.out
        );
        assert_eq!(networks(), 0);
    }
}

/// What a container is shown with.
fn inspect(lab: &Lab, container: &str) -> Value {
    let shown: Value = serde_json::from_str(lab.docker("m1", &["inspect", container]).ok()).expect("JSON");
    shown[0].clone()
}

/// CTR-03, NET-20, NET-33: nothing is left out in silence.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_container_is_as_it_was_asked_to_be_or_is_refused() {
    let Some(lab) = Lab::up(Wanted { managers: 1, workers: 0, swarm: false }) else { return };
    lab.load_image("m1");
    let docker = |args: &[&str]| lab.docker("m1", args);
    let run =
        |options: &[&str], words: &[&str]| docker(&[&["run", "--rm"], options, &[ALPINE], words].concat());
    let ttl = "/proc/sys/net/ipv4/ip_default_ttl";
    assert_eq!(run(&["--sysctl", "net.ipv4.ip_default_ttl=77"], &["cat", ttl]).ok(), "77");
    assert_eq!(run(&[], &["cat", ttl]).ok(), "64");
    for option in
        ["--ipc=private", "--cgroupns=private", "--userns=host", "--log-driver=json-file", "--no-healthcheck"]
    {
        run(&[option], &["true"]).ok();
    }
    for (options, name) in [
        (&["--ipc=host"][..], "--ipc"),
        (&["--cgroupns=host"], "--cgroupns"),
        (&["--pid=host"], "--pid"),
        (&["--uts=host"], "--uts"),
        (&["--log-driver=none"], "--log-driver"),
        (&["--log-opt", "max-size=1m"], "--log-driver"),
        (&["--memory-swap=-1"], "--memory-swap"),
        (&["--security-opt", "systempaths=unconfined"], "--security-opt"),
    ] {
        run(options, &["true"]).refused_with(&format!("not yet: {name}"));
    }
    run(&["--network", "host", "--sysctl", "net.ipv4.ip_forward=1"], &["true"])
        .refused_with("is not allowed");

    docker(&["network", "create", "--subnet", "172.30.0.0/24", "back"]).ok();
    let options = ["--name", "box", "--network", "back", "--ip", "172.30.0.9", "-P", "--expose", "90-91"];
    docker(&[&["run", "-d"], &options[..], &[ALPINE, "sleep", "10000"]].concat()).ok();
    assert_eq!(docker(&["port", "box"]).ok().lines().filter(|line| line.contains("0.0.0.0:")).count(), 2);
    let shown = inspect(&lab, "box");
    let place = &shown["NetworkSettings"]["Networks"]["back"];
    assert_eq!(
        (&place["IPAMConfig"], &place["Gateway"]),
        (&json!({"IPv4Address": "172.30.0.9"}), &json!("172.30.0.1"))
    );
    assert_eq!(shown["Config"]["ExposedPorts"], json!({"90/tcp": {}, "91/tcp": {}}));

    // Its way out is not the bridge, which it can be on as well.
    docker(&["network", "connect", "bridge", "box"]).ok();
    docker(&["network", "connect", "bridge", "box"]).refused_with("already exists in network bridge");
    let networks = inspect(&lab, "box")["NetworkSettings"]["Networks"].clone();
    assert_eq!(networks.as_object().expect("networks").keys().collect::<Vec<_>>(), ["back", "bridge"]);
    docker(&["network", "disconnect", "bridge", "box"]).ok();
    docker(&["stop", "-t", "0", "box"]).ok();
    let stopped = inspect(&lab, "box")["NetworkSettings"].clone();
    assert_eq!((&stopped["Ports"], &stopped["Networks"]["back"]["IPAddress"]), (&json!({}), &json!("")));
    assert_eq!(stopped["Networks"]["back"]["IPAMConfig"], json!({"IPv4Address": "172.30.0.9"}));
    docker(&["start", "box"]).ok();
    assert_eq!(inspect(&lab, "box")["NetworkSettings"]["Networks"]["back"]["IPAddress"], "172.30.0.9");
}

/// PRT-10, moby#26696: a client that does not know of the address that a port answers at must not open the port to all.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_port_stays_at_its_address_whatever_dockers_client_changes() {
    let Some(lab) = Lab::cluster(1, 1) else { return };
    lab.hosts().for_each(|host| lab.load_image(host));
    let publish = format!("{}:8080:80", lab.address("w1"));
    let create =
        ["service", "create", "-d", "--no-resolve-image", "--name", "web", "--publish", &publish, ALPINE];
    lab.covey(
        "m1",
        &[&create[..], &["sh", "-c", "echo web > /index.html; exec httpd -f -p 80 -h /"]].concat(),
    )
    .ok();
    let answers = |host: &str| {
        let url = format!("http://{}:8080/", lab.address(host));
        lab.script(&["exec", "hub", "curl", "-sm", "2", &url]).out.trim() == "web"
    };
    let only_there =
        |what: &str| wait::until_equal(SOON, what, &(false, true), || (answers("m1"), answers("w1")));
    only_there("the port at its address");
    lab.docker("m1", &["service", "scale", "-d", "web=2"]).ok();
    lab.docker("m1", &["service", "update", "-d", "--publish-add", "8081:80", "web"]).ok();
    only_there("the port at its address after a change of others");
    // Our own client says which.
    let words = ["service", "update", "-d", "--publish-rm", "80", "--publish-add", "8080:80", "web"];
    lab.covey("m1", &words).ok();
    wait::until_equal(SOON, "the port at all addresses", &(true, true), || (answers("m1"), answers("w1")));
}
