//! Going on as the member that this machine was before the daemon started.

use std::sync::Arc;

use anyhow::Result;
use covey_gossip_quic::Endpoint;
use rustls::pki_types::CertificateDer;

use super::Daemon;
use crate::{
    clock,
    identity::{Identity, Notes},
    member::Member,
    protocol::RenewRequest,
    renewal,
};

impl Daemon {
    /// Goes on as the member that this machine was before the daemon started, if it was one.
    ///
    /// # Errors
    /// Something on disk is damaged or newer than this version, or the control address cannot be had.
    pub async fn resume(self: &Arc<Self>) -> Result<()> {
        let _moving = self.moving.lock().await;
        let Some((mut identity, notes)) = self.folder.load()? else { return Ok(()) };
        if notes.leaving {
            return self.forget(identity.peer.id).await;
        }
        let (endpoint, events) = Member::bind(notes.listen, Some(&identity)).await?;
        if identity.peer.check_time(clock::wall()).is_err() {
            tracing::warn!("the certificate is not valid at this time: asking for a new one");
            match renewed(&endpoint, &identity, &notes).await {
                Ok(new) => {
                    self.folder.save(&new)?;
                    endpoint.set_identity(&new.of_quic())?;
                    identity = new;
                }
                // What runs here goes on; a new certificate is asked for again and again.
                Err(error) => tracing::warn!(error = format!("{error:#}"), "no new certificate yet"),
            }
        }
        let surroundings = self.surroundings(identity.peer.id, notes.data_path);
        let nodes = self.folder.nodes();
        self.enter(Member::start(surroundings, identity, notes, endpoint, events, nodes).await?);
        Ok(())
    }
}

/// A new certificate for a node whose own is not valid at this time.
async fn renewed(endpoint: &Endpoint, identity: &Identity, notes: &Notes) -> Result<Identity> {
    let request = RenewRequest { request: identity.key.request()?, advertise: notes.advertise };
    let renewed = renewal::ask(endpoint, &notes.managers, &request).await?;
    Identity::new(identity.key.clone(), CertificateDer::from(renewed.certificate), identity.ca.clone())
}
