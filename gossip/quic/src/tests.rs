//! The endpoint over loopback: real sockets, real handshakes, a clock that tests can shift.

mod identity;
mod loss;
mod member;
mod places;
mod request;
mod stray;

use std::{
    collections::BTreeMap,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use covey_crypto::{
    authority::Authority,
    identity::{NodeKey, PeerIdentity, Role},
};
use covey_wire::Id;
use tokio::{sync::mpsc, time::timeout};

use crate::{Clock, Endpoint, Event, Identity, RecvStream, SendStream};

/// After this, what was waited for does not come.
const DEADLINE: Duration = Duration::from_secs(20);
const DAY: u64 = 86_400;
/// When the tests take place, in seconds since 1970.
const NOW: u64 = 1_800_000_000;

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Waits until `condition` holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A clock that stands where a test puts it.
#[derive(Clone)]
struct Watch(Arc<AtomicU64>);

impl Watch {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(NOW)))
    }

    fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::Relaxed);
    }

    fn clock(&self) -> Clock {
        let seconds = self.0.clone();
        Arc::new(move || at(seconds.load(Ordering::Relaxed)))
    }
}

/// A cluster's authority and the time at which its certificates are issued.
struct Cluster(Authority);

impl Cluster {
    fn new(number: u8) -> Self {
        Self(Authority::create(&[number; 32], Id::new(number.into()), at(NOW)).unwrap())
    }

    /// Node `number` of the cluster with a certificate for 90 days.
    fn identity(&self, number: u8, role: Role) -> Identity {
        let key = NodeKey::from_seed(&[number; 32]);
        let life = Duration::from_secs(90 * DAY);
        let certificate = self.0.issue(&key.request().unwrap(), id(number), role, at(NOW), life).unwrap();
        Identity { key, certificate, ca: self.0.certificate().clone() }
    }

    fn node(&self, number: u8) -> Node {
        Node::start(Some(&self.identity(number, Role::Manager)), &Watch::new())
    }
}

fn id(number: u8) -> Id {
    Id::new(u128::from(number) << 64)
}

/// A running endpoint.
struct Node {
    endpoint: Endpoint,
    events: mpsc::Receiver<Event>,
    address: SocketAddr,
}

impl Node {
    fn start(identity: Option<&Identity>, watch: &Watch) -> Self {
        Self::start_at(loopback(), identity, watch)
    }

    fn start_at(address: SocketAddr, identity: Option<&Identity>, watch: &Watch) -> Self {
        let (endpoint, events) = Endpoint::bind(address, identity, watch.clock()).unwrap();
        let address = endpoint.local_address().unwrap();
        Self { endpoint, events, address }
    }

    async fn event(&mut self) -> Event {
        within("an event", self.events.recv()).await.expect("the endpoint has ended")
    }

    async fn stream(&mut self) -> (PeerIdentity, u8, SendStream, RecvStream) {
        match self.event().await {
            Event::Stream { from, kind, send, recv, .. } => (from, kind, send, recv),
            other => panic!("not a stream: {other:?}"),
        }
    }

    async fn datagram(&mut self) -> (Id, Bytes) {
        match self.event().await {
            Event::Datagram { from, bytes, .. } => (from, bytes),
            other => panic!("not a datagram: {other:?}"),
        }
    }

    fn connections(&self) -> usize {
        self.endpoint.socket.open_connections()
    }

    fn keep(&self, peers: &[(u8, SocketAddr)]) {
        self.endpoint
            .keep(peers.iter().map(|(number, address)| (id(*number), *address)).collect::<BTreeMap<_, _>>());
    }

    /// Opens a stream to node `number` and says `word` on it.
    async fn say(&self, number: u8, address: SocketAddr, word: &[u8]) -> (SendStream, RecvStream) {
        let (mut send, recv) =
            within("a stream", self.endpoint.open(id(number), address, 7)).await.expect("no stream");
        crate::write_frame(&mut send, word).await.unwrap();
        (send, recv)
    }
}
