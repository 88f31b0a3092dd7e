//! A disk without room.

use std::{io, net::SocketAddr, path::Path};

use covey_state::{Id, command::Proposal, time::Stamp};
use openraft::{
    RaftLogReader,
    storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt},
    type_config::TypeConfigExt,
};

use super::{
    crash::{entry, founded, open, open_noting, vault},
    disk::{Disk, End},
};
use crate::{
    ProposeError, Raft, Settings, Transport, TransportError,
    database::on_backend,
    directory::Directory,
    error::{Failure, OpenError},
    raft::Files,
    snapshot::SnapshotStore,
    types::Types,
};

/// QRM-01
#[tokio::test]
async fn a_full_disk_is_reported_and_what_was_there_stays() {
    let disk = Disk::new(founded(), 60, End::Full);
    let mut log = open(&disk).unwrap();
    let mut written = 0;
    let error = loop {
        let (done, answer) = Types::oneshot();
        log.append([entry(1, written)], IOFlushed::signal(done)).await.unwrap();
        match answer.await.unwrap() {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(written > 0);
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(log.blocking_append([entry(1, written + 1)]).await.is_err(), "it goes on after a failed write");

    let restarted = Disk::new(disk.after_power_cut(3), usize::MAX, End::Full);
    let mut log = open(&restarted).unwrap();
    let entries = log.get_log_reader().await.try_get_log_entries(..written).await.unwrap();
    assert_eq!(entries.len() as u64, written);
}

#[test]
fn a_full_disk_is_told_from_a_broken_one() {
    let full = OpenError::io("/data", io::ErrorKind::StorageFull.into());
    assert_eq!(full.to_string(), "no space left on the disk of /data");
    assert!(matches!(OpenError::io("/data", io::Error::other("broken")), OpenError::Io { .. }));
}

/// The log stops, and says why.
#[tokio::test]
async fn a_manager_whose_disk_is_full_stops_and_says_so() {
    struct Nowhere;
    impl Transport for Nowhere {
        async fn call(&self, _: Id, _: SocketAddr, _: Vec<u8>) -> Result<Vec<u8>, TransportError> {
            Err(TransportError::Unreachable("nobody is there".to_owned()))
        }
    }
    let failure = Failure::default();
    let log = open_noting(&Disk::new(founded(), 100, End::Full), failure.clone()).unwrap();
    let snapshots = on_backend(Disk::new(Vec::new(), usize::MAX, End::Full)).unwrap();
    SnapshotStore::found(&snapshots, Path::new("snapshot")).unwrap();
    let snapshots = SnapshotStore::new(snapshots, vault(), failure.clone());
    let directory = Directory::new(Path::new("nowhere"));
    let files = Files { directory, log, snapshots, snapshot: None, failure };
    let settings = Settings::new(Id::new(1), Id::new(2), ([127, 0, 0, 1], 2377).into());
    let raft = Raft::start(files, settings, Nowhere, || Stamp(0)).await.unwrap();
    raft.initialize().await.unwrap();
    let nothing = Proposal { planned_at: None, commands: Vec::new() };
    let error = loop {
        if let Err(error) = raft.propose(&nothing).await {
            break error;
        }
    };
    let reason = raft.stopped().await;
    assert_eq!(reason, "it cannot be written: no space left on the disk");
    assert_eq!(error, ProposeError::Stopped(reason));
}
