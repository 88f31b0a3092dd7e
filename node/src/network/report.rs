//! What one host finds when it examines its networks, and what it takes to be true of the others' endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use covey_state::Id;
use serde::{Deserialize, Serialize};

use super::{
    conditions,
    edge::name_of,
    fault::Fault,
    keeper::Keeper,
    probe::{self, PROBED_MAX, Reach},
    rows::{Key, Rows},
};
use crate::endpoint::{Endpoint, Scope};

/// What the edge, with the ports that services publish, is called among networks.
pub const INGRESS: &str = "ingress";
/// Things told of one network, at most; of the rest only how many they are.
const SEEN_MAX: usize = 256;

/// How something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum State {
    /// As it should be.
    Ok,
    /// It was not, and is again.
    Repaired,
    /// It is not.
    Wrong,
}

/// What a look at one thing showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The network; empty: the host as a whole.
    pub network: String,
    /// What was looked at.
    pub object: String,
    /// How it was found.
    pub state: State,
    /// In one sentence.
    pub text: String,
}

impl Seen {
    /// Of a network.
    pub fn new(network: &str, object: impl Into<String>, state: State, text: impl Into<String>) -> Self {
        Self { network: network.to_owned(), object: object.into(), state, text: text.into() }
    }

    /// Of the host as a whole.
    pub fn of_host(object: impl Into<String>, state: State, text: impl Into<String>) -> Self {
        Self::new("", object, state, text)
    }
}

/// How one host's networks are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What it saw.
    pub seen: Vec<Seen>,
    /// Of what it hears endpoints, and how that is called.
    pub heard: BTreeMap<Scope, String>,
    /// Its endpoints, and what it takes to be those of each other host.
    pub beliefs: BTreeMap<(Scope, Id), Belief>,
    /// Bytes of a packet of full size.
    pub mtu: u32,
    /// How it reaches others by the data path.
    pub reached: Vec<(Id, Reach)>,
}

/// The endpoints of one host in short: where two differ, their rows differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Belief {
    /// So many.
    pub rows: u64,
    /// The sum of their digests.
    pub sum: u64,
}

/// One endpoint, as it is told or believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Which of its host's.
    pub key: String,
    /// Of all that is told of it.
    pub digest: u64,
    /// For people: its name and addresses.
    pub shown: String,
}

/// Whom to probe, and with what.
pub struct Probes {
    from: Ipv4Addr,
    device: String,
    mtu: u32,
    hosts: Vec<(Id, Ipv4Addr)>,
}

/// Examines this host's networks, and mends what is not as it should be.
pub fn examine(keeper: &mut Keeper) -> (Report, Option<Probes>) {
    let before = faults(keeper);
    let is_well = before.iter().all(|(_, found)| found.as_ref().is_ok_and(Vec::is_empty));
    let after = if is_well {
        before.clone()
    } else {
        keeper.repair();
        faults(keeper)
    };
    let mut seen = kernel(before, after);
    let drift = keeper.drift.iter();
    seen.extend(drift.map(|(kind, count)| {
        let text = format!("{count} mended since the daemon began");
        Seen::of_host(format!("drift of {kind}"), State::Repaired, text)
    }));
    // Of both families the same is said.
    let refused: BTreeSet<_> =
        keeper.edge.refused.iter().map(|(frontend, refusal)| (name_of(frontend), &refusal.why)).collect();
    seen.extend(refused.into_iter().map(|(port, why)| Seen::new(INGRESS, port, State::Wrong, why)));
    let (heard, beliefs) = beliefs(keeper);
    let probes = probes(keeper);
    let mtu = probes.as_ref().map_or(0, |probes| probes.mtu);
    (Report { seen, heard, beliefs, mtu, reached: Vec::new() }, probes)
}

impl Report {
    /// With what lies outside of the keeper's realm. Blocks while others are probed.
    pub fn with_surroundings(mut self, probes: Option<Probes>) -> Self {
        self.seen.extend(conditions::look());
        let Some(Probes { from, device, mtu, hosts }) = probes else { return self };
        let (ids, addresses): (Vec<Id>, Vec<Ipv4Addr>) = hosts.into_iter().unzip();
        match probe::reach(from, &device, mtu, &addresses) {
            Ok(reached) => self.reached = ids.into_iter().zip(reached).collect(),
            Err(error) => {
                let text = format!("other hosts cannot be probed through {device}: {error}");
                self.seen.push(Seen::of_host("data path", State::Wrong, text));
            }
        }
        self
    }
}

/// What is not as wanted in the kernel, or why that is not known.
type Found = Result<Vec<Fault>, String>;
/// The same of each network, in the same order whenever it is looked at.
type Faults = Vec<(String, Found)>;

fn faults(keeper: &mut Keeper) -> Faults {
    let words = |error: anyhow::Error| format!("{error:#}");
    let mut found = vec![(INGRESS.to_owned(), keeper.edge.examine().map_err(words))];
    let networks: Vec<Id> = keeper.carriers.keys().copied().collect();
    for network in networks {
        let resolvers = keeper.examine_resolvers(network);
        if let Some(carrier) = keeper.carriers.get_mut(&network) {
            let faults = carrier.examine().and_then(|faults| Ok([faults, resolvers?].concat()));
            found.push((carrier.config.name.clone(), faults.map_err(words)));
        }
    }
    found
}

/// What was found of each network, and what of it was found again after it was mended.
fn kernel(before: Faults, after: Faults) -> Vec<Seen> {
    let networks = before.into_iter().zip(after);
    networks.flat_map(|((network, before), (_, after))| links_and_tables(&network, before, after)).collect()
}

fn links_and_tables(network: &str, before: Found, after: Found) -> Vec<Seen> {
    let kernel = |state, text: String| Seen::new(network, "kernel", state, text);
    let left = match after {
        Ok(left) => left,
        Err(error) => return vec![kernel(State::Wrong, format!("cannot be looked at: {error}"))],
    };
    let mut gone = before.unwrap_or_default();
    gone.retain(|fault| left.iter().all(|other| other.object != fault.object));
    if left.is_empty() && gone.is_empty() {
        return vec![kernel(State::Ok, "links, ways and tables are as wanted".to_owned())];
    }
    let more = (left.len() + gone.len()).saturating_sub(SEEN_MAX);
    let of = |state| move |Fault { object, text }: Fault| Seen::new(network, object, state, text);
    let all = left.into_iter().map(of(State::Wrong)).chain(gone.into_iter().map(of(State::Repaired)));
    let mut seen: Vec<Seen> = all.take(SEEN_MAX).collect();
    if more > 0 {
        seen.push(kernel(State::Wrong, format!("{more} objects more are or were not as wanted")));
    }
    seen
}

/// Scopes that gossip tells of, with what is believed there.
fn scopes(keeper: &Keeper) -> impl Iterator<Item = (Scope, String, &Rows)> {
    let ingress = keeper.place.map(|_| (Scope::Ingress, INGRESS.to_owned(), &keeper.edge.balancer.rows));
    let overlays = keeper.carriers.values().filter(|carrier| carrier.config.is_overlay());
    let networks = overlays.map(|carrier| {
        (Scope::Network(carrier.config.id), carrier.config.name.clone(), &carrier.balancer.rows)
    });
    ingress.into_iter().chain(networks)
}

fn beliefs(keeper: &Keeper) -> (BTreeMap<Scope, String>, BTreeMap<(Scope, Id), Belief>) {
    let (mut heard, mut beliefs) = (BTreeMap::new(), BTreeMap::<_, Belief>::new());
    for (scope, name, rows) in scopes(keeper) {
        heard.insert(scope, name);
        for (key, row) in rows.iter() {
            let belief = beliefs.entry((scope, key.0)).or_default();
            belief.rows += 1;
            belief.sum = belief.sum.wrapping_add(digest(key, row));
        }
    }
    (heard, beliefs)
}

/// What is believed of one host's endpoints.
pub fn rows(keeper: &Keeper, scope: Scope, owner: Id) -> Vec<Row> {
    let rows = scopes(keeper).find(|(other, ..)| *other == scope).map(|(.., rows)| rows);
    let of_owner = rows.into_iter().flat_map(|rows| rows.of_owner(owner));
    let row = |(key, row): (&Key, &Endpoint)| Row {
        key: key.1.to_string(),
        digest: digest(key, row),
        shown: shown(row),
    };
    of_owner.map(row).collect()
}

fn shown(row: &Endpoint) -> String {
    let addresses: Vec<String> = row.addresses.iter().map(ToString::to_string).collect();
    let name = row.names.first().map_or(row.container.as_str(), String::as_str);
    format!("{name} ({})", addresses.join(", "))
}

/// FNV-1a, 64 bits: the same on all hosts, whatever they were built with. Nobody gains by a collision.
fn digest(key: &Key, row: &Endpoint) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let row = covey_wire::encode(row).unwrap_or_default();
    let bytes = key.1.as_bytes().iter().chain(&[0]).chain(&row);
    bytes.fold(BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// The hosts behind this one in the order of their numbers: where there are more than can be probed, each host is
/// probed by those before it.
fn probes(keeper: &Keeper) -> Option<Probes> {
    let (place, device) = (keeper.place?, keeper.edge.device()?);
    let mut others: Vec<_> = keeper.neighbours.iter().collect();
    others.sort_by_key(|other| (other.host.number < place.host.number, other.host.number));
    let hosts = others.into_iter().take(PROBED_MAX).map(|other| (other.id, other.host.edge.v4.network()));
    Some(Probes {
        from: device.v4.network(),
        device: covey_overlay::object::LinkName::of_vni(covey_overlay::edge::VNI).to_string(),
        mtu: device.mtu,
        hosts: hosts.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(object: &str) -> Fault {
        Fault { object: object.into(), text: "is missing".into() }
    }

    fn states(seen: &[Seen]) -> Vec<(&str, State)> {
        seen.iter().map(|seen| (seen.object.as_str(), seen.state)).collect()
    }

    #[test]
    fn what_is_mended_by_looking_is_told_from_what_is_not() {
        let network = || "front".to_owned();
        let before = || vec![(network(), Ok(vec![fault("fdb a"), fault("route b")]))];
        let after = vec![(network(), Ok(vec![fault("route b")]))];
        let seen = kernel(before(), after);
        assert_eq!(states(&seen), [("route b", State::Wrong), ("fdb a", State::Repaired)]);
        let seen = kernel(before(), vec![(network(), Err("no".into()))]);
        assert_eq!((seen.len(), seen[0].text.as_str()), (1, "cannot be looked at: no"));
        let well = || vec![(network(), Ok(Vec::new()))];
        assert_eq!(states(&kernel(well(), well())), [("kernel", State::Ok)]);
    }

    #[test]
    fn networks_of_one_name_are_told_apart() {
        let network = |found| ("front".to_owned(), found);
        let before = vec![network(Ok(vec![fault("route a")])), network(Ok(vec![fault("route b")]))];
        let after = vec![network(Ok(vec![fault("route a")])), network(Ok(Vec::new()))];
        assert_eq!(states(&kernel(before, after)), [("route a", State::Wrong), ("route b", State::Repaired)]);
    }

    #[test]
    fn so_many_faults_that_nobody_reads_them_are_counted() {
        let many = (0..SEEN_MAX + 3).map(|number| fault(&format!("route {number}"))).collect();
        let seen = kernel(vec![("front".into(), Ok(many))], vec![("front".into(), Ok(Vec::new()))]);
        assert_eq!(seen.len(), SEEN_MAX + 1);
        assert!(seen[SEEN_MAX].text.starts_with("3 objects more"), "{}", seen[SEEN_MAX].text);
    }
}
