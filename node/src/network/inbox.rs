//! What waits for the keeper: requests in their order, and what gossip says, of which only the latest counts.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use covey_runtime::Attachment;
use covey_state::{
    Id,
    network::{PublishedPort, Wiring},
    node::EdgeBlock,
};
use tokio::sync::oneshot;

use super::{
    keeper::Keeper,
    place::{Neighbour, Place},
    rows::Key,
};
use crate::{
    endpoint::{Endpoint, Scope},
    origins::Origins,
};

/// One request.
pub enum Request {
    /// A container starts.
    Attach {
        /// Its id.
        container: String,
        /// Its host name.
        hostname: String,
        /// What it has of the networks.
        wiring: Wiring,
        /// Its place, or why it has none.
        reply: oneshot::Sender<Result<Attachment, String>>,
    },
    /// A container that runs is to have other networks.
    Rewire {
        /// Its id.
        container: String,
        /// Its host name.
        hostname: String,
        /// What it has of the networks from now on.
        wiring: Wiring,
        /// What it has then, or why it has what it had.
        reply: oneshot::Sender<Result<Attachment, String>>,
    },
    /// A container has ended.
    Detach {
        /// Its id.
        container: String,
        /// What went wrong.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// A container runs since a daemon before this one.
    Adopt {
        /// Its id.
        container: String,
        /// What it has of the networks.
        wiring: Wiring,
        /// All its addresses.
        addresses: Vec<IpAddr>,
        /// Ports of this host that are its own.
        ports: Vec<PublishedPort>,
        /// Its resolver's sockets.
        kept: Vec<OwnedFd>,
    },
    /// All containers of before have been named; their addresses were of this block.
    Open(Option<EdgeBlock>),
    /// This node is in a cluster, with these others.
    Settle(Place, Vec<Neighbour>),
    /// A host is seen under these addresses.
    Origins(Id, Origins),
    /// This node is in no cluster.
    Leave,
    /// Something is asked.
    Look(Box<dyn FnOnce(&mut Keeper) + Send>),
    /// The daemon ends.
    End(oneshot::Sender<()>),
}

/// What has come in since the keeper looked last.
#[derive(Default)]
pub struct Mail {
    /// The first of the requests. Each may take long: what gossip says meanwhile does not wait for the next ones.
    pub requests: VecDeque<Request>,
    /// What hosts tell of endpoints now.
    pub rows: BTreeMap<(Scope, Key), Option<Endpoint>>,
    /// Those of them that were told and withdrawn in between.
    pub withdrawn: BTreeSet<(Scope, Key)>,
    /// Hosts that went down, or came back.
    pub down: BTreeMap<Id, bool>,
    /// Of these everything has been told that others know.
    pub heard: BTreeSet<Scope>,
}

impl Mail {
    fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.rows.is_empty() && self.down.is_empty() && self.heard.is_empty()
    }

    /// All of it but the requests after the first.
    fn take(&mut self) -> Self {
        let mut taken = mem::take(self);
        let others = taken.requests.split_off(taken.requests.len().min(1));
        self.requests = others;
        taken
    }

    fn put(&mut self, key: (Scope, Key), row: Option<Endpoint>) {
        let is_told = row.is_some();
        let before = self.rows.insert(key.clone(), row);
        if is_told {
            self.withdrawn.remove(&key);
        } else if matches!(before, Some(Some(_))) {
            self.withdrawn.insert(key);
        }
    }
}

/// The keeper's inbox, shared with all who write to it. Requests are as many as those who wait for their replies; of
/// the rest there is one of each kind: it grows with what there is, not with how often it changes.
#[derive(Clone, Default)]
pub struct Inbox(Arc<(Mutex<Mail>, Condvar)>);

impl Inbox {
    fn mail(&self) -> MutexGuard<'_, Mail> {
        // Nothing here panics half-way through a change.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request comes in.
    pub fn ask(&self, request: Request) {
        self.mail().requests.push_back(request);
        self.0.1.notify_one();
    }

    /// A host tells something of an endpoint, or no longer does.
    pub fn row(&self, scope: Scope, key: Key, row: Option<Endpoint>) {
        self.mail().put((scope, key), row);
        self.0.1.notify_one();
    }

    /// A host went down, or came back.
    pub fn host(&self, id: Id, down: bool) {
        self.mail().down.insert(id, down);
        self.0.1.notify_one();
    }

    /// Everything has been told that others know of this.
    pub fn heard(&self, scope: Scope) {
        self.mail().heard.insert(scope);
        self.0.1.notify_one();
    }

    /// What has come in; waits for it until `due`.
    pub fn take(&self, now: impl Fn() -> Instant, due: Instant) -> Mail {
        let mut mail = self.mail();
        while mail.is_empty() {
            let left = due.saturating_duration_since(now());
            if left == Duration::ZERO {
                break;
            }
            let (waited, _) = self.0.1.wait_timeout(mail, left).unwrap_or_else(PoisonError::into_inner);
            mail = waited;
        }
        mail.take()
    }
}

#[cfg(test)]
mod tests {
    use covey_state::node::EdgeBlock;

    use super::*;
    use crate::endpoint::Host;

    #[test]
    fn a_row_that_was_told_and_withdrawn_before_anybody_looked_is_known_to_be_withdrawn() {
        let edge = EdgeBlock { v4: "100.64.1.0/24".parse().unwrap(), v6: "fd00::/64".parse().unwrap() };
        let row = Endpoint {
            service: None,
            names: Vec::new(),
            container: "c".into(),
            aliases: Vec::new(),
            addresses: Vec::new(),
            host: Host { number: 1, vtep: [10, 9, 0, 1].into(), edge },
            draining: false,
        };
        let key = |name: &str| (Scope::Ingress, (Id::new(1), Arc::from(name)));
        let mut mail = Mail::default();
        mail.put(key("never"), None);
        for told in [Some(row.clone()), None] {
            mail.put(key("gone"), told);
        }
        for told in [Some(row.clone()), None, Some(row)] {
            mail.put(key("again"), told);
        }
        assert_eq!(mail.withdrawn, BTreeSet::from([key("gone")]));
        assert_eq!(mail.rows.len(), 3);
    }

    /// LB-07: fifty containers that start at the same time do not keep an endpoint's end from being heard.
    #[test]
    fn what_gossip_says_waits_for_one_request_and_not_for_all() {
        let inbox = Inbox::default();
        let detach = |container: &str| {
            let (reply, _) = oneshot::channel();
            inbox.ask(Request::Detach { container: container.to_owned(), reply });
        };
        let taken = || {
            let now = crate::clock::monotonic();
            let Mail { requests, rows, .. } = inbox.take(crate::clock::monotonic, now);
            let requests = requests.into_iter().map(|request| match request {
                Request::Detach { container, .. } => container,
                _ => "another".to_owned(),
            });
            (requests.collect::<Vec<_>>(), rows.len())
        };
        ["a", "b", "c"].into_iter().for_each(detach);
        assert_eq!(taken(), (vec!["a".to_owned()], 0));
        inbox.row(Scope::Ingress, (Id::new(1), "gone".into()), None);
        assert_eq!(taken(), (vec!["b".to_owned()], 1));
        assert_eq!(taken(), (vec!["c".to_owned()], 0));
        assert_eq!(taken(), (vec![], 0));
    }
}
