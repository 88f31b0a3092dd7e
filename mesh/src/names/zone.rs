//! The names of one network, kept up to date row by row.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Answer, Kind, Member, Port, Question, Record, of_kind, records, spelling};

/// Things by key, several of them under one.
#[derive(Clone, Debug)]
struct Index<K>(BTreeMap<K, BTreeSet<String>>);

impl<K: Ord> Index<K> {
    const fn new() -> Self {
        Self(BTreeMap::new())
    }

    fn add(&mut self, key: K, thing: &str) {
        self.0.entry(key).or_default().insert(thing.to_owned());
    }

    fn remove<Q>(&mut self, key: &Q, thing: &str)
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let Some(things) = self.0.get_mut(key) else { return };
        things.remove(thing);
        if things.is_empty() {
            self.0.remove(key);
        }
    }

    fn get<Q>(&self, key: &Q) -> Option<&BTreeSet<String>>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.0.get(key)
    }
}

/// What a name stands for.
enum Meaning<'a> {
    /// Services, by their own names: their virtual addresses, or their tasks.
    Services(&'a BTreeSet<String>),
    /// The tasks of services, by the services' own names.
    Tasks(&'a BTreeSet<String>),
    /// Members, by key.
    Members(&'a BTreeSet<String>),
}

/// The names of one network.
#[derive(Clone, Debug)]
pub struct Zone {
    network: String,
    /// By key, their names in compared spelling.
    members: BTreeMap<String, Member>,
    /// Members by their own names.
    own: Index<String>,
    /// Members by address.
    addresses: Index<IpAddr>,
    /// Version and key of the members of each service, by the service's own name. The last one says what it is.
    services: BTreeMap<String, BTreeSet<(u64, String)>>,
    /// Services by name.
    names: Index<String>,
    /// Services by virtual address.
    vips: Index<IpAddr>,
    /// Whoever could tell of members has.
    whole: bool,
}

impl Zone {
    /// The zone of a network of that name, with nobody in it.
    pub fn new(network: &str) -> Self {
        Self {
            network: spelling::compared(network),
            members: BTreeMap::new(),
            own: Index::new(),
            addresses: Index::new(),
            services: BTreeMap::new(),
            names: Index::new(),
            vips: Index::new(),
            whole: true,
        }
    }

    /// Whether everybody who could tell of members has: until then a name that is not known is [`Answer::Unheard`], not
    /// [`Answer::Unknown`].
    pub const fn set_whole(&mut self, whole: bool) {
        self.whole = whole;
    }

    /// As [set](Self::set_whole); a new zone is.
    pub const fn is_whole(&self) -> bool {
        self.whole
    }

    /// Replaces what is known about one member, or forgets it. `key` tells members apart and means nothing.
    pub fn set(&mut self, key: &str, member: Option<Member>) {
        let member = member.map(respelled);
        let before = self.members.get(key);
        if before == member.as_ref() {
            return;
        }
        let service_of = |member: Option<&Member>| member.and_then(|m| m.services.first()).cloned();
        let touched = BTreeSet::from([service_of(before), service_of(member.as_ref())]);
        touched.iter().flatten().for_each(|service| self.undefine(service));
        self.forget(key);
        if let Some(member) = member {
            self.learn(key, member);
        }
        touched.iter().flatten().for_each(|service| self.define(service));
    }

    fn forget(&mut self, key: &str) {
        let Some(member) = self.members.remove(key) else { return };
        member.own.iter().for_each(|name| self.own.remove(name, key));
        member.addresses.iter().for_each(|address| self.addresses.remove(address, key));
        if let Some(service) = member.services.first()
            && let Some(members) = self.services.get_mut(service)
        {
            members.remove(&(member.version, key.to_owned()));
            if members.is_empty() {
                self.services.remove(service);
            }
        }
    }

    fn learn(&mut self, key: &str, member: Member) {
        member.own.iter().for_each(|name| self.own.add(name.clone(), key));
        member.addresses.iter().for_each(|&address| self.addresses.add(address, key));
        if let Some(service) = member.services.first() {
            self.services.entry(service.clone()).or_default().insert((member.version, key.to_owned()));
        }
        self.members.insert(key.to_owned(), member);
    }

    /// The member that says what the service is.
    fn definition(&self, service: &str) -> Option<&Member> {
        self.services.get(service)?.last().and_then(|(_, key)| self.members.get(key))
    }

    fn define(&mut self, service: &str) {
        let Some(Member { services, vips, .. }) = self.definition(service).cloned() else { return };
        services.into_iter().for_each(|name| self.names.add(name, service));
        vips.into_iter().for_each(|vip| self.vips.add(vip, service));
    }

    fn undefine(&mut self, service: &str) {
        let Some(Member { services, vips, .. }) = self.definition(service).cloned() else { return };
        services.iter().for_each(|name| self.names.remove(name, service));
        vips.iter().for_each(|vip| self.vips.remove(vip, service));
    }

    /// What this network answers; `turn` moves which record comes first.
    pub fn answer(&self, question: &Question, turn: u64) -> Answer {
        let Question { name, kind } = question;
        if let Some(address) = spelling::reverse(name)
            && let Some(names) = self.names_of(address)
        {
            return if *kind == Kind::Pointer { records(names, turn) } else { Answer::NoData };
        }
        if let Some(meaning) = self.meaning(name) {
            return match kind {
                Kind::Service => self.ports(&meaning, |_| true, turn),
                _ => self.reachable(&meaning, *kind, turn),
            };
        }
        match spelling::port(name).and_then(|(port, protocol, of)| Some((port, protocol, self.meaning(of)?)))
        {
            None if self.whole => Answer::Unknown,
            None => Answer::Unheard,
            Some((port, protocol, meaning)) if *kind == Kind::Service => {
                self.ports(&meaning, |candidate| spelling::is_called(candidate, port, protocol), turn)
            }
            Some(_) => Answer::NoData,
        }
    }

    /// A service's name comes before a container's, so that a container named like a service does not capture it; and a
    /// name within this network before one that only ends so, as an alias may.
    fn meaning(&self, name: &str) -> Option<Meaning<'_>> {
        let exactly = |name: &str| {
            let tasks = || self.names.get(name.strip_prefix("tasks.")?).map(Meaning::Tasks);
            let members = || self.own.get(name).map(Meaning::Members);
            self.names.get(name).map(Meaning::Services).or_else(tasks).or_else(members)
        };
        let within = || name.strip_suffix(&self.network)?.strip_suffix('.');
        within().and_then(exactly).or_else(|| exactly(name))
    }

    fn reachable(&self, meaning: &Meaning<'_>, kind: Kind, turn: u64) -> Answer {
        let addresses: BTreeSet<IpAddr> = match meaning {
            Meaning::Members(keys) => {
                self.preferred(keys).flat_map(|member| &member.addresses).copied().collect()
            }
            Meaning::Tasks(services) => services.iter().flat_map(|s| self.tasks(s)).collect(),
            // A virtual address answers even with no task: it stays the same, and fails quickly by itself.
            Meaning::Services(services) => services
                .iter()
                .flat_map(|s| match self.definition(s) {
                    Some(definition) if !definition.vips.is_empty() => definition.vips.clone(),
                    _ => self.tasks(s).collect(),
                })
                .collect(),
        };
        if addresses.is_empty() { Answer::Unavailable } else { of_kind(&addresses, kind, turn) }
    }

    /// The active ones of those, or all of them if none is. A name of its own is asked for the one that bears it:
    /// nobody else can take over, and to a peer that is not healthy yet it must be possible to talk.
    fn preferred<'a>(&'a self, keys: &'a BTreeSet<String>) -> impl Iterator<Item = &'a Member> {
        let members = || keys.iter().filter_map(|key| self.members.get(key));
        let any_active = members().any(|member| member.active);
        members().filter(move |member| member.active || !any_active)
    }

    fn active(&self, service: &str) -> impl Iterator<Item = &Member> {
        let keys = self.services.get(service).into_iter().flatten();
        keys.filter_map(|(_, key)| self.members.get(key)).filter(|member| member.active)
    }

    fn tasks(&self, service: &str) -> impl Iterator<Item = IpAddr> {
        self.active(service).flat_map(|member| &member.addresses).copied()
    }

    /// The names that an address has: of services if it is virtual, else of the members that have it.
    fn names_of(&self, address: IpAddr) -> Option<Vec<Record>> {
        let named = |name: &String| Record::Pointer(self.qualified(name));
        if let Some(services) = self.vips.get(&address) {
            return Some(services.iter().map(named).collect());
        }
        let members = self.preferred(self.addresses.get(&address)?);
        Some(members.filter_map(|member| member.own.first()).map(named).collect())
    }

    /// `<name>.<network>`: nobody else answers to it.
    fn qualified(&self, name: &str) -> String {
        format!("{name}.{}", self.network)
    }

    fn ports(&self, meaning: &Meaning<'_>, wanted: impl Fn(&Port) -> bool, turn: u64) -> Answer {
        let (services, by_task) = match meaning {
            Meaning::Services(services) => (services, false),
            Meaning::Tasks(services) => (services, true),
            Meaning::Members(_) => return Answer::NoData,
        };
        let definitions = services.iter().filter_map(|service| Some((service, self.definition(service)?)));
        let (mut found, mut is_there) = (Vec::new(), false);
        for (service, definition) in definitions {
            let targets = self.targets(service, definition, by_task);
            for port in definition.ports.iter().filter(|port| wanted(port)) {
                is_there = true;
                found.extend(targets.iter().map(|(target, addresses)| Record::Service {
                    port: port.port,
                    target: target.clone(),
                    addresses: addresses.to_vec(),
                }));
            }
        }
        if is_there && found.is_empty() { Answer::Unavailable } else { records(found, turn) }
    }

    /// Where the ports of a service are: names, and the addresses that these have.
    fn targets<'a>(
        &'a self,
        service: &str,
        definition: &'a Member,
        by_task: bool,
    ) -> Vec<(String, &'a [IpAddr])> {
        if !by_task && !definition.vips.is_empty() {
            return vec![(self.qualified(service), &definition.vips)];
        }
        let named = |task: &'a Member| Some((self.qualified(task.own.first()?), &*task.addresses));
        self.active(service).filter_map(named).collect()
    }
}

/// The member with its names in compared spelling. Empty ones would be the root of all names.
fn respelled(mut member: Member) -> Member {
    for names in [&mut member.own, &mut member.services] {
        *names = names.iter().map(|name| spelling::compared(name)).filter(|name| !name.is_empty()).collect();
    }
    member
}
