//! Hosts that vanish, and hosts that come back.

use covey_state::{
    command::Command,
    node::Availability,
    task::{DesiredState, TaskState},
};

use crate::world::{CPU, MIB, SECOND, World, service};

/// TSK-09, TSK-17: after a grace, and the last report stays as it was.
#[test]
fn tasks_of_a_lost_host_start_elsewhere() {
    let (mut world, nodes) = World::with_nodes(3);
    let web = world.create(service("web", "web:1", 6));
    world.settle();
    world.kill(nodes[0]);
    world.advance(SECOND / 2);
    assert_eq!(world.spread(web, &nodes), [0, 2, 2]);
    assert!(
        world.tasks(web).iter().all(|task| task.desired == DesiredState::Running),
        "the grace is not over"
    );
    world.advance(SECOND);
    assert_eq!(world.spread(web, &nodes), [0, 3, 3]);
    let old: Vec<_> = world.tasks(web).into_iter().filter(|task| task.node == Some(nodes[0])).collect();
    assert_eq!(old.len(), 2);
    assert!(old.iter().all(|task| task.desired == DesiredState::Shutdown));
    assert!(old.iter().all(|task| task.status.state == TaskState::Assigned), "nobody knows how they ended");
    assert_eq!(world.observed.task(old[0].id).unwrap().state, TaskState::Running);
}

/// Both must say so: SWIM, and the leader's own session.
#[test]
fn a_host_that_only_one_side_misses_keeps_its_tasks_and_gets_none() {
    let (mut world, nodes) = World::with_nodes(2);
    let web = world.create(service("web", "web:1", 4));
    world.settle();
    let before = world.tasks(web);
    world.hang_up(nodes[0]);
    world.advance(60 * SECOND);
    assert_eq!(world.tasks(web), before);
    world.scale(web, 6);
    world.settle();
    assert_eq!(world.spread(web, &nodes), [2, 4]);
}

/// TSK-09
#[test]
fn a_host_that_comes_back_in_time_keeps_its_tasks() {
    let (mut world, nodes) = World::with_nodes(3);
    let web = world.create(service("web", "web:1", 6));
    world.settle();
    let before = world.tasks(web);
    world.cut(nodes[0]);
    world.advance(SECOND / 2);
    world.link(nodes[0]);
    world.advance(60 * SECOND);
    assert_eq!(world.tasks(web), before);
}

/// In a partition a replacement may run beside the original; after healing exactly one does.
#[test]
fn a_host_that_comes_back_late_stops_what_was_replaced() {
    let (mut world, nodes) = World::with_nodes(3);
    let web = world.create(service("web", "web:1", 6));
    world.settle();
    world.cut(nodes[0]);
    world.advance(2 * SECOND);
    assert_eq!(world.containers(web).len(), 8, "two run twice");
    world.link(nodes[0]);
    world.advance(SECOND);
    let mut slots: Vec<u64> = world.containers(web).into_iter().map(|(_, slot)| slot).collect();
    slots.sort_unstable();
    assert_eq!(slots, [1, 2, 3, 4, 5, 6]);
    assert_eq!(world.spread(web, &nodes), [0, 3, 3]);
    let old = world.tasks(web).into_iter().filter(|task| task.node == Some(nodes[0]));
    assert!(old.into_iter().all(|task| task.status.state == TaskState::Shutdown));
}

/// CLU-10
#[test]
fn a_node_that_left_loses_its_tasks_at_once() {
    let (mut world, nodes) = World::with_nodes(3);
    let web = world.create(service("web", "web:1", 3));
    world.settle();
    world.apply(Command::SetNodeLeft { id: nodes[0], left: true });
    world.settle();
    assert_eq!(world.spread(web, &nodes)[0], 0);
    assert_eq!(world.running(web).len(), 3);
}

/// NOD-25
#[test]
fn tasks_of_a_removed_node_stay_in_the_history() {
    let (mut world, nodes) = World::with_nodes(2);
    let web = world.create(service("web", "web:1", 2));
    world.settle();
    world.kill(nodes[0]);
    world.advance(2 * SECOND);
    world.apply(Command::RemoveNode { id: nodes[0] });
    world.settle();
    let old = world.tasks(web).into_iter().find(|task| task.node == Some(nodes[0])).unwrap();
    assert_eq!((old.desired, old.status.state), (DesiredState::Shutdown, TaskState::Orphaned));
    assert_eq!(world.running(web).len(), 2);
}

/// More than half of the hosts, and at least three, within 10 s: nothing is moved for 30 s.
#[test]
fn after_a_mass_loss_nothing_is_moved_for_a_while() {
    let (mut world, nodes) = World::with_nodes(5);
    let web = world.create(service("web", "web:1", 10));
    world.settle();
    let before = world.tasks(web);
    for (delay, node) in [0, 400, 400].into_iter().zip(&nodes) {
        world.advance(std::time::Duration::from_millis(delay));
        world.kill(*node);
    }
    let last = world.now;
    world.advance(29 * SECOND);
    assert_eq!(world.tasks(web), before);
    let plan = world.last_plan.clone().unwrap();
    assert_eq!(plan.suspended_until, Some(last + 30 * SECOND));
    assert_eq!(
        plan.notices[0].to_string(),
        "3 of 5 hosts vanished within 10 s: their tasks are not moved for 30 s"
    );
    world.advance(2 * SECOND);
    assert_eq!(world.running(web).len(), 10);
    assert_eq!(world.last_plan.clone().unwrap().suspended_until, None);
}

#[test]
fn after_a_mass_loss_that_heals_nothing_was_moved() {
    let (mut world, nodes) = World::with_nodes(4);
    let web = world.create(service("web", "web:1", 8));
    world.settle();
    let before = world.tasks(web);
    for node in &nodes[..3] {
        world.cut(*node);
    }
    world.advance(20 * SECOND);
    for node in &nodes[..3] {
        world.link(*node);
    }
    world.settle();
    assert_eq!(world.last_plan.clone().unwrap().suspended_until, None);
    assert_eq!(world.tasks(web), before);
}

#[test]
fn two_lost_hosts_or_a_slow_loss_are_no_mass_loss() {
    let (mut world, nodes) = World::with_nodes(3);
    let web = world.create(service("web", "web:1", 3));
    world.settle();
    world.kill(nodes[0]);
    world.kill(nodes[1]);
    world.advance(2 * SECOND);
    assert_eq!(world.running(web).len(), 3);

    let (mut world, nodes) = World::with_nodes(6);
    let web = world.create(service("web", "web:1", 6));
    world.settle();
    for node in &nodes[..5] {
        world.kill(*node);
        world.advance(6 * SECOND);
        assert_eq!(world.running(web).len(), 6);
    }
}

/// Exactly half is not more than half.
#[test]
fn the_loss_of_half_of_the_hosts_is_no_mass_loss() {
    let (mut world, nodes) = World::with_nodes(6);
    let web = world.create(service("web", "web:1", 6));
    world.settle();
    for node in &nodes[..3] {
        world.kill(*node);
    }
    world.advance(2 * SECOND);
    assert_eq!(world.running(web).len(), 6);
}

/// SWIM may take its time with each host: when the sessions broke counts.
#[test]
fn hosts_that_are_declared_dead_one_by_one_still_vanished_together() {
    let (mut world, nodes) = World::with_nodes(5);
    let web = world.create(service("web", "web:1", 5));
    world.settle();
    let before = world.tasks(web);
    for node in &nodes[..3] {
        world.hang_up(*node);
    }
    for node in &nodes[..3] {
        world.kill(*node);
        world.advance(6 * SECOND);
    }
    world.advance(11 * SECOND);
    assert_eq!(world.tasks(web), before);
    world.advance(2 * SECOND);
    assert_eq!(world.running(web).len(), 5);
}

/// A leader that never hears a word of a host gives it up after a while.
#[test]
fn a_host_that_a_new_leader_never_hears_of_is_lost_in_the_end() {
    let (mut world, nodes) = World::with_nodes(3);
    let web = world.create(service("web", "web:1", 3));
    world.settle();
    world.kill(nodes[0]);
    world.observed.forget_node(nodes[0]);
    world.advance(29 * SECOND);
    assert_eq!(world.running(web).len(), 2);
    world.advance(2 * SECOND);
    assert_eq!(world.running(web).len(), 3);
}

/// A new leader has no sessions yet: that alone is no reason to move anything.
#[test]
fn a_new_leader_moves_only_what_is_lost() {
    let (mut world, nodes) = World::with_nodes(4);
    let web = world.create(service("web", "web:1", 8));
    world.settle();
    world.kill(nodes[3]);
    world.change_leader(2);
    world.settle();
    assert_eq!(world.running(web).len(), 6);
    world.advance(2 * SECOND);
    assert_eq!(world.shape(web, &nodes), [3, 3, 2, 0]);
    let known = world.store.last_changed();
    world.change_leader(3);
    world.advance(60 * SECOND);
    assert_eq!(world.store.last_changed(), known, "all is as it should be");
}

/// The first call of a new leader may fail late: the session was missing before.
#[test]
fn a_first_call_that_fails_starts_no_new_grace() {
    let (mut world, nodes) = World::with_nodes(3);
    let web = world.create(service("web", "web:1", 3));
    world.settle();
    world.kill(nodes[0]);
    world.change_leader(2);
    world.advance(SECOND * 9 / 10);
    assert_eq!(world.running(web).len(), 2);
    world.hang_up(nodes[0]);
    world.advance(SECOND / 5);
    assert_eq!(world.running(web).len(), 3);
}

/// A drained host that dies while its tasks stop does not hold up their replacements.
#[test]
fn a_drained_host_that_dies_is_not_waited_for() {
    let (mut world, nodes) = World::with_nodes(2);
    let web = world.create(service("web", "web:1", 4));
    world.settle();
    world.stop_time = 10 * SECOND;
    world.set_availability(nodes[0], Availability::Drain);
    world.advance(SECOND);
    assert_eq!(world.running(web).len(), 2);
    world.kill(nodes[0]);
    world.advance(2 * SECOND);
    assert_eq!(world.spread(web, &nodes), [0, 4]);
}

/// A host that crashes and boots again within the grace has lost its containers: its agent says so.
#[test]
fn a_host_that_boots_in_time_starts_its_tasks_again() {
    let (mut world, nodes) = World::with_nodes(2);
    let web = world.create(service("web", "web:1", 4));
    world.settle();
    world.kill(nodes[0]);
    world.advance(SECOND / 2);
    world.start(nodes[0]);
    world.advance(SECOND);
    assert_eq!(world.spread(web, &nodes), [2, 2]);
    world.add_node(CPU, MIB);
    world.settle();
    assert_eq!(world.tasks(web).len(), 4);
}
