//! What both programs read of a packet.
//!
//! While they do, `R6` is the context, `R7` the packet and `R8` its end. Whatever is read lies on the stack as it lies in
//! the packet.

use std::net::IpAddr;

use super::{
    assembler::{Assembler, Helper, If, Label, Operation, Register, Register::*, Size},
    context,
};

pub const ETHERNET_LEN: i16 = 14;
/// Where an Ethernet header says what is in it.
const ETHERTYPE: i16 = 12;
const UDP_LEN: i16 = 8;
/// Where an IPv4 header has its number and its checksum.
pub const NUMBER_V4: i16 = 4;
pub const CHECKSUM_V4: i16 = 10;
const VXLAN_LEN: i16 = 8;
/// Of a VXLAN header: it bears a VNI, and nothing else that there might be (RFC 7348).
const WITH_VNI: u32 = 0x0800_0000;

pub const TCP: i32 = 6;
pub const UDP: i32 = 17;
/// Of a TCP header, without options.
const TCP_LEN: i16 = 20;
/// What begins or ends a TCP connection.
pub const FIN: i32 = 1;
pub const SYN: i32 = 2;
pub const RST: i32 = 4;
pub const ACK: i32 = 16;
/// Of `bpf_l4_csum_replace`: a checksum that is not there stays so (`BPF_F_MARK_MANGLED_0`).
const OPTIONAL: i32 = 1 << 5;

/// Where the two versions of IP have what; offsets begin at the IP header.
pub struct Family {
    pub ethertype: u16,
    pub header_len: i16,
    pub protocol: i16,
    pub hops: i16,
    pub source: i16,
    pub destination: i16,
    pub address_len: i16,
    /// Its length field.
    pub length: i16,
    /// What that does not count.
    pub length_less: i16,
}

pub const V4: Family = Family {
    ethertype: 0x0800,
    header_len: 20,
    protocol: 9,
    hops: 8,
    source: 12,
    destination: 16,
    address_len: 4,
    length: 2,
    length_less: 0,
};
pub const V6: Family = Family {
    ethertype: 0x86dd,
    header_len: 40,
    protocol: 6,
    hops: 7,
    source: 8,
    destination: 24,
    address_len: 16,
    length: 4,
    length_less: 40,
};
pub const FAMILIES: [&Family; 2] = [&V4, &V6];

impl Family {
    pub fn of(address: IpAddr) -> &'static Self {
        if address.is_ipv4() { &V4 } else { &V6 }
    }

    /// A number for this family with this protocol in it.
    pub const fn kind(&self, protocol: i32) -> i32 {
        (self.ethertype as i32) << ETHERTYPE_SHIFT | protocol
    }

    /// Bytes of VXLAN in front of a packet, its own Ethernet header among them.
    pub const fn vxlan_len(&self) -> i16 {
        self.header_len + UDP_LEN + VXLAN_LEN + ETHERNET_LEN
    }

    /// Where VXLAN's UDP header is in a packet.
    pub const fn vxlan_udp(&self) -> i16 {
        ETHERNET_LEN + self.header_len
    }
}

/// Bits of a protocol.
const ETHERTYPE_SHIFT: i32 = 8;
/// Bits of a class of service.
pub const CLASS_SHIFT: i32 = 16;

/// What is read of a packet beside addresses and ports, from [`SEEN`] on.
pub mod seen {
    /// 8 bytes that tell it from others that are on their way at the same time: of TCP the sequence and acknowledgement
    /// numbers, of UDP the length and the beginning of the payload.
    pub const IDENTITY: i16 = 0;
    /// Class of service and marks of congestion; where there is VXLAN its own, and those of what is in it above
    /// [`super::CLASS_SHIFT`].
    pub const CLASS: i16 = 8;
    pub const HOPS: i16 = 12;
    /// Flags of TCP.
    pub const FLAGS: i16 = 16;
    /// Bytes of the headers of IP and TCP.
    pub const HEADERS: i16 = 20;
    /// Where the checksum of TCP or UDP is, from the IP header on, and flags for whoever changes it.
    pub const CHECKSUM: i16 = 24;
    pub const CHECKSUM_FLAGS: i16 = 28;
    /// Bytes of VXLAN in front of it.
    pub const STRIP: i16 = 32;
    /// Of IPv4, the checksum of its header.
    pub const SUM: i16 = 36;
    pub const LEN: i16 = 40;
}

/// Where on the stack everything begins that is read.
pub struct Reading {
    /// Of [`seen`].
    pub seen: i16,
    pub kind: i16,
    pub ports: i16,
    /// Source and destination, 16 bytes each, all zeros before.
    pub addresses: i16,
}

/// `R7 =` the packet, `R8 =` its end.
pub fn load_packet(program: &mut Assembler) {
    program.load(Size::Word, R7, R6, context::DATA);
    program.load(Size::Word, R8, R6, context::DATA_END);
}

/// What is shorter than so many bytes goes on at `label`.
pub fn reaches(program: &mut Assembler, bytes: i16, label: Label) {
    program.copy(R1, R7);
    program.change(R1, Operation::Add, bytes.into());
    program.jump_if_by(R1, If::Greater, R8, label);
}

/// Copies bytes from one place to another, as many at a time as both may be aligned for.
pub fn copy(program: &mut Assembler, to: (Register, i16), from: (Register, i16), len: i16) {
    let mut at = 0;
    for (size, step) in [(Size::Double, 8), (Size::Word, 4), (Size::Half, 2)] {
        while len - at >= step {
            program.load(size, R1, from.0, from.1 + at);
            program.store(size, to.0, to.1 + at, R1);
            at += step;
        }
    }
}

/// Goes on for a packet of this family, whose kind is on the stack; all others go on at `label`.
pub fn is_of(program: &mut Assembler, family: &Family, kind: i16, label: Label) {
    program.load(Size::Word, R1, Frame, kind);
    program.change(R1, Operation::ShiftRight, ETHERTYPE_SHIFT);
    program.jump_if(R1, If::NotEqual, family.ethertype.into(), label);
}

/// Zeros, eight bytes at a time.
pub fn clear(program: &mut Assembler, from: i16, len: i16) {
    (from..from + len).step_by(8).for_each(|at| program.store_value(Size::Double, Frame, at, 0));
}

/// Goes on for what is VXLAN and has this host's own address there; everything else goes on at `plain`.
pub fn is_vxlan(program: &mut Assembler, (own, at): (IpAddr, i16), port: u16, plain: Label) {
    let outer = Family::of(own);
    program.load(Size::Word, R1, R6, context::PROTOCOL);
    program.jump_if(R1, If::NotEqual, outer.ethertype.to_be().into(), plain);
    reaches(program, outer.vxlan_udp() + UDP_LEN, plain);
    program.load(Size::Byte, R1, R7, ETHERNET_LEN + outer.protocol);
    program.jump_if(R1, If::NotEqual, UDP, plain);
    is_whole(program, outer, ETHERNET_LEN, plain);
    program.load(Size::Half, R1, R7, outer.vxlan_udp() + 2);
    program.jump_if(R1, If::NotEqual, port.to_be().into(), plain);
    let own = match own {
        IpAddr::V4(own) => own.octets().to_vec(),
        IpAddr::V6(own) => own.octets().to_vec(),
    };
    for (half, at) in own.chunks(2).zip((ETHERNET_LEN + at..).step_by(2)) {
        program.load(Size::Half, R1, R7, at);
        program.jump_if(R1, If::NotEqual, u16::from_ne_bytes([half[0], half[1]]).into(), plain);
    }
}

/// Has everything up to the end of the headers lie where it can be read; what is not VXLAN as this host sends it passes.
pub fn reach_into_vxlan(program: &mut Assembler, outer: &Family, pass: Label) {
    let reached = program.label();
    let inside = ETHERNET_LEN + outer.vxlan_len();
    let wanted = inside + V4.header_len + TCP_LEN;
    program.copy(R1, R7);
    program.change(R1, Operation::Add, wanted.into());
    program.jump_if_by(R8, If::GreaterOrEqual, R1, reached);
    // It may also be as short as that.
    program.copy(R1, R6);
    program.set(R2, wanted.into());
    program.call(Helper::Pull);
    load_packet(program);
    program.bind(reached);
    reaches(program, inside, pass);
    program.load(Size::Word, R1, R7, outer.vxlan_udp() + UDP_LEN);
    program.jump_if(R1, If::NotEqual, WITH_VNI.to_be().cast_signed(), pass);
}

/// `R1 =` the VNI of a VXLAN packet, as it is there.
pub fn load_vni(program: &mut Assembler, outer: &Family) {
    program.load(Size::Word, R1, R7, outer.vxlan_udp() + UDP_LEN + 4);
}

/// Reads the packet behind so many bytes of VXLAN, whatever IP it is, and goes on at `done`; what is none of ours passes.
pub fn read(program: &mut Assembler, strip: i16, to: &Reading, done: Label, pass: Label) {
    for family in FAMILIES {
        let next = program.label();
        if strip == 0 {
            program.load(Size::Word, R1, R6, context::PROTOCOL);
        } else {
            program.load(Size::Half, R1, R7, strip + ETHERTYPE);
        }
        program.jump_if(R1, If::NotEqual, family.ethertype.to_be().into(), next);
        read_family(program, family, strip + ETHERNET_LEN, to, pass);
        program.jump(done);
        program.bind(next);
    }
    program.jump(pass);
}

fn read_family(program: &mut Assembler, family: &Family, at: i16, to: &Reading, pass: Label) {
    let [tcp, done] = [(); 2].map(|()| program.label());
    reaches(program, at + family.header_len, pass);
    is_whole(program, family, at, pass);
    load_class(program, family, at);
    program.store(Size::Word, Frame, to.seen + seen::CLASS, R1);
    program.load(Size::Byte, R1, R7, at + family.hops);
    program.store(Size::Word, Frame, to.seen + seen::HOPS, R1);
    if family.ethertype == V4.ethertype {
        program.load(Size::Half, R1, R7, at + CHECKSUM_V4);
        program.store(Size::Word, Frame, to.seen + seen::SUM, R1);
    }
    copy_out(program, to.addresses, at + family.source, family.address_len);
    copy_out(program, to.addresses + 16, at + family.destination, family.address_len);
    let inside = at + family.header_len;
    program.load(Size::Byte, R1, R7, at + family.protocol);
    program.jump_if(R1, If::Equal, TCP, tcp);
    program.jump_if(R1, If::NotEqual, UDP, pass);

    reaches(program, inside + UDP_LEN, pass);
    let short = program.label();
    program.load(Size::Half, R1, R7, inside + 4);
    program.store(Size::Word, Frame, to.seen + seen::IDENTITY, R1);
    program.store_value(Size::Word, Frame, to.seen + seen::IDENTITY + 4, 0);
    program.store_value(Size::Word, Frame, to.seen + seen::FLAGS, 0);
    program.store_value(Size::Word, Frame, to.seen + seen::HEADERS, (family.header_len + UDP_LEN).into());
    program.store_value(Size::Word, Frame, to.seen + seen::CHECKSUM, (family.header_len + 6).into());
    program.store_value(Size::Word, Frame, to.seen + seen::CHECKSUM_FLAGS, OPTIONAL);
    program.store_value(Size::Word, Frame, to.kind, family.kind(UDP));
    copy_out(program, to.ports, inside, 4);
    reaches(program, inside + UDP_LEN + 4, short);
    copy_out(program, to.seen + seen::IDENTITY + 4, inside + UDP_LEN, 4);
    program.bind(short);
    program.jump(done);

    program.bind(tcp);
    reaches(program, inside + TCP_LEN, pass);
    copy_out(program, to.seen + seen::IDENTITY, inside + 4, 8);
    program.load(Size::Byte, R1, R7, inside + 13);
    program.store(Size::Word, Frame, to.seen + seen::FLAGS, R1);
    // Its own length is told in words of four bytes, in the upper half of this one.
    program.load(Size::Byte, R1, R7, inside + 12);
    program.change(R1, Operation::And, 0xf0);
    program.change(R1, Operation::ShiftRight, 2);
    program.change(R1, Operation::Add, family.header_len.into());
    program.store(Size::Word, Frame, to.seen + seen::HEADERS, R1);
    program.store_value(Size::Word, Frame, to.seen + seen::CHECKSUM, (family.header_len + 16).into());
    program.store_value(Size::Word, Frame, to.seen + seen::CHECKSUM_FLAGS, 0);
    program.store_value(Size::Word, Frame, to.kind, family.kind(TCP));
    copy_out(program, to.ports, inside, 4);
    program.bind(done);
}

/// `R1 =` class of service and marks of congestion of the header at `at`, as they lie there.
pub fn load_class(program: &mut Assembler, family: &Family, at: i16) {
    if family.ethertype == V4.ethertype {
        program.load(Size::Byte, R1, R7, at + 1);
    } else {
        program.load(Size::Half, R1, R7, at);
        program.change(R1, Operation::And, 0x0ff0_u16.to_be().into());
    }
}

/// What has options or is a fragment goes on at `label`.
fn is_whole(program: &mut Assembler, family: &Family, at: i16, label: Label) {
    // Of IPv6 both are in headers of their own, which are neither TCP nor UDP.
    if family.ethertype == V4.ethertype {
        program.load(Size::Byte, R1, R7, at);
        program.jump_if(R1, If::NotEqual, 0x45, label);
        program.load(Size::Half, R1, R7, at + 6);
        program.jump_if(R1, If::Common, 0x3fff_u16.to_be().into(), label);
    }
}

/// Copies bytes of the packet to the stack, four at a time.
pub fn copy_out(program: &mut Assembler, to: i16, from: i16, len: i16) {
    for at in (0..len).step_by(4) {
        program.load(Size::Word, R1, R7, from + at);
        program.store(Size::Word, Frame, to + at, R1);
    }
}

/// `sum =` what its upper bytes and lower two add up to, as checksums are added up. Spoils `with`.
pub fn fold(program: &mut Assembler, sum: Register, with: Register) {
    for _ in 0..2 {
        program.copy(with, sum);
        program.change(with, Operation::ShiftRight, 16);
        program.change(sum, Operation::And, 0xffff);
        program.change_by(sum, Operation::Add, with);
    }
}
