//! Kept peers that vanish, go on purpose, and come back.

use std::time::Instant;

use covey_crypto::identity::Role;

use super::*;
use crate::IDLE_TIMEOUT;

/// Runs node `number` on a runtime of its own, so that it can vanish without a word.
fn mortal(cluster: &Cluster, number: u8, address: SocketAddr) -> (tokio::runtime::Runtime, Node) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let identity = cluster.identity(number, Role::Manager);
    let node = {
        let _entered = runtime.enter();
        Node::start_at(address, Some(&identity), &Watch::new())
    };
    (runtime, node)
}

async fn kept(a: &mut Node, number: u8, b: &mut Node) {
    a.keep(&[(number, b.address)]);
    a.endpoint.send_datagram(id(number), b.address, Bytes::from_static(b"hello")).unwrap();
    b.datagram().await;
}

#[tokio::test]
async fn a_kept_peer_that_vanishes_is_reported_soon_and_found_again() {
    let cluster = Cluster::new(1);
    let mut a = cluster.node(1);
    let (runtime, mut b) = mortal(&cluster, 2, loopback());
    let address = b.address;
    kept(&mut a, 2, &mut b).await;
    // Quiet connections live on.
    assert!(
        timeout(Duration::from_millis(1500), a.events.recv()).await.is_err(),
        "a quiet connection was lost"
    );

    let gone = Instant::now();
    runtime.shutdown_background();
    drop(b);
    assert!(matches!(a.event().await, Event::Lost { peer } if peer == id(2)));
    // About a second, and some more on a busy machine.
    assert!(gone.elapsed() < 5 * IDLE_TIMEOUT, "noticed after {:?}", gone.elapsed());

    // The address is free when the runtime's threads have ended.
    until("the address", || std::net::UdpSocket::bind(address).is_ok()).await;
    let (runtime, b) = mortal(&cluster, 2, address);
    until("the connection", || b.connections() == 1).await;
    b.endpoint.send_datagram(id(1), a.address, Bytes::from_static(b"back")).unwrap();
    assert_eq!(a.datagram().await, (id(2), Bytes::from_static(b"back")));
    runtime.shutdown_background();
}

#[tokio::test]
async fn a_quiet_connection_lives_on() {
    let cluster = Cluster::new(1);
    let (mut a, mut b) = (cluster.node(1), cluster.node(2));
    kept(&mut a, 2, &mut b).await;
    // A machine that stands still for a second loses it all the same; not several times in a row.
    for _ in 0..4 {
        if timeout(IDLE_TIMEOUT * 3 / 2, a.events.recv()).await.is_err() {
            return;
        }
    }
    panic!("a quiet connection is always lost");
}

#[tokio::test]
async fn a_peer_that_ends_properly_is_not_lost() {
    let cluster = Cluster::new(1);
    let (mut a, mut b) = (cluster.node(1), cluster.node(2));
    kept(&mut a, 2, &mut b).await;
    within("the end", b.endpoint.close()).await;
    until("the connection's end", || a.connections() == 0).await;
    assert!(a.events.try_recv().is_err(), "a proper end was taken for a loss");
}

#[tokio::test]
async fn a_peer_that_is_not_kept_may_vanish_unreported() {
    let cluster = Cluster::new(1);
    let mut a = cluster.node(1);
    let (runtime, mut b) = mortal(&cluster, 2, loopback());
    a.endpoint.send_datagram(id(2), b.address, Bytes::from_static(b"hello")).unwrap();
    b.datagram().await;
    runtime.shutdown_background();
    drop(b);
    until("the connection's end", || a.connections() == 0).await;
    assert!(a.events.try_recv().is_err());
}
