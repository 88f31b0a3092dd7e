//! `exec`: another process in a running container.

use std::{
    fs, io,
    io::Read as _,
    os::fd::OwnedFd,
    os::unix::fs::OpenOptionsExt as _,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use oci_spec::OciSpecError;
use tokio::{io::unix::AsyncFd, net::unix::pipe};
use tokio_util::io::ReaderStream;

use crate::{
    Runtime,
    attach::{Output, OutputStream, StdinWriter},
    container::{ContainerId, ContainerState},
    create::environment,
    name::LookupError,
    runtime::blocking,
    shim::{self, Failure},
    spec,
    start::{REPORT_MAX, spawn_with_report},
    sys,
};

/// Distinguishes the processes that this daemon starts.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// What to run beside a container's init.
#[derive(Clone, Debug, Default)]
pub struct ExecSpec {
    /// Program and arguments.
    pub cmd: Vec<String>,
    /// `KEY=VALUE`, on top of the container's.
    pub env: Vec<String>,
    /// `name|uid[:group|gid]`; empty: the container's.
    pub user: String,
    /// Absolute; empty: the container's.
    pub workdir: String,
    /// Standard input is a pipe, else `/dev/null`.
    pub stdin: bool,
}

/// A process that was started in a container.
pub struct Exec {
    /// On the host.
    pub pid: u32,
    /// Its standard input, where asked for.
    pub stdin: Option<StdinWriter>,
    /// What it writes; ends when it and its children have closed both streams.
    pub output: OutputStream,
    pidfd: AsyncFd<OwnedFd>,
}

/// The process did not start.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// Which container?
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It has no namespaces to enter.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// No program was named.
    #[error("No exec command specified")]
    NoCommand,
    /// It could not be run: 127 where there is no such program, 126 where it may not be run, else 128.
    #[error("OCI runtime exec failed: {text}")]
    Failed {
        /// The exit code to show.
        code: i32,
        /// Why.
        text: String,
    },
    /// The file system or the kernel refused.
    #[error("cannot run a process in container {id}")]
    Io {
        /// The container.
        id: ContainerId,
        /// Why.
        source: io::Error,
    },
    /// The process cannot be described.
    #[error("invalid process")]
    Spec(#[from] OciSpecError),
    /// The process cannot be described.
    #[error("invalid process")]
    Json(#[from] serde_json::Error),
}

impl Exec {
    /// Waits for the process and returns its exit code; 128 + signal where a signal ended it.
    pub fn wait(&self) -> impl Future<Output = io::Result<i32>> + Send + use<'_> {
        // The streams beside it cannot be shared between threads, and need not be.
        let pidfd = &self.pidfd;
        async move {
            loop {
                let mut ready = pidfd.readable().await?;
                if let Some(code) = sys::reap(std::os::fd::AsFd::as_fd(pidfd.get_ref()))? {
                    return Ok(code);
                }
                ready.clear_ready();
            }
        }
    }

    /// Kills the process. It may have ended already.
    pub fn kill(&self) {
        let _ = sys::pidfd_send_signal(std::os::fd::AsFd::as_fd(self.pidfd.get_ref()), libc::SIGKILL);
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        // Nobody waits any more: whoever collects it, it must not stay a zombie of ours.
        if let Ok(pidfd) = self.pidfd.get_ref().try_clone()
            && matches!(sys::reap(std::os::fd::AsFd::as_fd(&pidfd)), Ok(None))
            && let Ok(tokio) = tokio::runtime::Handle::try_current()
        {
            tokio.spawn(async move {
                crate::runtime::adopt::gone(&pidfd).await;
                let _ = sys::reap(std::os::fd::AsFd::as_fd(&pidfd));
            });
        }
    }
}

impl Runtime {
    /// Starts another process in a running container, as confined as its init. Returns once the program runs.
    pub async fn exec(&self, container: &str, wanted: ExecSpec) -> Result<Exec, ExecError> {
        let slot = self.inner.find(container)?;
        let id = slot.record.id.clone();
        if slot.life.borrow().state != ContainerState::Running {
            return Err(ExecError::NotRunning(id));
        }
        if wanted.cmd.is_empty() {
            return Err(ExecError::NoCommand);
        }
        let stdin = wanted.stdin;
        let mut process = spec::process(&slot.record)?;
        let env = environment(&slot.record.invocation.env, &wanted.env);
        process.set_env(Some(env)).set_args(Some(wanted.cmd));
        if !wanted.user.is_empty() {
            let user = spec::user(&wanted.user, &[]);
            process.user_mut().set_username(Some(user));
        }
        if !wanted.workdir.is_empty() {
            process.set_cwd(wanted.workdir.into());
        }
        let text = serde_json::to_vec(&process)?;
        let inner = self.inner.clone();
        let started = blocking(move || {
            let exec = inner.layout.exec(&id);
            let io = |source| ExecError::Io { id: id.clone(), source };
            let file = exec.join(format!("exec-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
            let options = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
            options.and_then(|mut f| io::Write::write_all(&mut f, &text)).map_err(io)?;
            let mut command = Command::new(&inner.config.program);
            command
                .arg(shim::EXEC_COMMAND)
                .args([&exec, &inner.cgroup_path(&id), &file])
                .env_clear()
                .stdin(if stdin { Stdio::piped() } else { Stdio::null() })
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let (from, to) = sys::pipe().map_err(io)?;
            let mut helper = spawn_with_report(&inner, command, to).map_err(io)?;
            // Waiting for the helper would close it.
            let stdin = helper.stdin.take();
            let mut report = String::new();
            fs::File::from(from).take(REPORT_MAX).read_to_string(&mut report).map_err(io)?;
            helper.wait().map_err(io)?;
            let pid =
                report.split('\0').find_map(|message| message.strip_prefix("pid ")?.parse::<i32>().ok());
            // The process is our own child, so its number stays its own until we collect it.
            let pidfd = pid.map(sys::pidfd_open).transpose().map_err(io)?;
            if let Some(Failure { code, text }) = Failure::parse(&report) {
                // It is on its way out.
                if let Some(pid) = pid {
                    // SAFETY: waits for our own child.
                    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
                }
                return Err(ExecError::Failed { code, text });
            }
            match (pid, pidfd) {
                (Some(pid), Some(pidfd)) => Ok((pid, pidfd, stdin, helper)),
                _ => Err(ExecError::NotRunning(id.clone())),
            }
        });
        let (pid, pidfd, stdin, mut helper) = started.await?;
        let id = &slot.record.id;
        let io = |source| ExecError::Io { id: id.clone(), source };
        let stdin = stdin.map(|s| pipe::Sender::from_owned_fd(s.into())).transpose().map_err(io)?;
        let out = helper.stdout.take().map(|s| output(s.into(), Output::Stdout)).transpose().map_err(io)?;
        let err = helper.stderr.take().map(|s| output(s.into(), Output::Stderr)).transpose().map_err(io)?;
        let streams = [out, err].into_iter().flatten();
        Ok(Exec {
            pid: pid.unsigned_abs(),
            stdin: stdin.map(StdinWriter::of_exec),
            output: Box::pin(stream::select_all(streams)),
            pidfd: sys::watched(pidfd).map_err(io)?,
        })
    }
}

fn output(fd: OwnedFd, wrap: fn(Bytes) -> Output) -> io::Result<OutputStream> {
    let receiver = pipe::Receiver::from_owned_fd(fd)?;
    // A pipe that breaks has ended.
    Ok(Box::pin(
        ReaderStream::new(receiver)
            .take_while(|chunk| std::future::ready(chunk.is_ok()))
            .filter_map(move |chunk| std::future::ready(chunk.ok().map(wrap))),
    ))
}
