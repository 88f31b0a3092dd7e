//! An image.

use serde::Serialize;

use super::{Empty, Texts, Time, health::HealthConfig};

/// An image in a list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Summary {
    pub id: String,
    pub parent_id: &'static str,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    /// Seconds since 1970.
    pub created: i64,
    pub size: u64,
    pub shared_size: i64,
    /// What `size` was called before API 1.44.
    pub virtual_size: u64,
    pub labels: Texts,
    pub containers: i64,
}

/// An image by itself.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspect {
    pub id: String,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    pub parent: &'static str,
    pub comment: &'static str,
    pub created: Time,
    pub docker_version: &'static str,
    pub author: String,
    pub config: Config,
    pub architecture: String,
    pub os: String,
    pub size: u64,
    pub virtual_size: u64,
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    pub metadata: Metadata,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    pub user: String,
    #[serde(skip_serializing_if = "super::is_zero")]
    pub exposed_ports: std::collections::BTreeMap<String, Empty>,
    pub env: Vec<String>,
    pub cmd: Vec<String>,
    #[serde(skip_serializing_if = "super::is_zero")]
    pub volumes: std::collections::BTreeMap<String, Empty>,
    pub working_dir: String,
    pub entrypoint: Option<Vec<String>>,
    pub labels: Texts,
    #[serde(skip_serializing_if = "super::is_zero")]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "super::is_zero")]
    pub healthcheck: HealthConfig,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RootFs {
    #[serde(rename = "Type")]
    pub kind: &'static str,
    pub layers: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Metadata {
    pub last_tag_time: &'static str,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Removed {
    #[serde(rename = "Untagged", skip_serializing_if = "Option::is_none")]
    pub untagged: Option<String>,
    #[serde(rename = "Deleted", skip_serializing_if = "Option::is_none")]
    pub deleted: Option<String>,
}

/// What a reference means at its registry.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Distribution {
    pub descriptor: Descriptor,
    pub platforms: Vec<Platform>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
}
