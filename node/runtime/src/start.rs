//! Starting a container: network, files, spec, shim.

use std::{
    fs, io,
    io::Read as _,
    os::fd::{AsFd as _, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, PoisonError},
};

use covey_state::{network::Wiring, time::Stamp};

use crate::{
    Runtime,
    container::{ContainerId, ContainerState, NetworkMode, Record},
    etc,
    event::Action,
    health,
    layout::{self, ExitRecord, Process},
    name::LookupError,
    network::{Attachment, KEPT_MAX, Remembered},
    runtime::{Inner, Slot, adopt, blocking, to_the_end},
    shim::{self, Failure},
    spec, sys,
};

/// Bytes of the helper's report; it is one message.
pub(crate) const REPORT_MAX: u64 = 64 * 1024;
/// Numbers of descriptors that a shim inherits start here, above all places where it may put them.
const INHERITED_FROM: i32 = 16;
const _: () = assert!(shim::HELD_FROM as usize + KEPT_MAX <= INHERITED_FROM as usize);

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
    joined: Option<Joined>,
    data: PathBuf,
    exec: PathBuf,
}

/// A container that runs, whose network another one joins.
struct Joined {
    /// Held until the other is in it: a path by a process id could come to mean somebody else's.
    namespace: OwnedFd,
    exec: PathBuf,
}

impl Runtime {
    /// Starts a container that does not run. Returns once its program runs.
    pub async fn start(&self, container: &str) -> Result<(), StartError> {
        let slot = self.inner.find(container)?;
        // A caller that goes away must not leave a container behind of which nobody knows how far it came.
        to_the_end(start(self.inner.clone(), slot)).await
    }
}

async fn start(inner: Arc<Inner>, slot: Arc<Slot>) -> Result<(), StartError> {
    let _gate = slot.gate.lock().await;
    let id = slot.record.id.clone();
    // Somebody may have been faster.
    match slot.life.borrow().clone() {
        life if life.removed => return Err(LookupError::NotFound(id.to_string()).into()),
        life if life.state == ContainerState::Running => return Err(StartError::Running(id)),
        _ => {}
    }
    let started = launch(&inner, &slot).await;
    if let Err(error) = &started {
        failed(&inner, &slot, error).await;
    }
    started
}

async fn launch(inner: &Arc<Inner>, slot: &Arc<Slot>) -> Result<(), StartError> {
    let _permit = inner.launches.acquire().await;
    let wiring = slot.life.borrow().wiring.clone();
    let joined = match &slot.record.network {
        NetworkMode::Container(other) => Some(join(inner, other)?),
        NetworkMode::None | NetworkMode::Host | NetworkMode::Edge => None,
    };
    let mut attachment = attach_network(inner, &slot.record, &wiring).await?;
    if let Some(Joined { namespace, .. }) = &joined {
        attachment.namespace = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd()).into();
    }
    let (addresses, ports) = (attachment.addresses.clone(), attachment.ports.clone());
    let id = &slot.record.id;
    let launch = Launch {
        inner: inner.clone(),
        record: slot.record.clone(),
        data: inner.layout.data(id),
        exec: inner.layout.exec(id),
        attachment,
        joined,
    };
    let launched = blocking(move || launch.run()).await?;
    slot.life.send_modify(|life| {
        life.state = ContainerState::Running;
        life.started_at = Some(launched.at);
        life.pid = launched.init.pid.unsigned_abs();
        life.addresses = addresses;
        life.ports = ports;
        life.stopping = false;
    });
    inner.tell(&slot.record, Action::Start);
    health::watch(inner, slot);
    adopt::watch(inner, slot, launched.shim);
    Ok(())
}

/// The network of the container `other`.
fn join(inner: &Inner, other: &ContainerId) -> Result<Joined, StartError> {
    let slot = inner.find(other.as_str())?;
    let idle =
        || StartError::Network(format!("cannot join network of a non running container: {}", other.short()));
    let pid =
        || Some(slot.life.borrow()).filter(|life| life.state == ContainerState::Running).map(|life| life.pid);
    let seen = pid().ok_or_else(idle)?;
    let namespace = fs::File::open(format!("/proc/{seen}/ns/net")).map_err(|_| idle())?;
    // It ran all the while, so this was its own.
    if pid() != Some(seen) {
        return Err(idle());
    }
    Ok(Joined { namespace: namespace.into(), exec: inner.layout.exec(other) })
}

async fn attach_network(inner: &Inner, record: &Record, wiring: &Wiring) -> Result<Attachment, StartError> {
    if record.network != NetworkMode::Edge {
        return Ok(Attachment::default());
    }
    let Some(network) = &inner.config.network else {
        return Err(StartError::Network("this node has no network".to_owned()));
    };
    let attached = network.attach(record.id.as_str(), record.hostname(), wiring).await;
    let attachment = attached.map_err(StartError::Network)?;
    if attachment.keep.len() > KEPT_MAX {
        let text = format!("{} sockets are to be kept; at most {KEPT_MAX} can be", attachment.keep.len());
        return Err(StartError::Network(text));
    }
    Ok(attachment)
}

/// Leaves the container as one that has ended with this error. The caller holds the gate.
async fn failed(inner: &Inner, slot: &Slot, error: &StartError) {
    let (data, cgroup) = (inner.layout.data(&slot.record.id), inner.cgroup(&slot.record.id));
    let (code, text) = match error {
        StartError::Failed { code, text } => (*code, text.clone()),
        other => (128, other.to_string()),
    };
    let record = ExitRecord { code, oom: false, at: sys::now(), error: text };
    let durable = slot.record.durable();
    let ended = blocking(move || {
        // A shim that was killed may have left a process, which must be gone before its network is.
        cgroup.remove()?;
        record.write(&data, durable)
    });
    if let Err(error) = ended.await {
        tracing::warn!(%error, container = %slot.record.id, "cannot write down why a container did not start");
    }
    inner.bury(slot).await;
}

struct Launched {
    shim: OwnedFd,
    init: Process,
    at: Stamp,
}

impl Launch {
    fn run(&self) -> Result<Launched, StartError> {
        let io = |source| StartError::Io { id: self.record.id.clone(), source };
        let at = self.prepare().map_err(io)?;
        let mut shim = self.spawn().map_err(io)?;
        let followed = self.follow(&mut shim).map_err(io).and_then(|followed| followed);
        if let Err(error) = &followed {
            // After its own report it has nothing left to do but to clean up.
            if !matches!(error, StartError::Failed { .. }) {
                let _ = shim.kill();
            }
            shim.wait().map_err(io)?;
        }
        let (shim, init) = followed?;
        Ok(Launched { shim, init, at })
    }

    /// Waits until the container's program runs, or the shim says why not.
    fn follow(&self, shim: &mut Child) -> io::Result<Result<(OwnedFd, Process), StartError>> {
        let pid = i32::try_from(shim.id()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        let pidfd = sys::pidfd_open(pid)?;
        let mut report = String::new();
        if let Some(stdout) = shim.stdout.take() {
            stdout.take(REPORT_MAX).read_to_string(&mut report)?;
        }
        let failure = Failure::parse(&report);
        Ok(match (failure, Process::read(&self.exec.join(layout::INIT))) {
            (Some(Failure { code, text }), _) => Err(StartError::Failed { code, text }),
            (None, Some(init)) => Ok((pidfd, init)),
            (None, None) => {
                let text = "the shim ended before the container ran".to_owned();
                Err(StartError::Failed { code: 128, text })
            }
        })
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
        if record.network == NetworkMode::Edge {
            Remembered::write(&self.attachment, exec)?;
        }
        match &self.joined {
            Some(joined) => {
                // The very same files: what changes for the one changes for the other.
                for name in etc::FILES {
                    fs::hard_link(joined.exec.join(name), exec.join(name))?;
                }
            }
            None => self.write_names(exec)?,
        }
        let cgroup = self.inner.cgroup_path(&record.id);
        let places = spec::Places { data, exec, cgroup: &cgroup };
        let spec = spec::build(record, &places, &self.attachment).map_err(io::Error::other)?;
        fs::write(exec.join(layout::SPEC), serde_json::to_vec(&spec)?)?;
        let at = sys::now();
        fs::write(data.join(layout::STARTED), format!("{at} {}", sys::boot_id()?))?;
        Ok(Stamp(at))
    }

    fn write_names(&self, exec: &Path) -> io::Result<()> {
        let Self { record, attachment, .. } = self;
        let (hostname, naming) = (record.hostname(), &record.spec.naming);
        let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        fs::write(exec.join("hosts"), etc::hosts(hostname, attachment, naming))?;
        fs::write(exec.join("hostname"), format!("{hostname}\n"))?;
        fs::write(exec.join("resolv.conf"), etc::resolv_conf(attachment, naming, &host, &record.network))
    }

    fn spawn(&self) -> io::Result<Child> {
        let durability = if self.record.durable() { shim::DURABLE } else { shim::FLEETING };
        let mut command = Command::new(&self.inner.config.program);
        command
            .arg(shim::SHIM_COMMAND)
            .args([&self.data, &self.exec, &self.inner.cgroup_path(&self.record.id)])
            .arg(durability)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let _alone = self.inner.spawning.lock().unwrap_or_else(PoisonError::into_inner);
        let copies = self.attachment.keep.iter().map(|fd| sys::inheritable(fd.as_fd(), INHERITED_FROM));
        let copies = copies.collect::<io::Result<Vec<_>>>()?;
        command.args(copies.iter().map(|fd| fd.as_raw_fd().to_string())).spawn()
    }
}

/// Starts `command` with `report` left open for it; its number is the command's last argument.
pub(crate) fn spawn_with_report(inner: &Inner, mut command: Command, report: OwnedFd) -> io::Result<Child> {
    let _alone = inner.spawning.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: changes a flag of our own descriptor, which is closed again before the next child is born.
    sys::check(unsafe { libc::fcntl(report.as_raw_fd(), libc::F_SETFD, 0) })?;
    let child = command.arg(report.as_raw_fd().to_string()).spawn();
    drop(report);
    child
}
