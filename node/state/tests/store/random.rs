//! Any sequence of commands keeps the invariants, and gives every manager the same store.

use std::{
    cell::RefCell,
    mem::{Discriminant, discriminant},
    time::Duration,
};

use covey_state::{
    Store,
    command::{Command, Proposal},
    network::{AttachmentSpec, EndpointMode, EndpointSpec, NetworkSpec, PublishMode, PublishedPort},
    node::{NodeDescription, Role},
    service::{Mode, ServiceSpec},
    task::{DesiredState, TaskState},
};
use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestRunner},
};

use crate::scene::*;

/// A command, but for the version that its user has read.
#[derive(Clone, Debug)]
enum Step {
    Plain(Command),
    UpdateNode { node: u128, role: Role, stale: bool },
    UpdateService { service: u128, spec: ServiceSpec, stale: bool },
}

impl Step {
    fn command(&self, store: &Store) -> Command {
        match self {
            Self::Plain(command) => command.clone(),
            Self::UpdateNode { node, role, stale } => {
                let version = store.node(id(*node)).map_or(1, |node| node.version) - u64::from(*stale);
                Command::UpdateNode { id: id(*node), version, spec: node_spec(*role) }
            }
            Self::UpdateService { service, spec, stale } => {
                let read = store.service(id(*service)).map_or(1, |service| service.version);
                let version = read - u64::from(*stale);
                Command::UpdateService { id: id(*service), version, spec: spec.clone() }
            }
        }
    }
}

type Kind = Discriminant<Command>;
/// Kinds of commands that the strategies below make.
const KINDS: usize = 20;

/// Few of each, so that commands meet.
const NODES: std::ops::Range<u128> = 0..10;
const SERVICES: std::ops::Range<u128> = 100..103;
const TASKS: std::ops::Range<u128> = 200..216;
const NETWORKS: std::ops::Range<u128> = 300..303;
const ATTACHMENTS: std::ops::Range<u128> = 400..404;

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Worker), Just(Role::Manager)]
}

fn desired() -> impl Strategy<Value = DesiredState> {
    use DesiredState::*;
    prop_oneof![Just(Ready), Just(Running), Just(Shutdown), Just(Remove)]
}

fn end() -> impl Strategy<Value = TaskState> {
    use TaskState::*;
    prop_oneof![Just(Running), Just(Complete), Just(Shutdown), Just(Failed), Just(Rejected), Just(Orphaned)]
}

fn spec() -> impl Strategy<Value = ServiceSpec> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c"), Just("-")];
    let host_network = prop::bool::weighted(0.1);
    (name, 0..3_u64, 0..2_u64, task_networks(), host_network, endpoint()).prop_map(
        |(name, replicas, force, networks, host_network, endpoint)| {
            let mut spec =
                ServiceSpec { mode: Mode::Replicated { replicas }, endpoint, ..service_spec(name) };
            spec.task.force_update = force;
            spec.task.networks = if host_network { Vec::new() } else { networks };
            spec.task.host_network = host_network;
            spec
        },
    )
}

fn task_networks() -> impl Strategy<Value = Vec<AttachmentSpec>> {
    let alias = prop::option::weighted(0.3, prop_oneof![Just("a"), Just("B"), Just("x")]);
    let network = (NETWORKS, alias).prop_map(|(network, alias)| AttachmentSpec {
        network: id(network),
        aliases: alias.into_iter().map(str::to_owned).collect(),
    });
    prop_oneof![1 => Just(Vec::new()), 2 => prop::collection::vec(network, 1..3)]
}

fn endpoint() -> impl Strategy<Value = EndpointSpec> {
    let mode = prop_oneof![3 => Just(EndpointMode::Vip), 1 => Just(EndpointMode::Dnsrr)];
    let publish = prop_oneof![3 => Just(PublishMode::Ingress), 1 => Just(PublishMode::Host)];
    let published = prop_oneof![2 => Just(0), 1 => 80..82_u16, 1 => 30_000..30_002_u16];
    let port = (published, 80..82_u16, publish).prop_map(|(published, target, mode)| PublishedPort {
        published,
        target,
        mode,
        ..PublishedPort::default()
    });
    (mode, prop::collection::vec(port, 0..3)).prop_map(|(mode, ports)| EndpointSpec { mode, ports })
}

/// Subnets so small that they run out.
fn network_step() -> impl Strategy<Value = Step> {
    let name = prop_oneof![Just("n"), Just("m"), Just("bridge")];
    let subnets = prop_oneof![
        Just(vec![]),
        Just(vec!["10.0.0.0/29"]),
        Just(vec!["10.0.0.8/30", "10.0.0.0/30"]),
        Just(vec!["fd00::/126"]),
    ];
    let spec =
        (name, subnets, any::<[bool; 3]>()).prop_map(|(name, subnets, [ipv6, internal, attachable])| {
            NetworkSpec { ipv6, internal, attachable, ..network_spec(name, &subnets) }
        });
    let address = prop::option::of(prop_oneof![Just("10.0.0.2"), Just("10.0.0.3"), Just("fd00::2")]);
    prop_oneof![
        3 => (NETWORKS, spec).prop_map(|(network, spec)| Command::CreateNetwork { id: id(network), spec }),
        2 => NETWORKS.prop_map(|network| Command::RemoveNetwork { id: id(network) }),
        4 => (ATTACHMENTS, NETWORKS, NODES, address)
            .prop_map(|(number, network, node, address)| attach_at(number, network, node, address.as_slice())),
        2 => ATTACHMENTS.prop_map(|number| Command::RemoveAttachment { id: id(number) }),
    ]
    .prop_map(Step::Plain)
}

fn node_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (NODES, role()).prop_map(|(node, role)| Step::Plain(create_node(node, role))),
        2 => (NODES, role(), any::<bool>()).prop_map(|(node, role, stale)| Step::UpdateNode { node, role, stale }),
        2 => (NODES, role()).prop_map(|(node, role)| Step::Plain(Command::SetNodeRole { id: id(node), role })),
        1 => (NODES, any::<bool>()).prop_map(|(node, left)| Step::Plain(Command::SetNodeLeft { id: id(node), left })),
        1 => (NODES, "[ab]").prop_map(|(node, hostname)| Step::Plain(Command::DescribeNode {
            id: id(node),
            description: NodeDescription { hostname, ..Default::default() },
            address: ([10, 0, 0, 1], 2377).into(),
        })),
        1 => NODES.prop_map(|node| Step::Plain(Command::RemoveNode { id: id(node) })),
    ]
}

fn service_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (SERVICES, spec()).prop_map(|(service, spec)| Step::Plain(Command::CreateService {
            id: id(service),
            spec,
        })),
        3 => (SERVICES, spec(), any::<bool>()).prop_map(|(service, spec, stale)| Step::UpdateService {
            service,
            spec,
            stale,
        }),
        1 => SERVICES.prop_map(|service| Step::Plain(Command::RemoveService { id: id(service) })),
    ]
}

fn task_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (TASKS, SERVICES, 0..6_u64).prop_map(|(task, service, slot)| create_task(task, service, slot)),
        3 => TASKS.prop_map(|task| Command::AllocateTask { id: id(task) }),
        4 => (TASKS, NODES).prop_map(|(task, node)| Command::AssignTask { id: id(task), node: id(node) }),
        1 => (TASKS, "[ab]").prop_map(|(task, reason)| Command::ExplainTask { id: id(task), reason }),
        2 => (TASKS, desired()).prop_map(|(task, desired)| want(task, desired)),
        2 => (TASKS, end()).prop_map(|(task, end)| finish(task, end)),
        1 => TASKS.prop_map(|task| Command::RemoveTask { id: id(task) }),
    ]
    .prop_map(Step::Plain)
}

fn entries() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = prop_oneof![2 => node_step(), 2 => service_step(), 4 => task_step(), 2 => network_step()];
    let entry =
        prop_oneof![4 => prop::collection::vec(step.clone(), 1), 1 => prop::collection::vec(step, 2..4)];
    prop::collection::vec(entry, 1..80)
}

/// A cluster with something in it, so that most commands find what they speak of.
fn populated() -> Scene {
    let mut scene = Scene::new();
    for node in 0..5 {
        scene.ok(create_node(node, if node == 0 { Role::Manager } else { Role::Worker }));
    }
    scene.ok(create_network(300, "n", &["10.0.0.0/28"]));
    scene.ok(create_service_in(100, "a", &[300]));
    scene.ok(create_service(101, "b"));
    for task in 200..206 {
        scene.all(place_task(task, 100 + task % 2, task as u64 % 6 / 2 + 1, task % 5)).unwrap();
    }
    for task in 206..209 {
        scene.all(vec![create_task(task, 100, task as u64), Command::AllocateTask { id: id(task) }]).unwrap();
    }
    scene
}

fn has_manager(store: &Store) -> bool {
    store.nodes().any(|node| node.is_manager())
}

/// Feeds the entries to two managers, one of which restarts from a snapshot before entry `restart`; notes the kinds
/// of commands that were accepted.
fn run(entries: &[Vec<Step>], restart: usize, accepted: &mut Vec<Kind>) -> Result<(), TestCaseError> {
    let mut here = populated();
    let mut there = decode(&encode(&here.store));
    for (number, entry) in entries.iter().enumerate() {
        let commands: Vec<_> = entry.iter().map(|step| step.command(&here.store)).collect();
        let kinds: Vec<_> = commands.iter().map(discriminant).collect();
        let proposal = Proposal { planned_at: None, commands };
        // Checks the invariants, and that a refusal changes nothing.
        let result = here.apply(&proposal);
        for kind in kinds.into_iter().filter(|_| result.is_ok()) {
            if !accepted.contains(&kind) {
                accepted.push(kind);
            }
        }
        prop_assert!(has_manager(&here.store), "the last manager stays");

        if number == restart {
            there = decode(&encode(&there));
        }
        let at = there.last_at() + Duration::from_secs(1);
        prop_assert_eq!(there.apply(here.index, at, &proposal), result);
        prop_assert_eq!(&there, &here.store);
    }
    prop_assert_eq!(encode(&there), encode(&here.store));
    there.check().unwrap();
    Ok(())
}

/// QRM-01, API-08
#[test]
fn any_sequence_of_commands_keeps_the_invariants_on_every_manager_alike() {
    let config = ProptestConfig {
        cases: 128,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..Default::default()
    };
    let accepted = RefCell::new(Vec::new());
    let result = TestRunner::new(config).run(&(entries(), 0..80_usize), |(entries, restart)| {
        run(&entries, restart, &mut accepted.borrow_mut())
    });
    result.unwrap_or_else(|error| panic!("{error}"));

    let kinds = accepted.into_inner().len();
    assert_eq!(kinds, KINDS, "a kind of command that is never accepted is not tested");
}
