//! An identity that comes, changes and goes while the endpoint runs.

use covey_crypto::identity::Role;

use super::*;
use crate::{ConnectError, IdentityError, OpenError, read_frame, write_frame};

#[tokio::test]
async fn a_node_without_identity_neither_calls_nor_is_called() {
    let cluster = Cluster::new(1);
    let (a, nobody) = (cluster.node(1), Node::start(None, &Watch::new()));
    let opened = nobody.endpoint.open(id(1), a.address, 7).await;
    assert!(matches!(opened, Err(OpenError::Connect(ConnectError::NoIdentity))));
    let opened = within("an error", a.endpoint.open(id(2), nobody.address, 7)).await;
    assert!(matches!(opened, Err(OpenError::Connect(ConnectError::Unreachable { .. }))));
}

#[tokio::test]
async fn a_renewed_identity_leaves_old_connections_alone() {
    let cluster = Cluster::new(1);
    let mut a = cluster.node(1);
    let b = Node::start(Some(&cluster.identity(2, Role::Worker)), &Watch::new());
    let (mut send, _recv) = b.say(1, a.address, b"before").await;
    let (.., _back, mut recv) = a.stream().await;
    assert_eq!(read_frame(&mut recv, 64).await.unwrap(), b"before");

    b.endpoint.set_identity(&cluster.identity(2, Role::Worker)).unwrap();
    write_frame(&mut send, b"after").await.unwrap();
    assert_eq!(within("the frame", read_frame(&mut recv, 64)).await.unwrap(), b"after");
}

/// PKI-13: what a promoted node asks is judged by its new certificate, and so is what a demoted one asks.
#[tokio::test]
async fn another_role_is_shown_to_everybody_at_once() {
    let cluster = Cluster::new(1);
    let mut a = cluster.node(1);
    let mut b = Node::start(Some(&cluster.identity(2, Role::Worker)), &Watch::new());
    a.keep(&[(2, b.address)]);
    b.keep(&[(1, a.address)]);
    for role in [Role::Worker, Role::Manager, Role::Worker] {
        b.endpoint.set_identity(&cluster.identity(2, role)).unwrap();
        let (_send, mut answer) = b.say(1, a.address, b"hello").await;
        let (from, .., back, _recv) = a.stream().await;
        assert_eq!(from.role, role);
        drop(back);
        assert!(within("the end", read_frame(&mut answer, 64)).await.is_err());
    }
    assert!(a.events.try_recv().is_err(), "a change of role was taken for a loss");
    assert!(b.events.try_recv().is_err(), "a change of role was taken for a loss");
}

/// PKI-13
#[tokio::test]
async fn a_connection_that_is_being_made_while_the_role_changes_is_not_kept() {
    let cluster = Cluster::new(1);
    let mut a = cluster.node(1);
    let b = Node::start(Some(&cluster.identity(2, Role::Worker)), &Watch::new());
    let opened = b.endpoint.open(id(1), a.address, 7);
    let changed = async {
        // The first word to `a` is on its way, and no answer has been read.
        until("a connection is being made", || b.connections() > 0).await;
        b.endpoint.set_identity(&cluster.identity(2, Role::Manager)).unwrap();
    };
    let (opened, ()) = tokio::join!(opened, changed);
    assert!(matches!(opened, Err(OpenError::Connect(ConnectError::Outdated))), "{:?}", opened.map(|_| ()));
    let _stream = b.say(1, a.address, b"hello").await;
    assert_eq!(a.stream().await.0.role, Role::Manager);
}

#[tokio::test]
async fn an_identity_of_another_cluster_closes_every_connection_of_the_first() {
    let (first, second) = (Cluster::new(1), Cluster::new(2));
    let (mut a, b) = (first.node(1), first.node(2));
    a.keep(&[(2, b.address)]);
    let _stream = b.say(1, a.address, b"hello").await;
    let (.., mut recv) = a.stream().await;
    assert_eq!(read_frame(&mut recv, 64).await.unwrap(), b"hello");
    b.endpoint.set_identity(&second.identity(2, Role::Worker)).unwrap();
    assert!(within("the end", read_frame(&mut recv, 64)).await.is_err());
    let mut other = second.node(1);
    let _stream = b.say(1, other.address, b"hello").await;
    assert_eq!(other.stream().await.0.cluster, Id::new(2));
    assert!(a.events.try_recv().is_err(), "leaving was taken for a loss");
}

#[tokio::test]
async fn an_identity_that_does_not_fit_together_is_refused() {
    let (ours, other) = (Cluster::new(1), Cluster::new(2));
    let node = Node::start(None, &Watch::new());
    let good = ours.identity(1, Role::Worker);
    let wrong_key = Identity { key: NodeKey::from_seed(&[99; 32]), ..good.clone() };
    assert!(matches!(node.endpoint.set_identity(&wrong_key), Err(IdentityError::Mismatch)));
    let wrong_ca = Identity { ca: other.0.certificate().clone(), ..good };
    assert!(matches!(node.endpoint.set_identity(&wrong_ca), Err(IdentityError::Certificate(_))));
}

/// PKI-01
#[tokio::test]
async fn a_member_whose_certificate_runs_out_is_disconnected() {
    let cluster = Cluster::new(1);
    let watch = Watch::new();
    let mut a = Node::start(Some(&cluster.identity(1, Role::Manager)), &watch);
    let b = cluster.node(2);
    let _stream = b.say(1, a.address, b"hello").await;
    let (.., mut recv) = a.stream().await;
    assert_eq!(read_frame(&mut recv, 64).await.unwrap(), b"hello");
    watch.set(NOW + 91 * DAY);
    assert!(within("the end", read_frame(&mut recv, 64)).await.is_err());
}

#[tokio::test]
async fn a_peer_that_is_disconnected_loses_its_streams() {
    let cluster = Cluster::new(1);
    let (mut a, b) = (cluster.node(1), cluster.node(2));
    let (_send, mut recv) = b.say(1, a.address, b"hello").await;
    let _stream = a.stream().await;
    a.endpoint.disconnect(id(2)).await;
    assert!(within("the end", read_frame(&mut recv, 64)).await.is_err());
}
