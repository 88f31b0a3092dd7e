//! The checker of plans: whatever the stages decide, these things never happen.

use std::{collections::BTreeSet, fmt};

use covey_state::{Id, Store, command::Command, task::Task};

use crate::observed::Observed;

/// A plan would break an invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A task would change its node (TSK-04).
    Moved(Id),
    /// Less would be wanted of a task than before.
    Revived(Id),
    /// A task would change its service, its slot, its spec, its ports or its addresses.
    Altered(Id),
    /// A task would want a port of its host that another one there has.
    Crowded(Id),
    /// Two tasks of one slot would be wanted running.
    Doubled {
        /// The service.
        service: Id,
        /// The slot.
        slot: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moved(task) => write!(f, "the plan moves task {task} to another node"),
            Self::Revived(task) => write!(f, "the plan wants less of task {task} than before"),
            Self::Altered(task) => write!(f, "the plan makes another task of task {task}"),
            Self::Crowded(task) => {
                write!(f, "the plan gives task {task} a node where its host ports are taken")
            }
            Self::Doubled { service, slot } => {
                write!(f, "the plan runs two tasks in slot {slot} of service {service}")
            }
        }
    }
}

/// Compares the store with what a plan makes of it.
pub(crate) fn check(
    before: &Store,
    after: &Store,
    observed: &Observed,
    commands: &[Command],
) -> Result<(), Violation> {
    let touched: BTreeSet<Id> = commands.iter().filter_map(task_of).collect();
    let mut slots = BTreeSet::new();
    for id in touched {
        let Some(new) = after.task(id) else { continue };
        if let Some(old) = before.task(id) {
            check_task(old, new)?;
        }
        let placed = before.task(id).is_none_or(|old| old.node != new.node);
        if placed && is_crowded(after, observed, new) {
            return Err(Violation::Crowded(id));
        }
        if new.is_wanted_running() {
            slots.insert((new.service, new.slot));
        }
    }
    for (service, slot) in slots {
        if after.tasks_of_slot(service, slot).filter(|task| task.is_wanted_running()).count() > 1 {
            return Err(Violation::Doubled { service, slot });
        }
    }
    Ok(())
}

fn check_task(old: &Task, new: &Task) -> Result<(), Violation> {
    if old.node.is_some() && old.node != new.node {
        return Err(Violation::Moved(new.id));
    }
    if new.desired < old.desired {
        return Err(Violation::Revived(new.id));
    }
    let is_same = (old.service, old.slot, old.spec_version) == (new.service, new.slot, new.spec_version)
        && (&old.ports, old.edge) == (&new.ports, new.edge)
        && (old.attachments.is_empty() || old.attachments == new.attachments);
    if is_same { Ok(()) } else { Err(Violation::Altered(new.id)) }
}

/// Another task of its node may still have a port of the host that it wants.
fn is_crowded(store: &Store, observed: &Observed, task: &Task) -> bool {
    let Some(node) = task.node.filter(|_| !task.ports.is_empty()) else { return false };
    let ended = |other: &Task| {
        let seen = observed.task(other.id).is_some_and(|seen| seen.state.is_terminal());
        other.status.state.is_terminal() || seen
    };
    let meets =
        |other: &Task| task.ports.iter().any(|port| other.ports.iter().any(|taken| port.meets(taken)));
    store.tasks_on_node(node).any(|other| other.id != task.id && !ended(other) && meets(other))
}

fn task_of(command: &Command) -> Option<Id> {
    match command {
        Command::CreateTask { id, .. }
        | Command::AllocateTask { id }
        | Command::AssignTask { id, .. }
        | Command::ExplainTask { id, .. }
        | Command::SetTaskDesired { id, .. }
        | Command::FinishTask { id, .. }
        | Command::RemoveTask { id } => Some(*id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use covey_state::{
        cluster::{Authority, ClusterSpec, JoinSecrets},
        command::Proposal,
        network::{EndpointSpec, PublishMode, PublishedPort},
        node::{Availability, NodeDescription, NodeSpec, Role},
        service::{Mode, ServiceSpec, TaskSpec, UpdateConfig},
        task::{DesiredState, TaskState},
        time::Stamp,
    };

    use super::*;

    fn check(before: &Store, after: &Store, commands: &[Command]) -> Result<(), Violation> {
        super::check(before, after, &Observed::new(Stamp(0)), commands)
    }

    const SERVICE: Id = Id::new(1);

    fn apply(store: &mut Store, commands: &[Command]) {
        let proposal = Proposal { planned_at: None, commands: commands.to_vec() };
        store.apply(store.last_changed() + 1, Stamp(1), &proposal).unwrap();
    }

    fn create(task: u128, desired: DesiredState) -> Command {
        Command::CreateTask { id: Id::new(task), service: SERVICE, slot: 1, desired, not_before: None }
    }

    fn store_with_service() -> Store {
        let mut task = TaskSpec::default();
        "web:1".clone_into(&mut task.container.image);
        let spec = ServiceSpec {
            name: "web".to_owned(),
            labels: BTreeMap::new(),
            task,
            mode: Mode::Replicated { replicas: 1 },
            update: UpdateConfig::default(),
            rollback: UpdateConfig::default(),
            endpoint: EndpointSpec::default(),
        };
        let mut store = Store::default();
        apply(&mut store, &[Command::CreateService { id: SERVICE, spec }]);
        store
    }

    /// TSK-12: a replacement may wait beside the old task, never run beside it.
    #[test]
    fn two_tasks_wanted_running_in_one_slot_are_found() {
        let before = store_with_service();
        let mut commands = vec![create(7, DesiredState::Running), create(8, DesiredState::Ready)];
        let mut after = before.clone();
        apply(&mut after, &commands);
        assert_eq!(check(&before, &after, &commands), Ok(()));
        commands.push(Command::SetTaskDesired { id: Id::new(8), desired: DesiredState::Running });
        apply(&mut after, &commands[2..]);
        let doubled = Violation::Doubled { service: SERVICE, slot: 1 };
        assert_eq!(check(&before, &after, &commands), Err(doubled));
    }

    /// TSK-03, TSK-04
    #[test]
    fn a_task_that_moves_or_goes_back_or_becomes_another_is_found() {
        let mut before = store_with_service();
        let stop = Command::SetTaskDesired { id: Id::new(7), desired: DesiredState::Shutdown };
        apply(&mut before, &[create(7, DesiredState::Running), stop]);
        let mut old = (**before.task(Id::new(7)).unwrap()).clone();
        old.node = Some(Id::new(3));
        old.status.state = TaskState::Assigned;
        assert_eq!(check_task(&old, &old), Ok(()));
        let moved = Task { node: Some(Id::new(4)), ..old.clone() };
        assert_eq!(check_task(&old, &moved), Err(Violation::Moved(old.id)));
        let revived = Task { desired: DesiredState::Running, ..old.clone() };
        assert_eq!(check_task(&old, &revived), Err(Violation::Revived(old.id)));
        for altered in [Task { slot: 2, ..old.clone() }, Task { edge: false, ..old.clone() }] {
            assert_eq!(check_task(&old, &altered), Err(Violation::Altered(old.id)));
        }
    }

    /// PRT-09
    #[test]
    fn two_tasks_with_one_port_of_a_host_are_found() {
        let node = Id::new(3);
        let before = crowded(node);
        let assign = |task| Command::AssignTask { id: Id::new(task), node };
        let mut after = before.clone();
        let commands = [assign(8)];
        apply(&mut after, &commands);
        assert_eq!(check(&before, &after, &commands), Err(Violation::Crowded(Id::new(8))));
        let mut observed = Observed::new(Stamp(0));
        let mut seen = before.task(Id::new(7)).unwrap().status.clone();
        seen.state = TaskState::Shutdown;
        observed.handle_task(Id::new(7), seen);
        assert_eq!(super::check(&before, &after, &observed, &commands), Ok(()), "it has ended already");
    }

    /// A node with a task that has port 80 of it, and another such task without a node.
    fn crowded(node: Id) -> Store {
        let mut store = Store::default();
        let mut spec = store_with_service().service(SERVICE).unwrap().spec.clone();
        spec.endpoint.ports = vec![PublishedPort {
            target: 80,
            published: 80,
            mode: PublishMode::Host,
            ..PublishedPort::default()
        }];
        let (authority, join) = (
            Authority { certificate: String::new(), key: String::new() },
            JoinSecrets { worker: String::new(), manager: String::new() },
        );
        let cluster =
            Command::CreateCluster { id: Id::new(9), spec: ClusterSpec::default(), authority, join };
        let joins = Command::CreateNode {
            id: node,
            spec: NodeSpec {
                name: String::new(),
                labels: BTreeMap::new(),
                role: Role::Worker,
                availability: Availability::Active,
            },
            description: NodeDescription::default(),
            address: ([10, 0, 0, 1], 2377).into(),
            public_key: [0; 32],
        };
        apply(&mut store, &[cluster, joins, Command::CreateService { id: SERVICE, spec }]);
        for task in [7, 8] {
            let desired = if task == 7 { DesiredState::Running } else { DesiredState::Ready };
            apply(&mut store, &[create(task, desired), Command::AllocateTask { id: Id::new(task) }]);
        }
        apply(&mut store, &[Command::AssignTask { id: Id::new(7), node }]);
        store
    }
}
