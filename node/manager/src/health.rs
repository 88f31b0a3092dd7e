//! How the leader sees a node: able to take tasks, away, or lost; and when so many vanish that nothing is moved.

use std::{fmt, time::Duration};

use covey_state::{Store, cluster::ClusterSpec, node::Node, time::Stamp};

use crate::observed::{Liveness, NodeView, Observed, Session};

/// A node that a new leader has not heard of at all is down after this long.
const UNSEEN_GRACE: Duration = Duration::from_secs(30);
/// Hosts that vanish within this time vanish together.
const MASS_LOSS_WINDOW: Duration = Duration::from_secs(10);
/// After a mass loss nothing is moved for this long.
const MASS_LOSS_PAUSE: Duration = Duration::from_secs(30);
/// Fewer hosts are never a mass.
const MASS_LOSS_HOSTS_MIN: usize = 3;

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Alive, and in touch with the leader as far as it knows.
    Able,
    /// Something is wrong; it keeps its tasks and gets none.
    Away {
        /// When it will be lost, where only time is missing for that.
        lost_at: Option<Stamp>,
    },
    /// It is gone, and its tasks with it.
    Lost,
}

/// A lost host keeps its tasks for this long.
pub(crate) fn grace(store: &Store) -> Duration {
    store
        .cluster()
        .map_or_else(|| ClusterSpec::default().heartbeat_period, |cluster| cluster.spec.heartbeat_period)
}

/// How a node is at `now`.
pub(crate) fn health(node: &Node, observed: &Observed, grace: Duration, now: Stamp) -> Health {
    let view = observed.node_view(node.id);
    if node.left {
        return Health::Lost;
    }
    match lost_at(view, observed.leader_since(), grace) {
        Some(at) if at <= now => Health::Lost,
        None if is_able(view) => Health::Able,
        lost_at => Health::Away { lost_at },
    }
}

/// A node that has not called yet may do so at any moment; one that hung up is not trusted with more.
fn is_able(view: NodeView) -> bool {
    view.liveness == Some(Liveness::Alive) && !matches!(view.session, Some(Session::Gone { .. }))
}

/// When a node is lost: SWIM says down *and* the leader's session is gone, and a grace has passed since.
fn lost_at(view: NodeView, leader_since: Stamp, grace: Duration) -> Option<Stamp> {
    let hung_up = match view.session {
        Some(Session::Connected) => return None,
        Some(Session::Gone { since }) => since,
        None => leader_since,
    };
    match view.liveness {
        Some(Liveness::Alive) => None,
        Some(Liveness::Down { since }) => Some(since.max(hung_up) + grace),
        Some(Liveness::Left) => Some(hung_up),
        None => Some(hung_up.max(leader_since + UNSEEN_GRACE)),
    }
}

/// Too many hosts vanished at once: rather the network than the hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MassLoss {
    /// Hosts that vanished together.
    pub vanished: usize,
    /// Hosts that there were before.
    pub hosts: usize,
    /// Until when nothing is moved.
    pub until: Stamp,
}

impl fmt::Display for MassLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} hosts vanished within {} s: their tasks are not moved for {} s",
            self.vanished,
            self.hosts,
            MASS_LOSS_WINDOW.as_secs(),
            MASS_LOSS_PAUSE.as_secs()
        )
    }
}

/// The mass loss that is in force at `now`: more than half of the hosts, and at least three, vanished together. Any
/// manager can tell, from what gossip says alone.
pub fn mass_loss(store: &Store, observed: &Observed, now: Stamp) -> Option<MassLoss> {
    let members = || store.nodes().filter(|node| !node.left);
    let mut vanished: Vec<Stamp> =
        members().filter_map(|node| vanished_at(observed.node_view(node.id))).collect();
    vanished.sort_unstable();
    let known = members().count();
    // The last window that is large enough: the pause counts from its end.
    (MASS_LOSS_HOSTS_MIN..=vanished.len()).rev().find_map(|end| {
        let last = vanished[end - 1];
        let before = vanished[..end].partition_point(|at| last.since(*at) > MASS_LOSS_WINDOW);
        let together = end - before;
        let hosts = known - before;
        let until = last + MASS_LOSS_PAUSE;
        (together >= MASS_LOSS_HOSTS_MIN && together * 2 > hosts && until > now).then_some(MassLoss {
            vanished: together,
            hosts,
            until,
        })
    })
}

/// The first sign that a host vanished, if it has not come back: earlier than its loss, so that the first lost
/// hosts are not moved before the others are known to be lost, too.
fn vanished_at(view: NodeView) -> Option<Stamp> {
    let down = match view.liveness {
        Some(Liveness::Down { since }) => Some(since),
        _ => None,
    };
    match (down, view.session) {
        (_, Some(Session::Connected)) => None,
        (Some(down), Some(Session::Gone { since })) => Some(down.min(since)),
        (None, Some(Session::Gone { since })) if view.liveness != Some(Liveness::Left) => Some(since),
        (down, _) => down,
    }
}
