//! Containers: made, stopped, removed, shown, and their logs.

use std::{collections::BTreeMap, time::Duration};

use covey_api::{
    Failure,
    engine::{Container, ContainerState, CreateContainer, Network},
    log::{LogLine, LogQuery, Output},
};
use covey_runtime::{self as runtime, ExitStatus, LookupError, NetworkMode, OperationError};
use covey_state::{
    container::{ContainerSpec, Health, HealthStatus},
    network::PublishMode,
    time::Stamp,
};
use futures_util::{StreamExt as _, stream::BoxStream};

use super::{LocalEngine, failure, network};

impl LocalEngine {
    pub(super) async fn create_container(&self, request: CreateContainer) -> Result<String, Failure> {
        let (wiring, entered) = self.wire(&request).await?;
        let mut spec = request.spec;
        let network = match &request.network {
            Network::Bridge | Network::Named(_) => NetworkMode::Edge,
            Network::Host => NetworkMode::Host,
            Network::None => NetworkMode::None,
            Network::Container(other) => {
                let other = self.runtime.inspect(other).map_err(failure::lookup)?;
                // Who has the names of another has its host name.
                spec.hostname = other.hostname;
                NetworkMode::Container(other.id)
            }
        };
        let exposed = request.exposed.iter();
        let wanted = runtime::CreateContainer {
            name: request.name,
            spec,
            resources: request.resources,
            labels: BTreeMap::new(),
            open_stdin: request.open_stdin,
            auto_remove: request.auto_remove,
            task: None,
            network,
            wiring,
            exposed_ports: exposed.map(|port| format!("{}/{}", port.port, port.protocol)).collect(),
        };
        let id = self.runtime.create(wanted).await.map_err(failure::create)?;
        entered.keep();
        Ok(id.to_string())
    }

    pub(super) async fn start_container(&self, id: String) -> Result<(), Failure> {
        self.check_networks(&id).await?;
        self.runtime.start(&id).await.map_err(failure::start)
    }

    pub(super) async fn stop_container(&self, id: String, grace: Option<Duration>) -> Result<(), Failure> {
        let container = self.runtime.inspect(&id).map_err(failure::lookup)?;
        if container.state != runtime::ContainerState::Running {
            return Err(Failure::not_modified());
        }
        self.runtime.stop(&id, grace).await.map_err(failure::operation)
    }

    pub(super) async fn remove_container(&self, id: String, force: bool) -> Result<(), Failure> {
        self.runtime.find(&id).map_err(failure::lookup)?;
        let places = self.places_of(&id);
        match self.runtime.remove(&id, force).await {
            // It was there a moment ago: it has removed itself at its end.
            Ok(()) | Err(OperationError::Lookup(LookupError::NotFound(_))) => {}
            Err(error) => return Err(failure::operation(error)),
        }
        self.daemon.places.give_back(places).await;
        Ok(())
    }

    pub(super) fn container_logs(
        &self,
        id: &str,
        query: LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, Failure>>, Failure> {
        let lines = self.runtime.logs(id, log_query(query)).map_err(failure::operation)?;
        Ok(lines.map(|line| line.map(log_line).map_err(|error| failure::internal(&error))).boxed())
    }
}

/// A container as the API shows it.
pub(super) fn to_api(container: runtime::Container) -> Container {
    let (kind, endpoints) = (network::kind(&container), network::endpoints(&container));
    let exposed = network::exposed(&container);
    let (state, exit) = match container.state {
        runtime::ContainerState::Created => (ContainerState::Created, None),
        runtime::ContainerState::Running => (ContainerState::Running, None),
        runtime::ContainerState::Exited(exit) => (ContainerState::Exited, Some(exit)),
    };
    let ExitStatus { code, oom_killed, error, .. } =
        exit.unwrap_or(ExitStatus { code: 0, oom_killed: false, error: String::new(), at: Stamp::default() });
    Container {
        network: kind,
        endpoints,
        exposed,
        ingress: container.wiring.ports.iter().any(|port| port.mode == PublishMode::Ingress),
        published: container
            .wiring
            .ports
            .iter()
            .filter(|port| port.mode == PublishMode::Host)
            .cloned()
            .collect(),
        ports: container.ports,
        id: container.id.to_string(),
        name: container.name,
        spec: ContainerSpec { hostname: container.hostname, ..container.spec },
        resources: container.resources,
        image_id: container.image.id,
        argv: container.invocation.args,
        env: container.invocation.env,
        created_at: container.created,
        state,
        pid: container.pid,
        exit_code: code,
        oom_killed,
        error,
        started_at: container.started_at,
        finished_at: container.finished_at,
        open_stdin: container.open_stdin,
        auto_remove: container.auto_remove,
        log_path: container.log.to_string_lossy().into_owned(),
        health_check: container.health_check,
        health: container.health.map(|found| health(found, state)),
    }
}

/// Who no longer runs is not well, whatever the last check said.
fn health(health: Health, state: ContainerState) -> Health {
    match state {
        ContainerState::Running => health,
        _ => Health { status: HealthStatus::Unhealthy, ..health },
    }
}

fn log_query(query: LogQuery) -> runtime::LogQuery {
    runtime::LogQuery {
        follow: query.follow,
        since: query.since,
        // The API's end is the first moment that is not wanted, the runtime's the last that is.
        until: query.until.map(|until| Stamp(until.0.saturating_sub(1))),
        tail: query.tail.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
        stdout: query.stdout,
        stderr: query.stderr,
    }
}

fn log_line(line: runtime::LogLine) -> LogLine {
    let output = if line.stderr { Output::Stderr } else { Output::Stdout };
    LogLine { at: line.at, output, text: line.bytes }
}

#[cfg(test)]
mod tests {
    use covey_state::container::Checked;

    use super::*;

    /// TSK-14
    #[test]
    fn what_was_found_of_a_container_is_shown_while_it_runs() {
        let checked = Checked { start: Stamp(1), end: Stamp(2), exit_code: 0, output: "ok".to_owned() };
        let found = Health { status: HealthStatus::Healthy, failing_streak: 0, log: vec![checked] };
        let shown = health(found.clone(), ContainerState::Running);
        assert_eq!(
            (shown.status, shown.log[0].end, shown.log[0].output.as_str()),
            (HealthStatus::Healthy, Stamp(2), "ok")
        );
        assert_eq!(health(found, ContainerState::Exited).status, HealthStatus::Unhealthy);
    }
}
