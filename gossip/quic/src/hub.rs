//! The task that owns all connections: commands, incoming connections and ends of connections meet here.

use std::{collections::BTreeMap, mem, net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use covey_crypto::identity::{PeerIdentity, Role};
use covey_wire::Id;
use quinn::{Connection, ConnectionError, Incoming, SendDatagramError};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    admission::{self, Admitted, Arrival, ConnectError},
    credentials::Credentials,
    endpoint::Clock,
    event::Event,
    peer::{Link, LinkReply, Live, Peer, Waiting},
    serve,
    transport::{
        self, CONNECTING_MAX, CONNECTIONS_HARD_MAX, CONNECTIONS_MAX, Close, HANDSHAKES_MAX,
        HANDSHAKES_UNPROVEN_MAX, IDLE_TIMEOUT, REQUESTS_MAX, TICK, UNUSED_AFTER,
    },
};

/// What peers read of connections that do not outlive an identity.
const LEFT: &str = "node has left the cluster";
const OTHER_ROLE: &str = "node has another role now";

/// What the handles ask for.
pub(crate) enum Command {
    Datagram { peer: Id, address: SocketAddr, bytes: Bytes },
    Link { peer: Id, address: SocketAddr, reply: LinkReply },
    Disconnect { peer: Id },
    Close { done: oneshot::Sender<()> },
}

/// What a task of the hub has come to.
enum Ended {
    Connected { peer: Id, result: Result<Admitted, ConnectError> },
    Arrived(Option<Arrival>),
    Lost { peer: Id, connection: usize, reason: ConnectionError },
    Served,
    Told,
}

pub(crate) struct Hub {
    socket: quinn::Endpoint,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    identity: watch::Receiver<Option<Arc<Credentials>>>,
    kept: watch::Receiver<BTreeMap<Id, SocketAddr>>,
    clock: Clock,
    /// What peers of existing connections know of us.
    role: Option<Role>,
    peers: BTreeMap<Id, Peer>,
    /// Everything that runs on the endpoint's behalf; ends with it.
    tasks: JoinSet<Ended>,
    connecting: usize,
    handshakes: usize,
    requests: usize,
}

impl Hub {
    pub(crate) fn new(
        socket: quinn::Endpoint,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
        identity: watch::Receiver<Option<Arc<Credentials>>>,
        kept: watch::Receiver<BTreeMap<Id, SocketAddr>>,
        clock: Clock,
    ) -> Self {
        let role = identity.borrow().as_ref().map(|ours| ours.role);
        Self {
            socket,
            commands,
            events,
            identity,
            kept,
            clock,
            role,
            peers: BTreeMap::new(),
            tasks: JoinSet::new(),
            connecting: 0,
            handshakes: 0,
            requests: 0,
        }
    }

    /// Runs until the endpoint is closed or its last handle dropped.
    pub(crate) async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let done = loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Datagram { peer, address, bytes }) => self.datagram(peer, address, bytes),
                    Some(Command::Link { peer, address, reply }) => self.link(peer, address, reply),
                    Some(Command::Disconnect { peer }) => self.disconnect(peer),
                    Some(Command::Close { done }) => break Some(done),
                    None => break None,
                },
                incoming = self.socket.accept() => match incoming {
                    Some(incoming) => self.incoming(incoming),
                    None => break None,
                },
                Some(ended) = self.tasks.join_next() => self.ended(ended),
                Ok(()) = self.identity.changed() => self.identity_changed(),
                Ok(()) = self.kept.changed() => self.open_kept(),
                _ = tick.tick() => self.tick(),
            }
        };
        self.tasks.abort_all();
        self.socket.close(Close::Gone.code(), b"node is shutting down");
        if let Some(done) = done {
            // Peers that do not answer need not be waited for longer than that.
            let _ = timeout(IDLE_TIMEOUT, self.socket.wait_idle()).await;
            let _ = done.send(());
        }
    }

    fn datagram(&mut self, peer: Id, address: SocketAddr, bytes: Bytes) {
        self.catch_up();
        if let Some(live) = self.newest(peer) {
            match live.connection.send_datagram(bytes) {
                Ok(()) | Err(SendDatagramError::ConnectionLost(_)) => {}
                Err(error) => tracing::warn!(%peer, %error, "datagram dropped"),
            }
            return;
        }
        if let Some(waiting) = self.waiting(peer, address) {
            waiting.queue_datagram(bytes);
        }
    }

    fn link(&mut self, peer: Id, address: SocketAddr, reply: LinkReply) {
        self.catch_up();
        if let Some(live) = self.newest(peer) {
            let _ = reply.send(Ok(live.link()));
        } else if let Some(waiting) = self.waiting(peer, address) {
            waiting.queue_link(reply);
        } else {
            let error =
                if self.identity.borrow().is_none() { ConnectError::NoIdentity } else { ConnectError::Busy };
            let _ = reply.send(Err(error));
        }
    }

    fn disconnect(&mut self, peer: Id) {
        self.close(|id, _| *id == peer, Close::Refused, "no longer welcome");
    }

    fn newest(&mut self, peer: Id) -> Option<&mut Live> {
        let newest = self
            .peers
            .get_mut(&peer)?
            .live
            .iter_mut()
            .rfind(|live| live.connection.close_reason().is_none())?;
        newest.used = Instant::now();
        Some(newest)
    }

    /// What waits for a connection to `peer`, which is being made from now on; none where it cannot be.
    fn waiting(&mut self, peer: Id, address: SocketAddr) -> Option<&mut Waiting> {
        let begun = self.peers.get(&peer).is_some_and(|peer| peer.waiting.is_some());
        if !begun {
            let credentials = self.identity.borrow().clone()?;
            if self.connecting == CONNECTING_MAX {
                return None;
            }
            self.connecting += 1;
            let dial =
                admission::dial_member(self.socket.clone(), credentials, self.clock.clone(), peer, address);
            self.tasks.spawn(async move { Ended::Connected { peer, result: dial.await } });
        }
        Some(self.peers.entry(peer).or_default().waiting.get_or_insert_default())
    }

    fn connected(&mut self, peer: Id, result: Result<Admitted, ConnectError>) {
        self.connecting -= 1;
        let waiting = self.peers.get_mut(&peer).and_then(|peer| peer.waiting.take()).unwrap_or_default();
        match result.and_then(|admitted| self.admit(admitted, true)) {
            Ok(link) => waiting.go(&link),
            Err(error) => {
                tracing::debug!(%peer, %error, "no connection");
                waiting.give_up(&error);
                self.forget_idle();
            }
        }
    }

    fn incoming(&mut self, incoming: Incoming) {
        let Some(credentials) = self.identity.borrow().clone() else { return incoming.refuse() };
        if self.handshakes == HANDSHAKES_MAX {
            return incoming.refuse();
        }
        if self.handshakes >= HANDSHAKES_UNPROVEN_MAX && incoming.may_retry() {
            // Fails only where a retry was sent before, which `may_retry` has excluded.
            let _ = incoming.retry();
            return;
        }
        self.handshakes += 1;
        let arrival = admission::arrive(incoming, credentials, self.clock.clone());
        self.tasks.spawn(async move { Ended::Arrived(arrival.await) });
    }

    fn arrived(&mut self, arrival: Option<Arrival>) {
        self.handshakes -= 1;
        match arrival {
            None => {}
            Some(Arrival::Member(admitted)) => self.called_by(admitted),
            Some(Arrival::Join(connection)) => self.serve(connection, None),
            Some(Arrival::Renew(Admitted { connection, identity, .. })) => {
                self.serve(connection, Some(identity))
            }
        }
    }

    fn called_by(&mut self, admitted: Admitted) {
        let peer = admitted.identity.id;
        // Who cannot be admitted was told so.
        let Ok(link) = self.admit(admitted, false) else { return };
        // No need to wait any longer for a connection of our own, which may be on its way to an old address.
        if let Some(waiting) = self.peers.get_mut(&peer).and_then(|peer| peer.waiting.as_mut()) {
            mem::take(waiting).go(&link);
        }
    }

    fn serve(&mut self, connection: Connection, from: Option<PeerIdentity>) {
        if self.requests == REQUESTS_MAX {
            return connection.close(Close::Refused.code(), b"too many requests at the moment");
        }
        self.requests += 1;
        let served = serve::request(connection, from, self.events.clone());
        self.tasks.spawn(async move {
            served.await;
            Ended::Served
        });
    }

    /// Takes a connection in.
    fn admit(
        &mut self,
        Admitted { connection, identity, shown }: Admitted,
        opened_here: bool,
    ) -> Result<Link, ConnectError> {
        // The identity may have been cleared or replaced during the handshake.
        let ours = self.identity.borrow().as_ref().map(|ours| (ours.ca.cluster(), ours.role));
        match ours {
            Some((cluster, role)) if cluster == identity.cluster && role == shown => {}
            Some((cluster, _)) if cluster == identity.cluster => {
                connection.close(Close::Gone.code(), OTHER_ROLE.as_bytes());
                return Err(ConnectError::Outdated);
            }
            _ => {
                connection.close(Close::Gone.code(), LEFT.as_bytes());
                return Err(ConnectError::NoIdentity);
            }
        }
        if !self.make_room() {
            connection.close(Close::Refused.code(), b"too many connections");
            return Err(ConnectError::Busy);
        }
        transport::widen(&connection);
        let live = Live::new(connection.clone(), identity.clone(), opened_here);
        let (peer, stable, link) = (identity.id, connection.stable_id(), live.link());
        let member = serve::member(connection, identity, Arc::downgrade(&live.in_use), self.events.clone());
        self.tasks.spawn(async move { Ended::Lost { peer, connection: stable, reason: member.await } });
        self.peers.entry(peer).or_default().live.push(live);
        Ok(link)
    }

    /// Closes the longest unused connections until one more may be held; whether it may.
    fn make_room(&mut self) -> bool {
        loop {
            let held: usize = self.peers.values().map(|peer| peer.live.len()).sum();
            if held < CONNECTIONS_MAX {
                return true;
            }
            let kept = self.kept.borrow();
            let idle =
                self.peers.iter().filter(|(id, _)| !kept.contains_key(id)).flat_map(|(_, peer)| &peer.live);
            let victim = idle.filter(|live| !live.is_in_use()).min_by_key(|live| live.used);
            let Some(victim) = victim.map(|live| live.connection.stable_id()) else {
                return held < CONNECTIONS_HARD_MAX;
            };
            drop(kept);
            self.close(|_, live| live.connection.stable_id() == victim, Close::Unused, "making room");
        }
    }

    /// Closes the connections that are chosen, and forgets them.
    fn close(&mut self, chosen: impl Fn(&Id, &Live) -> bool, why: Close, reason: &str) {
        for (id, peer) in &mut self.peers {
            for closed in peer.live.extract_if(.., |live| chosen(id, live)) {
                closed.connection.close(why.code(), reason.as_bytes());
            }
        }
        self.forget_idle();
    }

    fn forget_idle(&mut self) {
        self.peers.retain(|_, peer| !peer.live.is_empty() || peer.waiting.is_some());
    }

    fn ended(&mut self, ended: Result<Ended, JoinError>) {
        match ended {
            Ok(Ended::Connected { peer, result }) => self.connected(peer, result),
            Ok(Ended::Arrived(arrival)) => self.arrived(arrival),
            Ok(Ended::Lost { peer, connection, reason }) => self.lost(peer, connection, &reason),
            Ok(Ended::Served) => self.requests -= 1,
            Ok(Ended::Told) => {}
            Err(error) => tracing::error!(%error, "a connection's task ended abnormally"),
        }
    }

    fn lost(&mut self, id: Id, connection: usize, reason: &ConnectionError) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let held = peer.live.len();
        peer.live.retain(|live| live.connection.stable_id() != connection);
        // Those that were closed here were forgotten when they were.
        let last = held > 0 && peer.live.is_empty();
        tracing::debug!(peer = %id, %reason, "connection ended");
        let on_purpose =
            matches!(reason, ConnectionError::ApplicationClosed(_) | ConnectionError::LocallyClosed);
        if last && !on_purpose && self.kept.borrow().contains_key(&id) {
            let events = self.events.clone();
            self.tasks.spawn(async move {
                // Fails only when nobody listens any more.
                let _ = events.send(Event::Lost { peer: id }).await;
                Ended::Told
            });
            self.open_kept();
        }
        self.forget_idle();
    }

    /// Whoever has set an identity finds it in force, though its word may overtake that of the change.
    fn catch_up(&mut self) {
        if self.identity.has_changed().unwrap_or(false) {
            self.identity_changed();
        }
    }

    fn identity_changed(&mut self) {
        let ours = self.identity.borrow_and_update().as_ref().map(|ours| (ours.ca.cluster(), ours.role));
        let (cluster, role) = ours.unzip();
        self.close(|_, live| Some(live.identity.cluster) != cluster, Close::Gone, LEFT);
        // Peers judge what we ask by the certificate that a connection began with.
        if mem::replace(&mut self.role, role) != role {
            self.close(|_, _| true, Close::Gone, OTHER_ROLE);
        }
        self.open_kept();
    }

    fn open_kept(&mut self) {
        let kept = self.kept.borrow_and_update().clone();
        for (id, address) in kept {
            if self.newest(id).is_none() {
                // Where it cannot be made now, the next tick tries again.
                let _ = self.waiting(id, address);
            }
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        for live in self.peers.values_mut().flat_map(|peer| &mut peer.live) {
            live.look(now);
        }
        let kept = self.kept.borrow().clone();
        let unused = |id: &Id, live: &Live| {
            let long = now.saturating_duration_since(live.used) >= UNUSED_AFTER;
            live.opened_here && long && !live.is_in_use() && !kept.contains_key(id)
        };
        self.close(unused, Close::Unused, "unused");
        let today = (self.clock)();
        // Whoever has renewed meanwhile comes back with the new certificate.
        self.close(
            |_, live| live.identity.check_time(today).is_err(),
            Close::Gone,
            "certificate is not valid any more",
        );
        self.open_kept();
    }
}
