//! Whether a plan still fits: nothing that it is about may have changed since it was made.

use super::Store;
use crate::{Id, Version, command::Command};

impl Store {
    /// True if something that `command` builds on has changed after `planned`. Users who write all the time to other
    /// objects do not hold up a plan.
    pub(super) fn has_outrun(&self, command: &Command, planned: Version) -> bool {
        let service = |id: Id| self.service(id).is_some_and(|service| service.version > planned);
        let node = |id: Id| self.node(id).is_some_and(|node| node.version > planned);
        let task = |id: Id| self.task(id).is_some_and(|task| task.version > planned);
        match *command {
            Command::CreateCluster { .. }
            | Command::UpdateCluster { .. }
            | Command::SetJoinSecrets { .. } => {
                self.cluster().is_some_and(|cluster| cluster.version > planned)
            }
            Command::CreateNode { id, .. }
            | Command::UpdateNode { id, .. }
            | Command::DescribeNode { id, .. }
            | Command::SetNodeRole { id, .. }
            | Command::SetNodeLeft { id, .. }
            | Command::RemoveNode { id } => node(id),
            Command::CreateService { id, .. }
            | Command::UpdateService { id, .. }
            | Command::SetUpdateStatus { id, .. }
            | Command::RemoveService { id } => service(id),
            Command::CreateNetwork { id, .. } | Command::RemoveNetwork { id } => {
                self.network(id).is_some_and(|network| network.version > planned)
            }
            Command::CreateAttachment { id, .. } | Command::RemoveAttachment { id } => {
                self.attachment(id).is_some_and(|attachment| attachment.version > planned)
            }
            Command::CreateTask { service: id, slot, .. } => {
                service(id) || self.tasks_of_slot(id, slot).any(|task| task.version > planned)
            }
            Command::AssignTask { id, node: to } => task(id) || node(to),
            Command::AllocateTask { id }
            | Command::ExplainTask { id, .. }
            | Command::SetTaskDesired { id, .. }
            | Command::FinishTask { id, .. }
            | Command::RemoveTask { id } => task(id),
        }
    }
}
