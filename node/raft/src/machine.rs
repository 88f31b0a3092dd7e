//! The state machine: applies committed entries to the store, and tells everybody.

use std::{io, sync::Arc};

use bytes::Bytes;
use covey_state::{command::Proposal, store::Store};
use futures_util::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
};
use tokio::sync::{broadcast, watch};

use crate::{
    PROPOSAL_BYTES_MAX, SNAPSHOT_BYTES_MAX,
    feed::{Applied, Change},
    snapshot::SnapshotStore,
    types::{Entry, LogId, Outcome, Snapshot, SnapshotMeta, StoredMembership, Types},
};

/// What is known of the store from outside.
#[derive(Clone, Default)]
pub(crate) struct Published {
    pub(crate) store: Store,
    /// The last applied entry.
    last: Option<LogId>,
    membership: StoredMembership,
}

impl Published {
    /// The index of the last applied entry.
    pub(crate) fn index(&self) -> Option<u64> {
        self.last.map(|last| last.index)
    }
}

/// The store and how it came to be.
pub(crate) struct Machine {
    store: Store,
    last: Option<LogId>,
    membership: StoredMembership,
    snapshots: SnapshotStore,
    published: watch::Sender<Published>,
    changes: broadcast::Sender<Change>,
}

impl Machine {
    /// Starts from the snapshot on disk.
    pub(crate) fn new(
        snapshots: SnapshotStore,
        snapshot: Option<(SnapshotMeta, Bytes)>,
        published: watch::Sender<Published>,
        changes: broadcast::Sender<Change>,
    ) -> io::Result<Self> {
        let mut machine = Self {
            store: Store::default(),
            last: None,
            membership: StoredMembership::default(),
            snapshots,
            published,
            changes,
        };
        if let Some((meta, content)) = snapshot {
            machine.replace(&meta, decode_store(&content)?);
        }
        Ok(machine)
    }

    /// Goes on where one before it has stopped.
    pub(crate) fn resume(
        snapshots: SnapshotStore,
        published: watch::Sender<Published>,
        changes: broadcast::Sender<Change>,
    ) -> Self {
        let Published { store, last, membership } = published.borrow().clone();
        Self { store, last, membership, snapshots, published, changes }
    }

    fn replace(&mut self, meta: &SnapshotMeta, store: Store) {
        self.store = store;
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish();
    }

    fn publish(&self) {
        let (store, last, membership) = (self.store.clone(), self.last, self.membership.clone());
        self.published.send_replace(Published { store, last, membership });
    }

    fn apply_entry(&mut self, entry: &Entry) -> io::Result<Outcome> {
        self.last = Some(entry.log_id);
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
            EntryPayload::Normal(write) => {
                let proposal: Proposal = decode_proposal(&write.proposal).map_err(|error| {
                    // Skipping it would let this manager's store differ from the others'.
                    let what = format!("entry {} is not for this version", entry.log_id.index);
                    self.snapshots.failure.note(&what, io::Error::new(io::ErrorKind::InvalidData, error))
                })?;
                return Ok(self.store.apply(entry.log_id.index, write.at, &proposal).map(Arc::from));
            }
        }
        Ok(Ok(Arc::from([])))
    }
}

/// Reads a proposal that came from elsewhere.
pub(crate) fn decode_proposal(bytes: &[u8]) -> Result<Proposal, covey_wire::DecodeError> {
    covey_wire::decode::<_, PROPOSAL_BYTES_MAX>(bytes)
}

fn decode_store(content: &[u8]) -> io::Result<Store> {
    covey_wire::decode::<_, SNAPSHOT_BYTES_MAX>(content)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("snapshot: {error}")))
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        let mut changes = Vec::new();
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcome = self.apply_entry(&entry)?;
            if let Ok(events) = &outcome
                && !events.is_empty()
            {
                changes.push(Applied { index: entry.log_id.index, events: events.clone() });
            }
            answers.extend(responder.map(|responder| (responder, outcome)));
        }
        // The store is seen before anyone hears of it.
        self.publish();
        for applied in changes {
            // Nobody may be listening.
            let _ = self.changes.send(Change::Applied(applied));
        }
        for (responder, outcome) in answers {
            responder.send(outcome);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            store: self.store.clone(),
            meta: SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() },
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, content: Bytes) -> Result<(), io::Error> {
        let snapshots = self.snapshots.clone();
        let kept = meta.clone();
        let store = tokio::task::spawn_blocking(move || {
            let store = decode_store(&content)?;
            snapshots.save(&kept, &content)?;
            io::Result::Ok(store)
        })
        .await??;
        self.replace(meta, store);
        let _ = self.changes.send(Change::Everything);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshots = self.snapshots.clone();
        let loaded = tokio::task::spawn_blocking(move || snapshots.load()).await??;
        Ok(loaded.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// Writes a snapshot of the store as it was when this was made, while the store goes on.
pub(crate) struct Builder {
    store: Store,
    meta: SnapshotMeta,
    snapshots: SnapshotStore,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (store, meta, snapshots) = (self.store.clone(), self.meta.clone(), self.snapshots.clone());
        tokio::task::spawn_blocking(move || {
            let content = covey_wire::encode(&store).map_err(io::Error::other)?;
            if content.len() > SNAPSHOT_BYTES_MAX {
                let text = format!("a snapshot of {} bytes is over {SNAPSHOT_BYTES_MAX}", content.len());
                return Err(io::Error::other(text));
            }
            snapshots.save(&meta, &content)?;
            Ok(Snapshot { meta, snapshot: content.into() })
        })
        .await?
    }
}
