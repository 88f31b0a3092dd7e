//! Version 2 has no file for devices: a small BPF program, attached to the group, says which may be used.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::sys;

/// `struct bpf_insn` of `linux/bpf.h`: code, destination (low) and source (high) register, offset, value.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    value: i32,
}

/// The fields of `union bpf_attr` for `BPF_PROG_LOAD` that matter here; the kernel takes missing ones as zero.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The same for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_NE: u8 = 0x55;
const JUMP_NE_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// Registers: 2 type, 3 access, 4 major, 5 minor, 1 scratch (the context, at first), 0 the verdict.
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 1;

/// Attaches `rules` to the group at `directory`.
pub(super) fn attach(rules: &[LinuxDeviceCgroup], directory: &Path) -> io::Result<()> {
    let program = load(&program(rules))?;
    let directory = File::open(directory)?;
    let attach = Attach {
        target: directory.as_raw_fd().unsigned_abs(),
        program: program.as_raw_fd().unsigned_abs(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the struct lives across the call and its size is given.
    sys::check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<Attach>())
    })
    .map(drop)
}

fn load(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let load = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(instructions.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the struct and what it points to live across the call and the sizes are theirs; the kernel only reads.
    let fd = sys::check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>())
    })?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just given this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The last rule that matches decides, so the program looks at the last one first. Nothing matches: denied.
fn program(rules: &[LinuxDeviceCgroup]) -> Vec<Instruction> {
    // The context is three words: access << 16 | type, major, minor.
    let mut code = vec![
        instruction(LOAD_WORD, TYPE, SCRATCH, 0, 0),
        instruction(AND, TYPE, 0, 0, 0xffff),
        instruction(LOAD_WORD, ACCESS, SCRATCH, 0, 0),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, SCRATCH, 4, 0),
        instruction(LOAD_WORD, MINOR, SCRATCH, 8, 0),
    ];
    for rule in rules.iter().rev() {
        code.extend(block(rule));
        if matches_all(rule) {
            // Nothing can be reached behind it, and the kernel refuses code that cannot be reached.
            return code;
        }
    }
    code.extend([instruction(MOVE, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    code
}

fn matches_all(rule: &LinuxDeviceCgroup) -> bool {
    rule.typ().is_none_or(|kind| kind == LinuxDeviceType::A)
}

fn block(rule: &LinuxDeviceCgroup) -> Vec<Instruction> {
    let mut tests: Vec<Instruction> = vec![];
    if !matches_all(rule) {
        let kind = if rule.typ() == Some(LinuxDeviceType::B) { 1 } else { 2 };
        tests.push(instruction(JUMP_NE, TYPE, 0, 0, kind));
        let bits = access_bits(rule.access().as_deref().unwrap_or("rwm"));
        if rule.allow() && bits != 7 {
            // An allowing rule must cover all that is asked for: asked & bits == asked.
            tests.push(instruction(MOVE_REGISTER, SCRATCH, ACCESS, 0, 0));
            tests.push(instruction(AND, SCRATCH, 0, 0, bits));
            tests.push(instruction(JUMP_NE_REGISTER, SCRATCH, ACCESS, 0, 0));
        }
        for (register, number) in [(MAJOR, rule.major()), (MINOR, rule.minor())] {
            if let Some(number) = number.and_then(|n| i32::try_from(n).ok()).filter(|n| *n >= 0) {
                tests.push(instruction(JUMP_NE, register, 0, 0, number));
            }
        }
    }
    // A test that fails skips the rest of the block, verdict and exit included.
    let length = tests.len();
    for (at, test) in tests.iter_mut().enumerate() {
        if test.code == JUMP_NE || test.code == JUMP_NE_REGISTER {
            test.offset = i16::try_from(length - at - 1 + 2).unwrap_or(i16::MAX);
        }
    }
    tests.extend([instruction(MOVE, 0, 0, 0, rule.allow().into()), instruction(EXIT, 0, 0, 0, 0)]);
    tests
}

/// `BPF_DEVCG_ACC_*`.
fn access_bits(access: &str) -> i32 {
    [('m', 1), ('r', 2), ('w', 4)]
        .into_iter()
        .filter(|(letter, _)| access.contains(*letter))
        .map(|(_, b)| b)
        .sum()
}

fn instruction(code: u8, destination: u8, source: u8, offset: i16, value: i32) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::device_rules;

    /// Runs the program as the kernel would.
    fn allows(program: &[Instruction], kind: u64, access: u64, major: u64, minor: u64) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0_u64; 16];
        let mut at = 0_usize;
        loop {
            let i = program[at];
            let (d, s) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            at += 1;
            let mut skip = |holds: bool| at += if holds { i.offset as usize } else { 0 };
            match i.code {
                LOAD_WORD => registers[d] = context[i.offset as usize / 4],
                MOVE => registers[d] = i.value as u64,
                MOVE_REGISTER => registers[d] = registers[s],
                AND => registers[d] &= i.value as u64,
                SHIFT_RIGHT => registers[d] >>= i.value,
                JUMP_NE => skip(registers[d] != i.value as u64),
                JUMP_NE_REGISTER => skip(registers[d] != registers[s]),
                EXIT => return registers[0] == 1,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn a_container_uses_its_few_devices_and_makes_nodes_of_any() {
        let program = program(&device_rules().unwrap());
        const BLOCK: u64 = 1;
        const CHARACTER: u64 = 2;
        const MKNOD: u64 = 1;
        const READ_WRITE: u64 = 6;
        assert!(allows(&program, CHARACTER, READ_WRITE, 1, 3), "/dev/null");
        assert!(allows(&program, CHARACTER, READ_WRITE, 136, 7), "a terminal");
        assert!(allows(&program, BLOCK, MKNOD, 8, 0));
        assert!(!allows(&program, BLOCK, READ_WRITE, 8, 0), "a disk");
        assert!(!allows(&program, BLOCK, MKNOD | 2, 8, 0));
        assert!(!allows(&program, CHARACTER, READ_WRITE, 1, 1), "/dev/mem");
    }

    /// Version 2 alone is not needed for this: the program works in any mounted hierarchy of it.
    #[test]
    fn the_kernel_takes_the_program_and_obeys_it() {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let unified = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let Some(unified) = unified.and_then(|line| line.split(' ').nth(4)) else {
            return eprintln!("SKIPPED: no cgroup2 is mounted");
        };
        let group = Path::new(unified).join(format!("covey-device-test-{}", std::process::id()));
        if let Err(error) = std::fs::create_dir(&group) {
            return eprintln!("SKIPPED: cannot make a cgroup: {error}");
        }
        // Without /dev/zero.
        let zero = |rule: &LinuxDeviceCgroup| (rule.major(), rule.minor()) == (Some(1), Some(5));
        let rules: Vec<_> = device_rules().unwrap().into_iter().filter(|rule| !zero(rule)).collect();
        let attached = attach(&rules, &group);
        let script = "echo 0 > $0/cgroup.procs; : < /dev/null && echo null; : < /dev/zero && echo zero";
        let shell = std::process::Command::new("sh").args(["-c", script]).arg(&group).output().unwrap();
        // The group of an ended process can be removed a moment later.
        while std::fs::remove_dir(&group).is_err_and(|e| e.raw_os_error() == Some(libc::EBUSY)) {}
        match attached {
            Err(e) if [libc::EPERM, libc::ENOSYS].contains(&e.raw_os_error().unwrap_or(0)) => {
                eprintln!("SKIPPED: this kernel does not let us load BPF programs: {e}");
            }
            attached => {
                attached.unwrap();
                assert_eq!(String::from_utf8_lossy(&shell.stdout), "null\n");
            }
        }
    }
}
