//! The notes beside the identity, as a member that runs keeps them: what is read here is what is on disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use crate::identity::{Folder, Notes};

/// The notes of a member, shared with whoever changes them.
#[derive(Clone)]
pub struct Notebook(Arc<(Folder, Mutex<Notes>)>);

impl Notebook {
    /// Begins with these.
    pub fn new(folder: Folder, notes: Notes) -> Self {
        Self(Arc::new((folder, Mutex::new(notes))))
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // A change takes effect at once or not at all.
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is noted.
    pub fn read(&self) -> Notes {
        self.notes().clone()
    }

    /// Changes the notes, on disk first. Blocks.
    ///
    /// # Errors
    /// They could not be written, and are as before.
    pub fn change(&self, change: impl FnOnce(&mut Notes)) -> Result<()> {
        let mut notes = self.notes();
        let mut new = notes.clone();
        change(&mut new);
        if new != *notes {
            self.0.0.save_notes(&new)?;
            *notes = new;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_written_is_not_noted() {
        let data_root = tempfile::tempdir().unwrap();
        let address = ([127, 0, 0, 1], 2377).into();
        let notebook =
            Notebook::new(Folder::below(data_root.path()), Notes::new(address, address, None, Vec::new()));
        assert!(notebook.change(|notes| notes.leaving = true).is_err(), "there is no such folder");
        assert!(!notebook.read().leaving);
        std::fs::create_dir(data_root.path().join("swarm")).unwrap();
        notebook.change(|notes| notes.leaving = true).unwrap();
        assert!(notebook.read().leaving);
    }
}
