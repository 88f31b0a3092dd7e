//! The way out: which sources are masqueraded, and the planner that keeps it so.

use std::collections::BTreeSet;

use ipnet::IpNet;

/// Packets from this block that leave by a link other than a container's are masqueraded.
///
/// Links of containers are known by the prefix of their name, so that containers of one host see each other's own
/// addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Masquerade {
    /// The host's block.
    pub source: IpNet,
    /// In front of the names of containers' links.
    pub inside: String,
}

/// One step that brings the kernel closer to what is wanted. All steps of a plan are one atomic batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Our table is made anew, with exactly these rules.
    Replace(BTreeSet<Masquerade>),
    /// Our table goes.
    Delete,
}

/// What the kernel has: `None` without our table, else its rules; a rule that is not one of ours in form is `Err`
/// with its place.
pub type Observed = Option<Result<BTreeSet<Masquerade>, usize>>;

/// The step from `observed` to `desired`, if any is needed.
pub fn plan(desired: &BTreeSet<Masquerade>, observed: &Observed) -> Option<Change> {
    match observed {
        None if desired.is_empty() => None,
        Some(_) if desired.is_empty() => Some(Change::Delete),
        Some(Ok(rules)) if rules == desired => None,
        _ => Some(Change::Replace(desired.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(sources: &[&str]) -> BTreeSet<Masquerade> {
        sources.iter().map(|s| Masquerade { source: s.parse().unwrap(), inside: "cv".to_owned() }).collect()
    }

    #[test]
    fn what_is_as_wanted_is_left_alone() {
        let wanted = rules(&["100.64.1.0/24", "fd00::/64"]);
        assert_eq!(plan(&wanted, &Some(Ok(wanted.clone()))), None);
        assert_eq!(plan(&rules(&[]), &None), None);
    }

    #[test]
    fn missing_other_and_damaged_rules_are_replaced() {
        let wanted = rules(&["100.64.1.0/24"]);
        for observed in [None, Some(Ok(rules(&[]))), Some(Ok(rules(&["100.64.2.0/24"]))), Some(Err(1))] {
            assert_eq!(plan(&wanted, &observed), Some(Change::Replace(wanted.clone())));
        }
    }

    #[test]
    fn nothing_is_left_where_nothing_is_wanted() {
        assert_eq!(plan(&rules(&[]), &Some(Ok(rules(&["100.64.1.0/24"])))), Some(Change::Delete));
    }
}
