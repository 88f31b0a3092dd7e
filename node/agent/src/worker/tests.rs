//! The worker against sets, ends and clocks.

use std::sync::Arc;

use covey_state::{network::Exposure, task::DesiredState};

use super::*;
use crate::{
    executor::{HeldState, Started},
    fixture::assignment,
};

const T: Stamp = Stamp(1_000);

fn generation(sequence: u64) -> Generation {
    Generation { term: 1, sequence }
}

fn full(sequence: u64, tasks: &[u128]) -> AssignmentSet {
    let tasks = tasks.iter().map(|task| assignment(*task, DesiredState::Running)).collect();
    AssignmentSet::Full { generation: generation(sequence), tasks, later: Vec::new() }
}

fn steps(worker: &mut Worker) -> Vec<(u128, Step)> {
    std::iter::from_fn(|| worker.poll_output())
        .filter_map(|output| match output {
            Output::Do { assignment, step, .. } => Some((assignment.task.bits(), step)),
            _ => None,
        })
        .collect()
}

fn started() -> Started {
    Started { container: ContainerStatus::default(), healthy: true }
}

fn held(task: u128, state: HeldState) -> Held {
    Held { task: Id::new(task), attempt: 1, container: ContainerStatus::default(), state, since: T }
}

/// CLU-22, TSK-07
#[test]
fn a_new_task_is_prepared_and_the_set_is_remembered() {
    let mut worker = Worker::new(T, Remembered::default(), vec![]);
    worker.handle_set(T, full(1, &[7])).unwrap();
    let outputs: Vec<_> = std::iter::from_fn(|| worker.poll_output()).collect();
    assert!(matches!(&outputs[0], Output::Report { status, .. } if status.state == TaskState::Accepted));
    assert!(matches!(&outputs[1], Output::Report { status, .. } if status.state == TaskState::Preparing));
    assert!(matches!(&outputs[2], Output::Do { step: Step::Prepare, .. }));
    assert!(
        matches!(&outputs[3], Output::Remember(r) if r.generation == generation(1) && r.tasks.len() == 1)
    );
    assert_eq!(outputs.len(), 4);
}

/// Two leaders in a partition cannot move a worker backwards.
#[test]
fn an_older_set_is_refused() {
    let mut worker = Worker::new(T, Remembered::default(), vec![]);
    worker.handle_set(T, full(3, &[7])).unwrap();
    let refused = worker.handle_set(T, full(2, &[]));
    assert_eq!(refused, Err(SetError::Old { have: generation(3), got: generation(2) }));
    let newer_leader =
        AssignmentSet::Full { generation: Generation { term: 2, sequence: 1 }, tasks: vec![], later: vec![] };
    assert_eq!(worker.handle_set(T, newer_leader), Ok(()));
}

#[test]
fn changes_to_a_set_never_seen_are_refused() {
    let mut worker = Worker::new(T, Remembered::default(), vec![]);
    worker.handle_set(T, full(1, &[])).unwrap();
    let changes = AssignmentSet::Changes {
        base: generation(2),
        generation: generation(3),
        update: vec![],
        remove: vec![],
    };
    assert_eq!(
        worker.handle_set(T, changes),
        Err(SetError::Gap { have: generation(1), base: generation(2) })
    );
}

/// SVC-40
#[test]
fn a_task_missing_from_a_full_set_is_removed() {
    let mut worker = Worker::new(T, Remembered::default(), vec![]);
    worker.handle_set(T, full(1, &[7])).unwrap();
    worker.handle_done(T, Id::new(7), 1, Done::Prepared(Ok(ContainerStatus::default())));
    assert_eq!(steps(&mut worker), [(7, Step::Prepare), (7, Step::Start)]);
    worker.handle_set(T, full(2, &[])).unwrap();
    assert_eq!(steps(&mut worker), []);
    worker.handle_done(T, Id::new(7), 1, Done::Started(Ok(started())));
    assert_eq!(steps(&mut worker), [(7, Step::Wait), (7, Step::Stop { grace: Duration::from_secs(10) })]);
}

/// Killing and restarting the daemon leaves containers running.
#[test]
fn a_running_container_is_adopted_and_waited_for() {
    let remembered =
        Remembered { generation: generation(4), tasks: vec![assignment(7, DesiredState::Running)] };
    let mut worker = Worker::new(T, remembered, vec![held(7, HeldState::Running)]);
    assert_eq!(steps(&mut worker), [(7, Step::Wait)]);
    assert_eq!(worker.statuses().next().unwrap().1.state, TaskState::Running);
}

#[test]
fn what_is_held_for_an_unknown_task_is_discarded_at_the_first_full_set_only() {
    let mut worker = Worker::new(T, Remembered::default(), vec![held(8, HeldState::Running)]);
    assert_eq!(worker.poll_output(), None);
    worker.handle_set(T, full(1, &[])).unwrap();
    assert_eq!(worker.poll_output(), Some(Output::Discard { task: Id::new(8) }));
}

/// A host that reboots while cut off runs its tasks again (nomad#24629).
#[test]
fn a_rebooted_node_waits_for_a_manager_and_then_starts_its_tasks_again() {
    let remembered =
        Remembered { generation: generation(4), tasks: vec![assignment(7, DesiredState::Running)] };
    let mut worker = Worker::new(T, remembered, vec![held(7, HeldState::Lost)]);
    assert_eq!(steps(&mut worker), []);
    let at = worker.poll_timeout().unwrap();
    assert_eq!(at, T + REBOOT_WAIT);
    worker.handle_timeout(at);
    assert_eq!(steps(&mut worker), [(7, Step::Prepare)]);
    assert_eq!(worker.statuses().next().unwrap().1.attempt, 2);
    assert_eq!(worker.poll_timeout(), None);
}

#[test]
fn a_rebooted_node_that_hears_that_its_task_moved_does_not_start_it() {
    let remembered =
        Remembered { generation: generation(4), tasks: vec![assignment(7, DesiredState::Running)] };
    let mut worker = Worker::new(T, remembered, vec![held(7, HeldState::Lost)]);
    let tasks = vec![assignment(7, DesiredState::Shutdown)];
    worker.handle_set(T, AssignmentSet::Full { generation: generation(5), tasks, later: vec![] }).unwrap();
    assert_eq!(steps(&mut worker), []);
    assert_eq!(worker.statuses().next().unwrap().1.state, TaskState::Shutdown);
}

#[test]
fn the_result_of_an_earlier_attempt_changes_nothing() {
    let mut worker = Worker::new(T, Remembered::default(), vec![]);
    worker.handle_set(T, full(1, &[7])).unwrap();
    steps(&mut worker);
    worker.handle_done(T, Id::new(7), 0, Done::Prepared(Ok(ContainerStatus::default())));
    assert_eq!(steps(&mut worker), []);
}

/// What others are told, and the steps, in their order.
fn story(worker: &mut Worker) -> Vec<String> {
    std::iter::from_fn(|| worker.poll_output())
        .filter_map(|output| match output {
            Output::Show { presence, assignment, .. } => {
                Some(format!("{presence:?} as of {}", assignment.exposure.version))
            }
            Output::Hide { .. } => Some("hidden".to_owned()),
            Output::Do { step: Step::Stop { .. }, .. } => Some("stop".to_owned()),
            Output::Do { step: Step::Remove, .. } => Some("remove".to_owned()),
            _ => None,
        })
        .collect()
}

fn exposed(desired: DesiredState, version: u64) -> Assignment {
    Assignment { exposure: Arc::new(Exposure { version, ..Exposure::default() }), ..assignment(7, desired) }
}

fn update(worker: &mut Worker, sequence: u64, assignment: Assignment) {
    let set = AssignmentSet::Changes {
        base: generation(sequence - 1),
        generation: generation(sequence),
        update: vec![assignment],
        remove: vec![],
    };
    worker.handle_set(T, set).unwrap();
}

/// LB-07: names and addresses are left before the task is asked to stop.
#[test]
fn a_task_is_shown_while_it_runs_and_said_to_drain_before_it_is_stopped() {
    let mut worker = Worker::new(T, Remembered::default(), vec![]);
    let set = AssignmentSet::Full {
        generation: generation(1),
        tasks: vec![exposed(DesiredState::Running, 3)],
        later: vec![],
    };
    worker.handle_set(T, set).unwrap();
    worker.handle_done(T, Id::new(7), 1, Done::Prepared(Ok(ContainerStatus::default())));
    assert_eq!(story(&mut worker), [""; 0], "nobody is there yet");
    worker.handle_done(T, Id::new(7), 1, Done::Started(Ok(started())));
    assert_eq!(story(&mut worker), ["Serving as of 3"]);
    update(&mut worker, 2, exposed(DesiredState::Running, 3));
    assert_eq!(story(&mut worker), [""; 0], "nothing has changed");
    update(&mut worker, 3, exposed(DesiredState::Running, 5));
    assert_eq!(story(&mut worker), ["Serving as of 5"], "its service is reached another way");
    update(&mut worker, 4, exposed(DesiredState::Shutdown, 5));
    assert_eq!(story(&mut worker), ["Draining as of 5", "stop"]);
    worker.handle_done(
        T,
        Id::new(7),
        1,
        Done::Exited(Ok(crate::executor::Exit { code: 0, oom_killed: false })),
    );
    assert_eq!(story(&mut worker), ["hidden"]);
}

/// LB-07: each of the others goes on sending clients there until it is told.
#[test]
fn that_a_task_has_ended_is_told_to_its_clients_before_anybody_else() {
    let remembered = Remembered { generation: generation(1), tasks: vec![exposed(DesiredState::Running, 3)] };
    let mut worker = Worker::new(T, remembered, vec![held(7, HeldState::Running)]);
    while worker.poll_output().is_some() {}
    let exit = crate::executor::Exit { code: 137, oom_killed: false };
    worker.handle_done(T, Id::new(7), 1, Done::Exited(Ok(exit)));
    assert_eq!(worker.poll_output(), Some(Output::Hide { task: Id::new(7) }));
    assert!(matches!(worker.poll_output(), Some(Output::Report { .. })));
    assert_eq!(worker.poll_output(), None);
}

/// LB-07
#[test]
fn a_task_that_ends_by_itself_is_hidden_at_once_and_one_from_before_is_shown_again() {
    let remembered = Remembered { generation: generation(1), tasks: vec![exposed(DesiredState::Running, 3)] };
    let mut worker = Worker::new(T, remembered, vec![held(7, HeldState::Running)]);
    assert_eq!(story(&mut worker), ["Serving as of 3"]);
    worker.handle_done(
        T,
        Id::new(7),
        1,
        Done::Exited(Ok(crate::executor::Exit { code: 1, oom_killed: false })),
    );
    assert_eq!(story(&mut worker), ["hidden"]);
}

/// LB-07: of a service that was removed nothing is known any more, but its clients are still there.
#[test]
fn a_task_of_a_removed_service_drains_as_what_it_was() {
    let remembered = Remembered { generation: generation(1), tasks: vec![exposed(DesiredState::Running, 3)] };
    let mut worker = Worker::new(T, remembered, vec![held(7, HeldState::Running)]);
    assert_eq!(story(&mut worker), ["Serving as of 3"]);
    update(&mut worker, 2, exposed(DesiredState::Remove, 0));
    worker.handle_done(T, Id::new(7), 1, Done::Stopped(Ok(())));
    assert_eq!(story(&mut worker), ["Draining as of 3", "stop"]);
}

/// A full set may be too large for one message.
#[test]
fn tasks_that_come_later_stay_as_they_are_until_then() {
    let remembered = Remembered {
        generation: generation(1),
        tasks: vec![assignment(7, DesiredState::Running), assignment(8, DesiredState::Running)],
    };
    let all = vec![held(7, HeldState::Running), held(8, HeldState::Running), held(9, HeldState::Running)];
    let mut worker = Worker::new(T, remembered, all);
    assert_eq!(steps(&mut worker), [(7, Step::Wait), (8, Step::Wait)]);
    let tasks = vec![assignment(7, DesiredState::Running)];
    let later = vec![Id::new(8), Id::new(9)];
    worker.handle_set(T, AssignmentSet::Full { generation: generation(2), tasks, later }).unwrap();
    let outputs: Vec<_> = std::iter::from_fn(|| worker.poll_output()).collect();
    assert!(matches!(&outputs[..], [Output::Remember(_)]), "{outputs:?}");
    update(&mut worker, 3, assignment(9, DesiredState::Running));
    assert_eq!(steps(&mut worker), [(9, Step::Wait)], "what was held for it is still there");
}
