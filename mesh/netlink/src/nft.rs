//! Our tables in the kernel: what they hold, and the steps of a plan.

use std::{collections::BTreeMap, path::Path};

use covey_mesh::{
    Frontend, Virtual, backends_of,
    object::{Chain, Change, Family, Form, Map, Table, Tables, Value},
    question, read_backend,
};

use crate::{
    attribute::{Attributes, find_number},
    read,
    socket::{Found, Netfilter, NetfilterError, Request},
    write::{self, attr, in_table, request},
};

/// How often an observation is begun anew because somebody changed some table meanwhile.
const ATTEMPTS_MAX: usize = 16;
/// `NFTA_GEN_ID`: counts the changes of any table.
const GENERATION: u16 = 1;

/// `NFPROTO_INET`, `NFPROTO_NETDEV`.
pub const fn number_of(family: Family) -> u8 {
    match family {
        Family::Inet => libc::NFPROTO_INET as u8,
        Family::Ip6 => libc::NFPROTO_IPV6 as u8,
        Family::Netdev => libc::NFPROTO_NETDEV as u8,
    }
}

/// Our tables of one network namespace.
pub struct Nft {
    netfilter: Netfilter,
}

impl Nft {
    /// Opens a socket in this thread's network namespace.
    ///
    /// # Errors
    /// The kernel has no netfilter.
    pub fn open() -> Result<Self, NetfilterError> {
        Ok(Self { netfilter: Netfilter::open()? })
    }

    /// Opens a socket in the network namespace that this file names, from wherever it is used.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel has no netfilter.
    pub fn open_in(namespace: &Path) -> Result<Self, NetfilterError> {
        Ok(Self { netfilter: Netfilter::open_in(namespace)? })
    }

    /// What our tables hold, all at one moment. Only of elements some may be missing for some milliseconds after thousands
    /// were added at once, while the kernel makes room for them; to add such a one again changes nothing.
    ///
    /// # Errors
    /// The kernel could not be asked, or somebody changes tables all the time. A missing table is no error.
    pub fn observe(&mut self) -> Result<Tables, NetfilterError> {
        for _ in 0..ATTEMPTS_MAX {
            let before = self.generation()?;
            let seen = self.tables();
            if self.generation()? == before
                && let Some(tables) = seen?
            {
                return Ok(tables);
            }
        }
        Err(NetfilterError::Torn)
    }

    /// Takes the steps: one atomic batch for each family, those of `inet` first.
    ///
    /// # Errors
    /// Of the first batch that was refused, nothing was done, and nothing of the next one. What is known of the
    /// kernel is wrong then: observe and plan.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), NetfilterError> {
        for family in Family::ALL {
            self.netfilter.batch(libc::NFNL_SUBSYS_NFTABLES as u16, write::requests(family, changes))?;
        }
        Ok(())
    }

    /// What a new connection to this frontend would meet: read from the kernel, a few elements only. `None` if it is
    /// not balanced.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn lookup(&mut self, frontend: &Frontend) -> Result<Option<Virtual>, NetfilterError> {
        let (map, key) = question(frontend);
        let answer = self.element(&map, &key)?;
        let Some((balance, map, keys)) = answer.and_then(|answer| backends_of(frontend, &answer)) else {
            return Ok(None);
        };
        let mut backends = Vec::new();
        for key in keys {
            let value = self.element(&map, &key)?;
            backends.extend(value.and_then(|value| read_backend(frontend, &value)));
        }
        Ok(Some(Virtual { balance, backends }))
    }

    fn element(&mut self, map: &str, key: &[u8]) -> Result<Option<Vec<u8>>, NetfilterError> {
        let mut list = Attributes::default();
        write::element(&mut list, key, None);
        let body = write::of_map(map, list);
        let found = self.get(request(Family::Inet, libc::NFT_MSG_GETSETELEM, 0, body))?;
        let first = found.iter().flat_map(|body| read::elements(body)).next();
        Ok(first.and_then(|(_, value)| match value {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }))
    }

    /// Asks for one object; what is not there is no error.
    fn get(&mut self, what: Request) -> Result<Vec<Found>, NetfilterError> {
        match self.netfilter.request(what) {
            Err(error) if error.is(libc::ENOENT) => Ok(Vec::new()),
            answer => answer,
        }
    }

    fn generation(&mut self) -> Result<u32, NetfilterError> {
        let get = request(Family::Inet, libc::NFT_MSG_GETGEN, 0, Attributes::default());
        let found = self.netfilter.request(get)?;
        Ok(found.first().map_or(0, |body| find_number(body, GENERATION)))
    }

    /// `None` if somebody changed them meanwhile.
    fn tables(&mut self) -> Result<Option<Tables>, NetfilterError> {
        let mut tables = Tables::new();
        for family in Family::ALL {
            let found = self.get(request(family, libc::NFT_MSG_GETTABLE, 0, in_table()))?;
            if let Some(body) = found.first() {
                let Some(table) = self.table(family, find_number(body, attr::TABLE_FLAGS))? else {
                    return Ok(None);
                };
                tables.insert(family, table);
            }
        }
        Ok(Some(tables))
    }

    fn table(&mut self, family: Family, flags: u32) -> Result<Option<Table>, NetfilterError> {
        let mut list = |message, body| self.netfilter.dump(request(family, message, 0, body));
        let Some(chains) = list(libc::NFT_MSG_GETCHAIN, in_table())? else { return Ok(None) };
        let Some(rules) = list(libc::NFT_MSG_GETRULE, in_table())? else { return Ok(None) };
        let Some(sets) = list(libc::NFT_MSG_GETSET, in_table())? else { return Ok(None) };
        let mut table = Table { flags, ..Table::default() };
        // The kernel lists the chains of every table of the family.
        let ours = |found: Vec<Found>| found.into_iter().filter(|body| read::is_ours(body));
        table.chains = ours(chains)
            .filter_map(|body| read::chain(&body))
            .map(|(name, hook)| (name, Chain { hook, rules: Vec::new() }))
            .collect();
        for (chain, rule) in ours(rules).filter_map(|body| read::rule(&body)) {
            table.chains.entry(chain).or_default().rules.push(rule);
        }
        // Anonymous ones come and go with the rule that they were written in.
        let named = |(_, form): &(String, Form)| form.flags & libc::NFT_SET_ANONYMOUS as u32 == 0;
        for (name, form) in ours(sets).filter_map(|body| read::map(&body)).filter(named) {
            let mut body = in_table();
            body.put_name(attr::ELEMENTS_SET, &name);
            let Some(found) = list(libc::NFT_MSG_GETSETELEM, body)? else { return Ok(None) };
            let elements: BTreeMap<_, _> = found.iter().flat_map(|body| read::elements(body)).collect();
            table.maps.insert(name, Map { form, elements });
        }
        Ok(Some(table))
    }
}
