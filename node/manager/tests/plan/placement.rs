//! Where tasks go: spread, filters, explanations.

use covey_state::{
    node::{Availability, Role},
    service::{Platform, RestartCondition, ServiceSpec},
    task::DesiredState,
};

use crate::world::{CPU, MIB, SECOND, World, reserving, service};

fn constrained(name: &str, replicas: u64, constraints: &[&str]) -> ServiceSpec {
    let mut spec = service(name, "web:1", replicas);
    spec.task.placement.constraints = constraints.iter().map(|text| text.parse().unwrap()).collect();
    spec
}

/// SCH-01, SVC-29, SVC-38
#[test]
fn tasks_go_evenly_over_equal_nodes_up_and_down() {
    let (mut world, nodes) = World::with_nodes(3);
    let web = world.create(service("web", "web:1", 5));
    world.settle();
    assert_eq!(world.shape(web, &nodes), [2, 2, 1]);
    world.scale(web, 6);
    world.settle();
    assert_eq!(world.shape(web, &nodes), [2, 2, 2]);
    world.scale(web, 3);
    world.settle();
    assert_eq!(world.shape(web, &nodes), [1, 1, 1]);
}

/// SCH-05, C-16: the worked example, but that few tasks count before free resources.
#[test]
fn the_worked_example_of_two_services_comes_out() {
    let mut world = World::new(3);
    let nodes: Vec<_> = (0..3).map(|_| world.add_node(3 * CPU, 3 * 1024 * MIB)).collect();
    let mysql = world.create(reserving("mysql", 1, CPU, 1024 * MIB));
    world.settle();
    assert_eq!(world.shape(mysql, &nodes), [1, 0, 0]);
    world.scale(mysql, 3);
    world.settle();
    assert_eq!(world.spread(mysql, &nodes), [1, 1, 1]);
    world.scale(mysql, 5);
    world.settle();
    assert_eq!(world.shape(mysql, &nodes), [2, 2, 1]);
    let emptiest = world.spread(mysql, &nodes).iter().position(|count| *count == 1).unwrap();
    let nginx = world.create(reserving("nginx", 1, CPU / 2, 512 * MIB));
    world.settle();
    assert_eq!(world.spread(nginx, &nodes)[emptiest], 1);
    world.scale(nginx, 2);
    world.settle();
    assert_eq!(world.shape(nginx, &nodes), [1, 1, 0]);
    world.scale(nginx, 3);
    world.settle();
    assert_eq!(world.spread(nginx, &nodes), [1, 1, 1]);
}

/// SCH-04, C-16: few tasks count before free resources, and only active ones (SCH-20).
#[test]
fn a_node_with_fewer_tasks_wins_over_one_with_more_room() {
    let (mut world, nodes) = World::with_nodes(2);
    let on = |number: usize| format!("node.id=={}", nodes[number]);
    let mut heavy = constrained("heavy", 1, &[&on(0)]);
    heavy.task.resources.reservations.nano_cpus = 3 * CPU;
    world.create(heavy);
    world.create(constrained("light", 2, &[&on(1)]));
    let mut done = constrained("done", 5, &[&on(0)]);
    done.task.container.image = "exit:1".into();
    done.task.restart.condition = RestartCondition::None;
    world.create(done);
    world.settle();
    let web = world.create(service("web", "web:1", 1));
    world.settle();
    assert_eq!(world.spread(web, &nodes), [1, 0]);
}

/// SCH-02, SCH-05
#[test]
fn of_nodes_with_as_many_tasks_the_freest_wins() {
    let (mut world, nodes) = World::with_nodes(3);
    for (number, cpus) in [2, 1, 3].into_iter().enumerate() {
        let mut spec = constrained(&format!("s{number}"), 1, &[&format!("node.id=={}", nodes[number])]);
        spec.task.resources.reservations.nano_cpus = cpus * CPU;
        world.create(spec);
    }
    world.settle();
    let web = world.create(service("web", "web:1", 1));
    world.settle();
    assert_eq!(world.spread(web, &nodes), [0, 1, 0]);
}

/// SCH-03: which of two equal nodes it is, chance decides.
#[test]
fn equal_nodes_are_picked_at_random() {
    let picks: Vec<usize> = (0..20)
        .map(|seed| {
            let mut world = World::new(seed);
            let nodes: Vec<_> = (0..2).map(|_| world.add_node(CPU, MIB)).collect();
            let web = world.create(service("web", "web:1", 1));
            world.settle();
            // The smaller id is not always the one.
            let smallest = nodes.iter().min().unwrap();
            usize::from(world.running(web)[0].node == Some(*smallest))
        })
        .collect();
    assert!(picks.contains(&0) && picks.contains(&1));
}

/// SCH-06, NOD-14
#[test]
fn a_new_node_moves_nothing_and_takes_what_comes_next() {
    let (mut world, mut nodes) = World::with_nodes(2);
    let web = world.create(service("web", "web:1", 4));
    world.settle();
    let before = world.running(web);
    nodes.push(world.add_node(4 * CPU, 8192 * MIB));
    world.settle();
    assert_eq!(world.running(web), before);
    world.scale(web, 6);
    world.settle();
    assert_eq!(world.spread(web, &nodes), [2, 2, 2]);
}

/// SCH-07, SCH-08, SCH-09, SCH-11
#[test]
fn constraints_on_role_and_host_name_are_anded() {
    let mut world = World::new(1);
    let manager = world.add_node_as(Role::Manager, CPU, MIB);
    let (one, two) = (world.add_node(CPU, MIB), world.add_node(CPU, MIB));
    let workers = world.create(constrained("workers", 3, &["node.role==worker"]));
    let managers = world.create(constrained("managers", 2, &["node.role == manager"]));
    let rest = world.create(constrained("rest", 3, &["node.role==worker", "node.hostname!=HOST2"]));
    world.settle();
    assert_eq!(world.shape(workers, &[manager, one, two]), [2, 1, 0]);
    assert_eq!(world.spread(workers, &[manager]), [0]);
    assert_eq!(world.spread(managers, &[manager]), [2]);
    assert_eq!(world.spread(rest, &[manager, one, two]), [0, 0, 3]);
}

/// SCH-10, SCH-12
#[test]
fn constraints_on_id_and_label_choose_the_node() {
    let (mut world, nodes) = World::with_nodes(3);
    let by_id = world.create(constrained("by-id", 7, &[&format!("node.id=={}", nodes[1])]));
    let by_label = world.create(constrained("by-label", 2, &["node.labels.db==MySQL"]));
    world.settle();
    assert_eq!(world.spread(by_id, &nodes), [0, 7, 0]);
    assert_eq!(world.pending(by_label).len(), 2);
    world.change_node(nodes[2], |spec| drop(spec.labels.insert("db".into(), "mysql".into())));
    world.settle();
    assert_eq!(world.spread(by_label, &nodes), [0, 0, 2]);
    let without = world.create(constrained("without", 2, &["node.labels.db!=mysql"]));
    world.settle();
    assert_eq!(world.spread(without, &nodes)[2], 0);
}

/// SCH-18, SCH-24
#[test]
fn managers_take_tasks_unless_they_are_drained() {
    let mut world = World::new(1);
    let manager = world.add_node_as(Role::Manager, CPU, MIB);
    let web = world.create(service("web", "web:1", 3));
    world.settle();
    assert_eq!(world.spread(web, &[manager]), [3]);
    let worker = world.add_node(CPU, MIB);
    world.set_availability(manager, Availability::Drain);
    world.settle();
    assert_eq!(world.spread(web, &[manager, worker]), [0, 3]);
}

/// SCH-23, SVC-08
#[test]
fn tasks_go_only_to_machines_that_the_image_was_built_for() {
    let (mut world, _) = World::with_nodes(2);
    let mut spec = service("web", "web:1", 1);
    spec.task.placement.platforms = vec![Platform { os: "linux".into(), architecture: "arm64".into() }];
    let web = world.create(spec);
    world.settle();
    assert_eq!(world.pending(web)[0].status.error, "no suitable node (2 of another platform)");
    world.update(web, |spec| {
        spec.task.placement.platforms.push(Platform { os: "linux".into(), architecture: "amd64".into() });
    });
    world.settle();
    assert_eq!(world.running(web).len(), 1);
}

/// RES-05, RES-08: limits may exceed what a node has, reservations may not.
#[test]
fn reservations_never_exceed_what_a_node_has() {
    let mut world = World::new(1);
    let nodes: Vec<_> = (0..3).map(|_| world.add_node(CPU, 1_039_040_512)).collect();
    let mut spec = reserving("web", 10, CPU / 2, 512 * MIB);
    spec.task.resources.limits.nano_cpus = 8 * CPU;
    let web = world.create(spec);
    world.settle();
    assert_eq!(world.spread(web, &nodes), [1, 1, 1]);
    assert_eq!(world.pending(web).len(), 7);
    assert!(world.pending(web).iter().all(|task| task.node.is_none()));
    assert_eq!(world.pending(web)[0].status.error, "no suitable node (3 lack memory)");
}

/// RES-09, RES-10, TSK-16, SCH-19
#[test]
fn pending_tasks_start_as_capacity_comes_and_wait_as_it_goes() {
    let mut world = World::new(1);
    let mut nodes: Vec<_> = (0..3).map(|_| world.add_node(CPU, 1_039_040_512)).collect();
    let web = world.create(reserving("web", 10, CPU / 2, 512 * MIB));
    world.settle();
    let first = world.running(web);
    for expected in [6, 9, 10] {
        nodes.extend((0..3).map(|_| world.add_node(CPU, 1_039_040_512)));
        world.settle();
        assert_eq!(world.running(web).len(), expected);
    }
    assert!(first.iter().all(|task| world.store.task(task.id) == Some(task)), "running tasks stay");
    for gone in nodes.split_off(5) {
        world.set_availability(gone, Availability::Drain);
    }
    world.settle();
    assert_eq!(world.running(web).len(), 5);
    assert_eq!(world.pending(web).len(), 5);
}

/// RES-07, TSK-06
#[test]
fn a_reservation_larger_than_any_node_waits_without_a_node() {
    let (mut world, _) = World::with_nodes(3);
    let web = world.create(reserving("web", 3, 100 * CPU, 0));
    world.settle();
    let pending = world.pending(web);
    assert_eq!(pending.len(), 3);
    assert_eq!(pending[0].status.error, "no suitable node (3 lack CPU)");
    assert_eq!(world.running(web).len(), 0);
}

/// TSK-06: each node counts for the first thing that it lacks.
#[test]
fn the_explanation_counts_nodes_by_what_they_lack() {
    let (mut world, nodes) = World::with_nodes(2);
    world.add_node(4 * CPU, 64 * MIB);
    world.set_availability(nodes[0], Availability::Drain);
    world.set_availability(nodes[1], Availability::Pause);
    let web = world.create(reserving("web", 1, 0, 128 * MIB));
    world.settle();
    assert_eq!(world.pending(web)[0].status.error, "no suitable node (2 not available, 1 lacks memory)");
    // The same text is not written twice.
    let known = world.store.last_changed();
    world.advance(SECOND);
    assert_eq!(world.store.last_changed(), known);
    world.set_availability(nodes[1], Availability::Active);
    world.settle();
    assert_eq!(world.running(web).len(), 1);
    assert_eq!(world.running(web)[0].status.error, "");
}

#[test]
fn a_cluster_without_nodes_says_only_that() {
    let mut world = World::new(1);
    let web = world.create(service("web", "web:1", 1));
    world.settle();
    assert_eq!(world.pending(web)[0].status.error, "no suitable node");
}

/// A host has one address for each task, and no more.
#[test]
fn a_node_whose_addresses_are_used_up_takes_no_more() {
    let (mut world, nodes) = World::with_nodes(1);
    let web = world.create(service("web", "web:1", 300));
    world.settle();
    assert_eq!(world.spread(web, &nodes), [253]);
    assert_eq!(world.pending(web)[0].status.error, "no suitable node (1 lacks addresses)");
}

/// NOD-15
#[test]
fn a_paused_node_keeps_its_tasks_and_takes_none() {
    let (mut world, nodes) = World::with_nodes(2);
    let web = world.create(service("web", "web:1", 4));
    world.settle();
    let before = world.running(web);
    world.set_availability(nodes[0], Availability::Pause);
    world.settle();
    assert_eq!(world.running(web), before);
    world.scale(web, 7);
    world.settle();
    assert_eq!(world.spread(web, &nodes), [2, 5]);
}

/// NOD-11, NOD-12, NOD-14
#[test]
fn a_drained_node_gives_its_tasks_away_and_gets_them_not_back() {
    let (mut world, nodes) = World::with_nodes(3);
    let web = world.create(service("web", "web:1", 6));
    world.settle();
    world.stop_time = 2 * SECOND;
    world.set_availability(nodes[0], Availability::Drain);
    world.settle();
    let waiting = world.tasks(web).into_iter().filter(|task| task.desired == DesiredState::Ready).count();
    assert_eq!(waiting, 2, "replacements wait until the old tasks have stopped");
    world.advance(3 * SECOND);
    assert_eq!(world.spread(web, &nodes), [0, 3, 3]);
    world.set_availability(nodes[0], Availability::Active);
    world.settle();
    assert_eq!(world.spread(web, &nodes), [0, 3, 3]);
}

/// C-16: the emptiest node is no good where nothing of the service works on it.
#[test]
fn a_node_on_which_a_service_keeps_failing_comes_last() {
    let (mut world, nodes) = World::with_nodes(2);
    let other = world.create(constrained("other", 3, &[&format!("node.id=={}", nodes[0])]));
    world.settle();
    world.spoil(nodes[1]);
    let web = world.create(service("web", "web:1", 1));
    world.advance(15 * SECOND);
    assert_eq!(world.running(web).len(), 0, "the other node has more to do");
    world.advance(15 * SECOND);
    assert_eq!((world.spread(web, &nodes), world.running(other).len()), (vec![1, 0], 3));
}
