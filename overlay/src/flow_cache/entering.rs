//! The program for what comes in by a link: looks up its flow, and does with it what is to be done.

use super::{
    ARRIVALS, DROP, Instruction, Maps, PASS, Place, arrival,
    assembler::{Assembler, Helper, If, Label, Operation, Register::*, Size},
    context, counters, end, flow, key,
    packet::{
        ACK, CHECKSUM_V4, CLASS_SHIFT, ETHERNET_LEN, FAMILIES, FIN, Family, NUMBER_V4, RST, Reading, SYN,
        UDP, V4, V6, clear, copy, copy_out, fold, is_of, is_vxlan, load_class, load_packet, load_vni,
        reach_into_vxlan, read, seen,
    },
};

// On the stack.
const KEY: i16 = -key::LEN;
const SEEN: i16 = KEY - seen::LEN;
const NUMBER: i16 = SEEN - 8;
/// New headers: up to the end of VXLAN, and of IP from the addresses on, with room for what lies in front of them.
const HEAD: i16 = NUMBER - 88;
const ADDRESSES: i16 = HEAD - 40;

/// Bytes of the two ports.
const PORTS_LEN: i16 = 4;
/// Where a UDP header has its length.
const UDP_LENGTH: i16 = 4;

/// Bits of an arrival's number.
const NUMBERS_MASK: i32 = 0xffff;

/// `bpf_skb_adjust_room`: behind the Ethernet header.
const BEHIND_ETHERNET: i32 = 1;
// Its flags: pieces of what is cut up later stay as large; what the device knows of checksums stays; what is put in
// front is UDP with Ethernet in it, in one of the families; what comes to light is of this family.
const SAME_SEGMENTS: i32 = 1;
const IN_V4: i32 = 1 << 1;
const IN_V6: i32 = 1 << 2;
const IN_UDP: i32 = 1 << 4;
const SAME_CHECKSUMS: i32 = 1 << 5;
const ETHERNET_INSIDE: i32 = 1 << 6;
const INSIDE_LEN_SHIFT: i32 = 56;
const WAS_V4: i32 = 1 << 7;
const WAS_V6: i32 = 1 << 8;
/// `bpf_csum_level`: one layer less is known to be right.
const ONE_LESS: i32 = 2;
/// `bpf_l4_csum_replace`: addresses count in it, even if the rest is computed by the device (`BPF_F_PSEUDO_HDR`).
const OF_ADDRESSES: i32 = 1 << 4;

/// For what comes in by a link.
pub fn entering(maps: Maps, place: &Place) -> Vec<Instruction> {
    let mut program = Assembler::default();
    let [pass, known, slow] = [(); 3].map(|()| program.label());
    program.copy(R6, R1);
    // For another host, or of another network on the same cable.
    for word in [context::KIND, context::VLAN] {
        program.load(Size::Word, R1, R6, word);
        program.jump_if(R1, If::NotEqual, 0, pass);
    }
    read_key(&mut program, place, known, pass);
    program.bind(known);
    find_flow(&mut program, maps, slow);
    resize(&mut program, place, slow);
    rewrite(&mut program);
    send(&mut program);
    program.bind(slow);
    note_arrival(&mut program, maps, place, pass);
    program.bind(pass);
    end(&mut program, PASS);
    program.finish()
}

/// Reads the packet; its key is on the stack then.
fn read_key(program: &mut Assembler, place: &Place, known: Label, pass: Label) {
    clear(program, SEEN, seen::LEN + key::LEN);
    program.store_value(Size::Word, Frame, KEY + key::NAMESPACE, place.namespace());
    program.load(Size::Word, R1, R6, context::LINK);
    program.store(Size::Word, Frame, KEY + key::LINK, R1);
    load_packet(program);
    let to =
        Reading { seen: SEEN, kind: KEY + key::KIND, ports: KEY + key::PORTS, addresses: KEY + key::SOURCE };
    if let Place::Underlay { local, port } = place {
        let outer = Family::of(*local);
        let [plain, inside] = [(); 2].map(|()| program.label());
        is_vxlan(program, (*local, outer.destination), *port, plain);
        reach_into_vxlan(program, outer, pass);
        load_vni(program, outer);
        program.store(Size::Word, Frame, KEY + key::VNI, R1);
        copy_out(program, KEY + key::OUTER_SOURCE, ETHERNET_LEN + outer.source, outer.address_len);
        program.store_value(Size::Word, Frame, SEEN + seen::STRIP, outer.vxlan_len().into());
        read(program, outer.vxlan_len(), &to, inside, pass);
        // A mark that the packet has got on its way is to reach the one inside: by the kernel.
        program.bind(inside);
        load_class(program, outer, ETHERNET_LEN);
        program.load(Size::Word, R2, Frame, SEEN + seen::CLASS);
        program.change(R2, Operation::ShiftLeft, CLASS_SHIFT);
        program.change_by(R1, Operation::Or, R2);
        program.store(Size::Word, Frame, SEEN + seen::CLASS, R1);
        program.jump(known);
        program.bind(plain);
    }
    read(program, 0, &to, known, pass);
}

/// `R8 =` the flow that the packet is of, if it is no exception, and `R7 =` until when that counts.
fn find_flow(program: &mut Assembler, maps: Maps, slow: Label) {
    let [whole, sized] = [(); 2].map(|()| program.label());
    program.load(Size::Word, R1, Frame, SEEN + seen::FLAGS);
    program.jump_if(R1, If::Common, FIN | SYN | RST, slow);
    program.map(R1, maps.flows);
    program.copy(R2, Frame);
    program.change(R2, Operation::Add, KEY.into());
    program.call(Helper::MapLookup);
    program.jump_if(R0, If::Equal, 0, slow);
    program.copy(R8, R0);
    program.map_value(R1, maps.counters);
    program.load(Size::Double, R1, R1, counters::GENERATION);
    program.load(Size::Double, R2, R8, flow::GENERATION);
    program.jump_if_by(R1, If::NotEqual, R2, slow);
    program.call(Helper::Time);
    program.load(Size::Double, R7, R8, flow::UNTIL);
    program.jump_if_by(R0, If::Greater, R7, slow);
    program.load(Size::Word, R1, Frame, SEEN + seen::CLASS);
    program.load(Size::Word, R2, R8, flow::CLASS);
    program.jump_if_by(R1, If::NotEqual, R2, slow);
    program.load(Size::Word, R1, Frame, SEEN + seen::HOPS);
    program.load(Size::Word, R2, R8, flow::HOPS);
    program.jump_if_by(R2, If::GreaterOrEqual, R1, slow);
    // The size of the packet, or of each into which it will be cut up.
    program.load(Size::Word, R1, R6, context::SEGMENT);
    program.jump_if(R1, If::Equal, 0, whole);
    program.load(Size::Word, R2, Frame, SEEN + seen::HEADERS);
    program.change_by(R1, Operation::Add, R2);
    program.jump(sized);
    program.bind(whole);
    program.load(Size::Word, R1, R6, context::LEN);
    program.change(R1, Operation::Subtract, ETHERNET_LEN.into());
    program.load(Size::Word, R2, Frame, SEEN + seen::STRIP);
    program.change_by(R1, Operation::Subtract, R2);
    program.bind(sized);
    program.load(Size::Word, R2, R8, flow::SIZE_MAX);
    program.jump_if_by(R1, If::Greater, R2, slow);
}

/// Takes VXLAN off the packet, or makes room for it. `R9 =` where its IP header is then.
fn resize(program: &mut Assembler, place: &Place, slow: Label) {
    let done = program.label();
    if let Place::Underlay { local, .. } = place {
        let [keep, adjust] = [(); 2].map(|()| program.label());
        program.load(Size::Word, R9, R8, flow::STRIP);
        program.jump_if(R9, If::Equal, 0, keep);
        // What is yet to be cut up would still be known as a tunnel's: a network card would cut it up as one, and so would
        // a container's socket, which does that for UDP.
        let inside = program.label();
        program.load(Size::Word, R1, R6, context::SEGMENT);
        program.jump_if(R1, If::Equal, 0, inside);
        program.load(Size::Word, R1, R8, flow::OUT);
        program.jump_if(R1, If::NotEqual, 0, slow);
        program.load(Size::Byte, R1, Frame, KEY + key::KIND);
        program.jump_if(R1, If::Equal, UDP, slow);
        program.bind(inside);
        program.set(R4, SAME_SEGMENTS | SAME_CHECKSUMS);
        for (family, flag) in [(&V4, WAS_V4), (&V6, WAS_V6)] {
            if family.ethertype != Family::of(*local).ethertype {
                is_of(program, family, KEY + key::KIND, adjust);
                program.change(R4, Operation::Or, flag);
            }
        }
        program.bind(adjust);
        program.copy(R1, R6);
        program.set(R2, 0);
        program.change_by(R2, Operation::Subtract, R9);
        program.set(R3, BEHIND_ETHERNET);
        program.call(Helper::AdjustRoom);
        program.jump_if(R0, If::NotEqual, 0, slow);
        program.copy(R1, R6);
        program.set(R2, ONE_LESS);
        program.call(Helper::ChecksumLevel);
        program.set(R9, 0);
        program.jump(done);
        program.bind(keep);
    }
    program.load(Size::Word, R9, R8, flow::ADD);
    program.jump_if(R9, If::Equal, 0, done);
    let [v6, adjust] = [(); 2].map(|()| program.label());
    program.set(R4, ETHERNET_LEN.into());
    program.change(R4, Operation::ShiftLeft, INSIDE_LEN_SHIFT);
    program.change(R4, Operation::Or, SAME_SEGMENTS | SAME_CHECKSUMS | IN_UDP | ETHERNET_INSIDE);
    program.jump_if(R9, If::Equal, V6.vxlan_len().into(), v6);
    program.change(R4, Operation::Or, IN_V4);
    program.jump(adjust);
    program.bind(v6);
    program.change(R4, Operation::Or, IN_V6);
    program.bind(adjust);
    program.copy(R1, R6);
    program.copy(R2, R9);
    program.set(R3, BEHIND_ETHERNET);
    program.call(Helper::AdjustRoom);
    program.jump_if(R0, If::NotEqual, 0, slow);
    program.bind(done);
    program.change(R9, Operation::Add, ETHERNET_LEN.into());
}

/// Writes the packet's new headers, by calls: a program that wrote itself would be given a copy of its own of every packet
/// that somebody else has as well, before it had even looked at it.
fn rewrite(program: &mut Assembler) {
    let [of_ports, headers, head, drop, done] = [(); 5].map(|()| program.label());
    for (difference, flag, next) in
        [(flow::ADDRESSES, OF_ADDRESSES, of_ports), (flow::PORTS_DIFFERENCE, 0, headers)]
    {
        program.load(Size::Word, R4, R8, difference);
        program.jump_if(R4, If::Equal, 0, next);
        program.load(Size::Word, R2, Frame, SEEN + seen::CHECKSUM);
        program.change_by(R2, Operation::Add, R9);
        program.load(Size::Word, R5, Frame, SEEN + seen::CHECKSUM_FLAGS);
        program.change(R5, Operation::Or, flag);
        program.copy(R1, R6);
        program.set(R3, 0);
        program.call(Helper::ReplaceChecksum);
        program.bind(next);
    }
    for family in FAMILIES {
        let next = program.label();
        is_of(program, family, KEY + key::KIND, next);
        write_ip(program, family, drop);
        program.jump(head);
        program.bind(next);
    }
    // Whatever is read is of one of them, and what was changed can be written.
    program.bind(drop);
    end(program, DROP);

    program.bind(head);
    for outer in FAMILIES {
        let next = program.label();
        program.load(Size::Word, R1, R8, flow::ADD);
        program.jump_if(R1, If::NotEqual, outer.vxlan_len().into(), next);
        let len = ETHERNET_LEN + outer.vxlan_len();
        copy(program, (Frame, HEAD), (R8, flow::HEAD), len);
        finish_outer(program, outer);
        program.set(R2, 0);
        store(program, HEAD, len, drop);
        program.jump(done);
        program.bind(next);
    }
    copy(program, (Frame, HEAD), (R8, flow::HEAD), ETHERNET_LEN);
    program.set(R2, 0);
    store(program, HEAD, ETHERNET_LEN, drop);
    program.bind(done);
}

/// Writes so many bytes of the stack into the packet, at `R2`.
fn store(program: &mut Assembler, from: i16, len: i16, drop: Label) {
    program.copy(R1, R6);
    program.copy(R3, Frame);
    program.change(R3, Operation::Add, from.into());
    program.set(R4, len.into());
    program.set(R5, 0);
    program.call(Helper::Store);
    program.jump_if(R0, If::NotEqual, 0, drop);
}

/// Writes hops, protocol, checksum, addresses and ports, which lie side by side.
fn write_ip(program: &mut Assembler, family: &Family, drop: Label) {
    let before = family.source - family.hops.min(family.protocol);
    let at = |field: i16| ADDRESSES + field - family.source;
    program.load(Size::Word, R1, Frame, SEEN + seen::HOPS);
    program.load(Size::Word, R2, R8, flow::HOPS);
    program.change_by(R1, Operation::Subtract, R2);
    program.store(Size::Byte, Frame, at(family.hops), R1);
    program.load(Size::Word, R1, Frame, KEY + key::KIND);
    program.store(Size::Byte, Frame, at(family.protocol), R1);
    if family.ethertype == V4.ethertype {
        program.load(Size::Word, R1, Frame, SEEN + seen::SUM);
        program.change(R1, Operation::ExclusiveOr, 0xffff);
        program.load(Size::Word, R2, R8, flow::SUM);
        program.change_by(R1, Operation::Add, R2);
        fold(program, R1, R2);
        program.change(R1, Operation::ExclusiveOr, 0xffff);
        program.store(Size::Half, Frame, at(CHECKSUM_V4), R1);
    } else {
        // Without a checksum of its own, it changes what a network card may have added up. (Of what is not so, that is
        // an error; and the calls before have taken addresses for IPv4's.)
        program.copy(R1, R6);
        program.load(Size::Word, R2, R8, flow::SUM);
        program.call(Helper::UpdateChecksum);
    }
    copy(program, (Frame, at(family.source)), (R8, flow::SOURCE), family.address_len);
    copy(program, (Frame, at(family.destination)), (R8, flow::DESTINATION), family.address_len);
    copy(program, (Frame, at(family.header_len)), (R8, flow::PORTS), PORTS_LEN);
    program.copy(R2, R9);
    program.change(R2, Operation::Add, (family.source - before).into());
    store(program, ADDRESSES - before, before + 2 * family.address_len + PORTS_LEN, drop);
}

/// Writes what differs from packet to packet in VXLAN's header: lengths, and IPv4's number.
fn finish_outer(program: &mut Assembler, outer: &Family) {
    let len = |program: &mut Assembler, less: i16, at: i16| {
        program.load(Size::Word, R1, R6, context::LEN);
        program.change(R1, Operation::Subtract, less.into());
        program.turn_around(R1);
        program.store(Size::Half, Frame, HEAD + at, R1);
    };
    len(program, ETHERNET_LEN + outer.header_len, outer.vxlan_udp() + UDP_LENGTH);
    len(program, ETHERNET_LEN + outer.length_less, ETHERNET_LEN + outer.length);
    if outer.ethertype == V4.ethertype {
        program.load(Size::Word, R9, R8, flow::OUTER_SUM);
        program.change_by(R9, Operation::Add, R1);
        program.call(Helper::Random);
        program.change(R0, Operation::And, 0xffff);
        program.store(Size::Half, Frame, HEAD + ETHERNET_LEN + NUMBER_V4, R0);
        program.change_by(R9, Operation::Add, R0);
        fold(program, R9, R0);
        program.change(R9, Operation::ExclusiveOr, 0xffff);
        program.store(Size::Half, Frame, HEAD + ETHERNET_LEN + CHECKSUM_V4, R9);
    }
}

/// Sends it on. The kernel may have given the flow's place to another one meanwhile, which is then part of the packet: that
/// one was learnt later.
fn send(program: &mut Assembler) {
    let [mine, here, out] = [(); 3].map(|()| program.label());
    program.load(Size::Word, R1, R8, flow::VIA);
    program.load(Size::Word, R2, R8, flow::LINK);
    program.load(Size::Word, R3, R8, flow::OUT);
    program.load(Size::Double, R4, R8, flow::UNTIL);
    program.jump_if_by(R4, If::Equal, R7, mine);
    end(program, DROP);
    program.bind(mine);
    program.set(R4, 0);
    program.store(Size::Word, R6, context::NUMBER, R4);
    program.jump_if(R1, If::Equal, 0, here);
    program.store(Size::Word, R6, context::MARK, R2);
    program.set(R2, 0);
    program.call(Helper::RedirectPeer);
    program.exit();
    program.bind(here);
    program.copy(R1, R2);
    program.set(R2, 0);
    program.jump_if(R3, If::NotEqual, 0, out);
    program.call(Helper::RedirectPeer);
    program.exit();
    program.bind(out);
    program.call(Helper::Redirect);
    program.exit();
}

/// Has it go the usual way, and notes how it came in. What begins or ends a connection ends its flow.
fn note_arrival(program: &mut Assembler, maps: Maps, place: &Place, pass: Label) {
    let [ends, noted] = [(); 2].map(|()| program.label());
    program.load(Size::Word, R1, Frame, SEEN + seen::FLAGS);
    program.jump_if(R1, If::Common, FIN | RST, ends);
    program.change(R1, Operation::And, SYN | ACK);
    program.jump_if(R1, If::NotEqual, SYN, noted);
    program.bind(ends);
    program.map(R1, maps.flows);
    program.copy(R2, Frame);
    program.change(R2, Operation::Add, KEY.into());
    program.call(Helper::MapDelete);
    program.jump(pass);

    program.bind(noted);
    program.map_value(R7, maps.counters);
    program.set(R9, 1);
    program.add_and_tell(R7, counters::ARRIVALS, R9);
    program.change(R9, Operation::And, NUMBERS_MASK);
    program.jump_if(R9, If::Equal, 0, pass);
    program.copy(R1, R9);
    program.change(R1, Operation::And, (ARRIVALS - 1).cast_signed());
    program.store(Size::Word, Frame, NUMBER, R1);
    program.map(R1, maps.arrivals);
    program.copy(R2, Frame);
    program.change(R2, Operation::Add, NUMBER.into());
    program.call(Helper::MapLookup);
    program.jump_if(R0, If::Equal, 0, pass);
    program.store(Size::Word, R0, arrival::BEGUN, R9);
    copy(program, (R0, arrival::KEY), (Frame, KEY), key::LEN);
    copy(program, (R0, arrival::GENERATION), (R7, counters::GENERATION), 8);
    copy(program, (R0, arrival::IDENTITY), (Frame, SEEN + seen::IDENTITY), 8);
    for (to, from) in
        [(arrival::CLASS, seen::CLASS), (arrival::HOPS, seen::HOPS), (arrival::STRIP, seen::STRIP)]
    {
        copy(program, (R0, to), (Frame, SEEN + from), 4);
    }
    let uplink = if let Place::Router(uplink) = place { uplink.router } else { 0 };
    program.store_value(Size::Word, R0, arrival::UPLINK, uplink.cast_signed());
    program.store(Size::Word, R0, arrival::WRITTEN, R9);
    program.store(Size::Word, R6, context::NUMBER, R9);
}
