//! Tasks.

use covey_state::task::{ContainerStatus, Task, TaskState, TaskStatus};

use super::{exposure, port, service};
use crate::{
    control::View,
    wire::{Meta, ObjectVersion, Texts, Time, task as wire},
};

/// How far a task is: what was decided, unless something newer was observed.
pub fn status<'a>(task: &'a Task, view: &'a View) -> &'a TaskStatus {
    view.observed.get(&task.id).filter(|seen| seen.supersedes(&task.status)).unwrap_or(&task.status)
}

/// What is wrong with a task; where nothing is and it runs, with its service.
fn error(task: &Task, status: &TaskStatus, view: &View) -> String {
    let runs = task.is_wanted_running() && status.state == TaskState::Running;
    match view.service_errors.get(&task.service) {
        Some(errors) if runs && status.error.is_empty() => errors.join("; "),
        _ => status.error.clone(),
    }
}

/// A task as the Engine API writes it.
pub fn to_wire(task: &Task, view: &View) -> wire::Task {
    let status = status(task, view);
    wire::Task {
        id: task.id.to_string(),
        meta: Meta {
            version: ObjectVersion { index: task.version },
            created_at: Time(task.created_at),
            // What a node reports is a change of the task too, though not one of the log.
            updated_at: Time(task.updated_at.max(status.at)),
        },
        labels: Texts::new(),
        spec: service::task_to_wire(&task.spec),
        service_id: task.service.to_string(),
        slot: task.slot,
        node_id: task.node.map(|node| node.to_string()).unwrap_or_default(),
        status: wire::TaskStatus {
            timestamp: Time(status.at),
            state: status.state.as_str(),
            message: status.message.clone(),
            err: error(task, status, view),
            container_status: status.container.as_ref().map(container),
            port_status: wire::PortStatus {
                ports: (status.container.iter())
                    .flat_map(|container| container.ports.iter().map(port::to_wire))
                    .collect(),
            },
        },
        desired_state: task.desired.as_str(),
        networks_attachments: (task.attachments.iter())
            .filter_map(|attachment| exposure::attachment_to_wire(attachment, &view.store))
            .collect(),
        generic_resources: [],
        volumes: [],
    }
}

fn container(container: &ContainerStatus) -> wire::ContainerStatus {
    wire::ContainerStatus {
        container_id: container.id.clone(),
        pid: container.pid,
        exit_code: container.exit_code.unwrap_or(0),
    }
}
