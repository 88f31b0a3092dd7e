//! A disk in memory that loses power, or runs full, when a test wants it to.

use std::{
    io,
    sync::{Arc, Mutex},
};

use redb::StorageBackend;

/// What happens once no operation is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing more is written, and of what was not synced some is lost.
    PowerCut,
    /// Nothing more can be written.
    Full,
}

#[derive(Debug)]
struct State {
    /// What a reader sees.
    content: Vec<u8>,
    /// What is certainly there after a power cut.
    synced: Vec<u8>,
    /// What was written since.
    pending: Vec<(usize, Vec<u8>)>,
    /// Operations until the end.
    left: usize,
    end: End,
}

/// The disk; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(super) fn new(content: Vec<u8>, left: usize, end: End) -> Self {
        let state = State { synced: content.clone(), content, pending: Vec::new(), left, end };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Operations until the end.
    pub(super) fn left(&self) -> usize {
        self.0.lock().unwrap().left
    }

    /// What a power cut now leaves: everything synced, and of the rest what `seed` decides.
    pub(super) fn after_power_cut(&self, mut seed: u64) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        let mut content = state.synced.clone();
        for (offset, bytes) in &state.pending {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            if !seed.is_multiple_of(3) {
                write(&mut content, *offset, bytes);
            }
        }
        content
    }

    fn operate(&self, operation: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        if state.left == 0 {
            return Err(match state.end {
                End::PowerCut => io::Error::other("there is no power"),
                End::Full => io::ErrorKind::StorageFull.into(),
            });
        }
        state.left -= 1;
        operation(&mut state);
        Ok(())
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let offset = offset as usize;
        let bytes = state.content.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // The length is part of the file system's journal: it is there at once.
        self.operate(|state| {
            state.content.resize(len as usize, 0);
            state.synced.resize(len as usize, 0);
            state.pending.retain(|(offset, bytes)| offset + bytes.len() <= len as usize);
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.operate(|state| {
            state.synced = state.content.clone();
            state.pending.clear();
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.operate(|state| {
            write(&mut state.content, offset as usize, data);
            state.pending.push((offset as usize, data.to_vec()));
        })
    }
}
