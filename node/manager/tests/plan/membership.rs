//! Who votes, and that the quorum is never given away.

use std::collections::{BTreeMap, BTreeSet};

use covey_manager::{
    leave::majority,
    membership::{RaftChange, RaftMembers, plan_membership},
};
use covey_state::{Id, command::Command, node::Role};
use proptest::prelude::*;

use crate::world::World;

/// A cluster whose first nodes vote.
fn scene(voters: usize, workers: usize) -> (World, Vec<Id>, RaftMembers) {
    let mut world = World::new(9);
    let mut nodes: Vec<Id> = (0..voters).map(|_| world.add_node_as(Role::Manager, 1, 1)).collect();
    let members = RaftMembers {
        leader: nodes[0],
        voters: nodes.iter().copied().collect(),
        learners: BTreeMap::new(),
        reachable: nodes.iter().copied().collect(),
    };
    nodes.extend((0..workers).map(|_| world.add_node_as(Role::Worker, 1, 1)));
    (world, nodes, members)
}

fn set_role(world: &mut World, node: Id, role: Role) {
    world.change_node(node, |spec| spec.role = role);
}

fn next(world: &World, members: &RaftMembers) -> Option<RaftChange> {
    plan_membership(&world.store, members).change
}

fn commands(world: &World, members: &RaftMembers) -> Vec<Command> {
    plan_membership(&world.store, members).proposal.map_or_else(Vec::new, |proposal| proposal.commands)
}

/// Does what the plan says.
fn follow(members: &mut RaftMembers, change: RaftChange) {
    match change {
        RaftChange::AddLearner(id) => drop(members.learners.insert(id, true)),
        RaftChange::Promote(id) => {
            assert_eq!(members.learners.remove(&id), Some(true));
            members.voters.insert(id);
            members.reachable.insert(id);
        }
        RaftChange::Remove(id) => {
            members.learners.remove(&id);
            members.voters.remove(&id);
        }
    }
}

/// NOD-16
#[test]
fn a_promoted_node_learns_then_votes_then_is_a_manager() {
    let (mut world, nodes, mut members) = scene(1, 1);
    assert_eq!((next(&world, &members), commands(&world, &members)), (None, vec![]));
    set_role(&mut world, nodes[1], Role::Manager);
    assert_eq!(next(&world, &members), Some(RaftChange::AddLearner(nodes[1])));
    members.learners.insert(nodes[1], false);
    assert_eq!(next(&world, &members), None, "it has to catch up first");
    members.learners.insert(nodes[1], true);
    assert_eq!(next(&world, &members), Some(RaftChange::Promote(nodes[1])));
    assert_eq!(commands(&world, &members), []);
    follow(&mut members, RaftChange::Promote(nodes[1]));
    assert_eq!(commands(&world, &members), [Command::SetNodeRole { id: nodes[1], role: Role::Manager }]);
}

/// NOD-17
#[test]
fn a_demoted_node_stops_voting_and_then_is_a_worker() {
    let (mut world, nodes, mut members) = scene(3, 0);
    set_role(&mut world, nodes[1], Role::Worker);
    assert_eq!(commands(&world, &members), []);
    assert_eq!(next(&world, &members), Some(RaftChange::Remove(nodes[1])));
    follow(&mut members, RaftChange::Remove(nodes[1]));
    assert_eq!(commands(&world, &members), [Command::SetNodeRole { id: nodes[1], role: Role::Worker }]);
}

/// NOD-17, QRM-03: any manager can be demoted, the leader last.
#[test]
fn the_leader_is_removed_after_all_others() {
    let (mut world, nodes, mut members) = scene(3, 0);
    set_role(&mut world, nodes[0], Role::Worker);
    set_role(&mut world, nodes[1], Role::Worker);
    assert_eq!(next(&world, &members), Some(RaftChange::Remove(nodes[1])));
    follow(&mut members, RaftChange::Remove(nodes[1]));
    assert_eq!(next(&world, &members), Some(RaftChange::Remove(nodes[0])));
}

/// QRM-15: a dead manager is replaced: it goes first, since it counts against the quorum.
#[test]
fn a_dead_manager_goes_before_a_new_one_comes() {
    let (mut world, nodes, mut members) = scene(3, 1);
    members.reachable.remove(&nodes[2]);
    set_role(&mut world, nodes[2], Role::Worker);
    set_role(&mut world, nodes[3], Role::Manager);
    assert_eq!(next(&world, &members), Some(RaftChange::Remove(nodes[2])));
}

/// CLU-10: a manager that left is no voter any more.
#[test]
fn a_manager_that_left_is_removed() {
    let (mut world, nodes, mut members) = scene(3, 0);
    members.reachable.remove(&nodes[2]);
    world.apply(Command::SetNodeLeft { id: nodes[2], left: true });
    assert_eq!(next(&world, &members), Some(RaftChange::Remove(nodes[2])));
}

/// QRM-04
#[test]
fn a_change_that_would_cost_the_quorum_waits() {
    let (mut world, nodes, mut members) = scene(3, 0);
    members.reachable.remove(&nodes[2]);
    set_role(&mut world, nodes[1], Role::Worker);
    assert_eq!(next(&world, &members), None, "two would be left, and one of them is away");
    members.reachable.insert(nodes[2]);
    assert_eq!(next(&world, &members), Some(RaftChange::Remove(nodes[1])));
}

proptest! {
    /// QRM-04, QRM-05: whatever roles are wanted, each step keeps a majority reachable, and the steps end.
    #[test]
    fn steps_never_cost_the_quorum_and_reach_the_wanted_roles(
        wanted in prop::collection::vec(any::<bool>(), 7),
        voters in 1..6_usize,
    ) {
        let (mut world, nodes, mut members) = scene(voters, 7 - voters);
        let before = members.voters.clone();
        // The store keeps one manager at least: promote first, then demote.
        for role in [Role::Manager, Role::Worker] {
            for (node, manager) in nodes.iter().zip(&wanted) {
                let is_last = world.store.nodes().filter(|node| node.spec.role == Role::Manager).count() == 1;
                if *manager == (role == Role::Manager) && world.store.node(*node).unwrap().spec.role != role && !(role == Role::Worker && is_last) {
                    set_role(&mut world, *node, role);
                }
            }
        }
        let mut steps = 0;
        while let Some(change) = next(&world, &members) {
            follow(&mut members, change);
            let reachable = members.reachable.intersection(&members.voters).count();
            prop_assert!(reachable >= majority(members.voters.len()));
            steps += 1;
            prop_assert!(steps < 20, "from {:?}", before);
        }
        let managers: BTreeSet<Id> = world
            .store
            .nodes()
            .filter(|node| node.spec.role == Role::Manager)
            .map(|node| node.id)
            .collect();
        prop_assert_eq!(&members.voters, &managers);
        for command in commands(&world, &members) {
            world.apply(command);
        }
        prop_assert!(world.store.nodes().all(|node| node.role == node.spec.role));
    }
}
