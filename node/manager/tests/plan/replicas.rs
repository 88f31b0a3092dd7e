//! How many tasks there are: scaling, removal, history.

use std::collections::BTreeSet;

use covey_state::{
    command::Command,
    task::{DesiredState, TaskState},
};

use crate::world::{SECOND, World, service};

/// SVC-38, C-12
#[test]
fn scaling_up_leaves_running_tasks_alone() {
    let (mut world, _) = World::with_nodes(3);
    let web = world.create(service("web", "web:1", 1));
    for replicas in [3, 5, 10] {
        world.settle();
        let before = world.running(web);
        world.scale(web, replicas);
        world.settle();
        let after = world.running(web);
        assert_eq!(after.len() as u64, replicas);
        assert!(before.iter().all(|task| after.contains(task)));
    }
}

/// SVC-41, TSK-10
#[test]
fn fifty_replicas_run_on_three_nodes_and_on_one() {
    let (mut world, nodes) = World::with_nodes(3);
    let web = world.create(service("web", "web:1", 50));
    world.settle();
    assert_eq!(world.shape(web, &nodes), [17, 17, 16]);
    world.kill(nodes[0]);
    world.advance(2 * SECOND);
    world.kill(nodes[1]);
    world.advance(2 * SECOND);
    assert_eq!(world.spread(web, &nodes), [0, 0, 50]);
}

/// SVC-29, SVC-40
#[test]
fn scaling_down_removes_slots_with_their_history_and_keeps_the_numbers_of_the_rest() {
    let (mut world, nodes) = World::with_nodes(3);
    let web = world.create(service("web", "web:1", 6));
    world.settle();
    world.stop_time = SECOND;
    world.scale(web, 3);
    world.settle();
    let leaving = world.tasks(web).into_iter().filter(|task| task.desired == DesiredState::Remove);
    assert_eq!(leaving.count(), 3, "wanted removed at once, containers stop a little later");
    world.advance(2 * SECOND);
    assert_eq!(world.tasks(web).len(), 3);
    assert_eq!(world.shape(web, &nodes), [1, 1, 1]);
    let kept: BTreeSet<u64> = world.running(web).iter().map(|task| task.slot).collect();
    world.scale(web, 6);
    world.settle();
    let now: BTreeSet<u64> = world.running(web).iter().map(|task| task.slot).collect();
    assert!(now.is_superset(&kept));
    assert_eq!(now, (1..=6).collect(), "free numbers are taken again, the lowest first");
}

/// SVC-29: a slot whose last task is still stopping is filled again only when that has gone.
#[test]
fn a_slot_given_up_and_filled_again_never_runs_twice() {
    let (mut world, _) = World::with_nodes(2);
    let web = world.create(service("web", "web:1", 2));
    world.settle();
    world.stop_time = 5 * SECOND;
    world.scale(web, 0);
    world.settle();
    world.scale(web, 2);
    world.advance(SECOND);
    let waiting = world.tasks(web).into_iter().filter(|task| task.desired == DesiredState::Ready).count();
    assert_eq!(waiting, 2);
    assert_eq!(world.containers(web).len(), 2);
    world.advance(5 * SECOND);
    assert_eq!(world.running(web).len(), 2);
    assert_eq!(world.containers(web).len(), 2);
    assert_eq!(world.tasks(web).len(), 2);
}

/// SVC-39, SVC-20
#[test]
fn a_service_scaled_to_zero_stays_and_comes_back() {
    let (mut world, nodes) = World::with_nodes(3);
    let web = world.create(service("web", "web:1", 9));
    world.settle();
    world.scale(web, 0);
    world.settle();
    assert_eq!(world.tasks(web).len(), 0);
    assert_eq!(world.service(web).spec.name, "web");
    world.scale(web, 3);
    world.settle();
    assert_eq!(world.spread(web, &nodes), [1, 1, 1]);
}

/// SVC-50, SVC-51
#[test]
fn a_removed_service_leaves_no_task_behind() {
    let (mut world, nodes) = World::with_nodes(3);
    let web = world.create(service("web", "web:1", 9));
    world.settle();
    world.kill(nodes[0]);
    world.stop_time = SECOND;
    world.apply(Command::RemoveService { id: web });
    world.settle();
    assert!(!world.tasks(web).is_empty());
    world.advance(3 * SECOND);
    assert_eq!(world.tasks(web).len(), 0);
    assert_eq!(world.containers(web).len(), 0);
    world.start(nodes[0]);
    world.settle();
    assert_eq!(world.containers(web).len(), 0);
}

/// TSK-08: a task that vanishes from the store is made again.
#[test]
fn a_missing_slot_is_filled() {
    let (mut world, _) = World::with_nodes(3);
    let web = world.create(service("web", "web:1", 3));
    world.settle();
    let lost = world.running(web)[1].clone();
    world.end(lost.id, TaskState::Failed);
    world.advance(10 * SECOND);
    let slots: Vec<u64> = world.running(web).iter().map(|task| task.slot).collect();
    assert_eq!(slots, [1, 2, 3]);
}

/// SVC-25: five ended tasks of a slot are kept.
#[test]
fn the_history_of_a_slot_is_bounded() {
    let (mut world, _) = World::with_nodes(1);
    let web = world.create(service("web", "crash:1", 2));
    world.advance(120 * SECOND);
    for slot in [1, 2] {
        let tasks = world.store.tasks_of_slot(web, slot).count();
        assert_eq!(tasks, 6, "the current one and five before it");
    }
}

/// A plan is one entry of the log: it is bounded, and the rest follows at once.
#[test]
fn a_large_service_is_planned_in_bounded_steps() {
    let mut world = World::new(5);
    for _ in 0..10 {
        world.add_node(1, 1);
    }
    let web = world.create(service("web", "web:1", 1_500));
    assert!(world.plan_once());
    let plan = world.last_plan.clone().unwrap();
    let commands = plan.proposal.unwrap().commands;
    assert!(commands.len() <= covey_manager::plan::COMMANDS_PER_PLAN_MAX);
    let assigned = commands.iter().filter(|command| matches!(command, Command::AssignTask { .. })).count();
    assert_eq!(
        assigned,
        covey_manager::plan::TASKS_CREATED_PER_PLAN_MAX,
        "what is created has room to go on"
    );
    assert!(plan.look_again_at.unwrap() <= world.store.last_at(), "at once");
    world.settle();
    assert_eq!(world.running(web).len(), 1_500);
    world.scale(web, 0);
    world.settle();
    assert_eq!(world.tasks(web).len(), 0);
}
