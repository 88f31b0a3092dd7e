//! Health checks: a command in the container, again and again, and what its ends say.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use covey_state::{container::HealthCheck, time::Stamp};
use futures_util::StreamExt as _;
use tokio::time::{sleep, timeout};

use crate::{
    ExecSpec, Output, Runtime,
    container::{Checked, ContainerState, Health, HealthStatus},
    event::Action,
    runtime::{Inner, Life, Slot},
    sys,
};

/// Checks that are remembered of a container.
pub const HEALTH_LOG_MAX: usize = 5;
/// Bytes of what a check wrote that are remembered.
const OUTPUT_MAX: usize = 4096;
/// Exit code of a check that could not be run or took too long.
const NOT_RUN: i32 = -1;

impl Health {
    /// Time until the next check of a container that has run for so long.
    fn pause(&self, check: &HealthCheck, age: Duration) -> Duration {
        let starting = self.status == HealthStatus::Starting && age < check.start_period;
        if starting { check.start_interval } else { check.interval }
    }

    /// Takes in a check of a container that had run for so long when it began. True where the status is another one now.
    fn handle(&mut self, check: &HealthCheck, age: Duration, checked: Checked) -> bool {
        let before = self.status;
        if checked.exit_code == 0 {
            (self.status, self.failing_streak) = (HealthStatus::Healthy, 0);
        } else if before != HealthStatus::Starting || age >= check.start_period {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= check.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        if self.log.len() == HEALTH_LOG_MAX {
            self.log.remove(0);
        }
        self.log.push(checked);
        self.status != before
    }
}

impl Runtime {
    /// Waits until the checks of a running container say so; `None` where it ends before.
    pub(crate) async fn becomes(&self, container: &str, status: HealthStatus) -> Option<Health> {
        let is = |life: &Life| life.health.as_ref().is_some_and(|health| health.status == status);
        let over = |life: &Life| life.removed || life.state != ContainerState::Running;
        let mut life = self.inner.find(container).ok()?.life.subscribe();
        let life = life.wait_for(|life| over(life) || is(life)).await.ok()?;
        life.health.clone().filter(|_| !over(&life))
    }
}

/// Checks a container that has just been started, or found running, until it ends.
pub(crate) fn watch(inner: &Arc<Inner>, slot: &Arc<Slot>) {
    let Some(check) = slot.record.health_check.clone() else { return };
    slot.life.send_modify(|life| life.health = Some(Health::default()));
    let (open, weak, slot) = (inner.open.clone(), Arc::downgrade(inner), slot.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = open.cancelled() => {}
            _ = slot.ended() => {}
            () = check_for_ever(weak, &slot, &check) => {}
        }
    });
}

async fn check_for_ever(inner: Weak<Inner>, slot: &Slot, check: &HealthCheck) {
    loop {
        let pause = {
            // Looked at once: who looks twice at the same time may wait for a writer who waits for him.
            let life = slot.life.borrow();
            let age = age(life.started_at, sys::now());
            life.health.as_ref().map_or(check.interval, |health| health.pause(check, age))
        };
        sleep(pause).await;
        let start = sys::now();
        let Some(runtime) = inner.upgrade().map(|inner| Runtime { inner }) else { return };
        let (exit_code, output) = run(&runtime, slot, check).await;
        let checked = Checked { start: Stamp(start), end: Stamp(sys::now()), exit_code, output };
        let mut status = None;
        slot.life.send_modify(|life| {
            // One that has ended meanwhile, or was started again, says nothing any more.
            if let (ContainerState::Running, Some(health)) = (&life.state, &mut life.health)
                && health.handle(check, age(life.started_at, start), checked)
            {
                status = Some(health.status);
            }
        });
        if let Some(status) = status {
            runtime.inner.tell(&slot.record, Action::Health(status));
        }
    }
}

/// How long the container has run.
fn age(started: Option<Stamp>, now: i64) -> Duration {
    started.map_or(Duration::ZERO, |started| Stamp(now).since(started))
}

/// One check: its exit code, and what is remembered of its output.
async fn run(runtime: &Runtime, slot: &Slot, check: &HealthCheck) -> (i32, String) {
    let cmd = match check.test.split_first() {
        Some((kind, [line])) if kind == "CMD-SHELL" => vec!["/bin/sh".into(), "-c".into(), line.clone()],
        Some((_, words)) => words.to_vec(),
        None => vec![],
    };
    let spec = ExecSpec { cmd, ..ExecSpec::default() };
    let mut exec = match runtime.exec(slot.record.id.as_str(), spec).await {
        Ok(exec) => exec,
        Err(error) => return (NOT_RUN, error.to_string()),
    };
    let mut written = Vec::new();
    let ended = timeout(check.timeout, async {
        // To its end: a check must not wait for somebody to listen.
        while let Some(Output::Stdout(bytes) | Output::Stderr(bytes)) = exec.output.next().await {
            let left = OUTPUT_MAX - written.len();
            written.extend_from_slice(&bytes[..bytes.len().min(left)]);
        }
        exec.wait().await
    });
    match ended.await {
        Ok(Ok(code)) => (code, String::from_utf8_lossy(&written).into_owned()),
        Ok(Err(error)) => (NOT_RUN, error.to_string()),
        Err(_) => {
            exec.kill();
            (NOT_RUN, format!("Health check exceeded timeout ({:?})", check.timeout))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn check() -> HealthCheck {
        let test = vec!["CMD".to_owned(), "true".to_owned()];
        let own = HealthCheck { test, retries: 2, start_period: 10 * S, ..HealthCheck::default() };
        own.or(&HealthCheck::default()).expect("a check")
    }

    fn ended(exit_code: i32) -> Checked {
        Checked { start: Stamp(0), end: Stamp(0), exit_code, output: String::new() }
    }

    /// TSK-14
    #[test]
    fn so_many_failures_one_after_the_other_make_it_unhealthy_and_one_success_healthy() {
        let (check, mut health) = (check(), Health::default());
        assert!(!health.handle(&check, 20 * S, ended(1)));
        assert!(health.handle(&check, 20 * S, ended(1)), "the second failure counts");
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Unhealthy, 2));
        assert!(health.handle(&check, 20 * S, ended(0)));
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Healthy, 0));
        assert!(!health.handle(&check, 20 * S, ended(NOT_RUN)));
        assert!(!health.handle(&check, 20 * S, ended(0)), "it was healthy all the while");
    }

    /// TSK-14
    #[test]
    fn failures_do_not_count_while_it_starts_until_it_was_healthy_once() {
        let (check, mut health) = (check(), Health::default());
        for _ in 0..3 {
            assert!(!health.handle(&check, 9 * S, ended(1)));
        }
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Starting, 0));
        assert_eq!(health.pause(&check, 9 * S), HealthCheck::START_INTERVAL);
        assert_eq!(health.pause(&check, 10 * S), HealthCheck::INTERVAL);
        assert!(health.handle(&check, 9 * S, ended(0)));
        assert_eq!(health.pause(&check, 9 * S), HealthCheck::INTERVAL);
        assert!(!health.handle(&check, 9 * S, ended(1)));
        assert_eq!(health.failing_streak, 1);
    }

    #[test]
    fn only_the_last_checks_are_remembered() {
        let (check, mut health) = (check(), Health::default());
        for code in 0..9 {
            health.handle(&check, S, ended(code));
        }
        let codes: Vec<i32> = health.log.iter().map(|checked| checked.exit_code).collect();
        assert_eq!(codes, [4, 5, 6, 7, 8]);
    }
}
