//! Runs a program under another time of day: `other-clock SECONDS PROGRAM [ARGUMENT…]`, seconds may be negative.
//!
//! The hosts of a lab share the machine's clock, and time namespaces leave the time of day alone. So here the kernel
//! hands over the program's questions for it (seccomp's user notification), and the answer is shifted. A program asks
//! the kernel only where it has not been given the vDSO, which would answer without it: that is taken out of its
//! auxiliary vector before its first instruction. The program itself is the unmodified one, static or not.
//!
//! Programs that it starts have the vDSO again, and with it the machine's own time.
#![allow(clippy::disallowed_methods, reason = "door: system calls, and the clock that is shifted")]

use std::{
    env, fs,
    io::{self, Read, Seek, SeekFrom, Write},
    mem,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitCode},
    ptr, thread,
    time::{SystemTime, UNIX_EPOCH},
};

/// From `linux/auxvec.h`: where the vDSO is, and an entry that means nothing.
const AT_SYSINFO_EHDR: u64 = 33;
const AT_IGNORE: u64 = 1;
/// From `linux/seccomp.h`: `_IOWR('!', 0, struct seccomp_notif)` and `_IOWR('!', 1, struct seccomp_notif_resp)`.
const NOTIF_RECV: libc::c_ulong = 0xc050_2100;
const NOTIF_SEND: libc::c_ulong = 0xc018_2101;
/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = 16;
/// The field of `/proc/PID/stat` that says where the stack began, counted behind the name.
const START_STACK: usize = 25;

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("other-clock: {error}");
            ExitCode::from(125)
        }
    }
}

fn run() -> io::Result<u8> {
    let mut arguments = env::args_os().skip(1);
    let offset = arguments.next().and_then(|text| text.to_str()?.parse::<i64>().ok());
    let (Some(offset), Some(program)) = (offset, arguments.next()) else {
        return Err(io::Error::other("usage: other-clock SECONDS PROGRAM [ARGUMENT…]"));
    };
    // Whoever installs the filter is under it as well, but never asks the kernel for the time.
    let questions = install_filter()?;
    let mut command = Command::new(program);
    command.args(arguments);
    // SAFETY: ptrace is called as its manual says, and is safe between fork and exec.
    unsafe { command.pre_exec(|| checked(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0)).map(drop)) };
    let mut child = command.spawn()?;
    hide_vdso(&child)?;
    thread::spawn(move || {
        // Ends with the program.
        while answer(&questions, offset).is_ok() {}
    });
    let status = child.wait()?;
    let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(125);
    Ok(u8::try_from(code).unwrap_or(125))
}

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// From now on the questions of this process and its children for the time of day come to what is returned.
fn install_filter() -> io::Result<OwnedFd> {
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let skip_unless = |value: i64, count| {
        statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            count,
            u32::try_from(value).unwrap_or(u32::MAX),
        )
    };
    let verdict = |verdict| statement(libc::BPF_RET | libc::BPF_K, 0, 0, verdict);
    let mut filter = [
        load(NUMBER),
        skip_unless(libc::SYS_clock_gettime, 3),
        load(FIRST_ARGUMENT),
        skip_unless(libc::CLOCK_REALTIME.into(), 1),
        verdict(libc::SECCOMP_RET_USER_NOTIF),
        verdict(libc::SECCOMP_RET_ALLOW),
    ];
    let length = filter.len() as libc::c_ushort;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: the program outlives the call, and the descriptor that comes back is nobody else's.
    unsafe {
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        let listener =
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program);
        Ok(OwnedFd::from_raw_fd(checked(listener)? as i32))
    }
}

const fn statement(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// Waits for the program's first instruction, takes the vDSO away from it, and lets it go.
fn hide_vdso(child: &Child) -> io::Result<()> {
    let pid = child.id() as libc::pid_t;
    let mut status = 0;
    // SAFETY: as the manuals say; `status` outlives the call.
    let stopped = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    checked(stopped.into())?;
    if !libc::WIFSTOPPED(status) {
        return Err(io::Error::other("the program did not start"));
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let start = fields.split_whitespace().nth(START_STACK).and_then(|field| field.parse().ok());
    let start: u64 = start.ok_or_else(|| io::Error::other("its stack cannot be found"))?;

    let mut memory = fs::OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
    memory.seek(SeekFrom::Start(start))?;
    let mut word = || -> io::Result<u64> {
        let mut bytes = [0; 8];
        memory.read_exact(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    };
    // The number of arguments, the arguments and the environment, each with a zero behind; then pairs.
    word()?;
    while word()? != 0 {}
    while word()? != 0 {}
    while word()? != AT_SYSINFO_EHDR {
        word()?;
    }
    memory.seek(SeekFrom::Current(-8))?;
    memory.write_all(&AT_IGNORE.to_ne_bytes())?;
    // SAFETY: as the manual says.
    checked(unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0) }).map(drop)
}

/// Answers one question.
fn answer(questions: &OwnedFd, offset: i64) -> io::Result<()> {
    // SAFETY: both are plain numbers, for which zeros are a value, and the kernel wants the first one zeroed. They
    // outlive the calls.
    let (mut question, mut response) =
        unsafe { (mem::zeroed::<libc::seccomp_notif>(), mem::zeroed::<libc::seccomp_notif_resp>()) };
    let fd = questions.as_raw_fd();
    // SAFETY: see above.
    checked(unsafe { libc::ioctl(fd, NOTIF_RECV, &raw mut question) }.into())?;
    response.id = question.id;
    if let Err(error) = write_time(question.pid, question.data.args[1], offset) {
        response.error = -error.raw_os_error().unwrap_or(libc::EFAULT);
    }
    // SAFETY: see above. It fails where the asker has ended meanwhile.
    unsafe { libc::ioctl(fd, NOTIF_SEND, &raw mut response) };
    Ok(())
}

/// Writes the shifted time where a thread wants it.
fn write_time(thread: u32, address: u64, offset: i64) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = now.as_secs().saturating_add_signed(offset);
    let mut time = [0; 16];
    time[..8].copy_from_slice(&seconds.to_ne_bytes());
    time[8..].copy_from_slice(&u64::from(now.subsec_nanos()).to_ne_bytes());
    let local = libc::iovec { iov_base: time.as_mut_ptr().cast(), iov_len: time.len() };
    let remote =
        libc::iovec { iov_base: ptr::with_exposed_provenance_mut(address as usize), iov_len: time.len() };
    // SAFETY: `local` is ours, and the kernel checks `remote`.
    let written = unsafe {
        libc::process_vm_writev(thread as libc::pid_t, &raw const local, 1, &raw const remote, 1, 0)
    };
    checked(written as libc::c_long).map(drop)
}
