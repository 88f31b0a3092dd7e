//! Placeholders of a service's containers: `{{.Task.Name}}` in environment, host name and mount sources.

use covey_state::{
    Id,
    assignment::Assignment,
    container::{ContainerSpec, MountKind},
};

/// The node that a task runs on, as placeholders name it.
#[derive(Clone, Debug)]
pub struct NodeNames {
    /// `{{.Node.ID}}`
    pub id: Id,
    /// `{{.Node.Hostname}}`
    pub hostname: String,
}

/// The container of `assignment` on `node`, with its placeholders filled in. A text that is none of the known
/// placeholders stays as it is.
pub fn expand(assignment: &Assignment, node: &NodeNames) -> ContainerSpec {
    let values = [
        ("Service.ID", assignment.service.to_string()),
        ("Service.Name", assignment.service_name.to_string()),
        ("Node.ID", node.id.to_string()),
        ("Node.Hostname", node.hostname.clone()),
        ("Task.ID", assignment.task.to_string()),
        ("Task.Name", assignment.container_name()),
        ("Task.Slot", assignment.slot.to_string()),
    ];
    let fill = |text: &mut String| {
        if text.contains("{{") {
            *text = replace(text, &values);
        }
    };
    let mut container = assignment.spec.container.clone();
    container.env.iter_mut().for_each(fill);
    fill(&mut container.hostname);
    for mount in &mut container.mounts {
        if let MountKind::Bind { source } = &mut mount.kind {
            fill(source);
        }
    }
    container
}

fn replace(text: &str, values: &[(&str, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let Some(length) = rest[start..].find("}}") else { break };
        let name = rest[start + 2..start + length].trim();
        let value = name.strip_prefix('.').and_then(|name| values.iter().find(|(known, _)| *known == name));
        out.push_str(&rest[..start]);
        out.push_str(value.map_or(&rest[start..start + length + 2], |(_, value)| value));
        rest = &rest[start + length + 2..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use covey_state::{service::TaskSpec, task::DesiredState};

    use super::*;

    #[test]
    fn known_placeholders_are_filled_in_and_others_stay() {
        let spec = TaskSpec {
            container: ContainerSpec {
                env: vec!["A={{.Task.Slot}}-{{ .Service.Name }}".into(), "B={{.Other}} {{".into()],
                hostname: "{{.Node.Hostname}}".into(),
                ..ContainerSpec::default()
            },
            ..TaskSpec::default()
        };
        let assignment = Assignment {
            task: Id::new(1),
            service: Id::new(2),
            service_name: "web".into(),
            slot: 3,
            spec: Arc::new(spec),
            desired: DesiredState::Running,
            edge: true,
            networks: Vec::new(),
            ports: Vec::new(),
            exposure: Arc::default(),
        };
        let container = expand(&assignment, &NodeNames { id: Id::new(4), hostname: "m1".into() });
        assert_eq!(container.env, ["A=3-web", "B={{.Other}} {{"]);
        assert_eq!(container.hostname, "m1");
    }
}
