//! Plain containers.

mod network;

use std::{net::IpAddr, time::Duration};

use covey_state::{
    container::{Amount, ContainerSpec, HealthStatus, Mount, MountKind, Naming, Resources, check_sysctls},
    time::Stamp,
};

use self::network::check_shared;
pub use self::network::{Wanted, wanted};
use super::{amount, health, later, mount, naming, port, service::amount_from_wire};
use crate::{
    engine::{Container, ContainerState, CreateContainer, Join, Network},
    failure::Failure,
    wire::{Empty, Time, container as wire},
};

/// The one storage driver that there is, as Docker calls it.
pub const STORAGE_DRIVER: &str = "overlay2";
/// Characters of a command in a list.
const COMMAND_CHARS_MAX: usize = 512;

/// The container of a request, with the places that it is to have in networks, by the names of these. `image_ports` are
/// those that its image says it serves, `gateway` where it reaches its host.
pub fn from_wire(
    request: wire::CreateRequest,
    name: &str,
    mode: Option<Network>,
    places: Vec<(String, Join)>,
    image_ports: &[String],
    gateway: Option<IpAddr>,
) -> Result<CreateContainer, Failure> {
    let wire::CreateRequest { config, host_config: mut host, .. } = request;
    later::refuse(&config.rest, later::CONFIG)?;
    later::refuse(&host.rest, later::HOST_CONFIG)?;
    if config.tty {
        return Err(Failure::not_yet("--tty"));
    }
    if !matches!(host.restart_policy.name.as_str(), "" | "no") {
        return Err(Failure::not_yet("--restart"));
    }
    if config.image.is_empty() {
        return Err(Failure::invalid("no image specified"));
    }
    if !config.domainname.is_empty() {
        return Err(Failure::not_yet("--domainname"));
    }
    check_name(name)?;
    if matches!(mode, Some(Network::Container(_))) {
        check_shared(&config, &host)?;
    }
    let naming = naming::of_container(&host, gateway)?;
    check_sysctls(&host.sysctls).map_err(|error| Failure::invalid(error.to_string()))?;
    let exposed = network::exposed(image_ports.iter().chain(config.exposed_ports.keys()))?;
    let bindings = std::mem::take(&mut host.port_bindings);
    let ports = port::from_bindings(bindings, host.publish_all_ports, &exposed)?;
    // The host's own network needs nothing published, and without a network nothing is reached: Docker drops them too.
    let has_ports = !matches!(mode, Some(Network::Host | Network::None | Network::Container(_)));
    let named = || Network::Named(places.first().map(|(name, _)| name.clone()).unwrap_or_default());
    Ok(CreateContainer {
        name: name.to_owned(),
        resources: Resources {
            limits: amount_from_wire(host.nano_cpus, host.memory)?,
            reservations: Amount {
                nano_cpus: 0,
                memory: amount(host.memory_reservation, "MemoryReservation")?,
            },
            pids_limit: amount(host.pids_limit.max(0), "PidsLimit")?,
        },
        open_stdin: config.open_stdin,
        auto_remove: host.auto_remove,
        network: mode.unwrap_or_else(named),
        networks: places.into_iter().map(|(_, join)| join).collect(),
        ports: if has_ports { ports } else { Vec::new() },
        exposed: network::exposed(config.exposed_ports.keys())?,
        spec: ContainerSpec { naming, ..spec(config, host)? },
    })
}

fn spec(config: wire::Config, host: wire::HostConfig) -> Result<ContainerSpec, Failure> {
    let mut mounts: Vec<Mount> = host.mounts.into_iter().map(mount::from_wire).collect::<Result<_, _>>()?;
    for bind in &host.binds {
        mounts.push(mount::from_bind(bind)?);
    }
    for (target, options) in &host.tmpfs {
        mounts.push(mount::from_tmpfs(target, options)?);
    }
    let mut targets: Vec<_> = mounts.iter().map(|mount| &mount.target).collect();
    targets.sort_unstable();
    if let Some(twice) = targets.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Failure::invalid(format!("Duplicate mount point: {}", twice[0])));
    }
    let grace = config.stop_timeout.map(|seconds| amount(seconds, "StopTimeout")).transpose()?;
    Ok(ContainerSpec {
        image: config.image,
        command: config.entrypoint,
        args: config.cmd,
        env: config.env,
        labels: config.labels,
        user: config.user,
        groups: host.group_add,
        workdir: config.working_dir,
        hostname: config.hostname,
        mounts,
        read_only: host.readonly_rootfs,
        stop_signal: config.stop_signal,
        stop_grace: grace.map(Duration::from_secs),
        naming: Naming::default(),
        sysctls: host.sysctls,
        health: config.healthcheck.map(health::from_wire).transpose()?,
    })
}

fn check_name(name: &str) -> Result<(), Failure> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let fine = name.bytes().next().is_none_or(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(inner)
        && name.len() != 1
        && name.len() <= 255;
    if fine {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

/// A container in a list, as of `now`; `host` is the id of this host's daemon.
pub fn summary(container: &Container, host: &str, now: Stamp) -> wire::Summary {
    wire::Summary {
        id: container.id.clone(),
        names: vec![format!("/{}", container.name)],
        image: container.spec.image.clone(),
        image_id: container.image_id.clone(),
        command: container.argv.join(" ").chars().take(COMMAND_CHARS_MAX).collect(),
        created: container.created_at.0.div_euclid(1_000_000_000),
        ports: network::ports(container),
        labels: container.spec.labels.clone(),
        state: container.state.as_str(),
        status: status(container, now),
        host_config: wire::SummaryHostConfig { network_mode: container.network.to_string() },
        network_settings: network::settings(container, host),
        mounts: mount_points(container),
    }
}

/// A container by itself; `host` is the id of this host's daemon.
pub fn inspect(container: &Container, host: &str) -> wire::Inspect {
    let (path, args) =
        container.argv.split_first().map_or_else(Default::default, |(path, args)| (path.clone(), args));
    let is = |state| container.state == state;
    wire::Inspect {
        id: container.id.clone(),
        created: Time(container.created_at),
        path,
        args: args.to_vec(),
        state: wire::State {
            status: container.state.as_str(),
            running: is(ContainerState::Running),
            paused: false,
            restarting: false,
            oom_killed: container.oom_killed,
            dead: is(ContainerState::Dead),
            pid: container.pid,
            exit_code: container.exit_code,
            error: container.error.clone(),
            started_at: Time::text_or_never(container.started_at),
            finished_at: Time::text_or_never(container.finished_at),
            health: container.health.as_ref().map(health::state),
        },
        image: container.image_id.clone(),
        log_path: container.log_path.clone(),
        name: format!("/{}", container.name),
        restart_count: 0,
        driver: STORAGE_DRIVER,
        platform: "linux",
        host_config: host_config(container).into(),
        mounts: mount_points(container),
        config: config(container),
        network_settings: network::settings(container, host),
    }
}

fn config(container: &Container) -> wire::Config {
    let spec = &container.spec;
    wire::Config {
        hostname: spec.hostname.clone(),
        user: spec.user.clone(),
        attach_stdin: container.open_stdin,
        attach_stdout: true,
        attach_stderr: true,
        open_stdin: container.open_stdin,
        env: container.env.clone(),
        cmd: spec.args.clone(),
        image: spec.image.clone(),
        working_dir: spec.workdir.clone(),
        entrypoint: spec.command.clone(),
        labels: spec.labels.clone(),
        exposed_ports: (container.exposed.iter())
            .map(|exposed| (port::text(exposed.port, exposed.protocol), Empty {}))
            .collect(),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: spec.stop_grace.and_then(|grace| i64::try_from(grace.as_secs()).ok()),
        // One that is off is shown as it was asked for.
        healthcheck: container.health_check.as_ref().or(spec.health.as_ref()).map(health::to_wire),
        ..wire::Config::default()
    }
}

fn host_config(container: &Container) -> wire::HostConfig {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let Resources { limits, reservations, pids_limit } = container.resources;
    wire::HostConfig {
        network_mode: container.network.to_string(),
        port_bindings: network::bindings(container),
        dns: naming::texts(&container.spec.naming.servers),
        dns_options: container.spec.naming.options.clone(),
        dns_search: container.spec.naming.search.clone(),
        extra_hosts: naming::extra_hosts(&container.spec.naming),
        restart_policy: wire::RestartPolicy { name: "no".to_owned(), maximum_retry_count: 0 },
        auto_remove: container.auto_remove,
        readonly_rootfs: container.spec.read_only,
        group_add: container.spec.groups.clone(),
        mounts: container.spec.mounts.iter().map(mount::to_wire).collect(),
        memory: signed(limits.memory),
        memory_reservation: signed(reservations.memory),
        nano_cpus: signed(limits.nano_cpus),
        pids_limit: signed(pids_limit),
        sysctls: container.spec.sysctls.clone(),
        ..wire::HostConfig::default()
    }
}

fn mount_points(container: &Container) -> Vec<wire::MountPoint> {
    let point = |mount: &Mount| {
        let (kind, source, propagation) = match &mount.kind {
            MountKind::Bind { source } => ("bind", source.clone(), "rprivate"),
            MountKind::Tmpfs { .. } => ("tmpfs", String::new(), ""),
        };
        wire::MountPoint {
            kind,
            source,
            destination: mount.target.clone(),
            mode: if mount.read_only { "ro" } else { "" },
            writable: !mount.read_only,
            propagation,
        }
    };
    container.spec.mounts.iter().map(point).collect()
}

/// `Up 5 seconds (healthy)`, `Exited (0) 3 minutes ago`.
fn status(container: &Container, now: Stamp) -> String {
    let age = |since: Option<Stamp>| in_words(now.since(since.unwrap_or(now)));
    match container.state {
        ContainerState::Created => "Created".to_owned(),
        ContainerState::Running => {
            let health = match container.health.as_ref().map(|health| health.status) {
                None => String::new(),
                Some(HealthStatus::Starting) => " (health: starting)".to_owned(),
                Some(known) => format!(" ({})", known.as_str()),
            };
            format!("Up {}{health}", age(container.started_at))
        }
        ContainerState::Exited => {
            format!("Exited ({}) {} ago", container.exit_code, age(container.finished_at))
        }
        ContainerState::Dead => "Dead".to_owned(),
    }
}

/// A duration in one unit, as Docker's tables have it.
fn in_words(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ => match (minutes, hours) {
            (1, _) => "About a minute".to_owned(),
            (2..60, _) => format!("{minutes} minutes"),
            (_, 1) => "About an hour".to_owned(),
            (_, 2..48) => format!("{hours} hours"),
            (_, 48..336) => format!("{} days", hours / 24),
            (_, 336..1440) => format!("{} weeks", hours / 168),
            (_, 1440..8760) => format!("{} months", hours / 720),
            _ => format!("{} years", hours / 8760),
        },
    }
}

#[cfg(test)]
mod tests {
    use covey_state::container::Health;

    use super::*;

    /// CTR-04
    #[test]
    fn ages_are_told_in_words() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (3 * 60, "3 minutes"),
            (3600, "About an hour"),
            (26 * 3600, "26 hours"),
            (49 * 3600, "2 days"),
            (15 * 86400, "2 weeks"),
            (90 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }

    /// CTR-04, TSK-14
    #[test]
    fn the_status_of_a_container_is_a_sentence() {
        let at = |seconds: i64| Stamp(seconds * 1_000_000_000);
        let mut container =
            Container { state: ContainerState::Running, started_at: Some(at(10)), ..Container::default() };
        assert_eq!(status(&container, at(15)), "Up 5 seconds");
        for (health, said) in [
            (HealthStatus::Starting, "health: starting"),
            (HealthStatus::Healthy, "healthy"),
            (HealthStatus::Unhealthy, "unhealthy"),
        ] {
            container.health = Some(Health { status: health, ..Health::default() });
            assert_eq!(status(&container, at(15)), format!("Up 5 seconds ({said})"));
        }
        container.state = ContainerState::Exited;
        container.exit_code = 137;
        container.finished_at = Some(at(20));
        assert_eq!(status(&container, at(200)), "Exited (137) 3 minutes ago");
    }

    /// CTR-03
    #[test]
    fn names_are_checked() {
        for name in ["", "web", "a1", "web.1.abc", "A_b-c"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["a", "-a", "a b", "a/b", "é!"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
