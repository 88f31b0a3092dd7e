//! What is known of endpoints stays true on bad lines: the recipe of moby#50551.
#![allow(clippy::disallowed_methods, reason = "door: churn that is watched for a time")]

use std::{
    env,
    time::{Duration, Instant},
};

use covey_integration::{
    dns,
    lab::Lab,
    relay::{Line, with_lines},
    space::Space,
    wait,
};

/// Lines are slow, and a task is started anew with a delay.
const REPAIR: u64 = 60;
/// Seconds of churn, unless `COVEY_SECONDS` names others (`scripts/soak convergence`).
const SECONDS: u64 = 25;
const REPLICAS: usize = 3;
/// 100 ± 200 ms, and 1 % lost: there is no line that is early.
const LINE: Line =
    Line { delay: (Duration::ZERO, Duration::from_millis(300)), lost: 10, seed: 0x5055_1000_0000_0001 };

/// Everything that routers of the lab know of other hosts' endpoints and of their hosts.
fn known(lab: &Lab) -> usize {
    let count = |host: &str| {
        let show = "for name in /run/covey/netns/net-*; do [ -e $name ] && nsenter --net=$name sh -c \
            'ip neigh show nud permanent; bridge fdb show | grep dst; ip route show proto 67 | grep via'; done; true";
        lab.script(&["exec", host, "sh", "-c", show]).ok().lines().count()
    };
    lab.hosts().map(count).sum()
}

/// How many addresses a name has; none where the outside is asked, which cannot be reached.
fn addresses(client: &Space, name: &str) -> usize {
    client.run(|| dns::over_udp(dns::RESOLVER, name, dns::A)).map_or(0, |reply| reply.records.len())
}

/// NET-29, LB-01, LB-07: three hosts (one decides: a majority on such lines is another matter) on bad lines, a task on each that ends every five seconds: names never have more
/// addresses than there are tasks for long, and when the service is gone nothing of it is left on any host.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn on_bad_lines_names_do_not_grow_and_nothing_is_left() {
    let Some(lab) = Lab::cluster(1, 2) else { return };
    lab.docker("m1", &["network", "create", "-d", "overlay", "net"]).ok();
    let create = ["service", "create", "-d", "--no-resolve-image", "--network", "net", "--replicas", "3"];
    lab.docker("m1", &[&create[..], &["--name", "client", "alpine", "witness"]].concat()).ok();
    wait::until(REPAIR, "clients", || lab.slots("client", lab.hosts()).len() == REPLICAS);
    let clients: Vec<_> =
        lab.running(lab.hosts()).iter().map(|(host, name)| lab.space_of(host, name)).collect();
    wait::until(REPAIR, "their names", || {
        clients.iter().all(|client| addresses(client, "tasks.client") == REPLICAS)
    });
    let before = known(&lab);
    let seconds = env::var("COVEY_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);

    let most = with_lines(&lab, LINE, || {
        let ping = lab.script(&[
            "exec",
            "m1",
            "busybox",
            "ping",
            "-c",
            "20",
            "-i",
            "0.05",
            "-w",
            "5",
            &lab.address("w1"),
        ]);
        let slowest = ping.out.lines().find(|line| line.contains("min/avg/max")).unwrap_or(&ping.out);
        let slowest: f64 =
            slowest.split('/').next_back().and_then(|it| it.split(' ').next()?.parse().ok()).unwrap_or(0.0);
        assert!(slowest > 150.0, "the lines are good: {}", ping.out);
        let churn = ["--name", "web", "--restart-delay", "100ms", "--env", "WITNESS_LIFE=5000"];
        let created = || {
            let reply = lab.docker("m1", &[&create[..], &churn, &["alpine", "witness"]].concat());
            reply.code == 0 || reply.err.contains("name conflicts")
        };
        wait::until(REPAIR, "the service", created);
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut most = 0;
        wait::until(REPAIR, "its names everywhere", || {
            clients.iter().all(|client| addresses(client, "tasks.web") > 0)
        });
        while Instant::now() < end {
            for client in &clients {
                most = most.max(addresses(client, "tasks.web"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let ended = lab.docker("m1", &["service", "ps", "-q", "--filter", "desired-state=shutdown", "web"]);
        assert!(ended.ok().lines().count() >= REPLICAS, "tasks did not end: {}", ended.out);
        wait::until(REPAIR, "its end", || {
            let reply = lab.docker("m1", &["service", "rm", "web"]);
            reply.code == 0 || reply.err.contains("not found")
        });
        wait::until_equal(REPAIR, "the end of its names", &vec![0; REPLICAS], || {
            clients.iter().map(|client| addresses(client, "tasks.web")).collect()
        });
        wait::until_equal(REPAIR, "what hosts knew before", &before, || known(&lab));
        most
    });
    // A task and its successor may both be known for as long as news is under way.
    assert!(most <= 2 * REPLICAS, "a name had {most} addresses");
}
