//! `net path`: the way of a packet from a container of this host, with what is decided at each step.

mod balance;
mod begin;
mod way;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Result;
use covey_api::control::{Hop, PathRequest};
use covey_mesh::Protocol;
use covey_overlay::object::LinkName;
use covey_overlay_netlink::underlay;
use covey_state::Id;
use tokio::task::spawn_blocking;

use self::begin::{Begun, begin};
pub use self::way::{End, end_at};
use super::{
    Networks,
    flow::{ANSWER_MAX, Flow, Outcome},
    inquiry::{self, Inquiry, Passed, look},
    keeper::Keeper,
};
use crate::{endpoint::Scope, member::Member, protocol::Peer, translate};

/// Addresses that a step names; of more only how many they are.
const SHOWN_MAX: usize = 8;

/// One step, and who counts packets there.
#[derive(Clone, Debug)]
struct Step {
    name: &'static str,
    decision: String,
    counter: Option<Counter>,
}

impl Step {
    fn new(name: &'static str, decision: impl Into<String>) -> Self {
        Self { name, decision: decision.into(), counter: None }
    }

    fn counted(self, counter: Counter) -> Self {
        Self { counter: Some(counter), ..self }
    }
}

/// Who counts packets of this way.
#[derive(Clone, Debug)]
enum Counter {
    /// A link of this host, in this namespace or else in the host's own; what it has sent, or what it has received.
    Here { namespace: Option<PathBuf>, link: LinkName, sent: bool },
    /// The link to a container of another host.
    There(Id),
}

/// What the other host counts.
struct There<'a> {
    networks: &'a Networks,
    scope: Scope,
    backend: SocketAddr,
    nodes: BTreeMap<Id, Peer>,
    member: Option<Arc<Member>>,
}

/// Follows the way, and sends something along it.
///
/// # Errors
/// This node's networks have ended, or a probe could not be made.
pub async fn follow(
    networks: &Networks,
    member: Option<Arc<Member>>,
    container: &str,
    request: &PathRequest,
) -> Result<Vec<Hop>> {
    let nodes: BTreeMap<Id, Peer> = match &member {
        Some(member) => member.nodes().all().map(|peer| (peer.id, peer.clone())).collect(),
        None => BTreeMap::new(),
    };
    let (from, to) = (container.to_owned(), request.to.clone());
    let Begun { mut steps, start } = look(networks, move |keeper| begin(keeper, &from, &to)).await?;
    let Some(start) = start else { return Ok(steps.into_iter().map(|step| hop(step, None)).collect()) };

    let protocol = translate::protocol(request.protocol);
    let (inside, to) = (start.namespace.clone(), SocketAddr::new(start.address, request.port));
    let flow = spawn_blocking(move || Flow::open(&inside, protocol, to)).await??;
    let (from, scope) = (flow.from, start.scope);
    let names = nodes.values().map(|peer| (peer.id, peer.hostname.clone())).collect();
    let Decided { steps: decided, backend } =
        look(networks, move |keeper| decide(keeper, scope, protocol, from, to, &names)).await?;
    steps.extend(decided);

    let there = There { networks, scope, backend: backend.unwrap_or(to), nodes, member };
    let before = there.count(&mut steps).await;
    let answer = Step::new("answer", answer(&flow.outcome));
    if backend.is_none() || !flow.send_more() {
        // A connection that nobody took says nothing more: another one goes straight to where it was led.
        let (inside, to) = (start.namespace, there.backend);
        spawn_blocking(move || Flow::open(&inside, protocol, to)).await??;
    }
    let after = there.count(&mut steps).await;
    let packets = before.into_iter().zip(after).map(|(before, after)| before.zip(after));
    let mut hops: Vec<Hop> =
        steps.into_iter().zip(packets).map(|(step, packets)| hop(step, packets)).collect();
    hops.push(hop(answer, None));
    Ok(hops)
}

/// The rest of a way, as far as this host knows it.
struct Decided {
    steps: Vec<Step>,
    /// Who has the connection; `None`: nobody.
    backend: Option<SocketAddr>,
}

/// From the connection as the container sees it to the link of the container that has it.
fn decide(
    keeper: &mut Keeper,
    scope: Scope,
    protocol: Protocol,
    from: SocketAddr,
    to: SocketAddr,
    names: &BTreeMap<Id, String>,
) -> Decided {
    let mut steps = Vec::new();
    let backend = balance::balance(keeper, scope, protocol, from, to, &mut steps);
    match backend {
        Ok(Some(backend)) => {
            let backend = way::lead(keeper, scope, backend, names, &mut steps).then_some(backend);
            Decided { steps, backend }
        }
        Ok(None) => Decided { steps, backend: None },
        Err(error) => {
            steps.push(Step::new("vip", format!("the kernel cannot be asked: {error:#}")));
            Decided { steps, backend: None }
        }
    }
}

fn list<T: ToString>(things: &[T]) -> String {
    let shown: Vec<String> = things.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    match things.len().saturating_sub(SHOWN_MAX) {
        0 => shown.join(", "),
        more => format!("{}, and {more} more", shown.join(", ")),
    }
}

fn hop(Step { name, decision, .. }: Step, packets: Option<(u64, u64)>) -> Hop {
    Hop { step: name.to_owned(), decision, packets }
}

fn answer(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Answered => "it answers".to_owned(),
        Outcome::Sent => {
            "nothing comes back, as it is to be where a datagram without content is passed over".to_owned()
        }
        Outcome::Refused => {
            "the way is open, and the connection is refused: nobody listens on this port".to_owned()
        }
        Outcome::Silent => format!("nothing comes back within {ANSWER_MAX:?}"),
        Outcome::NoWay(error) => format!("the way ends: {error}"),
    }
}

impl There<'_> {
    /// What is counted at each step now.
    async fn count(&self, steps: &mut [Step]) -> Vec<Option<u64>> {
        let mut counts = Vec::new();
        for step in steps {
            let counted = match step.counter.clone() {
                None => Ok(None),
                Some(Counter::Here { namespace, link, sent }) => here(namespace, link, sent).await.map(Some),
                Some(Counter::There(node)) => self.passed(node).await.map(|passed| match passed {
                    Some(Passed { container, link, packets }) => {
                        step.decision =
                            format!("{link} of container {container:.12}, on {}", self.name(node));
                        Some(packets)
                    }
                    None => {
                        step.decision =
                            format!("the way ends: {} has no container with this address", self.name(node));
                        None
                    }
                }),
            };
            counts.push(counted.unwrap_or_else(|error| {
                step.decision = format!("cannot be counted: {error:#}");
                None
            }));
        }
        counts
    }

    fn name(&self, node: Id) -> &str {
        self.nodes.get(&node).map_or("?", |peer| &peer.hostname)
    }

    async fn passed(&self, node: Id) -> Result<Option<Passed>> {
        let Some((peer, member)) = self.nodes.get(&node).zip(self.member.as_ref()) else { return Ok(None) };
        inquiry::ask(self.networks, member, peer, Inquiry::Passed(self.scope, self.backend.ip())).await
    }
}

async fn here(namespace: Option<PathBuf>, link: LinkName, sent: bool) -> Result<u64> {
    let count = move || underlay::link_counters(namespace.as_deref(), link.as_str());
    let counters = spawn_blocking(count).await??;
    Ok(if sent { counters.tx_packets } else { counters.rx_packets })
}
