//! The task that owns all connections: commands, incoming connections and ends of connections meet here.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use covey_crypto::identity::{PeerIdentity, Role};
use covey_wire::Id;
use quinn::{Connection, ConnectionError, Incoming};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    admission::{self, Admitted, Arrival, ConnectError},
    credentials::Credentials,
    endpoint::Clock,
    event::Event,
    peer::{LinkReply, Live},
    places::Denied,
    queue::Queue,
    serve,
    transport::{
        self, ARRIVALS_MAX, Close, HANDSHAKES_MAX, HANDSHAKES_UNPROVEN_MAX, IDLE_TIMEOUT, REQUESTS_MAX,
        SETTLE_EVERY, TICK, UNUSED_AFTER,
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
pub(crate) enum Ended {
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
    pub(crate) identity: watch::Receiver<Option<Arc<Credentials>>>,
    pub(crate) kept: watch::Receiver<BTreeMap<Id, SocketAddr>>,
    clock: Clock,
    /// What peers of existing connections know of us.
    role: Option<Role>,
    /// Connections by peer, the newest last; none without any.
    pub(crate) peers: BTreeMap<Id, Vec<Live>>,
    pub(crate) queue: Queue,
    /// Members that have called, wait for a place and are to be refused from then on.
    pub(crate) arrivals: VecDeque<(Admitted, Instant)>,
    /// Kept peers that had no place for us.
    pub(crate) denied: BTreeMap<Id, Denied>,
    /// Told when a connection is not in use any more, or its peer wants it to end.
    freed: Arc<Notify>,
    /// Everything that runs on the endpoint's behalf; ends with it.
    pub(crate) tasks: JoinSet<Ended>,
    pub(crate) dialling: usize,
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
            queue: Queue::default(),
            arrivals: VecDeque::new(),
            denied: BTreeMap::new(),
            freed: Arc::default(),
            tasks: JoinSet::new(),
            dialling: 0,
            handshakes: 0,
            requests: 0,
        }
    }

    /// Runs until the endpoint is closed or its last handle dropped.
    pub(crate) async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut settle = interval(SETTLE_EVERY);
        settle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let freed = self.freed.clone();
        let done = loop {
            self.settle();
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
                () = freed.notified() => {}
                _ = settle.tick(), if self.is_crowded() => self.queue.expire(Instant::now()),
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
            live.send_datagram(bytes);
        } else if self.identity.borrow().is_some() {
            self.queue.datagram(peer, address, bytes);
        }
    }

    fn link(&mut self, peer: Id, address: SocketAddr, reply: LinkReply) {
        self.catch_up();
        if let Some(live) = self.newest(peer) {
            let _ = reply.send(Ok(live.link()));
        } else if self.identity.borrow().is_some() {
            self.queue.link(peer, address, reply);
        } else {
            let _ = reply.send(Err(ConnectError::NoIdentity));
        }
    }

    fn disconnect(&mut self, peer: Id) {
        self.close(|id, _| *id == peer, Close::Refused, "no longer welcome");
    }

    fn newest(&mut self, peer: Id) -> Option<&mut Live> {
        let newest = self.peers.get_mut(&peer)?.iter_mut().rfind(|live| live.is_open())?;
        newest.used = Instant::now();
        Some(newest)
    }

    /// Makes a connection to `peer`, in the place that it was given.
    pub(crate) fn dial(&mut self, peer: Id, address: SocketAddr) {
        let Some(credentials) = self.identity.borrow().clone() else {
            return self.queue.dialled(peer, Err(&ConnectError::NoIdentity));
        };
        self.dialling += 1;
        let dial =
            admission::dial_member(self.socket.clone(), credentials, self.clock.clone(), peer, address);
        self.tasks.spawn(async move { Ended::Connected { peer, result: dial.await } });
    }

    fn connected(&mut self, peer: Id, result: Result<Admitted, ConnectError>) {
        self.dialling -= 1;
        let admitted = result.and_then(|admitted| self.admit(admitted, true));
        let live = admitted.map(|()| self.peers.get_mut(&peer).and_then(|live| live.last_mut()));
        match live {
            Ok(Some(live)) => self.queue.dialled(peer, Ok(live)),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%peer, %error, "no connection");
                self.queue.dialled(peer, Err(&error));
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
            Some(Arrival::Member(admitted)) if self.arrivals.len() == ARRIVALS_MAX => {
                full(&admitted.connection)
            }
            Some(Arrival::Member(admitted)) => self.arrivals.push_back((admitted, Instant::now())),
            Some(Arrival::Join(connection)) => self.serve(connection, None),
            Some(Arrival::Renew(Admitted { connection, identity, .. })) => {
                self.serve(connection, Some(identity))
            }
        }
    }

    /// A member that has called gets a place.
    pub(crate) fn called_by(&mut self, admitted: Admitted) {
        let peer = admitted.identity.id;
        // Who cannot be admitted was told so.
        if self.admit(admitted, false).is_err() {
            return;
        }
        // No need to wait any longer for a connection of our own, which may be on its way to an old address.
        if let Some(live) = self.peers.get_mut(&peer).and_then(|live| live.last_mut()) {
            self.queue.arrived(peer, live);
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

    /// Takes a connection in, as the newest of its peer. There is a place for it.
    fn admit(
        &mut self,
        Admitted { connection, identity, shown }: Admitted,
        opened_here: bool,
    ) -> Result<(), ConnectError> {
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
        transport::widen(&connection);
        let live = Live::new(connection.clone(), identity.clone(), opened_here, self.freed.clone());
        let (peer, stable, uses) = (identity.id, connection.stable_id(), live.uses.clone());
        let member = serve::member(connection, identity, uses, self.events.clone());
        self.tasks.spawn(async move { Ended::Lost { peer, connection: stable, reason: member.await } });
        self.peers.entry(peer).or_default().push(live);
        Ok(())
    }

    /// Closes the connections that are chosen, and forgets them.
    pub(crate) fn close(&mut self, chosen: impl Fn(&Id, &Live) -> bool, why: Close, reason: &str) {
        self.peers.retain(|id, live| {
            for closed in live.extract_if(.., |live| chosen(id, live)) {
                closed.connection.close(why.code(), reason.as_bytes());
            }
            !live.is_empty()
        });
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
        tracing::debug!(peer = %id, %reason, "connection ended");
        if let ConnectionError::ApplicationClosed(close) = reason
            && close.error_code == Close::Full.code()
        {
            self.was_denied(id);
        }
        let Some(live) = self.peers.get_mut(&id) else { return };
        let held = live.len();
        live.retain(|live| live.connection.stable_id() != connection);
        if !live.is_empty() {
            return;
        }
        self.peers.remove(&id);
        let on_purpose =
            matches!(reason, ConnectionError::ApplicationClosed(_) | ConnectionError::LocallyClosed);
        // Those that were closed here were forgotten when they were.
        if held > 0 && !on_purpose && self.kept.borrow().contains_key(&id) {
            let events = self.events.clone();
            self.tasks.spawn(async move {
                // Fails only when nobody listens any more.
                let _ = events.send(Event::Lost { peer: id }).await;
                Ended::Told
            });
            self.open_kept();
        }
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
        self.denied.retain(|id, _| kept.contains_key(id));
        if self.identity.borrow().is_none() {
            return;
        }
        let now = Instant::now();
        for (id, address) in kept {
            let denied = self.denied.get(&id).is_some_and(|denied| denied.until > now);
            if !denied && self.newest(id).is_none() {
                self.queue.keep(id, address);
            }
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.queue.expire(now);
        let shielded = self.shielded();
        let kept = self.kept.borrow().clone();
        for (id, live) in
            self.peers.iter_mut().flat_map(|(id, live)| live.iter_mut().map(move |live| (id, live)))
        {
            live.look(now);
            // The second one to a kept peer is as good as unused.
            let since = if kept.contains_key(id) { live.opened } else { live.used };
            let long = now.saturating_duration_since(since) >= UNUSED_AFTER;
            let shielded = shielded.contains(&live.connection.stable_id());
            if live.opened_here && long && !live.is_busy(now) && !shielded {
                live.end(now);
            }
        }
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

/// There is no place for whoever has called; they may try again.
pub(crate) fn full(connection: &Connection) {
    connection.close(Close::Full.code(), b"no place for a connection at the moment");
}
