//! The state machine as raft drives it.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{FutureExt, Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    alias::SnapshotOf,
    storage::{EntryResponder, RaftStateMachine},
};
use tokio::sync::watch;

use super::{Applied, SharedState, State, Tables, shared::Replica};
use crate::{
    disk::Disk,
    host::blocking,
    raft::{Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig},
    snapshot::{SnapshotFile, SnapshotStore},
};

/// How many entries are applied under one lock, at most: enough to make the lock cheap, and readers wait less than a millisecond.
const BATCH: usize = 256;

/// The state machine as raft drives it: the state in memory, snapshots of it on disk.
#[derive(Debug)]
pub(crate) struct StateMachine {
    shared: SharedState,
    applied: watch::Sender<u64>,
    snapshots: SnapshotStore,
}

impl StateMachine {
    /// Opens the directory of the snapshots and loads the newest one.
    ///
    /// # Errors
    /// `InvalidData`, which names file and offset, for a damaged snapshot, and those of the disk.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> io::Result<Self> {
        let snapshots = SnapshotStore::open(disk, dir)?;
        let replica = match snapshots.newest() {
            Some(newest) => {
                let (meta, tables) = snapshots.load(&newest.snapshot)?;
                Replica::of(meta, tables)
            }
            None => Replica::default(),
        };
        let (shared, applied) = SharedState::new(replica);
        Ok(Self { shared, applied, snapshots })
    }

    /// The state, for reading.
    pub(crate) fn shared(&self) -> SharedState {
        self.shared.clone()
    }

    /// Where snapshots of other nodes are received.
    pub(crate) fn snapshots(&self) -> SnapshotStore {
        self.snapshots.clone()
    }
}

impl Replica {
    /// The replica that a snapshot was taken of.
    pub(crate) fn of(meta: SnapshotMeta, tables: Tables) -> Self {
        Self { state: State::new(tables), last_applied: meta.last_log_id, membership: meta.last_membership }
    }

    /// What a snapshot says of it beside its tables.
    pub(crate) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() }
    }

    /// Applies the entry that follows the last one.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Applied {
        self.last_applied = Some(entry.log_id);
        #[cfg(simulated)]
        if crate::simulated::is_planted(crate::simulated::Flaw::RandomState) {
            self.state.disturb(fastrand::u64(..));
        }
        match &entry.payload {
            EntryPayload::Blank => Applied::Nothing,
            EntryPayload::Normal(proposal) => self.state.apply_proposal(entry.log_id.index, proposal),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                Applied::Nothing
            }
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok(self.shared.read(|replica| (replica.last_applied, replica.membership.clone())))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut batch = Vec::new();
        let mut answers = Vec::new();
        while let Some(first) = entries.next().await {
            batch.push(first?);
            // What else is there already, without waiting.
            let mut failed = None;
            while batch.len() < BATCH
                && let Some(Some(next)) = entries.next().now_or_never()
            {
                match next {
                    Ok(next) => batch.push(next),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            let index = self.shared.write(|replica| {
                answers.extend(batch.drain(..).filter_map(|(entry, responder)| {
                    let applied = replica.apply(&entry);
                    Some((responder?, applied))
                }));
                replica.applied_index()
            });
            // Before the answers, so that whoever has one reads what it wrote without waiting.
            self.applied.send_replace(index);
            answers.drain(..).for_each(|(responder, applied)| responder.send(applied));
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let (meta, tables) = self.shared.read(|replica| (replica.meta(), replica.state.tables().clone()));
        SnapshotBuilder { snapshots: self.snapshots.clone(), view: Some((meta, tables)) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        let (snapshots, shared, meta) = (self.snapshots.clone(), self.shared.clone(), meta.clone());
        let index = blocking(move || {
            let (found, tables) = snapshots.load(&snapshot)?;
            if found.last_log_id != meta.last_log_id {
                let message = format!("snapshot {} is not the one that was announced", snapshot.path().display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            snapshots.publish(found.clone(), snapshot)?;
            let mut installed = Replica::of(found, tables);
            let index = installed.applied_index();
            shared.write(|replica| std::mem::swap(replica, &mut installed));
            // What was there before is dropped here, where that may take its time.
            Ok(index)
        })
        .await?;
        self.applied.send_replace(index);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotFile>>> {
        Ok(self.snapshots.newest())
    }
}

/// Writes a snapshot of the state as it was when the builder was made.
#[derive(Debug)]
pub(crate) struct SnapshotBuilder {
    snapshots: SnapshotStore,
    view: Option<(SnapshotMeta, Tables)>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, SnapshotFile>> {
        let Some((meta, tables)) = self.view.take() else {
            return Err(io::Error::other("a builder builds one snapshot"));
        };
        let snapshots = self.snapshots.clone();
        let stop = StopOnDrop::default();
        let stopped = stop.0.clone();
        blocking(move || snapshots.write(meta, &tables, &|| !stopped.load(Ordering::Relaxed))).await
    }
}

/// Stops the writing thread when nobody waits for it any more.
#[derive(Debug, Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
