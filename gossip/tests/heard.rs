//! Topics that are heard whole: how soon, and never before they are.

#[allow(dead_code, reason = "shared: each test program uses a part of it")]
mod world;

use std::time::{Duration, Instant};

use covey_gossip::{Rights, Topic};
use world::{MS, SECOND, World, id, with_seeds};

/// Nodes of the cluster.
const COUNT: usize = 20;
/// A few round trips, and a signature to check for each row.
const SOON: Duration = Duration::from_millis(30);

fn front() -> Topic {
    "net.front".parse().expect("a topic")
}

/// A cluster in which everybody knows each other.
fn met(test: &'static str, seed: u64) -> World {
    let mut world = World::grown(test, seed, COUNT);
    world.rights = Rights::All;
    (0..COUNT).for_each(|node| world.introduce(node));
    world.run_for(10 * SECOND);
    world
}

/// The node begins to carry the network, and tells of an endpoint in it.
fn enter(world: &mut World, node: usize) -> Instant {
    let now = world.now;
    world.with(node, |gossip| gossip.subscribe(now, &front()).expect("few topics"));
    world.set_row(node, &front(), "endpoint", "here");
    now
}

/// How long after `since` the node was told that it has heard the network whole, and how many rows it had.
fn heard(world: &World, node: usize, since: Instant) -> Option<(Duration, usize)> {
    let mut told = world.nodes[node].heard.iter().filter(|(at, topic, _)| *at >= since && *topic == front());
    told.next().map(|(at, _, rows)| (*at - since, *rows))
}

/// NET: of a network that begins on many hosts within a few milliseconds nobody can say at first that it is whole, nor who
/// else is in it; whoever asks one who cannot say asks another at once.
#[test]
fn a_network_that_begins_on_many_hosts_is_heard_in_a_few_round_trips() {
    with_seeds("a_network_that_begins_on_many_hosts_is_heard_in_a_few_round_trips", 0..16, |seed, test| {
        let mut world = met(test, seed);
        let gap = Duration::from_micros(250 * (seed % 8));
        let mut begun = Vec::new();
        for node in 0..COUNT - 1 {
            begun.push((node, enter(&mut world, node)));
            world.run_for(gap);
        }
        world.run_for(100 * MS);
        // Whoever told of an endpoint did not know yet of all who want to hear of it.
        let last = COUNT - 1;
        for node in 0..last {
            let rows = world.nodes[node].gossip.rows("net.front").count();
            assert_eq!(rows, last, "node {node}");
        }
        // What was told before it came it has in any case.
        begun.push((last, enter(&mut world, last)));
        world.run_for(SECOND);
        for (node, since) in begun {
            let (took, rows) =
                heard(&world, node, since).unwrap_or_else(|| panic!("node {node} was not told"));
            assert!(took < SOON, "node {node}: {took:?}");
            assert!(node != last || rows == COUNT, "node {node}: {rows} rows");
        }
    });
}

/// NET: others still hold what a dead host told; whoever begins anew has not met it, and need not.
#[test]
fn the_dead_keep_nobody_from_hearing_all() {
    with_seeds("the_dead_keep_nobody_from_hearing_all", 0..8, |seed, test| {
        let mut world = met(test, seed);
        for node in 5..12 {
            enter(&mut world, node);
        }
        world.run_for(SECOND);
        world.kill(7);
        world.run_for(20 * SECOND);
        assert!(world.nodes[8].gossip.row("net.front", id(7), "endpoint").is_some_and(|row| row.suspended));
        world.restart(5);
        let since = enter(&mut world, 5);
        world.run_for(SECOND);
        let (took, rows) = heard(&world, 5, since).expect("it is told");
        assert!(took < 2 * SOON && rows == 6, "{rows} rows after {took:?}");
    });
}

/// NET-29: two hosts whose daemons begin anew at the same moment. Nobody else is in their network, and each has yet to find
/// out what it has itself: before it has, the other is not told that it has heard all.
#[test]
fn who_has_not_told_yet_what_it_has_is_waited_for() {
    with_seeds("who_has_not_told_yet_what_it_has_is_waited_for", 0..8, |seed, test| {
        let mut world = met(test, seed);
        [5, 6].into_iter().for_each(|node| _ = enter(&mut world, node));
        world.run_for(5 * SECOND);
        let since = world.now;
        for node in [5, 6] {
            world.restart(node);
            world.with(node, |gossip| gossip.hold());
            world.with(node, |gossip| gossip.subscribe(since, &front()).expect("few topics"));
        }
        world.run_for(150 * MS);
        assert_eq!([5, 6].map(|node| heard(&world, node, since)), [None; 2]);
        for node in [5, 6] {
            world.set_row(node, &front(), "endpoint", "here");
            world.with(node, |gossip| gossip.release());
        }
        world.run_for(SECOND);
        for node in [5, 6] {
            let (took, rows) = heard(&world, node, since).expect("it is told");
            assert!(rows == 2, "node {node}: {rows} rows after {took:?}");
        }
    });
}

/// NET-29: what a host told in its last life counts until it has told all of it anew: none of it goes in between.
#[test]
fn what_a_node_told_before_stays_until_it_has_told_all_anew() {
    with_seeds("what_a_node_told_before_stays_until_it_has_told_all_anew", 0..4, |seed, test| {
        let mut world = met(test, seed);
        [5, 6].into_iter().for_each(|node| _ = enter(&mut world, node));
        let names = ["a", "b", "c"];
        names.into_iter().for_each(|name| world.set_row(6, &front(), name, "here"));
        world.run_for(SECOND);
        world.news.clear();
        world.restart(6);
        world.with(6, |gossip| gossip.hold());
        enter(&mut world, 6);
        for name in names.into_iter().take(2) {
            world.set_row(6, &front(), name, "here");
            world.run_for(20 * MS);
        }
        assert!(world.all_read(&[5], 6, "net.front", "c", Some("here")));
        world.with(6, |gossip| gossip.release());
        world.run_for(SECOND);
        let gone: Vec<&str> =
            world.news.iter().filter(|news| news.node == 5).map(|news| &*news.key).collect();
        assert_eq!(gone, ["c"], "only what it has no longer");
        assert!(world.all_read(&[5], 6, "net.front", "a", Some("here")));
    });
}
