//! The shim's life: fork the helper, then copy output into the log until the container's init has ended.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    Failure, HELD_FROM, build,
    logger::{Logger, Stream},
};
use crate::{
    cgroup::Cgroup,
    layout::{self, ExitRecord, Process},
    sys,
};

/// Bytes of output taken from a pipe at once.
const CHUNK: usize = 8 * 1024;
/// A container that has lived this long is taken for one that stays: its shim then lets go of memory that it would soon
/// want back for one that ends.
const SETTLED: Duration = Duration::from_millis(200);

struct Shim<'a> {
    data: &'a Path,
    exec: &'a Path,
    cgroup: &'a Path,
    durable: bool,
    /// Numbers of the descriptors to hold, as they were inherited.
    held: Vec<i32>,
}

/// The ends of the container's standard streams that belong to the container.
pub(super) struct Stdio {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Runs as a shim; returns its exit code.
pub(super) fn run(arguments: &[PathBuf]) -> i32 {
    let [data, exec, cgroup, durability, held @ ..] = arguments else { return 2 };
    let durable = durability.as_os_str() != super::FLEETING;
    let numbers = held.iter().map(|number| number.to_str()?.parse().ok());
    let Some(held) = numbers.collect() else { return 2 };
    let shim = Shim { data, exec, cgroup, durable, held };
    match shim.live() {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

impl Shim<'_> {
    fn live(&self) -> io::Result<()> {
        hold(&self.held)?;
        detach();
        let own =
            i32::try_from(std::process::id()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        Process::of(own)?.write(self.exec, layout::SHIM)?;
        // The daemon listens on our standard output until the container runs.
        let ready = io::stdout().as_fd().try_clone_to_owned()?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        for fd in 0..3 {
            // SAFETY: replaces our own standard streams.
            sys::check(unsafe { libc::dup2(null.as_raw_fd(), fd) })?;
        }
        let signals = block_signals()?;
        let (out, stdout) = sys::pipe()?;
        let (err, stderr) = sys::pipe()?;
        let (mut keeper, stdin) = self.stdin()?;
        let log = Logger::open(self.data)?;
        let Some(init) = self.build(Stdio { stdin, stdout, stderr }, ready.as_fd())? else {
            return self.end(128);
        };
        let pidfd = sys::pidfd_open(init)?;
        Process::of(init)?.write(self.exec, layout::INIT)?;
        drop(ready);
        let code = supervise(log, out, err, &pidfd, &signals, &mut keeper)?;
        self.end(code)
    }

    /// The container's standard input, and what keeps it open while nobody writes to it.
    fn stdin(&self) -> io::Result<(Option<File>, OwnedFd)> {
        let path = self.exec.join(layout::STDIN);
        if !path.exists() {
            return Ok((None, File::open("/dev/null")?.into()));
        }
        let keeper = File::options().read(true).write(true).open(&path)?;
        Ok((Some(keeper), File::open(&path)?.into()))
    }

    /// Forks the helper and waits for it. `None`: there is no container, and the reason is on its way to the daemon.
    fn build(&self, stdio: Stdio, ready: BorrowedFd<'_>) -> io::Result<Option<i32>> {
        let (from_helper, to_shim) = sys::pipe()?;
        // SAFETY: this process has one thread.
        let helper = unsafe { sys::clone3(0, libc::SIGCHLD, None) }?;
        if helper == 0 {
            // SAFETY: changes an attribute of this process. Without its shim a container must not come to be.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let built = build::container(self.exec, self.cgroup, &stdio, ready).and_then(|pid| {
                io::Write::write_all(&mut File::from(to_shim), &pid.to_le_bytes()).map_err(Failure::build)
            });
            let code = built.map_or_else(|failure| failure.report(ready).map_or(2, |()| 1), |()| 0);
            sys::exit(code);
        }
        drop((to_shim, stdio));
        let mut pid = [0; 4];
        let built = File::from(from_helper).read_exact(&mut pid);
        // SAFETY: waits for our own child.
        sys::check(unsafe { libc::waitpid(helper, std::ptr::null_mut(), 0) })?;
        Ok(built.is_ok().then(|| i32::from_le_bytes(pid)))
    }

    /// Cleans up and says how it ended.
    fn end(&self, code: i32) -> io::Result<()> {
        let cgroup = Cgroup::at(self.cgroup)?;
        let oom = cgroup.oom_kills() > 0;
        // What stays behind here is removed by the next daemon that looks.
        let removed = cgroup.remove();
        ExitRecord { code, oom, at: sys::now(), error: String::new() }.write(self.data, self.durable)?;
        removed
    }
}

/// Keeps the descriptors `inherited` at their places, and closes all others that the daemon had.
fn hold(inherited: &[i32]) -> io::Result<()> {
    let mut place = HELD_FROM;
    for number in inherited {
        // SAFETY: nobody in this process owns a descriptor yet; the daemon numbers them above all places.
        sys::check(unsafe { libc::dup3(*number, place, libc::O_CLOEXEC) })?;
        place += 1;
    }
    sys::close_from(place.unsigned_abs());
    Ok(())
}

/// Leaves the daemon's session and fate.
fn detach() {
    // SAFETY: these change attributes of this process only. Failing is no harm: a shim that leads its session already,
    // or one that the kernel may kill for memory like any other.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
        libc::prctl(libc::PR_SET_NAME, c"covey-shim".as_ptr());
    }
    let _ = sys::write_kernel_file(Path::new("/proc/self/oom_score_adj"), "-999");
}

/// SIGUSR1 closes standard input; the signals that would end a foreground program must not end a shim.
fn block_signals() -> io::Result<File> {
    // SAFETY: the sets live across the calls.
    unsafe {
        let mut ignored: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut ignored);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1] {
            libc::sigaddset(&raw mut ignored, signal);
        }
        sys::check(libc::sigprocmask(libc::SIG_BLOCK, &raw const ignored, std::ptr::null_mut()))?;
        let mut wanted: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut wanted);
        libc::sigaddset(&raw mut wanted, libc::SIGUSR1);
        let fd = sys::check(libc::signalfd(-1, &raw const wanted, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(File::from(OwnedFd::from_raw_fd(fd)))
    }
}

fn supervise(
    mut log: Logger,
    out: OwnedFd,
    err: OwnedFd,
    init: &OwnedFd,
    signals: &File,
    keeper: &mut Option<File>,
) -> io::Result<i32> {
    for fd in [&out, &err] {
        sys::set_nonblocking(fd.as_fd())?;
    }
    let mut pipes = [(Stream::Out, Some(File::from(out))), (Stream::Err, Some(File::from(err)))];
    let mut chunk = [0; CHUNK];
    let mut settles = Some(Instant::now() + SETTLED);
    loop {
        let left = settles.map(|at| at.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            sys::let_go_of_code();
            settles = None;
        }
        // -1: for as long as nothing happens. One more, since less than a millisecond may be left.
        let timeout = settles.and(left).map_or(-1, |left| i32::try_from(left.as_millis()).unwrap_or(0) + 1);
        let number = |pipe: &Option<File>| pipe.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let watch = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut polled =
            [number(&pipes[0].1), number(&pipes[1].1), init.as_raw_fd(), signals.as_raw_fd()].map(watch);
        // SAFETY: the array lives across the call and its length is given.
        match sys::check(unsafe { libc::poll(polled.as_mut_ptr(), 4, timeout) }) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for ((stream, pipe), polled) in pipes.iter_mut().zip(&polled) {
            if polled.revents != 0 && !copy(pipe.as_mut(), *stream, &mut chunk, &mut log) {
                *pipe = None;
            }
        }
        if polled[3].revents != 0 {
            // Emptied, whatever it says: there is one signal and one meaning.
            let _ = (&*signals).read(&mut chunk);
            *keeper = None;
        }
        if polled[2].revents != 0
            && let Some(code) = reap_all(init)
        {
            // Every process of the container is dead by now, so what they wrote is in the pipes.
            for (stream, pipe) in &mut pipes {
                while copy(pipe.as_mut(), *stream, &mut chunk, &mut log) {}
            }
            return Ok(code);
        }
    }
}

/// Copies one chunk; false when there is nothing more to copy now.
fn copy(pipe: Option<&mut File>, stream: Stream, chunk: &mut [u8], log: &mut Logger) -> bool {
    let Some(pipe) = pipe else { return false };
    loop {
        return match pipe.read(chunk) {
            Ok(0) => false,
            Ok(length) => {
                log.write(stream, &chunk[..length]);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => false,
        };
    }
}

/// The exit code of init, once it has ended; other children came to us as their subreaper.
fn reap_all(init: &OwnedFd) -> Option<i32> {
    let code = sys::reap(init.as_fd()).ok().flatten();
    // SAFETY: collects our own children without waiting.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
    code
}
