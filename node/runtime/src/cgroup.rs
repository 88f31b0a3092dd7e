//! Control groups, versions 1 and 2: limits, membership, counters.

mod device;
mod limit;

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use oci_spec::runtime::LinuxResources;

use crate::sys::write_kernel_file;

/// The hierarchies of version 1 that a container gets a group in.
const CONTROLLERS: [&str; 5] = ["memory", "cpu", "cpuacct", "pids", "devices"];
/// How long removing waits for the kernel to let go of killed processes: tries, and the time between two.
const REMOVE_TRIES: u32 = 500;
const REMOVE_PAUSE: Duration = Duration::from_millis(2);

/// One mounted hierarchy.
#[derive(Clone, Debug)]
struct Hierarchy {
    /// Its controllers, as mounted; empty for version 2.
    controllers: Vec<String>,
    mounted: PathBuf,
}

/// The group at one path in every hierarchy that matters. It need not exist.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    unified: bool,
    hierarchies: Vec<Hierarchy>,
    /// Below the mounts, without a leading slash.
    path: PathBuf,
}

/// What a group has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub memory: u64,
    pub memory_limit: u64,
    pub cpu: Duration,
    pub pids: u64,
}

impl Cgroup {
    /// The group `path` (absolute, from the root of the hierarchies).
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let path = path.strip_prefix("/").unwrap_or(path).to_owned();
        // An empty path would be the root, and killing it the end of the machine.
        if path.as_os_str().is_empty() || path.components().any(|c| c.as_os_str() == "..") {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let (unified, hierarchies) = mounted(&fs::read_to_string("/proc/self/mountinfo")?);
        if hierarchies.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy is mounted"));
        }
        Ok(Self { unified, hierarchies, path })
    }

    /// The group `name` below this one.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self { path: self.path.join(name), ..self.clone() }
    }

    fn directories(&self) -> impl Iterator<Item = PathBuf> {
        self.hierarchies.iter().map(|h| h.mounted.join(&self.path))
    }

    /// The directory whose files `controller` writes.
    fn of(&self, controller: &str) -> Option<PathBuf> {
        self.hierarchies
            .iter()
            .find(|h| self.unified || h.controllers.iter().any(|c| c == controller))
            .map(|h| h.mounted.join(&self.path))
    }

    /// Makes the group with its limits.
    pub(crate) fn create(&self, resources: &LinuxResources) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            if self.unified {
                enable_below(&hierarchy.mounted, &self.path)?;
            }
            fs::create_dir_all(hierarchy.mounted.join(&self.path))?;
        }
        limit::apply(self, resources)
    }

    /// Version 1: moves the calling thread into the group, which has to be the only one of its process. Version 2 offers
    /// [`Self::descriptor`], which is cheaper.
    pub(crate) fn join(&self) -> io::Result<()> {
        // "0" is the writer itself. To move a process (`cgroup.procs`) or anybody else, the kernel first waits until no
        // process of the machine is being born: up to 20 ms on a machine that has been idle.
        self.directories().try_for_each(|directory| write_kernel_file(&directory.join("tasks"), "0"))
    }

    /// For `CLONE_INTO_CGROUP`; `None` on version 1.
    pub(crate) fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        if !self.unified {
            return Ok(None);
        }
        self.directories().next().map(|d| File::open(d).map(OwnedFd::from)).transpose()
    }

    /// The processes in it.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let procs = self.directories().filter_map(|d| fs::read_to_string(d.join("cgroup.procs")).ok());
        let mut pids: Vec<i32> =
            procs.flat_map(|text| text.lines().filter_map(|l| l.parse().ok()).collect::<Vec<_>>()).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills every process in it, once; new ones may appear meanwhile.
    pub(crate) fn kill(&self) {
        if self.unified && self.directories().all(|d| write_kernel_file(&d.join("cgroup.kill"), "1").is_ok())
        {
            return;
        }
        // 0 stands for a process outside of our pid namespace, and would be ourselves here.
        for pid in self.pids().into_iter().filter(|pid| *pid > 0) {
            // SAFETY: takes numbers only.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }

    /// Kills what is in it and removes it. The error is what the kernel said last.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let mut last = Ok(());
        for attempt in 0..REMOVE_TRIES {
            last = self.directories().try_for_each(|directory| match fs::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            });
            if last.is_ok() {
                break;
            }
            self.kill();
            if attempt > 0 {
                std::thread::sleep(REMOVE_PAUSE);
            }
        }
        last
    }

    /// How many of its processes the kernel killed for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let file = if self.unified { "memory.events" } else { "memory.oom_control" };
        let text = self.of("memory").and_then(|d| fs::read_to_string(d.join(file)).ok());
        field(text.as_deref().unwrap_or_default(), "oom_kill").unwrap_or(0)
    }

    /// What it uses now.
    pub(crate) fn usage(&self) -> Usage {
        let read = |controller: &str, file: &str| {
            self.of(controller).and_then(|d| fs::read_to_string(d.join(file)).ok()).unwrap_or_default()
        };
        let number = |controller: &str, file: &str| read(controller, file).trim().parse::<u64>();
        let (used, limit, cache, cpu) = if self.unified {
            let micros = field(&read("cpu", "cpu.stat"), "usage_usec").unwrap_or(0);
            ("memory.current", "memory.max", "inactive_file", Duration::from_micros(micros))
        } else {
            let nanos = number("cpuacct", "cpuacct.usage").unwrap_or(0);
            let files = ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file");
            (files.0, files.1, files.2, Duration::from_nanos(nanos))
        };
        let cache = field(&read("memory", "memory.stat"), cache).unwrap_or(0);
        Usage {
            memory: number("memory", used).unwrap_or(0).saturating_sub(cache),
            memory_limit: number("memory", limit).unwrap_or(u64::MAX),
            cpu,
            pids: number("pids", "pids.current").unwrap_or(0),
        }
    }

    /// The mounted hierarchies of version 1, each by its controllers; `None` on version 2.
    pub(crate) fn hierarchies_v1(&self) -> Option<impl Iterator<Item = String>> {
        (!self.unified).then(|| self.hierarchies.iter().map(|h| h.controllers.join(",")))
    }
}

/// The value behind `name` in a file of `name value` lines.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The hierarchies in a `mountinfo`, and whether version 2 governs: it does where no controller is on version 1.
fn mounted(mountinfo: &str) -> (bool, Vec<Hierarchy>) {
    let mut v1: Vec<Hierarchy> = vec![];
    let mut v2 = vec![];
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(mounted) = before.split(' ').nth(4).map(PathBuf::from) else { continue };
        let mut after = after.split(' ');
        let (kind, options) = (after.next(), after.nth(1).unwrap_or_default());
        let controllers: Vec<String> =
            options.split(',').filter(|option| CONTROLLERS.contains(option)).map(str::to_owned).collect();
        match kind {
            Some("cgroup") if controllers.is_empty() || v1.iter().any(|h| h.controllers == controllers) => {}
            Some("cgroup") => v1.push(Hierarchy { controllers, mounted }),
            Some("cgroup2") => v2.push(Hierarchy { controllers: vec![], mounted }),
            _ => {}
        }
    }
    if v1.is_empty() {
        v2.truncate(1);
        (true, v2)
    } else {
        (false, v1)
    }
}

/// Version 2: lets the groups on the way down to `path` hand out the controllers that limits need.
fn enable_below(mounted: &Path, path: &Path) -> io::Result<()> {
    let mut at = mounted.to_owned();
    for name in path {
        match enable(&at) {
            // Not the root of the machine but that of a container, and its processes are in it.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && at == mounted => {
                vacate(&at)?;
                enable(&at).map_err(|error| {
                    io::Error::new(error.kind(), format!("processes are left in {}: {error}", at.display()))
                })?;
            }
            enabled => enabled?,
        }
        at.push(name);
        create_if_missing(&at)?;
    }
    Ok(())
}

fn enable(group: &Path) -> io::Result<()> {
    const WANTED: [&str; 3] = ["memory", "cpu", "pids"];
    let file = group.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&file).unwrap_or_default();
    WANTED
        .iter()
        .filter(|wanted| !enabled.split_ascii_whitespace().any(|e| e == **wanted))
        .try_for_each(|wanted| write_kernel_file(&file, format!("+{wanted}")))
}

/// Moves the processes of `group` into a leaf below it: version 2 hands nothing out where processes are.
fn vacate(group: &Path) -> io::Result<()> {
    let leaf = group.join("init");
    create_if_missing(&leaf)?;
    // 0 stands for a process outside of our pid namespace, which is not ours to move.
    for pid in fs::read_to_string(group.join("cgroup.procs"))?.lines().filter(|pid| *pid != "0") {
        match write_kernel_file(&leaf.join("cgroup.procs"), pid) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn create_if_missing(group: &Path) -> io::Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_governs_a_hybrid_machine() {
        let (unified, found) = mounted(
            "30 29 0:26 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             31 29 0:27 / /sys/fs/cgroup/memory rw,nosuid shared:10 - cgroup cgroup rw,memory\n\
             32 29 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             33 29 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             34 1 8:1 / / rw - ext4 /dev/sda rw,memory",
        );
        assert!(!unified);
        let found: Vec<_> =
            found.iter().map(|h| (h.mounted.to_str().unwrap(), h.controllers.join(","))).collect();
        let expected = [
            ("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct".to_owned()),
            ("/sys/fs/cgroup/memory", "memory".to_owned()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn version_2_governs_where_it_is_alone() {
        let (unified, found) =
            mounted("33 29 0:29 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate");
        assert!(unified);
        assert_eq!(found[0].mounted, Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn the_root_group_is_never_ours() {
        for path in ["", "/", "/a/../..", ".."] {
            assert!(Cgroup::at(Path::new(path)).is_err(), "{path}");
        }
    }
}
