//! The network below: what it takes, and what passed by a link.

use std::{net::IpAddr, path::Path};

use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkMessage},
};

use crate::{
    message, namespace,
    socket::{NetlinkError, Route},
};

/// Packets that passed a link since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Received.
    pub rx_packets: u64,
    /// Sent.
    pub tx_packets: u64,
}

/// Bytes of a packet, at most, on the link that has this address. None where no link has it.
///
/// # Errors
/// [`NetlinkError`].
pub fn mtu_of(local: IpAddr) -> Result<Option<u32>, NetlinkError> {
    let mut route = Route::open()?;
    let Some(index) = index_of(&mut route, local)? else { return Ok(None) };
    attribute(&mut route, message::of(index), |attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

/// The link that has this address.
pub(crate) fn index_of(route: &mut Route, local: IpAddr) -> Result<Option<u32>, NetlinkError> {
    let addresses = route.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    Ok(addresses.into_iter().find_map(|message| match message {
        RouteNetlinkMessage::NewAddress(address) if has(&address, local) => Some(address.header.index),
        _ => None,
    }))
}

fn has(address: &AddressMessage, local: IpAddr) -> bool {
    address.attributes.iter().any(|attribute| match attribute {
        AddressAttribute::Address(address) | AddressAttribute::Local(address) => *address == local,
        _ => false,
    })
}

/// What passed a link, of the namespace at this path or else of this thread's.
///
/// # Errors
/// [`NetlinkError`], as where there is no such link.
pub fn link_counters(namespace: Option<&Path>, link: &str) -> Result<Counters, NetlinkError> {
    let count = || {
        let counters = attribute(&mut Route::open()?, message::named(link), |attribute| match attribute {
            LinkAttribute::Stats64(stats) => {
                Some(Counters { rx_packets: stats.rx_packets, tx_packets: stats.tx_packets })
            }
            _ => None,
        })?;
        Ok(counters.unwrap_or_default())
    };
    match namespace {
        Some(path) => namespace::inside(path, count),
        None => count(),
    }
}

fn attribute<T>(
    route: &mut Route,
    link: LinkMessage,
    pick: impl Fn(&LinkAttribute) -> Option<T>,
) -> Result<Option<T>, NetlinkError> {
    Ok(match route.ask(RouteNetlinkMessage::GetLink(link))? {
        Some(RouteNetlinkMessage::NewLink(link)) => link.attributes.iter().find_map(pick),
        _ => None,
    })
}
