//! Making a container: settle what the image leaves open, and write it down.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Component, Path, PathBuf},
};

use covey_state::{
    container::{ContainerSpec, MountKind, Resources, check_sysctls, is_of_network},
    network::Wiring,
    time::Stamp,
};

use crate::{
    Runtime,
    container::{ContainerId, ImageName, Invocation, NetworkMode, Record, TaskRef},
    event::Action,
    image::{self, ImageDefaults, Rootfs},
    layout::{self, FORMAT},
    name,
    runtime::{Life, Slot},
    signal, sys,
};

/// Where programs are looked for when neither the image nor the user says.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bytes of a host name: `__NEW_UTS_LEN`.
const HOSTNAME_MAX: usize = 64;

/// What a container is to be.
#[derive(Clone, Debug, Default)]
pub struct CreateContainer {
    /// Unique; empty: the short id.
    pub name: String,
    /// What to run.
    pub spec: ContainerSpec,
    /// Its limits.
    pub resources: Resources,
    /// Added to the labels of the image and of the spec.
    pub labels: BTreeMap<String, String>,
    /// Keeps standard input open for [`Runtime::attach`]; else it is `/dev/null`.
    pub open_stdin: bool,
    /// Removes it once it has ended.
    pub auto_remove: bool,
    /// The task that it runs for.
    pub task: Option<TaskRef>,
    /// Its network.
    pub network: NetworkMode,
    /// What it has of the networks: kept with it, and handed to [`crate::Network::attach`].
    pub wiring: Wiring,
    /// `80/tcp`: ports that it serves beside those that its image names.
    pub exposed_ports: Vec<String>,
}

/// A container was not made, and nothing is left of the attempt.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The name is in use.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or \
         rename) that container to be able to reuse that name."
    )]
    Conflict {
        /// The name.
        name: String,
        /// Who has it.
        id: ContainerId,
    },
    /// The name is none.
    #[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Name(String),
    /// The image is not on this node.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// The image cannot be used.
    #[error(transparent)]
    Image(image::LookupError),
    /// Neither the user nor the image says what to run.
    #[error("no command specified")]
    NoCommand,
    /// Something in the spec cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The file system refused.
    #[error("cannot write down the container")]
    Io(#[from] io::Error),
    /// The record cannot be written as JSON.
    #[error("cannot write down the container")]
    Json(#[from] serde_json::Error),
}

impl Runtime {
    /// Makes a container of an image that is on this node. It does not run yet.
    pub async fn create(&self, wanted: CreateContainer) -> Result<ContainerId, CreateError> {
        let id = ContainerId::random()?;
        let name = if wanted.name.is_empty() { id.short().to_owned() } else { wanted.name.clone() };
        self.reserve(&name, &id)?;
        let made = self.create_named(&id, name.clone(), wanted).await;
        if made.is_err() {
            self.inner.table().names.remove(&name);
            // Nobody holds by this id if the image was not found, which is no error.
            let _ = self.inner.config.images.release(id.as_str()).await;
        }
        made.map(|()| id)
    }

    fn reserve(&self, name: &str, id: &ContainerId) -> Result<(), CreateError> {
        if !name::is_valid(name) {
            return Err(CreateError::Name(name.to_owned()));
        }
        let mut table = self.inner.table();
        match table.names.get(name) {
            Some(owner) => Err(CreateError::Conflict { name: name.to_owned(), id: owner.clone() }),
            None => {
                table.names.insert(name.to_owned(), id.clone());
                Ok(())
            }
        }
    }

    async fn create_named(
        &self,
        id: &ContainerId,
        name: String,
        wanted: CreateContainer,
    ) -> Result<(), CreateError> {
        let images = &self.inner.config.images;
        let missing = |error| match error {
            image::LookupError::NotFound(_) => CreateError::NoSuchImage(wanted.spec.image.clone()),
            other => CreateError::Image(other),
        };
        let image = images.hold(&wanted.spec.image, id.as_str()).await.map_err(missing)?;
        let rootfs = images.rootfs(&image.to_string()).await.map_err(missing)?;
        let record = settle(id.clone(), name, wanted, rootfs)?;
        let data = self.inner.layout.data(id);
        let text = serde_json::to_vec(&record)?;
        let durable = record.durable();
        crate::runtime::blocking(move || {
            write_down(&data, &text, durable).inspect_err(|_| {
                // What is left of it is removed at the next start at the latest.
                let _ = layout::remove_tree(&data);
            })
        })
        .await?;
        self.inner.tell(&record, Action::Create);
        let life = Life::of(&record);
        let slot = Slot::new(record, life);
        self.inner.table().slots.insert(id.clone(), slot);
        Ok(())
    }
}

fn write_down(data: &Path, record: &[u8], durable: bool) -> io::Result<()> {
    fs::create_dir(data)?;
    fs::set_permissions(data, std::os::unix::fs::PermissionsExt::from_mode(0o710))?;
    for directory in [layout::UPPER, layout::WORK] {
        fs::create_dir(data.join(directory))?;
    }
    layout::replace(data, layout::RECORD, record, durable)
}

/// The record of a container: what was asked for, and what its image says where nothing was.
fn settle(
    id: ContainerId,
    name: String,
    wanted: CreateContainer,
    rootfs: Rootfs,
) -> Result<Record, CreateError> {
    let mut spec = wanted.spec;
    check(&spec, &wanted.network)?;
    let mut labels = rootfs.defaults.labels.clone();
    labels.append(&mut spec.labels);
    labels.extend(wanted.labels);
    spec.labels = labels;
    let layers_dir = rootfs.layers_dir.display();
    let mut exposed_ports = rootfs.defaults.exposed_ports.clone();
    exposed_ports.extend(wanted.exposed_ports);
    let health_check = spec.health.clone().unwrap_or_default().or(&rootfs.defaults.health_check);
    let mut record = Record {
        format: FORMAT,
        name,
        created: Stamp(sys::now()),
        image: ImageName { id: rootfs.image.to_string(), name: spec.image.clone() },
        layers: rootfs.lower.iter().map(|layer| format!("{layers_dir}/{layer}")).collect(),
        invocation: invocation(&spec, &rootfs.defaults)?,
        spec,
        resources: wanted.resources,
        open_stdin: wanted.open_stdin,
        auto_remove: wanted.auto_remove,
        task: wanted.task,
        network: wanted.network,
        wiring: wanted.wiring,
        exposed_ports,
        health_check,
        id,
    };
    let hostname = format!("HOSTNAME={}", record.hostname());
    if !record.invocation.env.iter().any(|entry| entry.starts_with("HOSTNAME=")) {
        let second = record.invocation.env.len().min(1);
        record.invocation.env.insert(second, hostname);
    }
    Ok(record)
}

fn check(spec: &ContainerSpec, network: &NetworkMode) -> Result<(), CreateError> {
    let invalid = |text: String| Err(CreateError::Invalid(text));
    check_sysctls(&spec.sysctls).map_err(|error| CreateError::Invalid(error.to_string()))?;
    if let Some(health) = &spec.health {
        health.check().map_err(|error| CreateError::Invalid(error.to_string()))?;
    }
    if let Some(name) = spec.sysctls.keys().find(|name| is_of_network(name) && !network.is_own()) {
        return invalid(format!(
            "sysctl {name:?} is not allowed in the network of the host or of another container"
        ));
    }
    if spec.hostname.len() > HOSTNAME_MAX {
        return invalid(format!("invalid hostname: {} is longer than {HOSTNAME_MAX} bytes", spec.hostname));
    }
    for mount in &spec.mounts {
        let target = Path::new(&mount.target);
        let inside =
            target.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !target.is_absolute() || !inside || target == Path::new("/") {
            return invalid(format!("invalid mount target: {:?}", mount.target));
        }
        if target.starts_with("/proc") {
            return invalid(format!("invalid mount target: {:?} is inside /proc", mount.target));
        }
        if let MountKind::Bind { source } = &mount.kind {
            if !Path::new(source).is_absolute() {
                return invalid(format!("invalid mount path: {source:?} mount path must be absolute"));
            }
            if !Path::new(source).exists() {
                return invalid(format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {source}"
                ));
            }
        }
    }
    Ok(())
}

fn invocation(spec: &ContainerSpec, defaults: &ImageDefaults) -> Result<Invocation, CreateError> {
    // A new entry point makes the image's arguments meaningless.
    let (entrypoint, cmd) = match (spec.command.is_empty(), spec.args.is_empty()) {
        (false, _) => (&spec.command, &spec.args),
        (true, false) => (&defaults.entrypoint, &spec.args),
        (true, true) => (&defaults.entrypoint, &defaults.cmd),
    };
    let args: Vec<String> = entrypoint.iter().chain(cmd).cloned().collect();
    if args.is_empty() {
        return Err(CreateError::NoCommand);
    }
    let or = |own: &String, default: &String| if own.is_empty() { default.clone() } else { own.clone() };
    let signal_text = or(&spec.stop_signal, &defaults.stop_signal);
    let stop_signal = match signal_text.as_str() {
        "" => libc::SIGTERM,
        text => signal::parse(text).ok_or_else(|| CreateError::Invalid(format!("Invalid signal: {text}")))?,
    };
    let workdir = Path::new("/").join(or(&spec.workdir, &defaults.workdir));
    let workdir: PathBuf = workdir.components().filter(|part| *part != Component::CurDir).collect();
    Ok(Invocation {
        args,
        env: environment(&defaults.env, &spec.env),
        user: or(&spec.user, &defaults.user),
        workdir: workdir.to_string_lossy().into_owned(),
        stop_signal,
    })
}

/// The image's variables, changed by the user's: `KEY=VALUE` sets, `KEY` alone removes.
pub(crate) fn environment(image: &[String], own: &[String]) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned()];
    for entry in image.iter().chain(own) {
        let key = entry.split('=').next().unwrap_or_default();
        let same = |other: &String| other.split('=').next() == Some(key);
        match (env.iter().position(same), entry.contains('=')) {
            (Some(at), true) => env[at].clone_from(entry),
            (None, true) => env.push(entry.clone()),
            (Some(at), false) => drop(env.remove(at)),
            (None, false) => {}
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// SVC-10
    #[test]
    fn the_users_variables_change_the_images() {
        let env = environment(&texts(&["PATH=/bin", "A=1", "B=2"]), &texts(&["A=3", "B", "C=", "NEVER"]));
        assert_eq!(env, texts(&["PATH=/bin", "A=3", "C="]));
    }

    #[test]
    fn a_new_entry_point_drops_the_images_arguments() {
        let defaults = ImageDefaults {
            entrypoint: texts(&["/e"]),
            cmd: texts(&["c"]),
            workdir: "srv/./x".into(),
            ..ImageDefaults::default()
        };
        let args = |command: &[&str], args: &[&str]| {
            let spec =
                ContainerSpec { command: texts(command), args: texts(args), ..ContainerSpec::default() };
            invocation(&spec, &defaults).unwrap().args
        };
        assert_eq!(args(&[], &[]), texts(&["/e", "c"]));
        assert_eq!(args(&[], &["x"]), texts(&["/e", "x"]));
        assert_eq!(args(&["/n"], &[]), texts(&["/n"]));
        assert_eq!(args(&["/n"], &["x"]), texts(&["/n", "x"]));
        let settled = invocation(&ContainerSpec::default(), &defaults).unwrap();
        assert_eq!((settled.workdir.as_str(), settled.stop_signal), ("/srv/x", libc::SIGTERM));
        let nothing = invocation(&ContainerSpec::default(), &ImageDefaults::default());
        assert!(matches!(nothing, Err(CreateError::NoCommand)));
    }
}
