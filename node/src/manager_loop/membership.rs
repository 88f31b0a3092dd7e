//! The members of Raft follow the roles and addresses of nodes, one change at a time.

use std::net::SocketAddr;

use covey_manager::membership::{RaftChange, RaftMembers};
use covey_state::Id;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::{REACHABLE_WITHIN, RETRY};
use crate::member::Log;

/// The change that is under way, and whether there may be a next one.
#[derive(Default)]
pub struct Changes {
    running: Option<AbortOnDropHandle<()>>,
    is_due: bool,
}

impl Changes {
    /// Raft's members may have to change.
    pub fn look_again(&mut self) {
        self.is_due = true;
    }

    /// The next change is to be planned now.
    pub fn take_due(&mut self) -> bool {
        self.running.is_none() && std::mem::take(&mut self.is_due)
    }

    /// Begins a change, which ends when this is dropped.
    pub fn begin(&mut self, change: impl Future<Output = ()> + Send + 'static) {
        self.running = Some(AbortOnDropHandle::new(tokio::spawn(change)));
    }

    /// Waits until a change has ended, however it did; for ever where there is none.
    pub async fn ended(&mut self) {
        match &mut self.running {
            Some(running) => _ = running.await,
            None => std::future::pending().await,
        }
        self.running = None;
        self.look_again();
    }
}

/// The members of Raft as this leader sees them.
pub fn seen(log: &Log, me: Id) -> RaftMembers {
    let (members, contacts) = (log.members(), log.contacts());
    let answers = |id: &Id| contacts.get(id).is_some_and(|ago| *ago < REACHABLE_WITHIN);
    let reachable = contacts.keys().copied().filter(answers);
    RaftMembers {
        leader: me,
        voters: members.voters.into_keys().collect(),
        // Raft itself waits until a learner has caught up; one that does not answer never will.
        learners: members.learners.into_keys().map(|id| (id, answers(&id))).collect(),
        reachable: reachable.chain([me]).collect(),
    }
}

/// A manager that the others look for where it is no longer, and where it is.
pub fn moved(log: &Log) -> Option<(Id, SocketAddr)> {
    let (members, store) = (log.members(), log.store());
    let mut known = members.voters.into_iter().chain(members.learners);
    known.find_map(|(id, known)| {
        let now = store.node(id)?.address;
        (now != known).then_some((id, now))
    })
}

/// Has Raft take this change.
pub async fn change(log: Log, change: RaftChange) {
    let changed = match change {
        RaftChange::AddLearner(id) => match log.store().node(id) {
            Some(node) => log.add_learner(id, node.address).await,
            None => return,
        },
        RaftChange::Promote(id) => log.promote(id).await,
        RaftChange::Remove(id) => log.remove(id).await,
    };
    match changed {
        Ok(()) => tracing::info!(?change, "managers changed"),
        Err(error) => {
            tracing::info!(?change, %error, "managers not changed yet");
            sleep(RETRY).await;
        }
    }
}

/// Has the managers look for this one where it is now.
pub async fn move_to(log: Log, id: Id, address: SocketAddr) {
    match log.update_address(id, address).await {
        Ok(()) => tracing::info!(node = %id, %address, "a manager has moved"),
        Err(error) => {
            tracing::info!(node = %id, %address, %error, "a manager's address is not changed yet");
            sleep(RETRY).await;
        }
    }
}
