//! The flow cache: what the kernel did with a packet of a connection is done at once with those that follow.
//!
//! Everything that this crate and the mesh program decides what becomes of a connection's packets: translation, tracking,
//! routes, VXLAN. That costs several times what it takes to move a packet, and comes out the same for every packet of a
//! connection. So two BPF programs at each link of ours, and at the host's link to the others, keep what came out:
//!
//! * [`entering`] looks a packet up. If its connection is known, it writes the packet's new head and sends it on, straight
//!   into a container or out of the host. If not, it notes how the packet came in (an *arrival*) and lets it go the usual
//!   way.
//! * [`leaving`] sees the same packet come out at its last link. What has changed since its arrival is what the kernel does
//!   with packets of this connection: a *flow*.
//!
//! The kernel stays the authority. The first packets of a TCP connection and the last ones always go the usual way, and so
//! does one packet every [`LIFETIME_NS`]: connections stay tracked, and no flow is older than that. Whoever cuts
//! connections forgets all flows at once: each bears the generation that it was learnt in. What is not plainly the same
//! for every packet (fragments, options, what is too large or has no hops left, other protocols than TCP and UDP) is never
//! touched. There is nothing to keep in step with the kernel, since the cache holds nothing else than what that did.
//!
//! A redirected packet crosses from one namespace into another only by a veth. Between the host and a router that is the
//! [`Uplink`], whose ends have programs of their own ([`relaying_out`], [`relaying_in`]).
//!
//! The idea is that of Lin et al., "ONCache: A Cache-Based Low-Overhead Container Overlay Network" (NSDI 2025).

mod assembler;
mod entering;
mod leaving;
mod packet;

use std::net::IpAddr;

use assembler::{Assembler, Helper, If, Register::*, Size};

pub use assembler::Instruction;
pub use entering::entering;
pub use leaving::leaving;

/// Nanoseconds for which a flow counts.
pub const LIFETIME_NS: i32 = 2_000_000_000;
/// Bytes of a flow's key.
pub const KEY_LEN: usize = key::LEN as usize;
/// Bytes of a flow.
pub const FLOW_LEN: usize = flow::LEN as usize;
/// Bytes of an arrival.
pub const ARRIVAL_LEN: usize = arrival::LEN as usize;
/// Arrivals that are noted at a time, a power of two.
pub const ARRIVALS: u32 = 1 << 10;
/// Bytes of what counts generations and arrivals.
pub const COUNTERS_LEN: usize = counters::LEN as usize;

/// Descriptors of the maps that all programs of one host share.
#[derive(Clone, Copy, Debug)]
pub struct Maps {
    /// A hash table of those last used, [`KEY_LEN`] → [`FLOW_LEN`].
    pub flows: i32,
    /// An array of [`ARRIVALS`] × [`ARRIVAL_LEN`].
    pub arrivals: i32,
    /// An array of one × [`COUNTERS_LEN`].
    pub counters: i32,
}

/// The link that a program is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The host's link to the other hosts.
    Underlay {
        /// Its address.
        local: IpAddr,
        /// UDP port of VXLAN.
        port: u16,
    },
    /// The host's end of a container's veth, in the host's namespace.
    Host,
    /// The same in the namespace of a router.
    Router(Uplink),
}

/// The veth pair between a router and its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// A VNI of the router's network, which tells it from the others of this host.
    pub vni: u32,
    /// Index of the router's end.
    pub router: u32,
    /// Index of the host's end.
    pub host: u32,
}

impl Place {
    /// Which namespace it is in; [`HOST`] for the host's.
    const fn namespace(&self) -> i32 {
        match self {
            Self::Underlay { .. } | Self::Host => HOST,
            // It has 24 bits.
            Self::Router(uplink) => uplink.vni.cast_signed(),
        }
    }
}

/// Of no network: their VNIs begin at [`crate::network::VNI_MIN`].
const HOST: i32 = 0;

/// Makes all flows count for nothing: they are of the generation before.
pub fn next_generation(counters: &mut [u8]) {
    if let Some(bytes) = counters.first_chunk_mut() {
        *bytes = u64::from_ne_bytes(*bytes).wrapping_add(1).to_ne_bytes();
    }
}

/// What [`next_generation`] changes, and the number of arrivals so far.
mod counters {
    pub const GENERATION: i16 = 0;
    /// Written all the time: away from what every packet reads.
    pub const ARRIVALS: i16 = 64;
    pub const LEN: i16 = ARRIVALS + 8;
}

/// By what a flow is found: everything of a packet on its way in that the kernel may decide by.
mod key {
    pub const NAMESPACE: i16 = 0;
    /// Index of the link.
    pub const LINK: i16 = 4;
    /// VXLAN's, as it is in the packet; 0 without.
    pub const VNI: i16 = 8;
    /// Which protocols: see [`super::packet::Family::kind`].
    pub const KIND: i16 = 12;
    /// Source and destination, as they are in the packet, which is true of addresses as well; IPv4 ones end with zeros.
    pub const PORTS: i16 = 16;
    /// Of the host that sent it by VXLAN.
    pub const OUTER_SOURCE: i16 = 24;
    /// The destination comes behind it.
    pub const SOURCE: i16 = 40;
    pub const LEN: i16 = SOURCE + 32;
}

/// What becomes of a packet.
mod flow {
    pub const UNTIL: i16 = 0;
    pub const GENERATION: i16 = 8;
    /// Index of the link that it leaves by.
    pub const LINK: i16 = 16;
    /// Index of the uplink's end on this side, where it leaves by a link of another namespace; else 0.
    pub const VIA: i16 = 20;
    /// Not 0: it leaves the host; else it goes to the container at the link's other end.
    pub const OUT: i16 = 24;
    /// Bytes of VXLAN that are taken off, or put in front.
    pub const STRIP: i16 = 28;
    pub const ADD: i16 = 32;
    /// Bytes of an IP packet, at most.
    pub const SIZE_MAX: i16 = 36;
    /// It has these, or it is not of the flow; see [`super::packet::seen::CLASS`].
    pub const CLASS: i16 = 40;
    /// Routers that it would have passed.
    pub const HOPS: i16 = 44;
    /// Added to the inverted checksum of IPv4.
    pub const SUM: i16 = 48;
    /// Differences that addresses and ports make in the checksum of TCP or UDP.
    pub const ADDRESSES: i16 = 52;
    pub const PORTS_DIFFERENCE: i16 = 56;
    pub const PORTS: i16 = 60;
    pub const SOURCE: i16 = 64;
    pub const DESTINATION: i16 = 80;
    /// Sum over VXLAN's IPv4 header but for its length and number.
    pub const OUTER_SUM: i16 = 96;
    /// The Ethernet header, and where VXLAN is put in front everything up to the inner one's end.
    pub const HEAD: i16 = 104;
    pub const LEN: i16 = 192;
}

/// A packet as it came in. Its place is taken by another one after [`ARRIVALS`] more, whether it has left by then or not;
/// so it bears its number twice. That is written first where it is read last, and the other way round: who finds his own
/// number in both has read what belongs to it.
mod arrival {
    pub const WRITTEN: i16 = 0;
    /// Index of the uplink's end in the namespace that it came in by; else 0.
    pub const UPLINK: i16 = 4;
    pub const KEY: i16 = 8;
    pub const GENERATION: i16 = KEY + super::key::LEN;
    /// Of [`super::packet::seen`].
    pub const IDENTITY: i16 = GENERATION + 8;
    pub const CLASS: i16 = IDENTITY + 8;
    pub const HOPS: i16 = CLASS + 4;
    pub const STRIP: i16 = HOPS + 4;
    pub const BEGUN: i16 = STRIP + 4;
    pub const LEN: i16 = BEGUN + 4;
}

// Of `struct __sk_buff` (linux/bpf.h).
mod context {
    pub const LEN: i16 = 0;
    pub const KIND: i16 = 4;
    pub const MARK: i16 = 8;
    pub const PROTOCOL: i16 = 16;
    pub const VLAN: i16 = 20;
    pub const LINK: i16 = 40;
    /// A number of two bytes that only queueing disciplines use which are no more, and that stays with a packet; 0 is none.
    pub const NUMBER: i16 = 44;
    pub const DATA: i16 = 76;
    pub const DATA_END: i16 = 80;
    /// Of what is cut up only when it is sent: bytes of payload in each piece. Else 0.
    pub const SEGMENT: i16 = 176;
}

/// The packet goes its usual way: to whoever else filters, and then to the kernel (`TC_ACT_UNSPEC`).
const PASS: i32 = -1;
/// `TC_ACT_SHOT`
const DROP: i32 = 2;

/// For what comes out of an uplink at the host's end: on to the link that its mark tells.
pub fn relaying_out() -> Vec<Instruction> {
    relaying(Helper::Redirect)
}

/// For what comes out of an uplink at the router's end: on to the container at the link that its mark tells.
pub fn relaying_in() -> Vec<Instruction> {
    relaying(Helper::RedirectPeer)
}

fn relaying(helper: Helper) -> Vec<Instruction> {
    let mut program = Assembler::default();
    let pass = program.label();
    program.copy(R6, R1);
    program.load(Size::Word, R1, R6, context::MARK);
    program.jump_if(R1, If::Equal, 0, pass);
    program.set(R2, 0);
    program.store(Size::Word, R6, context::MARK, R2);
    program.call(helper);
    program.exit();
    program.bind(pass);
    end(&mut program, PASS);
    program.finish()
}

fn end(program: &mut Assembler, verdict: i32) {
    program.set(R0, verdict);
    program.exit();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_follows_the_one_before_and_leaves_the_rest() {
        let mut counters = [0xff; COUNTERS_LEN];
        next_generation(&mut counters);
        assert_eq!((&counters[..8], &counters[8..]), (&[0; 8][..], &[0xff; COUNTERS_LEN - 8][..]));
        next_generation(&mut counters);
        assert_eq!(u64::from_ne_bytes(counters[..8].try_into().unwrap()), 1);
    }

    /// The kernel takes programs of a million instructions; jumps are bound or it would panic.
    #[test]
    fn the_programs_of_every_place_can_be_written() {
        let maps = Maps { flows: 3, arrivals: 4, counters: 5 };
        let underlay = |local| Place::Underlay { local, port: 4789 };
        let router = Place::Router(Uplink { vni: 4097, router: 2, host: 3 });
        let places = [
            underlay([10, 0, 0, 1].into()),
            underlay([0xfd00, 0, 0, 0, 0, 0, 0, 1].into()),
            Place::Host,
            router,
        ];
        for place in places {
            for program in [entering(maps, &place), leaving(maps, &place)] {
                assert!((100..1000).contains(&program.len()), "{place:?}: {}", program.len());
            }
        }
        assert_eq!(relaying_in().len(), relaying_out().len());
    }

    /// By this flows of different routers are told apart.
    #[test]
    fn no_network_is_taken_for_the_host() {
        const { assert!(crate::network::VNI_MIN > HOST.unsigned_abs()) }
    }
}
