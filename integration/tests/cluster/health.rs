//! Health checks: who is not well is found by nobody, and is replaced.

use covey_integration::{lab::Lab, wait};

use crate::names::{OUTSIDE, REPAIR, container, create, vip, wait_for_names};

/// TSK-14, LB-01, LB-02, LB-07: names, virtual addresses and published ports lead to healthy tasks only.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn only_healthy_tasks_are_found_and_one_that_falls_ill_is_replaced() {
    let Some(mut lab) = Lab::cluster(1, 1) else { return };
    lab.start_name_server();
    lab.docker("m1", &["network", "create", "-d", "overlay", "net"]).ok();
    create(&lab, "client", 1, &["--network", "net"], &["80"]);
    let (host, name) = container(&lab, "client");
    let client = lab.space_of(&host, &name);
    let checks = "--network net -p 8080:80 --health-interval 100ms --health-retries 2 --health-start-period 10m \
                  --health-start-interval 100ms --restart-delay 100ms --health-cmd";
    let mut more: Vec<&str> = checks.split_whitespace().collect();
    more.push("busybox cat /tmp/well");
    create(&lab, "web", 2, &more, &["80"]);

    // They run, and nobody knows yet whether they are well.
    let states = || {
        lab.docker("m1", &["service", "ps", "web", "--format", "{{.CurrentState}} {{.Error}}"])
            .ok()
            .to_owned()
    };
    wait::until(REPAIR, "both start", || states().matches("Starting").count() == 2);
    assert_eq!(client.addresses("tasks.web"), [OUTSIDE]);
    let port = format!("{}:8080", lab.address("m1"));
    assert!(client.ask(&port).is_err(), "a published port leads nowhere");

    let tasks: Vec<_> =
        lab.running(lab.hosts()).into_iter().filter(|(_, name)| name.starts_with("web.")).collect();
    let say = |(host, name): &(String, String), words: &[&str]| {
        lab.docker(host, &[&["exec", name], words].concat()).ok();
    };
    say(&tasks[0], &["busybox", "touch", "/tmp/well"]);
    let first = wait_for_names(&client, "tasks.web", 1);
    wait::until(REPAIR, "one runs", || lab.docker("m1", &["service", "ls"]).ok().contains("1/2"));
    wait::until(REPAIR, "the port answers", || client.ask(&port).is_ok());
    assert!(lab.docker(&tasks[0].0, &["ps"]).ok().contains("(healthy)"));
    say(&tasks[1], &["busybox", "touch", "/tmp/well"]);
    wait_for_names(&client, "tasks.web", 2);

    say(&tasks[0], &["busybox", "rm", "/tmp/well"]);
    let left = wait_for_names(&client, "tasks.web", 1);
    assert_ne!(left, first);
    wait::until(REPAIR, "its error", || states().contains("unhealthy container"));
    wait::until(REPAIR, "another one is there", || {
        let running = lab.running(lab.hosts());
        running.iter().filter(|(_, name)| name.starts_with("web.")).count() == 2
            && !running.contains(&tasks[0])
    });
    let vip = format!("{}:80", vip(&lab, "web"));
    for to in [&port, &vip].repeat(5) {
        client.ask(to).expect("the healthy one answers");
    }
    lab.docker("m1", &["service", "rm", "web", "client"]).ok();
}
