//! Plain containers in networks of the cluster: their places are the store's, so their node asks a manager for them.

mod tell;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use covey_api::Failure;
use covey_raft::ProposeError;
use covey_runtime::Runtime;
use covey_state::{
    Id,
    command::{Command, Proposal, Refusal},
    lookup::LookupError,
    network::{Attached, Network, NetworkConfig},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use crate::{
    clock,
    exchange::exchange,
    member::{Log, Member},
    protocol::{MESSAGE_MAX, kind},
};

/// How long a manager may take for its answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long all of them may take together.
const ALL_MAX: Duration = Duration::from_secs(12);
/// Nobody who removes a container waits longer for its places to be given back.
const GIVE_BACK_WAIT: Duration = Duration::from_secs(3);
/// Places that are given back with one request.
const GIVE_BACK_MAX: usize = 256;

/// What a node asks a manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// The network of this id, name or beginning of an id: `Option<Network>`.
    Find(String),
    /// A place for a container of the node: [`Place`]. Asked again, it is the same one.
    Take {
        /// The id of the place.
        id: Id,
        /// In which network.
        network: Id,
        /// Whose, for the user.
        container: String,
        /// The addresses that the user asks for, at most one of each family.
        addresses: Vec<IpAddr>,
    },
    /// All places that the node has: `Vec<Id>`.
    List,
    /// These places of the node are free: `()`. Those that it does not have are no error.
    GiveBack(Vec<Id>),
}

/// A container's place in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The network.
    pub network: NetworkConfig,
    /// IPv4 first.
    pub addresses: Vec<IpAddr>,
}

/// Why a manager does not do what it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Denial {
    /// The store refuses.
    Refused(Refusal),
    /// Not now, or not here.
    Unavailable(String),
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        match denial {
            // A place that cannot be had is forbidden, as in Docker.
            Denial::Refused(Refusal::Invalid(text)) => Self::forbidden(text),
            Denial::Refused(refusal) => refusal.into(),
            Denial::Unavailable(text) => Self::unavailable(text),
        }
    }
}

impl From<ProposeError> for Denial {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Refused(refusal) => Self::Refused(refusal),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// A manager answers a node.
///
/// # Errors
/// The answer cannot be written.
pub async fn answer(log: &Log, node: Id, wish: Wish) -> Result<Vec<u8>, covey_wire::EncodeError> {
    match wish {
        Wish::Find(reference) => covey_wire::encode(&find(log, &reference).await),
        Wish::Take { id, network, container, addresses } => {
            let create = Command::CreateAttachment { id, network, node, container, addresses };
            covey_wire::encode(&take(log, node, id, create).await)
        }
        Wish::List => covey_wire::encode(&list(log, node).await),
        Wish::GiveBack(places) => covey_wire::encode(&give_back(log, node, &places).await),
    }
}

async fn read(log: &Log) -> Result<covey_state::Store, Denial> {
    log.read().await.map_err(|error| Denial::Unavailable(error.to_string()))
}

async fn find(log: &Log, reference: &str) -> Result<Option<Network>, Denial> {
    match read(log).await?.find_network(reference) {
        Ok(network) => Ok(Some(Network::clone(network))),
        Err(LookupError::NotFound { .. }) => Ok(None),
        Err(error) => Err(Denial::Refused(Refusal::Invalid(error.to_string()))),
    }
}

async fn take(log: &Log, node: Id, id: Id, create: Command) -> Result<Place, Denial> {
    let mut store = read(log).await?;
    // The answer to the first request may have been lost.
    if store.attachment(id).is_none_or(|attachment| attachment.node != node) {
        log.propose(&Proposal { planned_at: None, commands: vec![create] }).await?;
        store = log.store();
    }
    let gone = || Denial::Unavailable("the network was removed meanwhile".to_owned());
    let attachment = store.attachment(id).ok_or_else(gone)?;
    let network = store.network(attachment.network).ok_or_else(gone)?;
    Ok(Place { network: network.config(), addresses: attachment.addresses.clone() })
}

async fn list(log: &Log, node: Id) -> Result<Vec<Id>, Denial> {
    Ok(read(log).await?.attachments_on_node(node).map(|attachment| attachment.id).collect())
}

async fn give_back(log: &Log, node: Id, places: &[Id]) -> Result<(), Denial> {
    let store = read(log).await?;
    let of_node = |id: &&Id| store.attachment(**id).is_some_and(|attachment| attachment.node == node);
    for id in places.iter().filter(of_node) {
        let commands = vec![Command::RemoveAttachment { id: *id }];
        match log.propose(&Proposal { planned_at: None, commands }).await {
            // Somebody was faster.
            Ok(_) | Err(ProposeError::Refused(Refusal::NotFound { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The places of this node's containers.
pub struct Places {
    runtime: Runtime,
    member: watch::Receiver<Option<Arc<Member>>>,
    /// Places that are taken, or about to be, for containers that do not have them yet.
    pending: Mutex<BTreeSet<Id>>,
    /// Some place may be nobody's.
    doubt: Notify,
}

impl Places {
    /// Those of the containers of `runtime`, in the cluster of `member`.
    pub fn new(runtime: Runtime, member: watch::Receiver<Option<Arc<Member>>>) -> Arc<Self> {
        Arc::new(Self { runtime, member, pending: Mutex::default(), doubt: Notify::new() })
    }

    fn member(&self) -> Result<Arc<Member>, Failure> {
        self.member.borrow().clone().ok_or_else(Failure::not_in_swarm)
    }

    /// The network of the cluster that is meant.
    ///
    /// # Errors
    /// Several are meant, or no manager answers.
    pub async fn find(&self, reference: &str) -> Result<Option<Arc<Network>>, Failure> {
        let found: Option<Network> = ask(&*self.member()?, Wish::Find(reference.to_owned())).await??;
        Ok(found.map(Arc::new))
    }

    /// Takes a place for a container. It is given back unless [`Taken::keep`] says that the container has it.
    ///
    /// # Errors
    /// There is none to be had.
    pub async fn take(
        self: &Arc<Self>,
        network: Id,
        container: &str,
        addresses: Vec<IpAddr>,
    ) -> Result<Taken, Failure> {
        let member = self.member()?;
        let id = clock::new_id();
        self.pending().insert(id);
        let mut taken = Taken { places: self.clone(), id, place: None, kept: false };
        let wish = Wish::Take { id, network, container: container.to_owned(), addresses };
        taken.place = Some(ask(&member, wish).await??);
        Ok(taken)
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, BTreeSet<Id>> {
        // Nothing here panics half-way through a change.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives places back that no container has any more; what cannot be now is done later.
    pub async fn give_back(&self, places: Vec<Id>) {
        if places.is_empty() {
            return;
        }
        let given = async {
            let member = self.member()?;
            give_back_all(&member, &places).await
        };
        let late = |_| Err(Failure::unavailable("no manager of the swarm answered in time"));
        if let Err(failure) = timeout(GIVE_BACK_WAIT, given).await.unwrap_or_else(late) {
            tracing::warn!(%failure, "a container's place in a network is given back later");
            self.doubt.notify_one();
        }
    }

    /// Gives back what the store has for this node and no container has.
    async fn look_over(&self, member: &Member) -> Result<(), Failure> {
        let listed: Vec<Id> = ask(member, Wish::List).await??;
        if listed.is_empty() {
            return Ok(());
        }
        // Those first: a container has its place before it is not pending any more.
        let pending = self.pending().clone();
        let held: BTreeSet<Id> =
            self.runtime.list().iter().flat_map(|container| held(&container.wiring)).collect();
        let nobodys = |id: &Id| !pending.contains(id) && !held.contains(id);
        give_back_all(member, &listed.into_iter().filter(nobodys).collect::<Vec<_>>()).await
    }
}

/// The places that a container has.
pub fn held(wiring: &covey_state::network::Wiring) -> impl Iterator<Item = Id> {
    wiring.networks.iter().filter_map(|attached| attached.attachment)
}

async fn give_back_all(member: &Member, places: &[Id]) -> Result<(), Failure> {
    for some in places.chunks(GIVE_BACK_MAX) {
        ask::<()>(member, Wish::GiveBack(some.to_vec())).await??;
    }
    Ok(())
}

/// A place that was taken for a container which does not have it yet.
pub struct Taken {
    places: Arc<Places>,
    id: Id,
    place: Option<Place>,
    kept: bool,
}

impl Taken {
    /// As a container's wiring has it.
    pub fn attached(&self, aliases: Vec<String>) -> Option<Attached> {
        let Place { network, addresses } = self.place.clone()?;
        Some(Attached { network: Arc::new(network), addresses, aliases, attachment: Some(self.id) })
    }

    /// The container has it.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.places.pending().remove(&self.id);
        if !self.kept {
            self.places.doubt.notify_one();
        }
    }
}

/// Asks the managers one after the other, until one knows.
async fn ask<T: DeserializeOwned>(member: &Member, wish: Wish) -> Result<Result<T, Denial>, Failure> {
    let asked = async {
        if let Some(log) = member.log() {
            let bytes = answer(&log, member.id(), wish).await?;
            return Ok(covey_wire::decode::<_, MESSAGE_MAX>(&bytes)?);
        }
        let mut last = anyhow::anyhow!("no manager is known");
        for (id, address) in member.managers() {
            let answered = timeout(ANSWER_MAX, ask_one(member, id, address, &wish)).await;
            match answered.map_err(anyhow::Error::from).and_then(|answered| answered) {
                Ok(Err(Denial::Unavailable(text))) => last = anyhow::anyhow!(text),
                Ok(known) => return Ok(known),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    match timeout(ALL_MAX, asked).await {
        Ok(Ok(answered)) => Ok(answered),
        Ok(Err(error)) => {
            Err(Failure::unavailable(format!("no manager of the swarm could be asked: {error:#}")))
        }
        Err(_) => Err(Failure::unavailable("no manager of the swarm answered in time")),
    }
}

async fn ask_one<T: DeserializeOwned>(
    member: &Member,
    id: Id,
    address: SocketAddr,
    wish: &Wish,
) -> anyhow::Result<Result<T, Denial>> {
    exchange(member.endpoint.open(id, address, kind::NETWORKS).await?, wish).await
}

#[cfg(test)]
mod tests {
    use covey_api::FailureKind;

    use super::*;

    /// Whoever asks by way of a manager is told the same as on one.
    #[test]
    fn what_the_store_refuses_keeps_its_kind_on_the_way() {
        let not_attachable =
            Denial::Refused(Refusal::Denied("network n is not manually attachable".to_owned()));
        let taken = Denial::Refused(Refusal::Invalid("address 10.0.0.2 is already in use".to_owned()));
        let missing = Denial::Refused(Refusal::NotFound { kind: "network".to_owned(), id: Id::new(1) });
        for (denial, kind) in [
            (not_attachable, FailureKind::Forbidden),
            (taken, FailureKind::Forbidden),
            (missing, FailureKind::NotFound),
            (Denial::Unavailable("no leader".to_owned()), FailureKind::Unavailable),
            (ProposeError::NoLeader.into(), FailureKind::Unavailable),
        ] {
            let bytes = covey_wire::encode(&Err::<Place, _>(denial)).unwrap();
            let read: Result<Place, Denial> = covey_wire::decode::<_, MESSAGE_MAX>(&bytes).unwrap();
            assert_eq!(Failure::from(read.unwrap_err()).kind, kind);
        }
    }
}
