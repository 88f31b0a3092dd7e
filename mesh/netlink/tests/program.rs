//! Programs in a real kernel, in namespaces of their own: written, read back, mended, removed.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces, run ip and nft, and wait")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in what it is built of as well")]

mod lab;

use covey_mesh::{
    Backend, Balance, Edge, Frontend, Host, Member, Network, Place, Program, Protocol, Virtual,
};
use lab::{Lab, repair};

fn net(block: &str) -> ipnet::IpNet {
    block.parse().unwrap()
}

fn host() -> Host {
    Host {
        blocks: [net("100.64.1.0/24"), net("fd00:c0:0:1::/64")].into(),
        inside: "cv".to_owned(),
        edge: Some(Edge {
            device: "cvx4096".to_owned(),
            port: 4789,
            networks: [4096, 4097].into(),
            members: [
                Member {
                    address: [10, 90, 0, 2].into(),
                    blocks: [net("100.64.2.0/24"), net("fd00:c0:0:2::/64")].into(),
                },
                Member {
                    address: "fd90::3".parse().unwrap(),
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

#[test]
fn what_is_applied_is_observed() {
    let Some(lab) = Lab::new() else { return };
    let mut nft = lab.nft();
    lab.run("host", "ip link add cvx4096 type veth peer name other");
    assert!(nft.observe().unwrap().is_empty());
    for place in [Place::Host(host()), Place::Network(Network { own: ["10.30.1.1".parse().unwrap()].into() })]
    {
        let mut program = Program::new(place);
        services(&mut program);
        assert!(!repair(&mut nft, &program).is_empty());
        let found = nft.observe().unwrap();
        if std::env::var_os("SHOW").is_some() {
            eprintln!("{}", lab.run("host", "nft list ruleset; nft -j list ruleset | wc -c"));
        }
        for (frontend, service) in program.services() {
            let expected = Some(service.clone())
                .filter(|service| matches!(frontend, Frontend::Address(_)) || !service.backends.is_empty());
            let normal = |v: Option<Virtual>| v.map(|v| v.backends);
            assert_eq!(normal(nft.lookup(frontend).unwrap()), normal(expected.clone()), "{frontend:?}");
            assert_eq!(normal(covey_mesh::observed(&found, frontend)), normal(expected), "{frontend:?}");
        }
    }
    repair(&mut nft, &Program::default());
    assert!(nft.observe().unwrap().is_empty());
}
