//! What the router of one network holds: virtual addresses.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    expression::{self as e, Connection, Meta, Register, Rule},
    layout::{Ip, KEY, Shape, VALUE, octets},
    object::{Family, Form, Map, Table, Tables, Value},
    program::{At, add_services, hooked, own_sources_only, priority},
};

/// The router of one network on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Addresses of the tasks on this host: one that reaches itself through a virtual address sees that as the
    /// other side, since nobody answers to himself over a wire.
    pub own: BTreeSet<IpAddr>,
    /// In front of the names of the links to other hosts; at most 15 bytes. Whatever else comes in is a container's.
    pub outside: String,
}

/// Connections of a task to itself, as pairs of addresses.
const ITSELF: &str = "itself";

impl Network {
    pub(crate) fn tables(&self) -> Tables {
        let mut table = Table::default();
        let services = add_services(&mut table, &[Shape::Address]);
        for ip in Ip::BOTH {
            let own = self.own.iter().filter(|address| Ip::of(**address) == ip);
            let pair = |address: &IpAddr| (octets(*address).repeat(2), Value::Member);
            let itself =
                Map { form: Form::set(ip.address().and(ip.address())), elements: own.map(pair).collect() };
            table.maps.insert(ip.name(ITSELF), itself);
        }
        let ask = || vec![vec![e::jump(services)]];
        let from_a_container =
            vec![e::meta(Meta::InputName, VALUE), e::is_not(VALUE, self.outside.as_bytes())];
        let to_itself = Ip::BOTH.map(to_itself).to_vec();
        table.chains.extend(
            [
                ("prerouting", hooked("nat", At::PreRouting, priority::NAT_DESTINATION, ask())),
                ("output", hooked("nat", At::Output, priority::NAT_DESTINATION, ask())),
                ("postrouting", hooked("nat", At::PostRouting, priority::NAT_SOURCE, to_itself)),
            ]
            .map(|(name, chain)| (name.to_owned(), chain)),
        );
        Tables::from([(Family::Inet, table), own_sources_only(from_a_container)])
    }
}

/// `ip saddr . ip daddr @itself snat to ct original ip daddr`.
fn to_itself(ip: Ip) -> Rule {
    let address = match ip {
        Ip::V4 => Connection::DestinationV4,
        Ip::V6 => Connection::DestinationV6,
    };
    let mut rule = ip.only().to_vec();
    rule.extend([
        ip.source(KEY),
        ip.destination(Register(ip.behind())),
        e::is_in(&ip.name(ITSELF), KEY),
        e::connection_original(address, VALUE),
        e::translate_source(ip.number(), VALUE),
    ]);
    rule
}
