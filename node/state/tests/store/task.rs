//! Tasks: who may move one, and that nothing moves back.

use std::sync::Arc;

use covey_state::{
    command::{Command, Refusal},
    node::Role,
    task::{DesiredState, Task, TaskState},
};

use crate::scene::*;

fn task(scene: &Scene) -> &Task {
    scene.store.task(id(3)).unwrap()
}

/// A service and a node, and a new task.
fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.ok(create_node(2, Role::Worker));
    scene.ok(create_service(1, "web"));
    scene.ok(create_task(3, 1, 1));
    scene
}

fn allocate() -> Command {
    Command::AllocateTask { id: id(3) }
}

fn assign(node: u128) -> Command {
    Command::AssignTask { id: id(3), node: id(node) }
}

fn explain(reason: &str) -> Command {
    Command::ExplainTask { id: id(3), reason: reason.into() }
}

/// TSK-02
#[test]
fn a_task_goes_from_new_to_pending_to_assigned_and_to_its_end() {
    let mut scene = scene();
    assert_eq!((task(&scene).status.state, task(&scene).node), (TaskState::New, None));
    scene.ok(allocate());
    assert_eq!(task(&scene).status.state, TaskState::Pending);
    scene.ok(assign(2));
    assert_eq!((task(&scene).status.state, task(&scene).node), (TaskState::Assigned, Some(id(2))));
    assert_eq!(scene.store.tasks_on_node(id(2)).count(), 1);
    scene.ok(finish(3, TaskState::Complete));
    assert_eq!(task(&scene).status, status(TaskState::Complete));
}

/// TSK-02, TSK-03, TSK-04
#[test]
fn no_step_is_left_out_and_none_is_taken_twice() {
    let mut scene = scene();
    assert!(matches!(scene.refused(assign(2)), Refusal::Invalid(_)));
    scene.ok(allocate());
    let again = scene.refused(allocate()).to_string();
    assert_eq!(again, format!("task {} cannot go from pending to pending", id(3)));
    scene.ok(assign(2));
    scene.ok(create_node(4, Role::Worker));
    assert!(matches!(scene.refused(assign(4)), Refusal::Invalid(_)), "a task never changes its node");
    assert!(matches!(scene.refused(allocate()), Refusal::Invalid(_)));
}

/// TSK-03
#[test]
fn a_task_ends_once() {
    let mut scene = Scene::with_task_on_node(1, 2, 3);
    assert!(matches!(scene.refused(finish(3, TaskState::Running)), Refusal::Invalid(_)));
    scene.ok(finish(3, TaskState::Failed));
    for end in [TaskState::Failed, TaskState::Orphaned, TaskState::Complete] {
        assert!(matches!(scene.refused(finish(3, end)), Refusal::Invalid(_)));
    }
}

/// TSK-02
#[test]
fn a_task_without_a_node_can_only_be_called_off() {
    let mut scene = scene();
    for end in [TaskState::Complete, TaskState::Failed, TaskState::Rejected, TaskState::Orphaned] {
        assert!(matches!(scene.refused(finish(3, end)), Refusal::Invalid(_)));
    }
    scene.ok(finish(3, TaskState::Shutdown));
}

#[test]
fn a_task_goes_only_to_a_node_that_exists() {
    let mut scene = scene();
    scene.ok(allocate());
    assert_eq!(scene.refused(assign(77)).to_string(), format!("node {} not found", id(77)));
}

#[test]
fn a_task_needs_a_service_a_slot_and_an_id_of_its_own() {
    let mut scene = scene();
    assert!(matches!(scene.refused(create_task(3, 1, 2)), Refusal::Invalid(_)));
    assert!(matches!(scene.refused(create_task(4, 1, 0)), Refusal::Invalid(_)));
    assert!(matches!(scene.refused(create_task(4, 88, 1)), Refusal::NotFound { .. }));
    let desired = DesiredState::Shutdown;
    let ended = Command::CreateTask { id: id(4), service: id(1), slot: 1, desired, not_before: None };
    assert!(matches!(scene.refused(ended), Refusal::Invalid(_)));
}

/// TSK-12
#[test]
fn a_slot_has_one_task_that_is_wanted_running() {
    let ready = Command::CreateTask {
        id: id(4),
        service: id(1),
        slot: 1,
        desired: DesiredState::Ready,
        not_before: None,
    };
    let (mut stopping, mut ended) = (scene(), Scene::with_task_on_node(1, 2, 3));
    for scene in [&mut stopping, &mut ended] {
        assert!(matches!(scene.refused(create_task(5, 1, 1)), Refusal::Invalid(_)));
        scene.ok(ready.clone());
    }
    stopping.ok(want(3, DesiredState::Shutdown));
    stopping.ok(create_task(5, 1, 1));
    ended.ok(finish(3, TaskState::Failed));
    ended.ok(create_task(5, 1, 1));
}

/// TSK-03
#[test]
fn what_is_wanted_of_a_task_only_grows() {
    let mut scene = scene();
    scene.ok(want(3, DesiredState::Shutdown));
    assert_eq!(scene.ok(want(3, DesiredState::Shutdown)), []);
    for less in [DesiredState::Ready, DesiredState::Running] {
        assert!(matches!(scene.refused(want(3, less)), Refusal::Invalid(_)));
    }
    scene.ok(want(3, DesiredState::Remove));
    assert_eq!(task(&scene).desired, DesiredState::Remove);
}

#[test]
fn a_task_says_why_it_waits_until_it_has_a_node() {
    let mut scene = scene();
    scene.ok(explain("network x has no free address (254 used)"));
    assert_eq!(task(&scene).status.error, "network x has no free address (254 used)");
    scene.ok(allocate());
    assert_eq!(task(&scene).status.error, "");
    scene.ok(explain("no suitable node (1 not available)"));
    assert_eq!(scene.ok(explain("no suitable node (1 not available)")), [], "the same reason is no news");
    assert_eq!(task(&scene).status.error, "no suitable node (1 not available)");
    scene.ok(assign(2));
    assert_eq!(task(&scene).status.error, "");
    assert!(matches!(scene.refused(explain("too late")), Refusal::Invalid(_)));
}

#[test]
fn only_a_task_that_is_over_or_never_had_a_node_is_forgotten() {
    let remove = Command::RemoveTask { id: id(3) };
    let mut placed = Scene::with_task_on_node(1, 2, 3);
    let refusal = placed.refused(remove.clone()).to_string();
    assert_eq!(refusal, format!("task {} cannot be removed: it is assigned", id(3)));
    placed.ok(finish(3, TaskState::Shutdown));
    for mut scene in [placed, scene()] {
        scene.ok(remove.clone());
        assert_eq!(scene.store.tasks().count(), 0);
        assert_eq!(scene.store.tasks_of_service(id(1)).count() + scene.store.tasks_on_node(id(2)).count(), 0);
    }
}

/// SVC-35
#[test]
fn a_task_runs_the_spec_of_its_birth_and_shares_it_with_its_siblings() {
    let mut scene = scene();
    scene.ok(create_task(4, 1, 2));
    let mut newer = service_spec("web");
    newer.task.container.image = "nginx:2".into();
    scene.update_service(1, newer).unwrap();
    scene.ok(want(3, DesiredState::Shutdown));
    scene.ok(create_task(5, 1, 1));
    let spec = |number| &scene.store.task(id(number)).unwrap().spec;
    assert!(Arc::ptr_eq(spec(3), spec(4)));
    assert_eq!((spec(3).container.image.as_str(), spec(5).container.image.as_str()), ("nginx:1", "nginx:2"));
    assert_eq!(scene.store.task(id(5)).unwrap().spec_version, scene.service_version(1));
}

#[test]
fn tasks_are_found_by_service_and_slot_in_order() {
    let mut scene = scene();
    scene.ok(want(3, DesiredState::Shutdown));
    for (number, slot) in [(9, 1), (7, 3), (8, 2)] {
        scene.ok(create_task(number, 1, slot));
    }
    scene.ok(create_service(6, "other"));
    scene.ok(create_task(10, 6, 1));
    let of_service: Vec<_> = scene.store.tasks_of_service(id(1)).map(|task| (task.slot, task.id)).collect();
    assert_eq!(of_service, [(1, id(3)), (1, id(9)), (2, id(8)), (3, id(7))]);
    let of_slot: Vec<_> = scene.store.tasks_of_slot(id(1), 1).map(|task| task.id).collect();
    assert_eq!(of_slot, [id(3), id(9)]);
}
