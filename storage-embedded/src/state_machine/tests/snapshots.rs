use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use openraft::Membership;
use storage_core::{Expected, OperationId, Txn, Version};

use super::*;
use crate::{
    disk::{Disk as _, RealDisk},
    raft::{LogId, Member, SnapshotMeta, StoredMembership},
    simulated::{Fault, SimDisk, Survival},
    snapshot::{Damaged, SnapshotStore},
    tables::Tables,
};

const DIR: &str = "/node/snapshots";

fn log_id(index: u64) -> LogId {
    LogId::new(openraft::alias::CommittedLeaderIdOf::<crate::raft::TypeConfig>::new(3), index)
}

fn meta(index: u64) -> SnapshotMeta {
    let member = Member { name: "n1".into(), peer_address: "127.0.0.1:1".into(), client_url: String::new() };
    let membership = Membership::new(vec![BTreeSet::from([1])], std::collections::BTreeMap::from([(1, member)]));
    SnapshotMeta {
        last_log_id: Some(log_id(index)),
        last_membership: StoredMembership::new(Some(log_id(1)), membership.unwrap()),
    }
}

/// A state with something in each table.
fn state() -> State {
    let mut state = State::default();
    let request = |sequence| Request { session: 1, sequence, acknowledged_below: 1 };
    let commands = [
        Command::OpenSession { nonce: 5 },
        Command::LeaseGrant { id: 9, ttl_seconds: 30 },
        Command::Once { request: request(1), command: Box::new(leased_put("leased", "l", 9)) },
        Command::Txn {
            txn: Txn::new().put(key("a"), "1").put(key("b"), ""),
            operation: Some(OperationId(7)),
            request: None,
        },
        Command::Txn {
            txn: Txn::new().guard(key("a"), Expected::Version(Version::from_u64(1))).delete(key("a")),
            operation: Some(OperationId(8)),
            request: Some(request(2)),
        },
        Command::RowPut { name: "row".into(), value: "content".into() },
        Command::Compact { revision: 3 },
    ];
    for (index, command) in (1..).zip(commands) {
        state.apply(index, command);
    }
    state
}

fn store(disk: &SimDisk) -> SnapshotStore {
    SnapshotStore::open(Arc::new(disk.clone()), DIR).unwrap()
}

/// A disk with a snapshot of these tables, and the path of that.
fn written(tables: &Tables, index: u64) -> (SimDisk, PathBuf) {
    let disk = SimDisk::new(1);
    store(&disk).write(meta(index), tables, &|| true).unwrap();
    let path = disk.contents().into_keys().find(|path| path.starts_with(DIR)).unwrap();
    (disk, path)
}

fn bytes_of(tables: &Tables) -> Vec<u8> {
    let (disk, path) = written(tables, 6);
    disk.contents().remove(&path).unwrap()
}

/// What loading a snapshot of these bytes gives.
fn load(bytes: &[u8]) -> std::io::Result<(SnapshotMeta, Tables)> {
    let disk = SimDisk::new(1);
    let mut incoming = store(&disk).receive().unwrap();
    incoming.write_chunk(bytes)?;
    store(&SimDisk::new(2)).load(&incoming.finish()?)
}

/// What a replica has that was sent a snapshot of these tables.
pub(super) fn reloaded(tables: &Tables) -> Tables {
    load(&bytes_of(tables)).unwrap().1
}

fn damage(error: &std::io::Error) -> &Damaged {
    error.get_ref().unwrap().downcast_ref::<Damaged>().unwrap()
}

#[test]
fn a_snapshot_survives_a_restart() {
    let state = state();
    let (disk, _) = written(state.tables(), 6);
    let disk = disk.crash(Survival::Nothing);
    let newest = store(&disk).newest().unwrap();
    assert_eq!(newest.meta, meta(6));
    let (found, tables) = store(&disk).load(&newest.snapshot).unwrap();
    assert_eq!(found, meta(6));
    assert_eq!(tables.digest(), state.tables().digest());
    assert_eq!(tables.counts(), state.tables().counts());
    assert_eq!(bytes_of(&tables), bytes_of(state.tables()), "canonical");
}

#[test]
fn what_was_deduplicated_before_is_deduplicated_after() {
    let mut before = state();
    let (_, tables) = load(&bytes_of(before.tables())).unwrap();
    let mut after = State::new(tables);
    let again = |operation, sequence| {
        let request = Some(Request { session: 1, sequence, acknowledged_below: 1 });
        Command::Txn { txn: Txn::new().put(key("a"), "again"), operation, request }
    };
    let revision = before.tables().keys.revision;
    for command in [again(Some(OperationId(7)), 5), again(None, 1), again(None, 2), Command::LeaseRevoke { id: 9 }] {
        assert_eq!(after.apply(20, command.clone()), before.apply(20, command));
    }
    assert_eq!(after.tables().keys.revision, revision + 1, "the lease alone changed something");
    assert_eq!(after.tables().keys.record(&key("leased")), None);
    assert_eq!(after.tables().digest(), before.tables().digest());
}

#[test]
fn every_cut_is_noticed() {
    let whole = bytes_of(state().tables());
    for cut in 0..whole.len() {
        let error = load(&whole[..cut]).unwrap_err();
        assert!(damage(&error).offset <= cut as u64, "cut at {cut}");
    }
    let mut longer = whole;
    longer.push(0);
    assert!(load(&longer).is_err());
}

#[test]
fn every_flipped_bit_is_noticed_before_its_chunk_is_used() {
    let whole = bytes_of(state().tables());
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = load(&flipped).unwrap_err();
        assert!(damage(&error).offset <= (bit / 8) as u64, "bit {bit}: {error}");
    }
}

#[test]
fn a_damaged_snapshot_stops_the_start_and_names_the_place() {
    let (disk, path) = written(state().tables(), 6);
    let length = disk.contents()[&path].len();
    disk.damage(&path, |bytes| *bytes.last_mut().unwrap() ^= 1).unwrap();
    let newest = store(&disk).newest().unwrap();
    let error = store(&disk).load(&newest.snapshot).unwrap_err();
    let Damaged { path: named, offset, .. } = damage(&error);
    assert_eq!((named, *offset), (&path, length as u64 - 17), "the trailer is 17 bytes long");
    disk.damage(&path, |bytes| bytes[12] ^= 1).unwrap();
    let error = SnapshotStore::open(Arc::new(disk), DIR).unwrap_err();
    assert_eq!(damage(&error).offset, 12);
}

/// The power goes at each operation in turn while a snapshot replaces another.
#[test]
fn a_crash_while_writing_leaves_the_old_snapshot_or_the_new_one() {
    let (old, mut new) = (state(), state());
    new.apply(7, Command::RowDelete { name: "row".into() });
    let mut seen = BTreeSet::new();
    for seed in 0..8 {
        for operation in 0.. {
            let (disk, _) = written(old.tables(), 6);
            let store_before = store(&disk);
            disk.fail_at(disk.operations() + operation, Fault::PowerLoss);
            let finished = store_before.write(meta(7), new.tables(), &|| true).is_ok();
            let survivals = [Survival::Nothing, Survival::Everything, Survival::Any(seed)];
            for survival in survivals {
                let found = store(&disk.crash(survival));
                let newest = found.newest().unwrap();
                let (meta, tables) = found.load(&newest.snapshot).unwrap();
                let index = meta.last_log_id.unwrap().index;
                let expected = if index == 7 { &new } else { &old };
                assert_eq!(tables.digest(), expected.tables().digest());
                assert!(!finished || index == 7, "a snapshot that was reported is there");
                seen.insert(index);
            }
            if finished {
                break;
            }
        }
    }
    assert_eq!(seen, BTreeSet::from([6, 7]));
}

#[test]
fn one_snapshot_is_kept_and_unfinished_ones_are_removed() {
    let (disk, _) = written(state().tables(), 6);
    let files = |disk: &SimDisk| disk.contents().len();
    let store_6 = store(&disk);
    let mut incoming = store_6.receive().unwrap();
    incoming.write_chunk(b"a piece").unwrap();
    assert_eq!(files(&disk), 2);
    drop(incoming);
    assert_eq!(files(&disk), 1, "given up");
    let unfinished = store_6.receive().unwrap();
    std::mem::forget(unfinished);
    let refused = store_6.write(meta(7), state().tables(), &|| false).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::Interrupted);
    assert_eq!(files(&disk), 2);
    let reopened = store(&disk);
    assert_eq!(files(&disk), 1, "left over from before the restart");
    reopened.write(meta(7), state().tables(), &|| true).unwrap();
    assert_eq!(files(&disk), 1);
    assert_eq!(reopened.newest().unwrap().meta, meta(7));
    let late = reopened.write(meta(6), state().tables(), &|| true).unwrap();
    assert_eq!((late.meta, files(&disk)), (meta(7), 1), "a newer one stays");
}

/// Its header is whole, so that it is found out only when it is loaded.
#[test]
fn an_older_snapshot_stays_until_the_newest_was_loaded() {
    let (older, path) = written(state().tables(), 6);
    let (newer, newest) = written(state().tables(), 7);
    let mut bytes = newer.contents().remove(&newest).unwrap();
    let open = |bytes: &[u8]| {
        let disk = older.fork();
        disk.create(&newest).unwrap().write_at(bytes, 0).unwrap();
        let opened = StateMachine::open(Arc::new(disk.clone()), DIR).is_ok();
        (opened, disk.contents().contains_key(&path), disk.contents().contains_key(&newest))
    };
    assert_eq!(open(&bytes), (true, false, true));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    assert_eq!(open(&bytes), (false, true, true));
}

#[test]
fn a_snapshot_can_be_sent_while_a_newer_one_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(Arc::new(RealDisk), dir.path()).unwrap();
    let mut state = state();
    for number in 0..2000 {
        let put = Txn::new().put(key(&number.to_string()), vec![7; 300]);
        state.apply(100 + number, Command::Txn { txn: put, operation: None, request: None });
    }
    let first = store.write(meta(6), state.tables(), &|| true).unwrap().snapshot;
    let chunks = first.open_chunks().unwrap();
    store.write(meta(7), state.tables(), &|| true).unwrap();
    assert!(!first.path().exists());
    let mut incoming = store.receive().unwrap();
    let mut count = 0;
    for chunk in chunks {
        incoming.write_chunk(&chunk.unwrap()).unwrap();
        count += 1;
    }
    assert!(count > 1, "it takes several chunks");
    let received = incoming.finish().unwrap();
    assert_eq!(received.length(), first.length());
    let (_, tables) = store.load(&received).unwrap();
    assert_eq!(tables.digest(), state.tables().digest());
}

#[test]
fn a_writer_that_is_not_wanted_any_more_stops_soon() {
    let mut state = State::default();
    let put = Txn::new().put(key("a"), vec![7; 1 << 20]).put(key("b"), vec![7; 1 << 20]);
    state.apply(1, Command::Txn { txn: put, operation: None, request: None });
    let asked = std::cell::Cell::new(0);
    let go_on = || {
        asked.set(asked.get() + 1);
        asked.get() < 3
    };
    let disk = SimDisk::new(1);
    assert!(store(&disk).write(meta(6), state.tables(), &go_on).is_err());
    assert_eq!((asked.get(), disk.contents().len()), (3, 0));
}

/// The file was written by an earlier state of this program, with something in each table. To make it anew after a deliberate change of
/// the version, run this with `WRITE_GOLDEN=1` in the environment.
#[test]
fn version_2_is_written_and_read_as_ever() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/snapshot-v2.snapshot");
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(&file, bytes_of(state().tables())).unwrap();
    }
    let golden = std::fs::read(&file).unwrap();
    let (found, tables) = load(&golden).unwrap();
    assert_eq!((found, tables.counts()), (meta(6), state().tables().counts()));
    assert!(bytes_of(&tables) == golden, "what was read is written back byte for byte");
}

/// With users and roles, which a snapshot has only if there ever were some.
#[test]
fn users_and_roles_are_written_and_read_as_ever() {
    let mut state = state();
    for (index, change) in (20..).zip(auth::changes()) {
        assert_eq!(state.apply(index, Command::Auth(change)), Applied::Nothing);
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/snapshot-v2-users.snapshot");
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(&file, bytes_of(state.tables())).unwrap();
    }
    let golden = std::fs::read(&file).unwrap();
    let (_, tables) = load(&golden).unwrap();
    assert_eq!((tables.digest(), tables.counts()), (state.tables().digest(), state.tables().counts()));
    assert!(bytes_of(&tables) == golden, "what was read is written back byte for byte");
    let mut after = State::new(tables);
    for command in auth::requests() {
        assert_eq!(after.apply(50, command.clone()), state.apply(50, command));
    }
}

/// With alarms, which a snapshot has only while some stand.
#[test]
fn alarms_are_written_and_read_as_ever() {
    let mut state = state();
    for member in [9, 4] {
        state.apply(20 + member, Command::Alarm { member, raise: true });
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/snapshot-v2-alarms.snapshot");
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(&file, bytes_of(state.tables())).unwrap();
    }
    let golden = std::fs::read(&file).unwrap();
    let (_, tables) = load(&golden).unwrap();
    assert_eq!((tables.digest(), tables.alarms().collect::<Vec<_>>()), (state.tables().digest(), vec![4, 9]));
    assert!(bytes_of(&tables) == golden, "what was read is written back byte for byte");
}

#[test]
fn the_history_is_the_same_after_a_snapshot() {
    let before = state();
    let (_, after) = load(&bytes_of(before.tables())).unwrap();
    let history = |tables: &Tables| tables.keys.history.iter().cloned().collect::<Vec<_>>();
    assert_eq!(history(&after), history(before.tables()));
    let bounds = |tables: &Tables| (tables.keys.history.oldest(), tables.keys.history.compacted());
    assert_eq!(bounds(&after), bounds(before.tables()));
    assert_eq!(bounds(&after), (1, Some(3)), "the sample has one");
}
