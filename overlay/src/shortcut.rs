//! The shortcut past a network's router, for packets that it would only pass on: three BPF programs.
//!
//! Between containers of two hosts a router changes nothing but Ethernet addresses. Where the kernel takes the programs, it
//! does so on the way in ([`leaving`] at a container's veth, [`arriving`] at a VXLAN device) and neither routes nor tracks
//! the packet. Everything else goes on to the router as if they were not there, and the router alone says which way there
//! is: they ask its routes and neighbours. Without them all works as well, only slower.
//!
//! The router must see both directions of what it translates. So [`forwarded`] notes, at the VXLAN devices, from which ports
//! of a container the router itself sends something: what the container has called by virtual addresses, under the ports
//! that translation has chosen. What leaves or arrives by such a port is left to the router from then on, also what is for
//! another container: two connections that differ in nothing but whether they were translated are told apart by it alone.
//! Translated connections within one host need no note: what stays on a host never takes the shortcut.
//!
//! One thing is worse than without: the router cannot choose another port for the sake of a connection that it does not see.
//! If a container is connected to a task past it, calls a virtual address from the same port as well, and is led to the
//! same port of the same task, then the first of the two connections is reset.

mod assembler;

use std::net::IpAddr;

use assembler::{Assembler, Helper, If, Label, Operation, Register::*, Size};

pub use assembler::Instruction;

use crate::mac::{Mac, NODE};

/// Addresses of containers of one network on one host, at most, that have the shortcut.
pub const PLACES_MAX: u32 = 4096;
/// Bytes of a place's key: an address, IPv4 as mapped into IPv6.
pub const KEY_LEN: usize = 16;
/// Bytes of a place.
pub const PLACE_LEN: usize = NOTES as usize + 65_536 / 8;

// Of a place.
const INDEX: i16 = 0;
const MAC: i16 = 4;
/// Not 0: all ports of the container are left to the router.
const ALL: i16 = 10;
/// A bit for each port.
const NOTES: i16 = 16;

// Of `struct __sk_buff` (linux/bpf.h).
const PROTOCOL: i16 = 16;
const IFINDEX: i16 = 40;
const DATA: i16 = 76;
const DATA_END: i16 = 80;

// Of a packet.
const ETHERNET_LEN: i16 = 14;
const ETHERNET_SOURCE: i16 = 6;
const PORT_LEN: i16 = 2;
const TCP: i32 = 6;
const UDP: i32 = 17;

/// `struct bpf_fib_lookup` (linux/bpf.h).
mod fib {
    pub const LEN: i16 = 64;
    pub const IFINDEX: i16 = 8;
    pub const SOURCE: i16 = 16;
    pub const DESTINATION: i16 = 32;
    /// Ethernet address of the link that the way leads by, and of the next hop.
    pub const FROM: i16 = 52;
    pub const TO: i16 = 58;
    pub const SUCCESS: i32 = 0;
}

// On the stack.
const KEY: i16 = -(KEY_LEN as i16);
const LOOKUP: i16 = KEY - fib::LEN;

/// To whoever else filters packets on the link, and then to the router (`TC_ACT_UNSPEC`).
const PASS: i32 = -1;
/// In the place of a port: the packet does not show one, as a fragment.
const NO_PORT: i32 = -1;

/// Where the two versions of IP have what; offsets begin at the IP header.
struct Family {
    ethertype: u16,
    /// `AF_INET…`
    number: i32,
    header_len: i16,
    protocol: i16,
    icmp: i32,
    source: i16,
    destination: i16,
    address_len: i16,
}

const V4: Family = Family {
    ethertype: 0x0800,
    number: 2,
    header_len: 20,
    protocol: 9,
    icmp: 1,
    source: 12,
    destination: 16,
    address_len: 4,
};
const V6: Family = Family {
    ethertype: 0x86dd,
    number: 10,
    header_len: 40,
    protocol: 6,
    icmp: 58,
    source: 8,
    destination: 24,
    address_len: 16,
};

/// The key of a container's place.
pub fn key(address: IpAddr) -> [u8; KEY_LEN] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The address of a place.
pub fn address(key: [u8; KEY_LEN]) -> IpAddr {
    IpAddr::from(key).to_canonical()
}

/// The place of a container: the host's end of its veth, and the Ethernet address of its own. One that may have called
/// virtual addresses before, unnoted, is not `new`: it is left to the router for ever.
pub fn place(index: u32, mac: Mac, new: bool) -> Vec<u8> {
    let mut place = vec![0; PLACE_LEN];
    place[INDEX as usize..][..4].copy_from_slice(&index.to_ne_bytes());
    place[MAC as usize..][..6].copy_from_slice(&mac.0);
    if !new {
        age(&mut place);
    }
    place
}

/// The container of this place may have called virtual addresses, unnoted.
pub fn age(place: &mut [u8]) {
    if let Some(all) = place.get_mut(ALL as usize) {
        *all = 1;
    }
}

/// The index of the link of a place.
pub fn index(place: &[u8]) -> Option<u32> {
    place.get(INDEX as usize..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// For what a container sends, at the host's end of its veth. `places` is the map's descriptor.
pub fn leaving(places: i32) -> Vec<Instruction> {
    let mut program = Assembler::default();
    let [pass, known, ask] = [(); 3].map(|()| program.label());
    begin(&mut program);
    (LOOKUP..KEY).step_by(8).for_each(|at| program.store_value(Size::Double, Frame, at, 0));
    for family in [&V4, &V6] {
        let next = is_family(&mut program, family, pass);
        set_key(&mut program, family, family.source);
        program.store_value(Size::Byte, Frame, LOOKUP, family.number);
        copy_address(&mut program, family, family.source, LOOKUP + fib::SOURCE);
        copy_address(&mut program, family, family.destination, LOOKUP + fib::DESTINATION);
        load_port_or_none(&mut program, family, pass, known);
        program.bind(next);
    }
    program.jump(pass);

    program.bind(known);
    find_place(&mut program, places, pass);
    // From where its source is not: the router says what becomes of it.
    program.load(Size::Word, R1, R6, IFINDEX);
    program.load(Size::Word, R2, R8, INDEX);
    program.jump_if_by(R1, If::NotEqual, R2, pass);
    program.store(Size::Word, Frame, LOOKUP + fib::IFINDEX, R1);
    program.load(Size::Byte, R1, R8, ALL);
    program.jump_if(R1, If::NotEqual, 0, pass);
    program.jump_if(R9, If::Equal, NO_PORT, ask);
    find_note(&mut program);
    program.jump_if_by(R4, If::Common, R3, pass);
    program.bind(ask);
    program.copy(R1, R6);
    program.copy(R2, Frame);
    program.change(R2, Operation::Add, LOOKUP.into());
    program.set(R3, fib::LEN.into());
    program.set(R4, 0);
    program.call(Helper::FibLookup);
    program.jump_if(R0, If::NotEqual, fib::SUCCESS, pass);
    // To another host: by a VXLAN device, which has the node's Ethernet address.
    program.load(Size::Byte, R1, Frame, LOOKUP + fib::FROM + 1);
    program.jump_if(R1, If::NotEqual, NODE.into(), pass);
    // It keeps the container's Ethernet address as its source: the router did not send it.
    copy_mac(&mut program, Frame, LOOKUP + fib::TO);
    program.load(Size::Word, R1, Frame, LOOKUP + fib::IFINDEX);
    program.set(R2, 0);
    program.call(Helper::Redirect);
    program.exit();

    program.bind(pass);
    program.set(R0, PASS);
    program.exit();
    program.finish()
}

/// For what this host sends, at a VXLAN device. `places` is the map's descriptor.
pub fn forwarded(places: i32) -> Vec<Instruction> {
    let mut program = Assembler::default();
    let [pass, known, shown] = [(); 3].map(|()| program.label());
    begin(&mut program);
    // What went past the router has a container's.
    reaches(&mut program, ETHERNET_LEN, pass);
    program.load(Size::Byte, R1, R7, ETHERNET_SOURCE + 1);
    program.jump_if(R1, If::NotEqual, NODE.into(), pass);
    for family in [&V4, &V6] {
        let next = is_family(&mut program, family, pass);
        set_key(&mut program, family, family.source);
        load_port_or_none(&mut program, family, pass, known);
        program.bind(next);
    }
    program.jump(pass);

    program.bind(known);
    find_place(&mut program, places, pass);
    program.jump_if(R9, If::NotEqual, NO_PORT, shown);
    program.store_value(Size::Byte, R8, ALL, 1);
    program.jump(pass);
    program.bind(shown);
    find_note(&mut program);
    program.jump_if_by(R4, If::Common, R3, pass);
    program.atomic_or(R1, NOTES, R3);

    program.bind(pass);
    program.set(R0, PASS);
    program.exit();
    program.finish()
}

/// For what other hosts send, at a VXLAN device. `places` is the map's descriptor.
pub fn arriving(places: i32) -> Vec<Instruction> {
    let mut program = Assembler::default();
    let [pass, known] = [(); 2].map(|()| program.label());
    begin(&mut program);
    for family in [&V4, &V6] {
        let next = is_family(&mut program, family, pass);
        set_key(&mut program, family, family.destination);
        load_port(&mut program, family, PORT_LEN, pass, pass);
        program.jump(known);
        program.bind(next);
    }
    program.jump(pass);

    program.bind(known);
    find_place(&mut program, places, pass);
    program.load(Size::Byte, R1, R8, ALL);
    program.jump_if(R1, If::NotEqual, 0, pass);
    find_note(&mut program);
    program.jump_if_by(R4, If::Common, R3, pass);
    copy_mac(&mut program, R8, MAC);
    program.load(Size::Word, R1, R8, INDEX);
    program.set(R2, 0);
    program.call(Helper::RedirectPeer);
    program.exit();

    program.bind(pass);
    program.set(R0, PASS);
    program.exit();
    program.finish()
}

/// From here on `R6` is the context, `R7` the begin of the packet, and, until the place is found, `R8` its end.
fn begin(program: &mut Assembler) {
    program.copy(R6, R1);
    program.load(Size::Word, R7, R6, DATA);
    program.load(Size::Word, R8, R6, DATA_END);
}

/// What follows, up to the label that is returned, is for packets of this family.
fn is_family(program: &mut Assembler, family: &Family, pass: Label) -> Label {
    let next = program.label();
    program.load(Size::Word, R1, R6, PROTOCOL);
    program.jump_if(R1, If::NotEqual, family.ethertype.to_be().into(), next);
    reaches(program, ETHERNET_LEN + family.header_len, pass);
    next
}

/// What is shorter than so many bytes passes.
fn reaches(program: &mut Assembler, bytes: i16, pass: Label) {
    program.copy(R1, R7);
    program.change(R1, Operation::Add, bytes.into());
    program.jump_if_by(R1, If::Greater, R8, pass);
}

/// Copies an address of the packet to the stack.
fn copy_address(program: &mut Assembler, family: &Family, from: i16, to: i16) {
    for at in (0..family.address_len).step_by(4) {
        program.load(Size::Word, R1, R7, ETHERNET_LEN + from + at);
        program.store(Size::Word, Frame, to + at, R1);
    }
}

/// Makes an address of the packet the key to a place.
fn set_key(program: &mut Assembler, family: &Family, address: i16) {
    let mapped = KEY_LEN as i16 - family.address_len;
    if mapped > 0 {
        program.store_value(Size::Double, Frame, KEY, 0);
        program.store_value(Size::Word, Frame, KEY + 8, i32::from_ne_bytes([0, 0, 0xff, 0xff]));
    }
    copy_address(program, family, address, KEY + mapped);
}

/// `R9 =` a port, as it lies in memory. ICMP passes.
fn load_port(program: &mut Assembler, family: &Family, port: i16, pass: Label, no_port: Label) {
    let shown = program.label();
    if family.number == V4.number {
        // Options move the ports; of a fragment only the first one has any.
        program.load(Size::Byte, R1, R7, ETHERNET_LEN);
        program.jump_if(R1, If::NotEqual, 0x45, no_port);
        program.load(Size::Half, R1, R7, ETHERNET_LEN + 6);
        program.jump_if(R1, If::Common, 0x3fff_u16.to_be().into(), no_port);
    }
    program.load(Size::Byte, R1, R7, ETHERNET_LEN + family.protocol);
    program.jump_if(R1, If::Equal, TCP, shown);
    program.jump_if(R1, If::Equal, UDP, shown);
    program.jump_if(R1, If::Equal, family.icmp, pass);
    program.jump(no_port);
    program.bind(shown);
    reaches(program, ETHERNET_LEN + family.header_len + 2 * PORT_LEN, pass);
    program.load(Size::Half, R9, R7, ETHERNET_LEN + family.header_len + port);
}

/// `R9 =` the port of the sender or [`NO_PORT`], and goes on at `known`.
fn load_port_or_none(program: &mut Assembler, family: &Family, pass: Label, known: Label) {
    let no_port = program.label();
    load_port(program, family, 0, pass, no_port);
    program.jump(known);
    program.bind(no_port);
    program.set(R9, NO_PORT);
    program.jump(known);
}

/// `R8 =` the place of the key.
fn find_place(program: &mut Assembler, places: i32, pass: Label) {
    program.map(R1, places);
    program.copy(R2, Frame);
    program.change(R2, Operation::Add, KEY.into());
    program.call(Helper::MapLookup);
    program.jump_if(R0, If::Equal, 0, pass);
    program.copy(R8, R0);
}

/// `R4 =` the notes of eight bytes, of the port's, which are at `R1 +` [`NOTES`]; `R3 =` the bit of the port.
fn find_note(program: &mut Assembler) {
    program.copy(R1, R9);
    program.change(R1, Operation::ShiftRight, 3);
    program.change(R1, Operation::And, 0x1ff8);
    program.change_by(R1, Operation::Add, R8);
    program.copy(R2, R9);
    program.change(R2, Operation::And, 63);
    program.set(R3, 1);
    program.change_by(R3, Operation::ShiftLeft, R2);
    program.load(Size::Double, R4, R1, NOTES);
}

/// Copies an Ethernet address to where the packet has that of its next hop. (Nothing else may be read from it afterwards.)
fn copy_mac(program: &mut Assembler, from: assembler::Register, at: i16) {
    // Two bytes at a time: on the stack they do not lie where four could be read at once.
    for step in [0, 2, 4] {
        program.load(Size::Half, R1, from, at + step);
        program.store(Size::Half, R7, step, R1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_by_its_address_and_tells_its_link() {
        for text in ["10.0.0.5", "fd01::5"] {
            let container: IpAddr = text.parse().expect("an address");
            assert_eq!(address(key(container)), container);
        }
        assert_eq!(index(&place(7, Mac([2; 6]), true)), Some(7));
        assert_eq!(index(&[]), None);
    }

    #[test]
    fn only_the_place_of_a_new_container_is_without_reserve() {
        assert_eq!(place(7, Mac([2; 6]), true)[ALL as usize], 0);
        assert_eq!(place(7, Mac([2; 6]), false)[ALL as usize], 1);
    }

    /// By this the programs know which way leads to another host.
    #[test]
    fn links_of_routers_are_told_apart_by_their_ethernet_addresses() {
        assert_eq!(Mac::of_node([0; 4]).0[1], NODE);
        assert_ne!(Mac::of_host_end([10, 0, 0, 5].into()).0[1], NODE);
    }
}
