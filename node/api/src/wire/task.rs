//! A task.

use serde::Serialize;

use super::{Empty, Meta, Texts, Time, is_zero, service::TaskSpec};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Task {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(flatten)]
    pub meta: Meta,
    pub labels: Texts,
    pub spec: TaskSpec,
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    pub slot: u64,
    #[serde(rename = "NodeID", skip_serializing_if = "is_zero")]
    pub node_id: String,
    pub status: TaskStatus,
    pub desired_state: &'static str,
    pub networks_attachments: [Empty; 0],
    pub generic_resources: [Empty; 0],
    pub volumes: [Empty; 0],
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskStatus {
    pub timestamp: Time,
    pub state: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    pub message: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub err: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_status: Option<ContainerStatus>,
    pub port_status: Empty,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerStatus {
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    #[serde(rename = "PID")]
    pub pid: u32,
    pub exit_code: i32,
}
