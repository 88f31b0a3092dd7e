//! Timers change while the log runs.
#![allow(clippy::disallowed_methods, reason = "door: a network of tasks")]
#![allow(clippy::unwrap_used, reason = "tests, and what they share")]

#[allow(dead_code, reason = "shared with the other tests")]
mod lab;

use std::time::Duration;

use covey_raft::{Change, Timing};
use lab::{Lab, PATIENCE, create_service, follow, has_services, id, insist, leader, until};
use tokio::time::{Instant, timeout};

/// Longer than any election with the usual timers takes.
const LONG: Duration = Duration::from_millis(1500);

fn times(factor: u32) -> Timing {
    let Timing { heartbeat, election_min, election_max } = Timing::default();
    Timing {
        heartbeat: heartbeat * factor,
        election_min: election_min * factor,
        election_max: election_max * factor,
    }
}

/// QRM-03: other timers are in force on a running cluster, at the cost of one orderly change of leaders.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_timers_take_effect_at_once() {
    let lab = Lab::new();
    let managers = lab.three().await;
    for timing in [times(10), times(1)] {
        for raft in &managers {
            raft.retime(timing).await.unwrap();
        }
        let slow = timing != Timing::default();
        let first = leader(&managers.each_ref()).await;
        let others = [&managers[(first + 1) % 3], &managers[(first + 2) % 3]];
        // The last manager may still have to hear who leads.
        follow(others[1], |leadership| leadership.leader == Some(id(first as u128 + 1))).await;
        lab.cut(first as u128 + 1).await;
        let begun = Instant::now();
        leader(&others).await;
        let took = begun.elapsed();
        assert!(!slow || took > LONG, "a new leader after {took:?}, with {timing:?}");
        assert!(slow || took < LONG * 5, "no new leader for {took:?}, with {timing:?}");
        lab.heal().await;
        follow(&managers[first], |leadership| leadership.leader.is_some()).await;
    }
}

/// Nothing is lost, refused or told twice, whoever retimes and whoever proposes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_while_the_timers_change() {
    let lab = Lab::new();
    let managers = lab.three().await;
    let mut feeds = managers.each_ref().map(|raft| raft.changes());
    let proposing = async {
        for number in 1..=60 {
            insist(&managers[number as usize % 3], number).await;
        }
    };
    let retiming = async {
        for factor in [2, 3] {
            for raft in &managers {
                raft.retime(times(factor)).await.unwrap();
            }
        }
    };
    tokio::join!(proposing, retiming);
    for (raft, feed) in managers.iter().zip(&mut feeds) {
        until("everything", || has_services(&raft.store(), 1..=60)).await;
        for number in 1..=60 {
            let told = timeout(PATIENCE, feed.next()).await.expect("the feed goes on");
            let Some(Change::Applied(applied)) = told else { panic!("not a change: {told:?}") };
            assert_eq!(raft.store().service(id(number)).map(|service| service.version), Some(applied.index));
        }
    }
    managers[0].shutdown().await;
    // A log that is over stays so.
    managers[0].retime(times(1)).await.unwrap();
    managers[0].propose(&create_service(99)).await.unwrap_err();
}

/// The only manager leads again at once, on the same files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_manager_goes_on() {
    let lab = Lab::new();
    let raft = lab.found().await;
    raft.propose(&create_service(1)).await.unwrap();
    raft.retime(times(100)).await.unwrap();
    raft.propose(&create_service(2)).await.unwrap();
    lab.stop(raft, 1).await;
    let raft = lab.open(1).await;
    until("everything", || has_services(&raft.store(), 1..=2)).await;
}
