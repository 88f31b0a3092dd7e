//! What tests of worker and controller begin with.

use std::sync::Arc;

use covey_state::{Id, assignment::Assignment, task::DesiredState};

/// A task that needs nothing.
pub fn assignment(task: u128, desired: DesiredState) -> Assignment {
    Assignment {
        task: Id::new(task),
        service: Id::new(99),
        service_name: "web".into(),
        slot: 1,
        spec: Arc::default(),
        desired,
        edge: true,
        networks: Vec::new(),
        ports: Vec::new(),
        exposure: Arc::default(),
    }
}
