//! SWIM: the library that detects failures, driven by our time, with what a small cluster needs on top.
//!
//! On top are: a lost connection makes a suspect at once; whoever suspects a member asks it directly until it
//! answers or its time is over, so that short times cause no false deaths; a stall of this node is not held
//! against others; members that are down are tried again; a node that says good-bye is told from a dead one.

mod codec;
mod identity;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::{NonZeroU8, NonZeroUsize},
    time::{Duration, Instant},
};

use bytes::Bytes;
use covey_wire::Id;
use foca::{
    AccumulatingRuntime, Foca, Incarnation, NoCustomBroadcast, OwnedNotification, PeriodicParams, State,
    Timer,
};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus, seq::IteratorRandom};

use self::codec::{Codec, HEADER_BYTES_MAX};
use crate::{
    config::{Config, DATAGRAM_BYTES_MAX, MEMBERS_MAX},
    digest::{self, Sums},
    error::MessageError,
    member::Peer,
    timer::Timers,
};

/// Bytes of kind and envelope in front of a packet.
const FRAME_BYTES: usize = 2;
/// Members that are asked to try when a probe has no direct answer, and that hear of a death at once.
const INDIRECT: usize = 3;
/// From so many suspects of its own on, a node that hears of fewer others suspects itself first…
const DOUBTS_FROM: usize = 3;
/// …and is so many times as patient.
const DOUBT: u32 = 3;
/// Members told of in one list up to which each is passed on as news; longer lists are old knowledge for most.
const NEWS_MAX: usize = 16;
/// Expected attempts a period, of all nodes together, to reach each member that is down.
const REVIVERS: u32 = 3;

/// What SWIM wants done or known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SwimEvent {
    Send {
        to: Peer,
        packet: Bytes,
    },
    Up(Peer),
    Down(Peer),
    Left(Peer),
    /// A dead member is remembered no longer.
    Forgotten(Id),
    /// There is somebody else again.
    Connected,
    /// Others hold this incarnation of this node, or a larger one, to be over.
    Overtaken(u64),
}

enum Due {
    Library(Timer<Peer>),
    /// Ask a suspect directly whether it lives.
    Confirm(Peer, Incarnation),
    Revive,
}

pub(crate) struct Swim {
    foca: Foca<Peer, Codec, Xoshiro256PlusPlus, NoCustomBroadcast>,
    effects: AccumulatingRuntime<Peer>,
    events: VecDeque<SwimEvent>,
    timers: Timers<Due>,
    /// The library's token of timers that still count.
    token: foca::TimerToken,
    /// Those whom this node itself suspects.
    accused: BTreeMap<Id, Incarnation>,
    /// When each peer was last heard.
    heard: BTreeMap<Id, Instant>,
    /// A death is to be told at once.
    urgent: bool,
    config: Config,
    rng: Xoshiro256PlusPlus,
}

impl Swim {
    pub fn new(now: Instant, config: Config, me: Peer, seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let library = library_config(&config, 1);
        let mut timers = Timers::new();
        timers.add(now + config.revive_period, Due::Revive);
        Self {
            foca: Foca::new(me, library, Xoshiro256PlusPlus::from_rng(&mut rng), Codec),
            effects: AccumulatingRuntime::default(),
            events: VecDeque::new(),
            timers,
            token: 0,
            accused: BTreeMap::new(),
            heard: BTreeMap::new(),
            urgent: false,
            config,
            rng,
        }
    }

    /// This node, as it presents itself.
    pub const fn me(&self) -> &Peer {
        self.foca.identity()
    }

    pub fn poll_event(&mut self) -> Option<SwimEvent> {
        self.events.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Call before anything that comes in: time that this node slept through does not count.
    pub fn wake(&mut self, now: Instant) {
        self.timers.excuse(now, self.config.late_after);
    }

    /// A peer proved, by any message, that it lives and reaches this node.
    pub fn heard(&mut self, now: Instant, from: Id) {
        self.heard.insert(from, now);
    }

    pub fn handle_packet(&mut self, now: Instant, from: Id, packet: &[u8]) -> Result<(), MessageError> {
        let (header, _) = covey_wire::decode_prefix::<foca::Header<Peer>, HEADER_BYTES_MAX>(packet)?;
        if header.src.id != from {
            return Err(MessageError::Impostor { claimed: header.src.id, from });
        }
        if self.foca.iter_membership_state().len() >= MEMBERS_MAX && !self.knows(from) {
            return Err(MessageError::Full);
        }
        let result = self.foca.handle_data(packet, &mut self.effects);
        self.settle(now);
        result.map_err(MessageError::Swim)
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.timers.take(now) {
            match due {
                Due::Library(Timer::RemoveDown(peer)) => self.forget(now, peer),
                Due::Library(timer) => {
                    let result = self.foca.handle_timer(timer, &mut self.effects);
                    log(result);
                }
                Due::Confirm(peer, incarnation) => self.confirm(now, peer, incarnation),
                Due::Revive => self.revive(now),
            }
            self.settle(now);
        }
    }

    /// Takes news about members that came another way than by packet.
    pub fn apply(&mut self, now: Instant, news: Vec<foca::Member<Peer>>) {
        let mut room = MEMBERS_MAX.saturating_sub(self.foca.iter_membership_state().len());
        let told: BTreeSet<Id> = news.iter().map(|member| member.id().id).collect();
        let known = self.foca.iter_membership_state().filter(|member| told.contains(&member.id().id));
        let known: BTreeMap<Id, bool> = known.map(|member| (member.id().id, is_live(member))).collect();
        let me = self.me().id;
        let passed_on = news.len() <= NEWS_MAX;
        let news = news.into_iter().filter(|member| match known.get(&member.id().id) {
            // Whom this node has forgotten, or never knew, need not be remembered as dead.
            _ if member.id().id == me => true,
            Some(live) => is_live(member) || (*live && member.id().left),
            None => {
                let taken = is_live(member) && room > 0;
                room -= usize::from(taken);
                taken
            }
        });
        let result = self.foca.apply_many(news, passed_on, &mut self.effects);
        log(result);
        self.settle(now);
    }

    /// A kept connection to `id` was lost: it is a suspect at once.
    pub fn lost(&mut self, now: Instant, id: Id) {
        let Some(member) = self.foca.iter_members().find(|member| member.id().id == id).cloned() else {
            return;
        };
        let (peer, incarnation) = (member.id().clone(), member.incarnation());
        let suspect = foca::Member::new(peer.clone(), incarnation, State::Suspect);
        let result = self.foca.apply_many([suspect].into_iter(), true, &mut self.effects);
        log(result);
        self.settle(now);
        self.accuse(now, &peer, incarnation);
        let verdict = Timer::ChangeSuspectToDown { member_id: peer, incarnation, token: self.token };
        self.timers.add(now + self.patience(now, self.config.lost_after), Due::Library(verdict));
    }

    /// Says good-bye.
    pub fn leave(&mut self, now: Instant) {
        let me = Peer { left: true, ..self.me().clone() };
        // The change itself is not for the others, only the good-bye that follows.
        let result = self.foca.change_identity(me, &mut AccumulatingRuntime::default());
        log(result);
        let result = self.foca.leave_cluster(&mut self.effects);
        log(result);
        self.settle(now);
    }

    /// Goes on under a new incarnation.
    pub fn renew(&mut self, now: Instant, incarnation: u64) {
        let me = Peer { incarnation, ..self.me().clone() };
        let result = self.foca.change_identity(me, &mut self.effects);
        log(result);
        // Without news nobody would notice that there are others.
        let result = self.foca.apply_many(std::iter::empty(), false, &mut self.effects);
        log(result);
        self.settle(now);
    }

    /// All members, dead ones included.
    pub fn members(&self) -> impl Iterator<Item = &foca::Member<Peer>> {
        self.foca.iter_membership_state()
    }

    /// The sums of all live members, this node included.
    pub fn sums(&self) -> Sums {
        let mut sums = Sums::new();
        let live = self.foca.iter_members().map(foca::Member::id).filter(|peer| !peer.left);
        for peer in live.chain([self.me()]) {
            sums.toggle(peer.id, digest::member_fact(peer.id, peer.incarnation));
        }
        sums
    }

    fn knows(&self, id: Id) -> bool {
        self.foca.iter_membership_state().any(|member| member.id().id == id)
    }

    /// Carries out what the library asked for.
    fn settle(&mut self, now: Instant) {
        self.collect(now);
        if std::mem::take(&mut self.urgent) {
            let result = self.foca.gossip(&mut self.effects);
            log(result);
            self.collect(now);
        }
    }

    fn collect(&mut self, now: Instant) {
        while let Some((to, packet)) = self.effects.to_send() {
            self.events.push_back(SwimEvent::Send { to, packet });
        }
        while let Some((after, timer)) = self.effects.to_schedule() {
            self.schedule(now, after, timer);
        }
        while let Some(notification) = self.effects.to_notify() {
            self.note(notification);
        }
    }

    fn schedule(&mut self, now: Instant, after: Duration, timer: Timer<Peer>) {
        let after = match &timer {
            Timer::ProbeRandomMember(token) => {
                self.token = *token;
                after
            }
            Timer::ChangeSuspectToDown { member_id, incarnation, .. } => {
                let (peer, incarnation) = (member_id.clone(), *incarnation);
                self.accuse(now, &peer, incarnation);
                self.patience(now, after)
            }
            // The library holds other lives of this node to be over; one that is newer than this one wins.
            Timer::RemoveDown(peer) if peer.id == self.me().id => {
                if peer.replaces(self.me()) {
                    self.events.push_back(SwimEvent::Overtaken(peer.incarnation));
                }
                after
            }
            _ => after,
        };
        self.timers.add(now + after, Due::Library(timer));
    }

    fn note(&mut self, notification: OwnedNotification<Peer>) {
        let event = match notification {
            OwnedNotification::MemberUp(peer) if !peer.left => SwimEvent::Up(peer),
            OwnedNotification::MemberDown(peer) if !peer.left => {
                self.urgent = true;
                SwimEvent::Down(peer)
            }
            OwnedNotification::MemberUp(peer) | OwnedNotification::MemberDown(peer) => SwimEvent::Left(peer),
            OwnedNotification::Rename(_, peer) if peer.left => SwimEvent::Left(peer),
            OwnedNotification::Rename(_, peer) => {
                let live = self.foca.iter_members().any(|member| *member.id() == peer);
                if live { SwimEvent::Up(peer) } else { SwimEvent::Down(peer) }
            }
            OwnedNotification::Active => SwimEvent::Connected,
            OwnedNotification::Defunct => SwimEvent::Overtaken(self.me().incarnation),
            OwnedNotification::Idle | OwnedNotification::Rejoin(_) => return,
        };
        self.adapt();
        self.events.push_back(event);
    }

    /// News must be repeated more often the more members there are.
    fn adapt(&mut self) {
        let result = self.foca.set_config(library_config(&self.config, self.foca.num_members()));
        log(result);
    }

    fn forget(&mut self, now: Instant, peer: Peer) {
        let id = peer.id;
        let result = self.foca.handle_timer(Timer::RemoveDown(peer), &mut self.effects);
        log(result);
        self.settle(now);
        if !self.knows(id) {
            self.events.push_back(SwimEvent::Forgotten(id));
        }
    }

    fn accuse(&mut self, now: Instant, peer: &Peer, incarnation: Incarnation) {
        if self.accused.insert(peer.id, incarnation) != Some(incarnation) {
            self.confirm(now, peer.clone(), incarnation);
        }
    }

    /// Tells a suspect directly that it is one; its answer, if it lives, is its defence.
    fn confirm(&mut self, now: Instant, peer: Peer, incarnation: Incarnation) {
        let charge = foca::Member::new(peer.clone(), incarnation, State::Suspect);
        if !self.foca.iter_members().any(|member| *member == charge) {
            if self.accused.get(&peer.id) == Some(&incarnation) {
                self.accused.remove(&peer.id);
            }
            return;
        }
        let packet = codec::charge(self.me(), &charge);
        self.events.push_back(SwimEvent::Send { to: peer.clone(), packet });
        self.timers.add(now + self.config.confirm_period, Due::Confirm(peer, incarnation));
    }

    /// `usual`, or more when so many peers fell silent, and so few did not, that the fault is likely here.
    fn patience(&self, now: Instant, usual: Duration) -> Duration {
        let lately = 2 * self.config.probe_period;
        let heard = self.heard.iter().filter(|(id, at)| {
            now.saturating_duration_since(**at) <= lately && !self.accused.contains_key(id)
        });
        let doubtful = self.accused.len() >= DOUBTS_FROM && self.accused.len() > heard.count();
        if doubtful { usual * DOUBT } else { usual }
    }

    /// Tries one of the members that are down; the more nodes there are, the less often each.
    fn revive(&mut self, now: Instant) {
        self.timers.add(now + self.config.revive_period, Due::Revive);
        self.heard.retain(|_, at| now.saturating_duration_since(*at) <= 2 * self.config.probe_period);
        let down =
            || self.foca.iter_membership_state().filter(|member| !is_live(member) && !member.id().left);
        let (count, nodes) = (down().count() as u32, self.foca.num_members() as u32 + 1);
        if self.rng.random_range(0..nodes) >= count.saturating_mul(REVIVERS) {
            return;
        }
        let me = self.me().id;
        let chosen = down().map(foca::Member::id).filter(|peer| peer.id != me).choose(&mut self.rng).cloned();
        if let Some(peer) = chosen {
            let result = self.foca.announce(peer, &mut self.effects);
            log(result);
        }
    }
}

/// Whether the member takes part: a node that said good-bye does not, whatever SWIM still thinks of it.
pub(crate) fn is_live(member: &foca::Member<Peer>) -> bool {
    member.state() != State::Down && !member.id().left
}

/// The library's errors here are about what it meant to send; SWIM lives with packets that are lost.
fn log(result: Result<(), foca::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "membership step failed");
    }
}

fn library_config(config: &Config, members: usize) -> foca::Config {
    const fn count(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).expect("a constant above zero")
    }
    // 4 log10(n), as the SWIM literature advises, and a few more for small clusters.
    let transmissions = 4 + (4.0 * (members as f64 + 1.0).log10()).ceil() as u8;
    foca::Config {
        probe_period: config.probe_period,
        probe_rtt: config.probe_rtt,
        num_indirect_probes: count(INDIRECT),
        max_transmissions: NonZeroU8::new(transmissions).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: config.suspect_after,
        remove_down_after: Some(config.remove_down_after),
        max_packet_size: count(DATAGRAM_BYTES_MAX - FRAME_BYTES),
        notify_down_members: true,
        periodic_announce: None,
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams {
            frequency: config.gossip_period,
            num_members: count(INDIRECT),
        }),
    }
}
