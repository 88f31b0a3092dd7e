//! Directories that are not as this build left them: each is told apart, none is changed, nothing panics.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use covey_state::Id;
use openraft::{
    RaftLogReader,
    storage::{RaftLogStorage, RaftLogStorageExt},
};
use tempfile::TempDir;

use super::crash::entry;
use crate::{
    Identity, OpenError, Raft,
    directory::Directory,
    raft::Files,
    types::{Member, SnapshotMeta, Vote},
};

const OURS: Identity = Identity { cluster: Id::new(1), node: Id::new(2) };
const ENTRIES: u64 = 60;
const PAGE: usize = 4096;

fn snapshot() -> Vec<u8> {
    (0..300_000_u32).map(|at| at as u8).collect()
}

async fn close(files: Files) {
    let mut closed = files.log.closed();
    drop(files);
    closed.wait_for(|closed| *closed).await.unwrap();
}

/// A log with entries and a snapshot, written and closed.
async fn written() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut files = Files::open(&Directory::new(directory.path()), OURS).unwrap();
    files.log.save_vote(&Vote::new_committed(1, Member(OURS.node))).await.unwrap();
    files.log.blocking_append((0..ENTRIES).map(|index| entry(1, index))).await.unwrap();
    let meta = SnapshotMeta { last_log_id: Some(entry(1, 7).log_id), ..SnapshotMeta::default() };
    files.snapshots.save(&meta, &snapshot()).unwrap();
    close(files).await;
    directory
}

fn open(directory: &TempDir) -> Result<Files, OpenError> {
    Files::open(&Directory::new(directory.path()), OURS)
}

fn error(directory: &TempDir) -> OpenError {
    open(directory).err().expect("it opens")
}

fn flip(file: &Path, at: usize) {
    let mut content = fs::read(file).unwrap();
    content[at] ^= 0x55;
    fs::write(file, content).unwrap();
}

/// QRM-16
#[tokio::test]
async fn the_key_is_private_and_no_other_opens_the_log() {
    let directory = written().await;
    let key = directory.path().join("key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let right = fs::read(&key).unwrap();

    flip(&key, 20);
    assert!(matches!(error(&directory), OpenError::WrongKey(_)));
    fs::write(&key, "short").unwrap();
    assert!(matches!(error(&directory), OpenError::BadKey(_)));
    fs::remove_file(&key).unwrap();
    assert!(matches!(error(&directory), OpenError::Missing(_)));
    fs::write(&key, right).unwrap();
    close(open(&directory).unwrap()).await;
}

#[tokio::test]
async fn a_directory_of_another_time_or_owner_is_told_apart() {
    let directory = written().await;
    let identity = directory.path().join("identity");
    let text = fs::read_to_string(&identity).unwrap();
    assert_eq!(Raft::stored(directory.path()).unwrap(), Some(OURS));

    fs::write(&identity, text.replacen('1', "9", 1)).unwrap();
    assert!(matches!(error(&directory), OpenError::Newer(_, 9)));
    assert!(matches!(Raft::stored(directory.path()), Err(OpenError::Newer(_, 9))));
    fs::write(&identity, format!("1 {} {}", Id::new(1), Id::new(3))).unwrap();
    assert!(matches!(error(&directory), OpenError::Foreign { .. }));
    fs::write(&identity, "garbage").unwrap();
    assert!(matches!(error(&directory), OpenError::Corrupt { .. }));
    fs::write(&identity, &text).unwrap();
    close(open(&directory).unwrap()).await;

    fs::remove_file(directory.path().join("log.redb")).unwrap();
    assert!(matches!(error(&directory), OpenError::Missing(_)));
}

#[tokio::test]
async fn an_unfinished_creation_starts_again_and_destroying_leaves_nothing() {
    let directory = written().await;
    fs::remove_file(directory.path().join("identity")).unwrap();
    assert_eq!(Raft::stored(directory.path()).unwrap(), None);
    let mut files = open(&directory).unwrap();
    assert_eq!(files.log.get_log_state().await.unwrap().last_log_id, None);
    assert!(files.snapshot.is_none());
    close(files).await;

    Raft::destroy(directory.path()).unwrap();
    assert_eq!(fs::metadata(directory.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
    Raft::destroy(directory.path()).unwrap();
}

/// One byte of a file is another one. Either that does not matter, or it is a clear error.
async fn with_a_damaged_byte(directory: &TempDir, file: &str, at: usize) -> Result<(), OpenError> {
    // In memory: a hundred of them are made.
    let copy = tempfile::tempdir_in("/dev/shm").unwrap();
    for name in ["identity", "key", "log.redb", "snapshot.redb"] {
        fs::copy(directory.path().join(name), copy.path().join(name)).unwrap();
    }
    flip(&copy.path().join(file), at);
    let mut files = open(&copy)?;
    let entries = files.log.get_log_reader().await.try_get_log_entries(..).await.unwrap();
    assert_eq!(entries, (0..ENTRIES).map(|index| entry(1, index)).collect::<Vec<_>>(), "byte {at} of {file}");
    assert!(files.log.get_log_reader().await.read_vote().await.unwrap().is_some());
    assert_eq!(files.snapshot.as_ref().unwrap().1, snapshot());
    close(files).await;
    Ok(())
}

#[tokio::test]
async fn a_corrupt_page_is_a_clear_error() {
    let directory = written().await;
    for file in ["log.redb", "snapshot.redb"] {
        let content = fs::read(directory.path().join(file)).unwrap();
        let mut errors = 0;
        for (number, page) in content.chunks(PAGE).enumerate() {
            // An empty page holds nothing that could be damaged; in the others every third is enough.
            let used: Vec<usize> = (0..page.len()).filter(|at| page[*at] != 0).collect();
            if used.is_empty() || number % 3 == 2 {
                continue;
            }
            let at = number * PAGE + used[number * 31 % used.len()];
            match with_a_damaged_byte(&directory, file, at).await {
                Ok(()) => {}
                Err(
                    OpenError::Corrupt { .. }
                    | OpenError::DamagedEntry { .. }
                    | OpenError::DamagedSnapshot(_),
                ) => errors += 1,
                Err(other) => panic!("byte {at} of {file}: {other:?}"),
            }
        }
        assert!(errors > 3, "{file}: only {errors} damages were noticed");
    }
}
