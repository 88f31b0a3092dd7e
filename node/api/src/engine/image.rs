//! Images, and what is done with them.

use std::{collections::BTreeMap, fmt};

use covey_state::{container::HealthCheck, service::Platform, time::Stamp};

/// An image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// `sha256:…` of its configuration.
    pub id: String,
    /// `name:tag`, familiar form.
    pub tags: Vec<String>,
    /// `name@sha256:…`, familiar form.
    pub digests: Vec<String>,
    /// Its creation.
    pub created_at: Stamp,
    /// Bytes of its layers, unpacked.
    pub size: u64,
    /// What it runs on.
    pub platform: Platform,
    /// Author, as it says.
    pub author: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its environment.
    pub env: Vec<String>,
    /// Its entry point.
    pub entrypoint: Vec<String>,
    /// Its arguments.
    pub cmd: Vec<String>,
    /// Its working directory.
    pub workdir: String,
    /// Its user.
    pub user: String,
    /// Its stop signal; empty: `SIGTERM`.
    pub stop_signal: String,
    /// How its containers are checked, as far as it says.
    pub health_check: HealthCheck,
    /// Ports that it says it serves, `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Paths that it wants as volumes.
    pub volumes: Vec<String>,
    /// Diff ids of its layers, `sha256:…`, lowest first.
    pub layers: Vec<String>,
}

/// A step of a long work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Which part, such as a layer's short id; empty: all of it.
    pub id: String,
    /// What is done, such as `Downloading`.
    pub status: String,
    /// How far, and how far in all, in bytes.
    pub amount: Option<(u64, u64)>,
}

/// An image to be fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pull {
    /// `name:tag` or `name@sha256:…`.
    pub reference: String,
    /// `None`: this host's.
    pub platform: Option<Platform>,
    /// Credentials.
    pub auth: Option<RegistryAuth>,
}

/// A file tree to be made an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// `name:tag` of the image; empty: none.
    pub reference: String,
    /// `Dockerfile` instructions applied to its configuration.
    pub changes: Vec<String>,
    /// Comment.
    pub message: String,
}

/// What the removal of an image did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageRemoved {
    /// A name is gone.
    Untagged(String),
    /// An image or a layer is gone.
    Deleted(String),
}

/// Credentials for a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// User.
    pub username: String,
    /// Password.
    pub password: String,
    /// Token in the place of both; empty: none.
    pub identity_token: String,
    /// The registry that they are for; empty: the one that is asked.
    pub server: String,
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegistryAuth(…)")
    }
}

/// What a reference means at a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// `sha256:…` of the manifest or index.
    pub digest: String,
    /// Media type of that.
    pub media_type: String,
    /// Bytes of that.
    pub size: u64,
    /// What the image runs on.
    pub platforms: Vec<Platform>,
}
