//! The unmodified `docker` clients, as far as they are installed: v28 and Debian's 20.10.

use std::{path::Path, process::Output, time::Duration};

use tokio::{process::Command, time::timeout};

use crate::{Daemon, control::MANAGER};

const CLIENTS: [&str; 2] = ["/usr/local/bin/docker", "/usr/bin/docker"];
const PATIENCE: Duration = Duration::from_secs(60);

struct Docker<'a> {
    binary: &'static str,
    daemon: &'a Daemon,
}

impl Docker<'_> {
    async fn output(&self, words: &str, input: &str) -> Output {
        let config = self.daemon.directory.path().join("docker");
        let mut command = Command::new(self.binary);
        command
            // A blank inside a word is written as one that does not break.
            .args(words.split(' ').filter(|word| !word.is_empty()).map(|word| word.replace('\u{a0}', " ")))
            .env("DOCKER_HOST", format!("unix://{}", self.daemon.socket.display()))
            .env("DOCKER_CONFIG", config)
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_API_VERSION")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let feed = async move {
            // A client that does not read its input has gone its way: nothing to feed.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await;
        };
        let ((), output) = tokio::join!(feed, async { timeout(PATIENCE, child.wait_with_output()).await });
        output.unwrap_or_else(|_| panic!("{} {words} does not end", self.binary)).unwrap()
    }

    /// Standard output of a command that must succeed.
    async fn run(&self, words: &str) -> String {
        self.feed(words, "").await
    }

    async fn feed(&self, words: &str, input: &str) -> String {
        let output = self.output(words, input).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {words}: {stderr}", self.binary);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Standard error of a command that must fail.
    async fn fail(&self, words: &str) -> String {
        let output = self.output(words, "").await;
        assert!(!output.status.success(), "{} {words} succeeds", self.binary);
        String::from_utf8(output.stderr).unwrap()
    }
}

/// Runs `$body` with each client against a daemon of its own.
macro_rules! with_each_client {
    ($start:expr, |$docker:ident| $body:block) => {
        for binary in CLIENTS {
            if !Path::new(binary).exists() {
                eprintln!("SKIPPED: there is no {binary}");
                continue;
            }
            let daemon = $start.await;
            let $docker = Docker { binary, daemon: &daemon };
            $body
        }
    };
}

/// API-05, CLU-18, QRM-12
#[tokio::test]
async fn version_and_info_are_shown_on_a_manager_and_on_a_worker() {
    with_each_client!(Daemon::manager(), |docker| {
        let version = docker.run("version").await;
        assert!(version.contains("1.51") && version.contains("0.1.0"), "{version}");
        let info = docker.run("info").await;
        for line in
            ["Swarm: active", &format!("NodeID: {MANAGER}"), "Is Manager: true", "Managers: 1", "Nodes: 2"]
        {
            assert!(info.contains(line), "{line}: {info}");
        }
        assert!(docker.run("network ls").await.contains("bridge"));
        docker.run("volume ls").await;
        docker.daemon.control.become_worker();
        let error = docker.fail("node ls").await;
        assert!(
            error.starts_with("Error response from daemon: This node is not a swarm manager. Worker nodes")
        );
    });
}

/// CLU-02, CLU-09, CLU-12, CLU-15
#[tokio::test]
async fn swarm_commands_work() {
    with_each_client!(Daemon::start(), |docker| {
        let init = docker.run("swarm init --advertise-addr 10.0.0.1").await;
        assert!(
            init.contains(&format!("Swarm initialized: current node ({MANAGER}) is now a manager.")),
            "{init}"
        );
        assert!(init.contains("docker swarm join --token SWMTKN-1-ca-worker0 10.0.0.1:2377"), "{init}");
        assert!(docker.fail("swarm init").await.contains("This node is already part of a swarm."));
        assert!(docker.run("swarm join-token -q worker").await.contains("SWMTKN-1-ca-worker0"));
        assert!(docker.run("swarm join-token --rotate -q manager").await.contains("SWMTKN-1-ca-manager1"));
        docker.run("swarm update --task-history-limit 3").await;
        assert_eq!(docker.daemon.control.store().cluster().unwrap().spec.task_history_limit, 3);
        assert!(docker.fail("swarm update --autolock=true").await.contains("not yet: --autolock"));
        assert!(docker.run("swarm leave --force").await.contains("Node left the swarm."));
        let join = docker.run("swarm join --token SWMTKN-1-a-b 10.0.0.9:2377").await;
        assert!(join.contains("This node joined a swarm as a worker."), "{join}");
    });
}

/// NOD-01, NOD-07, NOD-08, NOD-10, NOD-11, NOD-21
#[tokio::test]
async fn node_commands_work() {
    with_each_client!(Daemon::manager(), |docker| {
        let nodes = docker.run("node ls").await;
        assert!(nodes.contains(&format!("{MANAGER} *")) && nodes.contains("Leader"), "{nodes}");
        assert_eq!(
            docker.run("node inspect self --format {{.ManagerStatus.Reachability}}").await,
            "reachable\n"
        );
        assert_eq!(docker.run("node inspect w1 --format {{.Status.State}}").await, "ready\n");
        assert_eq!(docker.run("node update --availability drain --label-add disk=ssd w1").await, "w1\n");
        assert!(docker.run("node inspect --pretty w1").await.contains("Drain"));
        assert!(docker.run("node promote w1").await.contains("Node w1 promoted to a manager in the swarm."));
        assert!(docker.run("node demote w1").await.contains("Manager w1 demoted in the swarm."));
        assert!(docker.fail("node rm w1").await.contains("is not down and can't be removed"));
        assert_eq!(docker.run("node rm --force w1").await, "w1\n");
    });
}

/// SVC-01, SVC-18, SVC-21, SVC-30, SVC-31, SVC-33, SVC-36, SVC-50, SVC-52
#[tokio::test]
async fn service_commands_work() {
    with_each_client!(Daemon::manager(), |docker| {
        let create = "service create --detach --replicas 2 --name web --env A=b --label l=1 --limit-memory 64m \
                      --constraint node.role!=nobody --mount type=tmpfs,dst=/run nginx ping docker.com";
        let id = docker.run(create).await;
        assert_eq!(id.trim().len(), 25);
        let list = docker.run("service ls").await;
        let row: Vec<_> = list.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, [&id[..12], "web", "replicated", "2/2", "nginx:latest"]);
        let ps = docker.run("service ps web").await;
        assert!(ps.contains("web.1") && ps.contains("w1") && ps.contains("Running"), "{ps}");
        assert!(docker.run("node ps m1").await.contains("web.1"));
        let args = docker.run("service inspect --format {{.Spec.TaskTemplate.ContainerSpec.Args}} web").await;
        assert_eq!(args, "[ping docker.com]\n");
        let pretty = docker.run("service inspect --pretty web").await;
        assert!(pretty.contains("Parallelism:\t1") && pretty.contains("Replicas:\t2"), "{pretty}");
        assert!(docker.run("service scale --detach web=5").await.contains("web scaled to 5"));
        assert_eq!(docker.daemon.control.store().tasks().count(), 5);
        assert_eq!(docker.run("service update --detach --force --env-add C=d web").await, "web\n");
        assert!(docker.run("service ps web").await.contains("\\_ web.1"));
        let logs = docker.run("service logs web").await;
        assert!(logs.contains("hello from slot 5") && logs.contains("@m1"), "{logs}");
        assert!(docker.fail("service create --mode global nginx").await.contains("not yet: --mode global"));
        assert_eq!(docker.run("service rm web").await, "web\n");
        assert!(docker.fail("service inspect web").await.contains("no such service: web"));
    });
}

/// NET-01, NET-10, NET-11, NET-12, NET-13, NET-14, NET-18, NET-27, NET-30, NET-32
#[tokio::test]
async fn network_commands_work() {
    with_each_client!(Daemon::manager(), |docker| {
        let list = docker.run("network ls").await;
        let columns: Vec<_> = list.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!((columns[0].len(), &columns[1..]), (12, &["bridge", "bridge", "local"][..]));
        let create = "network create --subnet=192.168.0.0/16 --subnet=192.170.0.0/16 --gateway=192.168.0.100 \
                      --gateway=192.170.0.100 --ip-range=192.168.1.0/24 --driver overlay --label HelloWorldService \
                      mysql-network";
        let id = docker.run(create).await.trim().to_owned();
        assert_eq!(id.len(), 25);
        let config = docker.run("network inspect --format {{json\u{a0}.IPAM.Config}} mysql-network").await;
        for subnet in [
            r#"{"Subnet":"192.168.0.0/16","IPRange":"192.168.1.0/24","Gateway":"192.168.0.100"}"#,
            r#"{"Subnet":"192.170.0.0/16","Gateway":"192.170.0.100"}"#,
        ] {
            assert!(config.contains(subnet), "{config}");
        }
        let options = docker.run("network inspect --format {{.Options}} mysql-network").await;
        assert_eq!(options, "map[com.docker.network.driver.overlay.vxlanid_list:4097,4098]\n");
        let row = docker.run("network ls --filter driver=overlay --filter name=mysql").await;
        let row: Vec<_> = row.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, [&id[..12], "mysql-network", "overlay", "swarm"]);

        let overlap = docker.fail("network create --subnet 192.168.7.0/24 -d overlay other").await;
        assert!(overlap.contains("Error response from daemon: subnet 192.168.7.0/24 overlaps"), "{overlap}");
        let encrypted = docker.fail("network create -d overlay --opt encrypted secret").await;
        assert!(encrypted.contains("not yet: --opt encrypted"), "{encrypted}");
        docker.run("network create -d overlay --attachable --internal idle").await;
        docker.run("network create here").await;

        let service = docker.run("service create --detach --name db --network mysql-network nginx").await;
        assert_eq!(docker.run("service inspect --format {{len\u{a0}.Endpoint.VirtualIPs}} db").await, "1\n");
        assert!(docker.run("network inspect --verbose mysql-network").await.contains("\"LocalLBIndex\""));
        let missing = docker.fail("service create --detach --network lost nginx").await;
        assert!(missing.contains("lost"), "{missing}");
        let local = docker.fail("service create --detach --network here nginx").await;
        assert!(local.contains("here"), "{local}");

        docker.run("run -d --name box --network idle --network-alias b busybox sleep 9").await;
        assert!(docker.run("network connect --alias c here box").await.is_empty());
        assert!(docker.run("network disconnect here box").await.is_empty());
        docker.run("rm -f box").await;
        let failed = docker.output(&format!("network rm bridge {id} idle lost"), "").await;
        assert!(!failed.status.success() && failed.stdout == b"idle\n", "{failed:?}");
        let errors = String::from_utf8(failed.stderr).unwrap();
        assert!(
            errors.contains(&format!("network {id} is in use by service {}", service.trim())),
            "{errors}"
        );
        assert!(errors.contains("bridge is a pre-defined network and cannot be removed"), "{errors}");
        assert!(docker.run("network prune --force").await.contains("here"));
    });
}

/// PRT-01, PRT-02, PRT-04, PRT-06, PRT-10, PRT-13
#[tokio::test]
async fn ports_are_published_by_commands() {
    with_each_client!(Daemon::manager(), |docker| {
        docker.run("service create --detach --name web --publish 8080:80 nginx").await;
        assert!(docker.run("service ls").await.contains("*:8080->80/tcp"));
        docker.run("service create --detach --name auto -p 80 nginx").await;
        assert!(docker.run("service ls").await.contains("*:30000->80/tcp"));
        docker.run("service create --detach --name dns -p 53:53/udp -p target=5353,published=5353,mode=host nginx").await;
        let ports = docker
            .run("service inspect --format {{range\u{a0}.Endpoint.Ports}}{{.PublishMode}},{{end}} dns")
            .await;
        assert!(ports.contains("ingress") && ports.contains("host"), "{ports}");
        docker.run("service update --detach --publish-add 8081:81 --publish-rm 80 web").await;
        let list = docker.run("service ls").await;
        assert!(list.contains("*:8081->81/tcp") && !list.contains("*:8080"), "{list}");
        let taken = docker.fail("service create --detach -p 8081:80 nginx").await;
        assert!(taken.contains("port '8081' is already in use by service 'web'"), "{taken}");

        docker.run("run -d --name box -p 127.0.0.1:8080:80 -p 90 --dns 9.9.9.9 busybox sleep 9").await;
        assert_eq!(docker.run("port box 80/tcp").await, "127.0.0.1:8080\n");
        assert!(docker.run("ps").await.contains("127.0.0.1:8080->80/tcp"));
    });
}

/// CLU-02, CLU-03
#[tokio::test]
async fn init_takes_pools_and_a_data_path() {
    with_each_client!(Daemon::start(), |docker| {
        docker
            .run("swarm init --default-addr-pool 10.20.0.0/16 --default-addr-pool-mask-length 26 --data-path-port 7789 --data-path-addr eth1")
            .await;
        let info = docker.run("info").await;
        assert!(
            info.contains("Default Address Pool: 10.20.0.0/16") && info.contains("SubnetSize: 26"),
            "{info}"
        );
        assert!(info.contains("Data Path Port: 7789"), "{info}");
    });
}

/// SVC-19: the client watches the service until it has converged.
#[tokio::test]
async fn a_service_is_seen_to_converge() {
    with_each_client!(Daemon::manager(), |docker| {
        // Shorter than the five seconds for which the client would watch.
        let output = docker.run("service create --update-monitor 1ms --name web --replicas 2 nginx").await;
        assert!(output.to_lowercase().contains("converged"), "{output}");
    });
}

/// CTR-02, CTR-04, CTR-06, CTR-07, CTR-08
#[tokio::test]
async fn container_and_image_commands_work() {
    with_each_client!(Daemon::start(), |docker| {
        assert_eq!(docker.run("run --rm busybox echo hello you").await, "hello you\n");
        assert_eq!(docker.feed("run --rm -i busybox cat", "one\ntwo\n").await, "one\ntwo\n");
        assert_eq!(docker.output("run busybox complain", "").await.status.code(), Some(3));
        let id = docker.run("run -d --name work busybox sleep 9").await;
        let ps = docker.run("ps").await;
        assert!(ps.contains(&id[..12]) && ps.contains("\"sleep 9\"") && ps.contains("Up "), "{ps}");
        assert_eq!(docker.run("exec work echo in there").await, "in there\n");
        assert_eq!(docker.feed("exec -i work cat", "fed").await, "fed");
        assert_eq!(docker.output("exec work complain", "").await.status.code(), Some(3));
        assert_eq!(docker.run("inspect --format {{.State.Status}} work").await, "running\n");
        assert_eq!(docker.run("stop -t 1 work").await, "work\n");
        assert_eq!(docker.run("start work").await, "work\n");
        assert_eq!(docker.run("kill work").await, "work\n");
        assert_eq!(docker.run("rm work").await, "work\n");
        assert!(docker.fail("inspect work").await.contains("No such object: work"));
        assert!(docker.fail("run --privileged busybox").await.contains("not yet: --privileged"));
        assert!(docker.fail("run -v data:/data busybox").await.contains("not yet: a named volume"));

        assert!(docker.run("pull nginx:1").await.contains("Status: Downloaded newer image for nginx:1"));
        assert!(docker.fail("pull missing").await.contains("manifest for missing:latest not found"));
        assert!(docker.run("images").await.contains("busybox"));
        assert!(docker.run("images nginx").await.contains("nginx"));
        assert_eq!(docker.run("image inspect --format {{.Os}} busybox").await, "linux\n");
        docker.run("tag busybox mine:v2").await;
        assert!(docker.feed("load", "12345").await.contains("Loaded image: busybox:5"));
        assert!(docker.feed("import - mine:v3", "123").await.contains("mine:v3 3"));
        assert!(docker.run("rmi nginx:1").await.contains("Untagged: nginx:1"));
        // The client cuts its times to whole seconds: the end is the next one.
        let next_second = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1;
        let events =
            format!("events --since 1 --until {next_second} --filter type=container --filter event=start");
        let events = docker.run(&events).await;
        assert!(events.contains("container start"), "{events}");
        let stats = docker.run("run -d --name stay busybox sleep 9").await;
        assert!(docker.run("stats --no-stream").await.contains(&stats[..12]));
    });
}
