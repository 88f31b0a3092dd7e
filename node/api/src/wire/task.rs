//! A task.

use serde::Serialize;

use super::{
    Empty, Meta, Texts, Time, is_zero,
    network::Subnet,
    service::{PortConfig, TaskSpec},
};

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
    pub networks_attachments: Vec<NetworkAttachment>,
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
    pub port_status: PortStatus,
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

/// Ports of its host that are its own.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortStatus {
    #[serde(skip_serializing_if = "is_zero")]
    pub ports: Vec<PortConfig>,
}

/// Its place in a network.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkAttachment {
    pub network: AttachedNetwork,
    /// `10.0.1.7/24`
    pub addresses: Vec<String>,
}

/// A network as tasks carry it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AttachedNetwork {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(flatten)]
    pub meta: Meta,
    pub spec: NetworkSpec,
    pub driver_state: NetworkDriver,
    #[serde(rename = "IPAMOptions")]
    pub ipam_options: IpamOptions,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkSpec {
    pub name: String,
    pub labels: Texts,
    pub driver_configuration: NetworkDriver,
    #[serde(rename = "IPv6Enabled", skip_serializing_if = "is_zero")]
    pub ipv6_enabled: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub internal: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub attachable: bool,
    pub scope: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkDriver {
    pub name: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    pub options: Texts,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct IpamOptions {
    pub driver: IpamDriver,
    pub configs: Vec<Subnet>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct IpamDriver {
    pub name: &'static str,
}
