//! Programs against a small model of nf_tables that is as strict as the kernel.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in what it is built of as well")]

mod damage;

use std::collections::BTreeMap;

use covey_mesh::{
    Backend, Balance, Edge, Expression, Frontend, Host, Member, Network, Place, Program, Protocol, Rule,
    Virtual,
    object::{Chain, Change, Family, Map, Step, Table, Tables, Value},
    observed, plan, question,
};
use damage::{Damage, damage, spoil};
use proptest::{collection::vec, option, prelude::*, sample::Index, sample::select};

/// Takes a batch as the kernel does, or says what it would refuse.
fn apply(tables: &mut Tables, changes: &[Change]) -> Result<(), String> {
    changes.iter().try_for_each(|Change { family, step }| match step {
        Step::AddTable => {
            tables.entry(*family).or_default();
            Ok(())
        }
        Step::DeleteTable => tables.remove(family).map(drop).ok_or("no table".to_owned()),
        step => {
            let table = tables.get_mut(family).ok_or("no table")?;
            take(table, step).map_err(|why| format!("{why}: {step:?}"))
        }
    })
}

fn take(table: &mut Table, step: &Step) -> Result<(), &'static str> {
    match step {
        Step::AddTable | Step::DeleteTable => unreachable!("of all tables"),
        Step::AddChain(name, hook) => {
            let chain = Chain { hook: hook.clone(), rules: Vec::new() };
            table.chains.insert(name.clone(), chain).map_or(Ok(()), |_| Err("chain is there"))
        }
        Step::DeleteChain(name) => {
            let mut values = table.maps.values().flat_map(|map| map.elements.values());
            if values.any(|value| *value == Value::Goto(name.clone())) {
                return Err("chain is in use");
            }
            match table.chains.remove(name) {
                Some(chain) if chain.rules.is_empty() => Ok(()),
                _ => Err("no chain, or with rules"),
            }
        }
        Step::SetRules(name, rules) => {
            let mut asked = rules.iter().flatten().filter_map(map_of);
            if asked.any(|map| !table.maps.contains_key(&map)) {
                return Err("rule asks a map that is not there");
            }
            table.chains.get_mut(name).map(|chain| chain.rules.clone_from(rules)).ok_or("no chain")
        }
        Step::AddMap(name, form) => {
            let map = Map { form: *form, elements: BTreeMap::new() };
            table.maps.insert(name.clone(), map).map_or(Ok(()), |_| Err("map is there"))
        }
        Step::DeleteMap(name) => {
            let mut rules = table.chains.values().flat_map(|chain| &chain.rules).flatten();
            if rules.any(|one| map_of(one).as_ref() == Some(name)) {
                return Err("map is in use");
            }
            table.maps.remove(name).map(drop).ok_or("no map")
        }
        Step::AddElement(map, key, value) => {
            if let Value::Goto(chain) = value
                && !table.chains.contains_key(chain)
            {
                return Err("element leads nowhere");
            }
            let map = table.maps.get_mut(map).ok_or("no map")?;
            if key.len() != map.form.key.length as usize {
                return Err("key of another length");
            }
            map.elements.insert(key.clone(), value.clone()).map_or(Ok(()), |_| Err("element is there"))
        }
        Step::DeleteElement(map, key) => {
            let map = table.maps.get_mut(map).ok_or("no map")?;
            map.elements.remove(key).map(drop).ok_or("no element")
        }
    }
}

fn attribute(expression: &Expression, number: u16) -> Option<&[u8]> {
    let mut attributes = expression.attributes.iter();
    attributes.find(|(found, _)| *found == number).map(|(_, value)| value.as_slice())
}

/// The map that an expression looks something up in.
fn map_of(expression: &Expression) -> Option<String> {
    let name = attribute(expression, 1).filter(|_| expression.name == "lookup")?;
    Some(String::from_utf8_lossy(name.strip_suffix(&[0])?).into_owned())
}

/// How many slots a rule picks from.
fn slots(rule: &Rule) -> Option<u32> {
    rule.iter().find_map(|one| {
        let bound = match one.name.as_str() {
            "numgen" => attribute(one, 2),
            "hash" => attribute(one, 4),
            _ => None,
        };
        bound.and_then(|bound| bound.try_into().ok()).map(u32::from_be_bytes)
    })
}

/// What a new connection to the frontend may be sent to, slot by slot; an error if there is nothing in one of them.
/// Follows elements and rules as a packet does, and so does not trust how they were written.
fn reached(tables: &Tables, frontend: &Frontend) -> Result<Vec<Vec<u8>>, String> {
    let table = tables.get(&Family::Inet).ok_or("no table")?;
    let (map, key) = question(frontend);
    let Some(Value::Bytes(number)) = table.maps[&map].elements.get(&key) else {
        return Err(format!("{frontend:?} is not found"));
    };
    let way = [&[0; 4], number.as_slice()].concat();
    let Some(Value::Goto(chain)) = table.maps["balance"].elements.get(&way) else {
        return Err(format!("{frontend:?} is balanced in an unknown way"));
    };
    let rule = table.chains.get(chain).and_then(|chain| chain.rules.first()).ok_or("no rule")?;
    let backends = rule.iter().find_map(map_of).ok_or("no map")?;
    let slots = 0..slots(rule).ok_or("no choice")?;
    slots
        .map(|slot| {
            let key = [&key[..], &slot.to_ne_bytes()].concat();
            match table.maps[&backends].elements.get(&key) {
                Some(Value::Bytes(value)) => Ok(value.clone()),
                _ => Err(format!("{frontend:?}: slot {slot} is empty")),
            }
        })
        .collect()
}

fn frontends(of_a_host: bool) -> Vec<Frontend> {
    let addresses = ["10.9.0.1", "10.9.0.2", "fd09::1", "fd09::2"].map(|text| text.parse().unwrap());
    if !of_a_host {
        return addresses.map(Frontend::Address).into();
    }
    let any = ["0.0.0.0", "::"].map(|text| text.parse().unwrap());
    let ports = addresses
        .into_iter()
        .chain(any)
        .flat_map(|address| Protocol::ALL.map(|protocol| Frontend::Port { address, protocol, port: 80 }));
    ports.collect()
}

fn member(address: &str, block: &str) -> Member {
    Member { address: address.parse().unwrap(), others: [].into(), blocks: [block.parse().unwrap()].into() }
}

fn host() -> Host {
    let block = |text: &str| text.parse().unwrap();
    Host {
        blocks: [block("100.64.1.0/24"), block("fd00:c0::/64")].into(),
        inside: "cv".to_owned(),
        bridged: [].into(),
        edge: Some(Edge {
            device: "cvx4096".to_owned(),
            local: [10, 90, 0, 1].into(),
            port: 4789,
            networks: [4096].into(),
            members: [member("10.90.0.2", "100.64.2.0/24")].into(),
        }),
    }
}

fn place(of_a_host: bool) -> Place {
    match of_a_host {
        true => Place::Host(host()),
        false => {
            Place::Network(Network { own: ["10.30.1.1".parse().unwrap()].into(), outside: "cvx".to_owned() })
        }
    }
}

fn service() -> impl Strategy<Value = Virtual> {
    let addresses = vec!["10.30.1.1", "10.30.1.2", "10.30.1.3", "fd30::1", "fd30::2"];
    let backend = (select(addresses), option::of(1..4u16))
        .prop_map(|(address, port)| Backend { address: address.parse().unwrap(), port });
    (select(Balance::ALL.to_vec()), vec(backend, 0..6))
        .prop_map(|(balance, backends)| Virtual { balance, backends })
}

/// What is put behind which frontend, in order.
type Story = Vec<(Index, Option<Virtual>)>;

/// Of a host, or of a network.
fn story() -> impl Strategy<Value = (bool, Story)> {
    (any::<bool>(), vec((any::<Index>(), option::weighted(0.8, service())), 0..40))
}

fn told((of_a_host, story): &(bool, Story)) -> Program {
    let (mut program, frontends) = (Program::new(place(*of_a_host)), frontends(*of_a_host));
    for (frontend, service) in story {
        program.set(*frontend.get(&frontends), service.clone());
    }
    program
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// LB-07
    #[test]
    fn every_change_brings_the_kernel_to_the_program_and_leaves_no_slot_empty((of_a_host, story) in story()) {
        let (mut program, mut kernel) = (Program::new(place(of_a_host)), Tables::new());
        apply(&mut kernel, &plan(&program, &Tables::new())).unwrap();
        let frontends = frontends(of_a_host);
        for (frontend, service) in story {
            let changes = program.set(*frontend.get(&frontends), service);
            prop_assert_eq!(apply(&mut kernel, &changes), Ok(()));
            prop_assert_eq!(&kernel, &program.tables());
            prop_assert_eq!(plan(&program, &kernel), vec![]);
            for (frontend, service) in program.services() {
                if !service.backends.is_empty() {
                    let slots = reached(&kernel, frontend).map(|slots| slots.len());
                    prop_assert_eq!(slots, Ok(service.backends.len()));
                    prop_assert_eq!(observed(&kernel, frontend), Some(service.clone()));
                }
            }
        }
    }

    #[test]
    fn a_plan_mends_any_damage_at_once(story in story(), damages in vec(damage(), 0..6)) {
        let program = told(&story);
        let mut kernel = program.tables();
        for damage in &damages {
            spoil(&mut kernel, damage);
        }
        let damaged = kernel != program.tables();
        let changes = plan(&program, &kernel);
        prop_assert_eq!(changes.is_empty(), !damaged);
        prop_assert_eq!(apply(&mut kernel, &changes), Ok(()));
        prop_assert_eq!(&kernel, &program.tables());
        prop_assert_eq!(plan(&program, &kernel), vec![]);
    }

    #[test]
    fn from_one_program_to_any_other_in_one_step(before in story(), after in story()) {
        let (before, after) = (told(&before), told(&after));
        let mut kernel = before.tables();
        prop_assert_eq!(apply(&mut kernel, &plan(&after, &before.tables())), Ok(()));
        prop_assert_eq!(&kernel, &after.tables());
        prop_assert_eq!(apply(&mut kernel, &plan(&Program::default(), &after.tables())), Ok(()));
        prop_assert!(kernel.is_empty(), "nothing is left");
    }

    #[test]
    fn a_new_start_takes_over_the_slots(story in story(), damage in damage()) {
        let before = told(&story);
        let mut after = Program::new(before.place().clone());
        for (frontend, service) in before.services() {
            let mut service = service.clone();
            service.backends.sort();
            after.set(*frontend, Some(service));
        }
        // Somebody has meddled as well: whatever is still there stays where it is.
        let mut kernel = before.tables();
        spoil(&mut kernel, &damage);
        after.adopt(&kernel);
        let all_but_backends = |tables: &Tables| {
            let maps = tables.get(&Family::Inet).map(|table| table.maps.clone()).unwrap_or_default();
            maps.into_iter().filter(|(name, _)| !name.ends_with("backend")).collect::<Vec<_>>()
        };
        let one = matches!(damage, Damage::NoElement(_) | Damage::OtherElement(_) | Damage::MoreElements(..));
        if one && all_but_backends(&kernel) == all_but_backends(&before.tables()) {
            prop_assert_eq!(after.services(), before.services());
        }
        let changes = plan(&after, &kernel);
        prop_assert_eq!(apply(&mut kernel, &changes), Ok(()));
        prop_assert_eq!(&kernel, &after.tables());
    }
}

#[test]
fn a_place_changes_without_its_services() {
    let mut program = Program::new(place(true));
    let front = frontends(true)[0];
    let backends = vec![Backend { address: "10.30.1.1".parse().unwrap(), port: None }];
    program.set(front, Some(Virtual { balance: Balance::Random, backends }));
    let (mut kernel, mut host) = (program.tables(), host());
    if let Some(edge) = &mut host.edge {
        edge.members.insert(member("10.90.0.3", "100.64.3.0/24"));
        edge.networks.insert(4097);
    }
    let changes = program.set_place(Place::Host(host.clone()));
    assert_eq!(changes.len(), 5, "a network, an address twice, a block, and both of them: {changes:?}");
    apply(&mut kernel, &changes).unwrap();
    host.edge = None;
    apply(&mut kernel, &program.set_place(Place::Host(host))).unwrap();
    assert_eq!(kernel, program.tables());
    assert_eq!(program.services().len(), 1);

    apply(&mut kernel, &program.set_place(place(false))).unwrap();
    assert_eq!(kernel, program.tables());
    assert!(program.services().is_empty(), "a network serves no ports");
    assert_eq!(program.set(front, Some(Virtual::default())), []);
    apply(&mut kernel, &program.set_place(Place::Nothing)).unwrap();
    assert!(kernel.is_empty());
}
