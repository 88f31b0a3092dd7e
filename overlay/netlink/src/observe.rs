//! What a namespace has of ours.

use std::collections::{BTreeMap, BTreeSet};

use covey_overlay::object::{Inside, LinkName, Observed, ObservedLink, Wanted};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkLayerType, LinkMessage},
    neighbour::NeighbourMessage,
    route::RouteMessage,
    rule::RuleMessage,
};

use crate::{
    inside, namespace, read,
    stack::{LOOPBACK, Stack, StackError, doing},
};

impl Stack {
    /// What the kernel has of ours in this namespace: of a container's link the host's end.
    ///
    /// # Errors
    /// A list could not be read.
    pub fn observe(&mut self) -> Result<Observed, StackError> {
        let mut observed = Observed { switches: self.read_switches()?, ..Observed::default() };
        let (links, others) = self.list_links()?;
        observed.links = links;
        let mut names: BTreeMap<u32, LinkName> =
            self.indexes.iter().map(|(name, index)| (*index, name.clone())).collect();
        for message in self.list("routes", RouteNetlinkMessage::GetRoute(RouteMessage::default()))? {
            if let RouteNetlinkMessage::NewRoute(route) = message
                && let Some((to, hop)) = read::route(&route, |index| names.get(&index).cloned())
            {
                observed.routes.insert(to, hop);
            }
        }
        self.observe_neighbours(&names, &mut observed)?;
        self.observe_cached(&mut observed)?;
        if !self.is_own() {
            observed.underlay = self.observe_underlay(&others)?;
        }
        if self.is_own() {
            // All of a namespace of ours is ours.
            names.insert(LOOPBACK, LinkName::loopback());
        }
        for message in self.list("addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
            if let RouteNetlinkMessage::NewAddress(address) = message
                && let Some((index, address)) = read::address(&address)
                && let Some(name) = names.get(&index)
            {
                observed.addresses.insert((name.clone(), address));
            }
        }
        for message in self.list("rules", RouteNetlinkMessage::GetRule(RuleMessage::default()))? {
            if let RouteNetlinkMessage::NewRule(rule) = message {
                observed.rules.extend(read::rule(&rule));
            }
        }
        Ok(observed)
    }

    fn observe_neighbours(
        &mut self,
        names: &BTreeMap<u32, LinkName>,
        observed: &mut Observed,
    ) -> Result<(), StackError> {
        let all = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        for message in self.list("neighbours", all)? {
            if let RouteNetlinkMessage::NewNeighbour(neighbour) = message
                && let Some((to, mac)) = read::neighbour(&neighbour)
                && let Some(name) = names.get(&neighbour.header.ifindex)
            {
                observed.neighbours.insert((name.clone(), to), mac);
            }
        }
        let mut all = NeighbourMessage::default();
        all.header.family = AddressFamily::Bridge;
        for message in self.list("forwarding tables", RouteNetlinkMessage::GetNeighbour(all))? {
            if let RouteNetlinkMessage::NewNeighbour(entry) = message
                && let Some((underlay, mac)) = read::fdb(&entry)
                && let Some(name) = names.get(&entry.header.ifindex)
            {
                observed.fdb.entry((name.clone(), mac)).or_default().insert(underlay);
            }
        }
        Ok(())
    }

    /// Links of ours, and the indexes of others that are Ethernet's: programs for packets know no others, such as loopbacks
    /// and tunnels. Uplinks are their routers'.
    pub(crate) fn list_links(
        &mut self,
    ) -> Result<(BTreeMap<LinkName, ObservedLink>, BTreeSet<u32>), StackError> {
        let (mut ours, mut others) = (BTreeMap::new(), BTreeSet::new());
        self.indexes.clear();
        for message in self.list("links", RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
            let RouteNetlinkMessage::NewLink(link) = message else { continue };
            let index = link.header.index;
            match read::link(&link) {
                Some((name, seen)) if self.is_own() || !name.is_uplink() => {
                    self.indexes.insert(name.clone(), index);
                    ours.insert(name, seen);
                }
                None if link.header.link_layer_type == LinkLayerType::Ether => _ = others.insert(index),
                _ => {}
            }
        }
        Ok((ours, others))
    }

    /// Adds the containers' ends of links that are there: from inside each container's namespace, on one thread. One
    /// that cannot be entered is not looked at: its container has ended.
    pub(crate) fn look_inside(&self, wanted: &Wanted, observed: &mut Observed) -> Result<(), StackError> {
        let ends: Vec<(&LinkName, &Inside, u32)> = wanted
            .links
            .iter()
            .filter_map(|(name, link)| Some((name, link.inside()?, *self.indexes.get(name)?)))
            .collect();
        if ends.is_empty() {
            return Ok(());
        }
        namespace::on_a_thread(|| {
            for (name, inside, index) in ends {
                if namespace::enter(inside.namespace.as_ref()).is_ok()
                    && let Some(link) = observed.links.get_mut(name)
                {
                    let seen = inside::observe(inside, index);
                    link.inside = Some(seen.map_err(doing(format!("container's end of {name}")))?);
                }
            }
            Ok(())
        })
    }

    fn list(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, StackError> {
        self.route.dump(message).map_err(doing(format!("list {what}")))
    }
}
