//! Nodes: numbers and blocks, roles, and what becomes of tasks when a node goes.

use std::time::Duration;

use covey_state::{
    cluster::{ClusterSpec, EdgePool},
    command::{Command, Refusal},
    event::{Change, Event},
    node::{Availability, NodeDescription, NodeSpec, Role},
    store::{MANAGERS_MAX, NUMBER_REST},
    task::{DesiredState, TaskState},
};

use crate::scene::*;

fn number(scene: &Scene, node: u128) -> u32 {
    scene.store.node(id(node)).unwrap().number
}

fn remove(node: u128) -> Command {
    Command::RemoveNode { id: id(node) }
}

#[test]
fn nodes_are_numbered_from_one_and_their_blocks_follow_from_it() {
    let mut scene = Scene::new();
    for node in 1..=3 {
        scene.ok(create_node(node, Role::Worker));
        assert_eq!(u128::from(number(&scene, node)), node);
    }
    assert_eq!(scene.store.node(id(3)).unwrap().edge.v4.to_string(), "100.64.3.0/24");
    assert_eq!(scene.store.node(id(3)).unwrap().edge.v6.to_string(), "fd00:c0e7:0:3::/64");
}

#[test]
fn a_removed_nodes_number_rests_for_a_day() {
    let mut scene = Scene::new();
    for node in 1..=3 {
        scene.ok(create_node(node, Role::Worker));
    }
    scene.ok(remove(2));
    scene.ok(create_node(4, Role::Worker));
    assert_eq!(number(&scene, 4), 4);
    scene.wait(NUMBER_REST - Duration::from_secs(10));
    scene.ok(create_node(5, Role::Worker));
    assert_eq!(number(&scene, 5), 5);
    scene.wait(Duration::from_secs(10));
    scene.ok(create_node(6, Role::Worker));
    assert_eq!(number(&scene, 6), 2);
}

#[test]
fn a_node_is_refused_when_the_edge_pool_is_used_up() {
    let edge = EdgePool { v4: "192.168.0.0/22".parse().unwrap(), ..Default::default() };
    let mut scene = Scene::with(ClusterSpec { edge, ..Default::default() });
    for node in 1..=3 {
        scene.ok(create_node(node, Role::Worker));
    }
    let refusal = scene.refused(create_node(4, Role::Worker)).to_string();
    assert_eq!(refusal, "the edge pool 192.168.0.0/22 has no block left for node number 4");
}

#[test]
fn an_id_is_given_to_one_node_only() {
    let mut scene = Scene::new();
    scene.ok(create_node(1, Role::Worker));
    assert!(matches!(scene.refused(create_node(1, Role::Worker)), Refusal::Invalid(_)));
}

#[test]
fn a_cluster_has_at_most_seven_managers() {
    let mut scene = Scene::new();
    for node in 1..=7 {
        scene.ok(create_node(node, Role::Manager));
    }
    assert_eq!(MANAGERS_MAX, 7);
    let refusal = scene.refused(create_node(8, Role::Manager));
    assert_eq!(refusal, Refusal::Invalid("a cluster has at most 7 managers".into()));
    scene.ok(create_node(8, Role::Worker));
    assert_eq!(scene.update_node(8, node_spec(Role::Manager)), Err(refusal));
}

#[test]
fn one_that_is_being_demoted_still_counts_as_manager() {
    let mut scene = Scene::new();
    for node in 1..=7 {
        scene.ok(create_node(node, Role::Manager));
    }
    scene.update_node(7, node_spec(Role::Worker)).unwrap();
    assert!(matches!(scene.refused(create_node(8, Role::Manager)), Refusal::Invalid(_)));
    // It may change its mind.
    scene.update_node(7, node_spec(Role::Manager)).unwrap();
    scene.update_node(7, node_spec(Role::Worker)).unwrap();
    scene.ok(Command::SetNodeRole { id: id(7), role: Role::Worker });
    scene.ok(create_node(8, Role::Manager));
}

#[test]
fn the_last_manager_cannot_be_demoted() {
    let mut scene = Scene::new();
    scene.ok(create_node(1, Role::Manager));
    scene.ok(create_node(2, Role::Manager));
    scene.ok(create_node(3, Role::Worker));
    scene.ok(Command::SetNodeLeft { id: id(2), left: true });
    let last = Refusal::Invalid("attempting to demote the last manager of the swarm".into());
    assert_eq!(scene.update_node(1, node_spec(Role::Worker)), Err(last));
    scene.ok(Command::SetNodeLeft { id: id(2), left: false });
    scene.update_node(1, node_spec(Role::Worker)).unwrap();
}

#[test]
fn roles_that_have_followed_are_recorded_in_any_order() {
    let mut scene = Scene::new();
    scene.ok(create_node(1, Role::Manager));
    scene.ok(create_node(2, Role::Worker));
    scene.update_node(2, node_spec(Role::Manager)).unwrap();
    scene.update_node(1, node_spec(Role::Worker)).unwrap();
    let followed = |node, role| Command::SetNodeRole { id: id(node), role };
    scene.all(vec![followed(1, Role::Worker), followed(2, Role::Manager)]).unwrap();
    let roles: Vec<_> = scene.store.nodes().map(|node| node.role).collect();
    assert_eq!(roles, [Role::Worker, Role::Manager]);
}

#[test]
fn a_manager_must_be_demoted_before_it_is_removed() {
    let mut scene = Scene::new();
    scene.ok(create_node(1, Role::Manager));
    scene.ok(create_node(2, Role::Manager));
    let message = format!(
        "node {} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal",
        id(1)
    );
    assert_eq!(scene.refused(remove(1)), Refusal::Invalid(message.clone()));
    scene.update_node(1, node_spec(Role::Worker)).unwrap();
    assert_eq!(scene.refused(remove(1)), Refusal::Invalid(message));
    scene.ok(Command::SetNodeRole { id: id(1), role: Role::Worker });
    assert_eq!(scene.ok(remove(1)), [Event::Node(id(1), Change::Removed)]);
    assert!(matches!(scene.refused(remove(1)), Refusal::NotFound { .. }));
}

fn removed(scene: &Scene) -> Vec<u128> {
    scene.store.removed_nodes().map(|node| node.bits()).collect()
}

/// NOD-25: whatever a certificate says, its node is known to be removed for as long as the certificate lasts.
#[test]
fn a_removed_node_is_remembered_while_its_certificate_may_be_valid() {
    let mut scene = Scene::new();
    let lifetime = scene.store.cluster().unwrap().spec.certificate_lifetime;
    for node in 1..=4 {
        scene.ok(create_node(node, Role::Worker));
    }
    scene.ok(remove(1));
    scene.wait(lifetime / 2);
    scene.ok(remove(2));
    assert_eq!(removed(&scene), [1, 2]);
    assert_eq!(decode(&encode(&scene.store)), scene.store);
    scene.wait(lifetime / 2);
    scene.ok(remove(3));
    assert_eq!(removed(&scene), [2, 3]);
    scene.ok(create_node(2, Role::Worker));
    assert_eq!(removed(&scene), [3], "it is a member again");
}

/// API-08
#[test]
fn a_node_changes_for_those_who_have_read_it() {
    let mut scene = Scene::new();
    scene.ok(create_node(1, Role::Worker));
    let version = scene.node_version(1);
    let spec = NodeSpec { availability: Availability::Drain, ..node_spec(Role::Worker) };
    scene.update_node(1, spec.clone()).unwrap();
    assert_eq!(scene.store.node(id(1)).unwrap().spec, spec);
    let late = Command::UpdateNode { id: id(1), version, spec };
    assert_eq!(scene.refused(late), Refusal::OutOfSequence);
}

#[test]
fn a_description_is_news_only_when_it_differs() {
    let mut scene = Scene::new();
    scene.ok(create_node(1, Role::Worker));
    let description = NodeDescription { hostname: "renamed".into(), ..Default::default() };
    let describe = Command::DescribeNode { id: id(1), description, address: ([10, 0, 0, 2], 2377).into() };
    assert_eq!(scene.ok(describe.clone()), [Event::Node(id(1), Change::Updated)]);
    assert_eq!(scene.ok(describe), []);
    let node = scene.store.node(id(1)).unwrap();
    assert_eq!((node.description.hostname.as_str(), node.address), ("renamed", ([10, 0, 0, 2], 2377).into()));
}

/// NOD-25, TSK-04
#[test]
fn tasks_of_a_removed_node_end_as_orphaned_and_keep_its_id() {
    let mut scene = Scene::with_task_on_node(1, 2, 3);
    scene.all(place_task(4, 1, 2, 2)).unwrap();
    scene.ok(finish(4, TaskState::Failed));
    scene.ok(remove(2));
    let task = scene.store.task(id(3)).unwrap();
    assert_eq!((task.status.state, task.desired), (TaskState::Orphaned, DesiredState::Shutdown));
    assert_eq!(task.node, Some(id(2)));
    assert_eq!(scene.store.tasks_on_node(id(2)).map(|task| task.id).collect::<Vec<_>>(), [id(3), id(4)]);
    assert_eq!(scene.store.task(id(4)).unwrap().status.state, TaskState::Failed);
}

/// NOD-25
#[test]
fn a_task_that_is_to_be_removed_stays_so_when_its_node_goes() {
    let mut scene = Scene::with_task_on_node(1, 2, 3);
    scene.ok(Command::RemoveService { id: id(1) });
    scene.ok(remove(2));
    let task = scene.store.task(id(3)).unwrap();
    assert_eq!((task.status.state, task.desired), (TaskState::Orphaned, DesiredState::Remove));
    scene.ok(Command::RemoveTask { id: id(3) });
    assert_eq!(scene.store.tasks_on_node(id(2)).count(), 0);
}
