//! How services are reached: ports, virtual addresses, names, and what a change of them replaces.

use covey_state::{
    command::{Command, Refusal},
    network::{
        ATTACHMENTS_MAX, BALANCE_LABEL, Balance, DYNAMIC_PORTS, EndpointMode, Exposure, PORTS_MAX, Protocol,
        PublishMode, PublishedPort, STACK_LABEL,
    },
    node::Role,
    service::{ALIASES_MAX, Service, ServiceSpec},
    store::TOLD_BYTES_MAX,
};

use crate::scene::*;

fn service(scene: &Scene, number: u128) -> &Service {
    scene.store.service(id(number)).unwrap()
}

fn exposure(scene: &Scene, number: u128) -> &Exposure {
    &service(scene, number).exposure
}

fn published(scene: &Scene, number: u128) -> Vec<u16> {
    exposure(scene, number).ports.iter().map(|port| port.published).collect()
}

fn port(published: u16, target: u16) -> PublishedPort {
    PublishedPort { published, target, ..Default::default() }
}

fn host_port(published: u16, target: u16) -> PublishedPort {
    PublishedPort { mode: PublishMode::Host, ..port(published, target) }
}

fn at(address: &str, port: PublishedPort) -> PublishedPort {
    PublishedPort { host_ip: Some(address.parse().unwrap()), ..port }
}

fn with_ports(name: &str, ports: &[PublishedPort]) -> ServiceSpec {
    let mut spec = service_spec(name);
    spec.endpoint.ports = ports.to_vec();
    spec
}

fn create(number: u128, spec: ServiceSpec) -> Command {
    Command::CreateService { id: id(number), spec }
}

fn refused(spec: ServiceSpec) -> String {
    Scene::new().refused(create(1, spec)).to_string()
}

/// PRT-02, PRT-03
#[test]
fn ports_that_are_left_open_are_given_from_30000_on() {
    let mut scene = Scene::new();
    scene.ok(create(1, with_ports("one", &[port(0, 80), port(30_001, 81), port(0, 82), host_port(0, 83)])));
    assert_eq!(published(&scene, 1), [30_000, 30_001, 30_002, 0], "a host chooses its own");
    assert_eq!(service(&scene, 1).spec.endpoint.ports[0].published, 0, "what was asked for stays");
    let udp = PublishedPort { protocol: Protocol::Udp, ..port(0, 53) };
    scene.ok(create(2, with_ports("two", &[udp, port(0, 80)])));
    assert_eq!(published(&scene, 2), [30_000, 30_003]);
    scene.ok(Command::RemoveService { id: id(1) });
    scene.ok(create(3, with_ports("three", &[port(0, 80)])));
    assert_eq!(published(&scene, 3), [30_000]);
}

/// PRT-02, PRT-10
#[test]
fn a_given_port_stays_as_long_as_it_is_asked_for() {
    let mut scene = Scene::new();
    scene.ok(create(1, with_ports("web", &[port(0, 80), port(0, 81)])));
    scene.update_service(1, with_ports("web", &[port(8080, 8080), port(0, 81), port(0, 82)])).unwrap();
    assert_eq!(published(&scene, 1), [8080, 30_001, 30_000]);
    scene.update_service(1, with_ports("web", &[port(30_001, 80), port(0, 81)])).unwrap();
    assert_eq!(published(&scene, 1), [30_001, 30_000], "a port that is named goes before");
}

/// PRT-02
#[test]
fn when_all_are_given_the_next_one_is_refused() {
    let mut scene = Scene::new();
    let all: Vec<_> = DYNAMIC_PORTS.map(|number| port(number, 80)).collect();
    for (number, ports) in (1..).zip(all.chunks(PORTS_MAX)) {
        scene.ok(create(number, with_ports(&format!("s{number}"), ports)));
    }
    assert_eq!(
        scene.refused(create(99, with_ports("late", &[port(0, 80)]))).to_string(),
        "no port from 30000 to 32767 is free for target port 80/tcp: name a published port"
    );
}

/// PRT-11
#[test]
fn a_published_port_is_one_services() {
    let mut scene = Scene::new();
    scene.ok(create(1, with_ports("web", &[port(8080, 80), host_port(9090, 80)])));
    let taken = |number: u16, how: &str| {
        Refusal::Invalid(format!("port '{number}' is already in use by service 'web' ({}) as {how}", id(1)))
    };
    let mut try_port = |port| scene.all(vec![create(2, with_ports("other", &[port]))]).err();
    assert_eq!(try_port(port(8080, 81)), Some(taken(8080, "an ingress port")));
    assert_eq!(try_port(host_port(8080, 81)), Some(taken(8080, "an ingress port")));
    assert_eq!(try_port(at("192.0.2.1", port(8080, 81))), Some(taken(8080, "an ingress port")));
    assert_eq!(try_port(port(9090, 81)), Some(taken(9090, "a host-published port")));
    assert_eq!(try_port(host_port(9090, 81)), None, "nodes keep them apart");
    let udp = PublishedPort { protocol: Protocol::Udp, ..port(8080, 81) };
    scene.ok(create(3, with_ports("udp", &[udp])));
    assert!(scene.update_service(3, with_ports("udp", &[port(8080, 81)])).is_err());
    scene.update_service(1, with_ports("web", &[])).unwrap();
    scene.update_service(3, with_ports("udp", &[port(8080, 81)])).unwrap();
}

/// PRT-11
#[test]
fn addresses_of_a_host_have_ports_of_their_own() {
    let mut scene = Scene::new();
    scene.ok(create(1, with_ports("one", &[at("192.0.2.1", port(80, 80)), at("192.0.2.2", port(80, 81))])));
    scene.ok(create(2, with_ports("two", &[at("192.0.2.3", port(80, 80))])));
    assert!(matches!(
        scene.refused(create(3, with_ports("all", &[at("0.0.0.0", port(80, 80))]))),
        Refusal::Invalid(_)
    ));
}

/// PRT-01, PRT-07
#[test]
fn ports_that_cannot_be_are_refused() {
    for twice in
        [[port(80, 80), port(80, 81)], [host_port(80, 80), port(80, 81)], [port(80, 80), port(80, 80)]]
    {
        assert_eq!(
            refused(with_ports("web", &twice)),
            "EndpointSpec: duplicate published ports provided: 80/tcp"
        );
    }
    assert_eq!(
        refused(with_ports("web", &[port(80, 0)])),
        "EndpointSpec: target port 0/tcp is not valid: it must be 1 to 65535"
    );
    let many = |count: usize| (1..=count).map(|n| port(n as u16, 80)).collect::<Vec<_>>();
    assert_eq!(
        refused(with_ports("web", &many(PORTS_MAX + 1))),
        format!("EndpointSpec: a service publishes at most {PORTS_MAX} ports: not {}", PORTS_MAX + 1)
    );
    Scene::new().ok(create(1, with_ports("web", &many(PORTS_MAX))));
    let mut dnsrr = with_ports("web", &[port(80, 80)]);
    dnsrr.endpoint.mode = EndpointMode::Dnsrr;
    assert_eq!(
        refused(dnsrr.clone()),
        "EndpointSpec: port published with ingress mode can't be used with dnsrr mode"
    );
    dnsrr.endpoint.ports = vec![host_port(80, 80)];
    Scene::new().ok(create(1, dnsrr));
    let named = PublishedPort { name: "a b".into(), ..port(80, 80) };
    assert!(refused(with_ports("web", &[named])).starts_with("EndpointSpec: port name \"a b\" is not valid"));
}

fn vips(scene: &Scene, number: u128) -> Vec<String> {
    let vips = &exposure(scene, number).vips;
    vips.iter().flat_map(|vip| vip.addresses.iter().map(ToString::to_string)).collect()
}

/// LB-03
#[test]
fn a_service_has_a_virtual_address_in_each_network_and_keeps_it() {
    let mut scene = Scene::new();
    scene.ok(create_network(2, "one", &["10.5.0.0/24"]));
    scene.ok(create_network(3, "two", &["10.6.0.0/24"]));
    scene.ok(create_service_in(1, "web", &[2]));
    assert_eq!(vips(&scene, 1), ["10.5.0.2"]);
    scene.update_service(1, service_in("web", &[3, 2])).unwrap();
    assert_eq!(vips(&scene, 1), ["10.6.0.2", "10.5.0.2"]);
    scene.update_service(1, service_in("web", &[3])).unwrap();
    assert_eq!(vips(&scene, 1), ["10.6.0.2"]);
    scene.ok(create_node(4, Role::Worker));
    scene.ok(attach_at(5, 2, 4, &["10.5.0.2"]));

    let mut dnsrr = service_in("web", &[3]);
    dnsrr.endpoint.mode = EndpointMode::Dnsrr;
    scene.update_service(1, dnsrr).unwrap();
    assert_eq!(vips(&scene, 1), [""; 0]);
    scene.ok(attach_at(6, 3, 4, &["10.6.0.2"]));
    scene.update_service(1, service_in("web", &[3])).unwrap();
    assert_eq!(vips(&scene, 1), ["10.6.0.3"]);
    scene.ok(Command::RemoveService { id: id(1) });
    scene.ok(attach_at(7, 3, 4, &["10.6.0.3"]));
}

/// LB-03
#[test]
fn a_service_that_gets_no_virtual_address_is_refused_whole() {
    let mut scene = Scene::new();
    scene.ok(create_network(2, "tiny", &["10.5.0.0/30"]));
    scene.ok(create_network(3, "wide", &["10.6.0.0/24"]));
    scene.ok(create_service_in(1, "web", &[2]));
    let refusal = scene.refused(create_service_in(4, "late", &[3, 2])).to_string();
    assert_eq!(refusal, "network tiny has no free address (2 used)");
}

/// NET-18
#[test]
fn networks_of_a_service_exist_once_each() {
    let mut scene = Scene::new();
    scene.ok(create_network(2, "net", &[]));
    assert!(
        matches!(scene.refused(create_service_in(1, "web", &[3])), Refusal::NotFound { kind, .. } if kind == "network")
    );
    assert_eq!(
        scene.refused(create_service_in(1, "web", &[2, 2])).to_string(),
        format!("network {} is named twice", id(2))
    );
    let many: Vec<u128> = (0..=ATTACHMENTS_MAX as u128).collect();
    assert_eq!(
        scene.refused(create_service_in(1, "web", &many)).to_string(),
        "a service has at most 32 networks: not 33"
    );
}

/// NET-33, PRT-08: its ports are the host's own, and it has no address that anything else could be reached at.
#[test]
fn a_service_in_the_network_of_its_hosts_has_no_other_place() {
    let mut scene = Scene::new();
    scene.ok(create_network(2, "net", &[]));
    let mut hosted = service_spec("web");
    hosted.task.host_network = true;
    hosted.endpoint.ports = vec![host_port(8080, 80)];
    let mut both = hosted.clone();
    both.task.networks = service_in("web", &[2]).task.networks;
    assert_eq!(
        scene.refused(create(1, both)).to_string(),
        "the network of the host cannot be used together with other networks"
    );
    let mut ingress = hosted.clone();
    ingress.endpoint.ports.push(port(8081, 81));
    let refusal = scene.refused(create(1, ingress)).to_string();
    assert!(refusal.contains("ingress mode can't be used with the network of the host"), "{refusal}");

    // Tasks change with their place, there and back.
    let place = |scene: &Scene| {
        let service = scene.store.service(id(1)).unwrap();
        (service.edge, service.exposure.vips.len(), service.spec_version == service.version)
    };
    scene.ok(create(1, hosted.clone()));
    assert_eq!(place(&scene), (false, 0, true));
    scene.update_service(1, service_in("web", &[2])).unwrap();
    assert_eq!(place(&scene), (true, 1, true));
    scene.update_service(1, hosted).unwrap();
    assert_eq!(place(&scene), (false, 0, true));
}

fn alias(name: &str, network: u128, aliases: &[&str]) -> ServiceSpec {
    let mut spec = service_in(name, &[network]);
    spec.task.networks[0].aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
    spec
}

/// LB-01
#[test]
fn a_name_means_one_service_in_each_network() {
    let mut scene = Scene::new();
    scene.ok(create_network(2, "net", &[]));
    scene.ok(create_network(3, "other", &[]));
    scene.ok(create(10, alias("web", 2, &["www", "web"])));
    assert_eq!(
        scene.refused(create(11, alias("api", 2, &["Web"]))).to_string(),
        format!("alias 'Web' is the name of service 'web' ({}) in network net: choose another alias", id(10))
    );
    assert_eq!(
        scene.refused(create(11, service_in("www", &[2]))).to_string(),
        format!("name 'www' is an alias of service 'web' ({}) in network net: choose another name", id(10))
    );
    scene.ok(create(11, service_in("www", &[3])));
    assert!(scene.update_service(11, service_in("www", &[3, 2])).is_err());
    scene.ok(create(12, alias("api", 2, &["www"])));
    scene.update_service(10, service_in("web", &[3])).unwrap();
    scene.ok(create(13, alias("four", 2, &["web"])));
    scene.ok(Command::RemoveService { id: id(12) });
    scene.update_service(11, service_in("www", &[3, 2])).unwrap();
}

/// LB-01
#[test]
fn aliases_are_names_and_not_too_many() {
    for bad in ["", "a..b", "-a", "a b", &"a".repeat(64)] {
        assert!(
            refused(alias("web", 2, &[bad]))
                .starts_with(&format!("alias {bad:?} must be valid as a DNS name"))
        );
    }
    let names: Vec<String> = (0..33).map(|number| format!("a{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(refused(alias("web", 2, &names)), "a service has at most 32 aliases in a network: not 33");
}

fn labelled(label: &str, value: &str) -> ServiceSpec {
    let mut spec = service_spec("web");
    spec.labels.insert(label.into(), value.into());
    spec
}

/// LB-02, STK-01
#[test]
fn labels_say_how_it_is_balanced_and_which_stack_it_belongs_to() {
    let mut scene = Scene::new();
    scene.ok(create(1, labelled(BALANCE_LABEL, "source-hash")));
    assert_eq!(exposure(&scene, 1).balance, Balance::SourceHash);
    scene.update_service(1, labelled(STACK_LABEL, "shop")).unwrap();
    assert_eq!((exposure(&scene, 1).balance, exposure(&scene, 1).stack.as_str()), (Balance::Random, "shop"));
    assert_eq!(
        refused(labelled(BALANCE_LABEL, "best")),
        "label covey.balance=best: must be random, round-robin or source-hash"
    );
}

/// LB-04: a task of which nobody can be told would run and not be reached.
#[test]
fn a_service_of_which_too_much_is_to_be_told_is_refused() {
    let (long, count) = ("x".repeat(63), ALIASES_MAX as u16);
    let named = |n: u16| PublishedPort { name: long.clone(), ..port(n, 80) };
    let ports = |count: u16| (1..=count).map(named).collect::<Vec<_>>();
    let mut scene = Scene::new();
    scene.ok(create_network(9, "net", &[]));
    let mut aliased = service_in("web", &[9]);
    aliased.task.networks[0].aliases = (0..count).map(|n| format!("{n:02}{}", "a".repeat(61))).collect();
    scene.ok(create(1, aliased.clone()));
    aliased.endpoint.ports = ports(60);
    aliased.name = "both".into();
    let refusal = scene.refused(create(2, aliased.clone())).to_string();
    assert!(refusal.starts_with("what hosts tell each other of service 'both' ("), "{refusal}");
    assert!(refusal.contains(&format!("has at most {TOLD_BYTES_MAX} bytes: not 6")), "{refusal}");
    aliased.task.networks[0].aliases.clear();
    scene.ok(create(2, aliased.clone()));
    aliased.endpoint.ports = ports(PORTS_MAX as u16);
    assert!(scene.update_service(2, aliased).unwrap_err().to_string().contains("fewer ports"));
    let stack = "s".repeat(TOLD_BYTES_MAX);
    assert!(refused(labelled(STACK_LABEL, &stack)).contains("bytes: not"));
    let mut hosted = service_spec("hosted");
    hosted.task.container.hostname = stack;
    assert!(refused(hosted).contains("bytes: not"));
}

/// PRT-10: hosts tell each other of a change by its version.
#[test]
fn the_version_is_that_of_the_last_change_of_how_it_is_reached() {
    let mut scene = Scene::new();
    scene.ok(create(1, with_ports("web", &[port(0, 80)])));
    let first = exposure(&scene, 1).version;
    assert_eq!(first, service(&scene, 1).version);
    let mut same = with_ports("web", &[port(0, 80)]);
    same.task.container.image = "nginx:2".into();
    scene.update_service(1, same).unwrap();
    assert_eq!(exposure(&scene, 1).version, first);
    scene.update_service(1, with_ports("web", &[])).unwrap();
    assert_eq!(exposure(&scene, 1).version, service(&scene, 1).version);
}

/// PRT-10, NET-25: what a running container cannot follow replaces it, and nothing else does.
#[test]
fn only_ports_of_hosts_and_a_way_out_are_a_matter_of_tasks() {
    let mut scene = Scene::new();
    let mut inner = network_spec("inner", &[]);
    inner.internal = true;
    scene.ok(Command::CreateNetwork { id: id(2), spec: inner });
    scene.ok(create(1, service_in("web", &[2])));
    let mut ports = |ports: &[PublishedPort]| {
        let mut spec = service_in("web", &[2]);
        spec.endpoint.ports = ports.to_vec();
        scene.update_service(1, spec).unwrap();
        let service = service(&scene, 1);
        (service.spec_version == service.version, service.edge)
    };
    assert_eq!(ports(&[port(80, 80)]), (true, true), "the first port is a way out");
    assert_eq!(ports(&[port(80, 80), port(81, 81)]), (false, true));
    assert_eq!(ports(&[port(80, 80), host_port(82, 82)]), (true, true));
    assert_eq!(ports(&[port(0, 80), host_port(82, 82)]), (false, true));
    assert_eq!(ports(&[]), (true, false));
}

/// NET-21, NET-24: a task is what its service was when it was made.
#[test]
fn tasks_have_the_ports_and_the_way_out_that_their_service_had() {
    let mut scene = Scene::new();
    scene.ok(create(1, with_ports("web", &[host_port(80, 80), port(90, 90)])));
    scene.ok(create_task(3, 1, 1));
    scene.update_service(1, service_spec("web")).unwrap();
    let task = scene.store.task(id(3)).unwrap();
    assert_eq!((task.ports.as_slice(), task.edge), ([host_port(80, 80)].as_slice(), true));
}
