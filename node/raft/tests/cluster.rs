//! Managers that agree: one, three, with and without a majority, across restarts.
#![allow(clippy::disallowed_methods, reason = "door: a network of tasks")]
#![allow(clippy::unwrap_used, reason = "tests, and what they share")]

mod lab;

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use covey_raft::{
    Change, InitializeError, MembershipError, ProposeError, Raft, ReadError, Timing, TransportError,
    VOTERS_MAX,
};
use covey_state::{
    command::{Proposal, Refusal},
    event::{self, Event},
};
use lab::{
    Lab, PATIENCE, address_of, create_cluster, create_service, follow, has_services, id, insist, leader,
    until,
};
use tokio::time::{Instant, timeout};

/// QRM-01, QRM-13: every manager takes changes, and every one gets all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_on_any_manager_reaches_all() {
    let lab = Lab::new();
    let managers = lab.three().await;
    for (number, raft) in (1..).zip(&managers) {
        let applied = raft.propose(&create_service(number)).await.unwrap();
        assert_eq!(&*applied.events, [Event::Service(id(number), event::Change::Created)]);
        assert_eq!(
            raft.store().service(id(number)).unwrap().version,
            applied.index,
            "its own change is seen at once"
        );
    }
    for raft in &managers {
        assert!(has_services(&raft.read().await.unwrap(), 1..=3));
    }
    assert_eq!(managers.each_ref().map(|raft| raft.leadership().leader), [Some(id(1)); 3]);
    assert_eq!(managers[1].members().voters.len(), 3);
    until("every manager is heard", || {
        let contacts = managers[0].contacts();
        contacts.keys().copied().eq([id(2), id(3)]) && contacts.values().all(|ago| *ago < PATIENCE)
    })
    .await;
    assert!(managers[1].contacts().is_empty());
}

/// SVC-07: a refusal is an answer, on the leader and elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_comes_back_as_such() {
    let lab = Lab::new();
    let managers = lab.three().await;
    for raft in &managers {
        assert!(matches!(
            raft.propose(&create_cluster()).await,
            Err(ProposeError::Refused(Refusal::Invalid(_)))
        ));
        let stale = Proposal { planned_at: Some(0), ..create_cluster() };
        assert_eq!(raft.propose(&stale).await, Err(ProposeError::Refused(Refusal::Stale)));
    }
    let mut large = create_service(1);
    let command = large.commands[0].clone();
    large.commands.resize(covey_raft::PROPOSAL_BYTES_MAX / 50, command);
    assert!(matches!(managers[1].propose(&large).await, Err(ProposeError::TooLarge { .. })));
}

/// QRM-13: a change whose answer was lost is not made a second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_does_not_repeat_a_change() {
    let lab = Lab::new();
    let [first, _second, third] = lab.three().await;
    lab.deafen(3).await;
    assert_eq!(third.propose(&create_service(1)).await, Err(ProposeError::Unknown));
    lab.heal().await;
    assert!(has_services(&third.read().await.unwrap(), [1]));
    let index = first.store().service(id(1)).unwrap().version;
    assert_eq!(first.store().last_changed(), index);
    assert!(matches!(third.propose(&create_service(1)).await, Err(ProposeError::Refused(_))));
    assert_eq!(first.store().last_changed(), index);
}

/// QRM-16: nothing on disk can be read without the key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_lies_on_disk_in_plain_text() {
    let mut lab = Lab::new();
    lab.snapshot_interval = 5;
    let raft = lab.found().await;
    for number in 1..=12 {
        raft.propose(&create_service(number)).await.unwrap();
    }
    lab.stop(raft, 1).await;
    let secrets = ["SECRET", "THE-KEY", "service-1"];
    let (mut bytes, mut sealed) = (0, 0);
    for file in std::fs::read_dir(lab.path(id(1))).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        bytes += content.len();
        sealed += content.iter().filter(|byte| **byte != 0).count();
        for secret in secrets {
            assert!(!content.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
        }
    }
    assert!(bytes > sealed && sealed > 10_000, "there is nothing on disk");
    let raft = lab.open(1).await;
    assert!(has_services(&raft.read().await.unwrap(), 1..=12));
    assert_eq!(raft.store().cluster().unwrap().authority.key, "THE-KEY-OF-THE-AUTHORITY");
}

/// QRM-03, QRM-04, QRM-08: three managers survive the loss of one, be it the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_the_leader_loses_nothing() {
    let lab = Lab::new();
    let [first, second, third] = lab.three().await;
    first.propose(&create_service(1)).await.unwrap();
    let before = second.leadership();
    lab.cut(1).await;
    let start = Instant::now();
    assert!(insist(&third, 2).await.is_some());
    let took = start.elapsed();
    assert!(took < PATIENCE / 2, "it took {took:?}");
    let after = follow(&second, |leadership| leadership.leader.is_some_and(|leader| leader != id(1))).await;
    assert!(after.term > before.term);
    assert!(has_services(&second.read().await.unwrap(), 1..=2));

    // The old one learns that it leads no more, then what it missed.
    lab.heal().await;
    follow(&first, |leadership| leadership.leader == after.leader).await;
    assert!(has_services(&first.read().await.unwrap(), 1..=2));
}

/// QRM-08: whoever asked a leader that died hears of it from the next one, not from its transport's timers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_leader_is_waited_for_only_until_another_leads() {
    let lab = Lab::new();
    let [_first, second, third] = lab.three().await;
    follow(&second, |leadership| leadership.leader == Some(id(1))).await;
    lab.silence(1).await;
    let proposal = create_service(1);
    let (read, proposed) = tokio::join!(second.read(), third.propose(&proposal));
    assert!(read.is_ok(), "{read:?}");
    assert!(matches!(proposed, Ok(_) | Err(ProposeError::Unknown)), "{proposed:?}");
    assert!(third.leadership().leader.is_some_and(|leader| leader != id(1)));
}

/// QRM-06, QRM-10: without a majority nothing is decided, and the user is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_decided() {
    let lab = Lab::new();
    let [first, second, third] = lab.three().await;
    let index = first.propose(&create_service(1)).await.unwrap().index;
    for raft in [&second, &third] {
        until("the service is everywhere", || raft.applied_index() >= Some(index)).await;
    }
    lab.cut(2).await;
    lab.cut(3).await;
    follow(&first, |leadership| !leadership.am_leader).await;
    let service = create_service(2);
    let (proposed, read, removed) =
        tokio::join!(first.propose(&service), second.read(), first.remove(id(3)),);
    assert_eq!(proposed, Err(ProposeError::NoLeader));
    assert_eq!(removed, Err(MembershipError::NotLeader));
    let error = read.unwrap_err();
    assert_eq!(error, ReadError::NoLeader);
    assert_eq!(
        error.to_string(),
        "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than \
         half of the managers are online."
    );
    // What there is can still be looked at.
    assert!(has_services(&first.store(), [1]) && has_services(&third.store(), [1]));

    lab.heal().await;
    assert!(insist(&third, 3).await.is_some());
    assert!(!has_services(&third.store(), [2]), "what was refused came true");
}

/// QRM-08: restarts, of one manager and of all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_finds_everything_on_disk() {
    let lab = Lab::new();
    let managers = lab.three().await;
    managers[2].propose(&create_service(1)).await.unwrap();
    assert_eq!(Raft::stored(&lab.path(id(3))).unwrap().unwrap().cluster, id(100));
    assert!(matches!(lab.try_open(id(3)).await, Err(covey_raft::OpenError::InUse(_))));

    let [first, second, third] = managers;
    lab.stop(third, 3).await;
    first.propose(&create_service(2)).await.unwrap();
    let third = lab.open(3).await;
    assert!(third.is_initialized().await);
    assert_eq!(third.initialize().await, Err(InitializeError::Already));
    assert!(has_services(&third.read().await.unwrap(), 1..=2));

    for (raft, number) in [(first, 1), (second, 2), (third, 3)] {
        lab.stop(raft, number).await;
    }
    let managers = [lab.open(1).await, lab.open(2).await, lab.open(3).await];
    assert!(has_services(&managers[0].read().await.unwrap(), 1..=2));
    assert!(insist(&managers[1], 3).await.is_some());
}

/// QRM-08: nobody else could lead, so a restarted manager of its own does not wait; but never in a term that it has led
/// before, in which it would count its decisions anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_manager_leads_in_a_new_term_after_each_restart() {
    let mut lab = Lab::new();
    // Were it to wait for others, the test would be over first.
    lab.timing = Timing { election_min: PATIENCE * 2, election_max: PATIENCE * 3, ..lab.timing };
    let mut raft = lab.found().await;
    for _ in 0..3 {
        let before = raft.leadership().term;
        lab.stop(raft, 1).await;
        raft = lab.open(1).await;
        let now = follow(&raft, |leadership| leadership.am_leader).await;
        assert!(now.term > before, "it goes on in term {before}");
    }
}

/// QRM-03: a leader that goes on purpose leaves no gap behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_goes_hands_over() {
    let lab = Lab::new();
    let [first, second, third] = lab.three().await;
    first.transfer_leadership(id(2)).await.unwrap();
    follow(&third, |leadership| leadership.leader == Some(id(2))).await;
    assert_eq!(first.transfer_leadership(id(3)).await, Err(MembershipError::NotLeader));
    second.propose(&create_service(1)).await.unwrap();
    let term = second.leadership().term;
    second.shutdown().await;
    assert!(timeout(PATIENCE, second.stopped()).await.is_ok());
    assert!(matches!(second.propose(&create_service(2)).await, Err(ProposeError::Stopped(_))));
    let after = follow(&first, |leadership| leadership.leader.is_some_and(|leader| leader != id(2))).await;
    assert_eq!(after.term, term + 1, "it took more than one election");
    assert!(insist(&third, 3).await.is_some());
}

/// QRM-04, QRM-05: learners, voters, removals, and their limits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_come_and_go() {
    let lab = Lab::new();
    let first = lab.found().await;
    assert_eq!(first.remove(id(1)).await, Err(MembershipError::Last));
    assert_eq!(first.promote(id(2)).await, Err(MembershipError::Unknown(id(2))));
    let mut others = Vec::new();
    for number in 2..=VOTERS_MAX as u128 + 1 {
        others.push(lab.open(number).await);
        first.add_learner(id(number), address_of(id(number))).await.unwrap();
    }
    assert_eq!(first.members().learners.len(), VOTERS_MAX);
    for number in 2..=VOTERS_MAX as u128 {
        first.promote(id(number)).await.unwrap();
        first.promote(id(number)).await.unwrap();
    }
    assert_eq!(first.promote(id(8)).await, Err(MembershipError::TooMany));
    assert_eq!(others[0].remove(id(3)).await, Err(MembershipError::NotLeader));

    for number in [3, 4, 5, 6, 7, 8, 8] {
        first.remove(id(number)).await.unwrap();
    }
    let members = first.members();
    assert_eq!(members.voters.keys().copied().collect::<BTreeSet<_>>(), [id(1), id(2)].into());
    assert!(members.learners.is_empty());

    // The leader itself goes last.
    first.remove(id(1)).await.unwrap();
    follow(&others[0], |leadership| leadership.am_leader).await;
    assert!(insist(&others[0], 1).await.is_some());
    assert_eq!(others[0].members().voters.len(), 1);
}

/// QRM-05: whoever follows the log proposes and reads, and nobody else does, though it once did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_is_served_at_once_and_a_removed_manager_no_more() {
    let lab = Lab::new();
    let first = lab.found().await;
    let other = lab.open(2).await;
    first.add_learner(id(2), address_of(id(2))).await.unwrap();
    other.propose(&create_service(1)).await.unwrap();
    assert!(has_services(&other.read().await.unwrap(), [1]));

    first.remove(id(2)).await.unwrap();
    assert_eq!(other.leadership().leader, Some(id(1)), "it could not even ask");
    assert!(other.propose(&create_service(2)).await.is_err());
    assert!(other.read().await.is_err());
    assert!(!has_services(&first.read().await.unwrap(), [2]));
}

/// QRM-01: a manager that comes late gets a snapshot, and so does one that missed too much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_manager_gets_a_snapshot() {
    let mut lab = Lab::new();
    lab.snapshot_interval = 20;
    let first = lab.found().await;
    for number in 1..=100 {
        first.propose(&create_service(number)).await.unwrap();
    }
    let second = lab.open(2).await;
    let mut changes = second.changes();
    first.add_learner(id(2), address_of(id(2))).await.unwrap();
    first.promote(id(2)).await.unwrap();
    assert_eq!(timeout(PATIENCE, changes.next()).await.unwrap(), Some(Change::Everything));
    assert!(has_services(&second.read().await.unwrap(), 1..=100));
    assert_eq!(first.read().await.unwrap(), second.read().await.unwrap());

    // From its own disk, snapshot and all.
    lab.stop(second, 2).await;
    let second = lab.open(2).await;
    assert!(has_services(&second.store(), 1..=80));
    assert!(has_services(&second.read().await.unwrap(), 1..=100));
}

/// Time in the log never goes back, whatever the leader's clock does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_never_goes_back() {
    let lab = Lab::new();
    let first = lab.found().await;
    let mut last = first.store().last_at();
    for (number, clock) in (1..).zip([5_000, 5_000, 4_000, 1, -7, 5_001, 9_000]) {
        lab.clock.store(clock, Ordering::Relaxed);
        first.propose(&create_service(number)).await.unwrap();
        let at = first.store().service(id(number)).unwrap().created_at;
        assert!(at > last && at.0 >= clock, "{at} after {last}");
        last = at;
    }
    assert_eq!(last.0, 9_000);
    lab.clock.store(1, Ordering::Relaxed);
    lab.stop(first, 1).await;
    let first = lab.open(1).await;
    assert!(insist(&first, 100).await.is_some());
    assert!(first.store().last_at() > last);
}

/// Changes come in order, each after the store shows it; whoever is too slow is told to read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_tells_every_change_once() {
    let lab = Lab::new();
    let first = lab.found().await;
    let (mut quick, mut slow) = (first.changes(), first.changes());
    for number in 1..=3 {
        let applied = first.propose(&create_service(number)).await.unwrap();
        assert_eq!(timeout(PATIENCE, quick.next()).await.unwrap(), Some(Change::Applied(applied)));
        let _ = first.propose(&create_service(number)).await.unwrap_err();
    }
    let batch: Vec<_> = (4..1_200).map(create_service).collect();
    let proposals: Vec<_> = batch.iter().map(|proposal| first.propose(proposal)).collect();
    for result in futures_util::future::join_all(proposals).await {
        result.unwrap();
    }
    assert_eq!(timeout(PATIENCE, slow.next()).await.unwrap(), Some(Change::Everything));
    first.shutdown().await;
    drop(first);
    assert_eq!(timeout(PATIENCE, slow.next()).await.unwrap(), None);
}

/// A manager speaks in its own name only, and garbage is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_speaks_in_the_name_of_another() {
    use covey_raft::{Settings, Transport};
    use covey_state::{Id, time::Stamp};

    /// Keeps the first request that it should send.
    struct Tap(tokio::sync::mpsc::Sender<Vec<u8>>);
    impl Transport for Tap {
        async fn call(
            &self,
            _: Id,
            _: std::net::SocketAddr,
            request: Vec<u8>,
        ) -> Result<Vec<u8>, TransportError> {
            let _ = self.0.send(request).await;
            Err(TransportError::Unreachable("tapped".to_owned()))
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let (sender, mut requests) = tokio::sync::mpsc::channel(1);
    let settings = Settings::new(id(100), id(7), address_of(id(7)));
    let raft = Raft::open(&directory.path().join("raft"), settings, Tap(sender), || Stamp(0)).await.unwrap();
    raft.initialize().await.unwrap();
    follow_any(&raft).await;
    raft.add_learner(id(1), address_of(id(1))).await.unwrap();
    let request = timeout(PATIENCE, requests.recv()).await.unwrap().unwrap();

    let lab = Lab::new();
    let victim = lab.open(1).await;
    let refused = victim.handle(id(8), request.clone()).await;
    assert!(String::from_utf8_lossy(&refused).contains("does not come from whom it says"));
    assert!(!victim.is_initialized().await);
    for garbage in [vec![], vec![0; 100], vec![1; 100], request[..request.len() / 2].to_vec()] {
        assert!(!victim.handle(id(7), garbage).await.is_empty());
    }
    assert!(!victim.is_initialized().await);
    raft.shutdown().await;
}

async fn follow_any<T: covey_raft::Transport>(raft: &Raft<T>) {
    let mut seen = raft.leadership();
    while !seen.am_leader {
        seen = timeout(PATIENCE, raft.leadership_after(seen)).await.unwrap().unwrap();
    }
}

/// QRM-03: load alone changes no leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_alone_causes_no_election() {
    let mut lab = Lab::new();
    lab.snapshot_interval = 200;
    let [first, second, third] = lab.three().await;
    let at = leader(&[&first, &second, &third]).await;
    assert_eq!(at, 0);
    let term = first.leadership().term;
    let batch: Vec<_> = (1..=1_000).map(create_service).collect();
    let ways = [&first, &second, &third];
    let proposals: Vec<_> =
        batch.iter().zip(ways.iter().cycle()).map(|(proposal, raft)| raft.propose(proposal)).collect();
    let start = Instant::now();
    for result in futures_util::future::join_all(proposals).await {
        result.unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(third.leadership().term, term);
    assert_eq!(third.read().await.unwrap().services().count(), 1_000);
}
