//! System calls that no crate of ours wraps, as safe functions.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::OnceLock,
};

use tokio::io::{Interest, unix::AsyncFd};

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `struct clone_args` of `linux/sched.h`, up to its second version.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// `CLONE_INTO_CGROUP` of `linux/sched.h`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
/// `MOUNT_ATTR_*` of `linux/mount.h`.
pub(crate) const MOUNT_ATTR_RDONLY: u64 = 1;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 2;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 4;
pub(crate) const MOUNT_ATTR_NOEXEC: u64 = 8;

/// The value of a system call, or the error that it left in `errno`.
pub(crate) fn check<T: PartialEq + From<i8>>(value: T) -> io::Result<T> {
    if value == T::from(-1) { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Gives back the pages of code that were mapped on the way here; what is still needed comes back by itself. A process
/// is charged its share of every page that it maps, used or not.
pub(crate) fn let_go_of_code() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in maps.lines() {
        // Nothing else: what looks like constants may have been relocated, which only memory knows.
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some("r-xp"), Some(inode)) = (fields.next(), fields.next(), fields.nth(2)) else {
            continue;
        };
        if let Some((from, to)) = range.split_once('-')
            && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            && inode != "0"
        {
            // SAFETY: nobody has written to this code; it is read from its file again.
            unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
        }
    }
}

/// A path as the kernel takes it. Fails for a path with a NUL inside.
pub(crate) fn c_path(path: impl AsRef<OsStr>) -> io::Result<CString> {
    CString::new(path.as_ref().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(check(fd)?).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just given this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor of process `pid`: it stays the same process though the number may be used again.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends `signal` to the process behind `pidfd`.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no signal details are given, so no memory is read.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// A copy of descriptor `number` of the process behind `pidfd`.
pub(crate) fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })
}

/// A copy of `fd` that stays open in a child, numbered `from` or higher.
pub(crate) fn inheritable(fd: BorrowedFd<'_>, from: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: makes a descriptor out of an open one.
    owned(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD, from) }.into())
}

/// How a child ended: 0 to 255, or 128 + signal.
pub(crate) fn exit_code(code: i32, status: i32) -> i32 {
    if code == libc::CLD_EXITED { status } else { 128 + status }
}

/// Collects the child behind `pidfd` if it has ended; `None` while it runs. An error for a process that is not our child.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    // SAFETY: all zeroes is a valid value of this plain struct.
    let mut ended: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let id = u32::try_from(pidfd.as_raw_fd()).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: `ended` lives across the call.
    check(unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut ended, libc::WEXITED | libc::WNOHANG) })?;
    // SAFETY: the kernel filled in the fields for SIGCHLD, or left zeroes.
    let (pid, status) = unsafe { (ended.si_pid(), ended.si_status()) };
    Ok((pid != 0).then(|| exit_code(ended.si_code, status)))
}

/// Hides this process and its binary from processes of the container that it is about to join; `execve` ends that.
pub(crate) fn hide() {
    // SAFETY: changes an attribute of this process.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: u32) {
    // SAFETY: called where no descriptor from `first` on has an owner in this process.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

/// Marks every descriptor from `first` on to be closed at `execve`.
pub(crate) fn close_on_exec_from(first: u32) {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: changes a flag of our own descriptors.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
}

/// Forks with `flags` (`CLONE_*` of `linux/sched.h`), into cgroup `cgroup` where given. Returns 0 in the child.
///
/// # Safety
/// The calling process has one thread, so that no lock is held by a thread that the child lacks.
pub(crate) unsafe fn clone3(flags: u64, exit_signal: i32, cgroup: Option<BorrowedFd<'_>>) -> io::Result<i32> {
    let mut args =
        CloneArgs { flags, exit_signal: u64::from(exit_signal.unsigned_abs()), ..CloneArgs::default() };
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(fd.as_raw_fd().unsigned_abs());
    }
    // SAFETY: without CLONE_VM this is a fork; the caller vouches for the rest.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    i32::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// A private copy of what is mounted at `source`, not attached anywhere yet.
pub(crate) fn open_tree(source: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let source = c_path(source)?;
    let recursive = if recursive { libc::AT_RECURSIVE.unsigned_abs() } else { 0 };
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.unsigned_abs() | recursive;
    // SAFETY: the path is a C string that lives across the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, source.as_ptr(), flags) })
}

/// Attaches the mount `tree` on the file or directory `target`.
pub(crate) fn move_mount(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
    // SAFETY: empty paths are C strings that live across the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Adds `MOUNT_ATTR_*` to the mount at `tree`, and to those below it if `recursive`.
pub(crate) fn mount_set(tree: BorrowedFd<'_>, attributes: u64, recursive: bool) -> io::Result<()> {
    let attr = MountAttr { attr_set: attributes, ..MountAttr::default() };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path and struct live across the call, and the size is the struct's.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Mounts a file system of type `kind` on `target`.
pub(crate) fn mount(
    source: &OsStr,
    target: &Path,
    kind: &str,
    flags: libc::c_ulong,
    data: &str,
) -> io::Result<()> {
    let (source, target, kind, data) = (c_path(source)?, c_path(target)?, c_path(kind)?, c_path(data)?);
    // SAFETY: all strings are C strings that live across the call.
    check(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast())
    })
    .map(drop)
}

/// Changes the flags of what is mounted on `target` (`MS_REMOUNT`, `MS_PRIVATE` …).
pub(crate) fn remount(target: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the path is a C string that lives across the call; the kernel ignores the null arguments.
    check(unsafe {
        libc::mount(c"none".as_ptr(), target.as_ptr(), std::ptr::null(), flags, std::ptr::null())
    })
    .map(drop)
}

/// Makes the current directory the root of this mount namespace and drops the old root.
pub(crate) fn pivot_to_current() -> io::Result<()> {
    // SAFETY: constant C strings.
    unsafe {
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
        check(libc::chdir(c"/".as_ptr()))?;
    }
    Ok(())
}

/// A pipe whose ends close at `execve`: (read end, write end).
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the kernel fills both numbers, which are ours then.
    unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Sets whether reads and writes of `fd` wait.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: changes a flag of an open descriptor.
    unsafe {
        let flags = check(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
        check(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)).map(drop)
    }
}

/// A named pipe at `path`, for the owner only.
pub(crate) fn make_fifo(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the path is a C string that lives across the call.
    check(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }).map(drop)
}

/// When process `pid` started, in clock ticks since the machine did: with it, a number names one process only.
pub(crate) fn start_time(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may contain anything; field 22 is the 20th after it.
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Nanoseconds since 1970, UTC.
pub(crate) fn now() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct lives across the call.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Writes `bytes` to a file of /proc, /sys or a cgroup in one call, without creating it.
pub(crate) fn write_kernel_file(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
    io::Write::write_all(&mut file, bytes.as_ref())
}

/// Ends a forked process: nothing of what the process before it registered for its own end is run.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(code) }
}

/// `fd`, watched by tokio for being readable.
pub(crate) fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, and the same descriptor, for as long as it lives.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}

/// Distinguishes the runs of this host: of the machine, and of the pid namespace where that is all of the host we see.
pub(crate) fn boot_id() -> io::Result<&'static str> {
    // We do not live through the end of either.
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(id);
    }
    let machine = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let id = format!("{}-{}", machine.trim(), start_time(1)?);
    Ok(ID.get_or_init(|| id))
}
