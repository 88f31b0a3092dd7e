//! Joining and renewing.

use covey_crypto::identity::Role;

use super::*;
use crate::{ConnectError, OpenError, REQUEST_MAX, RequestError, transport::REQUESTS_MAX};

/// PKI-05, CLU-07
#[tokio::test]
async fn a_token_with_the_right_digest_finds_its_ca_and_gets_an_answer() {
    let cluster = Cluster::new(1);
    let mut manager = cluster.node(1);
    let joiner = Node::start(None, &Watch::new());
    let digest = cluster.0.certificate().digest();
    let joining = joiner.endpoint.join(manager.address, &digest, b"secret");
    let serving = async {
        let Event::Join { address, request, reply } = manager.event().await else {
            panic!("not a join request")
        };
        assert_eq!((address, &request[..]), (joiner.address, &b"secret"[..]));
        reply.answer(b"certificate".to_vec());
    };
    let (joined, ()) = within("an answer", async { tokio::join!(joining, serving) }).await;
    let joined = joined.unwrap();
    assert_eq!(joined.answer, b"certificate");
    assert_eq!(joined.manager.id, id(1));
    assert_eq!(joined.ca, *cluster.0.certificate());
}

/// More handshakes at a time than are made without proof of the client's address.
#[tokio::test]
async fn many_joiners_at_once_are_all_served() {
    let cluster = Cluster::new(1);
    let mut manager = cluster.node(1);
    let address = manager.address;
    let digest = cluster.0.certificate().digest();
    let mut joiners = tokio::task::JoinSet::new();
    for _ in 0..REQUESTS_MAX {
        let joiner = Node::start(None, &Watch::new());
        joiners.spawn(async move { joiner.endpoint.join(address, &digest, b"secret").await });
    }
    for _ in 0..REQUESTS_MAX {
        let Event::Join { reply, .. } = manager.event().await else { panic!("not a join request") };
        reply.answer(b"welcome".to_vec());
    }
    while let Some(joined) = within("an answer", joiners.join_next()).await {
        assert_eq!(joined.unwrap().unwrap().answer, b"welcome");
    }
}

/// PKI-05
#[tokio::test]
async fn a_token_of_another_ca_is_refused_before_its_secret_is_told() {
    let mut manager = Cluster::new(1).node(1);
    let joiner = Node::start(None, &Watch::new());
    let digest = Cluster::new(2).0.certificate().digest();
    let error =
        within("a refusal", joiner.endpoint.join(manager.address, &digest, b"secret")).await.unwrap_err();
    assert_eq!(error.to_string(), "the manager's CA does not match the token");
    assert!(manager.events.try_recv().is_err(), "the request was handed up");
}

/// PKI-13
#[tokio::test]
async fn a_worker_cannot_pass_for_a_manager() {
    let cluster = Cluster::new(1);
    let worker = Node::start(Some(&cluster.identity(1, Role::Worker)), &Watch::new());
    let joiner = Node::start(None, &Watch::new());
    let digest = cluster.0.certificate().digest();
    let error =
        within("a refusal", joiner.endpoint.join(worker.address, &digest, b"secret")).await.unwrap_err();
    assert!(matches!(error, RequestError::NotManager(address) if address == worker.address));
}

/// PKI-05
#[tokio::test]
async fn a_refusal_arrives_in_the_managers_words() {
    let cluster = Cluster::new(1);
    let mut manager = cluster.node(1);
    let joiner = Node::start(None, &Watch::new());
    let digest = cluster.0.certificate().digest();
    for words in [Some("the secret is wrong"), None] {
        let joining = joiner.endpoint.join(manager.address, &digest, b"secret");
        let serving = async {
            let Event::Join { reply, .. } = manager.event().await else { panic!("not a join request") };
            match words {
                Some(words) => reply.refuse(words),
                None => drop(reply),
            }
        };
        let (joined, ()) = within("a refusal", async { tokio::join!(joining, serving) }).await;
        let expected = words.unwrap_or("this node does not answer such requests");
        assert_eq!(joined.unwrap_err().to_string(), format!("the manager refused: {expected}"));
    }
}

#[tokio::test]
async fn a_request_that_is_too_long_is_not_sent() {
    let cluster = Cluster::new(1);
    let manager = cluster.node(1);
    let joiner = Node::start(None, &Watch::new());
    let digest = cluster.0.certificate().digest();
    let long = vec![0; REQUEST_MAX + 1];
    let error = within("an error", joiner.endpoint.join(manager.address, &digest, &long)).await.unwrap_err();
    assert!(matches!(error, RequestError::TooLong(_)));
}

#[tokio::test]
async fn a_joiner_whose_clock_is_off_is_told_by_how_much() {
    let cluster = Cluster::new(1);
    let manager = cluster.node(1);
    let digest = cluster.0.certificate().digest();
    let watch = Watch::new();
    let joiner = Node::start(None, &watch);
    for (seconds, words) in [
        (NOW - 3 * DAY, "is not valid for another 2 d 23 h: a clock is off"),
        (NOW + 100 * DAY, "expired 10 d 0 h ago"),
    ] {
        watch.set(seconds);
        let error =
            within("a refusal", joiner.endpoint.join(manager.address, &digest, b"")).await.unwrap_err();
        assert!(matches!(error, RequestError::Connect(ConnectError::Clock { .. })));
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn nobody_to_join_is_said_with_the_address() {
    let silent = std::net::UdpSocket::bind(loopback()).unwrap();
    let address = silent.local_addr().unwrap();
    let joiner = Node::start(None, &Watch::new());
    let error = within("an error", joiner.endpoint.join(address, &[0; 32], b"")).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot reach {address}: no answer within 3 s"));
}

/// PKI-06
#[tokio::test]
async fn a_node_that_was_away_too_long_renews_with_its_expired_certificate() {
    let cluster = Cluster::new(1);
    let today = Watch::new();
    let late = NOW + 200 * DAY;
    today.set(late);
    // The manager has renewed in time.
    let key = NodeKey::from_seed(&[1; 32]);
    let life = Duration::from_secs(90 * DAY);
    let renewed = |key: &NodeKey, number| {
        cluster.0.issue(&key.request().unwrap(), id(number), Role::Manager, at(late), life).unwrap()
    };
    let ca = cluster.0.certificate().clone();
    let manager = Identity { certificate: renewed(&key, 1), key, ca: ca.clone() };
    let mut manager = Node::start(Some(&manager), &today);
    let expired = cluster.identity(2, Role::Worker);
    let node = Node::start(Some(&expired), &today);

    let opened = within("a refusal", node.endpoint.open(id(1), manager.address, 7)).await;
    let Err(OpenError::Refused { reason, .. }) = opened else {
        panic!("an expired member was let in: {opened:?}")
    };
    assert!(reason.contains("expired 110 d 0 h ago"), "{reason}");

    let renewing = node.endpoint.renew(manager.address, b"please");
    let serving = async {
        let Event::Renew { from, request, reply, .. } = manager.event().await else {
            panic!("not a renewal")
        };
        assert_eq!((from.id, from.role, &request[..]), (id(2), Role::Worker, &b"please"[..]));
        reply.answer(b"renewed".to_vec());
    };
    let (answer, ()) = within("an answer", async { tokio::join!(renewing, serving) }).await;
    assert_eq!(answer.unwrap(), b"renewed");

    let certificate = renewed(&expired.key, 2);
    node.endpoint.set_identity(&Identity { certificate, key: expired.key, ca }).unwrap();
    let _stream = node.say(1, manager.address, b"back again").await;
    assert_eq!(manager.stream().await.0.id, id(2));
}

/// PKI-01
#[tokio::test]
async fn a_stranger_cannot_renew() {
    let (mut ours, stranger) = (Cluster::new(1).node(1), Cluster::new(2).node(2));
    let error = within("a refusal", stranger.endpoint.renew(ours.address, b"")).await.unwrap_err();
    assert!(matches!(error, RequestError::Connect(ConnectError::OtherCluster { .. })));
    assert!(ours.events.try_recv().is_err());
}
