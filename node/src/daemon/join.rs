//! Joining a cluster that is there.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use covey_api::{Failure, control::JoinRequest};
use covey_crypto::{identity::NodeKey, token::JoinToken};
use covey_gossip_quic::{self as quic, Endpoint, Event, RequestError};
use covey_state::Id;
use rustls::pki_types::CertificateDer;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{Addresses, Daemon, LOOK, invalid, own_networks};
use crate::{
    address, clock,
    identity::{Identity, Notes},
    member::{Log, Member},
    protocol::{self, JOIN_MAX, Joined},
};

/// How long a new manager may take to have the log and a vote.
const VOTE_WITHIN: Duration = Duration::from_secs(15);
/// Bytes of the answer to a request to join: it names all nodes.
const JOIN_ANSWER_MAX: usize = quic::ANSWER_MAX + JOIN_MAX;

impl Daemon {
    /// Joins a cluster.
    ///
    /// # Errors
    /// For the user; the machine is in no cluster then.
    pub async fn join(self: &Arc<Self>, request: JoinRequest) -> Result<(), Failure> {
        let _moving = self.moving.lock().await;
        if self.member().is_some() {
            return Err(Failure::already_in_swarm());
        }
        let token: JoinToken = request.token.parse().map_err(|error| Failure::invalid(format!("{error}")))?;
        let mut listen = address::listen(&request.listen).map_err(invalid)?;
        for manager in request.remotes.iter().filter_map(|remote| remote.parse::<SocketAddr>().ok()) {
            listen = address::listen_beside(listen, manager.ip());
        }
        let advertise = address::advertise_or_seen(&request.advertise, listen).map_err(invalid)?;
        let data_path = address::data_path(&request.data_path).map_err(invalid)?;
        self.set_out();
        let joined = self.come_in(&request, &token, Addresses { listen, advertise, data_path }).await;
        if joined.is_err() {
            self.retreat().await;
        }
        joined.map_err(|error| Failure::unavailable(format!("{error:#}")))
    }

    async fn come_in(
        self: &Arc<Self>,
        request: &JoinRequest,
        token: &JoinToken,
        at: Addresses,
    ) -> Result<()> {
        let (endpoint, events) = Member::bind(at.listen, None).await?;
        let joined = self.come_in_by(endpoint.clone(), events, request, token, at).await;
        if joined.is_err() {
            // The next attempt wants the same address.
            endpoint.close().await;
        }
        joined
    }

    async fn come_in_by(
        self: &Arc<Self>,
        endpoint: Endpoint,
        events: mpsc::Receiver<Event>,
        request: &JoinRequest,
        token: &JoinToken,
        Addresses { listen, advertise, data_path }: Addresses,
    ) -> Result<()> {
        let key = NodeKey::from_seed(&clock::random());
        let asked = covey_wire::encode(&protocol::JoinRequest {
            token: request.token.clone(),
            request: key.request()?,
            description: self.description(data_path),
            advertise,
            availability: request.availability,
            clock: clock::now(),
            networks: own_networks().await?,
        })?;
        let quic::Joined { answer, ca, .. } = ask(&endpoint, &request.remotes, token, &asked).await?;
        let joined: Joined = covey_wire::decode::<_, JOIN_ANSWER_MAX>(&answer)?;
        let identity = Identity::new(key, CertificateDer::from(joined.certificate), ca)?;
        self.folder.save(&identity)?;
        endpoint.set_identity(&identity.of_quic())?;
        let notes = Notes::new(listen, joined.advertise, data_path, joined.managers);
        let surroundings = self.surroundings(identity.peer.id, data_path);
        let member =
            Member::start(surroundings, identity, notes, endpoint, events, Some(joined.roster)).await?;
        self.member.send_replace(Some(member.clone()));
        if let Some(log) = member.log() {
            let voted = timeout(VOTE_WITHIN, has_vote(&log, member.id())).await;
            voted.context("the managers' log did not come")?;
        }
        self.enter(member);
        Ok(())
    }
}

/// Asks one manager after the other to be let in, until one has decided.
async fn ask(
    endpoint: &Endpoint,
    remotes: &[String],
    token: &JoinToken,
    asked: &[u8],
) -> Result<quic::Joined> {
    let mut managers = Vec::new();
    for remote in remotes {
        managers.extend(address::remote(remote).await?);
    }
    let mut last = None;
    for manager in managers {
        match endpoint.join(manager, token.ca_digest(), asked).await {
            Ok(joined) => return Ok(joined),
            // A word of the manager is final, also one that was lost on the way; whoever cannot be reached may have a neighbour.
            Err(
                error @ (RequestError::Refused(_) | RequestError::WrongCa | RequestError::NoAnswer { .. }),
            ) => return Err(error.into()),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error.into()),
        None => bail!("no manager was named: give the address of one, HOST:PORT"),
    }
}

/// A new manager counts once it votes: before, the loss of another one could cost the quorum.
async fn has_vote(log: &Log, me: Id) {
    while log.store().cluster().is_none() || !log.members().voters.contains_key(&me) {
        sleep(LOOK).await;
    }
}
