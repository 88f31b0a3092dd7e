//! What this host was told of the others, kept over a restart of the daemon: until gossip has told it anew, names and
//! ways stay as they were. It is gone after a reboot, as the kernel's tables are.
//!
//! Beside the file with all of it, which is written now and then, stands one with what was told since: each piece is there
//! before the kernel hears of it, so a daemon that is killed leaves nothing in the kernel that the next one does not know.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, bail};
use covey_state::Id;
use serde::{Deserialize, Serialize};

use super::{
    place::{Neighbour, Place},
    rows::Key,
};
use crate::{
    endpoint::{Endpoint, Scope},
    origins::Origins,
};

/// Bytes of a file, at most.
const BYTES_MAX: usize = 256 << 20;
/// Bytes of news from which on no more are noted: all is written every few seconds, unless the disk takes nothing.
const NEWS_BYTES_MAX: u64 = 64 << 20;
/// Bytes in front of each piece of news, which say how many it has.
const LENGTH_BYTES: usize = size_of::<u32>();

/// The files, and who writes them.
#[derive(Debug)]
pub struct Memory {
    file: PathBuf,
    writing: Option<JoinHandle<()>>,
    /// Where news are noted, once there were any.
    news: Option<fs::File>,
}

/// What hosts tell of endpoints, or no longer tell.
pub type Rows = BTreeMap<(Scope, Key), Option<Endpoint>>;

/// What was told at once: rows as [`Remembered`] has them, and the hosts that went down or came back.
type News = (Vec<(Scope, Id, String, Option<Endpoint>)>, BTreeMap<Id, bool>);

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Where this node is.
    pub place: Option<Place>,
    /// The other nodes.
    pub neighbours: Vec<Neighbour>,
    /// The addresses that they are seen under.
    pub origins: BTreeMap<Id, Origins>,
    /// Those of them that are down.
    pub down: BTreeSet<Id>,
    /// What they told of endpoints: scope, owner, key, row.
    pub rows: Vec<(Scope, Id, String, Endpoint)>,
}

impl Memory {
    /// What is kept below the exec root.
    pub fn new(exec_root: &Path) -> Self {
        Self { file: exec_root.join("network"), writing: None, news: None }
    }

    /// Reads it, with what was noted since it was written; nothing is remembered where there is none, or where it is of
    /// another version.
    pub fn read(&self) -> Remembered {
        let mut remembered = Remembered::read(&self.file);
        remembered.add([older(&self.file), newer(&self.file)].iter().flat_map(|file| read_news(file)));
        remembered
    }

    /// Notes what is told, before anything else is done about it.
    pub fn note(&mut self, rows: &Rows, down: &BTreeMap<Id, bool>) {
        let rows: Vec<_> =
            rows.iter().map(|((scope, (owner, key)), row)| (scope, owner, &**key, row)).collect();
        let noted = covey_wire::encode(&(rows, down)).map_err(Into::into).and_then(|news| self.append(&news));
        if let Err(error) = noted {
            tracing::warn!(error = format!("{error:#}"), "what is told of the network is written down later");
        }
    }

    fn append(&mut self, news: &[u8]) -> Result<()> {
        let file = match &mut self.news {
            Some(file) => file,
            none => none.insert(open_news(&newer(&self.file))?),
        };
        let before = file.metadata()?.len();
        if before > NEWS_BYTES_MAX {
            bail!("there are too many news that were not written");
        }
        let length = u32::try_from(news.len())?.to_le_bytes();
        let noted = file.write_all(&[&length[..], news].concat());
        if noted.is_err() {
            // What comes later is to be found.
            file.set_len(before)?;
        }
        Ok(noted?)
    }

    /// What is noted up to now will be in the file that is written next.
    fn turn(&mut self) {
        // Else the last one was not written: nothing of what was noted before it may be lost.
        if !older(&self.file).exists() {
            self.news = None;
            // There need not have been any news.
            let _ = fs::rename(newer(&self.file), older(&self.file));
        }
    }

    /// The file is being written.
    pub fn is_busy(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| !writing.is_finished())
    }

    /// Writes it, and comes back when it is written.
    pub fn write(&mut self, remembered: &Remembered) {
        self.wait();
        self.turn();
        keep(&self.file, remembered);
    }

    /// Has it written meanwhile; waits for the one before only if that [is not done](Self::is_busy).
    pub fn write_aside(&mut self, remembered: Remembered) {
        self.wait();
        self.turn();
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
    match remembered.write(file) {
        // There need not have been any news.
        Ok(()) => _ = fs::remove_file(older(file)),
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "the next daemon begins without what this one was told"
            );
        }
    }
}

/// News since the file was written.
fn newer(file: &Path) -> PathBuf {
    file.with_extension("news")
}

/// News that are in the file which is being written.
fn older(file: &Path) -> PathBuf {
    file.with_extension("news-before")
}

/// The news of before, to which more are added behind the last that is whole.
fn open_news(file: &Path) -> io::Result<fs::File> {
    let opened = fs::File::options().create(true).read(true).append(true).open(file)?;
    let whole: usize = pieces(&fs::read(file)?).map(|piece| LENGTH_BYTES + piece.len()).sum();
    opened.set_len(whole as u64)?;
    Ok(opened)
}

/// What was noted.
fn read_news(file: &Path) -> Vec<News> {
    let bytes = fs::read(file).unwrap_or_default();
    pieces(&bytes).map_while(|piece| covey_wire::decode::<News, BYTES_MAX>(piece).ok()).collect()
}

/// The pieces of news, up to where a daemon that was killed could note no more.
fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
        let (piece, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        bytes = rest;
        Some(piece)
    })
}

impl Remembered {
    /// Takes what was told later.
    fn add(&mut self, news: impl Iterator<Item = News>) {
        let rows = std::mem::take(&mut self.rows).into_iter();
        let mut rows: BTreeMap<(Scope, Id, String), Endpoint> =
            rows.map(|(scope, owner, key, row)| ((scope, owner, key), row)).collect();
        for (told, hosts) in news {
            for (scope, owner, key, row) in told {
                match row {
                    Some(row) => rows.insert((scope, owner, key), row),
                    None => rows.remove(&(scope, owner, key)),
                };
            }
            for (host, down) in hosts {
                if down {
                    self.down.insert(host)
                } else {
                    self.down.remove(&host)
                };
            }
        }
        self.rows = rows.into_iter().map(|((scope, owner, key), row)| (scope, owner, key, row)).collect();
    }

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

    /// NET-29: a daemon that is killed in the same moment.
    #[test]
    fn what_was_told_last_is_remembered_though_nobody_wrote_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let keys = |memory: &Memory| -> Vec<String> {
            memory.read().rows.into_iter().map(|(_, _, key, _)| key).collect()
        };
        let at = |key: &str| (Scope::Ingress, (Id::new(2), key.into()));
        let mut memory = Memory::new(folder.path());
        memory.note(&[(at("a"), Some(row())), (at("b"), Some(row()))].into(), &[(Id::new(3), true)].into());
        memory.note(&[(at("a"), None)].into(), &BTreeMap::new());
        assert_eq!((keys(&memory), memory.read().down), (vec!["b".to_owned()], [Id::new(3)].into()));

        // What is being written has all that, and what comes meanwhile is noted beside it.
        let all = memory.read();
        memory.write_aside(all.clone());
        memory.note(&[(at("c"), Some(row()))].into(), &[(Id::new(3), false)].into());
        assert_eq!((keys(&memory), memory.read().down), (vec!["b".to_owned(), "c".to_owned()], [].into()));
        memory.wait();
        assert_eq!(keys(&Memory::new(folder.path())), ["b", "c"]);

        // A file that cannot be written takes no news with it.
        let place = folder.path().join("network.new");
        fs::create_dir(&place).unwrap();
        memory.write(&all);
        memory.note(&[(at("d"), Some(row()))].into(), &BTreeMap::new());
        memory.write(&all);
        memory.note(&[(at("b"), None)].into(), &BTreeMap::new());
        assert_eq!(keys(&memory), ["c", "d"]);
        fs::remove_dir(place).unwrap();
        memory.write(&memory.read());
        assert_eq!(keys(&memory), ["c", "d"]);
        assert!(!older(&memory.file).exists());

        // One that was cut short ends there.
        memory.note(&[(at("e"), Some(row()))].into(), &BTreeMap::new());
        memory.note(&[(at("f"), Some(row()))].into(), &BTreeMap::new());
        let news = fs::read(newer(&memory.file)).unwrap();
        fs::write(newer(&memory.file), &news[..news.len() - 1]).unwrap();
        assert_eq!(keys(&memory), ["c", "d", "e"]);
        let mut next = Memory::new(folder.path());
        next.note(&[(at("g"), Some(row()))].into(), &BTreeMap::new());
        assert_eq!(keys(&next), ["c", "d", "e", "g"]);
    }

    fn row() -> Endpoint {
        let edge = covey_state::node::EdgeBlock {
            v4: "100.64.2.0/24".parse().unwrap(),
            v6: "fd00:2::/64".parse().unwrap(),
        };
        let host = crate::endpoint::Host { number: 2, vtep: [10, 9, 0, 2].into(), edge };
        Endpoint {
            service: None,
            names: Vec::new(),
            container: "c".into(),
            aliases: Vec::new(),
            addresses: vec![[100, 64, 2, 2].into()],
            host,
            draining: false,
        }
    }
}
