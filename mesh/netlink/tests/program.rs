//! Programs in a real kernel, in namespaces of their own: written, read back, mended, removed.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces, run ip and nft, and wait")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in what it is built of as well")]

mod lab;

use covey_mesh::{
    Backend, Balance, Edge, Frontend, Host, Member, Network, Place, Program, Protocol, Virtual,
    object::{Change, Family, Form, Step, Tables, Type, Value},
    observed, plan,
};
use lab::{Lab, repair};

fn net(block: &str) -> ipnet::IpNet {
    block.parse().unwrap()
}

fn host() -> Host {
    Host {
        blocks: [net("100.64.1.0/24"), net("fd00:c0:0:1::/64")].into(),
        inside: "cv".to_owned(),
        bridged: [].into(),
        edge: Some(Edge {
            device: "cvx4096".to_owned(),
            local: [10, 90, 0, 1].into(),
            port: 4789,
            networks: [4096, 4097].into(),
            members: [
                Member {
                    address: [10, 90, 0, 2].into(),
                    others: ["fd90::2", "198.51.100.2"].map(|other| other.parse().unwrap()).into(),
                    blocks: [net("100.64.2.0/24"), net("fd00:c0:0:2::/64")].into(),
                },
                Member {
                    address: "fd90::3".parse().unwrap(),
                    others: [].into(),
                    blocks: [net("100.64.3.0/24"), net("fd00:c0:0:3::/64")].into(),
                },
            ]
            .into(),
        }),
    }
}

fn backends(of: &[&str], port: Option<u16>) -> Vec<Backend> {
    of.iter().map(|address| Backend { address: address.parse().unwrap(), port }).collect()
}

fn services(program: &mut Program) {
    let balances = Balance::ALL.into_iter().cycle();
    for (number, balance) in (0u16..12).zip(balances) {
        let address = ["0.0.0.0", "10.90.0.1", "::", "fd90::1"][usize::from(number % 4)].parse().unwrap();
        let protocol = Protocol::ALL[usize::from(number % 3)];
        let mut backends = backends(&["100.64.1.2", "100.64.2.2", "fd00::2"], Some(80));
        backends.extend(self::backends(&["fd00::3", "100.64.1.3"], None));
        backends.truncate(usize::from(number / 3 + 1));
        program.set(
            Frontend::Port { address, protocol, port: 8000 + number },
            Some(Virtual { balance, backends }),
        );
        let address = match number % 2 {
            0 => [10, 30, 100, number as u8].into(),
            _ => format!("fd30::{number}").parse().unwrap(),
        };
        let backends =
            self::backends(&["10.30.1.1", "fd30:1::1", "10.30.1.2"][..usize::from(number % 4).min(3)], None);
        program.set(Frontend::Address(address), Some(Virtual { balance, backends }));
    }
}

/// The programs of a host and of a network.
fn programs() -> [Program; 2] {
    let own = ["10.30.1.1".parse().unwrap()].into();
    [Place::Host(host()), Place::Network(Network { own, outside: "cvx".to_owned() })].map(|place| {
        let mut program = Program::new(place);
        services(&mut program);
        program
    })
}

/// With the link that the program of a host needs.
fn lab() -> Option<Lab> {
    let lab = Lab::new()?;
    lab.run("host", "ip link add cvx4096 type veth peer name other");
    Some(lab)
}

/// LB-02, PRT-05
#[test]
fn what_is_applied_is_observed_and_found() {
    let Some(lab) = lab() else { return };
    let mut nft = lab.nft();
    assert!(nft.observe().unwrap().is_empty());
    for program in programs() {
        assert!(!repair(&mut nft, &program).is_empty());
        let found = nft.observe().unwrap();
        for (frontend, service) in program.services() {
            // A port without backends is the host's own.
            let is_there = matches!(frontend, Frontend::Address(_)) || !service.backends.is_empty();
            let expected = is_there.then(|| service.clone());
            assert_eq!(nft.lookup(frontend).unwrap(), expected, "{frontend:?}");
            assert_eq!(observed(&found, frontend), expected, "{frontend:?}");
        }
        if lab.has_nft() {
            assert!(lab.run("host", "nft list ruleset; nft -j list ruleset").contains("table inet covey"));
        }
    }
    repair(&mut nft, &Program::default());
    assert!(nft.observe().unwrap().is_empty());
    assert_eq!(nft.lookup(&Frontend::Address([10, 30, 100, 2].into())).unwrap(), None);
}

#[test]
fn each_change_of_a_service_is_one_that_the_kernel_takes() {
    let Some(lab) = lab() else { return };
    let mut nft = lab.nft();
    for whole in programs() {
        let mut program = Program::new(whole.place().clone());
        repair(&mut nft, &program);
        let by_turns = |program: &mut Program, nft: &mut covey_mesh_netlink::Nft| {
            for (frontend, service) in whole.services() {
                nft.apply(&program.set(*frontend, Some(service.clone()))).unwrap();
            }
            for (frontend, service) in whole.services() {
                let fewer = Virtual {
                    backends: service.backends.iter().skip(1).copied().collect(),
                    ..service.clone()
                };
                nft.apply(&program.set(*frontend, Some(fewer))).unwrap();
            }
        };
        by_turns(&mut program, &mut nft);
        assert_eq!(plan(&program, &nft.observe().unwrap()), []);
        by_turns(&mut program, &mut nft);
        for frontend in whole.services().keys() {
            nft.apply(&program.set(*frontend, None)).unwrap();
        }
        assert_eq!(plan(&program, &nft.observe().unwrap()), []);
        // And all of it in one batch.
        let mut changes = Vec::new();
        for times in [1, 0, 2, 1] {
            for (frontend, service) in whole.services() {
                let backends = service.backends.repeat(times);
                changes.extend(program.set(*frontend, Some(Virtual { backends, ..service.clone() })));
            }
        }
        nft.apply(&changes).unwrap();
        assert_eq!(plan(&program, &nft.observe().unwrap()), []);
    }
}

#[test]
fn a_change_that_does_not_fit_changes_nothing() {
    let Some(lab) = lab() else { return };
    let (mut nft, [mut program, _]) = (lab.nft(), programs());
    repair(&mut nft, &program);
    let before = nft.observe().unwrap();
    let front = *program.services().keys().next().unwrap();
    let mut changes =
        program.set(front, Some(Virtual { backends: backends(&["100.64.9.9"], None), ..Virtual::default() }));
    let step = Step::DeleteElement("anyport4".to_owned(), vec![9; 8]);
    changes.push(Change { family: Family::Inet, step });
    assert!(nft.apply(&changes).is_err());
    assert_eq!(nft.observe().unwrap(), before);
    assert!(!repair(&mut nft, &program).is_empty());
}

/// Damage of each kind, and the objects that mending it is about.
fn damages(tables: &Tables) -> Vec<(Vec<Step>, &'static str)> {
    let table = &tables[&Family::Inet];
    let filled = |name: &&String| !table.maps[*name].elements.is_empty();
    let map = table.maps.keys().filter(|name| name.contains("backend")).find(filled).unwrap();
    let (key, value) = table.maps[map].elements.first_key_value().unwrap();
    let other_value = |value: &Value| match value {
        Value::Bytes(bytes) => Value::Bytes(bytes.iter().map(|byte| !byte).collect()),
        other => other.clone(),
    };
    let delete = Step::DeleteElement(map.clone(), key.clone());
    let other_key = key.iter().map(|byte| !byte).collect();
    let way = table.maps["balance"].elements.first_key_value().unwrap();
    let Value::Goto(chain) = way.1 else { panic!("{way:?}") };
    let gone = |chain: &str| vec![Step::SetRules(chain.to_owned(), Vec::new())];
    let theirs = || "theirs".to_owned();
    vec![
        (vec![delete.clone()], "nft_element"),
        (vec![delete, Step::AddElement(map.clone(), key.clone(), other_value(value))], "nft_element"),
        (vec![Step::AddElement(map.clone(), other_key, value.clone())], "nft_element"),
        (gone(chain), "nft_rule"),
        (gone("services"), "nft_rule"),
        (gone("prerouting"), "nft_rule"),
        (
            [Step::DeleteElement("balance".to_owned(), way.0.clone())]
                .into_iter()
                .chain(gone(chain))
                .chain([Step::DeleteChain(chain.clone())])
                .collect(),
            "nft_chain",
        ),
        (gone("output").into_iter().chain([Step::DeleteChain("output".to_owned())]).collect(), "nft_chain"),
        (vec![Step::AddChain(theirs(), None)], "nft_chain"),
        (vec![Step::AddMap(theirs(), Form::verdicts(Type::MARK))], "nft_map"),
        (
            vec![
                Step::AddChain(theirs(), None),
                Step::AddMap(theirs(), Form::verdicts(Type::MARK)),
                Step::AddElement(theirs(), vec![1, 0, 0, 0], Value::Goto(theirs())),
            ],
            "nft_map",
        ),
        (vec![Step::DeleteTable], "nft_table"),
    ]
}

#[test]
fn whatever_somebody_changes_is_found_and_mended_in_one_step() {
    let Some(lab) = lab() else { return };
    let mut nft = lab.nft();
    for program in programs() {
        repair(&mut nft, &program);
        for (steps, object) in damages(&program.tables()) {
            let damage = steps.into_iter().map(|step| Change { family: Family::Inet, step });
            let damage: Vec<_> = damage.collect();
            nft.apply(&damage).unwrap();
            let mended = repair(&mut nft, &program);
            assert!(mended.iter().any(|change| change.object() == object), "{damage:?}: {mended:?}");
            assert!(mended.len() < 4 || object == "nft_table", "{damage:?}: {mended:?}");
        }
    }
    // The other table, and the link under it.
    let [program, _] = programs();
    repair(&mut nft, &program);
    let rules = Step::SetRules("egress".to_owned(), Vec::new());
    nft.apply(&[Change { family: Family::Netdev, step: rules }]).unwrap();
    assert_eq!(repair(&mut nft, &program).len(), 1);
    // Older kernels drop the chain with its link, newer ones take it up again.
    lab.run("host", "ip link delete cvx4096; ip link add cvx4096 type veth peer name other");
    repair(&mut nft, &program);
}

#[test]
fn what_a_persons_tool_does_to_our_tables_is_mended_and_others_are_left_alone() {
    let Some(lab) = lab() else { return };
    if !lab.has_nft() {
        return;
    }
    lab.run(
        "host",
        "nft 'add table inet others; add chain inet others postrouting { type nat hook postrouting priority srcnat; };
            add rule inet others postrouting ip saddr 10.0.0.0/8 masquerade;
            add map inet others anyport4 { type inet_proto . inet_service : mark; };
            add table ip covey; add chain ip covey services; add rule ip covey services counter drop'",
    );
    let others = || lab.run("host", "nft list table inet others; nft list table ip covey");
    let (before, mut nft) = (others(), lab.nft());
    let [program, _] = programs();
    for damage in [
        "delete table inet covey",
        "delete table netdev covey",
        "flush table inet covey",
        "chain inet covey postrouting { policy drop; }",
        "add table inet covey { flags dormant; }",
        "add chain inet covey more { type filter hook forward priority 0; policy drop; }",
        "insert rule inet covey services accept",
        "add rule inet covey services ct state new limit rate 1/second counter log prefix \"x\" comment \"y\"",
        "add rule inet covey postrouting tcp dport vmap { 80 : accept, 81 : return }",
        "add set inet covey more { type ipv4_addr; flags interval,timeout; elements = { 10.0.0.0/8 timeout 1h } }",
        "add element inet covey vtep4 { 10.66.66.66 }",
        "add element inet covey balance { 0x00000000 . 0x12345678 : accept }",
        "flush map inet covey anyport4-backend",
    ] {
        repair(&mut nft, &program);
        lab.run("host", &format!("nft '{damage}'"));
        assert!(!repair(&mut nft, &program).is_empty(), "{damage}");
    }
    assert_eq!(others(), before);
    repair(&mut nft, &Program::default());
    assert_eq!(others(), before);
    assert_eq!(lab.run("host", "nft list tables"), "table inet others\ntable ip covey\n");
}
