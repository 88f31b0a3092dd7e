//! From what the user asked for to an OCI spec: the only thing that the shim, or any OCI runtime, is told.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use covey_state::container::{MountKind, Resources};
use oci_spec::{
    OciSpecError,
    runtime::{
        Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder, LinuxDeviceCgroup,
        LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxMemoryBuilder, LinuxNamespaceBuilder,
        LinuxNamespaceType, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, LinuxSeccomp, Mount,
        MountBuilder, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
    },
};

use crate::{
    container::{NetworkMode, Record},
    etc, layout,
    network::Attachment,
    seccomp,
};

/// What Docker gives a container.
const CAPABILITIES: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];
/// They tell about the host, or reach into it.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// The kernel's settings, for looking only.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Microseconds over which a share of CPU is measured.
const CPU_PERIOD: u64 = 100_000;
const NANOS_PER_CPU: u64 = 1_000_000_000;

/// Where the parts of a container are.
pub(crate) struct Places<'a> {
    pub data: &'a Path,
    pub exec: &'a Path,
    pub cgroup: &'a Path,
}

/// The spec of a container that is about to start.
pub(crate) fn build(
    record: &Record,
    places: &Places<'_>,
    attachment: &Attachment,
) -> Result<Spec, OciSpecError> {
    let root = RootBuilder::default()
        .path(places.exec.join(layout::ROOTFS))
        .readonly(record.spec.read_only)
        .build()?;
    SpecBuilder::default()
        .version("1.0.2")
        .root(root)
        .mounts(mounts(record, places)?)
        .process(process(record)?)
        .hostname(record.hostname())
        .linux(
            LinuxBuilder::default()
                .cgroups_path(places.cgroup)
                .namespaces(namespaces(&record.network, attachment)?)
                .resources(resources(&record.resources)?)
                .seccomp(filter()?)
                .masked_paths(MASKED.map(str::to_owned).to_vec())
                .readonly_paths(READ_ONLY.map(str::to_owned).to_vec())
                .sysctl(sysctls(record))
                .build()?,
        )
        .build()
}

/// The default filter for the default capabilities: the same for all, so it is put together once.
fn filter() -> Result<LinuxSeccomp, OciSpecError> {
    static FILTER: OnceLock<LinuxSeccomp> = OnceLock::new();
    if let Some(filter) = FILTER.get() {
        return Ok(filter.clone());
    }
    let filter = seccomp::default_policy(&CAPABILITIES)?;
    Ok(FILTER.get_or_init(|| filter).clone())
}

/// The map type of the spec's field.
#[allow(clippy::disallowed_types, reason = "the OCI types want this one; nobody looks at its order")]
type Sysctls = std::collections::HashMap<String, String>;

/// What a network namespace of its own allows beyond the kernel's defaults: low ports and ping need no privilege inside.
const OPEN: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// The kernel's settings inside a container: what its user wants goes over what all have.
fn sysctls(record: &Record) -> Sysctls {
    let open = OPEN.into_iter().filter(|_| record.network.is_own());
    let open = open.map(|(name, value)| (name.to_owned(), value.to_owned()));
    open.chain(record.spec.sysctls.clone()).collect()
}

/// The container's process; another one of `exec` is a changed copy of it.
pub(crate) fn process(record: &Record) -> Result<Process, OciSpecError> {
    let none: Vec<Capability> = vec![];
    let all = || CAPABILITIES.into_iter().collect::<oci_spec::runtime::Capabilities>();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(all())
        .effective(all())
        .permitted(all())
        .inheritable(none.iter().copied().collect::<oci_spec::runtime::Capabilities>())
        .ambient(none.into_iter().collect::<oci_spec::runtime::Capabilities>())
        .build()?;
    ProcessBuilder::default()
        .terminal(false)
        .args(record.invocation.args.clone())
        .env(record.invocation.env.clone())
        .cwd(record.invocation.workdir.as_str())
        .user(UserBuilder::default().username(user(&record.invocation.user, &record.spec.groups)).build()?)
        .capabilities(capabilities)
        .rlimits(vec![])
        .no_new_privileges(false)
        .oom_score_adj(0)
        .build()
}

/// User and additional groups as the shim resolves them, inside the container.
pub(crate) fn user(user: &str, groups: &[String]) -> String {
    let colon = if groups.is_empty() || user.contains(':') { "" } else { ":" };
    groups.iter().fold(format!("{user}{colon}"), |text, group| text + "," + group)
}

fn namespaces(
    network: &NetworkMode,
    attachment: &Attachment,
) -> Result<Vec<oci_spec::runtime::LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType as Kind;
    let own = [Kind::Pid, Kind::Mount, Kind::Uts, Kind::Ipc, Kind::Cgroup];
    let mut namespaces = own
        .into_iter()
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
        .collect::<Result<Vec<_>, _>>()?;
    let net = LinuxNamespaceBuilder::default().typ(Kind::Network);
    match network {
        NetworkMode::None => namespaces.push(net.build()?),
        NetworkMode::Edge | NetworkMode::Container(_) => {
            namespaces.push(net.path(&attachment.namespace).build()?);
        }
        NetworkMode::Host => {}
    }
    Ok(namespaces)
}

/// The limits of a container as an OCI runtime takes them.
fn resources(wanted: &Resources) -> Result<LinuxResources, OciSpecError> {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let mut resources = LinuxResourcesBuilder::default().devices(device_rules()?);
    let limits = wanted.limits;
    if limits.memory > 0 {
        // As much swap as memory on top, as Docker does where nobody says more.
        let memory = LinuxMemoryBuilder::default()
            .limit(signed(limits.memory))
            .swap(signed(limits.memory.saturating_mul(2)));
        resources = resources.memory(memory.build()?);
    }
    if limits.nano_cpus > 0 {
        let quota = u128::from(limits.nano_cpus) * u128::from(CPU_PERIOD) / u128::from(NANOS_PER_CPU);
        // The kernel takes no less than 1 ms.
        let quota = i64::try_from(quota).unwrap_or(i64::MAX).max(1000);
        resources = resources.cpu(LinuxCpuBuilder::default().quota(quota).period(CPU_PERIOD).build()?);
    }
    if wanted.pids_limit > 0 {
        resources = resources.pids(LinuxPidsBuilder::default().limit(signed(wanted.pids_limit)).build()?);
    }
    resources.build()
}

/// Which devices a container may use: the harmless ones; it may make nodes of any.
pub(crate) fn device_rules() -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    use LinuxDeviceType::{A, B, C};
    const ANY: i64 = -1;
    [
        (false, A, ANY, ANY, "rwm"),
        (true, C, ANY, ANY, "m"),
        (true, B, ANY, ANY, "m"),
        (true, C, 1, 3, "rwm"),
        (true, C, 1, 5, "rwm"),
        (true, C, 1, 7, "rwm"),
        (true, C, 1, 8, "rwm"),
        (true, C, 1, 9, "rwm"),
        (true, C, 5, 0, "rwm"),
        (true, C, 5, 2, "rwm"),
        (true, C, 136, ANY, "rwm"),
    ]
    .into_iter()
    .map(|(allow, kind, major, minor, access)| {
        let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access);
        if major != ANY {
            rule = rule.major(major);
        }
        if minor != ANY {
            rule = rule.minor(minor);
        }
        rule.build()
    })
    .collect()
}

fn mounts(record: &Record, places: &Places<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let upper = |name| places.data.join(name).display().to_string();
    let mut overlay = vec![
        format!("lowerdir={}", record.layers.join(":")),
        format!("upperdir={}", upper(layout::UPPER)),
        format!("workdir={}", upper(layout::WORK)),
    ];
    if !record.durable() {
        // Its files go with it: unmounting need not wait for the disk.
        overlay.push("volatile".into());
    }
    let mut mounts = vec![mount("/", "overlay", "overlay", overlay)?];
    let fixed: [(&str, &str, &str, &[&str]); 7] = [
        ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ];
    for (target, kind, source, options) in fixed {
        mounts.push(mount(target, kind, source, options.iter().map(|o| (*o).to_owned()).collect())?);
    }
    for name in etc::FILES {
        let source = places.exec.join(name);
        mounts.push(mount(
            Path::new("/etc").join(name),
            "bind",
            source,
            vec!["rbind".into(), "rprivate".into()],
        )?);
    }
    let mut wanted: Vec<_> = record.spec.mounts.iter().collect();
    // A mount must not hide one that lies below it.
    wanted.sort_by_key(|m| Path::new(&m.target).components().count());
    for m in wanted {
        let access = if m.read_only { "ro" } else { "rw" }.to_owned();
        mounts.push(match &m.kind {
            MountKind::Bind { source } => {
                mount(&m.target, "bind", source, vec!["rbind".into(), "rprivate".into(), access])?
            }
            MountKind::Tmpfs { size, mode } => {
                let mode = if *mode == 0 { 0o1777 } else { *mode };
                let mut options: Vec<String> =
                    vec!["nosuid".into(), "nodev".into(), "noexec".into(), access, format!("mode={mode:o}")];
                if *size > 0 {
                    options.push(format!("size={size}"));
                }
                mount(&m.target, "tmpfs", "tmpfs", options)?
            }
        });
    }
    Ok(mounts)
}

fn mount(
    target: impl Into<PathBuf>,
    kind: &str,
    source: impl Into<PathBuf>,
    options: Vec<String>,
) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(target.into())
        .typ(kind)
        .source(source.into())
        .options(options)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_groups_travel_in_one_text() {
        assert_eq!(user("bob", &[]), "bob");
        assert_eq!(user("bob", &["a".into(), "5".into()]), "bob:,a,5");
        assert_eq!(user("bob:x", &["a".into()]), "bob:x,a");
        assert_eq!(user("", &["a".into()]), ":,a");
    }
}
