//! Networks and ports: tasks wait for addresses and for ports of hosts, and nodes hear how services are reached.

use covey_manager::{Dispatcher, Scope, dispatcher::TASKS_PER_SET_MAX};
use covey_state::{
    Id,
    assignment::AssignmentSet,
    command::{Command, Proposal},
    event::{Change, Event},
    network::{AttachmentSpec, NetworkSpec, PublishMode, PublishedPort, SubnetSpec},
    service::ServiceSpec,
    task::TaskState,
};

use crate::world::{World, service};

const NET: Id = Id::new(77);

pub fn port(published: u16, mode: PublishMode) -> PublishedPort {
    PublishedPort { target: 80, published, mode, ..PublishedPort::default() }
}

fn with_port(name: &str, replicas: u64, published: u16, mode: PublishMode) -> ServiceSpec {
    let mut spec = service(name, "web:1", replicas);
    spec.endpoint.ports = vec![port(published, mode)];
    spec
}

pub fn membership() -> AttachmentSpec {
    AttachmentSpec { network: NET, aliases: Vec::new() }
}

fn in_network(name: &str, replicas: u64) -> ServiceSpec {
    let mut spec = service(name, "web:1", replicas);
    spec.task.networks = vec![membership()];
    spec
}

fn errors(world: &World, service: Id) -> Vec<String> {
    let waits = |task: &TaskState| matches!(task, TaskState::New | TaskState::Pending);
    let tasks = world.tasks(service).into_iter().filter(|task| waits(&task.status.state));
    tasks.map(|task| task.status.error.clone()).collect()
}

/// A network of so small a subnet that beside its gateway five can be in it.
pub fn small_network(world: &mut World) {
    let subnet = "10.5.0.0/29".parse().unwrap();
    let subnets = vec![SubnetSpec { subnet, gateway: None, range: None }];
    let spec = NetworkSpec { name: "small".into(), attachable: true, subnets, ..NetworkSpec::default() };
    world.apply(Command::CreateNetwork { id: NET, spec });
}

/// PRT-08, PRT-09
#[test]
fn a_fixed_port_of_hosts_allows_one_task_per_node() {
    let (mut world, nodes) = World::with_nodes(2);
    let web = world.create(with_port("web", 3, 8080, PublishMode::Host));
    world.settle();
    assert_eq!(world.spread(web, &nodes), [1, 1]);
    assert_eq!(errors(&world, web), ["no suitable node (host-mode port already in use on 2 nodes)"]);

    let other = world.create(with_port("other", 1, 8080, PublishMode::Host));
    let any = world.create(with_port("any", 4, 0, PublishMode::Host));
    world.settle();
    assert_eq!(world.running(other).len(), 0, "whose task it is makes no difference");
    assert_eq!(world.running(any).len(), 4, "the host chooses another port for each");

    world.scale(web, 1);
    world.settle();
    assert_eq!(world.running(other).len(), 1, "the port is free again");
}

/// PRT-08, UPD-01: a task that is stopping still has its port.
#[test]
fn a_port_of_the_host_is_handed_over_when_the_old_task_has_gone() {
    let (mut world, nodes) = World::with_nodes(1);
    world.stop_time = std::time::Duration::from_secs(3);
    let web = world.create(with_port("web", 1, 8080, PublishMode::Host));
    world.settle();
    world.update(web, |spec| spec.endpoint.ports[0].target = 81);
    world.settle();
    assert_eq!(errors(&world, web), ["no suitable node (host-mode port already in use on 1 node)"]);
    world.advance(std::time::Duration::from_secs(4));
    assert_eq!(world.spread(web, &nodes), [1]);
    assert_eq!(world.running(web)[0].ports[0].target, 81);
}

/// PRT-10
#[test]
fn ingress_ports_come_and_go_without_touching_tasks() {
    let (mut world, _) = World::with_nodes(2);
    let web = world.create(with_port("web", 2, 8080, PublishMode::Ingress));
    world.settle();
    let before = world.running(web);
    world.update(web, |spec| spec.endpoint.ports.push(port(9090, PublishMode::Ingress)));
    world.settle();
    let after = world.running(web);
    assert!(after.iter().map(|task| task.id).eq(before.iter().map(|task| task.id)));
}

/// NET-25: a way out is an interface, which a running container cannot get.
#[test]
fn the_first_published_port_of_an_internal_service_replaces_its_tasks() {
    let (mut world, _) = World::with_nodes(1);
    let spec = NetworkSpec { name: "inner".into(), internal: true, ..NetworkSpec::default() };
    world.apply(Command::CreateNetwork { id: NET, spec });
    let web = world.create(in_network("web", 1));
    world.settle();
    let before = world.running(web)[0].clone();
    assert!(!before.edge);
    world.update(web, |spec| spec.endpoint.ports = vec![port(8080, PublishMode::Ingress)]);
    world.settle();
    let after = world.running(web)[0].clone();
    assert!(after.edge && after.id != before.id);
    world.update(web, |spec| spec.endpoint.ports.push(port(8081, PublishMode::Ingress)));
    world.settle();
    assert_eq!(world.running(web)[0].id, after.id, "it has its way out already");
}

/// NET-15
#[test]
fn tasks_without_an_address_wait_and_say_so_until_one_is_free() {
    let (mut world, nodes) = World::with_nodes(1);
    small_network(&mut world);
    let join = |id| Command::CreateAttachment {
        id: Id::new(id),
        network: NET,
        node: nodes[0],
        container: "plain".into(),
        addresses: Vec::new(),
    };
    world.apply(join(1));
    // One virtual address, and three tasks.
    let web = world.create(in_network("web", 5));
    world.settle();
    assert_eq!(world.running(web).len(), 3);
    assert_eq!(errors(&world, web), ["network small has no free address (6 used)"; 2]);

    world.apply(Command::RemoveAttachment { id: Id::new(1) });
    world.settle();
    assert_eq!(world.running(web).len(), 4);
    world.update(web, |spec| spec.endpoint.mode = covey_state::network::EndpointMode::Dnsrr);
    world.settle();
    assert_eq!((world.running(web).len(), errors(&world, web).len()), (5, 0));
}

/// A leader that waits for addresses is woken by an address, and by nothing that a network alone does.
#[test]
fn a_free_address_is_worth_a_plan_and_a_network_is_not() {
    let id = Id::new(1);
    assert!(Scope::from_events(&[Event::Network(id, Change::Created)]).is_empty());
    assert!(Scope::from_events(&[Event::Attachment(id, Change::Created)]).is_empty());
    assert!(!Scope::from_events(&[Event::Attachment(id, Change::Removed)]).is_empty());
}

/// PRT-10, LB-02: hosts with a task of a service tell all others how it is reached.
#[test]
fn nodes_with_tasks_of_a_service_hear_that_it_is_reached_another_way() {
    let (mut world, nodes) = World::with_nodes(2);
    let web = world.create(service("web", "web:1", 1));
    world.settle();
    let node = world.running(web)[0].node.unwrap();
    let mut dispatcher = Dispatcher::new(5);
    for node in nodes {
        dispatcher.handle_connected(&world.store, node);
    }
    let mut change = |change: &dyn Fn(&mut ServiceSpec)| {
        let known = world.service(web);
        let (version, mut spec) = (known.version, known.spec.clone());
        change(&mut spec);
        let update = Command::UpdateService { id: web, version, spec };
        let proposal = Proposal { planned_at: None, commands: vec![update] };
        let index = world.store.last_changed() + 1;
        let events = world.store.apply(index, world.now, &proposal).unwrap();
        (index, dispatcher.handle_changes(&world.store, &events))
    };
    let (index, outputs) = change(&|spec| spec.endpoint.ports = vec![port(8080, PublishMode::Ingress)]);
    let [output] = &outputs[..] else { panic!("{outputs:?}") };
    let AssignmentSet::Changes { update, .. } = &output.set else { panic!("{output:?}") };
    assert_eq!((output.node, update.len(), update[0].exposure.version), (node, 1, index));
    assert_eq!(update[0].exposure.ports[0].published, 8080);
    assert_eq!(change(&|spec| spec.labels = [("a".into(), "b".into())].into()).1, []);
}

#[test]
fn a_node_with_many_tasks_is_told_of_them_in_several_sets() {
    let (mut world, nodes) = World::with_nodes(1);
    let web = world.create(service("web", "web:1", 200));
    world.settle();
    world.update(web, |spec| spec.update.parallelism = 0);
    world.update(web, |spec| spec.task.container.env = vec!["A=1".into()]);
    world.settle();
    let known: Vec<Id> = world.store.tasks_on_node(nodes[0]).map(|task| task.id).collect();
    assert!(known.len() > TASKS_PER_SET_MAX, "history included");
    let outputs = Dispatcher::new(5).handle_connected(&world.store, nodes[0]);
    let AssignmentSet::Full { tasks, later, generation } = &outputs[0].set else { panic!() };
    let mut told: Vec<Id> = tasks.iter().map(|task| task.task).collect();
    assert_eq!((tasks.len(), later.len()), (TASKS_PER_SET_MAX, known.len() - TASKS_PER_SET_MAX));
    let mut last = *generation;
    for output in &outputs[1..] {
        let AssignmentSet::Changes { base, generation, update, remove } = &output.set else { panic!() };
        assert!(*base == last && remove.is_empty());
        last = *generation;
        told.extend(update.iter().map(|task| task.task));
    }
    assert_eq!(told, known);
}

#[test]
fn large_specs_make_small_sets() {
    let (mut world, nodes) = World::with_nodes(1);
    let mut large = service("web", "web:1", 12);
    large.task.container.env = vec![format!("A={}", "x".repeat(1 << 20))];
    world.create(large);
    world.settle();
    let outputs = Dispatcher::new(5).handle_connected(&world.store, nodes[0]);
    assert_eq!(outputs.len(), 4, "three of them fit into four megabytes");
}
