//! Bytes on the UDP port that mean nothing.

use super::*;

#[tokio::test]
async fn garbage_on_the_port_disturbs_nothing() {
    let cluster = Cluster::new(1);
    let (a, mut b) = (cluster.node(1), cluster.node(2));
    let _stream = a.say(2, b.address, b"before").await;
    b.stream().await;
    let stray = std::net::UdpSocket::bind(loopback()).unwrap();
    // Every first byte (that is: every packet type), some with QUIC's version behind it, in many lengths.
    for first in 0..=255_u8 {
        for len in [1_usize, 5, 21, 60, 1200] {
            let mut packet = vec![first; len];
            if len > 20 && first % 2 == 0 {
                packet[1..6].copy_from_slice(&[0, 0, 0, 1, 20]);
            }
            stray.send_to(&packet, b.address).unwrap();
        }
    }
    stray.send_to(&[], b.address).unwrap();
    let _stream = a.say(2, b.address, b"after").await;
    b.stream().await;
    let another = cluster.node(3);
    let _stream = another.say(2, b.address, b"a new one").await;
    assert_eq!(b.stream().await.0.id, id(3));
}
