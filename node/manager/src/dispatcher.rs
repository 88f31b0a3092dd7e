//! The dispatcher: which tasks each connected node has been told of, and what it has to be told next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use covey_state::{
    Id, Store, Version,
    assignment::{Assignment, AssignmentSet, Generation},
    event::{Change, Event},
    task::{DesiredState, Task},
};

/// Tasks in one set, at most; more go in sets that follow.
pub const TASKS_PER_SET_MAX: usize = 256;
/// Bytes of the tasks of one set, but for one that is larger alone.
pub const SET_BYTES_MAX: usize = 4 << 20;

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
    tasks: BTreeMap<Id, (DesiredState, Version)>,
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
    pub fn handle_connected(&mut self, store: &Store, node: Id) -> Vec<Output> {
        let told = store.tasks_on_node(node).map(|task| (task.id, changeable(store, task))).collect();
        let mut rest = store.tasks_on_node(node).map(|task| Assignment::of(store, task)).collect();
        let tasks = part_of(&mut rest);
        let later = rest.iter().map(|assignment| assignment.task).collect();
        let generation = self.next_generation();
        self.nodes.insert(node, Told { generation, tasks: told });
        let mut outputs = vec![Output { node, set: AssignmentSet::Full { generation, tasks, later } }];
        outputs.extend(self.sets_of(node, rest, Vec::new()));
        outputs
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
                // Tasks of a removed service change themselves.
                Event::Service(id, Change::Updated) => {
                    for (node, task) in self.exposed_anew(store, id) {
                        touched.entry(node).or_default().insert(task);
                    }
                }
                Event::Node(node, Change::Removed) => self.handle_disconnected(node),
                _ => {}
            }
        }
        touched.into_iter().flat_map(|(node, tasks)| self.changes_for(store, node, &tasks)).collect()
    }

    /// The tasks of a service whose nodes know it as it was reached before.
    fn exposed_anew(&self, store: &Store, service: Id) -> Vec<(Id, Id)> {
        let Some(version) = store.service(service).map(|service| service.exposure.version) else {
            return Vec::new();
        };
        let live = store.tasks_of_service(service).filter(|task| !task.status.state.is_terminal());
        live.filter_map(|task| {
            let node = task.node?;
            let (_, told) = self.nodes.get(&node)?.tasks.get(&task.id)?;
            (*told != version).then_some((node, task.id))
        })
        .collect()
    }

    fn changes_for(&mut self, store: &Store, node: Id, tasks: &BTreeSet<Id>) -> Vec<Output> {
        let Some(told) = self.nodes.get_mut(&node) else { return Vec::new() };
        let (mut update, mut remove) = (VecDeque::new(), Vec::new());
        for id in tasks {
            match store.task(*id) {
                Some(task) => {
                    let now = changeable(store, task);
                    let before = told.tasks.insert(*id, now);
                    // A task that has ended is not reached any more.
                    let ended = task.status.state.is_terminal();
                    if before != Some(now) && !(ended && before.is_some_and(|before| before.0 == now.0)) {
                        update.push_back(Assignment::of(store, task));
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

    fn sets_of(&mut self, node: Id, mut update: VecDeque<Assignment>, mut remove: Vec<Id>) -> Vec<Output> {
        let mut outputs = Vec::new();
        while !(update.is_empty() && remove.is_empty()) {
            let now = part_of(&mut update);
            let room = TASKS_PER_SET_MAX - now.len();
            let later_removed = remove.split_off(remove.len().min(room));
            let generation = self.next_generation();
            let Some(told) = self.nodes.get_mut(&node) else { break };
            let base = std::mem::replace(&mut told.generation, generation);
            let set = AssignmentSet::Changes { base, generation, update: now, remove };
            outputs.push(Output { node, set });
            remove = later_removed;
        }
        outputs
    }

    fn next_generation(&mut self) -> Generation {
        self.sequence += 1;
        Generation { term: self.term, sequence: self.sequence }
    }
}

/// What of an assignment may change.
fn changeable(store: &Store, task: &Task) -> (DesiredState, Version) {
    let exposed = store.service(task.service).map(|service| service.exposure.version);
    (task.desired, exposed.unwrap_or_default())
}

/// Takes what goes into one set: at least one where there is one.
fn part_of(assignments: &mut VecDeque<Assignment>) -> Vec<Assignment> {
    let mut part = Vec::new();
    let mut bytes = 0;
    while let Some(next) = assignments.front() {
        bytes += next.encoded_len();
        if part.len() == TASKS_PER_SET_MAX || (bytes > SET_BYTES_MAX && !part.is_empty()) {
            break;
        }
        part.extend(assignments.pop_front());
    }
    part
}
