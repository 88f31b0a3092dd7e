//! Whatever happens: the cluster settles, stays settled, and runs what was asked for.

use std::collections::BTreeSet;

use covey_manager::{Observed, Scope, plan};
use covey_state::{Id, command::Command, network::PublishMode, node::Availability, task::TaskState};
use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use crate::{
    networks,
    world::{SECOND, World, service},
};

/// Something that happens to a cluster.
#[derive(Clone, Debug)]
enum Happening {
    Kill(usize),
    Cut(usize),
    HangUp(usize),
    ComeBack(usize),
    Drain(usize),
    Activate(usize),
    Scale(usize, u64),
    Update(usize, &'static str),
    Fail(usize, usize),
    Publish(usize, Option<PublishMode>),
    Join(usize, bool),
    ChangeLeader,
    Wait(u32),
}

const NODES: usize = 4;
const SERVICES: usize = 2;
const IMAGES: &[&str] = &["web:1", "web:2", "crash:1", "exit:1", "missing:1"];

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let mode = prop::sample::select(&[PublishMode::Ingress, PublishMode::Host]);
    prop_oneof![
        (0..NODES).prop_map(Kill),
        (0..NODES).prop_map(Cut),
        (0..NODES).prop_map(HangUp),
        (0..NODES).prop_map(ComeBack),
        (0..NODES).prop_map(Drain),
        (0..NODES).prop_map(Activate),
        (0..SERVICES, 0..12_u64).prop_map(|(service, to)| Scale(service, to)),
        (0..SERVICES, prop::sample::select(IMAGES)).prop_map(|(service, image)| Update(service, image)),
        (0..SERVICES, 0..12_usize).prop_map(|(service, task)| Fail(service, task)),
        (0..SERVICES, prop::option::of(mode)).prop_map(|(service, mode)| Publish(service, mode)),
        (0..SERVICES, any::<bool>()).prop_map(|(service, joins)| Join(service, joins)),
        Just(ChangeLeader),
        (0..20_u32).prop_map(Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// TSK-08, SCH-01: after any trouble all replicas run once, and a full plan has nothing to add.
    #[test]
    fn after_any_trouble_every_replica_runs_exactly_once(
        happenings in prop::collection::vec(happening(), 1..25),
        stop_seconds in 0..4_u32,
    ) {
        let (mut world, nodes) = World::with_nodes(NODES as u128);
        world.stop_time = SECOND * stop_seconds;
        networks::small_network(&mut world);
        let services = [
            world.create(service("one", "web:1", 3)),
            world.create(service("two", "web:1", 5)),
        ];
        let mut term = 1;
        for happening in happenings {
            match happening {
                Happening::Kill(node) => world.kill(nodes[node]),
                Happening::Cut(node) => world.cut(nodes[node]),
                Happening::HangUp(node) => world.hang_up(nodes[node]),
                Happening::ComeBack(node) => world.start(nodes[node]),
                Happening::Drain(node) => world.set_availability(nodes[node], Availability::Drain),
                Happening::Activate(node) => world.set_availability(nodes[node], Availability::Active),
                Happening::Scale(service, to) => world.scale(services[service], to),
                Happening::Update(service, image) => world.update(services[service], |spec| {
                    image.clone_into(&mut spec.task.container.image);
                }),
                Happening::Fail(service, task) => {
                    let running = world.running(services[service]);
                    if let Some(task) = running.get(task) {
                        world.end(task.id, TaskState::Failed);
                    }
                }
                Happening::Publish(service, mode) => world.update(services[service], |spec| {
                    // Ports of hosts are the same for both services; an ingress port is one service's.
                    let number = if mode == Some(PublishMode::Host) { 80 } else { 0 };
                    spec.endpoint.ports = mode.map(|mode| networks::port(number, mode)).into_iter().collect();
                }),
                Happening::Join(service, joins) => {
                    let joined: Vec<_> = joins.then(networks::membership).into_iter().collect();
                    // It needs a virtual address.
                    if world.store.check_room(&joined).is_ok() {
                        world.update(services[service], |spec| spec.task.networks = joined);
                    }
                }
                Happening::ChangeLeader => {
                    term += 1;
                    world.change_leader(term);
                }
                Happening::Wait(seconds) => world.advance(SECOND * seconds),
            }
            world.settle();
            prop_assert_eq!(world.store.check(), Ok(()));
            prop_assert_eq!(clash(&world), None);
        }
        for node in &nodes {
            world.start(*node);
            world.set_availability(*node, Availability::Active);
        }
        for service in services {
            world.update(service, |spec| {
                "web:9".clone_into(&mut spec.task.container.image);
                spec.task.networks.clear();
                spec.endpoint.ports.clear();
            });
        }
        world.advance(SECOND * 120);
        for service in services {
            let covey_state::service::Mode::Replicated { replicas } = world.service(service).spec.mode;
            let mut slots: Vec<u64> = world.containers(service).into_iter().map(|(_, slot)| slot).collect();
            slots.sort_unstable();
            prop_assert_eq!(slots.len() as u64, replicas);
            slots.dedup();
            prop_assert_eq!(slots.len() as u64, replicas);
            prop_assert_eq!(world.running(service).len() as u64, replicas);
        }
        prop_assert_eq!(full_plan(&world), None);
    }

    /// SCH-01, SCH-22, SVC-29
    #[test]
    fn on_equal_nodes_a_service_is_spread_within_one(
        count in 1..8_u128,
        scales in prop::collection::vec(0..30_u64, 1..8),
    ) {
        let (mut world, nodes) = World::with_nodes(count);
        let web = world.create(service("web", "web:1", 1));
        for replicas in scales {
            world.scale(web, replicas);
            world.settle();
            let shape = world.shape(web, &nodes);
            prop_assert_eq!(shape.iter().sum::<usize>() as u64, replicas);
            prop_assert!(shape[0] - shape[shape.len() - 1] <= 1, "{:?}", shape);
        }
    }
}

/// A node where two containers that run have the same port of it.
fn clash(world: &World) -> Option<Id> {
    let mut taken = BTreeSet::new();
    let live = world.store.tasks().filter(|task| {
        let seen = world.observed.task(task.id).map_or(task.status.state, |seen| seen.state);
        seen == TaskState::Running && !task.status.state.is_terminal()
    });
    let ports = live.flat_map(|task| task.ports.iter().map(move |port| (task.node, port.published)));
    ports.filter(|port| !taken.insert(*port)).find_map(|(node, _)| node)
}

/// What a plan over everything still proposes.
fn full_plan(world: &World) -> Option<covey_state::command::Proposal> {
    let mut random = StdRng::seed_from_u64(1);
    plan(&world.store, &world.observed, &Scope::All, world.now, &mut random).proposal
}

#[test]
fn a_settled_cluster_plans_nothing_twice() {
    let (mut world, _) = World::with_nodes(3);
    world.create(service("web", "web:1", 7));
    world.create(service("crash", "crash:1", 2));
    world.advance(SECOND * 7);
    let known = world.store.last_changed();
    assert_eq!(full_plan(&world), None);
    world.settle();
    assert_eq!(world.store.last_changed(), known);
}

/// A plan is made for one state of the store, and refused by any other.
#[test]
fn a_plan_names_the_store_that_it_was_made_for() {
    let (mut world, _) = World::with_nodes(1);
    let web = world.create(service("web", "web:1", 1));
    let proposal = full_plan(&world).unwrap();
    assert_eq!(proposal.planned_at, Some(world.store.last_changed()));
    world.apply(Command::RemoveService { id: web });
    let refused = world.store.clone().apply(1_000, world.now, &proposal);
    assert_eq!(refused, Err(covey_state::command::Refusal::Stale));
}

/// Only what was touched is planned; what waits is planned with it.
#[test]
fn a_plan_looks_only_at_its_scope() {
    let (mut world, nodes) = World::with_nodes(1);
    let one = world.create(service("one", "web:1", 1));
    let two = world.create(service("two", "web:1", 1));
    let mut scope = Scope::default();
    assert!(scope.is_empty());
    scope.add_service(one);
    let mut random = StdRng::seed_from_u64(1);
    let observed = Observed::new(world.now);
    let planned = plan(&world.store, &observed, &scope, world.now, &mut random);
    let commands = planned.proposal.unwrap().commands;
    assert!(
        commands
            .iter()
            .all(|command| !matches!(command, Command::CreateTask { service, .. } if *service == two))
    );
    assert!(matches!(commands.last(), Some(Command::ExplainTask { .. })), "no node is known to be alive");
    let mut waiting = Scope::default();
    waiting.add_service(one);
    assert_eq!(planned.waiting, waiting);
    world.settle();
    assert_eq!(world.spread(two, &nodes), [1]);
}
