//! What follows the end of a task.

use std::{net::Ipv4Addr, time::Duration};

use covey_state::{
    service::RestartCondition,
    task::{ContainerStatus, DesiredState, TaskState},
};

use crate::{
    host::status,
    world::{SECOND, World, service},
};

/// TSK-11, TSK-12
#[test]
fn a_failed_task_is_replaced_after_the_restart_delay() {
    let (mut world, _) = World::with_nodes(1);
    let web = world.create(service("web", "web:1", 1));
    world.settle();
    let first = world.running(web)[0].clone();
    world.end(first.id, TaskState::Failed);
    world.settle();
    let old = world.store.task(first.id).unwrap();
    assert_eq!((old.desired, old.status.state), (DesiredState::Shutdown, TaskState::Failed));
    let new = world.tasks(web).into_iter().find(|task| task.id != first.id).unwrap();
    assert_eq!((new.slot, new.desired), (1, DesiredState::Ready));
    assert_eq!(world.observed.task(new.id).unwrap().state, TaskState::Ready, "prepared, and waiting");
    world.advance(Duration::from_millis(4_900));
    assert_eq!(world.running(web).len(), 0);
    world.advance(Duration::from_millis(200));
    assert_eq!(world.running(web)[0].id, new.id);
}

/// TSK-11: a node that says that it stopped what nobody asked it to stop does not get one task after the other.
#[test]
fn a_stop_that_nobody_asked_for_is_a_failure() {
    for state in [TaskState::Shutdown, TaskState::Orphaned] {
        let (mut world, _) = World::with_nodes(1);
        let web = world.create(service("web", "web:1", 1));
        world.settle();
        let first = world.running(web)[0].clone();
        world.end(first.id, state);
        world.settle();
        let old = world.store.task(first.id).unwrap();
        assert_eq!((old.desired, old.status.state), (DesiredState::Shutdown, TaskState::Failed));
        assert!(old.status.error.contains(state.as_str()), "{}", old.status.error);
        assert_eq!(world.running(web).len(), 0, "it waits for the restart delay");
        world.advance(6 * SECOND);
        assert_eq!(world.running(web).len(), 1);
    }
}

/// What a node reports may be long; the log keeps so much of it that a plan fits into one entry.
#[test]
fn of_a_long_story_the_log_keeps_the_beginning() {
    let (mut world, _) = World::with_nodes(1);
    let web = world.create(service("web", "web:1", 1));
    world.settle();
    let task = world.running(web)[0].id;
    let mut status = status(world.now, TaskState::Failed, &"é".repeat(4_000));
    status.error = format!("x{}", "é".repeat(4_000));
    let id = "f".repeat(4_000);
    let addresses = vec![Ipv4Addr::LOCALHOST.into(); 1_000];
    status.container = Some(ContainerStatus { id, addresses, exit_code: Some(1), ..Default::default() });
    world.report(task, status);
    world.settle();
    let kept = &world.store.task(task).unwrap().status;
    assert_eq!((kept.message.len(), kept.error.len()), (1024, 1023));
    let container = kept.container.as_ref().unwrap();
    assert_eq!((container.id.len(), container.addresses.len(), container.exit_code), (1024, 8, Some(1)));
}

/// TSK-19
#[test]
fn without_restart_an_ended_task_is_not_replaced() {
    let (mut world, _) = World::with_nodes(1);
    for image in ["exit:1", "crash:1"] {
        let mut spec = service(&image.replace(':', "-"), image, 2);
        spec.task.restart.condition = RestartCondition::None;
        let id = world.create(spec);
        world.advance(60 * SECOND);
        let tasks = world.tasks(id);
        assert_eq!(tasks.len(), 2);
        assert!(tasks.iter().all(|task| task.desired == DesiredState::Shutdown));
        world.scale(id, 3);
        world.advance(60 * SECOND);
        assert_eq!(world.tasks(id).len(), 3, "the new slot runs, the others are done");
        world.scale(id, 1);
        world.settle();
        assert_eq!(world.tasks(id).len(), 1);
    }
}

/// TSK-19
#[test]
fn on_failure_replaces_failed_tasks_only_and_any_replaces_all() {
    let (mut world, _) = World::with_nodes(1);
    let count = |world: &mut World, image: &str, condition| {
        let mut spec = service(&format!("s{}", world.store.services().count()), image, 1);
        spec.task.restart.condition = condition;
        let id = world.create(spec);
        world.advance(12 * SECOND);
        world.tasks(id).len()
    };
    assert_eq!(count(&mut world, "exit:1", RestartCondition::OnFailure), 1);
    // Three that ended, each 5 s after the other, and one that waits for its turn.
    assert_eq!(count(&mut world, "crash:1", RestartCondition::OnFailure), 4);
    assert_eq!(count(&mut world, "exit:1", RestartCondition::Any), 4);
    assert_eq!(count(&mut world, "crash:1", RestartCondition::Any), 4);
    // What cannot be prepared is not even tried before its turn.
    assert_eq!(count(&mut world, "missing:1", RestartCondition::Any), 3);
}

/// SVC-13
#[test]
fn a_slot_gets_no_more_replacements_than_granted() {
    let (mut world, _) = World::with_nodes(1);
    let mut spec = service("web", "crash:1", 1);
    spec.task.restart.max_attempts = 8;
    let web = world.create(spec);
    world.advance(300 * SECOND);
    assert_eq!(
        world.tasks(web).len(),
        9,
        "the first and eight replacements, longer than the history is else"
    );
    world.update(web, |spec| spec.task.container.image = "crash:2".into());
    world.advance(300 * SECOND);
    let new = world.tasks(web).into_iter().filter(|task| task.spec.container.image == "crash:2");
    assert_eq!(new.count(), 9, "a new spec starts afresh");
}

/// SVC-13
#[test]
fn only_replacements_within_the_window_count() {
    let (mut world, _) = World::with_nodes(1);
    let mut spec = service("web", "crash:1", 1);
    spec.task.restart.max_attempts = 1;
    spec.task.restart.window = SECOND;
    let patient = world.create(spec.clone());
    spec.name = "hasty".into();
    spec.task.restart.window = 60 * SECOND;
    let hasty = world.create(spec);
    world.advance(100 * SECOND);
    assert_eq!(world.tasks(patient).len(), 6, "each restart is the only one within a second");
    assert_eq!(world.tasks(hasty).len(), 2);
}

/// SVC-13
#[test]
fn without_delay_the_replacement_runs_at_once() {
    let (mut world, _) = World::with_nodes(1);
    let mut spec = service("web", "web:1", 1);
    spec.task.restart.delay = Duration::ZERO;
    let web = world.create(spec);
    world.settle();
    let first = world.running(web)[0].id;
    world.end(first, TaskState::Failed);
    world.settle();
    assert_ne!(world.running(web)[0].id, first);
}

/// A delay is a stamp in the store: a new leader waits for what is left of it.
#[test]
fn a_new_leader_keeps_to_the_delays_of_the_old_one() {
    let (mut world, _) = World::with_nodes(1);
    let web = world.create(service("web", "web:1", 1));
    world.settle();
    let first = world.running(web)[0].id;
    world.end(first, TaskState::Failed);
    world.advance(3 * SECOND);
    world.change_leader(2);
    world.advance(SECOND);
    assert_eq!(world.running(web).len(), 0);
    world.advance(2 * SECOND);
    assert_eq!(world.running(web).len(), 1);
}

/// An outcome is remembered once, whatever is heard of the task later.
#[test]
fn an_end_is_written_down_once() {
    let (mut world, _) = World::with_nodes(1);
    let mut spec = service("web", "exit:1", 1);
    spec.task.restart.condition = RestartCondition::None;
    let web = world.create(spec);
    world.settle();
    let task = world.tasks(web)[0].clone();
    assert_eq!(task.status.state, TaskState::Complete);
    world.report(task.id, crate::host::status(world.now, TaskState::Failed, "late"));
    world.settle();
    assert_eq!(world.tasks(web)[0], task);
}
