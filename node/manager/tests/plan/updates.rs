//! Rolling updates.

use std::time::Duration;

use covey_state::{
    Id,
    command::Command,
    container::Amount,
    service::{FailureAction, UpdateState},
    task::{DesiredState, Task, TaskState},
};

use crate::world::{CPU, MIB, SECOND, World, reserving, service};

fn images(world: &World, id: Id) -> Vec<String> {
    world.running(id).iter().map(|task| task.spec.container.image.clone()).collect()
}

fn state(world: &World, id: Id) -> Option<UpdateState> {
    world.service(id).update_status.as_ref().map(|status| status.state)
}

fn message(world: &World, id: Id) -> String {
    world.service(id).update_status.as_ref().unwrap().message.clone()
}

fn set_image(world: &mut World, id: Id, image: &str) {
    world.update(id, |spec| image.clone_into(&mut spec.task.container.image));
}

/// UPD-02, UPD-05, UPD-07, TSK-12
#[test]
fn one_task_after_the_other_moves_to_the_new_spec() {
    let (mut world, nodes) = World::with_nodes(3);
    let web = world.create(service("web", "web:1", 5));
    world.settle();
    world.stop_time = 2 * SECOND;
    world.fewest_running = u64::MAX;
    set_image(&mut world, web, "web:2");
    world.settle();
    assert_eq!(
        (state(&world, web), message(&world, web)),
        (Some(UpdateState::Updating), "update in progress".into())
    );
    let waiting: Vec<_> =
        world.tasks(web).into_iter().filter(|task| task.desired == DesiredState::Ready).collect();
    assert_eq!(waiting.len(), 1, "the new task waits, prepared, until the old one has stopped");
    assert_eq!(world.observed.task(waiting[0].id).unwrap().state, TaskState::Ready);
    world.advance(30 * SECOND);
    assert_eq!(world.fewest_running, 4);
    assert_eq!(images(&world, web), ["web:2"; 5]);
    assert_eq!(world.shape(web, &nodes), [2, 2, 1]);
    let status = world.service(web).update_status.clone().unwrap();
    assert_eq!((status.state, status.message.as_str()), (UpdateState::Completed, "update completed"));
    let took = status.completed_at.unwrap().since(status.started_at);
    assert!(took >= Duration::from_millis(14_999), "five stops of 2 s and 5 s of watching, not {took:?}");
}

/// UPD-03, UPD-21
#[test]
fn the_delay_lies_between_two_batches() {
    let (mut world, _) = World::with_nodes(3);
    let mut spec = service("web", "web:1", 4);
    spec.update.delay = 20 * SECOND;
    let web = world.create(spec);
    world.settle();
    set_image(&mut world, web, "web:2");
    for done in 1..=4 {
        world.advance(SECOND);
        assert_eq!(images(&world, web).iter().filter(|image| *image == "web:2").count(), done);
        world.advance(19 * SECOND);
    }
    let status = world.service(web).update_status.clone().unwrap();
    assert_eq!(status.state, UpdateState::Completed);
    assert!(status.completed_at.unwrap().since(status.started_at) >= 60 * SECOND);
}

/// UPD-04
#[test]
fn so_many_tasks_are_updated_at_once_as_the_user_says() {
    for (parallelism, fewest) in [(2, 4), (4, 2), (0, 0)] {
        let (mut world, _) = World::with_nodes(3);
        let mut spec = service("web", "web:1", 6);
        spec.update.parallelism = parallelism;
        let web = world.create(spec);
        world.settle();
        world.stop_time = SECOND;
        world.fewest_running = u64::MAX;
        set_image(&mut world, web, "web:2");
        world.advance(60 * SECOND);
        assert_eq!(world.fewest_running, fewest);
        assert_eq!(state(&world, web), Some(UpdateState::Completed));
    }
}

/// UPD-08, UPD-11
#[test]
fn a_failure_pauses_the_update_and_names_the_task() {
    // Without a delay the next slot begins as soon as a task runs, even if that task fails a moment later.
    for (image, touched) in [("crash:2", 2), ("missing:2", 1), ("exit:2", 2)] {
        let (mut world, _) = World::with_nodes(3);
        let web = world.create(service("web", "web:1", 4));
        world.settle();
        set_image(&mut world, web, image);
        world.advance(3 * SECOND);
        assert_eq!(state(&world, web), Some(UpdateState::Paused));
        let ended = |state: TaskState| state.is_terminal() && state != TaskState::Shutdown;
        let failed: Vec<_> = world.tasks(web).into_iter().filter(|task| ended(task.status.state)).collect();
        let named = |task: &Task| {
            message(&world, web)
                == format!("update paused due to failure or early termination of task {}", task.id)
        };
        assert_eq!(failed.iter().filter(|task| named(task)).count(), 1);
        world.advance(60 * SECOND);
        assert_eq!(images(&world, web), vec!["web:1"; 4 - touched], "slots not yet touched stay");
    }
}

/// UPD-09, C-58
#[test]
fn a_paused_update_is_resumed_by_an_update_of_nothing_or_fixed_by_another() {
    let (mut world, _) = World::with_nodes(3);
    let web = world.create(service("web", "web:1", 3));
    world.settle();
    set_image(&mut world, web, "missing:2");
    world.advance(3 * SECOND);
    world.update(web, |_| {});
    world.settle();
    assert_eq!(state(&world, web), Some(UpdateState::Updating));
    world.advance(10 * SECOND);
    assert_eq!(state(&world, web), Some(UpdateState::Paused), "it fails again");
    assert_eq!(images(&world, web), ["web:1"; 2]);
    set_image(&mut world, web, "web:3");
    world.advance(30 * SECOND);
    assert_eq!(images(&world, web), ["web:3"; 3]);
    assert_eq!(state(&world, web), Some(UpdateState::Completed));
}

/// UPD-10
#[test]
fn with_continue_a_failure_does_not_stop_the_update() {
    let (mut world, _) = World::with_nodes(3);
    let mut spec = service("web", "web:1", 3);
    spec.update.failure_action = FailureAction::Continue;
    let web = world.create(spec);
    world.settle();
    set_image(&mut world, web, "crash:2");
    world.advance(3 * SECOND);
    assert_eq!(images(&world, web), [""; 0]);
    assert_eq!(state(&world, web), Some(UpdateState::Updating), "no slot ever runs the new spec well");
}

/// UPD-08: the share of failures that is borne.
#[test]
fn failures_up_to_the_ratio_are_borne() {
    let (mut world, _) = World::with_nodes(3);
    let mut spec = service("web", "web:1", 4);
    spec.update.max_failure_billionths = 250_000_000;
    spec.update.delay = SECOND;
    let web = world.create(spec);
    world.settle();
    set_image(&mut world, web, "web:2");
    world.settle();
    let new = |world: &World| {
        world.running(web).into_iter().find(|task| task.spec.container.image == "web:2").unwrap().id
    };
    let first = new(&world);
    world.end(first, TaskState::Failed);
    world.settle();
    assert_eq!(state(&world, web), Some(UpdateState::Updating), "one of four");
    let second = new(&world);
    world.end(second, TaskState::Failed);
    world.settle();
    assert_eq!(state(&world, web), Some(UpdateState::Paused), "two of four");
    assert!(message(&world, web).ends_with(&second.to_string()));
}

/// UPD-23
#[test]
fn a_failure_after_the_task_was_watched_does_not_count() {
    let (mut world, _) = World::with_nodes(3);
    let mut spec = service("web", "web:1", 2);
    spec.update.delay = 30 * SECOND;
    let web = world.create(spec);
    world.settle();
    set_image(&mut world, web, "web:2");
    world.advance(10 * SECOND);
    let new = world.running(web).into_iter().find(|task| task.spec.container.image == "web:2").unwrap();
    world.end(new.id, TaskState::Failed);
    world.advance(SECOND);
    assert_eq!(state(&world, web), Some(UpdateState::Updating));
    world.advance(120 * SECOND);
    assert_eq!(state(&world, web), Some(UpdateState::Completed));
}

/// UPD-12
#[test]
fn any_change_of_the_template_replaces_all_tasks() {
    let (mut world, _) = World::with_nodes(2);
    let web = world.create(service("web", "web:1", 3));
    world.settle();
    let changes: [fn(&mut covey_state::service::TaskSpec); 4] = [
        |task| task.container.env.push("A=1".into()),
        |task| task.resources.reservations = Amount { nano_cpus: CPU / 10, memory: MIB },
        |task| task.placement.constraints.push("node.role==worker".parse().unwrap()),
        // UPD-14
        |task| task.force_update += 1,
    ];
    for change in changes {
        let before = world.running(web);
        world.update(web, |spec| change(&mut spec.task));
        world.advance(20 * SECOND);
        let after = world.running(web);
        assert_eq!(after.len(), 3);
        assert!(after.iter().all(|task| before.iter().all(|old| old.id != task.id)));
    }
}

/// UPD-13
#[test]
fn a_change_of_policy_labels_or_replicas_replaces_nothing() {
    let (mut world, _) = World::with_nodes(2);
    let web = world.create(service("web", "web:1", 3));
    world.settle();
    let before = world.running(web);
    world.update(web, |spec| {
        spec.update.parallelism = 3;
        spec.labels.insert("a".into(), "b".into());
    });
    world.advance(20 * SECOND);
    assert_eq!(world.running(web), before);
    assert_eq!(state(&world, web), None);
}

/// UPD-16: tasks that are on the wanted spec already are left alone.
#[test]
fn going_back_touches_only_what_had_changed() {
    let (mut world, _) = World::with_nodes(3);
    let mut spec = service("web", "web:1", 3);
    spec.update.delay = 60 * SECOND;
    let web = world.create(spec);
    world.settle();
    let before = world.running(web);
    set_image(&mut world, web, "web:2");
    world.advance(SECOND);
    set_image(&mut world, web, "web:1");
    world.advance(100 * SECOND);
    let kept = world.running(web).into_iter().filter(|task| before.contains(task)).count();
    assert_eq!(kept, 2);
    assert_eq!(images(&world, web), ["web:1"; 3]);
    assert_eq!(state(&world, web), Some(UpdateState::Completed));
}

/// RES-14, UPD-24, C-22: pending tasks move first, and no trick is needed.
#[test]
fn lowered_reservations_let_pending_tasks_run() {
    for fits_beside in [true, false] {
        let mut world = World::new(2);
        for _ in 0..3 {
            world.add_node(CPU, 1_039_040_512);
        }
        let cpus = if fits_beside { CPU / 2 } else { CPU * 9 / 10 };
        let web = world.create(reserving("web", 9, cpus, 512 * MIB));
        world.settle();
        assert_eq!((world.running(web).len(), world.pending(web).len()), (3, 6));
        world.update(web, |spec| {
            spec.task.resources.reservations = Amount { nano_cpus: CPU / 4, memory: 256 * MIB };
        });
        world.advance(SECOND);
        assert_eq!(world.running(web).len(), 9);
        assert_eq!(world.pending(web).len(), 0);
        world.advance(10 * SECOND);
        assert_eq!(state(&world, web), Some(UpdateState::Completed));
    }
}

/// C-22
#[test]
fn tasks_that_wait_for_a_node_are_updated_first() {
    let mut world = World::new(2);
    world.add_node(CPU, 1024 * MIB);
    let web = world.create(reserving("web", 4, CPU / 2, 0));
    world.settle();
    set_image(&mut world, web, "web:2");
    assert!(world.plan_once());
    let replaced = world.tasks(web).into_iter().filter(|task| task.desired == DesiredState::Shutdown);
    assert!(replaced.into_iter().all(|task| task.node.is_none()));
}

/// Delays hold though the clocks of the nodes are off, and though no history is kept.
#[test]
fn neither_bad_clocks_nor_a_short_history_confuse_an_update() {
    for clock_error in [-3_600, 3_600] {
        let (mut world, _) = World::with_nodes(3);
        let cluster = world.store.cluster().unwrap();
        let (version, mut spec) = (cluster.version, cluster.spec.clone());
        spec.task_history_limit = 0;
        world.apply(Command::UpdateCluster { version, spec });
        let mut spec = service("web", "web:1", 3);
        spec.update.delay = 20 * SECOND;
        let web = world.create(spec);
        world.settle();
        world.clock_error = clock_error * 1_000_000_000;
        set_image(&mut world, web, "web:2");
        for done in 1..=3 {
            world.advance(19 * SECOND);
            assert_eq!(images(&world, web).iter().filter(|image| *image == "web:2").count(), done);
            world.advance(2 * SECOND);
        }
        assert_eq!(state(&world, web), Some(UpdateState::Completed));
        assert_eq!(world.tasks(web).len(), 3);
    }
}

/// RES-15: what does not fit waits, the rest keeps running, and the update goes on when there is room.
#[test]
fn raised_reservations_wait_for_capacity() {
    let mut world = World::new(2);
    for _ in 0..3 {
        world.add_node(CPU, 1024 * MIB);
    }
    let web = world.create(reserving("web", 6, CPU / 2, 0));
    world.settle();
    world.update(web, |spec| spec.task.resources.reservations.nano_cpus = CPU * 3 / 4);
    world.advance(60 * SECOND);
    assert_eq!(state(&world, web), Some(UpdateState::Updating));
    assert_eq!(world.pending(web).len(), 1);
    assert_eq!(images(&world, web).len(), 5, "the others are not touched");
    for _ in 0..6 {
        world.add_node(CPU, 1024 * MIB);
    }
    world.advance(60 * SECOND);
    assert_eq!(state(&world, web), Some(UpdateState::Completed));
    assert_eq!(world.running(web).len(), 6);
}

/// RES-13: the new task may use what the old one had.
#[test]
fn a_full_node_is_updated_in_place() {
    let mut world = World::new(2);
    world.add_node(CPU, 1024 * MIB);
    let web = world.create(reserving("web", 2, CPU / 2, 0));
    world.settle();
    world.stop_time = SECOND;
    set_image(&mut world, web, "web:2");
    world.advance(30 * SECOND);
    assert_eq!(images(&world, web), ["web:2"; 2]);
    assert_eq!(state(&world, web), Some(UpdateState::Completed));
}

/// QRM-03: the status in the store and the tasks are all that an update needs.
#[test]
fn a_new_leader_goes_on_with_an_update() {
    let (mut world, _) = World::with_nodes(3);
    let mut spec = service("web", "web:1", 4);
    spec.update.delay = 10 * SECOND;
    let web = world.create(spec);
    world.settle();
    world.stop_time = SECOND;
    world.fewest_running = u64::MAX;
    set_image(&mut world, web, "web:2");
    for term in 2..20 {
        world.advance(Duration::from_millis(3_300));
        world.change_leader(term);
    }
    world.advance(10 * SECOND);
    assert_eq!(images(&world, web), ["web:2"; 4]);
    assert_eq!(state(&world, web), Some(UpdateState::Completed));
    assert!(world.fewest_running >= 3);
}
