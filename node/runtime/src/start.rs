//! Starting a container: network, files, spec, shim.

use std::{
    fs, io,
    io::Read as _,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, PoisonError},
};

use covey_state::time::Stamp;

use crate::{
    Runtime,
    container::{ContainerId, ContainerState, NetworkMode, Record},
    event::Action,
    layout::{self, ExitRecord, Process},
    name::LookupError,
    network::Attachment,
    runtime::{Inner, Slot, adopt, blocking},
    shim::{self, Failure},
    spec, sys,
};

/// Bytes of the helper's report; it is one message.
pub(crate) const REPORT_MAX: u64 = 64 * 1024;

/// A container did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Which container?
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It runs already.
    #[error("container {0} is already running")]
    Running(ContainerId),
    /// Its network could not be made.
    #[error("failed to set up container networking: {0}")]
    Network(String),
    /// It could not be built, or its program not be run. The container has ended with this exit code: 127 where there
    /// is no such program, 126 where it may not be run, else 128.
    #[error("failed to create task for container: {text}")]
    Failed {
        /// As `run` ends.
        code: i32,
        /// Why.
        text: String,
    },
    /// The file system or the kernel refused.
    #[error("cannot start container {id}")]
    Io {
        /// The container.
        id: ContainerId,
        /// Why.
        source: io::Error,
    },
}

/// What is needed to start a shim.
struct Launch {
    inner: Arc<Inner>,
    record: Record,
    attachment: Attachment,
    data: PathBuf,
    exec: PathBuf,
}

impl Runtime {
    /// Starts a container that does not run. Returns once its program runs.
    pub async fn start(&self, container: &str) -> Result<(), StartError> {
        let slot = self.inner.find(container)?;
        let _gate = slot.gate.lock().await;
        let id = slot.record.id.clone();
        // Somebody may have been faster.
        match slot.life.borrow().clone() {
            life if life.removed => return Err(LookupError::NotFound(container.to_owned()).into()),
            life if life.state == ContainerState::Running => return Err(StartError::Running(id)),
            _ => {}
        }
        let permit = self.inner.launches.acquire().await;
        let attachment = self.attach_network(&slot).await?;
        let launch = Launch {
            inner: self.inner.clone(),
            record: slot.record.clone(),
            data: self.inner.layout.data(&id),
            exec: self.inner.layout.exec(&id),
            attachment: attachment.clone(),
        };
        let launched = blocking(move || launch.run()).await;
        drop(permit);
        match launched {
            Ok(launched) => {
                slot.life.send_modify(|life| {
                    life.state = ContainerState::Running;
                    life.started_at = Some(launched.at);
                    life.pid = launched.init.pid.unsigned_abs();
                    life.addresses = attachment.addresses;
                    life.stopping = false;
                });
                self.inner.tell(&slot.record, Action::Start);
                adopt::watch(&self.inner, &slot, launched.shim);
                Ok(())
            }
            Err(error) => {
                self.failed(&slot, &error).await;
                Err(error)
            }
        }
    }

    async fn attach_network(&self, slot: &Slot) -> Result<Attachment, StartError> {
        let record = &slot.record;
        if record.network != NetworkMode::Edge {
            return Ok(Attachment::default());
        }
        let Some(network) = &self.inner.config.network else {
            return Err(StartError::Network("this node has no network".to_owned()));
        };
        network.attach(record.id.as_str(), record.hostname()).await.map_err(StartError::Network)
    }

    /// Leaves the container as one that has ended with this error.
    async fn failed(&self, slot: &Slot, error: &StartError) {
        let data = self.inner.layout.data(&slot.record.id);
        let (code, text) = match error {
            StartError::Failed { code, text } => (*code, text.clone()),
            other => (128, other.to_string()),
        };
        let record = ExitRecord { code, oom: false, at: sys::now(), error: text };
        let durable = slot.record.durable();
        if let Err(error) = blocking(move || record.write(&data, durable)).await {
            tracing::warn!(%error, container = %slot.record.id, "cannot write down why a container did not start");
        }
        self.inner.bury(slot).await;
    }
}

struct Launched {
    shim: OwnedFd,
    init: Process,
    at: Stamp,
}

impl Launch {
    fn run(&self) -> Result<Launched, StartError> {
        let id = &self.record.id;
        let io = |source| StartError::Io { id: id.clone(), source };
        let at = self.prepare().map_err(io)?;
        let mut shim = self.spawn().map_err(io)?;
        let pidfd = i32::try_from(shim.id())
            .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
            .and_then(sys::pidfd_open)
            .map_err(io)?;
        let mut report = String::new();
        if let Some(stdout) = shim.stdout.take() {
            stdout.take(REPORT_MAX).read_to_string(&mut report).map_err(io)?;
        }
        if let Some(Failure { code, text }) = Failure::parse(&report) {
            // It has nothing left to do but to clean up.
            shim.wait().map_err(io)?;
            return Err(StartError::Failed { code, text });
        }
        match Process::read(&self.exec.join(layout::INIT)) {
            Some(init) => Ok(Launched { shim: pidfd, init, at }),
            None => {
                shim.wait().map_err(io)?;
                Err(StartError::Failed {
                    code: 128,
                    text: "the shim ended before the container ran".to_owned(),
                })
            }
        }
    }

    /// Writes what the shim and the container find.
    fn prepare(&self) -> io::Result<Stamp> {
        let (record, data, exec) = (&self.record, &self.data, &self.exec);
        layout::remove_tree(exec)?;
        fs::create_dir(exec)?;
        fs::create_dir(exec.join(layout::ROOTFS))?;
        match fs::remove_file(data.join(layout::EXIT)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if record.open_stdin {
            sys::make_fifo(&exec.join(layout::STDIN))?;
        }
        adopt::remember_addresses(exec, &self.attachment.addresses)?;
        let hostname = record.hostname();
        let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let addresses = self.attachment.addresses.get(..1).unwrap_or_default();
        let nameservers = &self.attachment.nameservers;
        fs::write(data.join("hosts"), spec::hosts(hostname, addresses))?;
        fs::write(data.join("hostname"), format!("{hostname}\n"))?;
        fs::write(data.join("resolv.conf"), spec::resolv_conf(nameservers, &host, record.network))?;
        let cgroup = self.inner.cgroup_path(&record.id);
        let places = spec::Places { data, exec, cgroup: &cgroup };
        let spec = spec::build(record, &places, &self.attachment).map_err(io::Error::other)?;
        fs::write(data.join(layout::SPEC), serde_json::to_vec(&spec)?)?;
        let at = sys::now();
        fs::write(data.join(layout::STARTED), format!("{at} {}", sys::boot_id()?))?;
        Ok(Stamp(at))
    }

    fn spawn(&self) -> io::Result<std::process::Child> {
        let durability = if self.record.durable() { shim::DURABLE } else { shim::FLEETING };
        let mut command = Command::new(&self.inner.config.program);
        command
            .arg(shim::SHIM_COMMAND)
            .args([&self.data, &self.exec, &self.inner.cgroup_path(&self.record.id)])
            .arg(durability)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let _alone = self.inner.spawning.lock().unwrap_or_else(PoisonError::into_inner);
        command.spawn()
    }
}

/// Starts `command` with `report` left open for it; its number is the command's last argument.
pub(crate) fn spawn_with_report(
    inner: &Inner,
    mut command: Command,
    report: OwnedFd,
) -> io::Result<std::process::Child> {
    let _alone = inner.spawning.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: changes a flag of our own descriptor, which is closed again before the next child is born.
    sys::check(unsafe { libc::fcntl(report.as_raw_fd(), libc::F_SETFD, 0) })?;
    let child = command.arg(report.as_raw_fd().to_string()).spawn();
    drop(report);
    child
}
