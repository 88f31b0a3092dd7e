//! Addresses: one owner each, given in a circle, given back when their owner is over.

use std::{collections::BTreeSet, net::IpAddr};

use covey_state::{
    command::{Command, Refusal},
    event::{Change, Event},
    network::{EndpointMode, NetworkSpec, SubnetSpec},
    node::Role,
    task::TaskState,
};

use crate::scene::*;

/// A node 1 and a network 2 of these subnets.
fn scene(subnets: &[&str]) -> Scene {
    scene_of(network_spec("net", subnets))
}

fn scene_of(spec: NetworkSpec) -> Scene {
    let mut scene = Scene::new();
    scene.ok(create_node(1, Role::Worker));
    scene.ok(Command::CreateNetwork { id: id(2), spec });
    scene
}

/// Attaches a container; its addresses.
fn joined(scene: &mut Scene, number: u128) -> Vec<String> {
    scene.ok(attach(number, 2, 1));
    addresses(scene, number)
}

fn addresses(scene: &Scene, number: u128) -> Vec<String> {
    scene.store.attachment(id(number)).unwrap().addresses.iter().map(ToString::to_string).collect()
}

fn leave(scene: &mut Scene, number: u128) {
    scene.ok(Command::RemoveAttachment { id: id(number) });
}

fn task_addresses(scene: &Scene, number: u128) -> Vec<String> {
    let attachments = &scene.store.task(id(number)).unwrap().attachments;
    attachments.iter().flat_map(|attachment| attachment.addresses.iter().map(ToString::to_string)).collect()
}

/// NET-15: neither the subnet's own address nor its gateway nor its last address is given.
#[test]
fn addresses_are_given_until_none_is_left() {
    let mut scene = scene(&["10.5.0.0/29"]);
    let given: Vec<String> = (10..15).flat_map(|number| joined(&mut scene, number)).collect();
    assert_eq!(given, ["10.5.0.2", "10.5.0.3", "10.5.0.4", "10.5.0.5", "10.5.0.6"]);
    let refusal = scene.refused(attach(15, 2, 1)).to_string();
    assert_eq!(refusal, "network net has no free address (6 used)");
    leave(&mut scene, 12);
    assert_eq!(joined(&mut scene, 15), ["10.5.0.4"]);
}

/// NET-15: who still talks to an address of before reaches nobody else, for as long as can be.
#[test]
fn an_address_is_given_again_as_late_as_can_be_also_after_a_restart() {
    let mut scene = scene(&["10.5.0.0/29"]);
    for (number, address) in [(10, 2), (11, 3), (12, 4), (13, 5), (14, 6), (15, 2)] {
        assert_eq!(joined(&mut scene, number), [format!("10.5.0.{address}")]);
        leave(&mut scene, number);
        scene.store = decode(&encode(&scene.store));
        scene.store.check().unwrap();
    }
}

/// NET-12, NET-15
#[test]
fn addresses_come_from_the_range_and_gateways_may_lie_anywhere() {
    let subnet = SubnetSpec {
        gateway: Some("10.5.0.100".parse().unwrap()),
        range: Some("10.5.1.0/30".parse().unwrap()),
        ..subnet_spec("10.5.0.0/16")
    };
    let mut scene = scene_of(NetworkSpec { subnets: vec![subnet], ..network_spec("net", &[]) });
    let given: Vec<String> = (10..14).flat_map(|number| joined(&mut scene, number)).collect();
    assert_eq!(given, ["10.5.1.0", "10.5.1.1", "10.5.1.2", "10.5.1.3"]);
    assert_eq!(scene.refused(attach(14, 2, 1)).to_string(), "network net has no free address (4 used)");
    scene.ok(attach_at(14, 2, 1, &["10.5.0.7"]));
    assert_eq!(addresses(&scene, 14), ["10.5.0.7"], "who asks may have any of the subnet");
}

/// NET-12, NET-34
#[test]
fn each_family_gives_an_address_and_the_first_subnet_with_one_is_taken() {
    let subnets = ["fd12::/64", "10.5.0.0/30", "10.6.0.0/30"].map(subnet_spec).to_vec();
    let mut scene = scene_of(NetworkSpec { subnets, ipv6: true, ..network_spec("net", &[]) });
    assert_eq!(joined(&mut scene, 10), ["10.5.0.2", "fd12::2"]);
    assert_eq!(joined(&mut scene, 11), ["10.6.0.2", "fd12::3"]);
    assert_eq!(scene.refused(attach(12, 2, 1)).to_string(), "network net has no free address (4 used)");
}

/// CTR-01
#[test]
fn an_address_that_is_asked_for_must_be_free_and_inside() {
    let mut scene = scene(&["10.5.0.0/24"]);
    scene.ok(attach_at(10, 2, 1, &["10.5.0.2"]));
    for taken in ["10.5.0.2", "10.5.0.1", "10.5.0.0", "10.5.0.255"] {
        let refusal = scene.refused(attach_at(11, 2, 1, &[taken])).to_string();
        assert_eq!(
            refusal,
            format!("address {taken} of network net is already in use: ask for another one, or for none")
        );
    }
    for outside in ["10.6.0.2", "fd00::1"] {
        let refusal = scene.refused(attach_at(11, 2, 1, &[outside])).to_string();
        assert!(
            refusal.starts_with(&format!("address {outside} is in no subnet of network net")),
            "{refusal}"
        );
    }
    assert_eq!(joined(&mut scene, 11), ["10.5.0.3"], "what was asked for is not given to another one");
}

/// NET-19, C-30
#[test]
fn plain_containers_join_attachable_networks_only() {
    let mut scene = scene_of(NetworkSpec { attachable: false, ..network_spec("net", &[]) });
    let refusal = scene.refused(attach(10, 2, 1));
    assert!(matches!(&refusal, Refusal::Denied(text) if text.contains("net: it is not manually attachable")));
    assert!(matches!(scene.refused(attach(10, 3, 1)), Refusal::NotFound { kind, .. } if kind == "network"));
    assert!(matches!(scene.refused(attach(10, 2, 3)), Refusal::NotFound { kind, .. } if kind == "node"));
}

#[test]
fn a_node_takes_its_containers_with_it() {
    let mut scene = scene(&["10.5.0.0/30"]);
    scene.ok(attach(10, 2, 1));
    assert_eq!(scene.store.attachments_on_node(id(1)).count(), 1);
    let events = scene.ok(Command::RemoveNode { id: id(1) });
    assert!(events.contains(&Event::Attachment(id(10), Change::Removed)));
    assert_eq!(scene.store.attachments().count(), 0);
    scene.ok(create_node(3, Role::Worker));
    scene.ok(attach(10, 2, 3));
}

/// TSK-07, NET-15
#[test]
fn a_task_has_an_address_of_each_network_from_pending_to_its_end() {
    let mut scene = scene(&["10.5.0.0/29"]);
    scene.ok(create_network(3, "other", &["10.6.0.0/29"]));
    scene.ok(create_service_in(4, "web", &[2, 3]));
    scene.ok(create_task(5, 4, 1));
    assert_eq!(task_addresses(&scene, 5), [""; 0]);
    scene.ok(Command::AllocateTask { id: id(5) });
    assert_eq!(task_addresses(&scene, 5), ["10.5.0.3", "10.6.0.3"], "after the virtual ones");
    scene.ok(Command::AssignTask { id: id(5), node: id(1) });
    assert!(scene.refused(attach_at(10, 2, 1, &["10.5.0.3"])).to_string().contains("already in use"));
    scene.ok(finish(5, TaskState::Failed));
    scene.ok(attach_at(10, 2, 1, &["10.5.0.3"]));
    assert_eq!(task_addresses(&scene, 5), ["10.5.0.3", "10.6.0.3"], "what it had is remembered");
    scene.ok(Command::RemoveTask { id: id(5) });
    assert!(scene.store.check().is_ok(), "what somebody else has by now is not given back");
}

/// NET-15
#[test]
fn a_task_without_an_address_is_not_allocated() {
    let mut scene = scene(&["10.5.0.0/30"]);
    scene.ok(create_service_in(4, "web", &[2]));
    scene.ok(create_task(5, 4, 1));
    let refusal = scene.refused(Command::AllocateTask { id: id(5) }).to_string();
    assert_eq!(refusal, "network net has no free address (2 used)");
    let networks = &scene.store.task(id(5)).unwrap().spec.networks;
    assert_eq!(scene.store.check_room(networks).unwrap_err().to_string(), refusal);
    let mut spec = service_in("web", &[2]);
    spec.endpoint.mode = EndpointMode::Dnsrr;
    scene.update_service(4, spec).unwrap();
    assert!(scene.store.check_room(&scene.store.task(id(5)).unwrap().spec.networks).is_ok());
    scene.ok(Command::AllocateTask { id: id(5) });
    assert_eq!(task_addresses(&scene, 5), ["10.5.0.2"]);
}

/// NET-15: with thousands of addresses in use, in any order.
#[test]
fn many_addresses_are_each_given_once() {
    let mut scene = scene(&["10.5.0.0/20"]);
    let all = |numbers: std::ops::Range<u128>| numbers.map(|number| attach(number, 2, 1)).collect::<Vec<_>>();
    scene.all(all(1000..5000)).unwrap();
    let odd = (1000..5000).filter(|number| number % 2 == 1);
    scene.all(odd.map(|number| Command::RemoveAttachment { id: id(number) }).collect()).unwrap();
    scene.all(all(6000..8093)).unwrap();
    assert_eq!(scene.refused(attach(1, 2, 1)).to_string(), "network net has no free address (4094 used)");
    let given: BTreeSet<IpAddr> =
        scene.store.attachments().flat_map(|attachment| attachment.addresses.clone()).collect();
    assert_eq!(given.len(), 4093);
}

/// NET-15
#[test]
fn an_address_of_each_family_may_be_asked_for() {
    let subnets = ["10.5.0.0/24", "fd05::/64"].map(subnet_spec).to_vec();
    let mut scene = scene_of(NetworkSpec { subnets, ipv6: true, ..network_spec("net", &[]) });
    scene.ok(attach_at(10, 2, 1, &["fd05::77", "10.5.0.7"]));
    assert_eq!(addresses(&scene, 10), ["10.5.0.7", "fd05::77"]);
    let twice = scene.refused(attach_at(11, 2, 1, &["10.5.0.8", "10.5.0.9"])).to_string();
    assert_eq!(twice, "10.5.0.9 is one more address of its family: ask for one");
    let taken = scene.refused(attach_at(11, 2, 1, &["10.5.0.8", "fd05::77"])).to_string();
    assert!(taken.starts_with("address fd05::77 of network net is already in use"), "{taken}");
    scene.ok(attach_at(11, 2, 1, &["10.5.0.8", "fd05::78"]));
    assert_eq!(addresses(&scene, 11), ["10.5.0.8", "fd05::78"], "nothing of what was refused was taken");
}
