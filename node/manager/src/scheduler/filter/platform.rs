//! A node is one of the machines that the image was built for (SCH-23).

use covey_state::{service::Platform, task::Task};

use crate::scheduler::load::Candidate;

pub(super) fn check(task: &Task, node: &Candidate) -> bool {
    let platforms = &task.spec.placement.platforms;
    let machine = &node.node.description.platform;
    platforms.is_empty() || platforms.iter().any(|wanted| runs_on(wanted, machine))
}

fn runs_on(wanted: &Platform, machine: &Platform) -> bool {
    let matches = |wanted: &str, has: &str| wanted.is_empty() || canonical(wanted) == canonical(has);
    matches(&wanted.os, &machine.os) && matches(&wanted.architecture, &machine.architecture)
}

/// Kernels and Go name the same processors differently.
fn canonical(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(super) fn explain(count: usize) -> String {
    format!("{count} of another platform")
}
