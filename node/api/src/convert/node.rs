//! Nodes.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use covey_state::node::{Availability, Node, NodeSpec, Role};

use crate::{
    control::{Liveness, NodeState, View},
    failure::Failure,
    wire::{Meta, ObjectVersion, Time, node as wire, service::Platform},
};

/// The spec of a request.
pub fn from_wire(spec: wire::NodeSpec) -> Result<NodeSpec, Failure> {
    let role = match spec.role.as_str() {
        "worker" => Role::Worker,
        "manager" => Role::Manager,
        other => return Err(Failure::invalid(format!("invalid Role: {other:?}"))),
    };
    Ok(NodeSpec {
        name: spec.name,
        labels: spec.labels,
        role,
        availability: availability(&spec.availability)?,
    })
}

/// Whether a node takes tasks; empty is active.
pub fn availability(text: &str) -> Result<Availability, Failure> {
    match text {
        "" | "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        other => Err(Failure::invalid(format!("invalid Availability: {other:?}"))),
    }
}

/// How a node is, as far as is known.
pub fn liveness(node: &Node, view: &View) -> Liveness {
    let mut liveness = view.nodes.get(&node.id).cloned().unwrap_or_default();
    if node.left {
        liveness = Liveness { state: NodeState::Down, message: "node left the swarm".to_owned(), ..liveness };
    }
    liveness
}

/// A node as the Engine API writes it.
pub fn to_wire(node: &Node, view: &View) -> wire::Node {
    let liveness = liveness(node, view);
    let manager_status = (node.role == Role::Manager).then(|| wire::ManagerStatus {
        leader: liveness.leader,
        reachability: if liveness.reachable { "reachable" } else { "unreachable" },
        addr: node.address.to_string(),
    });
    wire::Node {
        id: node.id.to_string(),
        meta: Meta {
            version: ObjectVersion { index: node.version },
            created_at: Time(node.created_at),
            updated_at: Time(node.updated_at),
        },
        spec: wire::NodeSpec {
            name: node.spec.name.clone(),
            labels: node.spec.labels.clone(),
            role: node.spec.role.as_str().to_owned(),
            availability: node.spec.availability.as_str().to_owned(),
        },
        description: description(node, view),
        status: wire::NodeStatus {
            state: liveness.state.as_str(),
            message: liveness.message,
            addr: node.address.ip().to_string(),
        },
        manager_status,
    }
}

fn description(node: &Node, view: &View) -> wire::NodeDescription {
    let said = &node.description;
    wire::NodeDescription {
        hostname: said.hostname.clone(),
        platform: Platform { architecture: said.platform.architecture.clone(), os: said.platform.os.clone() },
        resources: wire::Resources {
            nano_cpus: said.resources.nano_cpus,
            memory_bytes: said.resources.memory,
        },
        engine: wire::Engine {
            engine_version: said.engine_version.clone(),
            labels: said.engine_labels.clone(),
            plugins: plugins(),
        },
        tls_info: tls_info(view),
    }
}

/// What every node has (NOD-24).
fn plugins() -> Vec<wire::Plugin> {
    let plugin = |kind, name| wire::Plugin { kind, name };
    vec![
        plugin("Log", "json-file"),
        plugin("Network", "bridge"),
        plugin("Network", "host"),
        plugin("Network", "null"),
    ]
}

/// Who signs the members' certificates.
pub fn tls_info(view: &View) -> wire::TlsInfo {
    wire::TlsInfo {
        trust_root: view.store.cluster().map(|c| c.authority.certificate.clone()).unwrap_or_default(),
        cert_issuer_subject: BASE64_STANDARD.encode(&view.issuer.subject),
        cert_issuer_public_key: BASE64_STANDARD.encode(&view.issuer.public_key),
    }
}
