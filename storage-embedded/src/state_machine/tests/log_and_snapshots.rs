//! Log and snapshots on one disk, as a node uses them: the power goes, or the disk fails, at every operation.

use std::{collections::BTreeMap, sync::Arc};

use openraft::{EntryPayload, storage::RaftLogStorage};

use super::*;
use crate::{
    keys::Digest,
    log::tests::{Held, append, log_id, now, open},
    raft::{Entry, Proposal, SnapshotMeta, StoredMembership},
    simulated::{Fault, SimDisk, Survival},
    snapshot::SnapshotStore,
};

const SNAPSHOTS: &str = "/node/snapshots";

/// How many entries are written, and after how many a snapshot takes the place of those before.
const ENTRIES: u64 = 24;
const SNAPSHOT_EVERY: u64 = 6;

/// Behind each snapshot so many entries are kept.
const KEPT: u64 = 2;

fn command(index: u64) -> Command {
    Command::RowPut { name: format!("row-{}", index % 5).into(), value: format!("{index}").into() }
}

/// What the state has after each entry.
fn digests() -> BTreeMap<u64, Digest> {
    let mut state = State::default();
    let after = (0..ENTRIES).map(|index| {
        state.apply(index, command(index));
        (index, state.tables().digest())
    });
    after.collect()
}

fn logged(index: u64) -> Entry {
    Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(Proposal(command(index).encode())) }
}

/// Writes until something fails. Returns the last entry that was acknowledged.
fn run(disk: &SimDisk) -> Option<u64> {
    let mut acknowledged = None;
    let mut state = State::default();
    let Ok(mut log) = open(disk) else { return None };
    let Ok(snapshots) = SnapshotStore::open(Arc::new(disk.clone()), SNAPSHOTS) else { return None };
    for index in 0..ENTRIES {
        if append(&mut log, vec![logged(index)]).is_err() {
            return acknowledged;
        }
        acknowledged = Some(index);
        state.apply(index, command(index));
        if index % SNAPSHOT_EVERY == SNAPSHOT_EVERY - 1 {
            let last_membership = StoredMembership::default();
            let meta = SnapshotMeta { last_log_id: Some(log_id(1, index)), last_membership };
            // One that fails leaves the log as it is.
            let written = snapshots.write(meta, state.tables(), &|| true).is_ok();
            if written && now(log.purge(log_id(1, index - KEPT))).is_err() {
                return acknowledged;
            }
        }
    }
    acknowledged
}

/// What is on the disk is the state after the last acknowledged entry, or after the one that was under way.
fn check(disk: &SimDisk, acknowledged: Option<u64>, context: &str) {
    let mut log = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let snapshots = SnapshotStore::open(Arc::new(disk.clone()), SNAPSHOTS);
    let snapshots = snapshots.unwrap_or_else(|error| panic!("{context}: {error}"));
    let (mut state, mut applied) = (State::default(), None);
    if let Some(newest) = snapshots.newest() {
        let (meta, tables) = snapshots.load(&newest.snapshot).unwrap_or_else(|error| panic!("{context}: {error}"));
        (state, applied) = (State::new(tables), meta.last_log_id.map(|id| id.index));
    }
    let held = Held::by(&mut log);
    let purged = held.purged.map(|id| id.index);
    assert!(purged <= applied, "{context}: purged to {purged:?}, and the snapshot ends at {applied:?}");
    for (index, _) in held.entries.range(applied.map_or(0, |applied| applied + 1)..) {
        assert_eq!(*index, applied.map_or(0, |applied| applied + 1), "{context}: a hole");
        state.apply(*index, command(*index));
        applied = Some(*index);
    }
    let under_way = acknowledged.map_or(0, |index| index + 1);
    assert!(applied == acknowledged || applied == Some(under_way), "{context}: {applied:?}, not {acknowledged:?}");
    let digest = applied.and_then(|applied| digests().remove(&applied)).unwrap_or_default();
    assert_eq!(state.tables().digest(), digest, "{context}: after {applied:?}");
}

#[test]
fn log_and_snapshot_are_the_state_that_was_acknowledged_whatever_fails_at_any_operation() {
    let operations = {
        let disk = SimDisk::new(0);
        assert_eq!(run(&disk), Some(ENTRIES - 1));
        assert!(!disk.contents().is_empty());
        disk.operations()
    };
    println!("{operations} operations, three faults at each");
    for fault in [Fault::PowerLoss, Fault::Eio, Fault::Enospc] {
        for operation in 0..operations {
            let disk = SimDisk::new(operation);
            disk.fail_at(operation, fault);
            let acknowledged = run(&disk);
            for survival in [Survival::Nothing, Survival::Everything, Survival::Any(operation)] {
                let context = format!("{fault:?} at operation {operation}, {survival:?}");
                check(&disk.crash(survival), acknowledged, &context);
            }
        }
    }
}
