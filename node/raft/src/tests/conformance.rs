//! The consensus library's own suite for logs and state machines.

use std::path::Path;

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use tokio::sync::{broadcast, watch};

use super::{
    crash::{founded, open, vault},
    disk::{Disk, End},
};
use crate::{
    database::on_backend, error::Failure, log::LogStore, machine::Machine, snapshot::SnapshotStore,
    types::Types,
};

struct Fresh;

impl StoreBuilder<Types, LogStore, Machine> for Fresh {
    async fn build(&self) -> Result<((), LogStore, Machine), StorageError<Types>> {
        let log = open(&Disk::new(founded(), usize::MAX, End::PowerCut)).unwrap();
        let database = on_backend(Disk::new(Vec::new(), usize::MAX, End::PowerCut)).unwrap();
        SnapshotStore::found(&database, Path::new("snapshot")).unwrap();
        let snapshots = SnapshotStore::new(database, vault(), Failure::default());
        let (published, changes) = (watch::Sender::default(), broadcast::channel(16).0);
        let machine = Machine::new(snapshots, None, published, changes).unwrap();
        Ok(((), log, machine))
    }
}

/// QRM-01
#[tokio::test]
async fn log_and_state_machine_pass_the_librarys_suite() {
    Suite::test_all(Fresh).await.unwrap();
}
