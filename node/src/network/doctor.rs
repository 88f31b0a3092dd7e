//! `net doctor`: asks all hosts how their networks are, and compares what they believe of each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use covey_api::control::{Finding, Severity};
use covey_state::Id;
use futures_util::{StreamExt as _, stream};
use serde::de::DeserializeOwned;

use super::{
    Networks,
    fault::Fault,
    inquiry::{self, Inquiry},
    probe::Reach,
    report::{Belief, Report, Row, Seen, State},
};
use crate::{endpoint::Scope, member::Member, protocol::Peer};

/// Hosts that are asked at a time.
const ASKED_MAX: usize = 64;
/// Pairs of hosts whose rows are compared one by one; of more it is only said that they differ.
const COMPARED_MAX: usize = 256;
/// How long gossip may take to tell what has just changed: what differs after that is wrong.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);

/// A host that believes of another what this one does not say of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Doubt {
    host: Id,
    scope: Scope,
    owner: Id,
}

/// Examines the networks of all hosts; of this one alone where it is no member of a cluster.
///
/// # Errors
/// This node's networks have ended.
pub async fn examine(
    networks: &Networks,
    member: Option<Arc<Member>>,
    hostname: &str,
) -> Result<Vec<Finding>> {
    let Some(member) = member else {
        let report = inquiry::report(networks).await?;
        return Ok(report.seen.into_iter().map(|seen| finding(hostname, seen)).collect());
    };
    let nodes: BTreeMap<Id, Peer> = member.nodes().all().map(|peer| (peer.id, peer.clone())).collect();
    let cluster = Cluster { networks, member, nodes };
    let answers = cluster.reports().await;
    let (mut findings, mut reports) = (Vec::new(), BTreeMap::new());
    for (id, answer) in answers {
        match answer {
            Ok(report) => _ = reports.insert(id, report),
            Err(error) => {
                let seen = Seen::of_host("host", State::Wrong, format!("does not answer: {error:#}"));
                findings.push(finding(cluster.name(id), seen));
            }
        }
    }
    let doubts = cluster.look_again(doubts(&reports, &cluster.nodes)).await;
    findings
        .extend(believed(&reports, &doubts).into_iter().map(|(id, seen)| finding(cluster.name(id), seen)));
    for (id, report) in reports {
        let paths: Vec<Seen> =
            report.reached.iter().map(|(to, reach)| cluster.path(*to, *reach, report.mtu)).collect();
        let seen = report.seen.into_iter().chain(paths);
        findings.extend(seen.map(|seen| finding(cluster.name(id), seen)));
    }
    Ok(findings)
}

fn finding(host: &str, Seen { network, object, state, text }: Seen) -> Finding {
    let severity = match state {
        State::Ok => Severity::Ok,
        State::Repaired => Severity::Repaired,
        State::Wrong => Severity::Wrong,
    };
    Finding { host: host.to_owned(), network, object, severity, text }
}

/// The hosts that are asked.
struct Cluster<'a> {
    networks: &'a Networks,
    member: Arc<Member>,
    nodes: BTreeMap<Id, Peer>,
}

impl Cluster<'_> {
    fn name(&self, id: Id) -> &str {
        self.nodes.get(&id).map_or("?", |peer| &peer.hostname)
    }

    async fn reports(&self) -> Vec<(Id, Result<Report>)> {
        let ids: Vec<Id> = self.nodes.keys().copied().collect();
        let asked = ids.into_iter().map(|id| async move { (id, self.ask(id, Inquiry::Report).await) });
        stream::iter(asked).buffer_unordered(ASKED_MAX).collect().await
    }

    async fn ask<T: DeserializeOwned>(&self, host: Id, inquiry: Inquiry) -> Result<T> {
        let peer = self.nodes.get(&host).context("it is no member")?;
        inquiry::ask(self.networks, &self.member, peer, inquiry).await
    }

    /// What is left of the doubts once gossip had its time, and what they are about.
    async fn look_again(&self, doubts: BTreeSet<Doubt>) -> BTreeMap<Doubt, Vec<Fault>> {
        if doubts.is_empty() {
            return BTreeMap::new();
        }
        tokio::time::sleep(SETTLES_WITHIN).await;
        let more = doubts.len().saturating_sub(COMPARED_MAX);
        let compared = doubts
            .into_iter()
            .take(COMPARED_MAX)
            .map(|doubt| async move { (doubt, self.compare(doubt).await) });
        let compared: Vec<_> = stream::iter(compared).buffer_unordered(ASKED_MAX).collect().await;
        let mut left: BTreeMap<_, _> =
            compared.into_iter().filter(|(_, differ)| !differ.is_empty()).collect();
        if more > 0
            && let Some((_, differ)) = left.iter_mut().next()
        {
            let text = format!("{more} more hosts differ from what others say of themselves");
            differ.push(Fault { object: "endpoints".to_owned(), text });
        }
        left
    }

    async fn compare(&self, Doubt { host, scope, owner }: Doubt) -> Vec<Fault> {
        let rows = |of| self.ask::<Vec<Row>>(of, Inquiry::Rows(scope, owner));
        let says = match self.nodes.contains_key(&owner) {
            true => rows(owner).await,
            // A host that is no member any more has no endpoints.
            false => Ok(Vec::new()),
        };
        match (says, rows(host).await) {
            (Ok(says), Ok(believes)) => differences(&says, &believes, self.name(owner)),
            (Err(error), _) | (_, Err(error)) => {
                let text = format!("cannot be compared with {}'s: {error:#}", self.name(owner));
                vec![Fault { object: "endpoints".to_owned(), text }]
            }
        }
    }

    fn path(&self, to: Id, reach: Reach, mtu: u32) -> Seen {
        let (name, address) = match self.nodes.get(&to) {
            Some(peer) => (peer.hostname.clone(), peer.data_path.to_string()),
            None => (to.to_string(), "its address".to_owned()),
        };
        let port = self.member.nodes().ground().map_or(0, |ground| ground.data_path_port);
        let (state, text) = match reach {
            Reach::Full => (State::Ok, format!("packets of {mtu} bytes pass")),
            Reach::OnlySmall => (
                State::Wrong,
                format!("small packets pass, those of {mtu} bytes do not: the MTU on the way is smaller"),
            ),
            Reach::Nothing => {
                (State::Wrong, format!("no echo comes back: is UDP port {port} open here and at {address}?"))
            }
        };
        Seen::of_host(format!("data path to {name}"), state, text)
    }
}

/// Who believes what of whom, where it is not what that one says. Of hosts that did not answer nobody knows.
fn doubts(reports: &BTreeMap<Id, Report>, nodes: &BTreeMap<Id, Peer>) -> BTreeSet<Doubt> {
    let says = |scope, owner: Id| -> Option<Belief> {
        match reports.get(&owner) {
            Some(report) => Some(report.beliefs.get(&(scope, owner)).copied().unwrap_or_default()),
            // A host that is no member any more has no endpoints.
            None => (!nodes.contains_key(&owner)).then(Belief::default),
        }
    };
    let mut doubts = BTreeSet::new();
    for (host, report) in reports {
        for scope in report.heard.keys() {
            let of_scope = report.beliefs.keys().filter(|(of, _)| of == scope).map(|(_, owner)| owner);
            let owners: BTreeSet<Id> = reports.keys().chain(of_scope).copied().collect();
            for owner in owners.into_iter().filter(|owner| owner != host) {
                let believes = report.beliefs.get(&(*scope, owner)).copied().unwrap_or_default();
                if says(*scope, owner).is_some_and(|says| says != believes) {
                    doubts.insert(Doubt { host: *host, scope: *scope, owner });
                }
            }
        }
    }
    doubts
}

/// Each endpoint of `owner` of which a host believes otherwise than is said.
fn differences(says: &[Row], believes: &[Row], owner: &str) -> Vec<Fault> {
    let of = |row: &Row, text: String| Fault { object: format!("endpoint {}", row.shown), text };
    let find = |rows: &[Row], key: &str| rows.iter().find(|row| row.key == key).map(|row| row.digest);
    let missing = says.iter().filter_map(|row| match find(believes, &row.key) {
        None => Some(of(row, format!("{owner} tells of it, and it is missing here"))),
        Some(digest) if digest != row.digest => Some(of(row, format!("is not as {owner} tells it now"))),
        Some(_) => None,
    });
    let unknown = believes.iter().filter(|row| find(says, &row.key).is_none());
    missing.chain(unknown.map(|row| of(row, format!("{owner} does not know it")))).collect()
}

/// For each network of each host: what is wrong with its endpoints, or that nothing is.
fn believed(reports: &BTreeMap<Id, Report>, doubts: &BTreeMap<Doubt, Vec<Fault>>) -> Vec<(Id, Seen)> {
    let mut all = Vec::new();
    for (host, report) in reports {
        for (scope, network) in &report.heard {
            let of_this = doubts.iter().filter(|(doubt, _)| doubt.host == *host && doubt.scope == *scope);
            let wrong: Vec<&Fault> = of_this.flat_map(|(_, differ)| differ).collect();
            if wrong.is_empty() {
                let beliefs = report.beliefs.iter().filter(|((of, _), _)| of == scope);
                let rows: u64 = beliefs.map(|(_, belief)| belief.rows).sum();
                let text = format!("{rows} known, as their hosts tell them");
                all.push((*host, Seen::new(network, "endpoints", State::Ok, text)));
            }
            let seen = |fault: &Fault| Seen::new(network, &fault.object, State::Wrong, &fault.text);
            all.extend(wrong.into_iter().map(|fault| (*host, seen(fault))));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRONT: Scope = Scope::Network(Id::new(9));

    fn report(beliefs: &[(u128, u64)]) -> Report {
        let belief = |(owner, sum): &(u128, u64)| ((FRONT, Id::new(*owner)), Belief { rows: 1, sum: *sum });
        Report {
            heard: [(FRONT, "front".to_owned())].into(),
            beliefs: beliefs.iter().map(belief).collect(),
            ..Report::default()
        }
    }

    fn doubted(reports: &[(u128, Report)], away: &[u128]) -> Vec<(u128, u128)> {
        let reports: BTreeMap<Id, Report> =
            reports.iter().map(|(id, report)| (Id::new(*id), report.clone())).collect();
        let peer = |id: Id| Peer {
            id,
            address: ([10, 0, 0, 1], 2377).into(),
            public_key: [0; 32],
            role: covey_state::node::Role::Worker,
            number: 1,
            edge: covey_state::cluster::EdgePool::default().block(1).unwrap(),
            data_path: [10, 0, 0, 1].into(),
            hostname: "m".into(),
        };
        let nodes = reports.keys().copied().chain(away.iter().copied().map(Id::new));
        let nodes = nodes.map(|id| (id, peer(id))).collect();
        doubts(&reports, &nodes).into_iter().map(|doubt| (doubt.host.bits(), doubt.owner.bits())).collect()
    }

    #[test]
    fn what_a_host_believes_is_compared_with_what_its_owner_says() {
        let all_agree = [(1, report(&[(1, 5), (2, 6)])), (2, report(&[(1, 5), (2, 6)]))];
        assert_eq!(doubted(&all_agree, &[]), []);
        let outdated = [(1, report(&[(1, 5), (2, 6)])), (2, report(&[(1, 4), (2, 6)]))];
        assert_eq!(doubted(&outdated, &[]), [(2, 1)]);
        let missing = [(1, report(&[(1, 5)])), (2, report(&[]))];
        assert_eq!(doubted(&missing, &[]), [(2, 1)]);
        let unknown = [(1, report(&[(2, 6)])), (2, Report::default())];
        assert_eq!(doubted(&unknown, &[]), [(1, 2)], "host 2 does not even carry the network");
    }

    #[test]
    fn nobody_knows_what_a_host_would_say_that_does_not_answer_and_removed_ones_have_nothing() {
        let believes = [(1, report(&[(1, 5), (3, 6)]))];
        assert_eq!(doubted(&believes, &[3]), []);
        assert_eq!(doubted(&believes, &[]), [(1, 3)]);
    }

    #[test]
    fn each_endpoint_that_differs_is_told_with_what_is_wrong() {
        let row = |key: &str, digest| Row { key: key.into(), digest, shown: format!("web.{key} (10.0.1.2)") };
        let says = [row("a", 1), row("b", 2), row("c", 3)];
        let believes = [row("a", 1), row("b", 9), row("d", 4)];
        let found = differences(&says, &believes, "m2");
        let expected = [
            ("endpoint web.b (10.0.1.2)", "is not as m2 tells it now"),
            ("endpoint web.c (10.0.1.2)", "m2 tells of it, and it is missing here"),
            ("endpoint web.d (10.0.1.2)", "m2 does not know it"),
        ];
        let expected = expected.map(|(object, text)| Fault { object: object.into(), text: text.into() });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_network_whose_endpoints_are_well_says_how_many_they_are() {
        let reports = BTreeMap::from([(Id::new(1), report(&[(1, 5), (2, 6)]))]);
        let doubt = Doubt { host: Id::new(1), scope: FRONT, owner: Id::new(2) };
        let seen = believed(&reports, &BTreeMap::new());
        assert_eq!((seen.len(), seen[0].1.text.as_str()), (1, "2 known, as their hosts tell them"));
        let differ = vec![Fault { object: "endpoint x".into(), text: "m2 does not know it".into() }];
        let seen = believed(&reports, &BTreeMap::from([(doubt, differ)]));
        assert_eq!((seen.len(), seen[0].1.state), (1, State::Wrong));
    }
}
