//! Many more peers than places.

use covey_crypto::identity::Role;
use tokio::task::JoinSet;

use super::*;
use crate::{read_frame, write_frame};

/// Peers of the one that talks to all.
const PEERS: u8 = 200;
/// Nodes of which the first few talk to all, and all to them.
const CROWD: u8 = 100;
const FULL: usize = 2;

/// A node that answers every request with the number of its asker.
struct Answering {
    number: u8,
    endpoint: Endpoint,
    address: SocketAddr,
    answering: tokio::task::JoinHandle<()>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

impl Answering {
    fn start(cluster: &Cluster, number: u8) -> Self {
        let Node { endpoint, mut events, address } =
            Node::start(Some(&cluster.identity(number, Role::Worker)), &Watch::new());
        let answering = tokio::spawn(async move {
            let mut answers = JoinSet::new();
            while let Some(event) = events.recv().await {
                while answers.try_join_next().is_some() {}
                if let Event::Stream { mut send, mut recv, .. } = event {
                    answers.spawn(async move {
                        let Ok(question) = read_frame(&mut recv, 64).await else { return };
                        // Whoever does not wait any more misses nothing.
                        let _ = write_frame(&mut send, &question).await;
                    });
                }
            }
        });
        Self { number, endpoint, address, answering }
    }

    fn all(cluster: &Cluster, numbers: impl Iterator<Item = u8>) -> Vec<Self> {
        numbers.map(|number| Self::start(cluster, number)).collect()
    }
}

async fn ask(from: &Endpoint, number: u8, address: SocketAddr) -> Result<(), String> {
    let text = |error: &dyn std::error::Error| format!("node {number}: {error}: {error:?}");
    let (mut send, mut recv) = from.open(id(number), address, 7).await.map_err(|error| text(&error))?;
    write_frame(&mut send, &[number]).await.map_err(|error| text(&error))?;
    let answer = read_frame(&mut recv, 64).await.map_err(|error| text(&error))?;
    assert_eq!(answer, [number]);
    Ok(())
}

async fn all_answered(mut requests: JoinSet<Result<(), String>>) {
    within("all answers", async {
        while let Some(result) = requests.join_next().await {
            result.unwrap().unwrap();
        }
    })
    .await;
}

/// NOD: a leader works with many more nodes than it has places. The bound itself is asserted where places are given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_talks_to_many_more_peers_than_it_has_places() {
    let cluster = Cluster::new(1);
    let peers = Answering::all(&cluster, 2..2 + PEERS);
    let leader = Answering::start(&cluster, 1);
    let kept = peers[..40].iter().map(|peer| (id(peer.number), peer.address)).collect();
    leader.endpoint.keep(kept);
    for _ in 0..3 {
        let mut requests = JoinSet::new();
        for peer in &peers {
            let (from, number, address) = (leader.endpoint.clone(), peer.number, peer.address);
            requests.spawn(async move { ask(&from, number, address).await });
        }
        all_answered(requests).await;
    }
}

/// Nodes that are full talk to each other all the same: none waits for one that waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_nodes_talk_to_each_other() {
    let cluster = Cluster::new(1);
    let nodes = Answering::all(&cluster, 1..=CROWD);
    let (full, others) = nodes.split_at(FULL);
    let mut requests = JoinSet::new();
    let pairs = full.iter().flat_map(|node| {
        // All of the others first, in both directions: then there is no place left.
        let others = others.iter().flat_map(move |other| [(node, other), (other, node)]);
        others.chain(full.iter().filter(|other| other.number != node.number).map(move |other| (node, other)))
    });
    for (from, to) in pairs {
        let (from, number, address) = (from.endpoint.clone(), to.number, to.address);
        requests.spawn(async move { ask(&from, number, address).await });
    }
    all_answered(requests).await;
}

/// A manager that all nodes would keep a connection to has no place for most of them, and serves all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_everybody_keeps_answers_everybody() {
    let cluster = Cluster::new(1);
    let manager = Answering::start(&cluster, 1);
    let others = Answering::all(&cluster, 2..=CROWD);
    for other in &others {
        other.endpoint.keep([(id(1), manager.address)].into());
    }
    until("a full house", || manager.endpoint.socket.open_connections() >= 56).await;
    for _ in 0..2 {
        let mut requests = JoinSet::new();
        for other in &others {
            for (from, to) in [(other, &manager), (&manager, other)] {
                let (from, number, address) = (from.endpoint.clone(), to.number, to.address);
                requests.spawn(async move { ask(&from, number, address).await });
            }
        }
        all_answered(requests).await;
    }
}
