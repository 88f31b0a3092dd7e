//! What each node is told, and in which order.

use covey_manager::{Dispatcher, dispatcher::Output, dispatcher::TASKS_PER_SET_MAX};
use covey_state::{
    Id,
    assignment::{AssignmentSet, Generation},
    command::{Command, Proposal},
    event::Event,
    task::{DesiredState, TaskState},
};

use crate::{
    host::status,
    world::{World, service},
};

/// A service with tasks on one node that nobody dispatched yet.
fn scene(replicas: u64) -> (World, Id, Id) {
    let (mut world, nodes) = World::with_nodes(1);
    let web = world.create(service("web", "web:1", replicas));
    world.settle();
    (world, nodes[0], web)
}

/// Applies a command and gives its events to a dispatcher.
fn change(world: &mut World, dispatcher: &mut Dispatcher, commands: Vec<Command>) -> Vec<Output> {
    let events = apply(world, commands);
    dispatcher.handle_changes(&world.store, &events)
}

fn apply(world: &mut World, commands: Vec<Command>) -> Vec<Event> {
    let index = world.store.last_changed() + 1;
    world.store.apply(index, world.now, &Proposal { planned_at: None, commands }).unwrap()
}

/// A node connects, and is told all in one set.
fn connect(dispatcher: &mut Dispatcher, world: &World, node: Id) -> Output {
    let outputs = dispatcher.handle_connected(&world.store, node);
    assert_eq!(outputs.len(), 1);
    outputs.into_iter().next().unwrap()
}

fn sequence(sequence: u64) -> Generation {
    Generation { term: 3, sequence }
}

#[test]
fn a_node_that_connects_is_told_of_all_its_tasks() {
    let (world, node, web) = scene(3);
    let mut dispatcher = Dispatcher::new(3);
    let Output { node: to, set } = connect(&mut dispatcher, &world, node);
    let AssignmentSet::Full { generation, tasks, later } = set else { panic!("{set:?}") };
    assert_eq!(later, []);
    assert_eq!((to, generation), (node, sequence(1)));
    let known: Vec<Id> = world.store.tasks_on_node(node).map(|task| task.id).collect();
    assert_eq!(tasks.iter().map(|task| task.task).collect::<Vec<_>>(), known);
    assert!(tasks.iter().all(|task| task.service == web && task.desired == DesiredState::Running));
}

/// TSK-18: a stop is a change of what is wanted; the container goes when the task is forgotten.
#[test]
fn changes_build_on_the_set_before_and_name_what_to_forget() {
    let (mut world, node, web) = scene(2);
    let tasks = world.running(web);
    let mut dispatcher = Dispatcher::new(3);
    dispatcher.handle_connected(&world.store, node);
    let stop = vec![Command::SetTaskDesired { id: tasks[0].id, desired: DesiredState::Remove }];
    let outputs = change(&mut world, &mut dispatcher, stop);
    let [Output { set: AssignmentSet::Changes { base, generation, update, remove }, .. }] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert_eq!((*base, *generation), (sequence(1), sequence(2)));
    assert_eq!((update.len(), update[0].task, update[0].desired), (1, tasks[0].id, DesiredState::Remove));
    assert!(remove.is_empty());

    let end = Command::FinishTask { id: tasks[0].id, status: status(world.now, TaskState::Shutdown, "") };
    assert_eq!(change(&mut world, &mut dispatcher, vec![end]), [], "the node knows how its task ended");
    let outputs = change(&mut world, &mut dispatcher, vec![Command::RemoveTask { id: tasks[0].id }]);
    let set = AssignmentSet::Changes {
        base: sequence(2),
        generation: sequence(3),
        update: vec![],
        remove: vec![tasks[0].id],
    };
    assert_eq!(outputs, [Output { node, set }]);
}

/// SVC-25: the container of a task in the history stays.
#[test]
fn ended_tasks_stay_in_the_set_until_they_are_forgotten() {
    let (mut world, node, web) = scene(1);
    let task = world.running(web)[0].id;
    let end = Command::FinishTask { id: task, status: status(world.now, TaskState::Failed, "") };
    apply(&mut world, vec![end]);
    let output = connect(&mut Dispatcher::new(3), &world, node);
    assert!(matches!(output.set, AssignmentSet::Full { tasks, .. } if tasks[0].task == task));
}

#[test]
fn nodes_that_are_not_connected_are_told_nothing() {
    let (mut world, node, web) = scene(1);
    let task = world.running(web)[0].id;
    let mut dispatcher = Dispatcher::new(3);
    let stop = |desired| vec![Command::SetTaskDesired { id: task, desired }];
    assert_eq!(change(&mut world, &mut dispatcher, stop(DesiredState::Shutdown)), []);
    dispatcher.handle_connected(&world.store, node);
    dispatcher.handle_disconnected(node);
    assert_eq!(change(&mut world, &mut dispatcher, stop(DesiredState::Remove)), []);
    let again = connect(&mut dispatcher, &world, node);
    assert!(matches!(again.set, AssignmentSet::Full { generation, .. } if generation == sequence(2)));
}

/// Two leaders cannot move a node backwards: a later term is newer, whatever its count.
#[test]
fn a_new_term_is_newer_than_any_set_of_the_old_one() {
    assert!(Generation { term: 4, sequence: 1 } > Generation { term: 3, sequence: 1_000 });
    let (world, node, _) = scene(1);
    let mut dispatcher = Dispatcher::new(4);
    let first = connect(&mut dispatcher, &world, node);
    assert!(matches!(first.set, AssignmentSet::Full { generation, .. } if generation > sequence(u64::MAX)));
}

#[test]
fn many_changes_are_told_in_several_sets() {
    let (mut world, node, web) = scene(250);
    let mut dispatcher = Dispatcher::new(3);
    let other = world.add_node(1, 1);
    dispatcher.handle_connected(&world.store, node);
    dispatcher.handle_connected(&world.store, other);
    let mut commands = Vec::new();
    for (number, task) in world.tasks(web).into_iter().enumerate() {
        commands.push(Command::SetTaskDesired { id: task.id, desired: DesiredState::Remove });
        if number < 100 {
            let status = status(world.now, TaskState::Shutdown, "");
            commands.push(Command::FinishTask { id: task.id, status });
            commands.push(Command::RemoveTask { id: task.id });
        }
    }
    // One more node's worth of tasks, so that one set is not enough.
    for number in 1..=100 {
        let id = Id::new(number);
        commands.push(Command::CreateTask {
            id,
            service: web,
            slot: 1_000 + u64::try_from(number).unwrap(),
            desired: DesiredState::Running,
            not_before: None,
        });
        commands.push(Command::AllocateTask { id });
        commands.push(Command::AssignTask { id, node });
    }
    let outputs = change(&mut world, &mut dispatcher, commands);
    let mut told = 0;
    let mut last = sequence(1);
    for output in &outputs {
        let AssignmentSet::Changes { base, generation, update, remove } = &output.set else { panic!() };
        assert!(output.node == node && update.len() + remove.len() <= TASKS_PER_SET_MAX);
        assert_eq!(*base, last);
        last = *generation;
        told += update.len() + remove.len();
    }
    assert_eq!((outputs.len(), told), (2, 350));
}
