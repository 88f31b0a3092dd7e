//! Health checks: a command in the container, again and again, and what its ends say.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use covey_state::{
    container::{Checked, Health, HealthCheck, HealthStatus},
    time::Stamp,
};
use futures_util::StreamExt as _;
use tokio::time::{sleep, timeout};

use crate::{
    ExecSpec, Output, Runtime,
    container::ContainerState,
    event::Action,
    runtime::{Inner, Life, Slot},
    sys,
};

/// Bytes of what a check wrote that are remembered.
const OUTPUT_MAX: usize = 4096;

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
        Err(error) => return (Checked::NOT_RUN, error.to_string()),
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
        Ok(Err(error)) => (Checked::NOT_RUN, error.to_string()),
        Err(_) => {
            exec.kill();
            (Checked::NOT_RUN, format!("Health check exceeded timeout ({:?})", check.timeout))
        }
    }
}
