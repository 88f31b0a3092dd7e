//! BPF instructions by name, and jumps by label.
//!
//! Only what the flow cache needs. Encoding and numbers: Documentation/bpf/standardization/instruction-set.rst and
//! linux/bpf.h. Instructions are laid out as little-endian machines have them.

/// One instruction as the kernel reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A register. A call reads `R1` to `R5`, answers in `R0`, and spoils all six; the others keep what they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    /// End of the stack, which is 512 bytes below it.
    Frame,
}

/// How much a load or store moves.
#[derive(Clone, Copy, Debug)]
pub enum Size {
    Byte = 0x10,
    Half = 0x08,
    Word = 0x00,
    Double = 0x18,
}

/// When a jump is taken.
#[derive(Clone, Copy, Debug)]
pub enum If {
    Equal = 0x10,
    Greater = 0x20,
    GreaterOrEqual = 0x30,
    /// They have a bit in common.
    Common = 0x40,
    NotEqual = 0x50,
}

/// What is done to a register.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    Add = 0x00,
    Subtract = 0x10,
    Or = 0x40,
    And = 0x50,
    ShiftLeft = 0x60,
    ShiftRight = 0x70,
    ExclusiveOr = 0xa0,
}

/// What the kernel does when called (`enum bpf_func_id`).
#[derive(Clone, Copy, Debug)]
pub enum Helper {
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    /// Nanoseconds since the machine started, but for when it slept.
    Time = 5,
    Random = 7,
    /// Into a packet.
    Store = 9,
    ReplaceChecksum = 11,
    Redirect = 23,
    ChecksumDifference = 28,
    Pull = 39,
    UpdateChecksum = 40,
    AdjustRoom = 50,
    ChecksumLevel = 135,
    RedirectPeer = 155,
    CheckMtu = 163,
}

/// A place in the program, known once it is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// A program being written.
#[derive(Debug, Default)]
pub struct Assembler {
    code: Vec<Instruction>,
    labels: Vec<Option<usize>>,
    /// Instructions whose offset waits for a label.
    jumps: Vec<(usize, Label)>,
}

// Classes of instructions, and the bit that says that an operand is a register.
const LOAD_IMMEDIATE: u8 = 0x18;
const LOAD: u8 = 0x61;
const STORE_IMMEDIATE: u8 = 0x62;
const STORE: u8 = 0x63;
const ATOMIC: u8 = 0xc3;
const ATOMIC_ADD_AND_TELL: i32 = 0x01;
const TO_BIG_ENDIAN: u8 = 0xdc;
const ALU64: u8 = 0x07;
const MOVE: u8 = 0xb0;
const JUMP: u8 = 0x05;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const OF_REGISTER: u8 = 0x08;
/// The immediate is the descriptor of a map (`BPF_PSEUDO_MAP_FD`), or of one whose first value is meant
/// (`BPF_PSEUDO_MAP_VALUE`).
const MAP: u8 = 1;
const MAP_VALUE: u8 = 2;

impl Assembler {
    /// A label that is not bound yet.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The next instruction is where `label` is.
    pub fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    /// The program, every jump led to its label.
    ///
    /// # Panics
    /// A label is not bound, or is too far away.
    pub fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let to = self.labels[label.0].expect("every label is bound");
            let distance = to as i64 - at as i64 - 1;
            self.code[at].offset = i16::try_from(distance).expect("a program is short");
        }
        self.code
    }

    fn push(&mut self, code: u8, to: Register, from: u8, offset: i16, immediate: i32) {
        self.code.push(Instruction { code, registers: to as u8 | from << 4, offset, immediate });
    }

    /// `to = from`
    pub fn copy(&mut self, to: Register, from: Register) {
        self.push(ALU64 | MOVE | OF_REGISTER, to, from as u8, 0, 0);
    }

    /// `to = value`
    pub fn set(&mut self, to: Register, value: i32) {
        self.push(ALU64 | MOVE, to, 0, 0, value);
    }

    /// `to = to OPERATION value`
    pub fn change(&mut self, to: Register, operation: Operation, value: i32) {
        self.push(ALU64 | operation as u8, to, 0, 0, value);
    }

    /// `to = to OPERATION by`
    pub fn change_by(&mut self, to: Register, operation: Operation, by: Register) {
        self.push(ALU64 | OF_REGISTER | operation as u8, to, by as u8, 0, 0);
    }

    /// `to = *(at + offset)`
    pub fn load(&mut self, size: Size, to: Register, at: Register, offset: i16) {
        self.push(LOAD | size as u8, to, at as u8, offset, 0);
    }

    /// `*(at + offset) = from`
    pub fn store(&mut self, size: Size, at: Register, offset: i16, from: Register) {
        self.push(STORE | size as u8, at, from as u8, offset, 0);
    }

    /// `*(at + offset) = value`
    pub fn store_value(&mut self, size: Size, at: Register, offset: i16, value: i32) {
        self.push(STORE_IMMEDIATE | size as u8, at, 0, offset, value);
    }

    /// `with = *(at + offset); *(at + offset) += with`, eight bytes, at once whoever else writes there.
    pub fn add_and_tell(&mut self, at: Register, offset: i16, with: Register) {
        self.push(ATOMIC | Size::Double as u8, at, with as u8, offset, ATOMIC_ADD_AND_TELL);
    }

    /// `register =` its lower two bytes, turned around.
    pub fn turn_around(&mut self, register: Register) {
        self.push(TO_BIG_ENDIAN, register, 0, 0, 16);
    }

    /// `to =` the map of this descriptor
    pub fn map(&mut self, to: Register, descriptor: i32) {
        self.push(LOAD_IMMEDIATE, to, MAP, 0, descriptor);
        self.code.push(Instruction::default());
    }

    /// `to =` where the value of the array of this descriptor lies that has only one
    pub fn map_value(&mut self, to: Register, descriptor: i32) {
        self.push(LOAD_IMMEDIATE, to, MAP_VALUE, 0, descriptor);
        self.code.push(Instruction::default());
    }

    /// Goes on at `label`.
    pub fn jump(&mut self, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(JUMP, Register::R0, 0, 0, 0);
    }

    /// Goes on at `label` if `register` and `value` are so.
    pub fn jump_if(&mut self, register: Register, condition: If, value: i32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(JUMP | condition as u8, register, 0, 0, value);
    }

    /// Goes on at `label` if the registers are so.
    pub fn jump_if_by(&mut self, register: Register, condition: If, other: Register, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(JUMP | OF_REGISTER | condition as u8, register, other as u8, 0, 0);
    }

    /// Calls the kernel.
    pub fn call(&mut self, helper: Helper) {
        self.push(CALL, Register::R0, 0, 0, helper as i32);
    }

    /// Ends with `R0` as the verdict.
    pub fn exit(&mut self) {
        self.push(EXIT, Register::R0, 0, 0, 0);
    }
}
