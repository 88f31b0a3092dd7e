//! All that our tables in one network namespace are to hold.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    mem::discriminant,
};

use crate::{
    expression::{self as e, Rule},
    host::Host,
    layout::{self, Element, Ip, Kind, Shape, VALUE, Way},
    network::Network,
    object::{Chain, Change, Family, Hook, Map, Step, Table, Tables},
    plan::plan_tables,
    service::{Frontend, Virtual},
};

/// What there is beside the services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Nothing at all: no tables, no services.
    #[default]
    Nothing,
    /// A host's own namespace: published ports, and the ways in and out.
    Host(Host),
    /// The router of one network: virtual addresses.
    Network(Network),
}

/// What our tables in one network namespace are to hold.
///
/// Each change of it answers with the steps that bring the kernel from the program before to the one after. If they
/// cannot be applied, the kernel is not where it was thought to be: [`crate::plan`] mends that.
#[derive(Clone, Debug, Default)]
pub struct Program {
    place: Place,
    services: BTreeMap<Frontend, Virtual>,
    /// How many services are balanced in each way.
    ways: BTreeMap<Way, usize>,
    /// Ways in which none is balanced now. Their chains are kept for the next one: a new chain costs the kernel a
    /// walk through all backends, 3 ms for thirty thousand.
    idle: BTreeSet<Way>,
}

/// Most chains that are kept without use.
const IDLE_MAX: usize = 16;

impl Program {
    /// Without services.
    pub fn new(place: Place) -> Self {
        Self { place, ..Self::default() }
    }

    /// What there is beside the services.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// The services, as the kernel can have them: each backend in its slot, those of other families left out.
    pub const fn services(&self) -> &BTreeMap<Frontend, Virtual> {
        &self.services
    }

    /// Changes what there is beside the services; costs nothing for those. A place of another kind begins without
    /// services.
    pub fn set_place(&mut self, place: Place) -> Vec<Change> {
        if discriminant(&place) == discriminant(&self.place) {
            let before = std::mem::replace(&mut self.place, place);
            return plan_tables(&self.place.tables(), &before.tables());
        }
        let before = std::mem::replace(self, Self::new(place));
        plan_tables(&self.tables(), &before.tables())
    }

    /// Puts this behind a frontend, or nothing any more. Costs as much as there are backends before and after,
    /// whatever the number of services. Backends that stay keep their slots. What the place does not serve is
    /// passed over: a host serves ports, a network addresses.
    pub fn set(&mut self, frontend: Frontend, service: Option<Virtual>) -> Vec<Change> {
        if !self.place.serves(&frontend) {
            return Vec::new();
        }
        let before = self.services.remove(&frontend);
        let slots = before.iter().flat_map(|before| &before.backends).map(|backend| Some(*backend));
        let after = service.map(|service| service.normal(&frontend).in_slots_of(slots));
        let change = self.replace(&frontend, before.as_ref(), after.as_ref());
        if let Some(after) = after {
            self.services.insert(frontend, after);
        }
        change
    }

    fn replace(
        &mut self,
        frontend: &Frontend,
        before: Option<&Virtual>,
        after: Option<&Virtual>,
    ) -> Vec<Change> {
        let written =
            |service: Option<&Virtual>| service.and_then(|service| layout::write(frontend, service));
        let (old_way, old) = written(before).unzip();
        let (new_way, new) = written(after).unzip();
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        let mut steps = Vec::new();
        if old_way != new_way {
            steps.extend(new_way.into_iter().flat_map(|way| self.begin(way)));
        }
        // What changes is deleted and added: an element's value cannot be replaced, but a batch takes effect as one.
        let by_key = |elements: &[Element]| -> BTreeMap<_, _> {
            elements.iter().map(|(map, key, value)| ((map.clone(), key.clone()), value.clone())).collect()
        };
        let (old, new) = (by_key(&old), by_key(&new));
        let gone = old.iter().filter(|(key, value)| new.get(key) != Some(value));
        steps.extend(gone.map(|((map, key), _)| Step::DeleteElement(map.clone(), key.clone())));
        let come = new.into_iter().filter(|(key, value)| old.get(key) != Some(value));
        steps.extend(come.map(|((map, key), value)| Step::AddElement(map, key, value)));
        if old_way != new_way {
            steps.extend(old_way.into_iter().flat_map(|way| self.end(way)));
        }
        steps.into_iter().map(|step| Change { family: Family::Inet, step }).collect()
    }

    /// One more service is balanced this way.
    fn begin(&mut self, way: Way) -> Vec<Step> {
        self.idle.remove(&way);
        match self.ways.entry(way) {
            Entry::Occupied(mut users) => {
                *users.get_mut() += 1;
                Vec::new()
            }
            Entry::Vacant(users) => {
                users.insert(1);
                let (map, key, value) = way.element();
                vec![
                    Step::AddChain(way.chain(), None),
                    Step::SetRules(way.chain(), way.rules()),
                    Step::AddElement(map, key, value),
                ]
            }
        }
    }

    /// One service less is balanced this way.
    fn end(&mut self, way: Way) -> Vec<Step> {
        if let Some(users) = self.ways.get_mut(&way) {
            *users -= 1;
            if *users == 0 {
                self.idle.insert(way);
            }
        }
        if self.idle.len() <= IDLE_MAX {
            return Vec::new();
        }
        let idle = std::mem::take(&mut self.idle);
        self.ways.retain(|way, _| !idle.contains(way));
        let remove = |way: Way| {
            let (map, key, _) = way.element();
            let empty = Step::SetRules(way.chain(), Vec::new());
            [Step::DeleteElement(map, key), empty, Step::DeleteChain(way.chain())]
        };
        idle.into_iter().flat_map(remove).collect()
    }

    /// Takes over the slots that backends have in the kernel, so that a new start of the program moves nobody.
    pub fn adopt(&mut self, observed: &Tables) {
        for (frontend, service) in &mut self.services {
            if let Some((_, slots)) = crate::slots(observed, frontend) {
                *service = std::mem::take(service).in_slots_of(slots);
            }
        }
    }

    /// Everything that is wanted in the kernel.
    pub fn tables(&self) -> Tables {
        let mut tables = self.place.tables();
        let Some(table) = tables.get_mut(&Family::Inet) else { return tables };
        for way in self.ways.keys() {
            table.chains.insert(way.chain(), Chain { hook: None, rules: way.rules() });
        }
        let written = self.services.iter().filter_map(|(frontend, service)| layout::write(frontend, service));
        let elements = self.ways.keys().map(|way| way.element());
        for (map, key, value) in elements.chain(written.flat_map(|(_, elements)| elements)) {
            if let Some(map) = table.maps.get_mut(&map) {
                map.elements.insert(key, value);
            }
        }
        tables
    }
}

/// Chain that services are found in.
const SERVICES: &str = "services";

impl Place {
    const fn serves(&self, frontend: &Frontend) -> bool {
        match self {
            Self::Nothing => false,
            Self::Host(_) => matches!(frontend, Frontend::Port { .. }),
            Self::Network(_) => matches!(frontend, Frontend::Address(_)),
        }
    }

    /// All but the services.
    fn tables(&self) -> Tables {
        match self {
            Self::Nothing => Tables::new(),
            Self::Host(host) => host.tables(),
            Self::Network(network) => network.tables(),
        }
    }
}

/// Adds maps for services and the chain that asks them for keys of these shapes; its name.
pub(crate) fn add_services(table: &mut Table, shapes: &[Shape]) -> &'static str {
    let balance = Map { form: layout::BALANCE_FORM, elements: BTreeMap::new() };
    table.maps.insert(layout::BALANCE.to_owned(), balance);
    let mut rules = Vec::new();
    for kind in Ip::BOTH.into_iter().flat_map(|ip| shapes.iter().map(move |shape| Kind::new(*shape, ip))) {
        let maps = kind.maps().map(|(name, form)| (name, Map { form, elements: BTreeMap::new() }));
        table.maps.extend(maps);
        rules.push(kind.rule());
    }
    table.chains.insert(SERVICES.to_owned(), Chain { hook: None, rules });
    SERVICES
}

/// A table of IPv6 that drops what comes in by these links from a source that is not reached by the same one:
/// `… fib saddr . iif oif missing drop`. It is one of its own so that packets of IPv4 do not pay for it: of these,
/// `rp_filter` lets no such packet pass.
pub(crate) fn own_sources_only(links: Rule) -> (Family, Table) {
    let rule = [links, vec![e::source_link(VALUE), e::is(VALUE, &[0; 4]), e::drop()]].concat();
    let chain = hooked("filter", At::PreRouting, priority::RAW, vec![rule]);
    (Family::Ip6, Table { chains: BTreeMap::from([("raw".to_owned(), chain)]), ..Table::default() })
}

/// A hook of the family `inet` (`enum nf_inet_hooks`).
#[derive(Clone, Copy)]
pub(crate) enum At {
    PreRouting = 0,
    Input = 1,
    Output = 3,
    PostRouting = 4,
}

/// When a chain is asked (`enum nf_ip_hook_priorities`).
pub(crate) mod priority {
    pub const RAW: i32 = -300;
    pub const MANGLE: i32 = -150;
    pub const NAT_DESTINATION: i32 = -100;
    pub const FILTER: i32 = 0;
    pub const NAT_SOURCE: i32 = 100;
}

pub(crate) fn hooked(kind: &str, at: At, priority: i32, rules: Vec<Rule>) -> Chain {
    let hook = Hook { kind: kind.to_owned(), number: at as u32, priority, device: None, accepts: true };
    Chain { hook: Some(hook), rules }
}
