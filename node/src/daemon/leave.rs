//! Leaving the cluster: at the user's word, since the cluster has removed this node, or since it could not come in.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use covey_agent::executor::Executor;
use covey_api::{Failure, control::LocalState};
use covey_raft::Raft;
use covey_state::{
    Id,
    command::{Command, Proposal},
    node::{NodeSpec, Role},
};
use tokio::time::{sleep, timeout};

use super::{Daemon, LOOK, internal};
use crate::{
    exchange::exchange,
    member::{Log, Member},
    protocol::{Answer, kind},
};

/// How long the others may take to let a manager go that leaves.
const LET_GO_MAX: Duration = Duration::from_secs(5);
/// How long a manager may take to hear that a node leaves.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

impl Daemon {
    /// Leaves the cluster.
    ///
    /// # Errors
    /// For the user; nothing has changed then.
    pub async fn leave(&self, force: bool) -> Result<(), Failure> {
        let _moving = self.moving.lock().await;
        let member = self.member().ok_or_else(|| Failure::unavailable("This node is not part of a swarm"))?;
        if let Some(log) = member.log() {
            if !force && let Some(refusal) = may_not_leave(&member, &log) {
                return Err(Failure::unavailable(refusal));
            }
            match be_let_go(&member, &log).await {
                Err(error) if !force => {
                    let what =
                        "the other managers did not let this one go (use --force to leave all the same)";
                    return Err(Failure::unavailable(format!("{what}: {error:#}")));
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "the other managers did not let this one go")
                }
                Ok(()) => {}
            }
        }
        if let Err(error) = say_goodbye(&member).await {
            tracing::warn!(error = format!("{error:#}"), "no manager heard that this node leaves");
        }
        self.go_out(&member, true).await.map_err(internal)
    }

    /// Leaves as soon as the cluster has removed this node, unless it is this member no longer by then.
    pub(super) async fn follow_expulsion(self: Arc<Self>, member: Arc<Member>) {
        if !member.expelled().await {
            return;
        }
        tracing::warn!("this node was removed from the swarm");
        let _moving = self.moving.lock().await;
        if self.member().is_some_and(|current| Arc::ptr_eq(&current, &member))
            && let Err(error) = self.go_out(&member, false).await
        {
            tracing::error!(error = format!("{error:#}"), "the swarm could not be forgotten");
        }
    }

    /// Ends this node's membership and what it runs for it.
    async fn go_out(&self, member: &Member, goodbye: bool) -> Result<()> {
        member.note_leaving()?;
        self.member.send_replace(None);
        member.stop(goodbye).await;
        self.forget(member.id()).await
    }

    /// Removes what is left of a membership: the containers of its tasks, then what made this machine a member.
    pub(super) async fn forget(&self, node: Id) -> Result<()> {
        let executor = self.executor(node);
        for held in executor.held().await? {
            if let Err(error) = executor.remove(held.task).await {
                tracing::error!(task = %held.task, %error, "its container cannot be removed; remove it by hand");
            }
        }
        self.wipe()
    }

    /// After a failed init or join: as before.
    pub(super) async fn retreat(&self) {
        if let Some(member) = self.member.send_replace(None) {
            // The cluster may have taken this node in already.
            if let Err(error) = say_goodbye(&member).await {
                tracing::debug!(error = format!("{error:#}"), "no manager heard that the attempt has failed");
            }
            member.stop(true).await;
        }
        if let Err(error) = self.wipe() {
            tracing::error!(
                error = format!("{error:#}"),
                "what is left of a failed attempt could not be removed"
            );
        }
    }

    /// This machine is in no cluster, and nothing on disk says otherwise.
    fn wipe(&self) -> Result<()> {
        self.network.leave();
        self.state.send_replace((LocalState::Inactive, String::new()));
        Raft::destroy(&self.folder.raft())?;
        self.folder.wipe()
    }
}

fn may_not_leave(member: &Member, log: &Log) -> Option<String> {
    let voters = log.members().voters;
    let me = member.id();
    let alive = |id: &Id| *id == me || member.sight.node(*id).is_some_and(|(liveness, _)| liveness.is_live());
    covey_manager::leave::refusal(voters.len(), voters.keys().filter(|id| alive(id)).count())
}

/// Has the others take this manager out of their number.
async fn be_let_go(member: &Member, log: &Log) -> Result<()> {
    let id = member.id();
    if log.members().voters.len() <= 1 {
        return Ok(());
    }
    let gone = async {
        let store = log.read().await?;
        let node = store.node(id).context("this node is no member any more")?;
        let spec = NodeSpec { role: Role::Worker, ..node.spec.clone() };
        let commands = vec![Command::UpdateNode { id, version: node.version, spec }];
        log.propose(&Proposal { planned_at: None, commands }).await?;
        // The log closes when this node has become a worker.
        while member.log().is_some() && log.members().voters.contains_key(&id) {
            sleep(LOOK).await;
        }
        Ok(())
    };
    timeout(LET_GO_MAX, gone).await?
}

async fn say_goodbye(member: &Member) -> Result<()> {
    let mut last = anyhow::anyhow!("no manager is known");
    for (id, address) in member.managers() {
        let said = async {
            let stream = member.endpoint.open(id, address, kind::LEAVE).await?;
            exchange::<Answer<()>>(stream, &()).await?.map_err(anyhow::Error::msg)
        };
        match timeout(GOODBYE_MAX, said).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => last = error,
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}
