//! Certificates are renewed in time, and at once when the cluster wants this node in another role.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use covey_gossip_quic::Endpoint;
use covey_state::{Id, node::Role};
use rustls::pki_types::CertificateDer;
use tokio::{task::JoinSet, time::timeout};

use crate::{
    admission, clock,
    identity::Identity,
    member::Member,
    protocol::{JOIN_MAX, RenewRequest, Renewed},
};

/// Wait between two attempts.
const RETRY: Duration = Duration::from_secs(1);
/// How long a manager may take to answer: longer than it waits for a leader itself.
const ANSWER_MAX: Duration = Duration::from_secs(6);
/// Clocks are set while a timer runs: the time of day is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// Renews for as long as this node is a member.
pub async fn run(member: Arc<Member>) {
    let mut nodes = member.watch_nodes();
    loop {
        let identity = member.identity();
        let due = identity.peer.renew_at(u32::from_ne_bytes(clock::random()));
        loop {
            let wanted = nodes.borrow_and_update().get(member.id()).map(|peer| peer.role);
            let left = due.duration_since(clock::wall()).unwrap_or_default();
            let lacks_log = identity.role() == Role::Manager && member.log().is_none();
            if wanted.is_some_and(|role| role != identity.role()) || left.is_zero() || lacks_log {
                break;
            }
            tokio::select! {
                changed = nodes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(left.min(LOOK_EVERY)) => {}
            }
        }
        if let Err(error) = renew_now(&member).await {
            tracing::warn!(error = format!("{error:#}"), "the certificate was not renewed yet");
        }
        // Also after success: news of the role may be older than the certificate.
        tokio::time::sleep(RETRY).await;
    }
}

async fn renew_now(member: &Arc<Member>) -> Result<()> {
    let identity = member.identity();
    let request = RenewRequest { request: identity.key.request()?, advertise: member.notes().advertise };
    let others = member.managers();
    let renewed = match member.log() {
        // The only manager has nobody else to ask; any other may be on its way out of the managers.
        Some(log) if others.is_empty() => admission::renew(&log, identity.peer.clone(), request).await?,
        log => match (ask(&member.endpoint, &others, &request).await, log) {
            // Managers that were all away for too long do not let each other in, so none of them leads.
            (Err(error), Some(log)) if identity.peer.check_time(clock::wall()).is_err() => {
                tracing::warn!(error = format!("{error:#}"), "this manager renews its certificate by itself");
                admission::renew_alone(&log, identity.peer.clone(), request)?
            }
            (asked, _) => asked?,
        },
    };
    let certificate = CertificateDer::from(renewed.certificate);
    let identity = Identity::new(identity.key, certificate, identity.ca)?;
    tracing::info!(role = %identity.peer.role, "new certificate");
    member.take_identity(identity).await
}

/// Asks all managers at once, and takes the first new certificate.
///
/// # Errors
/// What the last one said.
pub async fn ask(
    endpoint: &Endpoint,
    managers: &[(Id, SocketAddr)],
    request: &RenewRequest,
) -> Result<Renewed> {
    let request = Arc::new(covey_wire::encode(request)?);
    let mut asked = JoinSet::new();
    for (_, address) in managers.iter().copied() {
        let (endpoint, request) = (endpoint.clone(), request.clone());
        asked.spawn(async move {
            // One that is only just starting says nothing for long.
            let answer = timeout(ANSWER_MAX, endpoint.renew(address, &request)).await;
            let answer = answer.with_context(|| format!("{address} does not answer"))??;
            anyhow::Ok(covey_wire::decode::<_, JOIN_MAX>(&answer)?)
        });
    }
    let mut last = None;
    while let Some(answer) = asked.join_next().await {
        match answer? {
            Ok(renewed) => return Ok(renewed),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).context("no manager gave a certificate"),
        None => bail!("no manager is known"),
    }
}
