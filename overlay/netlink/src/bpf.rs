//! The `bpf` system call: programs and maps, each of which lives as long as somebody has it open or uses it.

use std::{
    ffi::c_long,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use covey_overlay::flow_cache::Instruction;

/// The verifier wants to know that a program may call what only free programs may.
const LICENCE: &std::ffi::CStr = c"GPL";
/// Bytes of what the verifier says about a program that it refuses.
const LOG_MAX: usize = 1 << 16;
/// Lines of that, the last ones, which say why.
const LOG_LINES: usize = 8;

// `enum bpf_cmd`, linux/bpf.h.
const MAP_CREATE: c_long = 0;
const MAP_LOOKUP: c_long = 1;
const MAP_UPDATE: c_long = 2;
const PROGRAM_LOAD: c_long = 5;
const INFO: c_long = 15;

/// `BPF_PROG_TYPE_SCHED_CLS`
const CLASSIFIER: u32 = 3;

// What `bpf` is given for each command: beginnings of `union bpf_attr`. No field has padding before it.

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_len: u32,
    value_len: u32,
    entries_max: u32,
}

#[repr(C)]
struct Element {
    map: u32,
    unused: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_len: u32,
    log: u64,
}

#[repr(C)]
struct InfoOf {
    object: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
}

/// Runs a command.
///
/// # Safety
/// `attribute` is what the command takes, and each address in it is of memory that is as long as the kernel takes it to be.
unsafe fn bpf<T>(command: c_long, attribute: &T) -> io::Result<RawFd> {
    // SAFETY: the attribute lives as long as the call; the caller answers for what it refers to.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attribute), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

/// As [`bpf`], for a command that opens something.
///
/// # Safety
/// As [`bpf`].
unsafe fn open<T>(command: c_long, attribute: &T) -> io::Result<OwnedFd> {
    // SAFETY: the caller answers for the attribute; the descriptor is new and nobody else's.
    unsafe { Ok(OwnedFd::from_raw_fd(bpf(command, attribute)?)) }
}

fn descriptor(of: &OwnedFd) -> u32 {
    // A descriptor that is open is never negative.
    of.as_raw_fd().unsigned_abs()
}

/// How a map keeps its values (`enum bpf_map_type`).
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// By number; all are there from the beginning.
    Array = 2,
    /// By key; who comes in takes the place of one that was not used for long.
    LastUsed = 9,
}

/// A table in the kernel, with keys of `K` bytes and values of `V`.
pub struct Map<const K: usize, const V: usize> {
    fd: OwnedFd,
}

impl<const K: usize, const V: usize> Map<K, V> {
    /// A new one, without keys or with all values zero.
    pub fn create(kind: Kind, entries_max: u32) -> io::Result<Self> {
        let attribute = MapCreate { kind: kind as u32, key_len: K as u32, value_len: V as u32, entries_max };
        // SAFETY: it refers to no memory.
        Ok(Self { fd: unsafe { open(MAP_CREATE, &attribute)? } })
    }

    /// Its descriptor, as programs refer to it.
    pub fn descriptor(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    fn element(&self, key: &[u8; K], value: *const u8) -> Element {
        Element {
            map: descriptor(&self.fd),
            unused: 0,
            key: key.as_ptr() as u64,
            value: value as u64,
            flags: 0,
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8; K]) -> io::Result<[u8; V]> {
        let mut value = [0; V];
        let attribute = self.element(key, value.as_mut_ptr());
        // SAFETY: key and value are as long as the map was made for.
        unsafe { bpf(MAP_LOOKUP, &attribute).map(|_| value) }
    }

    /// Sets the value of a key.
    pub fn set(&self, key: &[u8; K], value: &[u8; V]) -> io::Result<()> {
        let attribute = self.element(key, value.as_ptr());
        // SAFETY: key and value are as long as the map was made for.
        unsafe { bpf(MAP_UPDATE, &attribute).map(drop) }
    }
}

/// A program for packets.
pub struct Program {
    fd: OwnedFd,
    /// By which the kernel tells it from all others.
    pub id: u32,
}

impl Program {
    /// Has the kernel check and take a program.
    ///
    /// # Errors
    /// With what the verifier says, where it says something.
    pub fn load(code: &[Instruction]) -> io::Result<Self> {
        let fd = match load(code, &mut []) {
            Ok(fd) => fd,
            // Only now: to have it say something slows the verifier down.
            Err(error) => {
                let mut log = vec![0; LOG_MAX];
                load(code, &mut log).map_err(|_| io::Error::new(error.kind(), verdict(&error, &log)))?
            }
        };
        let mut info = ProgramInfo::default();
        let attribute = InfoOf {
            object: descriptor(&fd),
            info_len: size_of::<ProgramInfo>() as u32,
            info: std::ptr::from_mut(&mut info) as u64,
        };
        // SAFETY: a program is told of so, and so many bytes are there for it.
        unsafe { bpf(INFO, &attribute)? };
        Ok(Self { fd, id: info.id })
    }

    /// Its descriptor, as filters refer to it.
    pub fn descriptor(&self) -> u32 {
        descriptor(&self.fd)
    }
}

/// What the verifier says goes to `log`, if that has room.
fn load(code: &[Instruction], log: &mut [u8]) -> io::Result<OwnedFd> {
    let attribute = ProgramLoad {
        kind: CLASSIFIER,
        count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        licence: LICENCE.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_len: log.len() as u32,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
    };
    // SAFETY: so many instructions and bytes for the log are there, and the licence ends with a zero.
    unsafe { open(PROGRAM_LOAD, &attribute) }
}

fn verdict(error: &io::Error, log: &[u8]) -> String {
    let log = log.split(|byte| *byte == 0).next().unwrap_or_default();
    let log = String::from_utf8_lossy(log);
    let mut lines: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
    lines.reverse();
    if lines.is_empty() { error.to_string() } else { format!("{error}: {}", lines.join(" | ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_has_against_a_program_is_told() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root to load programs");
            return;
        }
        let error = Program::load(&[Instruction::default()]).map(|program| program.id).unwrap_err();
        assert!(error.to_string().contains("insn"), "{error}");
    }

    #[test]
    fn of_what_the_verifier_says_the_end_is_told() {
        let log: String = (0..20).map(|line| format!("line {line}\n")).collect();
        let told = verdict(&io::ErrorKind::InvalidInput.into(), format!("{log}\0\0").as_bytes());
        assert!(told.contains(": line 12 | line 13") && told.ends_with("| line 19"), "{told}");
    }
}
