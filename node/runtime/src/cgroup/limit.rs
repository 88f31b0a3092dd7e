//! Writing the limits of an OCI spec into a group's files.

use std::{io, path::Path};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};

use super::{Cgroup, device};
use crate::sys::write_kernel_file;

/// Writes every limit that `resources` has.
pub(super) fn apply(cgroup: &Cgroup, resources: &LinuxResources) -> io::Result<()> {
    let set = |controller: &str, file: &str, value: &str| match cgroup.of(controller) {
        Some(directory) => write_kernel_file(&directory.join(file), value)
            .map_err(|e| io::Error::new(e.kind(), format!("{file} = {value}: {e}"))),
        None => Err(io::Error::new(io::ErrorKind::Unsupported, format!("no {controller} controller"))),
    };
    let unified = cgroup.unified;
    if let Some(memory) = resources.memory() {
        // The limit with swap is the sum on version 1, and swap alone on version 2.
        match (memory.limit(), memory.swap()) {
            (Some(limit), swap) if unified => {
                set("memory", "memory.max", &limit.to_string())?;
                let swap = swap.map_or(0, |total| total.saturating_sub(limit).max(0));
                optional(set("memory", "memory.swap.max", &swap.to_string()))?;
            }
            (Some(limit), swap) => {
                set("memory", "memory.limit_in_bytes", &limit.to_string())?;
                if let Some(total) = swap {
                    optional(set("memory", "memory.memsw.limit_in_bytes", &total.to_string()))?;
                }
            }
            (None, _) => {}
        }
    }
    if let Some(cpu) = resources.cpu() {
        let period = cpu.period().unwrap_or(100_000);
        match cpu.quota() {
            Some(quota) if unified => set("cpu", "cpu.max", &format!("{quota} {period}"))?,
            Some(quota) => {
                set("cpu", "cpu.cfs_period_us", &period.to_string())?;
                set("cpu", "cpu.cfs_quota_us", &quota.to_string())?;
            }
            None => {}
        }
    }
    if let Some(pids) = resources.pids().filter(|pids| pids.limit() > 0) {
        set("pids", "pids.max", &pids.limit().to_string())?;
    }
    match (resources.devices(), cgroup.of("devices")) {
        (Some(rules), Some(directory)) if unified => device::attach(rules, &directory),
        (Some(rules), Some(directory)) => devices_v1(rules, &directory),
        (Some(_), None) => Err(io::Error::new(io::ErrorKind::Unsupported, "no devices controller")),
        (None, _) => Ok(()),
    }
}

/// Limits on swap are missing where the kernel has no swap accounting, and then there is nothing to limit.
fn optional(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn devices_v1(rules: &[LinuxDeviceCgroup], directory: &Path) -> io::Result<()> {
    rules.iter().try_for_each(|rule| {
        let file = if rule.allow() { "devices.allow" } else { "devices.deny" };
        let number = |n: Option<i64>| n.filter(|n| *n >= 0).map_or("*".to_owned(), |n| n.to_string());
        let kind = rule.typ().unwrap_or_default();
        let access = rule.access().as_deref().unwrap_or("rwm");
        let line = match kind.as_str() {
            "a" => "a".to_owned(),
            kind => format!("{kind} {}:{} {access}", number(rule.major()), number(rule.minor())),
        };
        write_kernel_file(&directory.join(file), line)
    })
}
