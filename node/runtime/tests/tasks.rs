//! Tasks as containers: each step can be called again. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "door: these tests start processes and look at the machine")]

mod bench;

use std::{sync::Arc, time::Duration};

use bench::{bench, spec};
use covey_agent::{
    executor::{Executor as _, ExecutorError, Exit, HeldState},
    template::NodeNames,
};
use covey_runtime::{NetworkMode, TaskExecutor};
use covey_state::{
    Id, assignment::Assignment, container::ContainerSpec, service::TaskSpec, task::DesiredState,
};

fn node() -> NodeNames {
    NodeNames { id: Id::new(1), hostname: "host".to_owned() }
}

fn assignment(container: ContainerSpec) -> Assignment {
    Assignment {
        task: Id::new(7),
        service: Id::new(8),
        service_name: "web".into(),
        slot: 3,
        spec: Arc::new(TaskSpec { container, ..TaskSpec::default() }),
        desired: DesiredState::Running,
        edge: true,
        networks: Vec::new(),
        ports: Vec::new(),
        exposure: Arc::default(),
    }
}

/// TSK-01
#[tokio::test]
async fn a_task_goes_its_way_and_every_step_can_be_repeated() {
    let Some(bench) = bench().await else { return };
    let executor = TaskExecutor::new(bench.runtime.clone(), node(), NetworkMode::None);
    let task = Id::new(7);
    let work = assignment(spec(&["sh", "-c", "trap 'exit 6' TERM; echo up; while :; do sleep 0.02; done"]));
    assert!(matches!(executor.start(task).await, Err(ExecutorError::NoContainer(_))));
    executor.remove(task).await.unwrap();

    let prepared = executor.prepare(&work, 1).await.unwrap();
    assert_eq!(executor.prepare(&work, 1).await.unwrap(), prepared);
    let container = bench.runtime.inspect(&prepared.id).unwrap();
    assert_eq!(container.name, format!("web.3.{task}"));
    let labels = &container.spec.labels;
    assert_eq!(labels["com.docker.swarm.task.id"], task.to_string());
    assert_eq!(labels["com.docker.swarm.node.id"], Id::new(1).to_string());
    assert_eq!(executor.held().await.unwrap()[0].state, HeldState::Created);

    let started = executor.start(task).await.unwrap();
    assert!(started.healthy && started.container.pid > 0);
    assert_eq!(executor.start(task).await.unwrap(), started);
    assert_eq!(executor.held().await.unwrap()[0].state, HeldState::Running);
    bench.lines_until(&started.container.id, "up").await;
    executor.stop(task, Duration::from_secs(10)).await.unwrap();
    executor.stop(task, Duration::from_secs(10)).await.unwrap();
    let exit = Exit { code: 6, oom_killed: false };
    assert_eq!(executor.wait(task).await.unwrap(), exit);
    assert_eq!(executor.held().await.unwrap()[0].state, HeldState::Exited(exit));

    // The next attempt takes the name of the one before.
    let next = executor.prepare(&work, 2).await.unwrap();
    assert_ne!(next.id, prepared.id);
    assert_eq!(executor.held().await.unwrap().len(), 1);
    executor.remove(task).await.unwrap();
    executor.remove(task).await.unwrap();
    assert!(executor.held().await.unwrap().is_empty());
    bench.close().await;
}

/// TSK-02
#[tokio::test]
async fn an_image_that_does_not_exist_is_rejected() {
    let Some(bench) = bench().await else { return };
    // Another test of this process may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let executor = TaskExecutor::new(bench.runtime.clone(), node(), NetworkMode::None);
    for image in ["127.0.0.1:1/nothing:1", "Not A Name"] {
        let work = assignment(ContainerSpec { image: image.into(), ..spec(&["true"]) });
        let rejected = ExecutorError::Rejected(format!("No such image: {image}"));
        assert_eq!(executor.prepare(&work, 1).await, Err(rejected));
    }
    let failing = assignment(spec(&["nosuch"]));
    executor.prepare(&failing, 1).await.unwrap();
    match executor.start(Id::new(7)).await {
        Err(ExecutorError::Failed(text)) => {
            assert!(text.ends_with("exec: \"nosuch\": executable file not found in $PATH"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    bench.close().await;
}

/// NET-33
#[tokio::test]
async fn a_task_may_be_in_the_network_of_its_host() {
    let Some(bench) = bench().await else { return };
    let executor = TaskExecutor::new(bench.runtime.clone(), node(), NetworkMode::None);
    let mut work = assignment(spec(&["sleep", "1000"]));
    for host_network in [true, false] {
        Arc::make_mut(&mut work.spec).host_network = host_network;
        let id = executor.prepare(&work, 1).await.unwrap().id;
        let mode = if host_network { NetworkMode::Host } else { NetworkMode::None };
        assert_eq!(bench.runtime.inspect(&id).unwrap().network, mode);
        let started = executor.start(Id::new(7)).await.unwrap();
        let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        let own = namespace(started.container.pid) != namespace(std::process::id());
        assert_eq!(own, !host_network);
        executor.remove(Id::new(7)).await.unwrap();
    }
    bench.close().await;
}
