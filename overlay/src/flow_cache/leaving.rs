//! The program for what goes out by a link: learns what became of it since it came in.

use super::{
    ARRIVALS, HOST, Instruction, LIFETIME_NS, Maps, PASS, Place, arrival,
    assembler::{Assembler, Helper, If, Label, Operation, Register, Register::*, Size},
    context, end, flow, key,
    packet::{
        CHECKSUM_V4, CLASS_SHIFT, ETHERNET_LEN, Family, NUMBER_V4, Reading, V4, V6, clear, copy, fold, is_of,
        is_vxlan, load_packet, reach_into_vxlan, reaches, read, seen,
    },
};

// On the stack.
const FLOW: i16 = -flow::LEN;
const SEEN: i16 = FLOW - seen::LEN;
const KIND: i16 = SEEN - 4;
const WORD: i16 = SEEN - 8;
const ARRIVAL: i16 = WORD - arrival::LEN;

/// Where a UDP header has its checksum.
const UDP_CHECKSUM: i16 = 6;

/// Of IPv6, hops are the upper half of two bytes as these are added up; of IPv4, the lower one.
const HOPS_SHIFT_V6: i32 = 8;

/// For what goes out by a link.
pub fn leaving(maps: Maps, place: &Place) -> Vec<Instruction> {
    let mut program = Assembler::default();
    let [pass, known] = [(); 2].map(|()| program.label());
    program.copy(R6, R1);
    find_arrival(&mut program, maps, pass);
    // The tag is none of the head's bytes yet.
    program.load(Size::Word, R1, R6, context::VLAN);
    program.jump_if(R1, If::NotEqual, 0, pass);
    read_flow(&mut program, place, known, pass);
    program.bind(known);
    is_the_same(&mut program, pass);
    where_to(&mut program, place, pass);
    what_changed(&mut program, pass);
    program.map(R1, maps.flows);
    program.copy(R2, Frame);
    program.change(R2, Operation::Add, (ARRIVAL + arrival::KEY).into());
    program.copy(R3, Frame);
    program.change(R3, Operation::Add, FLOW.into());
    program.set(R4, 0);
    program.call(Helper::MapUpdate);
    program.bind(pass);
    end(&mut program, PASS);
    program.finish()
}

/// Copies how the packet came in.
fn find_arrival(program: &mut Assembler, maps: Maps, pass: Label) {
    program.load(Size::Word, R1, R6, context::NUMBER);
    program.jump_if(R1, If::Equal, 0, pass);
    program.copy(R9, R1);
    program.change(R1, Operation::And, (ARRIVALS - 1).cast_signed());
    program.store(Size::Word, Frame, WORD, R1);
    program.set(R1, 0);
    program.store(Size::Word, R6, context::NUMBER, R1);
    program.map(R1, maps.arrivals);
    program.copy(R2, Frame);
    program.change(R2, Operation::Add, WORD.into());
    program.call(Helper::MapLookup);
    program.jump_if(R0, If::Equal, 0, pass);
    copy(program, (Frame, ARRIVAL), (R0, 0), arrival::LEN);
    for number in [arrival::WRITTEN, arrival::BEGUN] {
        load_arrival(program, R1, number);
        program.jump_if_by(R1, If::NotEqual, R9, pass);
    }
}

fn load_arrival(program: &mut Assembler, to: Register, field: i16) {
    program.load(Size::Word, to, Frame, ARRIVAL + field);
}

/// Reads the packet, and all of its head that the flow keeps.
fn read_flow(program: &mut Assembler, place: &Place, known: Label, pass: Label) {
    clear(program, SEEN, seen::LEN + flow::LEN);
    load_packet(program);
    let to = Reading { seen: SEEN, kind: KIND, ports: FLOW + flow::PORTS, addresses: FLOW + flow::SOURCE };
    if let Place::Underlay { local, port } = place {
        let outer = Family::of(*local);
        let plain = program.label();
        is_vxlan(program, (*local, outer.source), *port, plain);
        reach_into_vxlan(program, outer, pass);
        // What only passes through this host from one to another.
        load_arrival(program, R1, arrival::STRIP);
        program.jump_if(R1, If::NotEqual, 0, pass);
        program.store_value(Size::Word, Frame, FLOW + flow::ADD, outer.vxlan_len().into());
        copy(program, (Frame, FLOW + flow::HEAD), (R7, 0), ETHERNET_LEN + outer.vxlan_len());
        leave_open(program, outer, pass);
        read(program, outer.vxlan_len(), &to, known, pass);
        program.bind(plain);
        is_ours(program, pass);
    }
    reaches(program, ETHERNET_LEN, pass);
    copy(program, (Frame, FLOW + flow::HEAD), (R7, 0), ETHERNET_LEN);
    read(program, 0, &to, known, pass);
}

/// What came in and goes out by the host's own link, and was no container's, is none of ours.
fn is_ours(program: &mut Assembler, pass: Label) {
    let ours = program.label();
    load_arrival(program, R1, arrival::STRIP);
    program.jump_if(R1, If::NotEqual, 0, ours);
    load_arrival(program, R1, arrival::KEY + key::NAMESPACE);
    program.jump_if(R1, If::NotEqual, HOST, ours);
    load_arrival(program, R1, arrival::KEY + key::LINK);
    program.load(Size::Word, R2, R6, context::LINK);
    program.jump_if_by(R1, If::Equal, R2, pass);
    program.bind(ours);
}

/// Leaves out of VXLAN's header what differs from packet to packet. There is no checksum over all of it, which nobody could
/// keep right: for IPv4 it may be left out, and for IPv6 our devices leave it out (RFC 6935).
fn leave_open(program: &mut Assembler, outer: &Family, pass: Label) {
    let udp_checksum = outer.vxlan_udp() + UDP_CHECKSUM;
    if outer.ethertype != V4.ethertype {
        program.load(Size::Half, R1, R7, udp_checksum);
        program.jump_if(R1, If::NotEqual, 0, pass);
        return;
    }
    program.store_value(Size::Half, Frame, FLOW + flow::HEAD + udp_checksum, 0);
    program.set(R1, 0);
    for field in [CHECKSUM_V4, NUMBER_V4, outer.length] {
        program.load(Size::Half, R2, R7, ETHERNET_LEN + field);
        program.change(R2, Operation::ExclusiveOr, 0xffff);
        program.change_by(R1, Operation::Add, R2);
    }
    fold(program, R1, R2);
    program.store(Size::Word, Frame, FLOW + flow::OUTER_SUM, R1);
}

/// Only the very packet that came in tells anything, and only if its class of service is still what it was: there is none
/// in a flow.
fn is_the_same(program: &mut Assembler, pass: Label) {
    program.load(Size::Word, R1, Frame, KIND);
    load_arrival(program, R2, arrival::KEY + key::KIND);
    program.jump_if_by(R1, If::NotEqual, R2, pass);
    program.load(Size::Double, R1, Frame, SEEN + seen::IDENTITY);
    program.load(Size::Double, R2, Frame, ARRIVAL + arrival::IDENTITY);
    program.jump_if_by(R1, If::NotEqual, R2, pass);
    let plain = program.label();
    load_arrival(program, R1, arrival::CLASS);
    load_arrival(program, R2, arrival::STRIP);
    program.jump_if(R2, If::Equal, 0, plain);
    program.change(R1, Operation::ShiftRight, CLASS_SHIFT);
    program.bind(plain);
    program.load(Size::Word, R2, Frame, SEEN + seen::CLASS);
    program.jump_if_by(R1, If::NotEqual, R2, pass);
}

/// By which link packets leave from the one that this came in by.
fn where_to(program: &mut Assembler, place: &Place, pass: Label) {
    let here = program.label();
    let set = |program: &mut Assembler, to: i16, from: Register| {
        program.store(Size::Word, Frame, FLOW + to, from);
    };
    program.load(Size::Word, R1, R6, context::LINK);
    set(program, flow::LINK, R1);
    load_arrival(program, R1, arrival::KEY + key::NAMESPACE);
    match place {
        Place::Underlay { .. } => {
            program.store_value(Size::Word, Frame, FLOW + flow::OUT, 1);
            load_arrival(program, R1, arrival::UPLINK);
            set(program, flow::VIA, R1);
        }
        Place::Host => program.jump_if(R1, If::NotEqual, HOST, pass),
        Place::Router(uplink) => {
            program.jump_if(R1, If::Equal, place.namespace(), here);
            program.jump_if(R1, If::NotEqual, HOST, pass);
            program.store_value(Size::Word, Frame, FLOW + flow::VIA, uplink.host.cast_signed());
        }
    }
    program.bind(here);
}

/// Everything else of the flow.
fn what_changed(program: &mut Assembler, pass: Label) {
    let get = |program: &mut Assembler, from: i16| load_arrival(program, R1, from);
    let set = |program: &mut Assembler, to: i16| program.store(Size::Word, Frame, FLOW + to, R1);
    program.call(Helper::Time);
    program.change(R0, Operation::Add, LIFETIME_NS);
    program.store(Size::Double, Frame, FLOW + flow::UNTIL, R0);
    copy(program, (Frame, FLOW + flow::GENERATION), (Frame, ARRIVAL + arrival::GENERATION), 8);
    for (to, from) in [(flow::STRIP, arrival::STRIP), (flow::CLASS, arrival::CLASS)] {
        get(program, from);
        set(program, to);
    }
    // What the link takes, of which VXLAN is a part.
    program.store_value(Size::Word, Frame, WORD, 0);
    program.copy(R1, R6);
    program.set(R2, 0);
    program.copy(R3, Frame);
    program.change(R3, Operation::Add, WORD.into());
    program.set(R4, 0);
    program.set(R5, 0);
    program.call(Helper::CheckMtu);
    program.load(Size::Word, R1, Frame, WORD);
    program.load(Size::Word, R2, Frame, FLOW + flow::ADD);
    program.change_by(R1, Operation::Subtract, R2);
    set(program, flow::SIZE_MAX);

    for (to, from, len) in [(flow::ADDRESSES, flow::SOURCE, 32), (flow::PORTS_DIFFERENCE, flow::PORTS, 4)] {
        let (before, same) = (if len == 4 { key::PORTS } else { key::SOURCE }, program.label());
        program.copy(R1, Frame);
        program.change(R1, Operation::Add, (ARRIVAL + arrival::KEY + before).into());
        program.set(R2, len);
        program.copy(R3, Frame);
        program.change(R3, Operation::Add, (FLOW + from).into());
        program.set(R4, len);
        program.set(R5, 0);
        program.call(Helper::ChecksumDifference);
        // As a 32 bit number, which is what it is; nothing is one of its two zeros.
        program.copy(R1, R0);
        program.change(R1, Operation::ShiftLeft, 32);
        program.change(R1, Operation::ShiftRight, 32);
        fold(program, R1, R2);
        program.jump_if(R1, If::Equal, 0xffff, same);
        set(program, to);
        program.bind(same);
    }

    get(program, arrival::HOPS);
    program.load(Size::Word, R2, Frame, SEEN + seen::HOPS);
    program.jump_if_by(R2, If::Greater, R1, pass);
    program.change_by(R1, Operation::Subtract, R2);
    set(program, flow::HOPS);
    let v4 = program.label();
    program.copy(R3, R1);
    is_of(program, &V6, KIND, v4);
    program.change(R3, Operation::ShiftLeft, HOPS_SHIFT_V6);
    program.bind(v4);
    program.load(Size::Word, R1, Frame, FLOW + flow::ADDRESSES);
    program.change(R1, Operation::Add, 0xffff);
    program.change_by(R1, Operation::Subtract, R3);
    set(program, flow::SUM);
}
