//! What a host, or a whole lab, holds in the kernel: compared before and after, it shows what was left behind.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{
    lab::Lab,
    reply::{PATIENCE, run},
};

/// Everything of these kinds in one host: links, routes, rules, tables of nf_tables, network namespaces, mounts, processes,
/// control groups.
///
/// # Panics
/// When the host is down.
pub fn of_host(lab: &Lab, host: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let commands: [(&str, &[&str]); 9] = [
        ("link", &["ip", "-br", "link"]),
        ("route", &["ip", "route", "show", "table", "all", "type", "unicast"]),
        ("route", &["ip", "route", "show", "table", "all", "type", "unreachable"]),
        ("route", &["ip", "-6", "route", "show", "table", "all", "type", "unicast"]),
        ("rule", &["ip", "rule"]),
        ("rule", &["ip", "-6", "rule"]),
        ("nf_tables", &["nft", "list", "tables"]),
        ("namespace", &["ls", "/run/covey/netns"]),
        ("mount", &["cut", "-d ", "-f2,3", "/proc/self/mounts"]),
    ];
    for (kind, command) in commands {
        let reply = lab.script(&[&["exec", host], command].concat());
        // Each host sees the network namespaces of the labs and tests that were there when it booted.
        let others = |line: &&str| line.contains("/run/netns/cl-") || line.contains("/tmp/.tmp");
        let own = reply.ok().lines().filter(|line| !others(line));
        found.extend(own.map(|line| format!("{kind} {}", line.trim())));
    }
    let init = fs::read_to_string(lab.directory(host).join("init")).expect("the host is up");
    let init = init.split(' ').next().unwrap_or_default();
    let space = fs::read_link(format!("/proc/{init}/ns/pid")).expect("the host is up");
    let inside = |pid: &Path| fs::read_link(pid.join("ns/pid")).is_ok_and(|other| other == space);
    found.extend(processes(inside).into_iter().map(|line| format!("process {line}")));
    found.extend(control_groups(&format!("cl-{}-{host}", lab.name())));
    found
}

/// What carries this lab's name, or lies in its directory, outside of its hosts.
///
/// # Panics
/// When the machine cannot be looked at.
pub fn of_lab(name: &str) -> BTreeSet<String> {
    let mut found = control_groups(&format!("cl-{name}-"));
    let names = run("ip", &["netns", "list"], &[], PATIENCE);
    let named = |line: &&str| line.starts_with(&format!("cl-{name}-"));
    found.extend(names.ok().lines().filter(named).map(|line| format!("namespace {line}")));
    let directory = format!("/tmp/covey-lab/{name}");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts can be read");
    let ours = |line: &&str| line.contains(&directory) || line.contains(&format!("/cl-{name}-"));
    found.extend(mounts.lines().filter(ours).map(|line| format!("mount {line}")));
    let ours = processes(|_| true).into_iter().filter(|line| line.contains(&directory));
    found.extend(ours.map(|line| format!("process {line}")));
    if Path::new(&directory).exists() {
        found.insert(format!("directory {directory}"));
    }
    found
}

/// The links of the machine's own network namespace.
///
/// # Panics
/// When they cannot be listed.
pub fn links_of_the_machine() -> BTreeSet<String> {
    let reply = run("ip", &["-o", "link"], &[], PATIENCE);
    reply.ok().lines().filter_map(|line| line.split(": ").nth(1)).map(str::to_owned).collect()
}

/// The command lines of those processes whose directory in `/proc` is wanted.
fn processes(wanted: impl Fn(&Path) -> bool) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    let pids = entries.flatten().map(|entry| entry.path()).filter(|path| wanted(path));
    // One that ends meanwhile has no command line.
    let lines = pids.filter_map(|pid| fs::read(pid.join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

/// Control groups below one whose name begins like this, in every hierarchy; the parents themselves are the lab's.
fn control_groups(prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![Path::new("/sys/fs/cgroup").to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let depth = path.components().count();
            let is_ours =
                path.components().any(|part| part.as_os_str().to_string_lossy().starts_with(prefix));
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if is_ours {
                found.insert(format!("control group {}", path.display()));
            }
            // Hierarchies are one level down (version 1) or are this level (version 2).
            if is_ours || depth <= 5 && !name.is_empty() {
                folders.push(path);
            }
        }
    }
    found
}
