//! What hosts ask each other about their networks, when somebody examines them: any member may.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use covey_overlay_netlink::underlay;
use covey_state::Id;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{
    Networks,
    keeper::Keeper,
    path::{self, End},
    report::{self, Report, Row},
};
use crate::{
    endpoint::Scope,
    exchange::exchange,
    member::Member,
    protocol::{Answer, MESSAGE_MAX, Peer, kind},
};

/// How long a host may take to answer: it probes all others meanwhile.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inquiry {
    /// How its networks are: answered by a [`Report`].
    Report,
    /// What it takes to be the endpoints of this host: answered by its [`Row`]s.
    Rows(Scope, Id),
    /// What has gone to the container with this address: answered by [`Passed`], or by nothing where it has none.
    Passed(Scope, IpAddr),
}

/// Packets that went to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Its id.
    pub container: String,
    /// The host's end of its link.
    pub link: String,
    /// So many, since the link was made.
    pub packets: u64,
}

/// Answers another host.
///
/// # Errors
/// This node's networks have ended.
pub async fn answer(networks: &Networks, inquiry: Inquiry) -> Result<Vec<u8>> {
    Ok(match inquiry {
        Inquiry::Report => encode(report(networks).await)?,
        Inquiry::Rows(scope, owner) => encode(rows(networks, scope, owner).await)?,
        Inquiry::Passed(scope, address) => encode(passed(networks, scope, address).await)?,
    })
}

fn encode<T: Serialize>(answer: Result<T>) -> Result<Vec<u8>> {
    let answer: Answer<T> = answer.map_err(|error| format!("{error:#}"));
    Ok(covey_wire::encode(&answer)?)
}

/// How this host's networks are.
///
/// # Errors
/// This node's networks have ended.
pub async fn report(networks: &Networks) -> Result<Report> {
    let (report, probes) = look(networks, report::examine).await?;
    Ok(tokio::task::spawn_blocking(move || report.with_surroundings(probes)).await?)
}

async fn rows(networks: &Networks, scope: Scope, owner: Id) -> Result<Vec<Row>> {
    look(networks, move |keeper| report::rows(keeper, scope, owner)).await
}

async fn passed(networks: &Networks, scope: Scope, address: IpAddr) -> Result<Option<Passed>> {
    look(networks, move |keeper| {
        let Some(End { container, link, namespace, name }) = path::end_at(keeper, scope, address) else {
            return Ok(None);
        };
        // What the flow cache brings is counted at the container's end only.
        let counters = underlay::link_counters(Some(&namespace), &name)?;
        Ok(Some(Passed { container, link: link.to_string(), packets: counters.rx_packets }))
    })
    .await?
}

/// Asks this node's keeper.
///
/// # Errors
/// It has ended.
pub async fn look<T: Send + 'static>(
    networks: &Networks,
    question: impl FnOnce(&mut Keeper) -> T + Send + 'static,
) -> Result<T> {
    networks.look(question).await.context(super::ENDED)
}

/// Asks a host of the cluster, which may be this one.
///
/// # Errors
/// It does not answer in time, or says why it has no answer.
pub async fn ask<T: DeserializeOwned>(
    networks: &Networks,
    member: &Member,
    peer: &Peer,
    inquiry: Inquiry,
) -> Result<T> {
    let asked = async {
        if peer.id == member.id() {
            let answered = answer(networks, inquiry).await?;
            return Ok(covey_wire::decode::<_, MESSAGE_MAX>(&answered)?);
        }
        exchange(member.endpoint.open(peer.id, peer.address, kind::EXAMINE).await?, &inquiry).await
    };
    let answered = timeout(ANSWER_MAX, asked).await;
    let answer: Answer<T> = answered.map_err(|_| anyhow::anyhow!("no answer within {ANSWER_MAX:?}"))??;
    answer.map_err(anyhow::Error::msg)
}
