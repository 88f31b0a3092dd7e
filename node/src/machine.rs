//! What this machine is: read once when the daemon starts.

use std::{collections::BTreeMap, fs, path::Path};

use covey_api::Host;
use covey_state::{container::Amount, node::NodeDescription, service::Platform};
use nix::sys::{statfs::statfs, utsname::uname};

use crate::{clock, config::Config, disk};

/// Bytes of the daemon's id file.
const ID_MAX: u64 = 128;

/// What `info` and `version` say.
pub fn host(config: &Config) -> Host {
    let names = uname().ok();
    let text = |part: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        names.as_ref().map(|names| part(names).to_string_lossy().into_owned()).unwrap_or_default()
    };
    let release = os_release();
    let machine = text(|names| names.machine());
    Host {
        id: daemon_id(&config.data_root),
        name: text(|names| names.nodename()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: option_env!("COVEY_COMMIT").unwrap_or("unknown").to_owned(),
        built: option_env!("COVEY_BUILT").unwrap_or_default().to_owned(),
        kernel: text(|names| names.release()),
        operating_system: release.get("PRETTY_NAME").cloned().unwrap_or_else(|| "Linux".to_owned()),
        os_version: release.get("VERSION_ID").cloned().unwrap_or_default(),
        architecture: architecture(&machine).to_owned(),
        machine,
        cpus: cpus(),
        memory: memory(),
        data_root: config.data_root.display().to_string(),
        labels: config.labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        backing_filesystem: filesystem(&config.data_root).to_owned(),
        cgroup_version: if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { 2 } else { 1 },
        insecure_registries: config.insecure_registries.clone(),
        warnings: Vec::new(),
    }
}

/// What a node says of itself to its cluster.
pub fn description(host: &Host, labels: &BTreeMap<String, String>) -> NodeDescription {
    NodeDescription {
        hostname: host.name.clone(),
        platform: Platform { os: "linux".to_owned(), architecture: host.architecture.clone() },
        resources: Amount { nano_cpus: host.cpus * 1_000_000_000, memory: host.memory },
        engine_version: host.version.clone(),
        engine_labels: labels.clone(),
        data_path: None,
    }
}

/// As Go names it: constraints and image indexes use these words.
fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" => "arm",
        other => other,
    }
}

fn cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, |number| number.get() as u64)
}

fn memory() -> u64 {
    let total = || {
        let text = fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    total().unwrap_or(0) * 1024
}

fn os_release() -> BTreeMap<String, String> {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect()
}

fn filesystem(path: &Path) -> &'static str {
    // linux/magic.h
    match statfs(path).map(|found| found.filesystem_type().0) {
        Ok(0xEF53) => "extfs",
        Ok(0x5846_5342) => "xfs",
        Ok(0x9123_683E) => "btrfs",
        Ok(0x0102_1994) => "tmpfs",
        Ok(0x794C_7630) => "overlayfs",
        _ => "unknown",
    }
}

/// The daemon's id, made at its first start. A machine that cannot keep it gets another next time.
fn daemon_id(data_root: &Path) -> String {
    let path = data_root.join("id");
    if let Ok(Some(bytes)) = disk::read(&path, ID_MAX)
        && let Ok(text) = String::from_utf8(bytes)
    {
        return text.trim().to_owned();
    }
    let id = clock::new_id().to_string();
    if let Err(error) = disk::write(&path, id.as_bytes()) {
        tracing::warn!(error = format!("{error:#}"), "the daemon's id cannot be kept");
    }
    id
}
