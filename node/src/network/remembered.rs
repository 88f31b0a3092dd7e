//! What this host was told of the others, kept over a restart of the daemon: until gossip has told it anew, names and
//! ways stay as they were. It is gone after a reboot, as the kernel's tables are.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use covey_state::Id;
use serde::{Deserialize, Serialize};

use super::place::{Neighbour, Place};
use crate::endpoint::{Endpoint, Scope};

/// Bytes of the file, at most.
const BYTES_MAX: usize = 256 << 20;

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

/// The file, below the exec root.
pub fn file(exec_root: &Path) -> PathBuf {
    exec_root.join("network")
}

impl Remembered {
    /// Reads the file; nothing is remembered where there is none, or where it is of another version.
    pub fn read(file: &Path) -> Self {
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
    pub fn write(&self, file: &Path) -> Result<()> {
        let new = file.with_extension("new");
        fs::write(&new, covey_wire::encode(self)?)
            .with_context(|| format!("cannot write {}", new.display()))?;
        fs::rename(&new, file).with_context(|| format!("cannot write {}", file.display()))
    }
}
