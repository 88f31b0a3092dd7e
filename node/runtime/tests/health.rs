//! Health checks in real containers: needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "door: these tests start processes and look at the machine")]

mod bench;

use std::{sync::Arc, time::Duration};

use bench::{Bench, bench, spec};
use covey_agent::{
    executor::{Executor as _, ExecutorError},
    template::NodeNames,
};
use covey_runtime::{Action, NetworkMode, TaskExecutor};
use covey_state::{
    Id,
    assignment::Assignment,
    container::{ContainerSpec, Health, HealthCheck, HealthStatus},
    service::TaskSpec,
    task::DesiredState,
};
use tokio::{sync::broadcast::Receiver, time::timeout};

const PATIENCE: Duration = Duration::from_secs(10);
const WORK: &[&str] = &["sleep", "1000"];

fn checked(words: &[&str], test: &[&str]) -> ContainerSpec {
    let health = HealthCheck {
        test: test.iter().map(|word| (*word).to_owned()).collect(),
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(400),
        retries: 2,
        ..HealthCheck::default()
    };
    ContainerSpec { health: Some(health), ..spec(words) }
}

/// A container is well while it has this file.
fn well_by_a_file() -> ContainerSpec {
    checked(WORK, &["CMD-SHELL", "cat /well >&2"])
}

async fn told(events: &mut Receiver<covey_runtime::Event>) -> HealthStatus {
    let next = async {
        loop {
            if let Action::Health(status) = events.recv().await.unwrap().action {
                return status;
            }
        }
    };
    timeout(PATIENCE, next).await.expect("the container's health changes")
}

fn health(bench: &Bench, id: &str) -> Health {
    bench.runtime.inspect(id).unwrap().health.unwrap()
}

/// TSK-14
#[tokio::test]
async fn a_container_is_as_healthy_as_its_last_checks() {
    let Some(bench) = bench().await else { return };
    let mut events = bench.runtime.events();
    let id = bench.create(checked(WORK, &["CMD", "cat", "/well"])).await;
    assert_eq!(bench.runtime.inspect(&id).unwrap().health, None, "it does not run");
    bench.runtime.start(&id).await.unwrap();
    assert_eq!(told(&mut events).await, HealthStatus::Unhealthy);
    let seen = health(&bench, &id);
    assert!(seen.failing_streak >= 2);
    let last = seen.log.last().unwrap();
    assert_eq!((last.exit_code, last.output.contains("No such file")), (1, true), "{last:?}");
    bench.exec(&id, &["sh", "-c", "echo fine > /well"]).await;
    assert_eq!(told(&mut events).await, HealthStatus::Healthy);
    assert_eq!(health(&bench, &id).log.last().unwrap().output, "fine\n");
    bench.exec(&id, &["rm", "/well"]).await;
    assert_eq!(told(&mut events).await, HealthStatus::Unhealthy);
    bench.runtime.stop(&id, Some(Duration::ZERO)).await.unwrap();
    bench.runtime.start(&id).await.unwrap();
    assert_eq!(health(&bench, &id), Health::default(), "it begins anew");
    bench.close().await;
}

/// TSK-14
#[tokio::test]
async fn a_check_that_takes_too_long_has_failed_and_is_killed() {
    let Some(bench) = bench().await else { return };
    let mut events = bench.runtime.events();
    let id = bench.started(checked(WORK, &["CMD", "sleep", "99"])).await;
    assert_eq!(told(&mut events).await, HealthStatus::Unhealthy);
    let last = health(&bench, &id).log.last().unwrap().clone();
    assert_eq!((last.exit_code, last.output.as_str()), (-1, "Health check exceeded timeout (400ms)"));
    // At most the one that runs now.
    let (_, processes) = bench.exec(&id, &["ps"]).await;
    assert!(processes.matches("sleep 99").count() <= 1, "{processes}");
    bench.close().await;
}

/// TSK-14
#[tokio::test]
async fn a_check_that_cannot_be_run_says_why() {
    let Some(bench) = bench().await else { return };
    let mut events = bench.runtime.events();
    let id = bench.started(checked(WORK, &["CMD", "nosuch"])).await;
    assert_eq!(told(&mut events).await, HealthStatus::Unhealthy);
    let last = health(&bench, &id).log.last().unwrap().clone();
    assert_eq!((last.exit_code, last.output.contains("nosuch")), (-1, true), "{last:?}");
    bench.close().await;
}

/// TSK-14
#[tokio::test]
async fn a_task_is_told_when_its_container_is_well_and_when_it_is_not() {
    let Some(bench) = bench().await else { return };
    let node = NodeNames { id: Id::new(1), hostname: "host".to_owned() };
    let executor = TaskExecutor::new(bench.runtime.clone(), node, NetworkMode::None);
    let task = Id::new(7);
    let work = Assignment {
        task,
        service: Id::new(8),
        service_name: "web".into(),
        slot: 1,
        spec: Arc::new(TaskSpec { container: well_by_a_file(), ..TaskSpec::default() }),
        desired: DesiredState::Running,
        edge: false,
        networks: Vec::new(),
        ports: Vec::new(),
        exposure: Arc::default(),
    };
    executor.prepare(&work, 1).await.unwrap();
    let started = executor.start(task).await.unwrap();
    assert!(!started.healthy, "nobody knows yet");
    let id = started.container.id;
    bench.exec(&id, &["touch", "/well"]).await;
    timeout(PATIENCE, executor.healthy(task)).await.unwrap();
    assert!(executor.start(task).await.unwrap().healthy);
    bench.exec(&id, &["rm", "/well"]).await;
    let ended = timeout(PATIENCE, executor.wait(task)).await.unwrap();
    assert!(
        matches!(&ended, Err(ExecutorError::Unhealthy(text)) if text.contains("No such file")),
        "{ended:?}"
    );
    assert_eq!(bench.runtime.inspect(&id).unwrap().state, covey_runtime::ContainerState::Running);
    executor.stop(task, Duration::ZERO).await.unwrap();
    timeout(PATIENCE, executor.healthy(task)).await.expect("nobody waits for a container that has ended");
    bench.close().await;
}
