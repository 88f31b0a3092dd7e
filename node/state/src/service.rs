//! A service: a spec for tasks, and how many of them.

mod check;
mod endpoint;

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::{
    check::{ALIASES_MAX, NAME_MAX, REPLICAS_MAX, SpecError},
    endpoint::EndpointError,
};
use crate::{
    Id, Version,
    container::{ContainerSpec, Resources},
    network::{AttachmentSpec, EndpointSpec, Exposure},
    time::Stamp,
};

/// What the user asked for; the system never edits it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Unique among services; never changes.
    pub name: String,
    /// Labels of the service itself.
    pub labels: BTreeMap<String, String>,
    /// What each task runs.
    pub task: TaskSpec,
    /// How many tasks.
    pub mode: Mode,
    /// How a change of `task` is rolled out.
    pub update: UpdateConfig,
    /// How a rollback is rolled out (kept for the user; rollbacks come later).
    pub rollback: UpdateConfig,
    /// How it is reached.
    pub endpoint: EndpointSpec,
}

/// How many tasks a service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// This many, spread over the nodes.
    Replicated {
        /// Slots to fill.
        replicas: u64,
    },
}

/// What each task of a service runs, and where. A change of it replaces tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The container.
    pub container: ContainerSpec,
    /// Limits and reservations.
    pub resources: Resources,
    /// What happens when a task ends.
    pub restart: RestartPolicy,
    /// Which nodes may run it.
    pub placement: Placement,
    /// Which networks it is in.
    pub networks: Vec<AttachmentSpec>,
    /// It has no network of its own but is in that of its host: it has neither an address nor a name in any other.
    pub host_network: bool,
    /// Raised by `service update --force`: replaces tasks though nothing else changed.
    pub force_update: u64,
}

/// Which ends of a task are followed by a replacement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartCondition {
    /// None.
    None,
    /// Only failures.
    OnFailure,
    /// All, also after exit 0.
    #[default]
    Any,
}

/// What happens when a task ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Which ends are followed by a replacement.
    pub condition: RestartCondition,
    /// Wait before the replacement starts.
    pub delay: Duration,
    /// Replacements of a slot, at most; 0: no limit.
    pub max_attempts: u64,
    /// Replacements older than this do not count; zero: all count.
    pub window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            delay: Duration::from_secs(5),
            max_attempts: 0,
            window: Duration::ZERO,
        }
    }
}

/// Which nodes may run a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// All must hold.
    pub constraints: Vec<Constraint>,
    /// One of them must be the node's; empty: any.
    pub platforms: Vec<Platform>,
}

/// A kind of machine, in Go's words (`linux`, `amd64`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system; empty: any.
    pub os: String,
    /// Processor architecture; empty: any.
    pub architecture: String,
}

/// One condition on nodes: `node.labels.disk==ssd`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    /// What of the node is looked at.
    pub key: ConstraintKey,
    /// True for `==`, false for `!=`.
    pub equal: bool,
    /// Compared with it, upper and lower case alike (exactly for ids and labels' keys).
    pub value: String,
}

/// What of a node a [`Constraint`] looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConstraintKey {
    /// `node.id`
    Id,
    /// `node.hostname`
    Hostname,
    /// `node.role`
    Role,
    /// `node.labels.<label>`
    Label(String),
}

/// A constraint cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseConstraintError {
    /// Neither `==` nor `!=` in it, or nothing on one side.
    #[error("constraint '{0}' must have the form key==value or key!=value")]
    Form(String),
    /// The key is none that nodes have.
    #[error(
        "constraint key '{0}' is not known: use node.id, node.hostname, node.role or node.labels.<label> (did you mean node.labels.{0}?)"
    )]
    Key(String),
}

impl FromStr for Constraint {
    type Err = ParseConstraintError;

    fn from_str(text: &str) -> Result<Self, ParseConstraintError> {
        let form = || ParseConstraintError::Form(text.to_owned());
        let (key, equal, value) = match (text.split_once("=="), text.split_once("!=")) {
            (Some((key, value)), None) => (key.trim(), true, value.trim()),
            (None, Some((key, value))) => (key.trim(), false, value.trim()),
            _ => return Err(form()),
        };
        if key.is_empty() || value.is_empty() {
            return Err(form());
        }
        let key = match key {
            "node.id" => ConstraintKey::Id,
            "node.hostname" => ConstraintKey::Hostname,
            "node.role" => ConstraintKey::Role,
            _ => match key.strip_prefix("node.labels.") {
                Some(label) if !label.is_empty() => ConstraintKey::Label(label.to_owned()),
                _ => return Err(ParseConstraintError::Key(key.to_owned())),
            },
        };
        Ok(Self { key, equal, value: value.to_owned() })
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            ConstraintKey::Id => f.write_str("node.id")?,
            ConstraintKey::Hostname => f.write_str("node.hostname")?,
            ConstraintKey::Role => f.write_str("node.role")?,
            ConstraintKey::Label(label) => write!(f, "node.labels.{label}")?,
        }
        write!(f, "{}{}", if self.equal { "==" } else { "!=" }, self.value)
    }
}

/// What happens when an updated task fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureAction {
    /// The update stops and waits for the user.
    #[default]
    Pause,
    /// The update goes on.
    Continue,
}

/// How a change is rolled out. Order is stop-first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateConfig {
    /// Tasks replaced at once; 0: all.
    pub parallelism: u64,
    /// Wait between two batches.
    pub delay: Duration,
    /// What happens when an updated task fails.
    pub failure_action: FailureAction,
    /// How long an updated task is watched for failure.
    pub monitor: Duration,
    /// Share of failed tasks that is borne, in billionths.
    pub max_failure_billionths: u32,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            failure_action: FailureAction::Pause,
            monitor: Duration::from_secs(5),
            max_failure_billionths: 0,
        }
    }
}

/// How far a roll-out is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateState {
    /// Tasks are being replaced.
    Updating,
    /// A failure stopped it.
    Paused,
    /// Every slot is on the new spec.
    Completed,
}

/// The roll-out of the last change of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// How far it is.
    pub state: UpdateState,
    /// When it began.
    pub started_at: Stamp,
    /// When it completed.
    pub completed_at: Option<Stamp>,
    /// For the user: `update in progress`, `update paused due to failure or early termination of task …`.
    pub message: String,
}

/// A service as the cluster remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its id.
    pub id: Id,
    /// Its last change.
    pub version: Version,
    /// Its creation.
    pub created_at: Stamp,
    /// Its last change.
    pub updated_at: Stamp,
    /// What is wanted.
    pub spec: ServiceSpec,
    /// Version of the service when what its tasks are last changed (`spec.task`, ports of their hosts, a way out):
    /// tasks with an older one are out of date.
    pub spec_version: Version,
    /// What was wanted before the last change of `spec` (C-58: a change of nothing keeps it).
    pub previous_spec: Option<Box<ServiceSpec>>,
    /// The roll-out of the last change.
    pub update_status: Option<UpdateStatus>,
    /// Its tasks have an interface at the edge: it is on no network, or on one with a way out, or publishes a port.
    pub edge: bool,
    /// How it is reached, with what the cluster decided.
    pub exposure: Arc<Exposure>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SCH-07, SCH-08
    #[test]
    fn constraints_are_read_and_written_alike() {
        for text in [
            "node.id==a3r56hj7y",
            "node.hostname!=ip-10-0-0-2.ec2.internal",
            "node.role==manager",
            "node.labels.db==mysql",
            "node.labels.com.example.zone!=b",
        ] {
            assert_eq!(text.parse::<Constraint>().unwrap().to_string(), text);
        }
    }

    /// SCH-07
    #[test]
    fn blanks_inside_a_constraint_mean_nothing() {
        assert_eq!(" node.id == x ".parse::<Constraint>(), "node.id==x".parse());
    }

    /// SCH-08, C-17
    #[test]
    fn an_unknown_key_is_refused_with_a_hint() {
        let error = "region==east".parse::<Constraint>().unwrap_err();
        assert!(matches!(&error, ParseConstraintError::Key(key) if key == "region"));
        assert!(error.to_string().contains("node.labels.region"));
        assert!(matches!("node.labels.==x".parse::<Constraint>(), Err(ParseConstraintError::Key(_))));
    }

    /// SCH-07
    #[test]
    fn what_has_not_the_form_of_a_constraint_is_refused() {
        for text in ["", "==", "node.id", "node.id=x", "node.id==", "==x", "node.id==x!=y", "node.id>3"] {
            assert!(matches!(text.parse::<Constraint>(), Err(ParseConstraintError::Form(_))), "{text}");
        }
    }
}
