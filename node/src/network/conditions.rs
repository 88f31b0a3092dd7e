//! What else on this host packets of its containers depend on, and which is not ours to change.

use std::fs;

use covey_mesh_netlink::forward_drops;

use super::report::{Seen, State};

/// Tracked connections, and how many there may be.
const CONNTRACK: [&str; 2] =
    ["/proc/sys/net/netfilter/nf_conntrack_count", "/proc/sys/net/netfilter/nf_conntrack_max"];
/// From so many percent on new connections are about to be dropped.
const FULL_PERCENT: u64 = 90;
/// Bridges of others hand what they forward to iptables.
const BRIDGES: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Looks at all of it. Blocks for a few system calls.
pub fn look() -> Vec<Seen> {
    let mut seen = forwarding();
    seen.extend(connections(&CONNTRACK.map(number)));
    if number(BRIDGES) == Some(1) {
        let text = "bridges of this host hand packets to iptables: no harm to Covey, whose links are routed";
        seen.push(Seen::of_host("br_netfilter", State::Ok, text));
    }
    seen
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn forwarding() -> Vec<Seen> {
    let drops = match forward_drops() {
        Ok(drops) => drops,
        Err(error) => {
            let text = format!("tables of others cannot be looked at: {error}");
            return vec![Seen::of_host("nft forward", State::Wrong, text)];
        }
    };
    if drops.is_empty() {
        return vec![Seen::of_host("nft forward", State::Ok, "no table of others drops what is forwarded")];
    }
    let of = |drop: covey_mesh_netlink::ForeignChain| {
        let object = format!("nft {} {} {}", drop.family, drop.table, drop.chain);
        let text = "this chain of others drops whatever none of its rules accepts: packets of containers do not pass \
                    unless it accepts those from and to cv* interfaces";
        Seen::of_host(object, State::Wrong, text)
    };
    drops.into_iter().map(of).collect()
}

/// Nothing where the kernel tracks none.
fn connections(numbers: &[Option<u64>; 2]) -> Option<Seen> {
    let [Some(count), Some(max)] = *numbers else { return None };
    let text = format!("{count} of {max} connections are tracked");
    Some(if count.saturating_mul(100) >= max.saturating_mul(FULL_PERCENT) {
        let text =
            format!("{text}: new ones are dropped when it is full (raise net.netfilter.nf_conntrack_max)");
        Seen::of_host("conntrack", State::Wrong, text)
    } else {
        Seen::of_host("conntrack", State::Ok, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_connections_that_is_nearly_full_is_told() {
        let state = |count, max| connections(&[Some(count), Some(max)]).map(|seen| seen.state);
        assert_eq!(state(89, 100), Some(State::Ok));
        assert_eq!(state(90, 100), Some(State::Wrong));
        assert_eq!(state(0, 0), Some(State::Wrong));
        assert_eq!(connections(&[None, Some(1)]), None);
    }
}
