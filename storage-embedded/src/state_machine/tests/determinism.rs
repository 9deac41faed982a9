//! The same commands make the same state everywhere.

use super::*;
use crate::{raft::SnapshotMeta, simulated::SimDisk, snapshot::SnapshotStore, tables::Tables};

/// A snapshot of the tables, and the tables that come out of it.
fn snapshot(tables: &Tables) -> (Vec<u8>, Tables) {
    let disk = SimDisk::new(1);
    let store = SnapshotStore::open(std::sync::Arc::new(disk.clone()), "/s").unwrap();
    let written = store.write(SnapshotMeta::default(), tables, &|| true).unwrap();
    let (_, loaded) = store.load(&written.snapshot).unwrap();
    (disk.contents().into_values().next().unwrap(), loaded)
}

proptest! {
    #[test]
    fn two_states_and_one_that_went_through_a_snapshot_stay_equal(
        commands in commands(),
        at in any::<prop::sample::Index>(),
    ) {
        let at = at.index(commands.len() + 1);
        let (mut one, mut other) = (Applier::default(), Applier::default());
        let mut restored = Applier::default();
        for (place, command) in commands.into_iter().enumerate() {
            if place == at {
                restored = Applier { state: State::new(snapshot(one.state.tables()).1), index: one.index };
            }
            let answer = one.apply(command.clone());
            prop_assert_eq!(&other.apply(Command::decode(command.encode()).unwrap()), &answer);
            if place >= at {
                prop_assert_eq!(&restored.apply(command), &answer);
            }
        }
        let (bytes, loaded) = snapshot(one.state.tables());
        prop_assert_eq!(one.state.tables().digest(), other.state.tables().digest());
        prop_assert_eq!(loaded.digest(), one.state.tables().digest(), "the running hash is the hash of what is there");
        prop_assert_eq!(&snapshot(other.state.tables()).0, &bytes);
        if restored.index > 0 {
            prop_assert_eq!(&snapshot(restored.state.tables()).0, &bytes);
        }
    }

    #[test]
    fn a_clone_is_not_changed_by_what_comes_later(before in commands(), after in commands()) {
        let mut applier = Applier::default();
        before.into_iter().for_each(|command| drop(applier.apply(command)));
        let view = applier.state.tables().clone();
        let (bytes, _) = snapshot(&view);
        after.into_iter().for_each(|command| drop(applier.apply(command)));
        prop_assert_eq!(snapshot(&view).0, bytes);
    }
}

#[test]
fn different_states_have_different_hashes() {
    let mut seen = std::collections::BTreeSet::new();
    let mut applier = Applier::default();
    seen.insert(applier.state.tables().digest().0);
    let commands = [
        Command::Txn { txn: Txn::new().put(key("a"), "1"), operation: None, request: None },
        Command::Txn { txn: Txn::new().put(key("a"), "1"), operation: None, request: None },
        Command::Txn { txn: Txn::new().put(key("b"), "1"), operation: Some(OperationId(1)), request: None },
        Command::Txn {
            txn: Txn::new().guard(key("b"), Expected::Absent),
            operation: Some(OperationId(2)),
            request: None,
        },
        Command::OpenSession { nonce: 1 },
        Command::LeaseGrant { id: 1, ttl_seconds: 1 },
        leased_put("a", "1", 1),
        Command::RowPut { name: "r".into(), value: "1".into() },
    ];
    for command in commands {
        applier.apply(command);
        assert!(seen.insert(applier.state.tables().digest().0));
    }
}
