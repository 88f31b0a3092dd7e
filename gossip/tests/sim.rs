//! Hundreds of machines in one virtual network: what the cluster as a whole does under loss, death and partition.

#[allow(dead_code, reason = "shared: each test program uses a part of it")]
mod world;

use covey_gossip::{Config, Liveness, MemberEvent, NODES, Topic};
use world::{MS, SECOND, WORLD, World, id, with_seeds};

/// Nodes of a large cluster.
const MANY: usize = 300;
/// Nodes of a small one.
const FEW: usize = 40;
/// The managers, who read what the others report.
const MANAGERS: [usize; 3] = [0, 1, 2];

fn tasks() -> Topic {
    "tasks".parse().expect("a topic")
}

fn managers_subscribe(world: &mut World) {
    for manager in MANAGERS {
        world.introduce(manager);
        let now = world.now;
        world.with(manager, |gossip| gossip.subscribe(now, &tasks()).expect("few topics"));
    }
}

/// NOD-02
#[test]
fn hundreds_of_nodes_meet_and_nobody_dies_under_loss() {
    with_seeds("hundreds_of_nodes_meet_and_nobody_dies_under_loss", 0..1, |seed, test| {
        let mut world = World::grown(test, seed, MANY);
        world.loss = 0.05;
        let before: usize = world.nodes.iter().map(|node| node.sent_bytes).sum();
        world.run_for(20 * SECOND);
        assert_eq!(world.deaths(), []);
        assert!(world.all_see_all());
        let after: usize = world.nodes.iter().map(|node| node.sent_bytes).sum();
        let rate = (after - before) / MANY / 20;
        assert!(rate < 4_000, "{rate} bytes a second and node");
    });
}

/// NOD-02
#[test]
fn a_killed_node_whose_connections_are_lost_is_down_everywhere_within_two_seconds() {
    let test = "a_killed_node_whose_connections_are_lost_is_down_everywhere_within_two_seconds";
    with_seeds(test, 0..1, |seed, test| {
        let mut world = World::grown(test, seed, MANY);
        world.loss = 0.05;
        for victim in [2, 150] {
            world.kill_with_lost_connections(victim, 100 * MS);
            let took =
                world.run_until(10 * SECOND, "the verdict", |world| world.all_see(victim, Liveness::Down));
            assert!(took < 1900 * MS, "{took:?}");
        }
        assert_eq!(world.deaths().len(), 298 * 2, "nobody else was declared down");
    });
}

/// NOD-02
#[test]
fn a_killed_node_that_nobody_was_connected_to_is_down_everywhere_within_eight_seconds() {
    let test = "a_killed_node_that_nobody_was_connected_to_is_down_everywhere_within_eight_seconds";
    with_seeds(test, 0..4, |seed, test| {
        let mut world = World::grown(test, seed, FEW);
        world.loss = 0.05;
        world.kill(7);
        let took = world.run_until(20 * SECOND, "the verdict", |world| world.all_see(7, Liveness::Down));
        assert!(took < 8 * SECOND, "{took:?}");
        assert_eq!(world.deaths().len(), FEW - 1, "nobody else was declared down");
    });
}

/// NOD-02
#[test]
fn across_the_world_nobody_dies_under_loss_but_the_dead() {
    with_seeds("across_the_world_nobody_dies_under_loss_but_the_dead", 0..2, |seed, test| {
        let mut world = World::grown_with(test, seed, FEW, Config::wan(), WORLD);
        world.loss = 0.05;
        world.run_for(120 * SECOND);
        assert_eq!(world.deaths(), []);
        world.kill_with_lost_connections(7, SECOND);
        let took = world.run_until(60 * SECOND, "the verdict", |world| world.all_see(7, Liveness::Down));
        assert!(took < 8 * SECOND, "{took:?}");
        assert_eq!(world.deaths().len(), FEW - 1, "nobody else was declared down");
    });
}

/// NOD-02
#[test]
fn a_lost_connection_to_a_living_node_kills_nobody() {
    with_seeds("a_lost_connection_to_a_living_node_kills_nobody", 0..4, |seed, test| {
        let mut world = World::grown(test, seed, FEW);
        world.loss = 0.05;
        for node in 0..FEW {
            world.lose_connections(node);
        }
        world.run_for(10 * SECOND);
        assert_eq!(world.deaths(), []);
    });
}

/// NOD-02
#[test]
fn a_node_that_stalls_holds_it_against_nobody() {
    with_seeds("a_node_that_stalls_holds_it_against_nobody", 0..4, |seed, test| {
        let mut world = World::grown(test, seed, FEW);
        world.stall(5, 6 * SECOND);
        world.run_for(6 * SECOND - MS);
        world.lose_connections(5);
        world.run_for(10 * SECOND);
        let wrong: Vec<_> = world
            .deaths()
            .into_iter()
            .filter(|(_, event)| !matches!(event, MemberEvent::Down { id: dead, .. } if *dead == id(5)))
            .collect();
        assert_eq!(wrong, []);
        assert!(world.all_see_all(), "and is taken back");
    });
}

/// TSK-15, C-31
#[test]
fn rows_reach_their_subscribers_and_nobody_else() {
    with_seeds("rows_reach_their_subscribers_and_nobody_else", 0..3, |seed, test| {
        let mut world = World::grown(test, seed, FEW);
        world.loss = 0.05;
        managers_subscribe(&mut world);
        for owner in [5, 6, 7] {
            world.introduce(owner);
            world.set_row(owner, &tasks(), "task", "running");
            world.set_row(owner, &Topic::nodes(), "load", "low");
        }
        let all = world.running();
        let others: Vec<usize> = (8..FEW).collect();
        world.run_until(15 * SECOND, "all rows", |world| {
            [5, 6, 7].iter().all(|owner| {
                world.all_read(&MANAGERS, *owner, "tasks", "task", Some("running"))
                    && world.all_read(&all, *owner, NODES, "load", Some("low"))
            })
        });
        assert!(world.all_read(&others, 5, "tasks", "task", None));

        world.set_row(5, &tasks(), "task", "done");
        world.with(6, |gossip| gossip.withdraw_row(&tasks(), "task"));
        let took = world.run_until(5 * SECOND, "the change", |world| {
            world.all_read(&MANAGERS, 5, "tasks", "task", Some("done"))
                && world.all_read(&MANAGERS, 6, "tasks", "task", None)
        });
        assert!(took <= 200 * MS, "a pushed row took {took:?}");

        let now = world.now;
        world.with(9, |gossip| gossip.subscribe(now, &tasks()).expect("few topics"));
        world.run_until(5 * SECOND, "a late subscriber", |world| {
            world.all_read(&[9], 5, "tasks", "task", Some("done"))
                && world.all_read(&[9], 7, "tasks", "task", Some("running"))
        });
        world.with(9, |gossip| gossip.unsubscribe(&tasks()).unwrap());
        assert!(world.all_read(&[9], 5, "tasks", "task", None));
    });
}

/// TSK-15, C-31
#[test]
fn rows_without_right_or_with_a_wrong_signature_are_shown_nowhere() {
    with_seeds("rows_without_right_or_with_a_wrong_signature_are_shown_nowhere", 0..2, |seed, test| {
        let mut world = World::grown(test, seed, 10);
        managers_subscribe(&mut world);
        let secrets: Topic = "secrets".parse().unwrap();
        let now = world.now;
        for manager in MANAGERS {
            world.with(manager, |gossip| gossip.subscribe(now, &secrets).unwrap());
        }
        world.introduce(5);
        world.introduce_with_key_of(6, 7);
        world.set_row(5, &secrets, "no right", "forged");
        world.set_row(6, &tasks(), "not its key", "forged");
        world.set_row(8, &tasks(), "nobody knows it", "forged");
        world.set_row(5, &tasks(), "good", "true");
        world.run_until(10 * SECOND, "the good row", |world| {
            world.all_read(&MANAGERS, 5, "tasks", "good", Some("true"))
        });
        world.run_for(10 * SECOND);
        assert!(world.all_hold(&MANAGERS, 5, "secrets", "no right", false));
        assert!(world.all_hold(&MANAGERS, 6, "tasks", "not its key", false));
        assert!(world.all_hold(&MANAGERS, 8, "tasks", "nobody knows it", false));

        world.introduce(8);
        world.run_until(60 * SECOND, "what is known now", |world| {
            world.all_hold(&MANAGERS, 8, "tasks", "nobody knows it", true)
        });
    });
}

/// TSK-15
#[test]
fn a_row_is_pushed_to_nearly_everybody_in_less_than_a_second() {
    with_seeds("a_row_is_pushed_to_nearly_everybody_in_less_than_a_second", 0..1, |seed, test| {
        let mut world = World::grown(test, seed, 100);
        world.introduce(17);
        world.run_for(SECOND);
        world.set_row(17, &Topic::nodes(), "load", "low");
        world.run_for(500 * MS);
        let all = world.running();
        let reached =
            all.iter().filter(|node| world.all_read(&[**node], 17, NODES, "load", Some("low"))).count();
        assert!(reached >= 95, "{reached} of 100");
        world
            .run_until(10 * SECOND, "the rest", |world| world.all_read(&all, 17, NODES, "load", Some("low")));
    });
}

/// NOD-02
#[test]
fn a_partition_heals_with_all_nodes_and_rows() {
    with_seeds("a_partition_heals_with_all_nodes_and_rows", 0..3, |seed, test| {
        let mut world = World::grown(test, seed, FEW);
        managers_subscribe(&mut world);
        world.introduce(20);
        world.set_row(20, &tasks(), "task", "running");
        world.run_until(10 * SECOND, "the row", |world| {
            world.all_read(&MANAGERS, 20, "tasks", "task", Some("running"))
        });

        (FEW / 2..FEW).for_each(|node| world.nodes[node].side = 1);
        world.run_until(40 * SECOND, "each side to bury the other", |world| {
            world
                .views(20)
                .into_iter()
                .all(|(node, view)| view == Some(if node < 20 { Liveness::Down } else { Liveness::Alive }))
        });
        assert!(world.all_read(&MANAGERS, 20, "tasks", "task", None), "suspended");
        world.run_for(30 * SECOND);

        (0..FEW).for_each(|node| world.nodes[node].side = 0);
        let took = world.run_until(20 * SECOND, "everybody back", |world| {
            world.all_see_all() && world.all_read(&MANAGERS, 20, "tasks", "task", Some("running"))
        });
        assert!(took < 5 * SECOND, "{took:?}");
        let deaths = world.deaths().len();
        world.run_for(10 * SECOND);
        assert_eq!(world.deaths().len(), deaths, "nobody dies of the healing");
        assert!(world.all_see_all());
    });
}

/// NOD-02, TSK-15
#[test]
fn a_restarted_node_is_taken_and_what_it_said_before_is_void() {
    with_seeds("a_restarted_node_is_taken_and_what_it_said_before_is_void", 0..3, |seed, test| {
        let mut world = World::grown(test, seed, FEW);
        managers_subscribe(&mut world);
        world.introduce(20);
        world.set_row(20, &tasks(), "old", "running");
        world.set_row(20, &tasks(), "both", "running");
        world.run_until(10 * SECOND, "the rows", |world| {
            world.all_read(&MANAGERS, 20, "tasks", "old", Some("running"))
        });

        world.restart(20);
        world.set_row(20, &tasks(), "both", "done");
        world.run_until(20 * SECOND, "the new life", |world| {
            world.all_see(20, Liveness::Alive)
                && world.all_read(&MANAGERS, 20, "tasks", "both", Some("done"))
                && world.all_read(&MANAGERS, 20, "tasks", "old", None)
        });
        world.run_for(10 * SECOND);
        assert!(world.all_read(&MANAGERS, 20, "tasks", "old", None), "nobody brings it back");
    });
}

/// NOD-02
#[test]
fn a_killed_node_that_comes_back_shows_its_rows_again() {
    with_seeds("a_killed_node_that_comes_back_shows_its_rows_again", 0..2, |seed, test| {
        let mut world = World::grown(test, seed, FEW);
        managers_subscribe(&mut world);
        world.kill(1);
        world.introduce(20);
        world.set_row(20, &tasks(), "task", "running");
        world.run_until(20 * SECOND, "the death", |world| world.all_see(1, Liveness::Down));
        world.restart(1);
        let now = world.now;
        world.with(1, |gossip| gossip.subscribe(now, &tasks()).expect("few topics"));
        let took = world.run_until(20 * SECOND, "the return", |world| {
            world.all_see_all() && world.all_read(&MANAGERS, 20, "tasks", "task", Some("running"))
        });
        assert!(took < 6 * SECOND, "{took:?}");
    });
}

/// NOD-02
#[test]
fn a_node_that_leaves_is_gone_with_its_rows_and_stays_gone() {
    with_seeds("a_node_that_leaves_is_gone_with_its_rows_and_stays_gone", 0..3, |seed, test| {
        let mut world = World::grown(test, seed, FEW);
        world.introduce(20);
        world.set_row(20, &Topic::nodes(), "load", "low");
        let all: Vec<usize> = (0..FEW).filter(|node| *node != 20).collect();
        world.run_until(10 * SECOND, "the row", |world| world.all_read(&all, 20, NODES, "load", Some("low")));

        let now = world.now;
        world.with(20, |gossip| gossip.leave(now));
        world.run_for(5 * MS);
        world.kill(20);
        world.run_until(5 * SECOND, "the good-bye", |world| {
            world.all_see(20, Liveness::Left) && world.all_hold(&all, 20, NODES, "load", false)
        });
        world.run_for(20 * SECOND);
        assert!(world.all_see(20, Liveness::Left) && world.all_hold(&all, 20, NODES, "load", false));
        assert_eq!(world.deaths(), [], "a good-bye is no death");
        world.restart(20);
        world.run_until(10 * SECOND, "the return", World::all_see_all);
    });
}

/// NOD-02
#[test]
fn a_cluster_that_lost_everybody_finds_together_again_by_its_seeds() {
    with_seeds("a_cluster_that_lost_everybody_finds_together_again_by_its_seeds", 0..3, |seed, test| {
        let mut world = World::grown(test, seed, 5);
        (0..5).for_each(|node| world.nodes[node].side = node);
        world.run_for(30 * SECOND);
        assert_eq!(world.deaths().len(), 20);
        (0..5).for_each(|node| world.nodes[node].side = 0);
        let took = world.run_until(20 * SECOND, "everybody", World::all_see_all);
        assert!(took < 8 * SECOND, "{took:?}");
    });
}
