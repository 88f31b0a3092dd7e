//! Options that `service create` and `service update` share, and what they are in the spec.

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::{converge::Wait, edit::at};
use crate::command::{
    health::HealthOptions,
    quantity::{Bytes, Cpus, Nanos},
};

#[derive(clap::Args, Default)]
pub struct Settings {
    /// How many tasks
    #[arg(long, value_name = "NUMBER")]
    pub replicas: Option<u64>,

    /// NAME or UID, with :GROUP or :GID where wanted
    #[arg(short, long, help_heading = "Container")]
    user: Option<String>,
    /// Where the process starts
    #[arg(short, long, value_name = "DIR", help_heading = "Container")]
    workdir: Option<String>,
    /// Host name inside the container; may have placeholders such as {{.Task.Slot}}
    #[arg(long, value_name = "NAME", help_heading = "Container")]
    hostname: Option<String>,
    /// The image's files cannot be changed
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "Container")]
    read_only: Option<bool>,
    /// Signal that asks a container to end
    #[arg(long, value_name = "SIGNAL", help_heading = "Container")]
    stop_signal: Option<String>,
    /// How long it has until SIGKILL, such as 30s
    #[arg(long, value_name = "DURATION", help_heading = "Container")]
    stop_grace_period: Option<Nanos>,

    #[command(flatten)]
    health: HealthOptions,

    /// CPUs of a task, at most, such as .5
    #[arg(long, value_name = "CPUS", help_heading = "Resources")]
    limit_cpu: Option<Cpus>,
    /// Memory of a task, at most, such as 128m
    #[arg(long, value_name = "BYTES", help_heading = "Resources")]
    limit_memory: Option<Bytes>,
    /// Processes of a task, at most
    #[arg(long, value_name = "NUMBER", help_heading = "Resources")]
    limit_pids: Option<i64>,
    /// CPUs that a node must have free for a task
    #[arg(long, value_name = "CPUS", help_heading = "Resources")]
    reserve_cpu: Option<Cpus>,
    /// Memory that a node must have free for a task
    #[arg(long, value_name = "BYTES", help_heading = "Resources")]
    reserve_memory: Option<Bytes>,

    /// Which ends of a task are followed by a new one: none, on-failure or any
    #[arg(long, value_name = "CONDITION", value_parser = ["none", "on-failure", "any"], hide_possible_values = true,
        help_heading = "Restarts")]
    restart_condition: Option<String>,
    /// Wait before a new task starts [default: 5s]
    #[arg(long, value_name = "DURATION", help_heading = "Restarts")]
    restart_delay: Option<Nanos>,
    /// New tasks of a slot, at most; 0: no limit
    #[arg(long, value_name = "NUMBER", help_heading = "Restarts")]
    restart_max_attempts: Option<u64>,
    /// The time in which they are counted
    #[arg(long, value_name = "DURATION", help_heading = "Restarts")]
    restart_window: Option<Nanos>,

    /// Tasks replaced at once; 0: all [default: 1]
    #[arg(long, value_name = "NUMBER", help_heading = "Updates")]
    update_parallelism: Option<u64>,
    /// Wait between two batches
    #[arg(long, value_name = "DURATION", help_heading = "Updates")]
    update_delay: Option<Nanos>,
    /// What happens when a new task fails: pause or continue
    #[arg(long, value_name = "ACTION", value_parser = ["pause", "continue"], hide_possible_values = true,
        help_heading = "Updates")]
    update_failure_action: Option<String>,
    /// How long a new task is watched for failure [default: 5s]
    #[arg(long, value_name = "DURATION", help_heading = "Updates")]
    update_monitor: Option<Nanos>,
    /// Share of failed tasks that is borne, 0 to 1
    #[arg(long, value_name = "RATIO", help_heading = "Updates")]
    update_max_failure_ratio: Option<f64>,

    /// What the name of the service means: vip, one address for all tasks, or dnsrr, the addresses of the tasks
    #[arg(long, value_name = "MODE", value_parser = ["vip", "dnsrr"], hide_possible_values = true,
        help_heading = "Network")]
    endpoint_mode: Option<String>,

    /// Do not ask the registry which version of the image this is
    #[arg(long)]
    pub no_resolve_image: bool,
    #[command(flatten)]
    pub wait: Wait,
}

impl Settings {
    /// Writes those that were given into the spec; all else stays (SVC-47, SVC-48).
    ///
    /// # Errors
    /// The service has no number of tasks that could be changed, or options contradict each other.
    pub fn apply(&self, spec: &mut Value) -> Result<()> {
        if let Some(replicas) = self.replicas {
            super::edit::set_replicas(spec, replicas)?;
        }
        let nanos = |duration: Option<Nanos>| duration.map(|nanos| nanos.0);
        let (bytes, cpus) = (|size: Option<Bytes>| size.map(|b| b.0), |cpus: Option<Cpus>| cpus.map(|c| c.0));
        set(spec, "TaskTemplate/ContainerSpec/User", self.user.as_ref());
        set(spec, "TaskTemplate/ContainerSpec/Dir", self.workdir.as_ref());
        set(spec, "TaskTemplate/ContainerSpec/Hostname", self.hostname.as_ref());
        set(spec, "TaskTemplate/ContainerSpec/ReadOnly", self.read_only);
        set(spec, "TaskTemplate/ContainerSpec/StopSignal", self.stop_signal.as_ref());
        set(spec, "TaskTemplate/ContainerSpec/StopGracePeriod", nanos(self.stop_grace_period));
        let check = self.health.changed(&spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"])?;
        set(spec, "TaskTemplate/ContainerSpec/Healthcheck", check);
        set(spec, "TaskTemplate/Resources/Limits/NanoCPUs", cpus(self.limit_cpu));
        set(spec, "TaskTemplate/Resources/Limits/MemoryBytes", bytes(self.limit_memory));
        set(spec, "TaskTemplate/Resources/Limits/Pids", self.limit_pids);
        set(spec, "TaskTemplate/Resources/Reservations/NanoCPUs", cpus(self.reserve_cpu));
        set(spec, "TaskTemplate/Resources/Reservations/MemoryBytes", bytes(self.reserve_memory));
        set(spec, "TaskTemplate/RestartPolicy/Condition", self.restart_condition.as_ref());
        set(spec, "TaskTemplate/RestartPolicy/Delay", nanos(self.restart_delay));
        set(spec, "TaskTemplate/RestartPolicy/MaxAttempts", self.restart_max_attempts);
        set(spec, "TaskTemplate/RestartPolicy/Window", nanos(self.restart_window));
        set(spec, "EndpointSpec/Mode", self.endpoint_mode.as_ref());
        self.apply_update(spec);
        Ok(())
    }

    fn apply_update(&self, spec: &mut Value) {
        let given = [
            ("Parallelism", self.update_parallelism.map(|number| json!(number))),
            ("Delay", self.update_delay.map(|nanos| json!(nanos.0))),
            ("FailureAction", self.update_failure_action.as_ref().map(|action| json!(action))),
            ("Monitor", self.update_monitor.map(|nanos| json!(nanos.0))),
            ("MaxFailureRatio", self.update_max_failure_ratio.map(|ratio| json!(ratio))),
        ];
        for (field, value) in given {
            let Some(value) = value else { continue };
            let config = at(spec, "UpdateConfig");
            if config.as_object().is_none_or(serde_json::Map::is_empty) {
                // In a configuration that is there, a missing parallelism means all at once.
                *config = json!({"Parallelism": 1, "FailureAction": "pause", "Order": "stop-first"});
            }
            *at(config, field) = value;
        }
    }
}

fn set(spec: &mut Value, path: &str, value: Option<impl Serialize>) {
    if let Some(value) = value {
        *at(spec, path) = json!(value);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn edited(words: &str, mut spec: Value) -> Value {
        let line = Line::parse_from(["x"].into_iter().chain(words.split_whitespace()));
        line.settings.apply(&mut spec).unwrap();
        spec
    }

    /// SVC-02, RES-04, SVC-14, TSK-14
    #[test]
    fn each_option_has_its_place_in_the_spec() {
        let words = "--replicas 3 --user 1:2 --workdir /srv --hostname h --read-only --stop-signal SIGINT \
            --stop-grace-period 1m --limit-cpu .5 --limit-memory 128m --limit-pids 9 --reserve-cpu .25 \
            --reserve-memory 64m --restart-condition on-failure --restart-delay 2s --restart-max-attempts 4 \
            --restart-window 1h --update-parallelism 2 --update-delay 10s --update-failure-action continue \
            --update-monitor 1s --update-max-failure-ratio .25 --endpoint-mode dnsrr \
            --health-cmd true --health-retries 2";
        let expected = json!({
            "EndpointSpec": {"Mode": "dnsrr"},
            "Mode": {"Replicated": {"Replicas": 3}},
            "TaskTemplate": {
                "ContainerSpec": {"User": "1:2", "Dir": "/srv", "Hostname": "h", "ReadOnly": true,
                    "StopSignal": "SIGINT", "StopGracePeriod": 60_000_000_000_i64,
                    "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Retries": 2}},
                "Resources": {"Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 134_217_728, "Pids": 9},
                    "Reservations": {"NanoCPUs": 250_000_000, "MemoryBytes": 67_108_864}},
                "RestartPolicy": {"Condition": "on-failure", "Delay": 2_000_000_000, "MaxAttempts": 4,
                    "Window": 3_600_000_000_000_i64},
            },
            "UpdateConfig": {"Parallelism": 2, "Delay": 10_000_000_000_i64, "FailureAction": "continue",
                "Monitor": 1_000_000_000, "MaxFailureRatio": 0.25, "Order": "stop-first"},
        });
        assert_eq!(edited(words, json!({})), expected);
    }

    /// SVC-47, SVC-48
    #[test]
    fn what_is_not_given_stays_as_it_was() {
        let spec = json!({"Name": "web", "New": 1, "UpdateConfig": {"Parallelism": 7, "Order": "start-first"},
            "TaskTemplate": {"ContainerSpec": {"ReadOnly": true, "Env": ["A=1"], "Healthcheck": {"Retries": 2}}}});
        assert_eq!(edited("", spec.clone()), spec);
        let changed = edited("--update-delay 1s --read-only=false", spec);
        assert_eq!(
            changed["UpdateConfig"],
            json!({"Parallelism": 7, "Order": "start-first", "Delay": 1_000_000_000})
        );
        let container = json!({"ReadOnly": false, "Env": ["A=1"], "Healthcheck": {"Retries": 2}});
        assert_eq!(changed["TaskTemplate"]["ContainerSpec"], container);
    }

    /// SVC-09
    #[test]
    fn detach_may_have_a_value() {
        let detach = |words: &[&str]| Line::parse_from([&["x"], words].concat()).settings.wait.detach;
        assert!(detach(&["-d"]) && detach(&["--detach"]) && detach(&["--detach=true"]));
        assert!(!detach(&[]) && !detach(&["--detach=false"]));
    }
}
