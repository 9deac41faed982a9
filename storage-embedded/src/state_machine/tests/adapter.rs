//! The state machine as raft drives it.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use openraft::{
    EntryPayload, Membership, OptionalSend, RaftSnapshotBuilder, StorageError,
    alias::CommittedLeaderIdOf,
    storage::{EntryResponder, RaftStateMachine},
    testing::log::{StoreBuilder, Suite},
};
use tokio::time::timeout;

use super::*;
use crate::{
    log::{DataDir, Log, LogOptions},
    raft::{Entry, LogId, Member, Proposal, SnapshotMeta, StoredMembership, TypeConfig},
    simulated::{Fault, SimDisk, Survival},
};

const SNAPSHOTS: &str = "/node/snapshots";

fn open(disk: &SimDisk) -> StateMachine {
    StateMachine::open(Arc::new(disk.clone()), SNAPSHOTS).unwrap()
}

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(1), index)
}

fn put(index: u64, name: &str) -> Entry {
    let txn = Txn::new().put(key(name), index.to_string());
    let payload = EntryPayload::Normal(Proposal(Command::encode_txn(&txn, None, None)));
    Entry { log_id: log_id(index), payload }
}

async fn apply(machine: &mut StateMachine, entries: impl IntoIterator<Item = Entry>) {
    let entries: Vec<_> = entries.into_iter().map(|entry| Ok((entry, None))).collect();
    machine.apply(stream::iter(entries)).await.unwrap();
}

fn value(shared: &SharedState, name: &str) -> Option<Bytes> {
    shared.get(&key(name)).map(|entry| entry.value)
}

#[tokio::test]
async fn readers_see_what_was_applied_and_are_woken_once_a_batch() {
    let disk = SimDisk::new(1);
    let mut machine = open(&disk);
    let shared = machine.shared();
    let mut applied = shared.subscribe();
    let waiting = tokio::spawn({
        let shared = shared.clone();
        async move { shared.wait_applied(150).await.map(|()| value(&shared, "a")) }
    });
    apply(&mut machine, (1..=200).map(|index| put(index, "a"))).await;
    let seen = timeout(Duration::from_secs(60), waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(seen.unwrap(), "200");
    assert!(applied.has_changed().unwrap());
    assert_eq!(*applied.borrow_and_update(), 200);
    apply(&mut machine, (201..=1000).map(|index| put(index, "b"))).await;
    assert_eq!(value(&shared, "b").unwrap(), "1000");
    assert_eq!(shared.get_many(&[key("b"), key("c")]).iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
    drop(machine);
    assert!(shared.wait_applied(1001).await.is_err(), "raft has stopped");
    shared.wait_applied(1000).await.unwrap();
}

#[tokio::test]
async fn entries_before_an_error_are_applied() {
    let mut machine = open(&SimDisk::new(1));
    let entries = vec![Ok((put(1, "a"), None)), Err(std::io::Error::other("cannot read")), Ok((put(2, "a"), None))];
    assert!(machine.apply(stream::iter(entries)).await.is_err());
    assert_eq!(value(&machine.shared(), "a").unwrap(), "1");
    assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(1)));
}

#[tokio::test]
async fn a_snapshot_is_what_a_restart_begins_with() {
    let disk = SimDisk::new(1);
    let mut machine = open(&disk);
    let membership = Membership::new(
        vec![BTreeSet::from([1])],
        [(1, Member::default())].into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    )
    .unwrap();
    let change = Entry { log_id: log_id(2), payload: EntryPayload::Membership(membership) };
    apply(&mut machine, [put(1, "a"), change, put(3, "b")]).await;
    let mut builder = machine.get_snapshot_builder().await;
    apply(&mut machine, [put(4, "a")]).await;
    let snapshot = builder.build_snapshot().await.unwrap();
    assert_eq!(snapshot.meta.last_log_id, Some(log_id(3)));
    let before = machine.applied_state().await.unwrap();
    drop(machine);
    let mut machine = open(&disk.crash(crate::simulated::Survival::Nothing));
    let (applied, membership) = machine.applied_state().await.unwrap();
    assert_eq!((applied, membership), (Some(log_id(3)), before.1));
    assert_eq!(value(&machine.shared(), "a").unwrap(), "1");
    assert_eq!(*machine.shared().subscribe().borrow(), 3);
    let (events, upto) = machine.shared().events_after(Revision(0), b"", 9).unwrap();
    assert_eq!((events.len(), upto), (2, Revision(2)), "the history is part of the snapshot");
}

/// Sends the newest snapshot of `from` to `to`, as the network does.
fn transfer(from: &StateMachine, to: &StateMachine, damage: impl FnOnce(&mut Vec<u8>)) -> std::io::Result<SnapshotOf> {
    let mut newest = from.snapshots().newest().unwrap();
    let mut bytes = Vec::new();
    newest.snapshot.open_chunks()?.for_each(|chunk| bytes.extend(chunk.unwrap()));
    damage(&mut bytes);
    let mut incoming = to.snapshots().receive()?;
    incoming.write_chunk(&bytes)?;
    newest.snapshot = incoming.finish()?;
    Ok(newest)
}

type SnapshotOf = openraft::alias::SnapshotOf<TypeConfig, crate::snapshot::SnapshotFile>;

#[tokio::test]
async fn a_snapshot_of_another_node_takes_the_place_of_the_state() {
    let (disk, other) = (SimDisk::new(1), SimDisk::new(2));
    let (mut machine, mut leader) = (open(&disk), open(&other));
    apply(&mut machine, [put(1, "old")]).await;
    apply(&mut leader, (1..10).map(|index| put(index, "new"))).await;
    leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
    assert!(transfer(&leader, &machine, |bytes| bytes[100] ^= 1).is_err(), "damaged on its way");
    let snapshot = transfer(&leader, &machine, |_| {}).unwrap();
    let mut wrong = snapshot.meta.clone();
    wrong.last_log_id = Some(log_id(8));
    let shared = machine.shared();
    assert!(machine.install_snapshot(&wrong, snapshot.snapshot).await.is_err(), "not the one that was announced");
    assert_eq!(value(&shared, "old").unwrap(), "1");
    let snapshot = transfer(&leader, &machine, |_| {}).unwrap();
    machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
    timeout(Duration::from_secs(60), shared.wait_applied(9)).await.unwrap().unwrap();
    assert_eq!((value(&shared, "old"), value(&shared, "new").unwrap()), (None, "9".into()));
    assert_eq!(machine.get_current_snapshot().await.unwrap().unwrap().meta, snapshot.meta);
    let digest = |machine: &StateMachine| machine.shared().read(|replica| replica.state.tables().digest());
    assert_eq!(digest(&machine), digest(&leader));
    assert_eq!(digest(&open(&disk)), digest(&leader), "also after a restart");
    assert_eq!(disk.contents().len(), 1);
}

#[tokio::test]
async fn a_disk_that_fails_leaves_the_state_and_the_old_snapshot() {
    for operation in 0.. {
        let (disk, other) = (SimDisk::new(1), SimDisk::new(2));
        let (mut machine, mut leader) = (open(&disk), open(&other));
        apply(&mut machine, [put(1, "a")]).await;
        machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        apply(&mut leader, (1..10).map(|index| put(index, "b"))).await;
        leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
        let at = disk.operations() + operation;
        disk.fail_at(at, Fault::Eio);
        let failed = match transfer(&leader, &machine, |_| {}) {
            Ok(snapshot) => machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.is_err(),
            Err(_) => true,
        };
        if disk.operations() <= at {
            assert!(!failed && operation > 10, "a run without a fault");
            break;
        }
        // What fails may be the removal of the old file.
        assert_eq!(value(&machine.shared(), "b").is_none(), failed, "operation {operation}");
        let after = open(&disk);
        assert!(value(&after.shared(), "a").is_some() != value(&after.shared(), "b").is_some());
    }
}

/// A snapshot is a file that nothing depends on yet: a lack of descriptors or space ends no node.
#[tokio::test]
async fn a_snapshot_for_which_there_is_no_room_is_written_when_there_is() {
    for fault in [Fault::Emfile, Fault::Enospc] {
        for operation in 0.. {
            let disk = SimDisk::new(1);
            let mut machine = open(&disk);
            apply(&mut machine, [put(1, "a")]).await;
            let at = disk.operations() + operation;
            disk.fail_at(at, fault);
            let built = machine.get_snapshot_builder().await.build_snapshot().await;
            assert!(built.is_ok(), "{fault:?} at operation {operation}: {built:?}");
            let found = open(&disk.crash(Survival::Nothing));
            assert_eq!(value(&found.shared(), "a").unwrap(), "1", "{fault:?} at operation {operation}");
            if disk.operations() <= at {
                assert!(operation > 5, "a run without a fault");
                break;
            }
        }
    }
}

/// Openraft's tests pass over entries, which raft never does: blank ones stand in for them.
struct WithoutHoles(StateMachine);

impl RaftStateMachine<TypeConfig> for WithoutHoles {
    type SnapshotData = <StateMachine as RaftStateMachine<TypeConfig>>::SnapshotData;
    type SnapshotBuilder = <StateMachine as RaftStateMachine<TypeConfig>>::SnapshotBuilder;

    async fn applied_state(&mut self) -> std::io::Result<(Option<LogId>, StoredMembership)> {
        self.0.applied_state().await
    }

    async fn apply<S>(&mut self, mut entries: S) -> std::io::Result<()>
    where
        S: Stream<Item = std::io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let last = self.applied_state().await?.0.map_or(entry.log_id.index, |last| last.index + 1);
            let blank =
                |index| Entry { log_id: LogId::new(entry.log_id.leader_id, index), payload: EntryPayload::Blank };
            let missing: Vec<_> = (last..entry.log_id.index).map(|index| Ok((blank(index), None))).collect();
            self.0.apply(stream::iter(missing.into_iter().chain([Ok((entry, responder))]))).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.0.get_snapshot_builder().await
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Self::SnapshotData) -> std::io::Result<()> {
        self.0.install_snapshot(meta, snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> std::io::Result<Option<SnapshotOf>> {
        self.0.get_current_snapshot().await
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, Log, WithoutHoles> for Builder {
    async fn build(&self) -> Result<((), Log, WithoutHoles), StorageError<TypeConfig>> {
        static NODES: AtomicU64 = AtomicU64::new(0);
        let node = format!("/node-{}", NODES.fetch_add(1, Ordering::Relaxed));
        let disk = SimDisk::new(1);
        let options = LogOptions { background: false, ..LogOptions::default() };
        let dir = DataDir::open(Arc::new(disk.clone()), Path::new(&node), 1, 1).unwrap();
        let log = Log::open(dir, &options).unwrap();
        let machine = StateMachine::open(Arc::new(disk), Path::new(&node).join("snapshots")).unwrap();
        Ok(((), log, WithoutHoles(machine)))
    }
}

/// Openraft's own tests of a log and a state machine.
#[test]
fn openraft_accepts_the_log_and_the_state_machine() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Suite::test_all(Builder)).unwrap();
}

#[tokio::test]
async fn what_is_committed_is_applied_in_pieces_before_raft_starts() {
    let machine = open(&SimDisk::new(1));
    let entries: Vec<_> = (0..5).map(|index| put(index, &format!("k{index}"))).collect();
    let two_at_a_time = |entries: &[Entry], next| {
        let rest = entries.iter().skip_while(|entry| entry.log_id.index < next);
        Ok::<_, std::io::Error>(rest.take(2).cloned().collect())
    };
    machine.catch_up(|next| two_at_a_time(&entries[..3], next)).unwrap();
    assert_eq!(machine.shared().read(|replica| replica.last_applied), Some(log_id(2)));
    // Raft says what is missing.
    machine.catch_up(|next| two_at_a_time(&entries[4..], next)).unwrap();
    assert_eq!(value(&machine.shared(), "k4"), None);
    machine.catch_up(|next| two_at_a_time(&entries, next)).unwrap();
    assert_eq!(value(&machine.shared(), "k4"), Some("4".into()));
    timeout(Duration::from_secs(5), machine.shared().wait_applied(4)).await.unwrap().unwrap();
}
