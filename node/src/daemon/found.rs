//! A new cluster, with this machine as its first member.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result};
use covey_api::{Failure, control::InitRequest};
use covey_crypto::{
    authority::Authority,
    identity::{NodeKey, Role as CertifiedRole},
};
use covey_state::{
    Id,
    cluster::{Authority as StoredAuthority, JoinSecrets},
    command::{Command, Proposal},
    node::{NodeSpec, Role},
};

use super::{Addresses, Daemon, internal, invalid, own_networks};
use crate::{
    address, admission, clock,
    identity::{Identity, Notes},
    member::Member,
};

impl Daemon {
    /// Makes a new cluster with this node as its only manager.
    ///
    /// # Errors
    /// For the user; the machine is in no cluster then.
    pub async fn init(self: &Arc<Self>, request: InitRequest) -> Result<Id, Failure> {
        let _moving = self.moving.lock().await;
        if request.force_new_cluster {
            return Err(Failure::not_yet("--force-new-cluster"));
        }
        if self.member().is_some() {
            return Err(Failure::already_in_swarm());
        }
        let listen = address::listen(&request.listen).map_err(invalid)?;
        let advertise = address::advertise(&request.advertise, listen).map_err(invalid)?;
        let listen = address::listen_beside(listen, advertise.ip());
        let data_path = address::data_path(&request.data_path).map_err(invalid)?;
        request.spec.edge.check().map_err(|error| Failure::invalid(error.to_string()))?;
        if listen.port() == request.spec.data_path_port {
            return Err(Failure::invalid(format!(
                "invalid data path port {}: members of the swarm talk to each other there (--listen-addr)",
                listen.port()
            )));
        }
        let networks = own_networks().await.map_err(internal)?;
        admission::check_pool(&request.spec.edge, &networks).map_err(invalid)?;
        self.set_out();
        let made = self.found(&request, Addresses { listen, advertise, data_path }).await;
        if made.is_err() {
            self.retreat().await;
        }
        made.map_err(internal)
    }

    async fn found(self: &Arc<Self>, request: &InitRequest, at: Addresses) -> Result<Id> {
        let Addresses { listen, advertise, data_path } = at;
        let (cluster, id) = (clock::new_id(), clock::new_id());
        let authority = Authority::create(&clock::random(), cluster, clock::wall())?;
        let key = NodeKey::from_seed(&clock::random());
        let public_key = key.public();
        let lifetime = request.spec.certificate_lifetime;
        let certificate =
            authority.issue(&key.request()?, id, CertifiedRole::Manager, clock::wall(), lifetime)?;
        let identity = Identity::new(key, certificate, authority.certificate().clone())?;
        let (endpoint, events) = Member::bind(listen, Some(&identity)).await?;
        self.folder.save(&identity)?;
        let notes = Notes::new(listen, advertise, data_path, vec![(id, advertise)]);
        let surroundings = self.surroundings(id, data_path);
        let member = Member::start(surroundings, identity, notes, endpoint, events, None).await?;
        self.member.send_replace(Some(member.clone()));
        let log = member.log().context("the managers' log did not start")?;
        log.initialize().await?;
        let commands = vec![
            Command::CreateCluster {
                id: cluster,
                spec: request.spec.clone(),
                authority: stored(&authority)?,
                join: JoinSecrets {
                    worker: clock::new_id().to_string(),
                    manager: clock::new_id().to_string(),
                },
            },
            Command::CreateNode {
                id,
                spec: NodeSpec {
                    name: String::new(),
                    labels: BTreeMap::new(),
                    role: Role::Manager,
                    availability: request.availability,
                },
                description: self.description(data_path),
                address: advertise,
                public_key,
            },
            Command::SetNodeRole { id, role: Role::Manager },
        ];
        log.propose(&Proposal { planned_at: None, commands }).await?;
        self.enter(member);
        Ok(id)
    }
}

/// The authority as the cluster is to remember it.
fn stored(authority: &Authority) -> Result<StoredAuthority> {
    Ok(StoredAuthority {
        certificate: authority.certificate().to_pem(),
        key: authority.key_pem()?.to_string(),
    })
}
