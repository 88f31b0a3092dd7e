//! What other nodes ask of this one: each kind of stream goes to whoever serves it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use covey_agent::worker::SetError;
use covey_crypto::identity::{PeerIdentity, Role};
use covey_gossip::MESSAGE_BYTES_MAX as GOSSIP_MAX;
use covey_gossip_quic::{Event, RecvStream, Reply, SendStream, read_frame, write_frame};
use covey_state::{
    Id, Version,
    assignment::AssignmentSet,
    command::{Command, Proposal},
    node::Role as NodeRole,
};
use futures_util::{StreamExt, future::BoxFuture, stream::BoxStream};
use tokio::sync::mpsc;

use crate::{
    admission, clock, joining,
    member::{Log, Member},
    network::inquiry::{self, Inquiry},
    protocol::{Answer, Assign, Assigned, JOIN_MAX, LogFrame, LogsRequest, MESSAGE_MAX, Roster, Taken, kind},
    session,
};

/// A node that is none any more is told so this often, and so many at a time.
const TELL_GONE_EVERY: Duration = Duration::from_secs(1);
const TOLD_MAX: usize = 1024;
/// Bytes of a request for log lines, about networks, or to leave.
const SMALL_MAX: usize = 64 << 10;

/// Log lines of this node's tasks.
pub trait TaskLogs: Send + Sync + 'static {
    /// The lines that are asked for; a sentence where there are none to be had.
    fn lines(&self, request: LogsRequest) -> BoxFuture<'_, Result<BoxStream<'static, LogFrame>, String>>;
}

/// Serves until the endpoint ends.
pub async fn events(member: Arc<Member>, mut events: mpsc::Receiver<Event>) {
    let mut told = BTreeMap::new();
    while let Some(event) = events.recv().await {
        if let Some((id, address)) = sender(&event)
            && member.is_gone(id)
        {
            tell_gone(&member, &mut told, id, address);
            continue;
        }
        match event {
            Event::Datagram { from, bytes, .. } => member.gossip.datagram(from, bytes),
            Event::Stream { from, kind, send, recv, .. } => {
                let node = from.id;
                let served = stream(member.clone(), from, kind, send, recv);
                member.spawn(async move {
                    if let Err(error) = served.await {
                        tracing::debug!(%node, kind, error = format!("{error:#}"), "a stream was not served");
                    }
                });
            }
            Event::Uni { from, kind: kind::ROWS, mut recv, .. } => {
                let gossip = member.gossip.clone();
                member.spawn(async move {
                    match read_frame(&mut recv, GOSSIP_MAX).await {
                        Ok(bytes) => gossip.push(from.id, bytes).await,
                        Err(error) => tracing::debug!(node = %from.id, %error, "rows did not come in"),
                    }
                });
            }
            // A kind of a newer version.
            Event::Uni { from, kind, .. } => tracing::debug!(node = %from.id, kind, "unknown kind of stream"),
            Event::Join { address, request, reply } => {
                let log = member.log();
                member.spawn(async move { answer(reply, join(log, address, request).await) });
            }
            Event::Renew { from, request, reply, .. } => {
                let log = member.log();
                member.spawn(async move { answer(reply, renew(log, from, request).await) });
            }
            Event::Lost { peer } => {
                member.gossip.lost(peer).await;
                member.sight.handle_lost(peer);
            }
        }
    }
}

/// The member from whom an event is, where it is from one.
fn sender(event: &Event) -> Option<(Id, SocketAddr)> {
    match event {
        Event::Datagram { from, address, .. } => Some((*from, *address)),
        Event::Stream { from, address, .. } | Event::Uni { from, address, .. } => Some((from.id, *address)),
        Event::Join { .. } | Event::Renew { .. } | Event::Lost { .. } => None,
    }
}

/// A node that was removed while it was away still runs its tasks: the leader tells it, every now and then.
fn tell_gone(member: &Arc<Member>, told: &mut BTreeMap<Id, Instant>, id: Id, address: SocketAddr) {
    let now = clock::monotonic();
    told.retain(|_, at| now.duration_since(*at) < TELL_GONE_EVERY);
    if !member.leads() || told.len() >= TOLD_MAX || told.insert(id, now).is_some() {
        return;
    }
    tracing::info!(node = %id, "a node that is none any more still talks; it is told so");
    let roster = Roster { version: Version::MAX, removed: vec![id], ..Roster::default() };
    let news = Assign { set: None, roster: Some(roster) };
    let member = member.clone();
    member.clone().spawn(async move {
        if let Err(error) = session::ask(&member, id, address, &news).await {
            tracing::debug!(node = %id, error = format!("{error:#}"), "it does not hear it");
        }
        member.endpoint.disconnect(id).await;
    });
}

fn answer(reply: Reply, result: Result<Vec<u8>>) {
    match result {
        Ok(bytes) => reply.answer(bytes),
        Err(error) => reply.refuse(format!("{error:#}")),
    }
}

/// What a worker says to whoever takes it for a manager.
const NO_MANAGER: &str = "this node is not a manager";

async fn join(log: Option<Log>, address: SocketAddr, request: Vec<u8>) -> Result<Vec<u8>> {
    let request = covey_wire::decode::<_, JOIN_MAX>(&request)?;
    Ok(covey_wire::encode(&admission::join(&log.context(NO_MANAGER)?, address, request).await?)?)
}

async fn renew(log: Option<Log>, from: PeerIdentity, request: Vec<u8>) -> Result<Vec<u8>> {
    let request = covey_wire::decode::<_, JOIN_MAX>(&request)?;
    Ok(covey_wire::encode(&admission::renew(&log.context(NO_MANAGER)?, from, request).await?)?)
}

async fn stream(
    member: Arc<Member>,
    from: PeerIdentity,
    kind: u8,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<()> {
    match kind {
        kind::GOSSIP => {
            let request = read_frame(&mut recv, GOSSIP_MAX).await?;
            let reply = member.gossip.request(from.id, request).await.context("it deserves no answer")?;
            write_frame(&mut send, &reply).await?;
        }
        kind::RAFT => {
            only_managers(&member, &from)?;
            let log = member.log().context(NO_MANAGER)?;
            let request = read_frame(&mut recv, covey_raft::MESSAGE_BYTES_MAX).await?;
            write_frame(&mut send, &log.handle(from.id, request).await).await?;
        }
        kind::ASSIGN => {
            only_managers(&member, &from)?;
            let assign = covey_wire::decode::<_, MESSAGE_MAX>(&read_frame(&mut recv, MESSAGE_MAX).await?)?;
            let assigned = take(&member, assign).await?;
            write_frame(&mut send, &covey_wire::encode(&assigned)?).await?;
        }
        kind::LEAVE => {
            let log = member.log().context(NO_MANAGER)?;
            let left = goodbye(&log, from.id).await;
            write_frame(&mut send, &covey_wire::encode(&left)?).await?;
        }
        kind::LOGS => {
            only_managers(&member, &from)?;
            let request =
                covey_wire::decode::<LogsRequest, SMALL_MAX>(&read_frame(&mut recv, SMALL_MAX).await?)?;
            send_logs(&member, request, &mut send).await?;
        }
        kind::NETWORKS => {
            let log = member.log().context(NO_MANAGER)?;
            let wish = covey_wire::decode::<_, SMALL_MAX>(&read_frame(&mut recv, SMALL_MAX).await?)?;
            write_frame(&mut send, &joining::answer(&log, from.id, wish).await?).await?;
        }
        kind::EXAMINE => {
            let inquiry = covey_wire::decode::<Inquiry, SMALL_MAX>(&read_frame(&mut recv, SMALL_MAX).await?)?;
            write_frame(&mut send, &inquiry::answer(&member.network, inquiry).await?).await?;
        }
        _ => bail!("it is of a kind that this version does not know"),
    }
    send.finish()?;
    Ok(())
}

/// The certificate says manager, and so does the leader, unless it has said nothing yet: what was noted may be older than
/// the certificate of one that leads by now.
fn only_managers(member: &Member, from: &PeerIdentity) -> Result<()> {
    let demoted = {
        let nodes = member.nodes();
        nodes.is_told() && nodes.get(from.id).is_some_and(|peer| peer.role != NodeRole::Manager)
    };
    if from.role != Role::Manager || demoted {
        bail!("only managers may ask for this");
    }
    Ok(())
}

/// Takes what a leader hands out.
///
/// # Errors
/// This node is about to stop.
pub async fn take(member: &Member, assign: Assign) -> Result<Assigned> {
    let description = (assign.set.is_none() && assign.roster.is_none()).then(|| member.description.clone());
    if let Some(roster) = assign.roster {
        member.take_roster(roster).await;
    }
    let taken = match assign.set {
        Some(set) => take_set(member, set).await?,
        None => Taken::Yes,
    };
    Ok(Assigned { taken, description })
}

async fn take_set(member: &Member, set: AssignmentSet) -> Result<Taken> {
    Ok(match member.agent.assign(set).await.context("the agent has stopped")? {
        Ok(()) => Taken::Yes,
        Err(SetError::Gap { have, .. }) => Taken::NeedFull { have },
        Err(SetError::Old { have, .. }) => Taken::Old { have },
    })
}

async fn goodbye(log: &Log, id: Id) -> Answer<()> {
    let commands = vec![Command::SetNodeLeft { id, left: true }];
    log.propose(&Proposal { planned_at: None, commands }).await.map(drop).map_err(|error| error.to_string())
}

async fn send_logs(member: &Member, request: LogsRequest, send: &mut SendStream) -> Result<()> {
    let lines = member.logs.lines(request).await;
    let begun: Answer<()> = lines.as_ref().map(|_| ()).map_err(Clone::clone);
    write_frame(send, &covey_wire::encode(&begun)?).await?;
    let Ok(mut lines) = lines else { return Ok(()) };
    // A quiet task says nothing for hours: whoever asked may be gone long before.
    let gone = send.stopped();
    tokio::pin!(gone);
    loop {
        tokio::select! {
            line = lines.next() => match line {
                Some(frame) => write_frame(send, &covey_wire::encode(&frame)?).await?,
                None => return Ok(()),
            },
            _ = &mut gone => return Ok(()),
        }
    }
}
