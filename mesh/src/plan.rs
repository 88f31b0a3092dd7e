//! The planner: what brings our tables from what was observed to what is wanted.

use std::collections::BTreeMap;

use crate::{
    expression::same,
    object::{Chain, Change, Family, Map, Step, Table, Tables},
    program::Program,
};

/// The steps that bring what was observed to what the program says; none if all is well. A table whose frame is
/// wrong (its flags, the hook of a chain, the form of a map) is made anew, everything else is mended in place.
pub fn plan(desired: &Program, observed: &Tables) -> Vec<Change> {
    plan_tables(&desired.tables(), observed)
}

pub(crate) fn plan_tables(desired: &Tables, observed: &Tables) -> Vec<Change> {
    let nothing = Table::default();
    let mut changes = Vec::new();
    let mut push = |family: Family, steps: Vec<Step>| {
        changes.extend(steps.into_iter().map(|step| Change { family, step }));
    };
    for family in observed.keys().filter(|family| !desired.contains_key(family)) {
        push(*family, vec![Step::DeleteTable]);
    }
    for (family, wanted) in desired {
        match observed.get(family) {
            Some(table) if frame_fits(wanted, table) => push(*family, mend(wanted, table)),
            table => {
                let delete = table.map(|_| Step::DeleteTable);
                let anew = delete.into_iter().chain([Step::AddTable]).chain(mend(wanted, &nothing));
                push(*family, anew.collect());
            }
        }
    }
    changes
}

/// Whether nothing is wrong that only a new table can mend.
fn frame_fits(wanted: &Table, observed: &Table) -> bool {
    let chain = |(name, chain): (&String, &Chain)| {
        observed.chains.get(name).is_none_or(|found| found.hook == chain.hook)
    };
    let map =
        |(name, map): (&String, &Map)| observed.maps.get(name).is_none_or(|found| found.form == map.form);
    observed.flags == wanted.flags && wanted.chains.iter().all(chain) && wanted.maps.iter().all(map)
}

/// In an order in which whatever is named is there: first what is missing, then what is too much.
fn mend(wanted: &Table, observed: &Table) -> Vec<Step> {
    let (mut steps, mut last) = (Vec::new(), Vec::new());
    for (name, map) in &wanted.maps {
        if !observed.maps.contains_key(name) {
            steps.push(Step::AddMap(name.clone(), map.form));
        }
    }
    for (name, chain) in &wanted.chains {
        if !observed.chains.contains_key(name) {
            steps.push(Step::AddChain(name.clone(), chain.hook.clone()));
        }
    }
    for (name, chain) in &wanted.chains {
        let found = observed.chains.get(name).map_or(&[][..], |found| &found.rules);
        if !same(found, &chain.rules) {
            steps.push(Step::SetRules(name.clone(), chain.rules.clone()));
        }
    }
    let empty = BTreeMap::new();
    for (name, map) in &wanted.maps {
        let found = observed.maps.get(name).map_or(&empty, |found| &found.elements);
        let gone = found.iter().filter(|(key, value)| map.elements.get(*key) != Some(value));
        steps.extend(gone.map(|(key, _)| Step::DeleteElement(name.clone(), key.clone())));
        let come = map.elements.iter().filter(|(key, value)| found.get(*key) != Some(value));
        steps.extend(come.map(|(key, value)| Step::AddElement(name.clone(), key.clone(), value.clone())));
    }
    for name in observed.chains.keys().filter(|name| !wanted.chains.contains_key(*name)) {
        // Rules go first, of all chains: they hold maps and other chains.
        steps.push(Step::SetRules(name.clone(), Vec::new()));
        last.push(Step::DeleteChain(name.clone()));
    }
    let maps = observed.maps.keys().filter(|name| !wanted.maps.contains_key(*name));
    steps.extend(maps.map(|name| Step::DeleteMap(name.clone())));
    steps.extend(last);
    steps
}
