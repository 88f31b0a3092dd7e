//! A disk without room.

use std::io;

use openraft::{
    RaftLogReader,
    storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt},
    type_config::TypeConfigExt,
};

use super::{
    crash::{entry, founded, open},
    disk::{Disk, End},
};
use crate::{error::OpenError, types::Types};

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
