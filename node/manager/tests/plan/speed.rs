//! How fast plans are: run with `cargo test --release -p covey-manager -- --ignored --nocapture speed`.

use std::time::Instant;

use covey_manager::{Scope, plan};
use rand::{SeedableRng, rngs::StdRng};

use crate::world::{CPU, MIB, World, service};

/// Prints the median of some runs.
#[allow(clippy::disallowed_methods, reason = "it measures")]
fn measure(what: &str, world: &World, scope: &Scope) {
    let mut random = StdRng::seed_from_u64(1);
    let mut times: Vec<_> = (0..21)
        .map(|_| {
            let start = Instant::now();
            let plan = plan(&world.store, &world.observed, scope, world.now, &mut random);
            let time = start.elapsed();
            assert!(plan.proposal.is_some());
            time
        })
        .collect();
    times.sort_unstable();
    println!("{what}: {:?}", times[times.len() / 2]);
}

#[test]
#[ignore = "a measurement, not a test"]
fn speed_of_plans() {
    let (mut world, _) = World::with_nodes(5);
    let web = world.create(service("web", "web:1", 100));
    let mut scope = Scope::default();
    scope.add_service(web);
    measure("100 new tasks on 5 nodes", &world, &scope);

    let mut world = World::new(1);
    for _ in 0..5 {
        world.add_node(64 * CPU, 262_144 * MIB);
    }
    for number in 0..10_000 {
        world.create(service(&format!("s{number}"), "web:1", u64::from(number % 10 == 0)));
    }
    world.settle();
    let web = world.create(service("web", "web:1", 1));
    let mut scope = Scope::default();
    scope.add_service(web);
    measure("one service beside 10,000 services with 1,000 tasks", &world, &scope);
    measure("everything of 10,000 services", &world, &Scope::All);
}
