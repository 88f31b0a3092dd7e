//! What this host was told of the others, kept over a restart of the daemon: until gossip has told it anew, names and
//! ways stay as they were. It is gone after a reboot, as the kernel's tables are.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use covey_state::Id;
use serde::{Deserialize, Serialize};

use super::place::{Neighbour, Place};
use crate::endpoint::{Endpoint, Scope};

/// Bytes of the file, at most.
const BYTES_MAX: usize = 256 << 20;

/// The file, and who writes it.
#[derive(Debug)]
pub struct Memory {
    file: PathBuf,
    writing: Option<JoinHandle<()>>,
}

/// What is kept.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Where this node is.
    pub place: Option<Place>,
    /// The other nodes.
    pub neighbours: Vec<Neighbour>,
    /// Those of them that are down.
    pub down: BTreeSet<Id>,
    /// What they told of endpoints: scope, owner, key, row.
    pub rows: Vec<(Scope, Id, String, Endpoint)>,
}

impl Memory {
    /// What is kept below the exec root.
    pub fn new(exec_root: &Path) -> Self {
        Self { file: exec_root.join("network"), writing: None }
    }

    /// Reads it; nothing is remembered where there is none, or where it is of another version.
    pub fn read(&self) -> Remembered {
        Remembered::read(&self.file)
    }

    /// The file is being written.
    pub fn is_busy(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| !writing.is_finished())
    }

    /// Writes it, and comes back when it is written.
    pub fn write(&mut self, remembered: &Remembered) {
        self.wait();
        keep(&self.file, remembered);
    }

    /// Has it written meanwhile; waits for the one before only if that [is not done](Self::is_busy).
    pub fn write_aside(&mut self, remembered: Remembered) {
        self.wait();
        let file = self.file.clone();
        let writing =
            thread::Builder::new().name("networks-file".to_owned()).spawn(move || keep(&file, &remembered));
        match writing {
            Ok(writing) => self.writing = Some(writing),
            // What changes next has it written.
            Err(error) => tracing::warn!(%error, "what is told of the network is written later"),
        }
    }

    fn wait(&mut self) {
        if let Some(writing) = self.writing.take()
            && writing.join().is_err()
        {
            tracing::error!("what is told of the network was not written");
        }
    }
}

fn keep(file: &Path, remembered: &Remembered) {
    if let Err(error) = remembered.write(file) {
        tracing::warn!(error = format!("{error:#}"), "the next daemon begins without what this one was told");
    }
}

impl Remembered {
    /// Reads the file; nothing is remembered where there is none, or where it is of another version.
    fn read(file: &Path) -> Self {
        let read = fs::read(file)
            .map_err(anyhow::Error::from)
            .and_then(|bytes| Ok(covey_wire::decode::<Self, BYTES_MAX>(&bytes)?));
        match read {
            Ok(remembered) => remembered,
            Err(error) => {
                let missing =
                    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::NotFound);
                if !missing {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "what was told of the network before is not known"
                    );
                }
                Self::default()
            }
        }
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// The old one is still there.
    fn write(&self, file: &Path) -> Result<()> {
        let new = file.with_extension("new");
        fs::write(&new, covey_wire::encode(self)?)
            .with_context(|| format!("cannot write {}", new.display()))?;
        fs::rename(&new, file).with_context(|| format!("cannot write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_over_last_is_what_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = Memory::new(folder.path());
        assert_eq!(memory.read(), Remembered::default());
        let of = |id| Remembered { down: [Id::new(id)].into(), ..Remembered::default() };
        for id in 1..=20 {
            memory.write_aside(of(id));
        }
        memory.wait();
        assert_eq!(memory.read(), of(20));
        memory.write_aside(of(21));
        memory.write(&of(22));
        assert_eq!(memory.read(), of(22));
        assert!(!memory.is_busy());
    }
}
