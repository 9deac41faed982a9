//! The state machine as raft drives it.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
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

use super::{Replica, SharedState, State};
use crate::{
    codec::Decoded,
    command::{Applied, Command},
    disk::Disk,
    host::blocking,
    mvcc, panics,
    raft::{Entry, LogId, Membership, Payload, Proposal, SnapshotMeta, StoredMembership, TypeConfig},
    snapshot::{SnapshotFile, SnapshotStore},
    tables::Tables,
};

/// How many entries are applied under one lock, at most: enough to make the lock cheap.
const BATCH: usize = 256;

/// How much work is done under one lock, about: 2 ms. Then whoever else has something to do on raft's thread does it.
const BATCH_WORK: u64 = 4 * mvcc::SHORT_WORK;

/// A longer proposal is decoded and applied on another thread, whatever it is: to hash what it writes takes time.
const SHORT_BYTES: usize = 256 << 10;

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
                snapshots.remove_older()?;
                Replica::of(meta, tables)
            }
            None => Replica::default(),
        };
        let (shared, applied) = SharedState::new(replica);
        Ok(Self { shared, applied, snapshots })
    }

    /// Applies what follows, a piece at a time, until there is no more. Raft would do it when it starts, with 64 entries in memory
    /// at a time however long they are.
    ///
    /// # Errors
    /// Those of `entries_from`, which gives entries from an index on.
    pub(crate) fn catch_up<E>(&self, entries_from: impl Fn(u64) -> Result<Vec<Entry>, E>) -> Result<(), E> {
        loop {
            let next = self.shared.read(|replica| replica.last_applied.map_or(0, |id| id.index + 1));
            let entries = entries_from(next)?;
            // Those that are missing are raft's to report.
            if entries.first().is_none_or(|first| first.log_id.index != next) {
                return Ok(());
            }
            let index = self.shared.write(|replica| {
                entries.iter().for_each(|entry| drop(replica.apply(entry)));
                replica.applied_index()
            });
            self.applied.send_replace(index);
        }
    }

    /// Applies entries from the front of a batch, here and now, until one would take long or enough is done. Whether there were any.
    fn apply_short(&self, batch: &mut VecDeque<Next>) -> io::Result<bool> {
        let mut answers = Vec::new();
        // One lock for all of them: readers see all or nothing, and a writer costs them one look at the lock.
        let index = unbroken(|| {
            self.shared.write(|replica| {
                let mut left = BATCH_WORK;
                while let Some(next) = batch.front()
                    && let Some(work) = next.short_work(&replica.state)
                    && (answers.is_empty() || work <= left)
                    && let Some(next) = batch.pop_front()
                {
                    left = left.saturating_sub(work);
                    answers.push((next.responder, replica.apply_change(next.id, next.change)));
                }
                replica.applied_index()
            })
        })?;
        let any = !answers.is_empty();
        self.tell(index, answers);
        Ok(any)
    }

    /// Applies an entry on another thread and to a copy, which then takes the place of the state: meanwhile everybody reads the state before
    /// it, and raft's thread is free.
    async fn apply_long(&self, Next { id, change, responder }: Next) -> io::Result<()> {
        let shared = self.shared.clone();
        let (index, applied) = blocking(move || {
            unbroken(|| {
                let mut state = shared.read(|replica| replica.state.clone());
                let applied = state.apply_decoded(id.index, change.decoded());
                let index = shared.write(|replica| {
                    replica.replace(id, &mut state);
                    replica.applied_index()
                });
                // What was there before is dropped here, where that may take its time.
                (index, applied)
            })
        })
        .await?;
        self.tell(index, [(responder, applied)]);
        Ok(())
    }

    /// Tells how far the state has come, before the answers: whoever has one reads what it wrote without waiting.
    fn tell(&self, index: u64, answers: impl IntoIterator<Item = (Option<Responder>, Applied)>) {
        self.applied.send_replace(index);
        // Only entries that were proposed here have somebody who waits.
        for (responder, applied) in answers {
            if let Some(responder) = responder {
                responder.send(applied);
            }
        }
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
        let (last_applied, membership) = (meta.last_log_id, meta.last_membership);
        Self { state: State::new(tables), last_applied, membership, ..Self::default() }
    }

    /// What a snapshot says of it beside its tables.
    pub(crate) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() }
    }

    /// Applies the entry that follows the last one.
    ///
    /// # Panics
    /// For any other.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Applied {
        self.apply_change(entry.log_id, Change::of(&entry.payload))
    }

    fn apply_change(&mut self, id: LogId, change: Change) -> Applied {
        self.follow(id);
        let applied = match change {
            Change::Nothing => Applied::Nothing,
            Change::Command(_) | Change::Proposal(_) => self.state.apply_decoded(id.index, change.decoded()),
            Change::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership);
                Applied::Nothing
            }
        };
        self.recent.push(id.index, self.hash());
        applied
    }

    /// Takes over the state after the entry that follows the last one, and leaves the one before.
    fn replace(&mut self, id: LogId, state: &mut State) {
        self.follow(id);
        std::mem::swap(&mut self.state, state);
        self.recent.push(id.index, self.hash());
    }

    fn follow(&mut self, next: LogId) {
        let last = self.last_applied;
        let follows = last.is_none_or(|last| next.index == last.index + 1 && next.leader_id >= last.leader_id);
        assert!(follows, "an entry is applied out of order: {next} after {last:?}");
        self.last_applied = Some(next);
        #[cfg(simulated)]
        if crate::simulated::is_planted(crate::simulated::Flaw::RandomState) {
            self.state.disturb(fastrand::u64(..));
        }
    }
}

/// What an entry changes, decoded as far as that takes no time.
enum Change {
    Nothing,
    Command(Decoded<Command>),
    /// A long one.
    Proposal(Proposal),
    Membership(Membership),
}

impl Change {
    fn of(payload: &Payload) -> Self {
        match payload {
            EntryPayload::Blank => Self::Nothing,
            EntryPayload::Normal(proposal) if proposal.0.len() > SHORT_BYTES => Self::Proposal(proposal.clone()),
            EntryPayload::Normal(proposal) => Self::Command(Command::decode(proposal.0.clone())),
            EntryPayload::Membership(membership) => Self::Membership(membership.clone()),
        }
    }

    fn decoded(self) -> Decoded<Command> {
        match self {
            Self::Command(command) => command,
            Self::Proposal(proposal) => Command::decode(proposal.0),
            Self::Nothing | Self::Membership(_) => unreachable!("an entry without a command takes no time"),
        }
    }
}

type Responder = openraft::storage::ApplyResponder<TypeConfig>;

/// An entry that is to be applied.
struct Next {
    id: LogId,
    change: Change,
    responder: Option<Responder>,
}

impl Next {
    fn new((entry, responder): EntryResponder<TypeConfig>) -> Self {
        Self { id: entry.log_id, change: Change::of(&entry.payload), responder }
    }

    /// How much work it may take; `None`: so much that it is done elsewhere.
    fn short_work(&self, state: &State) -> Option<u64> {
        match &self.change {
            Change::Command(Ok(command)) => state.short_work(command),
            Change::Proposal(_) => None,
            Change::Nothing | Change::Command(Err(_)) | Change::Membership(_) => Some(0),
        }
    }
}

impl Replica {
    /// Takes the place of the state, which is left in `newer`.
    pub(super) fn install(&mut self, newer: &mut Self) {
        assert!(newer.last_applied >= self.last_applied, "a snapshot takes the state back to what it was");
        std::mem::swap(self, newer);
    }
}

/// Changes the state. A panic is an invariant that does not hold: raft ends with its words, and nobody is answered.
fn unbroken<T>(change: impl FnOnce() -> T) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(change)).map_err(|panic| {
        io::Error::other(format!("an invariant of the state does not hold: {}", panics::words(&*panic)))
    })
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
        let mut batch = VecDeque::new();
        while let Some(first) = entries.next().await {
            batch.push_back(Next::new(first?));
            // What else is there already, without waiting.
            let mut failed = None;
            while batch.len() < BATCH
                && let Some(Some(next)) = entries.next().now_or_never()
            {
                match next {
                    Ok(next) => batch.push_back(Next::new(next)),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            while !batch.is_empty() {
                if !self.apply_short(&mut batch)?
                    && let Some(long) = batch.pop_front()
                {
                    self.apply_long(long).await?;
                }
                if !batch.is_empty() {
                    tokio::task::yield_now().await;
                }
            }
            // What came before the error is applied and answered: raft counts it as applied.
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        // Taken now, in constant time: what is applied while the snapshot is written is not in it.
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
            // Durable before it is used: raft purges the log up to it afterwards, and a node that restarts needs one of the two.
            snapshots.publish(found.clone(), snapshot)?;
            let mut installed = Replica::of(found, tables);
            let index = installed.applied_index();
            shared.write(|replica| replica.install(&mut installed));
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
