//! The default policy: every known system call but those that reach beyond a container, some of them given back with
//! the capability that the kernel asks for anyway.

use oci_spec::{
    OciSpecError,
    runtime::{
        Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
        LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
    },
};

use super::numbers;

/// Never allowed: they have no namespace, are obsolete, or have been the door of too many escapes.
const BLOCKED: &str = "_sysctl add_key create_module get_kernel_syms io_uring_enter io_uring_register io_uring_setup \
     keyctl lsm_get_self_attr lsm_list_modules lsm_set_self_attr migrate_pages move_pages \
     nfsservctl query_module request_key swapoff swapon sysfs userfaultfd uselib ustat vm86 vm86old";

/// Allowed only to a container that has the capability (with several lines: any of them).
const GATED: &[(Capability, &str)] = &[
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listmount lookup_dcookie mount mount_setattr \
         move_mount open_tree open_tree_attr perf_event_open pivot_root quotactl quotactl_fd setdomainname sethostname \
         setns statmount syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot kexec_load kexec_file_load"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module finit_module init_module"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise"),
    (Capability::SysRawio, "ioperm iopl"),
    (Capability::SysTime, "clock_adjtime clock_adjtime64 clock_settime clock_settime64 settimeofday stime"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::Syslog, "syslog"),
    (Capability::DacReadSearch, "open_by_handle_at"),
    (Capability::Bpf, "bpf"),
    (Capability::Perfmon, "perf_event_open"),
];

/// Allowed with certain arguments only, by the rules below.
const CONDITIONAL: &str = "personality socket";
/// All `CLONE_NEW*` of `linux/sched.h` that `clone` takes.
const CLONE_NAMESPACES: u64 = 0x7E02_0000;
/// Execution domains: Linux, Linux without randomised addresses or with 32-bit `uname`, both, and "only ask".
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// `AF_VSOCK`: it reaches the hypervisor past every network namespace.
const AF_VSOCK: u64 = 40;

/// The default policy for a container with these capabilities, on this machine's architecture.
pub(crate) fn default_policy(capabilities: &[Capability]) -> Result<LinuxSeccomp, OciSpecError> {
    let gated = |name: &str| GATED.iter().any(|(_, names)| has(names, name));
    let granted =
        |name: &str| GATED.iter().any(|(cap, names)| has(names, name) && capabilities.contains(cap));
    let architectures = native();
    let mut allowed: Vec<String> = architectures
        .iter()
        .flat_map(|arch| numbers::of(*arch).unwrap_or_default())
        .flat_map(|(_, names)| names.split_ascii_whitespace())
        .filter(|name| !has(BLOCKED, name) && !has(CONDITIONAL, name) && (!gated(name) || granted(name)))
        .map(str::to_owned)
        .collect();
    allowed.sort_unstable();
    allowed.dedup();

    let mut rules = vec![rule(allowed, LinuxSeccompAction::ScmpActAllow, None, vec![])?];
    let allow = LinuxSeccompAction::ScmpActAllow;
    for value in PERSONALITIES {
        let same = argument(LinuxSeccompOperator::ScmpCmpEq, value, None)?;
        rules.push(rule(vec!["personality".into()], allow, None, vec![same])?);
    }
    let other = argument(LinuxSeccompOperator::ScmpCmpNe, AF_VSOCK, None)?;
    rules.push(rule(vec!["socket".into()], allow, None, vec![other])?);
    if !capabilities.contains(&Capability::SysAdmin) {
        let none = argument(LinuxSeccompOperator::ScmpCmpMaskedEq, CLONE_NAMESPACES, Some(0))?;
        rules.push(rule(vec!["clone".into()], allow, None, vec![none])?);
        // Its flags are in memory, out of a filter's sight; ENOSYS makes C libraries fall back to clone.
        let errno = LinuxSeccompAction::ScmpActErrno;
        rules.push(rule(vec!["clone3".into()], errno, Some(libc::ENOSYS.unsigned_abs()), vec![])?);
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::EPERM.unsigned_abs())
        .architectures(architectures)
        .syscalls(rules)
        .build()
}

fn has(names: &str, name: &str) -> bool {
    names.split_ascii_whitespace().any(|n| n == name)
}

fn native() -> Vec<Arch> {
    if cfg!(target_arch = "x86_64") {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86]
    } else if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64]
    } else {
        // The compiler refuses an architecture whose numbers it does not know: no container runs unfiltered.
        vec![Arch::ScmpArchNative]
    }
}

fn rule(
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno: Option<u32>,
    args: Vec<LinuxSeccompArg>,
) -> Result<LinuxSyscall, OciSpecError> {
    let mut rule = LinuxSyscallBuilder::default().names(names).action(action);
    if let Some(errno) = errno {
        rule = rule.errno_ret(errno);
    }
    if !args.is_empty() {
        rule = rule.args(args);
    }
    rule.build()
}

fn argument(
    op: LinuxSeccompOperator,
    value: u64,
    value_two: Option<u64>,
) -> Result<LinuxSeccompArg, OciSpecError> {
    let arg = LinuxSeccompArgBuilder::default().index(0_usize).value(value).op(op);
    match value_two {
        Some(two) => arg.value_two(two),
        None => arg,
    }
    .build()
}

/// Every name that the policy mentions.
#[cfg(test)]
pub(super) fn named() -> impl Iterator<Item = &'static str> {
    [BLOCKED, CONDITIONAL].into_iter().chain(GATED.iter().map(|(_, names)| *names))
}
