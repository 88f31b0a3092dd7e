//! The `bpf` system call: programs and maps, each of which lives as long as somebody has it open or uses it.

use std::{
    ffi::c_long,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use covey_overlay::shortcut::Instruction;

/// Bytes of a program's tag, by which the kernel tells programs of the same instructions (`BPF_TAG_SIZE`).
const TAG_LEN: usize = 8;
/// The verifier wants to know that a program may call what only free programs may.
const LICENCE: &std::ffi::CStr = c"GPL";

// `enum bpf_cmd`, linux/bpf.h.
const MAP_CREATE: c_long = 0;
const MAP_LOOKUP: c_long = 1;
const MAP_UPDATE: c_long = 2;
const MAP_DELETE: c_long = 3;
const MAP_NEXT_KEY: c_long = 4;
const PROGRAM_LOAD: c_long = 5;
const PROGRAM_BY_ID: c_long = 13;
const MAP_BY_ID: c_long = 14;
const INFO: c_long = 15;

const HASH: u32 = 1;
/// Memory is taken as entries come (`BPF_F_NO_PREALLOC`).
const AS_THEY_COME: u32 = 1;
/// `BPF_PROG_TYPE_SCHED_CLS`
const CLASSIFIER: u32 = 3;

// What `bpf` is given for each command: beginnings of `union bpf_attr`. No field has padding before it.

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_len: u32,
    value_len: u32,
    entries_max: u32,
    flags: u32,
}

#[repr(C)]
struct Element {
    map: u32,
    unused: u32,
    key: u64,
    /// Of the value, or of where the next key goes.
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
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct ById {
    id: u32,
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
    tag: [u8; TAG_LEN],
    lengths: [u32; 2],
    code: [u64; 2],
    load_time: u64,
    user: u32,
    map_count: u32,
    map_ids: u64,
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_len: u32,
    value_len: u32,
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

/// Asks what something that is open is.
///
/// # Safety
/// `info` is the beginning of what the kernel tells of such a thing. As [`bpf`].
unsafe fn ask<T>(of: &OwnedFd, info: &mut T) -> io::Result<()> {
    let attribute = InfoOf {
        object: descriptor(of),
        info_len: size_of::<T>() as u32,
        info: std::ptr::from_mut(info) as u64,
    };
    // SAFETY: so many bytes are there for the answer; the caller answers for what they refer to.
    unsafe { bpf(INFO, &attribute).map(drop) }
}

fn descriptor(of: &OwnedFd) -> u32 {
    // A descriptor that is open is never negative.
    of.as_raw_fd().unsigned_abs()
}

/// A hash table in the kernel, with keys of `K` bytes.
pub struct Map<const K: usize> {
    fd: OwnedFd,
    value_len: usize,
}

impl<const K: usize> Map<K> {
    /// A new one, empty.
    pub fn create(value_len: usize, entries_max: u32) -> io::Result<Self> {
        let attribute = MapCreate {
            kind: HASH,
            key_len: K as u32,
            value_len: value_len as u32,
            entries_max,
            flags: AS_THEY_COME,
        };
        // SAFETY: it refers to no memory.
        Ok(Self { fd: unsafe { open(MAP_CREATE, &attribute)? }, value_len })
    }

    /// Its descriptor, as programs refer to it.
    pub fn descriptor(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    fn element(&self, key: *const u8, value: *const u8) -> Element {
        Element { map: descriptor(&self.fd), unused: 0, key: key as u64, value: value as u64, flags: 0 }
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8; K]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.value_len];
        let attribute = self.element(key.as_ptr(), value.as_mut_ptr());
        // SAFETY: key and value are as long as the map was made for.
        match unsafe { bpf(MAP_LOOKUP, &attribute) } {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            found => found.map(|_| Some(value)),
        }
    }

    /// Sets the value of a key. Only the map's own length is read of it.
    pub fn set(&self, key: &[u8; K], value: &[u8]) -> io::Result<()> {
        if value.len() != self.value_len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let attribute = self.element(key.as_ptr(), value.as_ptr());
        // SAFETY: key and value are as long as the map was made for.
        unsafe { bpf(MAP_UPDATE, &attribute).map(drop) }
    }

    /// Deletes a key; that it is not there is no error.
    pub fn delete(&self, key: &[u8; K]) -> io::Result<()> {
        let attribute = self.element(key.as_ptr(), std::ptr::null());
        // SAFETY: the key is as long as the map was made for.
        match unsafe { bpf(MAP_DELETE, &attribute) } {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            deleted => deleted.map(drop),
        }
    }

    /// All keys. Only this process sets and deletes any.
    pub fn keys(&self) -> io::Result<Vec<[u8; K]>> {
        let mut keys: Vec<[u8; K]> = Vec::new();
        loop {
            let last = keys.last().map_or(std::ptr::null(), |key| key.as_ptr());
            let mut next = [0; K];
            let attribute = self.element(last, next.as_mut_ptr());
            // SAFETY: the key before is as long as the map was made for or there is none; the next one has room.
            match unsafe { bpf(MAP_NEXT_KEY, &attribute) } {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
                found => found?,
            };
            keys.push(next);
        }
    }
}

/// A program for packets.
pub struct Program {
    fd: OwnedFd,
    /// Equal for programs of the same instructions.
    pub tag: [u8; TAG_LEN],
    map: u32,
}

impl Program {
    /// Has the kernel check and take a program that refers to one map.
    pub fn load(code: &[Instruction]) -> io::Result<Self> {
        let attribute = ProgramLoad {
            kind: CLASSIFIER,
            count: code.len() as u32,
            instructions: code.as_ptr() as u64,
            licence: LICENCE.as_ptr() as u64,
            log_level: 0,
            log_len: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
        };
        // SAFETY: so many instructions are there, and the licence ends with a zero.
        Self::known(unsafe { open(PROGRAM_LOAD, &attribute)? })
    }

    /// The program of this number, if it refers to one map.
    pub fn find(id: u32) -> io::Result<Self> {
        // SAFETY: it refers to no memory.
        Self::known(unsafe { open(PROGRAM_BY_ID, &ById { id })? })
    }

    fn known(fd: OwnedFd) -> io::Result<Self> {
        let mut map = 0_u32;
        let mut info =
            ProgramInfo { map_count: 1, map_ids: std::ptr::from_mut(&mut map) as u64, ..Default::default() };
        // SAFETY: a program is told of so; there is room for one map's number.
        unsafe { ask(&fd, &mut info)? };
        if info.map_count != 1 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self { fd, tag: info.tag, map })
    }

    /// Its descriptor, as filters refer to it.
    pub fn descriptor(&self) -> u32 {
        descriptor(&self.fd)
    }

    /// The map that it refers to, if its keys have `K` bytes and its values so many.
    pub fn map<const K: usize>(&self, value_len: usize) -> io::Result<Map<K>> {
        // SAFETY: it refers to no memory.
        let fd = unsafe { open(MAP_BY_ID, &ById { id: self.map })? };
        let mut info = MapInfo::default();
        // SAFETY: a map is told of so, and refers to no memory.
        unsafe { ask(&fd, &mut info)? };
        if (info.key_len as usize, info.value_len as usize) != (K, value_len) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Map { fd, value_len })
    }
}
