//! Invariants of the keys, broken on purpose.

use bytes::Bytes;
use storage_core::Key;

use super::*;

fn key(text: &str) -> Key {
    Key::try_from(text).unwrap()
}

fn change(revision: u64) -> Change {
    Change { revision, key: key("a"), record: None, previous: None }
}

#[test]
#[should_panic(expected = "a revision rises by one")]
fn a_revision_is_used_once() {
    let mut keys = KeySpace::default();
    let mut write = keys.write();
    write.put(&key("a"), &Bytes::new(), 0);
    write.revision = 7;
    write.end();
}

#[test]
#[should_panic(expected = "a revision does not follow the one before it")]
fn the_history_has_no_gap() {
    let mut history = History::default();
    history.push(change(4));
    history.push(change(6));
}

#[test]
#[should_panic(expected = "what was compacted comes back")]
fn what_is_compacted_stays_compacted() {
    let mut history = History::default();
    history.compact(5);
    history.compact(4);
}

#[test]
#[should_panic(expected = "a lease is granted under the id of another one, or of none")]
fn a_lease_has_an_id_of_its_own() {
    let mut keys = KeySpace::default();
    keys.add_lease(3, 10, 1);
    keys.add_lease(3, 10, 2);
}

#[test]
#[should_panic(expected = "a key is attached to a lease that there is")]
fn a_key_has_no_lease_that_is_not_there() {
    Leases::default().attach(&key("a"), 0, 3);
}

#[test]
#[should_panic(expected = "a key is not attached to the lease that its record names")]
fn a_lease_has_all_its_keys() {
    let mut keys = KeySpace::default();
    keys.add_lease(3, 10, 1);
    keys.leases.attach(&key("a"), 3, 0);
}

/// What damage could put into a snapshot is an error and no panic.
#[test]
fn items_that_contradict_each_other_are_refused() {
    let mut keys = KeySpace::default();
    let record = |lease| Record { value: Bytes::new(), create_revision: 1, mod_revision: 1, version: 1, lease };
    keys.restore_lease(3, 10, 1).unwrap();
    keys.restore_record(&key("a"), record(3)).unwrap();
    keys.restore_change(change(4)).unwrap();
    let before = (keys.len(), keys.leases.0.len(), keys.history.len(), keys.digest());
    assert!(keys.restore_lease(3, 10, 1).is_err());
    assert!(keys.restore_lease(0, 10, 1).is_err());
    assert!(keys.restore_record(&key("a"), record(3)).is_err());
    assert!(keys.restore_record(&key("b"), record(4)).is_err());
    assert!(keys.restore_change(change(3)).is_err());
    assert!(keys.restore_change(change(6)).is_err());
    assert_eq!((keys.len(), keys.leases.0.len(), keys.history.len(), keys.digest()), before);
}
