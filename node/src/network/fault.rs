//! What the kernel has otherwise than wanted, in a sentence for each object.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use covey_mesh::object::{Change as TableChange, Family, Step, TABLE, Tables};
use covey_overlay::object::{Change as LinkChange, Hop, LinkKind, LinkName, Observed, Part};
use serde::{Deserialize, Serialize};

/// One object that is not as wanted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fault {
    /// Its kind, as metrics name it, and which one.
    pub object: String,
    /// What is, and what was expected.
    pub text: String,
}

/// Kinds of kernel objects, as metrics name them: links and ways, tables, and what is in containers.
pub const KINDS: [&str; 14] = [
    "sysctl",
    "link",
    "address",
    "neighbour",
    "fdb",
    "route",
    "rule",
    "flow_cache",
    "nft_table",
    "nft_chain",
    "nft_rule",
    "nft_map",
    "nft_element",
    RESOLVER,
];

/// The rule in a container that leads to its resolver.
pub const RESOLVER: &str = "resolver";

const MISSING: &str = "is missing";
const UNWANTED: &str = "is there, and nobody wants it";
const ALTERED: &str = "is not as wanted";

/// The faults that these changes mend.
pub fn of_links(changes: &[LinkChange], observed: &Observed) -> Vec<Fault> {
    let faults = changes.iter().map(|change| {
        let (which, text) = of_link(change, observed);
        Fault { object: format!("{} {which}", change.object()), text }
    });
    by_object(faults)
}

fn of_link(change: &LinkChange, observed: &Observed) -> (String, String) {
    match change {
        LinkChange::SetSwitch(path, value) => {
            let is = observed.switches.get(path).map_or_else(|| "not known".to_owned(), u32::to_string);
            ((*path).to_owned(), format!("is {is}, wanted is {value}"))
        }
        LinkChange::DeleteLink(name) => (name.to_string(), UNWANTED.to_owned()),
        LinkChange::CreateLink(name, link) => {
            let text = match observed.links.contains_key(name) {
                true => "is another one than wanted",
                false => MISSING,
            };
            let kind = match &link.kind {
                LinkKind::Vxlan(vxlan) => format!(" (VXLAN, VNI {}, of {})", vxlan.vni, vxlan.local),
                LinkKind::Veth(_) => String::new(),
                LinkKind::Uplink => " (from the router to the host)".to_owned(),
            };
            (name.to_string(), format!("{text}{kind}"))
        }
        LinkChange::MendLink { name, mtu } => {
            let text = match observed.links.get(name) {
                Some(link) if link.mtu != *mtu => format!("has an MTU of {}, wanted is {mtu}", link.mtu),
                Some(link) if !link.up => "is down, without neighbours or a bridge's port".to_owned(),
                _ => ALTERED.to_owned(),
            };
            (name.to_string(), text)
        }
        LinkChange::SetInside { link, part, .. } => inside(link, *part, observed),
        LinkChange::SetCached(name) => (format!("at {name}"), MISSING.to_owned()),
        LinkChange::SetUnderlay(wanted) => {
            let text = match (wanted, observed.underlay) {
                (None, _) => UNWANTED,
                (Some(_), None) => MISSING,
                (Some(_), Some(_)) => ALTERED,
            };
            ("at this host's own link".to_owned(), text.to_owned())
        }
        LinkChange::SetConf(name, _) => (format!("of {name}"), ALTERED.to_owned()),
        LinkChange::SetAddress(link, net) => (format!("{net} on {link}"), MISSING.to_owned()),
        LinkChange::DeleteAddress(link, net) => (format!("{net} on {link}"), UNWANTED.to_owned()),
        LinkChange::SetNeighbour { link, to, mac } => {
            let is = observed.neighbours.get(&(link.clone(), *to));
            (format!("{to} on {link}"), altered(is.map(|mac| format!("is {mac}")), mac))
        }
        LinkChange::DeleteNeighbour { link, to } => (format!("{to} on {link}"), UNWANTED.to_owned()),
        LinkChange::SetFdb { link, mac, underlay } => {
            let is = observed.fdb.get(&(link.clone(), *mac)).filter(|is| !is.is_empty());
            (format!("{mac} on {link}"), altered(is.map(|is| format!("leads to {}", list(is))), underlay))
        }
        LinkChange::DeleteFdb { link, mac, underlay } => {
            (format!("{mac} on {link}"), format!("leads to {underlay}, and nobody wants it"))
        }
        LinkChange::SetRoute(to, hop) => {
            let is = observed.routes.get(to);
            (route(to), altered(is.map(|is| format!("leads {}", way(is))), way(hop)))
        }
        LinkChange::DeleteRoute(to) => (route(to), UNWANTED.to_owned()),
        LinkChange::SetRule(rule) => (format!("for table {}", rule.table), MISSING.to_owned()),
        LinkChange::DeleteRule(rule) => (format!("for table {}", rule.table), UNWANTED.to_owned()),
    }
}

/// The same of a container's end.
fn inside(link: &LinkName, part: Part, observed: &Observed) -> (String, String) {
    let end = observed.links.get(link).and_then(|link| link.inside.as_ref());
    let is = end.and_then(|end| end.parts.iter().find(|other| part.excludes(other)));
    let (which, text) = match (part, is) {
        (Part::Up { mtu }, Some(Part::Up { mtu: is })) => {
            (String::new(), format!("has an MTU of {is}, wanted is {mtu}"))
        }
        (Part::Up { .. }, _) => (String::new(), "is down".to_owned()),
        (Part::Gateway(to, mac), Some(Part::Gateway(_, is))) => {
            (format!("{to} "), format!("is {is}, wanted is {mac}"))
        }
        (Part::Address(to) | Part::Gateway(to, _), _) => (format!("{to} "), MISSING.to_owned()),
        (Part::Route(net), _) => (format!("to {net} "), MISSING.to_owned()),
    };
    (format!("{which}at the container's end of {link}"), text)
}

fn route(to: &covey_overlay::object::Destination) -> String {
    let mut text = format!("to {}", to.net);
    if to.table != covey_overlay::object::TABLE_MAIN {
        // Writing to a string does not fail.
        let _ = write!(text, " in table {}", to.table);
    }
    text
}

fn altered(is: Option<String>, wanted: impl std::fmt::Display) -> String {
    match is {
        Some(is) => format!("{is}, wanted is {wanted}"),
        None => MISSING.to_owned(),
    }
}

fn list<'a>(addresses: impl IntoIterator<Item = &'a IpAddr>) -> String {
    addresses.into_iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

/// How a route gets there.
pub fn way(hop: &Hop) -> String {
    match hop {
        Hop::On(link) => format!("on {link}"),
        Hop::Via(link, by) => format!("by {by} on {link}"),
        Hop::Unreachable => "nowhere".to_owned(),
    }
}

/// The faults that these changes mend.
pub fn of_tables(changes: &[TableChange], observed: &Tables) -> Vec<Fault> {
    let faults = changes.iter().map(|change| {
        let family = match change.family {
            Family::Inet => "inet",
            Family::Ip6 => "ip6",
            Family::Netdev => "netdev",
        };
        let table = observed.get(&change.family);
        let has_chain = |name: &str| table.is_some_and(|table| table.chains.contains_key(name));
        let (which, text) = match &change.step {
            Step::AddTable => (String::new(), MISSING),
            Step::DeleteTable => (String::new(), UNWANTED),
            Step::AddChain(name, _) => (name.clone(), if has_chain(name) { ALTERED } else { MISSING }),
            Step::DeleteChain(name) => (name.clone(), UNWANTED),
            Step::SetRules(name, rules) => {
                (format!("of chain {name}"), if rules.is_empty() { UNWANTED } else { ALTERED })
            }
            Step::AddMap(name, _) => (name.clone(), MISSING),
            Step::DeleteMap(name) => (name.clone(), UNWANTED),
            Step::AddElement(map, key, _) => (format!("{} of map {map}", hex(key)), MISSING),
            Step::DeleteElement(map, key) => (format!("{} of map {map}", hex(key)), UNWANTED),
        };
        let which = [which, format!("in {family} {TABLE}")].into_iter().filter(|part| !part.is_empty());
        let object = format!("{} {}", change.object(), which.collect::<Vec<_>>().join(" "));
        Fault { object, text: text.to_owned() }
    });
    by_object(faults)
}

fn hex(key: &[u8]) -> String {
    key.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What is deleted to be made anew is one fault, and the one of the new one tells more.
fn by_object(faults: impl Iterator<Item = Fault>) -> Vec<Fault> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for Fault { object, text } in faults {
        found
            .entry(object)
            .and_modify(|before| {
                *before = if before != &text && [before.as_str(), &text].contains(&MISSING) {
                    ALTERED.to_owned()
                } else {
                    text.clone()
                };
            })
            .or_insert(text);
    }
    found.into_iter().map(|(object, text)| Fault { object, text }).collect()
}

#[cfg(test)]
mod tests {
    use covey_mesh::object::Value;
    use covey_overlay::{
        mac::Mac,
        object::{Destination, Inside, ObservedInside, ObservedLink, Underlay},
    };

    use super::*;

    fn faults(changes: &[LinkChange], observed: &Observed) -> Vec<String> {
        of_links(changes, observed)
            .into_iter()
            .map(|fault| format!("{} {}", fault.object, fault.text))
            .collect()
    }

    #[test]
    fn what_is_missing_is_told_from_what_is_otherwise() {
        let link = LinkName::of_vni(4097);
        let (mac, underlay) = (Mac([2, 0xfd, 0, 0, 0, 2]), IpAddr::from([10, 0, 0, 2]));
        let to = Destination::main("100.64.2.0/24".parse::<ipnet::IpNet>().unwrap());
        let hop = Hop::Via(link.clone(), [100, 64, 2, 0].into());
        let changes = [
            LinkChange::SetFdb { link: link.clone(), mac, underlay },
            LinkChange::SetRoute(to, hop),
            LinkChange::SetSwitch("ipv4/ip_forward", 1),
        ];
        let missing = [
            "fdb 02:fd:00:00:00:02 on cvx4097 is missing",
            "route to 100.64.2.0/24 is missing",
            "sysctl ipv4/ip_forward is not known, wanted is 1",
        ];
        assert_eq!(faults(&changes, &Observed::default()), missing);

        let mut observed = Observed::default();
        observed.fdb.insert((link, mac), [IpAddr::from([10, 0, 0, 9])].into());
        observed.routes.insert(to, Hop::Unreachable);
        observed.switches.insert("ipv4/ip_forward", 0);
        let altered = [
            "fdb 02:fd:00:00:00:02 on cvx4097 leads to 10.0.0.9, wanted is 10.0.0.2",
            "route to 100.64.2.0/24 leads nowhere, wanted is by 100.64.2.0 on cvx4097",
            "sysctl ipv4/ip_forward is 0, wanted is 1",
        ];
        assert_eq!(faults(&changes, &observed), altered);
    }

    #[test]
    fn where_the_flow_cache_is_missing_or_unwanted_is_told() {
        let container = LinkName::of_container(&"a".repeat(64));
        let underlay = |last| Underlay { local: [10, 0, 0, last].into(), port: 4789 };
        let set = [LinkChange::SetCached(container), LinkChange::SetUnderlay(Some(underlay(1)))];
        let missing =
            ["flow_cache at cvaaaaaaaaaaaaa is missing", "flow_cache at this host's own link is missing"];
        assert_eq!(faults(&set, &Observed::default()), missing);
        let observed = Observed { underlay: Some(underlay(9)), ..Observed::default() };
        let altered = "flow_cache at this host's own link is not as wanted";
        assert_eq!(faults(&set[1..], &observed), [altered]);
        let unwanted = "flow_cache at this host's own link is there, and nobody wants it";
        assert_eq!(faults(&[LinkChange::SetUnderlay(None)], &observed), [unwanted]);
    }

    #[test]
    fn what_is_wrong_at_a_containers_end_is_told_with_what_is_there() {
        let link = LinkName::of_container(&"a".repeat(64));
        let (to, mac) = (IpAddr::from([169, 254, 1, 1]), Mac([2, 0xfe, 0, 0, 0, 2]));
        let inside = Inside {
            namespace: "/run/a".to_owned(),
            name: "eth0".to_owned(),
            addresses: Vec::new(),
            routes: Vec::new(),
            mac,
        };
        let set = |part| LinkChange::SetInside { link: link.clone(), inside: inside.clone(), part };
        let changes =
            [Part::Up { mtu: 1450 }, Part::Gateway(to, mac), Part::Route("0.0.0.0/0".parse().unwrap())];
        let changes = changes.map(set);
        let missing = [
            "link at the container's end of cvaaaaaaaaaaaaa is down",
            "neighbour 169.254.1.1 at the container's end of cvaaaaaaaaaaaaa is missing",
            "route to 0.0.0.0/0 at the container's end of cvaaaaaaaaaaaaa is missing",
        ];
        assert_eq!(faults(&changes, &Observed::default()), missing);

        let parts = [Part::Up { mtu: 1300 }, Part::Gateway(to, Mac([2; 6]))];
        let end = ObservedInside { mac: Some(mac), v4_only: false, parts: parts.into() };
        let seen = ObservedLink {
            mac: None,
            mtu: 0,
            up: true,
            conf: None,
            vxlan: None,
            inside: Some(end),
            cached: false,
        };
        let observed = Observed { links: [(link.clone(), seen)].into(), ..Observed::default() };
        let altered = [
            "link at the container's end of cvaaaaaaaaaaaaa has an MTU of 1300, wanted is 1450",
            "neighbour 169.254.1.1 at the container's end of cvaaaaaaaaaaaaa is 02:02:02:02:02:02, wanted is \
             02:fe:00:00:00:02",
        ];
        assert_eq!(faults(&changes[..2], &observed), altered);
    }

    #[test]
    fn what_is_deleted_and_made_anew_is_one_fault() {
        let change = |step| TableChange { family: Family::Inet, step };
        let changes = [
            change(Step::DeleteElement("vip4".into(), vec![10, 0, 1, 2])),
            change(Step::AddElement("vip4".into(), vec![10, 0, 1, 2], Value::Member)),
            change(Step::AddElement("vip4".into(), vec![10, 0, 1, 3], Value::Member)),
        ];
        let texts: Vec<_> = of_tables(&changes, &Tables::new()).into_iter().map(|fault| fault.text).collect();
        assert_eq!(texts, [ALTERED, MISSING]);
        let which = &of_tables(&changes[2..], &Tables::new())[0].object;
        assert_eq!(which, "nft_element 0a000103 of map vip4 in inet covey");
    }

    #[test]
    fn every_kind_of_object_has_its_metric() {
        let to = Destination::main("10.0.0.0/8".parse::<ipnet::IpNet>().unwrap());
        let element =
            TableChange { family: Family::Inet, step: Step::DeleteElement(String::new(), Vec::new()) };
        let links = [LinkChange::DeleteRoute(to), LinkChange::SetUnderlay(None)];
        for kind in links.iter().map(LinkChange::object).chain([element.object()]) {
            assert!(KINDS.contains(&kind), "{kind}");
        }
    }
}
