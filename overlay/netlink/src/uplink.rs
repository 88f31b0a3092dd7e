//! A router's uplink: a veth pair whose other end is in the host's namespace, called the same there.

use std::os::fd::AsFd;

use covey_overlay::{
    flow_cache::Uplink,
    object::{Link, LinkName, ObservedLink, UPLINK_PREFIX},
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};

use crate::{
    message, read,
    socket::{CREATE, NetlinkError, Route},
    stack::{Elsewhere, Stack, StackError, doing},
    tc::{self, Direction},
};

impl Stack {
    /// A new one, both ends up.
    pub(crate) fn create_uplink(&mut self, name: &LinkName, link: &Link) -> Result<(), StackError> {
        let Some(Elsewhere { file, host, .. }) = &mut self.elsewhere else { return Ok(()) };
        let message = message::new_link(name, link, Some(file.as_fd()));
        match host.request(RouteNetlinkMessage::NewLink(message), CREATE) {
            Err(error) if error.errno() == Some(libc::EEXIST) => {
                return Err(StackError::VniTaken { vni: vni(name).unwrap_or_default() });
            }
            made => made.map_err(doing(format!("make link {name}")))?,
        }
        // The kernel takes no other end that is up before its link is there.
        self.mend_uplink(name, link.mtu)?;
        self.begin_cached(name, link);
        Ok(())
    }

    /// Brings both ends up.
    pub(crate) fn mend_uplink(&mut self, name: &LinkName, mtu: u32) -> Result<(), StackError> {
        let index = self.index(name)?;
        let mended = |index| RouteNetlinkMessage::SetLink(message::restored(index, mtu));
        let mut set = self.route.request(mended(index), 0);
        if let (Some(other), Some(elsewhere)) = (self.other_end(name, index)?, &mut self.elsewhere) {
            set = set.and(elsewhere.host.request(mended(other.0), 0));
        }
        set.map_err(doing(format!("set link {name} up")))
    }

    /// What is sent by one end goes on at the other.
    pub(crate) fn set_relays(&mut self, name: &LinkName) -> Result<(), StackError> {
        let index = self.index(name)?;
        let other = self.other_end(name, index)?;
        let (Some(share), Some((other, _)), Some(elsewhere)) = (&self.share, other, &mut self.elsewhere)
        else {
            return Ok(());
        };
        let what = || doing(format!("attach BPF programs at {name}"));
        tc::attach(&mut self.route, index, &[(Direction::In, &share.cache.relaying_in)]).map_err(what())?;
        tc::attach(&mut elsewhere.host, other, &[(Direction::In, &share.cache.relaying_out)]).map_err(what())
    }

    /// The uplink of this router, if both ends are there.
    pub(crate) fn uplink(&mut self) -> Result<Option<Uplink>, StackError> {
        let found = self.indexes.iter().find(|(name, _)| name.is_uplink());
        let Some((name, router)) = found.map(|(name, index)| (name.clone(), *index)) else { return Ok(None) };
        let other = self.other_end(&name, router)?;
        Ok(other.zip(vni(&name)).map(|((host, _), vni)| Uplink { vni, router, host }))
    }

    /// Adds the host's end to what was seen of the router's: one without the other, which has the same Ethernet
    /// address, is a stranger.
    pub(crate) fn look_up(&mut self, name: &LinkName, seen: &mut ObservedLink) -> Result<(), StackError> {
        let index = self.index(name)?;
        let found = self.other_end(name, index)?.filter(|(_, end)| end.mac == seen.mac);
        let Some((other, end)) = found else {
            seen.mac = None;
            return Ok(());
        };
        seen.up &= end.up && end.mtu == seen.mtu;
        if let (Some(share), Some(elsewhere)) = (&self.share, &mut self.elsewhere) {
            let has = |route: &mut Route, index, id| {
                Ok::<_, NetlinkError>(tc::attached(route, index, Direction::In)? == Some(id))
            };
            seen.cached = has(&mut self.route, index, share.cache.relaying_in.id)
                .and_then(|here| Ok(here && has(&mut elsewhere.host, other, share.cache.relaying_out.id)?))
                .map_err(doing("list BPF programs"))?;
        }
        Ok(())
    }

    /// The host's end of the uplink that has this index here: its own index, and what it is.
    fn other_end(&mut self, name: &LinkName, index: u32) -> Result<Option<(u32, ObservedLink)>, StackError> {
        let Some(elsewhere) = &mut self.elsewhere else { return Ok(None) };
        match elsewhere.host.ask(RouteNetlinkMessage::GetLink(message::named(name.as_str()))) {
            Ok(Some(RouteNetlinkMessage::NewLink(link))) if leads_to(&link, index) => {
                Ok(read::link(&link).map(|(_, seen)| (link.header.index, seen)))
            }
            Err(error) if error.errno() != Some(libc::ENODEV) => {
                Err(doing(format!("the host's end of {name}"))(error))
            }
            _ => Ok(None),
        }
    }
}

fn leads_to(link: &LinkMessage, index: u32) -> bool {
    link.attributes.contains(&LinkAttribute::Link(index))
}

fn vni(name: &LinkName) -> Option<u32> {
    name.as_str().strip_prefix(UPLINK_PREFIX)?.parse().ok()
}
