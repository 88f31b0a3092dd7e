//! Networks of a host: ids, subnets, addresses and the file.

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn asked(text: &str) -> SubnetSpec {
    SubnetSpec { subnet: net(text), gateway: None, range: None }
}

fn spec(name: &str, subnets: &[&str]) -> NetworkSpec {
    NetworkSpec {
        name: name.to_owned(),
        subnets: subnets.iter().map(|subnet| asked(subnet)).collect(),
        ..NetworkSpec::default()
    }
}

fn made(networks: &mut LocalNetworks, id: u128, spec: NetworkSpec) -> Result<Vec<IpNet>, String> {
    let taken = vec![(net("172.19.7.0/24"), "of this host".to_owned())];
    networks.create(Id::new(id), spec, Stamp(7), taken).map_err(|error| error.to_string())?;
    Ok(networks.get(Id::new(id)).unwrap().subnets.iter().map(|subnet| subnet.net).collect())
}

#[test]
fn an_id_is_read_as_it_is_written_and_nothing_else_is_one() {
    for id in [Id::new(0), Id::new(1), Id::new(u128::MAX), Id::new(0xabcd << 90)] {
        let text = to_text(id);
        assert_eq!((text.len(), from_text(&text)), (64, Some(id)));
        assert_eq!(from_text(&text.replace('f', "e")), None);
        assert_eq!(from_text(&text[1..]), None);
    }
    assert_eq!(from_text("bridge"), None);
    assert_eq!(from_text(&"é".repeat(32)), None);
}

/// NET-12, NET-14
#[test]
fn subnets_are_the_next_that_nobody_has() {
    let folder = tempfile::tempdir().unwrap();
    let mut networks = LocalNetworks::open(folder.path()).unwrap();
    assert_eq!(made(&mut networks, 1, spec("a", &[])).unwrap(), [net("172.18.0.0/16")]);
    assert_eq!(
        made(&mut networks, 2, spec("b", &[])).unwrap(),
        [net("172.20.0.0/16")],
        "the host has 172.19.7.0/24"
    );
    let six = NetworkSpec { ipv6: true, ..spec("c", &[]) };
    let subnets = made(&mut networks, 0x1122_3344_5566 << 80, six).unwrap();
    assert_eq!(subnets, [net("172.21.0.0/16"), net("fd11:2233:4455::/64")]);
    assert_eq!(made(&mut networks, 4, spec("d", &["10.5.0.0/24"])).unwrap(), [net("10.5.0.0/24")]);

    let overlap =
        |networks: &mut LocalNetworks, subnets: &[&str]| made(networks, 9, spec("x", subnets)).unwrap_err();
    let said =
        "Pool overlaps with other one on this address space: 10.0.0.0/8 with 10.5.0.0/24, of network d";
    assert_eq!(overlap(&mut networks, &["10.0.0.0/8"]), said);
    assert!(overlap(&mut networks, &["172.19.7.128/25"]).ends_with("of this host"));
    assert!(overlap(&mut networks, &["10.6.0.0/24", "10.6.0.0/25"]).ends_with("of the same network"));
    assert!(overlap(&mut networks, &["10.5.0.0/25"]).contains("network d"));
    assert_eq!(made(&mut networks, 9, spec("a", &[])).unwrap_err(), "network with name a already exists");
    // What was refused took nothing.
    assert_eq!(networks.iter().count(), 4);
    networks.remove(Id::new(1)).unwrap();
    assert_eq!(made(&mut networks, 5, spec("e", &[])).unwrap(), [net("172.18.0.0/16")]);
}

#[test]
fn pools_come_to_an_end() {
    let mut taken = Vec::new();
    for _ in 0..14 + 16 - 1 {
        let subnets = decide(Id::new(1), &spec("n", &[]), taken.clone()).unwrap();
        let others = vec![(net("172.19.7.0/24"), String::new())];
        taken.extend(subnets.iter().map(|subnet| (subnet.net, String::new())).chain(others));
    }
    assert!(matches!(decide(Id::new(1), &spec("n", &[]), taken), Err(LocalError::NoSubnet)));
}

/// NET-15
#[test]
fn addresses_go_round_and_those_of_others_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut networks = LocalNetworks::open(folder.path()).unwrap();
    let id = Id::new(1);
    made(&mut networks, 1, spec("n", &["10.5.0.0/29"])).unwrap();
    let mut used = BTreeSet::new();
    let last = |networks: &mut LocalNetworks, used: &BTreeSet<IpAddr>| match networks.choose(id, &[], used) {
        Ok(addresses) => Ok(addresses[0].to_string()),
        Err(error) => Err(error.to_string()),
    };
    for expected in ["10.5.0.2", "10.5.0.3", "10.5.0.4", "10.5.0.5"] {
        let chosen = last(&mut networks, &used).unwrap();
        assert_eq!(chosen, expected);
        used.insert(chosen.parse().unwrap());
    }
    used.remove(&"10.5.0.3".parse().unwrap());
    assert_eq!(last(&mut networks, &used).unwrap(), "10.5.0.6", "one that came free waits for its turn");
    used.insert("10.5.0.6".parse().unwrap());
    assert_eq!(last(&mut networks, &used).unwrap(), "10.5.0.3");
    used.insert("10.5.0.3".parse().unwrap());
    let full = "no available IPv4 addresses on this network's address pools: n";
    assert_eq!(last(&mut networks, &used).unwrap_err(), full);
}

/// NET-12, NET-15
#[test]
fn an_address_that_is_asked_for_is_given_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut networks = LocalNetworks::open(folder.path()).unwrap();
    let range = SubnetSpec { range: Some(net("10.5.1.0/24")), ..asked("10.5.0.0/16") };
    let wanted = NetworkSpec { ipv6: true, subnets: vec![asked("fd00:5::/64"), range], ..spec("n", &[]) };
    made(&mut networks, 1, wanted).unwrap();
    let used = BTreeSet::from(["10.5.1.0".parse().unwrap()]);
    let mut choose = |asked: &[&str]| {
        let asked: Vec<IpAddr> = asked.iter().map(|text| text.parse().unwrap()).collect();
        let chosen = networks.choose(Id::new(1), &asked, &used).map_err(|error| error.to_string())?;
        Ok::<_, String>(chosen.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(choose(&[]).unwrap(), ["10.5.1.1", "fd00:5::2"]);
    assert_eq!(choose(&["10.5.9.9"]).unwrap(), ["10.5.9.9", "fd00:5::3"], "outside the range, in the subnet");
    assert_eq!(choose(&["fd00:5::99", "10.5.9.9"]).unwrap(), ["10.5.9.9", "fd00:5::99"]);
    assert!(choose(&["10.5.1.0"]).unwrap_err().starts_with("Address already in use: 10.5.1.0"));
    for outside in ["10.6.0.1", "10.5.0.1", "10.5.0.0", "10.5.255.255", "fd00:5::1", "fd00:6::1"] {
        assert!(choose(&[outside]).unwrap_err().starts_with("no configured subnet"), "{outside}");
    }
}

#[test]
fn the_file_is_read_again_and_a_newer_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut networks = LocalNetworks::open(folder.path()).unwrap();
    made(&mut networks, 1, NetworkSpec { labels: [("a".into(), "b".into())].into(), ..spec("n", &[]) })
        .unwrap();
    let again = LocalNetworks::open(folder.path()).unwrap();
    assert!(again.iter().eq(networks.iter()));
    let file = folder.path().join("networks.json");
    std::fs::write(&file, r#"{"format": 2, "networks": []}"#).unwrap();
    let error = LocalNetworks::open(folder.path()).unwrap_err().to_string();
    assert!(error.ends_with("has format 2, which is newer than this program's 1"), "{error}");
    std::fs::write(&file, "{").unwrap();
    assert!(LocalNetworks::open(folder.path()).unwrap_err().to_string().ends_with("is damaged"));
}
