//! Who votes: the members of Raft follow the roles that users give to nodes, one safe step at a time.

use std::collections::{BTreeMap, BTreeSet};

use covey_state::{
    Id, Store,
    command::{Command, Proposal},
    node::{Node, Role},
};

use crate::leave::majority;

/// The members of Raft as the leader sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftMembers {
    /// The leader itself.
    pub leader: Id,
    /// Who votes, the leader included.
    pub voters: BTreeSet<Id>,
    /// Who listens; true: has caught up with the log.
    pub learners: BTreeMap<Id, bool>,
    /// Voters that have answered lately, the leader included.
    pub reachable: BTreeSet<Id>,
}

/// One change of the members of Raft. The next is planned when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaftChange {
    /// Send it the log.
    AddLearner(Id),
    /// Let it vote.
    Promote(Id),
    /// It votes and listens no more. Where it is the leader, it gives up leadership by it.
    Remove(Id),
}

/// What follows from the roles of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembershipPlan {
    /// The next change of Raft: at most one, and none that would cost the quorum.
    pub change: Option<RaftChange>,
    /// Nodes whose role has followed (`SetNodeRole`).
    pub proposal: Option<Proposal>,
}

/// Plans the members of Raft and the roles that have followed.
///
/// A learner becomes a voter when it has caught up; the unreachable go before the new come, since each lost
/// voter counts against the quorum; the leader goes last.
pub fn plan_membership(store: &Store, members: &RaftMembers) -> MembershipPlan {
    let commands: Vec<Command> = store.nodes().filter_map(|node| followed(node, members)).collect();
    let proposal =
        (!commands.is_empty()).then(|| Proposal { planned_at: Some(store.last_changed()), commands });
    MembershipPlan { change: next_change(store, members), proposal }
}

/// The command that records that Raft has followed the role of `node`.
fn followed(node: &Node, members: &RaftMembers) -> Option<Command> {
    let role = match (node.spec.role, node.role) {
        (Role::Manager, Role::Worker) if members.voters.contains(&node.id) => Role::Manager,
        (Role::Worker, Role::Manager) if !is_member(members, node.id) => Role::Worker,
        _ => return None,
    };
    Some(Command::SetNodeRole { id: node.id, role })
}

fn is_member(members: &RaftMembers, id: Id) -> bool {
    members.voters.contains(&id) || members.learners.contains_key(&id)
}

fn next_change(store: &Store, members: &RaftMembers) -> Option<RaftChange> {
    let wanted: BTreeSet<Id> = (store.nodes())
        .filter(|node| node.spec.role == Role::Manager && !node.left)
        .map(|node| node.id)
        .collect();
    let surplus_learner = members.learners.keys().copied().find(|id| !wanted.contains(id));
    let mut surplus: Vec<Id> = members.voters.difference(&wanted).copied().collect();
    surplus.sort_by_key(|id| (members.reachable.contains(id), *id == members.leader, *id));
    let dead = surplus.iter().copied().find(|id| !members.reachable.contains(id));
    let ready = members.learners.iter().find(|(id, ready)| **ready && wanted.contains(id)).map(|(id, _)| *id);
    let newcomer = wanted.iter().copied().find(|id| !is_member(members, *id));

    surplus_learner
        .or(dead.filter(|id| keeps_quorum_without(members, *id)))
        .map(RaftChange::Remove)
        .or(ready.filter(|_| keeps_quorum_with_one_more(members)).map(RaftChange::Promote))
        .or(newcomer.map(RaftChange::AddLearner))
        .or_else(|| surplus.into_iter().find(|id| keeps_quorum_without(members, *id)).map(RaftChange::Remove))
}

fn keeps_quorum_without(members: &RaftMembers, id: Id) -> bool {
    let voters = members.voters.len().saturating_sub(1);
    let reachable = members.reachable.intersection(&members.voters).filter(|voter| **voter != id).count();
    voters > 0 && reachable >= majority(voters)
}

/// The newcomer itself has caught up, so it answers.
fn keeps_quorum_with_one_more(members: &RaftMembers) -> bool {
    let reachable = members.reachable.intersection(&members.voters).count();
    reachable + 1 >= majority(members.voters.len() + 1)
}
