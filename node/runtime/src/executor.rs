//! The agent's view: one container a task.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use covey_agent::{
    executor::{Executor, ExecutorError, Exit, Held, HeldState, Started},
    template::{self, NodeNames},
};
use covey_state::{Id, assignment::Assignment, container::HealthStatus, task::ContainerStatus};

use crate::{
    Container, ContainerState, CreateContainer, CreateError, NetworkMode, Runtime, StartError, TaskRef,
    image::{self, Reference},
    name::LookupError,
    runtime::OperationError,
};

/// Characters of what a check wrote that a task's error has.
const OUTPUT_MAX: usize = 200;

/// Runs tasks as containers.
#[derive(Clone)]
pub struct TaskExecutor {
    runtime: Runtime,
    node: NodeNames,
    network: NetworkMode,
}

impl TaskExecutor {
    /// Runs tasks of node `node`; their containers are in `network`, but for those that are to be in the host's.
    pub fn new(runtime: Runtime, node: NodeNames, network: NetworkMode) -> Self {
        Self { runtime, node, network }
    }

    /// The container of the task's last attempt.
    fn container(&self, task: Id) -> Result<Container, ExecutorError> {
        let of_task = |c: &Container| c.task.is_some_and(|t| t.task == task);
        let newest = self.runtime.list().into_iter().filter(of_task).max_by_key(|c| c.task);
        newest.ok_or_else(|| ExecutorError::NoContainer(task.to_string()))
    }

    /// Pulls the image unless it is here, by name or by digest.
    async fn fetch(&self, name: &str) -> Result<(), ExecutorError> {
        let images = &self.runtime.inner.config.images;
        match images.inspect(name).await {
            Ok(_) => return Ok(()),
            Err(image::LookupError::NotFound(_)) => {}
            Err(error) => return Err(ExecutorError::Rejected(error.to_string())),
        }
        let reference: Reference =
            name.parse().map_err(|_| ExecutorError::Rejected(format!("No such image: {name}")))?;
        images.pull(&reference, None, Arc::new(|_| {})).await.map(drop).map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, image = name, "cannot pull");
            ExecutorError::Rejected(format!("No such image: {}", reference.without_digest()))
        })
    }
}

fn status(container: &Container) -> ContainerStatus {
    ContainerStatus {
        id: container.id.to_string(),
        pid: container.pid,
        exit_code: exit(container).map(|exit| exit.code),
        addresses: container.addresses.clone(),
        ports: container.ports.clone(),
    }
}

fn exit(container: &Container) -> Option<Exit> {
    match &container.state {
        ContainerState::Exited(exit) => Some(Exit { code: exit.code, oom_killed: exit.oom_killed }),
        _ => None,
    }
}

fn failed(error: OperationError) -> ExecutorError {
    match error {
        OperationError::Lookup(LookupError::NotFound(id)) => ExecutorError::NoContainer(id),
        other => ExecutorError::Failed(other.to_string()),
    }
}

impl Executor for TaskExecutor {
    async fn held(&self) -> Result<Vec<Held>, ExecutorError> {
        let held = |container: &Container| {
            let TaskRef { task, attempt } = container.task?;
            let state = match &container.state {
                ContainerState::Created => HeldState::Created,
                ContainerState::Running => HeldState::Running,
                ContainerState::Exited(exit) if exit.lost_with_host() => HeldState::Lost,
                ContainerState::Exited(exit) => {
                    HeldState::Exited(Exit { code: exit.code, oom_killed: exit.oom_killed })
                }
            };
            let since = match &container.state {
                ContainerState::Created => container.created,
                ContainerState::Running => container.started_at.unwrap_or(container.created),
                ContainerState::Exited(exit) => exit.at,
            };
            Some(Held { task, attempt, container: status(container), state, since })
        };
        Ok(self.runtime.list().iter().filter_map(held).collect())
    }

    async fn prepare(&self, assignment: &Assignment, attempt: u32) -> Result<ContainerStatus, ExecutorError> {
        let reference = TaskRef { task: assignment.task, attempt };
        match self.container(assignment.task) {
            Ok(container) if container.task == Some(reference) => return Ok(status(&container)),
            // An attempt before this one: it has the name that this one needs.
            Ok(container) => self.runtime.remove(container.id.as_str(), true).await.map_err(failed)?,
            Err(_) => {}
        }
        let spec = template::expand(assignment, &self.node);
        self.fetch(&spec.image).await?;
        let labels = [
            ("com.docker.swarm.node.id", self.node.id.to_string()),
            ("com.docker.swarm.service.id", assignment.service.to_string()),
            ("com.docker.swarm.service.name", assignment.service_name.to_string()),
            ("com.docker.swarm.task", String::new()),
            ("com.docker.swarm.task.id", assignment.task.to_string()),
            ("com.docker.swarm.task.name", assignment.container_name()),
        ];
        let wanted = CreateContainer {
            name: assignment.container_name(),
            spec,
            resources: assignment.spec.resources,
            labels: labels.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<BTreeMap<_, _>>(),
            task: Some(reference),
            network: match assignment.spec.host_network {
                true => NetworkMode::Host,
                false => self.network.clone(),
            },
            wiring: assignment.wiring(),
            ..CreateContainer::default()
        };
        let id = self.runtime.create(wanted).await.map_err(|error| match error {
            CreateError::Io(_) | CreateError::Json(_) => ExecutorError::Failed(error.to_string()),
            other => ExecutorError::Rejected(other.to_string()),
        })?;
        Ok(ContainerStatus { id: id.to_string(), ..ContainerStatus::default() })
    }

    async fn start(&self, task: Id) -> Result<Started, ExecutorError> {
        let container = self.container(task)?;
        // Started by the call before this one, whose answer was lost.
        if container.started_at.is_none() {
            let started = self.runtime.start(container.id.as_str()).await;
            started.map_err(|error| match error {
                // The network's own words are the task's error.
                StartError::Network(text) => ExecutorError::Failed(text),
                other => ExecutorError::Failed(other.to_string()),
            })?;
        }
        self.container(task).map(|container| Started {
            healthy: container.health.as_ref().is_none_or(|health| health.status == HealthStatus::Healthy),
            container: status(&container),
        })
    }

    async fn healthy(&self, task: Id) {
        if let Ok(container) = self.container(task) {
            // What ends before is told by `wait`.
            self.runtime.becomes(container.id.as_str(), HealthStatus::Healthy).await;
        }
    }

    async fn wait(&self, task: Id) -> Result<Exit, ExecutorError> {
        let container = self.container(task)?;
        let id = container.id.as_str();
        tokio::select! {
            exit = self.runtime.wait(id) => {
                let exit = exit.map_err(failed)?;
                Ok(Exit { code: exit.code, oom_killed: exit.oom_killed })
            }
            Some(health) = self.runtime.becomes(id, HealthStatus::Unhealthy) => {
                let last = health.log.last().map(|checked| checked.output.trim());
                let line = last.and_then(|output| output.lines().next()).unwrap_or_default();
                Err(ExecutorError::Unhealthy(line.chars().take(OUTPUT_MAX).collect()))
            }
        }
    }

    async fn stop(&self, task: Id, grace: Duration) -> Result<(), ExecutorError> {
        let container = self.container(task)?;
        self.runtime.stop(container.id.as_str(), Some(grace)).await.map_err(failed)
    }

    async fn remove(&self, task: Id) -> Result<(), ExecutorError> {
        let Ok(container) = self.container(task) else { return Ok(()) };
        match self.runtime.remove(container.id.as_str(), true).await.map_err(failed) {
            Ok(()) | Err(ExecutorError::NoContainer(_)) => Ok(()),
            other => other,
        }
    }
}
