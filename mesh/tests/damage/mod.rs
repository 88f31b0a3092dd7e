//! What somebody may do to our tables by hand.

use covey_mesh::{
    Expression,
    object::{Chain, Family, Form, Map, Table, Tables, Type, Value},
};
use proptest::{collection::vec, prelude::*, sample::Index, sample::select};

/// Something done by hand, to one of what there is.
#[derive(Clone, Debug)]
pub enum Damage {
    NoTable(Family),
    Dormant,
    NoElement(Index),
    OtherElement(Index),
    MoreElements(Index, Vec<u8>),
    NoRules(Index),
    MoreRules(Index),
    NoChain(Index),
    OtherHook(Index),
    MoreChains,
    NoMap(Index),
    OtherForm(Index),
    MoreMaps,
}

/// Longest key, in bytes.
const KEY_MAX: usize = 32;

pub fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        select(vec![Family::Inet, Family::Netdev]).prop_map(Damage::NoTable),
        Just(Damage::Dormant),
        at().prop_map(Damage::NoElement),
        at().prop_map(Damage::OtherElement),
        (at(), vec(any::<u8>(), KEY_MAX)).prop_map(|(at, key)| Damage::MoreElements(at, key)),
        at().prop_map(Damage::NoRules),
        at().prop_map(Damage::MoreRules),
        at().prop_map(Damage::NoChain),
        at().prop_map(Damage::OtherHook),
        Just(Damage::MoreChains),
        at().prop_map(Damage::NoMap),
        at().prop_map(Damage::OtherForm),
        Just(Damage::MoreMaps),
    ]
}

/// One of these, if there are any.
fn one<'a, T>(at: &Index, all: impl Iterator<Item = &'a mut T>) -> Option<&'a mut T> {
    let mut all: Vec<_> = all.collect();
    (!all.is_empty()).then(|| all.swap_remove(at.index(all.len())))
}

/// One of its keys, if there are any.
fn key(map: &Map, at: &Index) -> Option<Vec<u8>> {
    let keys: Vec<_> = map.elements.keys().cloned().collect();
    (!keys.is_empty()).then(|| at.get(&keys).clone())
}

fn foreign_rule() -> Vec<Expression> {
    vec![Expression { name: "counter".to_owned(), attributes: Vec::new() }]
}

pub fn spoil(tables: &mut Tables, damage: &Damage) {
    if let Damage::NoTable(family) = damage {
        tables.remove(family);
    }
    if let Some(table) = tables.get_mut(&Family::Inet) {
        spoil_table(table, damage);
    }
}

fn spoil_table(table: &mut Table, damage: &Damage) {
    let theirs = || "theirs".to_owned();
    match damage {
        Damage::NoTable(_) => {}
        Damage::Dormant => table.flags = 1,
        Damage::NoElement(at) | Damage::OtherElement(at) => {
            let Some(map) = one(at, table.maps.values_mut()) else { return };
            let Some(key) = key(map, at) else { return };
            match damage {
                Damage::NoElement(_) => map.elements.remove(&key),
                _ => map.elements.insert(key, Value::Foreign),
            };
        }
        Damage::MoreElements(at, bytes) => {
            if let Some(map) = one(at, table.maps.values_mut()) {
                map.elements.insert(bytes[..map.form.key.length as usize].to_vec(), Value::Foreign);
            }
        }
        Damage::NoRules(at) => one(at, table.chains.values_mut()).into_iter().for_each(|c| c.rules.clear()),
        Damage::MoreRules(at) => {
            one(at, table.chains.values_mut()).into_iter().for_each(|c| c.rules.insert(0, foreign_rule()));
        }
        Damage::NoChain(at) => {
            let names: Vec<_> = table.chains.keys().cloned().collect();
            let gone = at.get(&names);
            table.chains.remove(gone);
            for map in table.maps.values_mut() {
                map.elements.retain(|_, value| *value != Value::Goto(gone.clone()));
            }
        }
        Damage::OtherHook(at) => {
            if let Some(hook) = one(at, table.chains.values_mut()).and_then(|chain| chain.hook.as_mut()) {
                hook.accepts = false;
            }
        }
        Damage::MoreChains => {
            table.chains.insert(theirs(), Chain { hook: None, rules: vec![foreign_rule()] });
        }
        Damage::NoMap(at) => {
            let names: Vec<_> = table.maps.keys().cloned().collect();
            let gone = at.get(&names);
            table.maps.remove(gone);
            // What asks it goes with it.
            table.chains.values_mut().for_each(|chain| chain.rules.clear());
        }
        Damage::OtherForm(at) => {
            if let Some(map) = one(at, table.maps.values_mut()) {
                *map = Map { form: Form::set(Type::IPV6), ..map.clone() };
                map.elements.clear();
            }
        }
        Damage::MoreMaps => {
            let elements = [(vec![0; 4], Value::Goto(theirs()))].into();
            table.maps.insert(theirs(), Map { form: Form::verdicts(Type::MARK), elements });
        }
    }
}
