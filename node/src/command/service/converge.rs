//! Waits until a service is as it was asked for, and shows how far it is.

mod display;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

use display::Display;

use crate::{
    client::{
        Client, Target,
        model::{Node, Service, Task},
    },
    command::terminal,
};

/// Time between two looks.
const POLL: Duration = Duration::from_millis(100);
/// How long a service is watched where its spec does not say.
const MONITOR_DEFAULT: Duration = Duration::from_secs(5);

/// How far a service is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// Tasks that are wanted.
    wanted: u64,
    /// Slots whose task runs on a node that is there.
    running: u64,
    /// What each slot's newest task does, or why it cannot.
    slots: BTreeMap<u64, String>,
}

impl Progress {
    /// Tasks must be of the current spec, which is the daemon's to say.
    fn new(service: &Service, tasks: &[Task], down: &BTreeSet<&str>) -> Self {
        let wanted = service.spec.mode.replicated.as_ref().map_or(0, |mode| mode.replicas);
        let mut newest = BTreeMap::<u64, &Task>::new();
        for task in tasks.iter().filter(|task| is_wanted(task) && !down.contains(task.node_id.as_str())) {
            let known = newest.entry(task.slot).or_insert(task);
            if task.created_at > known.created_at {
                *known = task;
            }
        }
        let running = newest.values().filter(|task| task.status.state == "running").count() as u64;
        let slots = newest.iter().map(|(slot, task)| (*slot, state(task))).collect();
        Self { wanted, running, slots }
    }

    fn is_done(&self) -> bool {
        self.running == self.wanted && self.slots.len() as u64 == self.wanted
    }
}

/// A task that is to run, or that has ended by itself and waits for its successor.
fn is_wanted(task: &Task) -> bool {
    matches!(task.desired_state.as_str(), "running" | "ready")
}

fn state(task: &Task) -> String {
    match task.status.err.as_str() {
        "" => task.status.state.clone(),
        error => error.replace('\n', " "),
    }
}

/// Whether a command waits for what it has set in motion.
#[derive(clap::Args, Default)]
pub struct Wait {
    /// Return at once, before the tasks run
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value = "false", hide_default_value = true, value_name = "BOOL", hide_possible_values = true,
        action = clap::ArgAction::Set)]
    pub detach: bool,
    /// Do not show the progress
    #[arg(short, long)]
    pub quiet: bool,
}

impl Wait {
    /// Waits, where it is wanted, until the service has all its tasks and keeps them for as long as its updates are
    /// watched. Ctrl-C ends the wait, not the service.
    ///
    /// # Errors
    /// The update was paused, or the daemon refused.
    pub async fn until_done(&self, id: &str, client: &Client) -> Result<()> {
        if self.detach { Ok(()) } else { wait(id, self.quiet, client).await }
    }
}

async fn wait(id: &str, quiet: bool, client: &Client) -> Result<()> {
    tokio::select! {
        done = watch(id, quiet, client) => done,
        _ = tokio::signal::ctrl_c() => {
            terminal::complain(&format!(
                "\nOperation continuing in background.\nUse 'covey service ps {id}' to check progress."
            ));
            Ok(())
        }
    }
}

async fn watch(id: &str, quiet: bool, client: &Client) -> Result<()> {
    let mut display = Display::new(quiet);
    let mut stable_since = None;
    loop {
        let service: Service = client.get(super::target(id).with("insertDefaults", false)).await?;
        let progress = look(&service, client).await?;
        display.show(&progress);
        if service.update_status.state == "paused" && !progress.is_done() {
            display.finish();
            bail!("service update paused: {}", service.update_status.message);
        }
        if progress.is_done() {
            let monitor = monitor(&service);
            let since = *stable_since.get_or_insert_with(Instant::now);
            let left = monitor.saturating_sub(since.elapsed());
            if left.is_zero() {
                display.verify(&format!("Service {id} converged"));
                display.finish();
                return Ok(());
            }
            display.verify(&waiting(left));
        } else {
            stable_since = None;
        }
        sleep(POLL).await;
    }
}

fn waiting(left: Duration) -> String {
    let seconds = left.as_secs_f64().ceil();
    let unit = if seconds > 1.0 { "seconds" } else { "second" };
    format!("Waiting {seconds} {unit} to verify that tasks are stable...")
}

fn monitor(service: &Service) -> Duration {
    match service.spec.update_config.monitor {
        0 => MONITOR_DEFAULT,
        nanos => Duration::from_nanos(nanos),
    }
}

async fn look(service: &Service, client: &Client) -> Result<Progress> {
    let current = Target::new(&["tasks"]).with_filters(&[("service", &service.id), ("_up-to-date", "true")]);
    let tasks: Vec<Task> = client.get(current).await?;
    let nodes: Vec<Node> = client.get(Target::new(&["nodes"])).await?;
    let down = nodes.iter().filter(|node| node.status.state == "down").map(|node| node.id.as_str()).collect();
    Ok(Progress::new(service, &tasks, &down))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::command::fake::{Daemon, Reply};

    fn service(replicas: u64, update: &str) -> Value {
        json!({"ID": "s1", "Spec": {"Mode": {"Replicated": {"Replicas": replicas}}, "UpdateConfig": {"Monitor": 1}},
            "UpdateStatus": {"State": update, "Message": "task t1 failed"}})
    }

    fn task(slot: u64, node: &str, state: &str, desired: &str, created: u8, error: &str) -> Value {
        let created = format!("1970-01-01T00:00:0{created}Z");
        json!({"Slot": slot, "NodeID": node, "DesiredState": desired, "CreatedAt": created,
            "Status": {"State": state, "Err": error}})
    }

    fn progress(tasks: &Value) -> Progress {
        let service: Service = serde_json::from_value(service(2, "")).unwrap();
        let tasks: Vec<Task> = serde_json::from_value(tasks.clone()).unwrap();
        Progress::new(&service, &tasks, &BTreeSet::from(["dead"]))
    }

    /// SVC-19
    #[test]
    fn a_slot_counts_once_and_only_on_a_node_that_is_there() {
        let one = progress(&json!([
            task(1, "n1", "running", "running", 2, ""),
            task(1, "n1", "failed", "shutdown", 1, "exit 1"),
            task(2, "dead", "running", "running", 1, ""),
        ]));
        assert_eq!((one.running, one.wanted, one.is_done()), (1, 2, false));
        let both = progress(&json!([
            task(1, "n1", "running", "running", 2, ""),
            task(2, "n2", "running", "running", 1, ""),
        ]));
        assert!(both.is_done());
    }

    /// SVC-40: tasks beyond the wanted number are on their way out.
    #[test]
    fn a_task_too_many_is_not_yet_done() {
        let tasks = json!([
            task(1, "n1", "running", "running", 1, ""),
            task(2, "n1", "running", "running", 1, ""),
            task(3, "n1", "running", "running", 1, ""),
        ]);
        assert!(!progress(&tasks).is_done());
    }

    #[test]
    fn a_slot_says_why_it_waits() {
        let waits =
            progress(&json!([task(1, "", "pending", "running", 1, "no suitable node (1 not available)")]));
        assert_eq!(waits.slots[&1], "no suitable node (1 not available)");
    }

    #[test]
    fn the_wait_for_stability_counts_down() {
        let text = |millis| waiting(Duration::from_millis(millis));
        assert_eq!(text(4_900), "Waiting 5 seconds to verify that tasks are stable...");
        assert_eq!(text(100), "Waiting 1 second to verify that tasks are stable...");
    }

    #[tokio::test]
    async fn the_wait_ends_when_all_tasks_run() {
        let running =
            |count: u64| (1..=count).map(|slot| task(slot, "n1", "running", "running", 1, "")).collect();
        let steps: Vec<_> = [0, 1, 2].map(|count| Reply::Json(running(count))).into();
        let daemon = Daemon::start([
            ("GET /services/s1", Reply::Json(service(2, ""))),
            ("GET /tasks", Reply::Each(steps)),
            ("GET /nodes", Reply::Json(json!([]))),
        ]);
        wait("s1", true, &daemon.client()).await.unwrap();
        assert!(daemon.asked().iter().filter(|(line, _)| line.starts_with("GET /tasks")).count() >= 3);
    }

    /// UPD-05
    #[tokio::test]
    async fn a_paused_update_is_an_error() {
        let daemon = Daemon::start([
            ("GET /services/s1", Reply::Json(service(2, "paused"))),
            ("GET /tasks", Reply::Json(json!([]))),
            ("GET /nodes", Reply::Json(json!([]))),
        ]);
        let error = wait("s1", true, &daemon.client()).await.unwrap_err();
        assert_eq!(error.to_string(), "service update paused: task t1 failed");
    }
}
