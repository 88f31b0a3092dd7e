//! Real containers, made of a static busybox: needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "door: these tests start processes and look at the machine")]

mod bench;

use std::{collections::BTreeMap, time::Duration};

use bench::{Bench, bench, output, spec};
use covey_runtime::{
    Action, ContainerState, CreateError, ExecSpec, LogQuery, NetworkMode, OperationError, StartError,
};
use covey_state::container::{Amount, ContainerSpec, Mount, MountKind, Resources};
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

/// CTR-01
#[tokio::test]
async fn a_container_says_hello_and_ends_with_its_code() {
    let Some(bench) = bench().await else { return };
    let run = bench.run(spec(&["sh", "-c", "echo hello; echo oops >&2; exit 7"])).await;
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (7, "hello\n", "oops\n"));
    let killed = bench.run(spec(&["sh", "-c", "kill -TERM $$"])).await;
    // The first process of a namespace ignores signals that it has no handler for.
    assert_eq!(killed.code, 0);
    bench.close().await;
}

/// SVC-02, SVC-10
#[tokio::test]
async fn environment_user_directory_and_host_name_are_as_asked() {
    let Some(bench) = bench().await else { return };
    let run = bench
        .run(ContainerSpec {
            env: vec!["A=b c".into(), "LANG".into()],
            user: "daemon".into(),
            groups: vec!["wheel".into()],
            workdir: "/made/up".into(),
            hostname: "box".into(),
            ..spec(&["sh", "-c", "id -u; id -g; id -G; pwd; hostname; env | sort; cat /etc/hostname; umask"])
        })
        .await;
    let expected = "1\n1\n1 10\n/made/up\nbox\nA=b c\nHOME=/usr/sbin\nHOSTNAME=box\n\
                    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/made/up\nSHLVL=1\nbox\n0022\n";
    assert_eq!(run.stdout, expected, "{}", run.stderr);
    let run = bench
        .run(ContainerSpec { user: "4711:12".into(), ..spec(&["sh", "-c", "id -u; id -g; echo $HOME"]) });
    assert_eq!(run.await.stdout, "4711\n12\n/\n");
    bench.close().await;
}

/// CTR-03
#[tokio::test]
async fn settings_of_the_kernel_are_the_containers_own() {
    let Some(bench) = bench().await else { return };
    let with = |settings: &[(&str, &str)], words: &[&str]| ContainerSpec {
        sysctls: settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        ..spec(words)
    };
    let settings = ["net/ipv4/ip_default_ttl", "net/ipv4/ip_unprivileged_port_start", "kernel/msgmax"];
    let files = settings.map(|name| format!("/proc/sys/{name}"));
    let cat = [&["cat"][..], &files.each_ref().map(String::as_str)].concat();
    let wanted = [
        ("net.ipv4.ip_default_ttl", "77"),
        ("net.ipv4.ip_unprivileged_port_start", "99"),
        ("kernel.msgmax", "4242"),
    ];
    assert_eq!(bench.run(with(&wanted, &cat)).await.stdout, "77\n99\n4242\n");
    let others = bench.run(spec(&cat)).await.stdout;
    assert!(others.starts_with("64\n0\n") && !others.contains("4242"), "{others}");

    for (name, network, part) in [
        ("kernel.core_pattern", NetworkMode::None, "not in a separate kernel namespace"),
        ("net.ipv4.ip_default_ttl", NetworkMode::Host, "not allowed in the network of the host"),
    ] {
        let request = covey_runtime::CreateContainer {
            spec: ContainerSpec { image: "busybox".into(), ..with(&[(name, "1")], &["true"]) },
            network,
            ..covey_runtime::CreateContainer::default()
        };
        let error = bench.runtime.create(request).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    bench.close().await;
}

/// CTR-01
#[tokio::test]
async fn a_program_that_cannot_run_says_why() {
    let Some(bench) = bench().await else { return };
    for (words, code, text) in [
        (&["nosuch"][..], 127, "exec: \"nosuch\": executable file not found in $PATH"),
        (&["/no/such"], 127, "exec: \"/no/such\": stat /no/such: no such file or directory"),
        (&["/etc/passwd"], 126, "exec: \"/etc/passwd\": permission denied"),
    ] {
        let id = bench.create(spec(words)).await;
        match bench.runtime.start(&id).await {
            Err(StartError::Failed { code: c, text: t }) => assert_eq!((c, t.as_str()), (code, text)),
            other => panic!("{other:?}"),
        }
        match bench.runtime.inspect(&id).unwrap().state {
            ContainerState::Exited(exit) => assert_eq!((exit.code, exit.error.as_str()), (code, text)),
            other => panic!("{other:?}"),
        }
    }
    let id = bench.create(ContainerSpec { user: "mallory".into(), ..spec(&["true"]) }).await;
    let error = bench.runtime.start(&id).await.unwrap_err().to_string();
    assert!(error.ends_with("unable to find user mallory: no matching entries in passwd file"), "{error}");
    bench.close().await;
}

/// What a container may do, as its own kernel files tell it: for init and for exec alike.
const PROBE: &str = "exec 2>&1; grep -E '^(Cap|NoNewPrivs|Seccomp:|SigIgn|SigBlk)' /proc/self/status; \
     for f in /proc/keys /proc/timer_list /proc/interrupts; do [ -e $f ] && wc -c < $f; done; ls /sys/firmware | wc -l; \
     touch /proc/sys/kernel/hostname; mount -t tmpfs x /tmp; unshare -U true; ls /proc/self/fd | wc -l; ls /dev; \
     mknod /tmp/disk b 259 0; cat /tmp/disk; rm -f /tmp/disk; readlink /dev/ptmx; cat /proc/self/oom_score_adj; \
     ls /sys/fs/cgroup; cat /proc/self/cgroup";

/// CTR-07, CTR-13
#[tokio::test]
async fn start_and_exec_are_confined_alike() {
    let Some(bench) = bench().await else { return };
    let id = bench.started(spec(&["sh", "-c", &format!("{PROBE}; echo done; exec sleep 1000")])).await;
    let init = bench.lines_until(&id, "done").await;
    let (code, exec) = bench.exec(&id, &["sh", "-c", PROBE]).await;
    assert_eq!(init, format!("{exec}done\n"), "exec ended with {code}");
    for line in [
        "CapEff:\t00000000a80425fb\n",
        "CapBnd:\t00000000a80425fb\n",
        "CapInh:\t0000000000000000\n",
        "CapAmb:\t0000000000000000\n",
        "NoNewPrivs:\t0\n",
        "Seccomp:\t2\n",
        "SigIgn:\t0000000000000000\n",
        "touch: /proc/sys/kernel/hostname: Read-only file system",
        "mount: permission denied",
        "unshare: unshare(0x10000000): Operation not permitted",
        "can't open '/tmp/disk': Operation not permitted",
    ] {
        assert!(exec.contains(line), "{line:?} is not in:\n{exec}");
    }
    bench.close().await;
}

/// CTR-07
#[tokio::test]
async fn exec_has_its_own_environment_user_input_and_code() {
    let Some(bench) = bench().await else { return };
    let id = bench
        .started(ContainerSpec { env: vec!["A=1".into(), "B=1".into()], ..spec(&["sleep", "1000"]) })
        .await;
    let mut exec = bench
        .runtime
        .exec(
            &id,
            ExecSpec {
                cmd: ["sh", "-c", "cat; echo $A$B; id -u; pwd; exit 9"].map(str::to_owned).to_vec(),
                env: vec!["B=2".into()],
                user: "daemon".into(),
                workdir: "/tmp".into(),
                stdin: true,
            },
        )
        .await
        .unwrap();
    let mut stdin = exec.stdin.take().unwrap();
    stdin.write_all(b"typed\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    let (out, _) = output(&mut exec.output).await;
    assert_eq!((out.as_str(), exec.wait().await.unwrap()), ("typed\n12\n1\n/tmp\n", 9));
    let error = bench.runtime.exec(&id, ExecSpec { cmd: vec!["nosuch".into()], ..ExecSpec::default() }).await;
    let error = error.err().unwrap().to_string();
    assert_eq!(error, "OCI runtime exec failed: exec: \"nosuch\": executable file not found in $PATH");
    bench.close().await;
}

/// CTR-08
#[tokio::test]
async fn the_log_keeps_streams_order_and_tail() {
    let Some(bench) = bench().await else { return };
    let script = "for i in 1 2 3; do echo out$i; echo err$i >&2; sleep 0.05; done; printf end";
    let id = bench.started(spec(&["sh", "-c", script])).await;
    bench.runtime.wait(&id).await.unwrap();
    let lines = async |query| {
        let lines: Vec<_> = bench.runtime.logs(&id, query).unwrap().collect().await;
        let text = |l: std::io::Result<covey_runtime::LogLine>| {
            String::from_utf8_lossy(&l.unwrap().bytes).trim_end().to_owned()
        };
        lines.into_iter().map(text).collect::<Vec<_>>().join(" ")
    };
    let all = LogQuery::default();
    assert_eq!(lines(LogQuery { stderr: false, ..all.clone() }).await, "out1 out2 out3 end");
    assert_eq!(lines(LogQuery { stdout: false, tail: Some(2), ..all.clone() }).await, "err2 err3");
    assert_eq!(lines(LogQuery { tail: Some(0), ..all.clone() }).await, "");
    assert_eq!(lines(LogQuery { follow: true, stderr: false, tail: Some(1), ..all.clone() }).await, "end");
    let second = bench.runtime.logs(&id, all.clone()).unwrap().skip(2).next().await.unwrap().unwrap().at;
    let since = lines(LogQuery { since: Some(second), ..all.clone() }).await;
    assert!(since.contains("out3") && !since.contains("out1"), "{since}");
    let until = lines(LogQuery { until: Some(second), ..all }).await;
    assert!(until.contains("out1") && !until.contains("out3"), "{until}");
    bench.close().await;
}

/// CTR-08
#[tokio::test]
async fn a_log_is_bounded_and_a_follower_misses_no_line() {
    let Some(bench) = bench().await else { return };
    // 13 MB: the file is changed once while somebody reads along.
    let script = "yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -n 120000 | cat -n";
    let id = bench.create(spec(&["sh", "-c", script])).await;
    let mut attached = bench.runtime.attach(&id).unwrap();
    bench.runtime.start(&id).await.unwrap();
    let (out, _) = output(&mut attached.output).await;
    assert_eq!(out.lines().count(), 120_000);
    assert!(out.lines().enumerate().all(|(n, line)| line.trim_start().starts_with(&format!("{}\t", n + 1))));
    let size: u64 = ["log", "log.1"].iter().map(|f| bench.data(&id).join(f).metadata().unwrap().len()).sum();
    assert!(size <= 2 * 10 * 1024 * 1024, "{size}");
    bench.close().await;
}

/// SVC-02
#[tokio::test]
async fn memory_beyond_the_limit_kills_and_is_seen() {
    let Some(bench) = bench().await else { return };
    let mut events = bench.runtime.events();
    let limits = Amount { memory: 16 << 20, nano_cpus: 500_000_000 };
    let resources = Resources { limits, pids_limit: 50, ..Resources::default() };
    let hungry = spec(&["sh", "-c", "x=$(yes | head -c 100000000); echo $x"]);
    let id = bench.create_with(hungry, resources).await;
    bench.runtime.start(&id).await.unwrap();
    if let Ok(stats) = bench.runtime.stats(&id) {
        assert_eq!(stats.memory_limit, 16 << 20);
    }
    let exit = bench.runtime.wait(&id).await.unwrap();
    assert!(exit.oom_killed && exit.code == 137, "{exit:?}");
    let mut seen = vec![];
    while let Ok(event) = events.try_recv() {
        seen.push(event.action);
    }
    assert_eq!(seen, [Action::Create, Action::Start, Action::Oom, Action::Die(137)]);
    bench.close().await;
}

/// TSK-18
#[tokio::test]
async fn stop_asks_first_and_kills_after_the_grace() {
    let Some(bench) = bench().await else { return };
    let polite = spec(&["sh", "-c", "trap 'exit 3' USR1; echo up; while :; do sleep 0.02; done"]);
    let id = bench.started(ContainerSpec { stop_signal: "SIGUSR1".into(), ..polite }).await;
    bench.lines_until(&id, "up").await;
    bench.runtime.stop(&id, None).await.unwrap();
    assert_eq!(bench.runtime.wait(&id).await.unwrap().code, 3);
    bench.runtime.stop(&id, None).await.unwrap();
    let deaf =
        bench.started(spec(&["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.02; done"])).await;
    bench.lines_until(&deaf, "up").await;
    bench.runtime.stop(&deaf, Some(Duration::from_millis(50))).await.unwrap();
    assert_eq!(bench.runtime.wait(&deaf).await.unwrap().code, 137);
    assert!(matches!(bench.runtime.kill(&deaf, "KILL"), Err(OperationError::NotRunning(_))));
    bench.close().await;
}

/// SVC-12
#[tokio::test]
async fn mounts_and_a_read_only_root_are_as_asked() {
    let Some(bench) = bench().await else { return };
    let host = bench.directory.path().join("shared");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "from the host").unwrap();
    let bind = |target: &str, read_only| Mount {
        target: target.into(),
        read_only,
        kind: MountKind::Bind { source: host.display().to_string() },
    };
    let script = "cat /a/file; echo; echo x > /a/new; echo y > /b/new; echo z > /root-file; echo t > /t/new; \
                  stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'";
    let run = bench
        .run(ContainerSpec {
            read_only: true,
            mounts: vec![
                bind("/a", false),
                bind("/b", true),
                Mount {
                    target: "/t".into(),
                    read_only: false,
                    kind: MountKind::Tmpfs { size: 1 << 20, mode: 0o700 },
                },
            ],
            ..spec(&["sh", "-c", script])
        })
        .await;
    assert_eq!(run.stdout, "from the host\n700\n1024\n");
    let refused = "can't create /b/new: Read-only file system";
    assert!(run.stderr.contains(refused) && run.stderr.contains("can't create /root-file"), "{}", run.stderr);
    assert_eq!(std::fs::read_to_string(host.join("new")).unwrap(), "x\n");
    let missing = ContainerSpec {
        mounts: vec![Mount {
            target: "/x".into(),
            read_only: false,
            kind: MountKind::Bind { source: "/no/such/place".into() },
        }],
        ..spec(&["true"])
    };
    let error = bench.try_create(missing).await.unwrap_err().to_string();
    assert!(error.contains("bind source path does not exist: /no/such/place"), "{error}");
    bench.close().await;
}

/// CTR-03
#[tokio::test]
async fn names_are_unique_and_beginnings_of_ids_are_enough() {
    let Some(bench) = bench().await else { return };
    let request = || covey_runtime::CreateContainer {
        name: "web".into(),
        spec: ContainerSpec { image: "busybox".into(), ..spec(&["true"]) },
        labels: BTreeMap::from([("a".into(), "b".into())]),
        ..covey_runtime::CreateContainer::default()
    };
    let id = bench.runtime.create(request()).await.unwrap();
    match bench.runtime.create(request()).await {
        Err(error @ CreateError::Conflict { .. }) => {
            let text = format!(
                "Conflict. The container name \"/web\" is already in use by container \"{id}\". You have to remove (or \
                 rename) that container to be able to reuse that name."
            );
            assert_eq!(error.to_string(), text);
        }
        other => panic!("{other:?}"),
    }
    for text in ["web", "/web", id.short(), &id.as_str()[..5], id.as_str()] {
        assert_eq!(bench.runtime.find(text).unwrap(), id, "{text}");
    }
    assert_eq!(bench.runtime.find("nope").unwrap_err().to_string(), "No such container: nope");
    assert_eq!(bench.runtime.inspect("web").unwrap().spec.labels["a"], "b");
    let mut missing = request();
    (missing.name, missing.spec.image) = ("other".into(), "nothing:1".into());
    assert_eq!(bench.runtime.create(missing).await.unwrap_err().to_string(), "No such image: nothing:1");
    bench.runtime.remove("web", false).await.unwrap();
    bench.runtime.create(request()).await.unwrap();
    bench.close().await;
}

/// CTR-03
#[tokio::test]
async fn input_reaches_the_container_until_it_is_ended() {
    let Some(bench) = bench().await else { return };
    let request = covey_runtime::CreateContainer {
        spec: ContainerSpec { image: "busybox".into(), ..spec(&["sh", "-c", "cat; echo over"]) },
        open_stdin: true,
        auto_remove: true,
        ..covey_runtime::CreateContainer::default()
    };
    let id = bench.runtime.create(request).await.unwrap();
    let mut attached = bench.runtime.attach(id.as_str()).unwrap();
    bench.runtime.start(id.as_str()).await.unwrap();
    // The first writer leaves without a word; the input stays open.
    bench.runtime.stdin(id.as_str()).unwrap().write_all(b"one\n").await.unwrap();
    let mut stdin = bench.runtime.stdin(id.as_str()).unwrap();
    stdin.write_all(b"two\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    drop(stdin);
    assert_eq!(output(&mut attached.output).await.0, "one\ntwo\nover\n");
    bench.runtime.wait_removed(id.as_str()).await;
    assert!(bench.runtime.find(id.as_str()).is_err());
    bench.close().await;
}

/// CTR-01
#[tokio::test]
async fn a_container_starts_again_with_its_files() {
    let Some(bench) = bench().await else { return };
    let id = bench.started(spec(&["sh", "-c", "cat /kept; echo kept > /kept"])).await;
    bench.runtime.wait(&id).await.unwrap();
    let mut attached = bench.runtime.attach(&id).unwrap();
    bench.runtime.start(&id).await.unwrap();
    assert_eq!(output(&mut attached.output).await.0, "kept\n");
    let container = bench.runtime.inspect(&id).unwrap();
    assert!(container.hostname == id[..12] && container.log.is_file(), "{container:?}");
    bench.close().await;
}

/// CTR-06
#[tokio::test]
async fn nothing_is_left_of_removed_containers() {
    let Some(bench) = bench().await else { return };
    let before = Bench::mounts();
    let mut ids = vec![];
    for _ in 0..4 {
        ids.push(bench.started(spec(&["sleep", "1000"])).await);
    }
    assert!(matches!(bench.runtime.remove(&ids[0], false).await, Err(OperationError::Running { .. })));
    for id in &ids {
        bench.runtime.remove(id, true).await.unwrap();
        assert!(!bench.data(id).exists() && !bench.exec_root().join("c").join(id).exists());
    }
    assert_eq!(Bench::mounts(), before);
    assert!(bench.cgroups().is_empty(), "{:?}", bench.cgroups());
    assert!(bench.runtime.list().is_empty());
    bench.close().await;
}
