//! Services.

use std::{sync::Arc, time::Duration};

use covey_state::{
    container::{Amount, ContainerSpec, Resources},
    network::AttachmentSpec,
    service::{
        Constraint, FailureAction, Mode, Placement, Platform, RestartCondition, RestartPolicy, Service,
        ServiceSpec, TaskSpec, UpdateConfig, UpdateState, UpdateStatus,
    },
    task::{DesiredState, TaskState},
};

use super::{amount, duration, exposure, health, later, mount, naming, reference::Reference, task};
use crate::{
    control::View,
    failure::Failure,
    wire::{Meta, ObjectVersion, Time, nanos, service as wire},
};

/// Docker's floor for a limit of memory.
const MEMORY_MIN: i64 = 4 << 20;
/// Docker's floor for a part of a CPU.
const NANO_CPUS_MIN: i64 = 1_000_000;
const BILLION: f64 = 1e9;

/// Where a service asks to be.
#[derive(Debug, Default)]
pub struct Places {
    /// In the network of the host of each task.
    pub host: bool,
    /// In these of the cluster.
    pub networks: Vec<AttachmentSpec>,
}

/// The spec of a request. What the client leaves out gets its default here, so that a client that reads a service
/// and writes it back changes nothing. `places` are those of the request.
pub fn from_wire(spec: wire::ServiceSpec, places: Places) -> Result<ServiceSpec, Failure> {
    let spec = ServiceSpec {
        name: spec.name,
        labels: spec.labels,
        task: TaskSpec {
            networks: places.networks,
            host_network: places.host,
            ..task_from_wire(spec.task_template)?
        },
        mode: mode_from_wire(spec.mode)?,
        update: update_from_wire(spec.update_config)?,
        rollback: update_from_wire(spec.rollback_config)?,
        endpoint: exposure::endpoint_from_wire(spec.endpoint_spec)?,
    };
    // Said at once: the store says it too.
    spec.check()?;
    Ok(spec)
}

fn mode_from_wire(mode: wire::ServiceMode) -> Result<Mode, Failure> {
    if mode.global.is_some() {
        return Err(Failure::not_yet("--mode global"));
    }
    if mode.replicated_job.is_some() || mode.global_job.is_some() {
        return Err(Failure::not_yet("a job"));
    }
    Ok(Mode::Replicated { replicas: mode.replicated.and_then(|mode| mode.replicas).unwrap_or(1) })
}

fn task_from_wire(task: wire::TaskSpec) -> Result<TaskSpec, Failure> {
    later::refuse(&task.rest, later::TASK)?;
    if !matches!(task.runtime.as_str(), "" | "container") {
        return Err(Failure::not_yet(format!("a service of runtime {:?}", task.runtime)));
    }
    Ok(TaskSpec {
        container: container_from_wire(task.container_spec)?,
        resources: resources_from_wire(task.resources)?,
        restart: restart_from_wire(task.restart_policy.unwrap_or_default())?,
        placement: placement_from_wire(task.placement)?,
        // By name so far: whoever knows the networks looks them up.
        networks: Vec::new(),
        host_network: false,
        force_update: task.force_update,
    })
}

fn container_from_wire(spec: wire::ContainerSpec) -> Result<ContainerSpec, Failure> {
    later::refuse(&spec.rest, later::CONTAINER_SPEC)?;
    if spec.image.is_empty() {
        return Err(Failure::invalid("ContainerSpec: image reference must be provided"));
    }
    let image = Reference::parse(&spec.image).map_err(|_| {
        Failure::invalid(format!("ContainerSpec: {:?} is not a valid repository/tag", spec.image))
    })?;
    let stop_grace = match spec.stop_grace_period {
        Some(period) => duration(period, "StopGracePeriod")?,
        None => ContainerSpec::STOP_GRACE_DEFAULT,
    };
    Ok(ContainerSpec {
        image: image.tagged().to_string(),
        command: spec.command,
        args: spec.args,
        env: spec.env,
        labels: spec.labels,
        user: spec.user,
        groups: spec.groups,
        workdir: spec.dir,
        hostname: spec.hostname,
        mounts: spec.mounts.into_iter().map(mount::from_wire).collect::<Result<_, _>>()?,
        read_only: spec.read_only,
        stop_signal: spec.stop_signal,
        stop_grace: Some(stop_grace),
        naming: naming::of_service(spec.dns_config, &spec.hosts)?,
        sysctls: spec.sysctls,
        health: spec.healthcheck.map(health::from_wire).transpose()?,
    })
}

fn resources_from_wire(resources: wire::Resources) -> Result<Resources, Failure> {
    let wire::Resources { limits, reservations } = resources;
    later::refuse(&reservations.rest, later::RESERVATION)?;
    Ok(Resources {
        limits: amount_from_wire(limits.nano_cpus, limits.memory_bytes)?,
        reservations: amount_from_wire(reservations.nano_cpus, reservations.memory_bytes)?,
        // -1 is another way to say that there is no limit.
        pids_limit: amount(limits.pids.max(0), "Pids")?,
    })
}

/// CPU and memory of a request, zero or above Docker's floor.
pub fn amount_from_wire(nano_cpus: i64, memory: i64) -> Result<Amount, Failure> {
    if nano_cpus != 0 && nano_cpus < NANO_CPUS_MIN {
        let cpus = nano_cpus as f64 / BILLION;
        return Err(Failure::invalid(format!("invalid cpu value {cpus}: Must be at least 0.001")));
    }
    if memory != 0 && memory < MEMORY_MIN {
        return Err(Failure::invalid(format!("invalid memory value {memory}: Must be at least 4MiB")));
    }
    Ok(Amount { nano_cpus: amount(nano_cpus, "NanoCPUs")?, memory: amount(memory, "MemoryBytes")? })
}

fn restart_from_wire(policy: wire::RestartPolicy) -> Result<RestartPolicy, Failure> {
    let default = RestartPolicy::default();
    let condition = match policy.condition.as_str() {
        "none" => RestartCondition::None,
        "on-failure" => RestartCondition::OnFailure,
        "" | "any" => RestartCondition::Any,
        other => return Err(Failure::invalid(format!("invalid RestartCondition: {other:?}"))),
    };
    let read = |nanos: Option<i64>, what, default| nanos.map_or(Ok(default), |nanos| duration(nanos, what));
    Ok(RestartPolicy {
        condition,
        delay: read(policy.delay, "restart delay", default.delay)?,
        max_attempts: policy.max_attempts.unwrap_or(default.max_attempts),
        window: read(policy.window, "restart window", default.window)?,
    })
}

fn placement_from_wire(placement: wire::Placement) -> Result<Placement, Failure> {
    later::refuse(&placement.rest, later::PLACEMENT)?;
    let constraints = placement.constraints.iter().map(|text| text.parse::<Constraint>());
    let platforms = placement.platforms.into_iter();
    Ok(Placement {
        constraints: constraints
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::invalid(error.to_string()))?,
        platforms: platforms.map(|p| Platform { os: p.os, architecture: p.architecture }).collect(),
    })
}

fn update_from_wire(config: Option<wire::UpdateConfig>) -> Result<UpdateConfig, Failure> {
    let default = UpdateConfig::default();
    let Some(config) = config else {
        return Ok(default);
    };
    let failure_action = match config.failure_action.as_str() {
        "" | "pause" => FailureAction::Pause,
        "continue" => FailureAction::Continue,
        "rollback" => return Err(Failure::not_yet("--update-failure-action rollback")),
        other => return Err(Failure::invalid(format!("unrecognized update failure action {other}"))),
    };
    match config.order.as_str() {
        "" | "stop-first" => {}
        "start-first" => return Err(Failure::not_yet("--update-order start-first")),
        other => return Err(Failure::invalid(format!("unrecognized update order {other}"))),
    }
    if !(0.0..=1.0).contains(&config.max_failure_ratio) {
        return Err(Failure::invalid("update-maxfailureratio cannot be less than 0 or bigger than 1"));
    }
    let monitor = duration(config.monitor, "update monitor")?;
    Ok(UpdateConfig {
        parallelism: config.parallelism,
        delay: duration(config.delay, "update delay")?,
        failure_action,
        monitor: if monitor == Duration::ZERO { default.monitor } else { monitor },
        max_failure_billionths: (config.max_failure_ratio * BILLION) as u32,
    })
}

/// The spec as the Engine API writes it, defaults included (SVC-17).
pub fn to_wire(spec: &ServiceSpec) -> wire::ServiceSpec {
    let Mode::Replicated { replicas } = spec.mode;
    wire::ServiceSpec {
        name: spec.name.clone(),
        labels: spec.labels.clone(),
        task_template: task_to_wire(&spec.task),
        mode: wire::ServiceMode {
            replicated: Some(wire::Replicated { replicas: Some(replicas) }),
            ..wire::ServiceMode::default()
        },
        update_config: Some(update_to_wire(&spec.update)),
        rollback_config: Some(update_to_wire(&spec.rollback)),
        endpoint_spec: Some(exposure::endpoint_to_wire(&spec.endpoint)),
        networks: Vec::new(),
    }
}

/// The task template as the Engine API writes it.
pub fn task_to_wire(spec: &TaskSpec) -> wire::TaskSpec {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let Resources { limits, reservations, pids_limit } = spec.resources;
    wire::TaskSpec {
        container_spec: container_to_wire(&spec.container),
        resources: wire::Resources {
            limits: wire::Limit {
                nano_cpus: signed(limits.nano_cpus),
                memory_bytes: signed(limits.memory),
                pids: signed(pids_limit),
            },
            reservations: wire::Reservation {
                nano_cpus: signed(reservations.nano_cpus),
                memory_bytes: signed(reservations.memory),
                ..wire::Reservation::default()
            },
        },
        restart_policy: Some(restart_to_wire(spec.restart)),
        placement: placement_to_wire(&spec.placement),
        force_update: spec.force_update,
        networks: exposure::networks_to_wire(spec),
        runtime: "container".to_owned(),
        rest: crate::wire::Rest::new(),
    }
}

fn container_to_wire(spec: &ContainerSpec) -> wire::ContainerSpec {
    wire::ContainerSpec {
        image: spec.image.clone(),
        labels: spec.labels.clone(),
        command: spec.command.clone(),
        args: spec.args.clone(),
        hostname: spec.hostname.clone(),
        env: spec.env.clone(),
        dir: spec.workdir.clone(),
        user: spec.user.clone(),
        groups: spec.groups.clone(),
        stop_signal: spec.stop_signal.clone(),
        read_only: spec.read_only,
        mounts: spec.mounts.iter().map(mount::to_wire).collect(),
        stop_grace_period: Some(nanos(spec.stop_grace())),
        healthcheck: spec.health.as_ref().map(health::to_wire),
        hosts: naming::lines(&spec.naming),
        dns_config: naming::dns_config(&spec.naming),
        sysctls: spec.sysctls.clone(),
        ..wire::ContainerSpec::default()
    }
}

fn restart_to_wire(policy: RestartPolicy) -> wire::RestartPolicy {
    let condition = match policy.condition {
        RestartCondition::None => "none",
        RestartCondition::OnFailure => "on-failure",
        RestartCondition::Any => "any",
    };
    wire::RestartPolicy {
        condition: condition.to_owned(),
        delay: Some(nanos(policy.delay)),
        max_attempts: Some(policy.max_attempts),
        window: (policy.window != Duration::ZERO).then(|| nanos(policy.window)),
    }
}

fn placement_to_wire(placement: &Placement) -> wire::Placement {
    let platform = |p: &Platform| wire::Platform { architecture: p.architecture.clone(), os: p.os.clone() };
    wire::Placement {
        constraints: placement.constraints.iter().map(ToString::to_string).collect(),
        platforms: placement.platforms.iter().map(platform).collect(),
        ..wire::Placement::default()
    }
}

fn update_to_wire(config: &UpdateConfig) -> wire::UpdateConfig {
    let failure_action = match config.failure_action {
        FailureAction::Pause => "pause",
        FailureAction::Continue => "continue",
    };
    wire::UpdateConfig {
        parallelism: config.parallelism,
        delay: nanos(config.delay),
        failure_action: failure_action.to_owned(),
        monitor: nanos(config.monitor),
        max_failure_ratio: f64::from(config.max_failure_billionths) / BILLION,
        order: "stop-first".to_owned(),
    }
}

/// The state of a roll-out as the Engine API writes it.
pub fn update_state(state: UpdateState) -> &'static str {
    match state {
        UpdateState::Updating => "updating",
        UpdateState::Paused => "paused",
        UpdateState::Completed => "completed",
    }
}

fn update_status(status: &UpdateStatus) -> wire::UpdateStatus {
    wire::UpdateStatus {
        state: update_state(status.state),
        started_at: Time(status.started_at),
        completed_at: status.completed_at.map(Time),
        message: status.message.clone(),
    }
}

/// A service as the Engine API writes it, on request with its status.
pub fn service_to_wire(service: &Arc<Service>, view: &View, with_status: bool) -> wire::Service {
    wire::Service {
        id: service.id.to_string(),
        meta: Meta {
            version: ObjectVersion { index: service.version },
            created_at: Time(service.created_at),
            updated_at: Time(service.updated_at),
        },
        spec: to_wire(&service.spec),
        previous_spec: service.previous_spec.as_deref().map(to_wire),
        endpoint: exposure::exposure_to_wire(service, view),
        update_status: service.update_status.as_ref().map(update_status),
        service_status: with_status.then(|| service_status(service, view)),
    }
}

/// How many tasks run, of how many.
fn service_status(service: &Service, view: &View) -> wire::ServiceStatus {
    let Mode::Replicated { replicas } = service.spec.mode;
    let running = view.store.tasks_of_service(service.id).filter(|task| {
        task.desired == DesiredState::Running && task::status(task, view).state == TaskState::Running
    });
    wire::ServiceStatus { running_tasks: running.count() as u64, desired_tasks: replicas, completed_tasks: 0 }
}
