//! The dispatcher: which tasks each connected node has been told of, and what it has to be told next.

use std::collections::{BTreeMap, BTreeSet};

use covey_state::{
    Id, Store,
    assignment::{Assignment, AssignmentSet, Generation},
    event::{Change, Event},
    task::DesiredState,
};

/// Changed or removed tasks in one set, at most; more go in sets that follow.
pub const CHANGES_PER_SET_MAX: usize = 256;

/// A set for a node, to be sent in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// To whom.
    pub node: Id,
    /// What.
    pub set: AssignmentSet,
}

/// What one connected node has been told.
#[derive(Debug)]
struct Told {
    generation: Generation,
    /// All else of an assignment never changes.
    tasks: BTreeMap<Id, DesiredState>,
}

/// The leader's side of all sessions. A new leader, or a new term, makes a new one.
///
/// A node is told of every task that the store binds to it, ended ones too: a container is kept for as long as
/// its task is, and goes when the reaper removes the task.
#[derive(Debug)]
pub struct Dispatcher {
    term: u64,
    /// Of the last set, whoever got it: one count for all nodes needs no memory of those that went.
    sequence: u64,
    nodes: BTreeMap<Id, Told>,
}

impl Dispatcher {
    /// Nobody is connected in this term yet.
    pub fn new(term: u64) -> Self {
        Self { term, sequence: 0, nodes: BTreeMap::new() }
    }

    /// The term that it counts in.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Nobody is connected any more; the count goes on.
    pub fn disconnect_all(&mut self) {
        self.nodes.clear();
    }

    /// A node opened its session, or asks for a full set after a gap.
    pub fn handle_connected(&mut self, store: &Store, node: Id) -> Output {
        let tasks: Vec<Assignment> =
            store.tasks_on_node(node).map(|task| Assignment::of(store, task)).collect();
        let generation = self.next_generation();
        let told = tasks.iter().map(|task| (task.task, task.desired)).collect();
        self.nodes.insert(node, Told { generation, tasks: told });
        Output { node, set: AssignmentSet::Full { generation, tasks } }
    }

    /// A node's session ended.
    pub fn handle_disconnected(&mut self, node: Id) {
        self.nodes.remove(&node);
    }

    /// The store changed: `store` is as it is after `events`.
    pub fn handle_changes(&mut self, store: &Store, events: &[Event]) -> Vec<Output> {
        let mut touched: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
        for event in events {
            match *event {
                Event::Task { id, node: Some(node), .. } if self.nodes.contains_key(&node) => {
                    touched.entry(node).or_default().insert(id);
                }
                Event::Node(node, Change::Removed) => self.handle_disconnected(node),
                _ => {}
            }
        }
        touched.into_iter().flat_map(|(node, tasks)| self.changes_for(store, node, &tasks)).collect()
    }

    fn changes_for(&mut self, store: &Store, node: Id, tasks: &BTreeSet<Id>) -> Vec<Output> {
        let Some(told) = self.nodes.get_mut(&node) else { return Vec::new() };
        let (mut update, mut remove) = (Vec::new(), Vec::new());
        for id in tasks {
            match store.task(*id) {
                Some(task) => {
                    if told.tasks.insert(*id, task.desired) != Some(task.desired) {
                        update.push(Assignment::of(store, task));
                    }
                }
                None => {
                    if told.tasks.remove(id).is_some() {
                        remove.push(*id);
                    }
                }
            }
        }
        self.sets_of(node, update, remove)
    }

    fn sets_of(&mut self, node: Id, mut update: Vec<Assignment>, mut remove: Vec<Id>) -> Vec<Output> {
        let mut outputs = Vec::new();
        while !(update.is_empty() && remove.is_empty()) {
            let later = update.split_off(update.len().min(CHANGES_PER_SET_MAX));
            let room = CHANGES_PER_SET_MAX - update.len();
            let later_removed = remove.split_off(remove.len().min(room));
            let generation = self.next_generation();
            let Some(told) = self.nodes.get_mut(&node) else { break };
            let base = std::mem::replace(&mut told.generation, generation);
            outputs.push(Output { node, set: AssignmentSet::Changes { base, generation, update, remove } });
            (update, remove) = (later, later_removed);
        }
        outputs
    }

    fn next_generation(&mut self) -> Generation {
        self.sequence += 1;
        Generation { term: self.term, sequence: self.sequence }
    }
}
