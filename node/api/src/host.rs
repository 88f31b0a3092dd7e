//! What `info` and `version` say of the machine and the daemon: facts that do not change while it runs.

/// The machine and the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Id of the daemon, kept over restarts.
    pub id: String,
    /// Host name.
    pub name: String,
    /// Version of the daemon, `x.y.z`: monitoring tools parse it.
    pub version: String,
    /// Commit that it was built from.
    pub commit: String,
    /// When it was built, RFC 3339.
    pub built: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Such as `Debian GNU/Linux 12 (bookworm)`.
    pub operating_system: String,
    /// `VERSION_ID` of the operating system.
    pub os_version: String,
    /// As `uname` writes it: `x86_64`.
    pub machine: String,
    /// As Go writes it: `amd64`.
    pub architecture: String,
    /// Processors.
    pub cpus: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Where the daemon keeps its data.
    pub data_root: String,
    /// Labels of the daemon, `key=value`.
    pub labels: Vec<String>,
    /// File system under the data root, such as `extfs`.
    pub backing_filesystem: String,
    /// 1 or 2.
    pub cgroup_version: u8,
    /// Registries that are spoken to without TLS, `host[:port]`.
    pub insecure_registries: Vec<String>,
    /// What the user should know, one sentence each.
    pub warnings: Vec<String>,
}
