//! The last steps of a process before it becomes a program of the container: the same for its init and for exec.

use std::{convert::Infallible, ffi::CString, io, os::unix::fs::PermissionsExt as _, path::Path};

use oci_spec::runtime::{Capabilities, Capability, PosixRlimitType, Process, Spec};

use super::{
    Failure,
    build::filter,
    failure::words,
    identity::{self, Identity},
};
use crate::{seccomp, sys};

/// Capabilities by the kernel's number (`linux/capability.h`).
const CAPABILITIES: [Capability; 41] = {
    use Capability::{
        AuditControl, AuditRead, AuditWrite, BlockSuspend, Bpf, CheckpointRestore, Chown, DacOverride,
        DacReadSearch, Fowner, Fsetid, IpcLock, IpcOwner, Kill, Lease, LinuxImmutable, MacAdmin, MacOverride,
        Mknod, NetAdmin, NetBindService, NetBroadcast, NetRaw, Perfmon, Setfcap, Setgid, Setpcap, Setuid,
        SysAdmin, SysBoot, SysChroot, SysModule, SysNice, SysPacct, SysPtrace, SysRawio, SysResource,
        SysTime, SysTtyConfig, Syslog, WakeAlarm,
    };
    [
        Chown,
        DacOverride,
        DacReadSearch,
        Fowner,
        Fsetid,
        Kill,
        Setgid,
        Setuid,
        Setpcap,
        LinuxImmutable,
        NetBindService,
        NetBroadcast,
        NetAdmin,
        NetRaw,
        IpcLock,
        IpcOwner,
        SysModule,
        SysRawio,
        SysChroot,
        SysPtrace,
        SysPacct,
        SysAdmin,
        SysBoot,
        SysNice,
        SysResource,
        SysTime,
        SysTtyConfig,
        Mknod,
        Lease,
        AuditWrite,
        AuditControl,
        Setfcap,
        MacOverride,
        MacAdmin,
        Syslog,
        WakeAlarm,
        BlockSuspend,
        AuditRead,
        Perfmon,
        Bpf,
        CheckpointRestore,
    ]
};
/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// More capabilities than a kernel will have for long: two words of 32 bits.
const CAPABILITY_MAX: u32 = 64;
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a process becomes.
pub(super) struct Finish {
    process: Process,
    filter: Option<seccomp::Program>,
}

/// `struct __user_cap_header_struct` and two of `__user_cap_data_struct`.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

impl Finish {
    /// The init of `spec`.
    pub(super) fn of_spec(spec: &Spec) -> Result<Self, Failure> {
        let process = spec.process().clone().ok_or_else(|| Failure::build("the spec has no process"))?;
        Self::of(spec, process)
    }

    /// Another `process` in the container of `spec`.
    pub(super) fn of(spec: &Spec, process: Process) -> Result<Self, Failure> {
        Ok(Self { process, filter: filter(spec)? })
    }

    /// Sets how readily the kernel kills this process and its children when memory runs out. Needs the host's /proc.
    pub(super) fn set_oom_score(&self) {
        let score = self.process.oom_score_adj().unwrap_or(0).to_string();
        // Lowering needs a privilege that a daemon in a container may lack; the container runs without it.
        let _ = sys::write_kernel_file(Path::new("/proc/self/oom_score_adj"), score);
    }

    /// Becomes the program; returns only with the reason why not. `make_cwd`: a missing working directory is made.
    pub(super) fn exec(&self, make_cwd: bool) -> Result<Infallible, Failure> {
        reset_signals();
        // SAFETY: sets one number.
        unsafe { libc::umask(0o022) };
        self.limits();
        let who = identity::resolve(self.process.user())?;
        own_streams(who.uid);
        self.change_directory(make_cwd)?;
        let arguments = self.process.args().as_deref().unwrap_or_default();
        let program = arguments.first().ok_or_else(|| Failure::build("no command specified"))?;
        let environment = self.environment(&who);
        let argv = c_strings(arguments)?;
        let envp = c_strings(&environment)?;
        self.drop_privileges(&who).map_err(Failure::at("privileges"))?;
        let path = find(program, &environment)?;
        let file = CString::new(path.as_str()).map_err(Failure::build)?;
        sys::close_on_exec_from(3);
        let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
            strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (argv, envp) = (pointers(&argv), pointers(&envp));
        // SAFETY: both arrays end with a null pointer and point to C strings that live here.
        unsafe { libc::execve(file.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        let error = io::Error::last_os_error();
        let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        Err(Failure { code, text: format!("exec {path}: {}", words(&error)) })
    }

    fn limits(&self) {
        for limit in self.process.rlimits().as_deref().unwrap_or_default() {
            let resource = resource(limit.typ());
            let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: the structs live across the calls.
            unsafe {
                libc::getrlimit(resource, &raw mut now);
                let wanted = libc::rlimit { rlim_cur: limit.soft(), rlim_max: limit.hard() };
                if libc::setrlimit(resource, &raw const wanted) != 0 {
                    // Beyond the host's own limit: as much as there is.
                    let max = limit.hard().min(now.rlim_max);
                    let clamped = libc::rlimit { rlim_cur: limit.soft().min(max), rlim_max: max };
                    libc::setrlimit(resource, &raw const clamped);
                }
            }
        }
    }

    fn change_directory(&self, make: bool) -> Result<(), Failure> {
        let cwd = self.process.cwd();
        if make && !cwd.exists() {
            std::fs::create_dir_all(cwd)
                .map_err(Failure::at(format_args!("working directory {}", cwd.display())))?;
        }
        std::env::set_current_dir(cwd).map_err(|error| {
            let why = words(&error);
            Failure::build(format_args!(
                "chdir to cwd (\"{}\") set in config.json failed: {why}",
                cwd.display()
            ))
        })
    }

    fn environment(&self, who: &Identity) -> Vec<String> {
        let mut environment = self.process.env().clone().unwrap_or_default();
        if !environment.iter().any(|entry| entry.starts_with("HOME=")) {
            environment.push(format!("HOME={}", who.home));
        }
        environment
    }

    /// The order matters: each step takes away what a later one must not need any more.
    fn drop_privileges(&self, who: &Identity) -> io::Result<()> {
        let confined = self.process.no_new_privileges().unwrap_or(false);
        let install = |now: bool| match &self.filter {
            Some(filter) if now => filter.install(),
            _ => Ok(()),
        };
        let capabilities = self.process.capabilities().clone();
        let set = |of: Option<&Option<Capabilities>>| bits(of.and_then(Option::as_ref));
        let wanted = capabilities.as_ref();
        let bounding = set(wanted.map(|c| c.bounding()));
        let (effective, permitted) = (set(wanted.map(|c| c.effective())), set(wanted.map(|c| c.permitted())));
        let inheritable = set(wanted.map(|c| c.inheritable()));
        let ambient = set(wanted.map(|c| c.ambient()));
        // Without no-new-privileges only an administrator may install a filter, so it comes before capabilities go.
        install(!confined)?;
        // SAFETY: these change attributes of this process; the list of groups lives across its call.
        unsafe {
            for number in (0..CAPABILITY_MAX).filter(|n| bounding & (1 << n) == 0) {
                if libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) != 0 {
                    // The kernel has no capability of that number, nor of any above.
                    break;
                }
            }
            sys::check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
            sys::check(libc::setgroups(who.groups.len(), who.groups.as_ptr()))?;
            sys::check(libc::setresgid(who.gid, who.gid, who.gid))?;
            sys::check(libc::setresuid(who.uid, who.uid, who.uid))?;
            sys::check(libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0))?;
        }
        set_capabilities(effective, permitted, inheritable)?;
        // SAFETY: as above.
        unsafe {
            libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
            for number in (0..CAPABILITY_MAX).filter(|n| ambient & (1 << n) != 0) {
                libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, number, 0, 0);
            }
            if confined {
                sys::check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            }
        }
        install(confined)
    }
}

fn bits(capabilities: Option<&Capabilities>) -> u64 {
    let numbers = CAPABILITIES.iter().enumerate();
    numbers.filter(|(_, c)| capabilities.is_some_and(|set| set.contains(c))).map(|(n, _)| 1 << n).sum()
}

fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let word = |shift: u32| CapabilityWord {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let words = [word(0), word(32)];
    // SAFETY: both structs live across the call and are as this version has them.
    sys::check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()) }).map(drop)
}

/// Every signal as a new program expects it: nothing ignored (our own start-up ignores SIGPIPE), nothing blocked.
fn reset_signals() {
    // Two signals belong to the C library, which refuses to touch them but may have us born with them ignored; so the
    // kernel is asked. All zeroes is the default disposition, whatever the architecture's order of fields.
    let default = [0_u64; 4];
    // SAFETY: the kernel reads a struct that is no longer than this; signals that cannot be set are left alone.
    unsafe {
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), 8);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Lets the process open its own `/dev/stdout`: pipes belong to who made them.
fn own_streams(uid: u32) {
    for fd in 0..3 {
        // SAFETY: looks at and changes an open descriptor; the struct lives across the call.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            if libc::fstat(fd, &raw mut stat) == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFIFO {
                libc::fchown(fd, uid, libc::gid_t::MAX);
            }
        }
    }
}

/// Finds a program as a shell does.
fn find(program: &str, environment: &[String]) -> Result<String, Failure> {
    let failure = |code, why: &str| Failure { code, text: format!("exec: {program:?}: {why}") };
    if program.contains('/') {
        return match runnable(Path::new(program)) {
            Ok(()) => Ok(program.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(failure(126, "permission denied"))
            }
            Err(error) => Err(failure(127, &format!("stat {program}: {}", words(&error)))),
        };
    }
    let path = environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut denied = false;
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = Path::new(directory).join(program);
        match runnable(&candidate) {
            Ok(()) => return Ok(candidate.to_string_lossy().into_owned()),
            Err(error) => denied |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    Err(if denied {
        failure(126, "permission denied")
    } else {
        failure(127, "executable file not found in $PATH")
    })
}

fn runnable(path: &Path) -> io::Result<()> {
    let found = std::fs::metadata(path)?;
    if found.is_file() && found.permissions().mode() & 0o111 != 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EACCES))
    }
}

fn c_strings(texts: &[String]) -> Result<Vec<CString>, Failure> {
    texts.iter().map(|text| CString::new(text.as_str()).map_err(Failure::build)).collect()
}

fn resource(kind: PosixRlimitType) -> libc::__rlimit_resource_t {
    use PosixRlimitType as T;
    match kind {
        T::RlimitCpu => libc::RLIMIT_CPU,
        T::RlimitFsize => libc::RLIMIT_FSIZE,
        T::RlimitData => libc::RLIMIT_DATA,
        T::RlimitStack => libc::RLIMIT_STACK,
        T::RlimitCore => libc::RLIMIT_CORE,
        T::RlimitRss => libc::RLIMIT_RSS,
        T::RlimitNproc => libc::RLIMIT_NPROC,
        T::RlimitNofile => libc::RLIMIT_NOFILE,
        T::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        T::RlimitAs => libc::RLIMIT_AS,
        T::RlimitLocks => libc::RLIMIT_LOCKS,
        T::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        T::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        T::RlimitNice => libc::RLIMIT_NICE,
        T::RlimitRtprio => libc::RLIMIT_RTPRIO,
        T::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}
