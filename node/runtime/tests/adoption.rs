//! The daemon goes and comes back; shims are killed: nothing is lost that need not be. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "door: these tests start processes and look at the machine")]

mod bench;

use std::{fs, os::unix::process::CommandExt as _, path::Path, process::Command, time::Duration};

use bench::{Bench, PATIENCE, bench, config, output, spec};
use covey_runtime::{ContainerState, LogQuery, OpenError, Runtime, image::ImageStore};
use futures_util::StreamExt as _;

impl Bench {
    /// Ends this runtime and opens the next one on the same directories.
    async fn reopened(self) -> Self {
        let Self { directory, runtime, cgroup } = self;
        drop(runtime);
        let runtime = reopen(directory.path(), &cgroup).await.unwrap();
        Self { directory, runtime, cgroup }
    }
}

async fn reopen(directory: &Path, cgroup: &str) -> Result<Runtime, OpenError> {
    let images = ImageStore::open(&directory.join("data"), std::collections::BTreeSet::new()).unwrap();
    Runtime::open(config(directory, cgroup, images)).await
}

fn pid(file: &Path) -> i32 {
    fs::read_to_string(file).unwrap().split(' ').next().unwrap().parse().unwrap()
}

fn kill(pid: i32) {
    // SAFETY: takes numbers only; the process is one that this test made.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

#[tokio::test]
async fn the_next_runtime_adopts_what_runs_and_what_has_ended() {
    let Some(bench) = bench().await else { return };
    let lines = "i=0; while [ $i -lt 40 ]; do echo $i; i=$((i+1)); sleep 0.02; done; exit 42";
    let running = bench.started(spec(&["sh", "-c", lines])).await;
    let sleeping = bench.started(spec(&["sleep", "1000"])).await;
    let ended = bench.started(spec(&["sh", "-c", "exit 5"])).await;
    bench.runtime.wait(&ended).await.unwrap();
    let created = bench.create(spec(&["true"])).await;
    let pid = bench.runtime.inspect(&sleeping).unwrap().pid;

    let bench = bench.reopened().await;
    let adopted = bench.runtime.inspect(&sleeping).unwrap();
    assert_eq!((adopted.state, adopted.pid), (ContainerState::Running, pid));
    assert_eq!(bench.runtime.inspect(&created).unwrap().state, ContainerState::Created);
    assert_eq!(bench.runtime.wait(&ended).await.unwrap().code, 5);
    assert_eq!(bench.exec(&sleeping, &["echo", "still here"]).await, (0, "still here\n".to_owned()));
    assert_eq!(bench.runtime.wait(&running).await.unwrap().code, 42);
    let log: Vec<_> = bench.runtime.logs(&running, LogQuery::default()).unwrap().collect().await;
    assert_eq!(log.len(), 40);
    bench.runtime.stop(&sleeping, Some(Duration::ZERO)).await.unwrap();
    assert_eq!(bench.runtime.wait(&sleeping).await.unwrap().code, 137);
    bench.close().await;
}

/// The process that [`a_daemon_that_is_killed_loses_nothing`] kills: it is this test, started again.
const DAEMON: &str = "COVEY_RUNTIME_TEST_DAEMON";

#[tokio::test]
async fn a_daemon_that_is_killed_loses_nothing() {
    if let Ok(arguments) = std::env::var(DAEMON) {
        let (directory, cgroup) = arguments.split_once(' ').unwrap();
        return daemon(Path::new(directory), cgroup).await;
    }
    let Some(bench) = bench().await else { return };
    let Bench { directory, runtime, cgroup } = bench;
    drop(runtime);
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_daemon_that_is_killed_loses_nothing", "--nocapture"])
        .env(DAEMON, format!("{} {cgroup}", directory.path().display()))
        .stdout(std::process::Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let marker = directory.path().join("started");
    tokio::time::timeout(PATIENCE, async {
        while !marker.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the daemon starts its container");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    // It ends while nobody looks.
    let id = fs::read_to_string(&marker).unwrap();
    let exit = directory.path().join("data/containers").join(&id).join("exit");
    tokio::time::timeout(PATIENCE, async {
        while !exit.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the container ends without a daemon");
    let runtime = reopen(directory.path(), &cgroup).await.unwrap();
    let bench = Bench { directory, runtime, cgroup };
    assert_eq!(bench.runtime.wait(&id).await.unwrap().code, 42);
    let log: Vec<_> = bench.runtime.logs(&id, LogQuery::default()).unwrap().collect().await;
    assert_eq!(log.len(), 30);
    bench.close().await;
}

async fn daemon(directory: &Path, cgroup: &str) {
    let runtime = reopen(directory, cgroup).await.unwrap();
    let lines = "i=0; while [ $i -lt 30 ]; do echo $i; i=$((i+1)); sleep 0.02; done; exit 42";
    let request = covey_runtime::CreateContainer {
        spec: spec(&["sh", "-c", lines]),
        ..covey_runtime::CreateContainer::default()
    };
    let id = runtime.create(request).await.unwrap();
    runtime.start(id.as_str()).await.unwrap();
    fs::write(directory.join(".started"), id.as_str()).unwrap();
    fs::rename(directory.join(".started"), directory.join("started")).unwrap();
    std::future::pending().await
}

#[tokio::test]
async fn a_container_whose_shim_is_killed_is_reported_lost() {
    let Some(bench) = bench().await else { return };
    let id = bench.started(spec(&["sleep", "1000"])).await;
    let exec = bench.exec_root().join("c").join(&id);
    let init = pid(&exec.join("init"));
    kill(pid(&exec.join("shim")));
    let exit = tokio::time::timeout(PATIENCE, bench.runtime.wait(&id)).await.unwrap().unwrap();
    assert_eq!((exit.code, exit.error.as_str()), (137, "the container was lost: its shim was killed"));
    assert!(
        !Path::new(&format!("/proc/{init}/exe")).exists() && bench.cgroups().is_empty() && !exec.exists()
    );
    // It is not lost for ever.
    bench.runtime.start(&id).await.unwrap();
    bench.close().await;
}

#[tokio::test]
async fn a_shim_that_dies_with_its_daemon_is_noticed_by_the_next() {
    let Some(bench) = bench().await else { return };
    let id = bench.started(spec(&["sleep", "1000"])).await;
    let shim = pid(&bench.exec_root().join("c").join(&id).join("shim"));
    let Bench { directory, runtime, cgroup } = bench;
    drop(runtime);
    kill(shim);
    let runtime = reopen(directory.path(), &cgroup).await.unwrap();
    let bench = Bench { directory, runtime, cgroup };
    assert_eq!(bench.runtime.wait(&id).await.unwrap().code, 137);
    assert!(bench.cgroups().is_empty());
    bench.close().await;
}

#[tokio::test]
async fn the_end_of_init_ends_all_that_it_left() {
    let Some(bench) = bench().await else { return };
    let id = bench.started(spec(&["sh", "-c", "(sleep 1000 &) ; echo up; sleep 0.05; exit 4"])).await;
    let mut attached = bench.runtime.attach(&id).unwrap();
    output(&mut attached.output).await;
    assert_eq!(bench.runtime.wait(&id).await.unwrap().code, 4);
    let init = bench.started(spec(&["sleep", "1000"])).await;
    kill(pid(&bench.exec_root().join("c").join(&init).join("init")));
    assert_eq!(bench.runtime.wait(&init).await.unwrap().code, 137);
    assert!(bench.cgroups().is_empty());
    bench.close().await;
}

#[tokio::test]
async fn a_container_of_a_newer_version_is_refused_clearly() {
    let Some(bench) = bench().await else { return };
    let id = bench.create(spec(&["true"])).await;
    let record = bench.data(&id).join("container.json");
    let text = fs::read_to_string(&record).unwrap();
    // Nothing else of it need be as it was.
    fs::write(&record, r#"{"format":2,"new":true}"#).unwrap();
    let Bench { directory, runtime, cgroup } = bench;
    drop(runtime);
    let error = reopen(directory.path(), &cgroup).await.err().unwrap().to_string();
    assert!(error.ends_with("has format 2, which is newer than this program's 1"), "{error}");
    let data = directory.path().join("data/containers").join(&id);
    fs::write(&record, &text[..text.len() / 2]).unwrap();
    let error = reopen(directory.path(), &cgroup).await.err().unwrap().to_string();
    assert!(
        error.ends_with("is damaged; move the directory away to go on without this container"),
        "{error}"
    );
    // Making it was interrupted: no record.
    fs::remove_file(data.join("container.json")).unwrap();
    let runtime = reopen(directory.path(), &cgroup).await.unwrap();
    assert!(runtime.list().is_empty() && !data.exists());
    Bench { directory, runtime, cgroup }.close().await;
}

#[tokio::test]
async fn two_daemons_share_a_cgroup_and_leave_each_other_alone() {
    let Some(bench) = bench().await else { return };
    let id = bench.started(spec(&["sleep", "1000"])).await;
    let other = tempfile::tempdir().unwrap();
    let runtime = reopen(other.path(), &bench.cgroup).await.unwrap();
    assert!(runtime.list().is_empty());
    assert_eq!(bench.exec(&id, &["echo", "alive"]).await.1, "alive\n");
    bench.close().await;
}

#[tokio::test]
async fn a_container_that_ran_when_the_host_went_down_is_known_as_such() {
    let Some(bench) = bench().await else { return };
    let id = bench.started(spec(&["sleep", "1000"])).await;
    let shim = pid(&bench.exec_root().join("c").join(&id).join("shim"));
    let Bench { directory, runtime, cgroup } = bench;
    drop(runtime);
    // What a power cut leaves: nothing that runs, an empty exec root, and a start in another run of the host.
    kill(shim);
    fs::remove_dir_all(directory.path().join("run")).unwrap();
    fs::write(directory.path().join("data/containers").join(&id).join("started"), "1 an-earlier-one")
        .unwrap();
    for again in [false, true] {
        let runtime = reopen(directory.path(), &cgroup).await.unwrap();
        let exit = runtime.wait(&id).await.unwrap();
        assert!(exit.lost_with_host() && exit.code == 137, "{again}: {exit:?}");
    }
    let runtime = reopen(directory.path(), &cgroup).await.unwrap();
    Bench { directory, runtime, cgroup }.close().await;
}

/// CTR-08
#[tokio::test]
async fn a_log_torn_by_a_killed_shim_goes_on_behind_its_last_whole_line() {
    let Some(bench) = bench().await else { return };
    let id = bench.started(spec(&["echo", "line"])).await;
    bench.runtime.wait(&id).await.unwrap();
    let log = bench.data(&id).join("log");
    let mut torn = fs::read(&log).unwrap();
    torn.extend_from_slice(b"1700000000000000000 o 100\nhalf of a");
    fs::write(&log, torn).unwrap();
    bench.runtime.start(&id).await.unwrap();
    bench.runtime.wait(&id).await.unwrap();
    let lines: Vec<_> = bench.runtime.logs(&id, LogQuery::default()).unwrap().collect().await;
    let lines: Vec<_> = lines.into_iter().map(|line| line.unwrap().bytes).collect();
    assert_eq!(lines, ["line\n", "line\n"]);
    bench.close().await;
}
