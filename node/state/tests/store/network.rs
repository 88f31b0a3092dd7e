//! Networks: names, subnets, VXLAN ids, and who keeps them from being removed.

use covey_state::{
    cluster::{ClusterSpec, EdgePool, NetworkPool},
    command::{Command, Refusal},
    event::{Change, Event},
    network::{Network, NetworkSpec, SUBNETS_MAX, SubnetSpec},
    node::Role,
    task::{DesiredState, TaskState},
};

use crate::scene::*;

fn network(scene: &Scene, number: u128) -> &Network {
    scene.store.network(id(number)).unwrap()
}

fn nets(scene: &Scene, number: u128) -> Vec<String> {
    network(scene, number).subnets.iter().map(|subnet| subnet.net.to_string()).collect()
}

fn vnis(scene: &Scene, number: u128) -> Vec<u32> {
    network(scene, number).subnets.iter().filter_map(|subnet| subnet.vni).collect()
}

/// Creates a network that must be refused, and says why it was.
fn refused(scene: &mut Scene, spec: NetworkSpec) -> String {
    scene.refused(Command::CreateNetwork { id: id(99), spec }).to_string()
}

fn refused_subnet(subnet: SubnetSpec) -> String {
    let ipv6 = subnet.subnet.addr().is_ipv6();
    let spec = NetworkSpec { subnets: vec![subnet], ipv6, ..network_spec("new", &[]) };
    refused(&mut Scene::new(), spec)
}

/// NET-10, NET-13
#[test]
fn a_network_gets_a_subnet_from_the_pool_and_a_vxlan_id() {
    let mut scene = Scene::new();
    let events = scene.ok(create_network(1, "one", &[]));
    assert_eq!(events, [Event::Network(id(1), Change::Created)]);
    scene.ok(create_network(2, "two", &[]));
    assert_eq!((nets(&scene, 1), vnis(&scene, 1)), (vec!["10.0.0.0/24".to_owned()], vec![4097]));
    assert_eq!((nets(&scene, 2), vnis(&scene, 2)), (vec!["10.0.1.0/24".to_owned()], vec![4098]));
    assert_eq!(network(&scene, 2).subnets[0].gateway.to_string(), "10.0.1.1");
    assert_eq!(scene.store.network_by_name("two").unwrap().id, id(2));
}

/// NET-12, NET-13, E13
#[test]
fn several_subnets_have_a_gateway_a_range_and_a_vxlan_id_each() {
    let mut scene = Scene::new();
    let subnet = |subnet: &str, gateway: &str, range: Option<&str>| SubnetSpec {
        gateway: Some(gateway.parse().unwrap()),
        range: range.map(|range| range.parse().unwrap()),
        ..subnet_spec(subnet)
    };
    let first = subnet("192.168.0.0/16", "192.168.0.100", Some("192.168.1.0/24"));
    let second = subnet("192.170.0.0/16", "192.170.0.100", None);
    let spec = NetworkSpec { subnets: vec![first, second], ..network_spec("mysql-network", &[]) };
    scene.ok(Command::CreateNetwork { id: id(1), spec });
    let subnets = &network(&scene, 1).subnets;
    assert_eq!(vnis(&scene, 1), [4097, 4098]);
    for (has, asked) in subnets.iter().zip([first, second]) {
        assert_eq!((has.net, Some(has.gateway), has.range), (asked.subnet, asked.gateway, asked.range));
    }
}

/// NET-34
#[test]
fn ipv6_is_there_where_it_is_asked_for() {
    let mut scene = Scene::new();
    let spec = NetworkSpec { ipv6: true, ..network_spec("both", &[]) };
    scene.ok(Command::CreateNetwork { id: id(1), spec });
    assert_eq!(nets(&scene, 1), ["10.0.0.0/24", "fd00:c0e8::/64"]);
    let spec = NetworkSpec { ipv6: true, ..network_spec("own", &["fd12::/64"]) };
    scene.ok(Command::CreateNetwork { id: id(2), spec });
    assert_eq!(nets(&scene, 2), ["10.0.1.0/24", "fd12::/64"], "IPv4 is always there, and first");
    let refusal = refused(&mut scene, network_spec("without", &["fd13::/64"]));
    assert_eq!(refusal, "subnet fd13::/64 is one of IPv6, which the network has not: create it with --ipv6");
}

/// NET-10
#[test]
fn names_are_checked_and_unique() {
    let mut scene = Scene::new();
    scene.ok(create_network(1, "my_net-1.a", &[]));
    let refusal = scene.refused(create_network(2, "my_net-1.a", &[])).to_string();
    assert_eq!(refusal, "name conflicts with an existing object: network my_net-1.a already exists");
    for name in ["", "-a", ".a", "a b", "ä", &"a".repeat(64)] {
        let refusal = refused(&mut scene, network_spec(name, &[]));
        assert!(refusal.starts_with(&format!("network name {name:?} is not valid")), "{refusal}");
    }
    for name in ["ingress", "bridge", "default", "host", "none", "docker_gwbridge"] {
        let refusal = scene.refused(create_network(2, name, &[]));
        assert!(matches!(&refusal, Refusal::Denied(text) if text.contains(name)), "{refusal}");
    }
    scene.ok(Command::RemoveNetwork { id: id(1) });
    scene.ok(create_network(2, "my_net-1.a", &[]));
}

/// NET-14, C-29: the sentences name both sides.
#[test]
fn subnets_do_not_overlap() {
    let mut scene = Scene::new();
    scene.ok(create_network(1, "one", &["10.7.0.0/16"]));
    assert_eq!(
        refused(&mut scene, network_spec("two", &["10.7.3.0/24"])),
        "subnet 10.7.3.0/24 overlaps with subnet 10.7.0.0/16 of network one: choose another one"
    );
    assert_eq!(
        refused(&mut scene, network_spec("two", &["10.8.0.0/16", "10.8.9.0/24"])),
        "subnet 10.8.9.0/24 overlaps with subnet 10.8.0.0/16 of the same network"
    );
    let edge = refused(&mut scene, network_spec("two", &["100.64.5.0/24"]));
    assert!(
        edge.starts_with("subnet 100.64.5.0/24 overlaps with 100.64.0.0/10, the pool of the edge"),
        "{edge}"
    );
    scene.ok(create_network(2, "two", &["10.8.0.0/16"]));
    scene.ok(Command::RemoveNetwork { id: id(1) });
    scene.ok(create_network(1, "one", &["10.7.3.0/24"]));
}

/// NET-16: the node of this scene has the address 10.0.0.1.
#[test]
fn a_subnet_may_overlap_with_the_networks_of_the_hosts() {
    let mut scene = Scene::new();
    scene.ok(create_node(1, Role::Worker));
    scene.ok(create_network(2, "web", &["10.0.0.0/24"]));
}

/// NET-12
#[test]
fn subnets_that_cannot_be_are_refused() {
    let with = |subnet: &str, gateway: Option<&str>, range: Option<&str>| SubnetSpec {
        subnet: subnet.parse().unwrap(),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        range: range.map(|range| range.parse().unwrap()),
    };
    for subnet in ["10.1.0.0/31", "10.1.0.1/32", "fd00::/127", "fd00::1/128"] {
        let refusal = refused_subnet(with(subnet, None, None));
        assert!(refusal.starts_with(&format!("subnet {subnet} is too small")), "{refusal}");
    }
    assert_eq!(
        refused_subnet(with("10.1.0.5/24", None, None)),
        "invalid subnet 10.1.0.5/24: it should be 10.1.0.0/24"
    );
    for gateway in ["10.2.0.1", "10.1.0.0", "10.1.0.255", "fd00::1"] {
        let refusal = refused_subnet(with("10.1.0.0/24", Some(gateway), None));
        assert!(refusal.starts_with(&format!("gateway {gateway} is not")), "{refusal}");
    }
    assert!(refused_subnet(with("fd00::/64", Some("fd00::"), None)).starts_with("gateway fd00:: is not"));
    for range in ["10.2.0.0/25", "10.0.0.0/8", "fd00::/64"] {
        assert_eq!(
            refused_subnet(with("10.1.0.0/24", None, Some(range))),
            format!("ip-range {range} is not inside subnet 10.1.0.0/24")
        );
    }
    assert_eq!(
        refused_subnet(with("10.1.0.0/24", None, Some("10.1.0.9/25"))),
        "invalid ip-range 10.1.0.9/25: it should be 10.1.0.0/25"
    );
    for subnet in
        ["0.0.0.0/0", "127.5.0.0/16", "224.1.0.0/16", "169.254.7.0/24", "::/0", "fe80::/64", "ff02::/16"]
    {
        let refusal = refused_subnet(with(subnet, None, None));
        assert!(refusal.starts_with(&format!("subnet {subnet} overlaps with ")), "{refusal}");
    }
}

#[test]
fn a_network_has_a_bounded_number_of_subnets() {
    let subnets = |count: usize| (0..count).map(|n| subnet_spec(&format!("10.1.{n}.0/24"))).collect();
    let spec = |count| NetworkSpec { subnets: subnets(count), ..network_spec("many", &[]) };
    let mut scene = Scene::new();
    assert_eq!(refused(&mut scene, spec(SUBNETS_MAX + 1)), "a network has at most 16 subnets: not 17");
    scene.ok(Command::CreateNetwork { id: id(1), spec: spec(SUBNETS_MAX) });
}

/// NET-13: 4096 is the edge.
#[test]
fn vxlan_ids_of_ones_own_are_checked() {
    let mut scene = Scene::new();
    let spec = |vnis: &[u32]| NetworkSpec { vnis: vnis.to_vec(), ..network_spec("own", &[]) };
    for vni in [0, 4096, 1 << 24] {
        assert_eq!(
            refused(&mut scene, spec(&[vni])),
            format!("VXLAN id {vni} is not valid: it must be 4097 to 16777215")
        );
    }
    assert_eq!(
        refused(&mut scene, spec(&[5000, 5001])),
        "each subnet has a VXLAN id of its own: name 1 of them, not 2"
    );
    let twice = NetworkSpec { ipv6: true, ..spec(&[5000, 5000]) };
    assert_eq!(refused(&mut scene, twice), "VXLAN id 5000 is named twice");
    let mixed = network_spec("mixed", &["fd00:1::/64", "192.168.0.0/24", "fd00:2::/64"]);
    let mixed = NetworkSpec { ipv6: true, vnis: vec![5006, 5004, 5007], ..mixed };
    scene.ok(Command::CreateNetwork { id: id(9), spec: mixed });
    assert_eq!(nets(&scene, 9), ["192.168.0.0/24", "fd00:1::/64", "fd00:2::/64"]);
    assert_eq!(vnis(&scene, 9), [5004, 5006, 5007], "each with the one in its place");
    scene.ok(Command::CreateNetwork { id: id(1), spec: spec(&[16_777_215]) });
    assert_eq!(
        refused(&mut scene, NetworkSpec { name: "other".into(), ..spec(&[16_777_215]) }),
        "VXLAN id 16777215 is already in use by network own: choose another one, or none"
    );
}

/// A host that has not heard yet that a network is gone must not take another one for it.
#[test]
fn vxlan_ids_are_used_again_as_late_as_can_be() {
    let mut scene = Scene::new();
    let own = NetworkSpec { vnis: vec![4098], ..network_spec("own", &[]) };
    scene.ok(Command::CreateNetwork { id: id(1), spec: own });
    scene.ok(create_network(2, "two", &[]));
    scene.ok(create_network(3, "three", &[]));
    assert_eq!((vnis(&scene, 2), vnis(&scene, 3)), (vec![4097], vec![4099]));
    scene.ok(Command::RemoveNetwork { id: id(3) });
    scene.store = decode(&encode(&scene.store));
    scene.ok(create_network(4, "four", &[]));
    assert_eq!(vnis(&scene, 4), [4100]);
}

#[test]
fn packets_have_a_least_and_a_largest_size() {
    let mut scene = Scene::new();
    let spec = |mtu, ipv6| NetworkSpec { mtu: Some(mtu), ipv6, ..network_spec("sized", &[]) };
    for (mtu, ipv6, least) in [(67, false, 68), (65_536, false, 68), (1279, true, 1280)] {
        assert_eq!(
            refused(&mut scene, spec(mtu, ipv6)),
            format!("mtu {mtu} is not valid: it must be {least} to 65535")
        );
    }
    scene.ok(Command::CreateNetwork { id: id(1), spec: spec(68, false) });
}

/// NET-30: what was asked to be secret is not sent in plain.
#[test]
fn encryption_is_refused_until_it_is_real() {
    let options = [("encrypted".to_owned(), String::new())].into();
    let refusal = refused(&mut Scene::new(), NetworkSpec { options, ..network_spec("secret", &[]) });
    assert!(refusal.contains("secret cannot be encrypted"), "{refusal}");
}

fn with_pool(pools: &[&str], v4_subnet: u8) -> ClusterSpec {
    let v4 = pools.iter().map(|pool| pool.parse().unwrap()).collect();
    ClusterSpec { networks: NetworkPool { v4, v4_subnet, ..NetworkPool::default() }, ..Default::default() }
}

/// NET-15
#[test]
fn a_used_up_pool_says_so_and_every_part_of_it_is_used() {
    let mut scene = Scene::with(with_pool(&["10.9.0.0/23", "172.20.0.0/24"], 24));
    scene.ok(create_network(1, "middle", &["10.9.0.128/25"]));
    for (number, subnet) in [(2, "10.9.1.0/24"), (3, "172.20.0.0/24")] {
        scene.ok(create_network(number, &format!("n{number}"), &[]));
        assert_eq!(nets(&scene, number), [subnet]);
    }
    assert_eq!(
        refused(&mut scene, network_spec("late", &[])),
        "the address pools of the cluster (10.9.0.0/23, 172.20.0.0/24) have no free subnet of /24: name one with --subnet"
    );
    scene.ok(Command::RemoveNetwork { id: id(1) });
    scene.ok(create_network(4, "again", &[]));
    assert_eq!(nets(&scene, 4), ["10.9.0.0/24"]);
}

#[test]
fn pools_that_cannot_be_used_are_refused() {
    let refused = |spec| Scene::default().refused(create_cluster(spec)).to_string();
    assert_eq!(refused(with_pool(&[], 24)), "a cluster has 1 to 16 address pools for networks: not 0");
    for subnet in [15, 30] {
        assert_eq!(
            refused(with_pool(&["10.0.0.0/16"], subnet)),
            format!("subnets of the address pool 10.0.0.0/16 must be /16 to /29: not /{subnet}")
        );
    }
    let overlap = "overlaps with 10.0.0.0/8, another pool of networks or the one of the edge";
    assert!(refused(with_pool(&["10.0.0.0/8", "10.1.0.0/16"], 24)).contains(overlap));
    let edge = EdgePool { v4: "10.0.0.0/8".parse().unwrap(), ..EdgePool::default() };
    assert!(refused(ClusterSpec { edge, ..with_pool(&["10.1.0.0/16"], 24) }).contains(overlap));
    let v6 = |v6: &str| NetworkPool { v6: v6.parse().unwrap(), ..NetworkPool::default() };
    for (pool, part) in [("fd00::/65", "must not be longer than /64"), ("fd00::/8", "overlaps with")] {
        let refusal = refused(ClusterSpec { networks: v6(pool), ..Default::default() });
        assert!(refusal.contains(part), "{refusal}");
    }
    for data_path_port in [0, 1023, 49_152] {
        let refusal = refused(ClusterSpec { data_path_port, ..Default::default() });
        assert_eq!(
            refusal,
            format!("data path port {data_path_port} is not valid: it must be 1024 to 49151")
        );
    }
}

#[test]
fn pools_and_the_port_of_the_data_path_are_fixed() {
    let mut scene = Scene::new();
    let version = scene.store.cluster().unwrap().version;
    let specs =
        [with_pool(&["172.16.0.0/12"], 24), ClusterSpec { data_path_port: 4790, ..Default::default() }];
    for spec in specs {
        let refusal = scene.refused(Command::UpdateCluster { version, spec }).to_string();
        assert!(refusal.ends_with("fixed when the cluster is created"), "{refusal}");
    }
}

fn remove(scene: &mut Scene) -> String {
    scene.refused(Command::RemoveNetwork { id: id(1) }).to_string()
}

/// NET-32
#[test]
fn a_network_in_use_says_who_uses_it() {
    let mut scene = Scene::new();
    scene.ok(create_network(1, "web", &[]));
    scene.ok(create_node(2, Role::Worker));
    scene.ok(create_service_in(3, "one", &[1]));
    scene.all(place_task(4, 3, 1, 2)).unwrap();
    assert_eq!(remove(&mut scene), format!("network {} is in use by service {}", id(1), id(3)));
    scene.ok(Command::RemoveService { id: id(3) });
    assert_eq!(remove(&mut scene), format!("network {} is in use by task {}", id(1), id(4)));
    scene.ok(finish(4, TaskState::Shutdown));
    scene.ok(attach(5, 1, 2));
    assert_eq!(
        remove(&mut scene),
        format!("network {} is in use by container plain5 on node {}", id(1), id(2))
    );
    scene.ok(Command::RemoveAttachment { id: id(5) });
    let events = scene.ok(Command::RemoveNetwork { id: id(1) });
    assert_eq!(events, [Event::Network(id(1), Change::Removed)]);
    assert!(matches!(scene.refused(Command::RemoveNetwork { id: id(1) }), Refusal::NotFound { .. }));
}

/// NET-32: a service that balances by names has no address there, and uses it all the same.
#[test]
fn a_task_that_has_no_address_yet_uses_its_network() {
    let mut scene = Scene::new();
    scene.ok(create_network(1, "web", &[]));
    scene.ok(create_service_in(3, "one", &[1]));
    scene.ok(create_task(4, 3, 1));
    scene.update_service(3, service_spec("one")).unwrap();
    assert!(remove(&mut scene).ends_with(&format!("in use by task {}", id(4))));
    scene.ok(want(4, DesiredState::Shutdown));
    scene.ok(finish(4, TaskState::Shutdown));
    scene.ok(Command::RemoveNetwork { id: id(1) });
}

#[test]
fn a_network_is_found_by_id_name_and_beginning() {
    let mut scene = Scene::new();
    scene.ok(create_network(1, "web", &[]));
    let text = id(1).to_string();
    for text in [&text[..], "web", &text[..10]] {
        assert_eq!(scene.store.find_network(text).unwrap().id, id(1));
    }
    assert_eq!(scene.store.find_network("none").unwrap_err().to_string(), "network none not found");
}
