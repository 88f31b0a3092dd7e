//! What is told of refused ports, and what it says of services.

use std::{collections::BTreeMap, net::Ipv4Addr};

use covey_mesh::Protocol as MeshProtocol;
use covey_state::{
    cluster::{Authority, ClusterSpec, JoinSecrets},
    command::{Command, Proposal},
    container::{Amount, ContainerSpec},
    network::{EndpointSpec, PublishMode},
    node::{Availability, NodeDescription, NodeSpec, Role},
    service::{Mode, Platform, ServiceSpec, TaskSpec, UpdateConfig},
    time::Stamp,
};

use super::*;

fn host(number: u8) -> Id {
    Id::new(u128::from(number))
}

/// A cluster of hosts `w1` and on, with these services, which have the ids 100 and on.
fn cluster(hosts: u8, services: &[Vec<PublishedPort>]) -> Store {
    let join = JoinSecrets { worker: "w".into(), manager: "m".into() };
    let authority = Authority { certificate: String::new(), key: String::new() };
    let mut commands =
        vec![Command::CreateCluster { id: Id::new(99), spec: ClusterSpec::default(), authority, join }];
    commands.extend((1..=hosts).map(|number| Command::CreateNode {
        id: host(number),
        spec: NodeSpec {
            name: String::new(),
            labels: BTreeMap::new(),
            role: if number == 1 { Role::Manager } else { Role::Worker },
            availability: Availability::Active,
        },
        description: NodeDescription {
            hostname: format!("w{number}"),
            platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
            resources: Amount { nano_cpus: 1, memory: 1 },
            engine_version: String::new(),
            engine_labels: BTreeMap::new(),
            data_path: None,
        },
        address: ([10, 0, 0, number], 2377).into(),
        public_key: [0; 32],
    }));
    commands.extend((100..).zip(services).map(|(id, ports)| {
        let container = ContainerSpec { image: "web".into(), ..ContainerSpec::default() };
        Command::CreateService {
            id: Id::new(id),
            spec: ServiceSpec {
                name: format!("s{id}"),
                task: TaskSpec { container, ..TaskSpec::default() },
                endpoint: EndpointSpec { ports: ports.clone(), ..EndpointSpec::default() },
                labels: BTreeMap::new(),
                mode: Mode::Replicated { replicas: 1 },
                update: UpdateConfig::default(),
                rollback: UpdateConfig::default(),
            },
        }
    }));
    let mut store = Store::default();
    store.apply(1, Stamp(1), &Proposal { planned_at: None, commands }).unwrap();
    store
}

fn port(published: u16) -> PublishedPort {
    PublishedPort { target: 80, published, ..PublishedPort::default() }
}

fn refused(published: u16, cause: Cause) -> RefusedPort {
    RefusedPort { published: Published::of_port(&port(published)), cause }
}

fn said(store: &Store, told: &[(Id, Vec<RefusedPort>)]) -> BTreeMap<Id, Vec<String>> {
    sentences(store, told.iter().map(|(host, ports)| (*host, ports.as_slice())))
}

/// PRT-05, PRT-11
#[test]
fn a_service_is_told_of_by_the_hosts_where_its_ports_do_not_answer() {
    let own = PublishedPort { mode: PublishMode::Host, ..port(9090) };
    let store = cluster(7, &[vec![port(8080), port(8081)], vec![port(8082)], vec![own]]);
    let process = |published| refused(published, Cause::Process);
    assert_eq!(said(&store, &[]), BTreeMap::new());
    let told = [
        (host(2), vec![process(8080), refused(8081, Cause::Container("0123456789ab".into()))]),
        (host(3), vec![process(8080), refused(8082, Cause::kernel("no such luck")), process(9090)]),
        (Id::new(77), vec![process(8080)]),
    ];
    let expected = BTreeMap::from([
        (
            Id::new(100),
            vec![
                "port 8080/tcp is held on w2 and w3 by another process".to_owned(),
                "port 8081/tcp is held on w2 by container 0123456789ab".to_owned(),
            ],
        ),
        (Id::new(101), vec!["port 8082/tcp cannot be held on w3: no such luck".to_owned()]),
    ]);
    assert_eq!(
        said(&store, &told),
        expected,
        "of a host that is none, and of ports of a host's own, nothing"
    );

    let all: Vec<_> = (2..=7).map(|number| (host(number), vec![process(8080)])).collect();
    let told = &said(&store, &all)[&Id::new(100)];
    assert_eq!(told, &["port 8080/tcp is held on w2, w3, w4 and 3 more by another process"]);
}

/// PRT-11
#[test]
fn a_service_of_many_ports_is_told_of_in_few_sentences() {
    let ports: Vec<_> = (0..40).map(|number| port(8000 + number)).collect();
    let store = cluster(1, std::slice::from_ref(&ports));
    let told = ports.iter().map(|port| refused(port.published, Cause::Process)).collect();
    let said = &said(&store, &[(host(1), told)])[&Id::new(100)];
    assert_eq!((said.len(), said.last().unwrap().as_str()), (9, "32 more ports do not answer on some hosts"));
}

/// PRT-11
#[test]
fn a_port_is_one_for_both_families_and_another_for_each_address() {
    let of = |address: IpAddr| {
        Published::of_frontend(&Frontend::Port { address, protocol: MeshProtocol::Tcp, port: 8080 }).unwrap()
    };
    let everywhere = Published::of_port(&port(8080));
    assert_eq!(of(Ipv4Addr::UNSPECIFIED.into()), everywhere);
    assert_eq!(of(std::net::Ipv6Addr::UNSPECIFIED.into()), everywhere);
    let address = IpAddr::from([192, 0, 2, 1]);
    let one = Published::of_port(&PublishedPort { host_ip: Some(address), ..port(8080) });
    assert_eq!(of(address), one);
    assert_ne!(one, everywhere);
    assert_eq!(Published::of_frontend(&Frontend::Address(address)), None);
}

#[test]
fn all_that_a_host_may_tell_fits_in_a_row() {
    let port = |number| RefusedPort {
        published: Published { number, protocol: Protocol::Sctp, host_ip: Some(IpAddr::from([0xff; 16])) },
        cause: Cause::kernel("é".repeat(WORDS_BYTES_MAX)),
    };
    let ports: Vec<_> = (0..REFUSED_MAX).map(|n| port(u16::MAX - u16::try_from(n).unwrap())).collect();
    let bytes = covey_wire::encode(&ports).unwrap();
    assert!(bytes.len() <= REFUSED_BYTES_MAX, "{} bytes", bytes.len());
    assert_eq!(covey_wire::decode::<Vec<RefusedPort>, REFUSED_BYTES_MAX>(&bytes).unwrap(), ports);
}
