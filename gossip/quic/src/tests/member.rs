//! Members: streams, datagrams, who is who, and how many.

use bytes::Bytes;
use covey_crypto::identity::Role;

use super::*;
use crate::{
    CONNECTIONS_MAX, ConnectError, DATAGRAM_MAX, DatagramTooLong, OpenError, ReadFrameError, read_frame,
    write_frame,
};

/// PKI-01
#[tokio::test]
async fn two_members_talk_and_each_knows_the_other() {
    let cluster = Cluster::new(1);
    let (a, mut b) = (cluster.node(1), cluster.node(2));
    let (_send, mut recv) = a.say(2, b.address, b"question").await;
    let (from, kind, mut back, mut question) = b.stream().await;
    assert_eq!((from.id, from.role, kind), (id(1), Role::Manager, 7));
    assert_eq!(read_frame(&mut question, 64).await.unwrap(), b"question");
    write_frame(&mut back, b"answer").await.unwrap();
    back.finish().unwrap();
    assert_eq!(within("the answer", read_frame(&mut recv, 64)).await.unwrap(), b"answer");
    assert!(matches!(read_frame(&mut recv, 64).await, Err(ReadFrameError::Ended)));
}

/// PKI-01
#[tokio::test]
async fn the_connection_serves_both_directions() {
    let cluster = Cluster::new(1);
    let (mut a, mut b) = (cluster.node(1), cluster.node(2));
    let _stream = a.say(2, b.address, b"there").await;
    b.stream().await;
    // Nothing listens at this address: only the existing connection can carry it.
    let nowhere = ([127, 0, 0, 1], 9).into();
    let _stream = b.say(1, nowhere, b"and back").await;
    let (from, ..) = a.stream().await;
    assert_eq!(from.id, id(2));
    let mut one_way = within("a stream", b.endpoint.open_uni(id(1), nowhere, 9)).await.unwrap();
    write_frame(&mut one_way, b"one way").await.unwrap();
    let Event::Uni { from, kind: 9, mut recv, .. } = a.event().await else { panic!("not that stream") };
    assert_eq!(from.id, id(2));
    assert_eq!(read_frame(&mut recv, 64).await.unwrap(), b"one way");
}

#[tokio::test]
async fn a_datagram_opens_the_connection_it_needs() {
    let cluster = Cluster::new(1);
    let (a, mut b) = (cluster.node(1), cluster.node(2));
    let largest = Bytes::from(vec![5; DATAGRAM_MAX]);
    a.endpoint.send_datagram(id(2), b.address, largest.clone()).unwrap();
    assert_eq!(b.datagram().await, (id(1), largest));
    let over = Bytes::from(vec![5; DATAGRAM_MAX + 1]);
    assert_eq!(a.endpoint.send_datagram(id(2), b.address, over), Err(DatagramTooLong(DATAGRAM_MAX + 1)));
}

#[tokio::test]
async fn two_members_that_connect_to_each_other_at_once_both_succeed() {
    let cluster = Cluster::new(1);
    let (mut a, mut b) = (cluster.node(1), cluster.node(2));
    a.endpoint.send_datagram(id(2), b.address, Bytes::from_static(b"a")).unwrap();
    b.endpoint.send_datagram(id(1), a.address, Bytes::from_static(b"b")).unwrap();
    assert_eq!(b.datagram().await, (id(1), Bytes::from_static(b"a")));
    assert_eq!(a.datagram().await, (id(2), Bytes::from_static(b"b")));
}

#[tokio::test]
async fn whoever_waits_for_a_connection_takes_the_one_that_the_peer_opens() {
    let cluster = Cluster::new(1);
    let (a, mut b) = (cluster.node(1), cluster.node(2));
    let silent = std::net::UdpSocket::bind(loopback()).unwrap();
    let old_address = silent.local_addr().unwrap();
    let called = async {
        // The call is on its way when its first packet is there.
        silent.set_nonblocking(true).unwrap();
        until("a call", || silent.recv(&mut [0; 2048]).is_ok()).await;
        b.endpoint.send_datagram(id(1), a.address, Bytes::from_static(b"here I am")).unwrap();
    };
    let (_stream, ()) = tokio::join!(a.say(2, old_address, b"found"), called);
    assert_eq!(b.stream().await.0.id, id(1));
}

/// PKI-01
#[tokio::test]
async fn a_stranger_is_refused_whoever_calls() {
    let (mut ours, stranger) = (Cluster::new(1).node(1), Cluster::new(2).node(2));
    for (caller, number, callee) in [(&stranger, 1, &ours), (&ours, 2, &stranger)] {
        let opened = within("a refusal", caller.endpoint.open(id(number), callee.address, 7)).await;
        let Err(OpenError::Connect(error)) = opened else { panic!("a stranger was let in") };
        assert_eq!(error, ConnectError::OtherCluster { address: callee.address });
        assert!(error.to_string().ends_with("belongs to another cluster"));
    }
    assert!(ours.events.try_recv().is_err(), "something of the stranger was handed up");
}

#[tokio::test]
async fn another_node_at_the_expected_address_is_named() {
    let cluster = Cluster::new(1);
    let (a, b) = (cluster.node(1), cluster.node(2));
    let opened = within("a refusal", a.endpoint.open(id(3), b.address, 7)).await;
    let Err(OpenError::Connect(error)) = opened else { panic!("node 2 passed for node 3") };
    assert_eq!(error, ConnectError::Mismatch { address: b.address, expected: id(3), found: id(2) });
}

#[tokio::test]
async fn an_address_where_nobody_answers_is_named() {
    let silent = std::net::UdpSocket::bind(loopback()).unwrap();
    let address = silent.local_addr().unwrap();
    let opened = within("an error", Cluster::new(1).node(1).endpoint.open(id(2), address, 7)).await;
    let text = opened.unwrap_err().to_string();
    assert_eq!(text, format!("cannot reach {address}: no answer within 3 s"));
}

#[tokio::test]
async fn unused_connections_make_room_and_those_in_use_do_not() {
    let cluster = Cluster::new(1);
    let a = cluster.node(1);
    let mut others: Vec<_> =
        (0..CONNECTIONS_MAX + 6).map(|at| (at as u8 + 2, cluster.node(at as u8 + 2))).collect();
    let first = others[0].1.address;
    let (mut send, _recv) = a.say(2, first, b"held").await;
    let _held = others[0].1.stream().await;
    a.keep(&[(3, others[1].1.address)]);
    for (number, other) in &mut others {
        a.endpoint.send_datagram(id(*number), other.address, Bytes::from_static(b"hello")).unwrap();
        while !matches!(other.event().await, Event::Datagram { .. }) {}
    }
    // A closed connection is counted until its last packets are gone.
    until("room", || a.connections() <= CONNECTIONS_MAX).await;
    write_frame(&mut send, b"still here").await.unwrap();
    let lost: Vec<u8> =
        others.iter().filter(|(_, other)| other.connections() == 0).map(|(number, _)| *number).collect();
    assert!(!lost.contains(&2) && !lost.contains(&3), "a connection in use or kept was closed: {lost:?}");
}

#[tokio::test]
async fn a_frame_over_its_limit_is_refused_before_it_is_read() {
    let cluster = Cluster::new(1);
    let (a, mut b) = (cluster.node(1), cluster.node(2));
    let _stream = a.say(2, b.address, &[0; 65]).await;
    let (.., mut recv) = b.stream().await;
    assert!(matches!(read_frame(&mut recv, 64).await, Err(ReadFrameError::TooLong { len: 65, limit: 64 })));
}

#[tokio::test]
async fn a_large_frame_arrives_whole() {
    let cluster = Cluster::new(1);
    let (a, mut b) = (cluster.node(1), cluster.node(2));
    let large: Vec<u8> = (0..3 << 20).map(|at: u32| at as u8).collect();
    let sent = a.say(2, b.address, &large);
    let received = async {
        let (.., mut recv) = b.stream().await;
        read_frame(&mut recv, 4 << 20).await.unwrap()
    };
    let (_stream, received) = within("the frame", async { tokio::join!(sent, received) }).await;
    assert!(received == large);
}

#[tokio::test]
async fn the_endpoint_ends_with_its_last_handle() {
    let cluster = Cluster::new(1);
    let (a, mut b) = (cluster.node(1), cluster.node(2));
    a.keep(&[(2, b.address)]);
    a.endpoint.send_datagram(id(2), b.address, Bytes::from_static(b"hello")).unwrap();
    b.datagram().await;
    let Node { endpoint, mut events, .. } = a;
    drop(endpoint);
    within("the end", async { while events.recv().await.is_some() {} }).await;
    b.endpoint.close().await;
    within("the end", async { while b.events.recv().await.is_some() {} }).await;
    let opened = b.endpoint.open(id(1), loopback(), 7).await;
    assert!(matches!(opened, Err(OpenError::Connect(ConnectError::Closed))));
}
